"""What Python and Jupyter show of the package, a run and a sweep."""

import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import ROOT

import segsweep
from segsweep.cards import SIDE, Card
from segsweep.plots import curves


def test_every_documented_name_is_offered_by_tab_completion():
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"segsweep\.(\w+)", text)) | set(re.findall(r"from segsweep import (\w+)", text))
    assert documented - {"code"} <= set(dir(segsweep))
    assert not any(name.startswith("_") for name in dir(segsweep) if name != "__version__")
    for name in dir(segsweep):
        assert getattr(segsweep, name) is not None


def pictures(html: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(content))) for content in found]


def test_text_of_strangers_is_escaped_and_cut():
    hostile = "<script>alert(1)</script>\x1b[31m\n" + "x" * 500
    card = Card(hostile, [hostile], ["<b>"], [[hostile]])
    assert "<script" not in card.html()
    assert "<th>&lt;b&gt;</th>" in card.html()
    assert "\x1b" not in card.text()
    assert len(card.text().splitlines()) == 2
    assert max(map(len, card.text().splitlines())) < 130


def test_a_picture_is_at_screen_size_whatever_its_file_claims(tmp_path: Path):
    Image.new("RGB", (3000, 100)).save(tmp_path / "wide.png")
    (picture,) = pictures(Card("a", []).html(tmp_path / "wide.png"))
    assert max(picture.size) == SIDE
    Image.new("1", (5000, 5000)).save(tmp_path / "bomb.png")
    (tmp_path / "text.png").write_text("no picture")
    for name in ("bomb.png", "text.png", "missing.png"):
        assert pictures(Card("a", []).html(tmp_path / name)) == []


@pytest.mark.quick
def test_a_run_shows_where_it_is_what_it_is_and_how_good(train, tmp_path: Path):
    folder = train("lr=0.02")
    run = segsweep.load_run(folder)
    text = repr(run)
    assert len(text.splitlines()) <= 7
    assert len(text) < 700
    for part in ("run", "TextureCNN", "lr 0.02", f"val/iou {run.summary.metrics['val/iou']:.4f}"):
        assert part in text
    html = run._repr_html_()
    assert len(pictures(html)) == 1
    assert f"<td>{run.summary.metrics['test/accuracy']:.4f}</td>" in html
    assert len(html) < 200_000
    alone = segsweep.load_run(shutil.copy(folder / "checkpoints/best.ckpt", tmp_path / "alone.ckpt"))
    assert "alone.ckpt" in repr(alone)
    assert pictures(alone._repr_html_()) == []


def test_feature_maps_leave_outliers_out_of_their_scale_by_default():
    from segsweep import plots

    maps = np.random.default_rng(0).uniform(size=(4, 20, 20))
    maps[0, 0, 0] = 1000
    assert plots.feature_maps(maps).axes[0].images[0].get_clim()[1] < 1


def test_a_figure_becomes_a_picture(tmp_path: Path):
    import pandas as pd

    figure = curves({"a": pd.DataFrame({"step": [1, 2], "loss": [1.0, 0.5]})}, "loss")
    (picture,) = pictures(Card("a", []).html(figure))
    assert picture.width == SIDE
