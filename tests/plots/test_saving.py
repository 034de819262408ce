import json
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from segsweep import plots


def figure():
    return plots.texture_pair(np.linspace(0, 1, 64).reshape(8, 8), np.eye(8))


def test_an_image_has_the_figures_pixels_and_leaves_the_figure_alone():
    drawn = figure()
    canvas, dpi = drawn.canvas, drawn.dpi
    image = plots.to_image(drawn, dpi=50)
    width, height = drawn.get_size_inches() * 50
    assert image.dtype == np.uint8
    assert np.abs(np.subtract(image.shape[:2], (height, width))).max() <= 1
    assert image.shape[2] == 3
    assert image.min() < 50
    assert image[0, 0].tolist() == [255, 255, 255]
    assert drawn.canvas is canvas
    assert drawn.dpi == dpi


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_same_figure_gives_the_same_file(tmp_path, suffix):
    first = plots.save(figure(), tmp_path / f"first.{suffix}", dpi=40)
    second = plots.save(figure(), str(tmp_path / f"second.{suffix}"), dpi=40)
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"first.{suffix}", f"second.{suffix}"]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    path.write_bytes(b"before")

    def fails_half_way(self, target, **settings):
        target.write_bytes(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr(Figure, "savefig", fails_half_way)
    with pytest.raises(OSError, match="no space left"):
        plots.save(figure(), path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_half_a_file(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    seen = []
    savefig = Figure.savefig

    def watched(self, target, **settings):
        savefig(self, target, **settings)
        seen.append(path.exists())

    monkeypatch.setattr(Figure, "savefig", watched)
    plots.save(figure(), path, dpi=30)
    assert seen == [False]
    assert path.read_bytes().startswith(b"\x89PNG")


def test_save_refuses_unknown_formats_bad_resolutions_and_missing_folders(tmp_path):
    with pytest.raises(ValueError, match="format 'bmp9'"):
        plots.save(figure(), tmp_path / "a.bmp9")
    with pytest.raises(ValueError, match="format ''"):
        plots.save(figure(), tmp_path / "a")
    with pytest.raises(ValueError, match="dpi is 0"):
        plots.save(figure(), tmp_path / "a.png", dpi=0)
    with pytest.raises(FileNotFoundError):
        plots.save(figure(), tmp_path / "missing" / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_figures_do_not_depend_on_the_callers_settings_and_leave_them_alone():
    plain = plots.to_image(figure(), dpi=40)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "text.color": "red", "image.cmap": "jet"}):
        before = dict(matplotlib.rcParams)
        assert np.array_equal(plots.to_image(figure(), dpi=40), plain)
        assert dict(matplotlib.rcParams) == before


def test_nothing_imports_pyplot_or_the_rest_of_the_package():
    code = """
import json, sys, numpy
from segsweep import plots
plots.to_image(plots.samples(numpy.zeros((1, 4, 4)), numpy.zeros((1, 4, 4))))
plots.to_image(plots.confusion([[1]], ["a"]))
print(json.dumps(list(sys.modules)))
"""
    outcome = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    imported = set(json.loads(outcome.stdout))
    assert "matplotlib" in imported
    assert not imported & {"matplotlib.pyplot", "torch"}
    assert [name for name in imported if name.startswith("segsweep.") and not name.startswith("segsweep.plots")] == []
