"""If the files have more bits than their camera, one line per command suggests data.white."""

import logging
from pathlib import Path

import numpy as np
import pytest
from data_folders import Folder, png
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segsweep.data.folder import FolderSource
from segsweep.data.images import ImageRule, read_image
from segsweep.errors import UserError
from segsweep.image_files.arrays import Brightest

tifffile = pytest.importorskip("tifffile")


@given(tops=st.lists(st.integers(0, 65535) | st.none(), max_size=6))
def test_one_warning_if_no_file_reaches_the_upper_three_quarters(tops: list[int | None]) -> None:
    brightest, given_white = Brightest(None), Brightest(65535)
    for number, top in enumerate(tops):
        brightest.add(Path(f"{number}.png"), top, "I;16")
        given_white.add(Path(f"{number}.png"), top, "I;16")
    deep = [top for top in tops if top is not None]
    doubt = brightest.doubt()
    assert (doubt is not None) == (bool(deep) and max(deep) < 2**14)
    if doubt is not None:
        bits = next(bits for bits in (8, 10, 12, 14) if max(deep) < 2**bits)
        assert f"data.white={2**bits - 1} " in doubt
        assert doubt.startswith(f"{tops.index(max(deep))}.png: ")
        assert f" {len(deep)} " in doubt
    assert brightest.doubt() is None
    assert given_white.doubt() is None


@pytest.mark.parametrize("kind", ["gray.png", "gray.tif", "colour.tif", "bands.tif", "bands.npy"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_decoding_a_folder_warns_once(folder: Folder, caplog: pytest.LogCaptureFixture, kind: str, bits: int) -> None:
    what, _, extension = kind.partition(".")
    channels = {"gray": 1, "colour": 3, "bands": 4}[what]
    for part, names in (("train", "ab"), ("val", "c"), ("test", "d")):
        for name in names:
            folder.pair(name, folder=f"{part}/")
            path = folder.root / part / "images" / f"{name}.png"
            path.unlink()
            values = np.random.default_rng(ord(name)).integers(0, 2**bits, (20, 24, channels), dtype=np.uint16)
            values[0, 0], path = 2**bits - 1, path.with_suffix(f".{extension}")
            if extension == "npy":
                np.save(path, values)
            elif extension == "tif":
                squeezed, photometric = np.squeeze(values), "rgb" if what == "colour" else "minisblack"
                options = {} if what == "gray" else {"planarconfig": "contig"}
                tifffile.imwrite(path, squeezed, photometric=photometric, **options)
            else:
                Image.fromarray(values[..., 0]).save(path)
    folder.table()
    for white, expected in ((None, int(bits < 16)), (65535, 0), (2**bits - 1, 0)):
        caplog.clear()
        source = FolderSource(str(folder.root), channels=channels, white=white)
        with caplog.at_level(logging.WARNING, "segsweep"):
            for split in ("train", "val", "test"):
                source.dataset(split)  # type: ignore[arg-type]
        lines = [line for line in caplog.messages if f"data.white={2**bits - 1}" in line]
        assert len(lines) == len(caplog.messages) == expected


@pytest.mark.parametrize("color_type", [2, 6])
def test_the_way_out_for_colour_that_pillow_reduces_works(tmp_path: Path, color_type: int) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (20, 24, {2: 3, 6: 4}[color_type]), dtype=np.uint16)
    values[0, 0, 0], values[..., 3:] = 4095, 65535
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    path = png(tmp_path / "a.png", 24, 20, 16, color_type, rows)
    doubt = doubt_of(path, ImageRule())
    assert "TIFF" in doubt
    assert "data.white=4095" in doubt
    with pytest.raises(UserError, match="TIFF"):
        read_image(path, ImageRule(white=4095))
    tiff, extra = path.with_suffix(".tif"), ["unassalpha"] * (color_type == 6)
    tifffile.imwrite(tiff, values, photometric="rgb", extrasamples=extra)
    doubt = doubt_of(tiff, ImageRule())
    assert ("data.bands=[0,1,2]" in doubt) == (color_type == 6)
    rule = ImageRule(white=4095, bands=(0, 1, 2) if color_type == 6 else None)
    expected = np.floor(values[..., :3].astype(np.float64) * 255 / 4095 + 0.5)
    assert np.array_equal(read_image(tiff, rule).pixels, expected.transpose(2, 0, 1))


def doubt_of(path: Path, rule: ImageRule) -> str:
    brightest, reading = Brightest(rule.white), read_image(path, rule)
    brightest.add(path, reading.top, reading.mode)
    return str(brightest.doubt())
