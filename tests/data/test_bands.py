"""Images of any number of bands and any type of values: TIFF by tifffile, and .npy."""

import resource
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segsweep.data.images import ImageRule, image_shape, read_image, room_needed
from segsweep.errors import UserError

tifffile = pytest.importorskip("tifffile")


def noise(bands: int, dtype: Any = np.uint8, height: int = 35, width: int = 41) -> np.ndarray:
    """[H, W, N], over the whole range of unsigned types, and over 0 to 1 for floats."""
    values = np.random.default_rng(bands).random((height, width, bands))
    values[0, 0], values[0, 1] = 0, 1
    return (values if np.dtype(dtype).kind == "f" else np.round(values * np.iinfo(dtype).max)).astype(dtype)


def write(path: Path, values: np.ndarray, **options: Any) -> Path:
    """A TIFF of bands [H, W, N], that are unspecified unless options say otherwise."""
    gray = options.get("photometric", "minisblack") == "minisblack"
    extra = ["unspecified"] * (values.shape[2] - (1 if gray else 3))
    options = {
        "photometric": "minisblack",
        "planarconfig": "contig",
        **({"extrasamples": extra} if extra else {}),
    } | options
    if values.shape[2] == 1:
        values = values[..., 0]
        del options["planarconfig"]
    elif options["planarconfig"] == "separate":
        values = np.moveaxis(values, 2, 0)
    tifffile.imwrite(path, values, **options)
    return path


def refused(path: Path, rule: ImageRule | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read_image(path, rule or ImageRule())
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def expected(values: np.ndarray, white: float) -> np.ndarray:
    """Channels first, `white` as 255."""
    values = np.moveaxis(values, 2, 0)
    return values if values.dtype == np.uint8 else np.floor(values.astype(np.float64) * 255 / white + 0.5)


LAYOUTS: dict[str, dict[str, Any]] = {
    "strips": {"rowsperstrip": 8},
    "one strip": {},
    "planar": {"planarconfig": "separate", "rowsperstrip": 9},
    "tiles": {"tile": (16, 32)},
    "planar tiles": {"tile": (16, 16), "planarconfig": "separate"},
    "deflate": {"compression": "zlib", "predictor": True, "tile": (16, 16)},
    "LZW": {"compression": "lzw", "rowsperstrip": 7},
    "ZSTD": {"compression": "zstd", "planarconfig": "separate"},
    "BigTIFF": {"bigtiff": True},
    "big-endian": {"byteorder": ">", "rowsperstrip": 8},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("bands", [1, 2, 4, 5, 7])
def test_every_band_is_read_from_every_layout(tmp_path: Path, layout: str, dtype: Any, bands: int) -> None:
    values = noise(bands, dtype)
    white = 1.0 if np.dtype(dtype).kind == "f" else 65535
    path = write(tmp_path / "x.tif", values, **LAYOUTS[layout])
    rule = ImageRule(channels=bands, white=white)
    reading = read_image(path, rule)
    assert reading.pixels.dtype == np.uint8
    assert reading.pixels.flags.c_contiguous
    assert np.array_equal(reading.pixels, expected(values, white))
    assert image_shape(path, rule) == (35, 41)
    assert reading.top == (None if dtype == np.uint8 else values.max())


@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
@pytest.mark.parametrize("extra", ["unspecified", "unassalpha", "assocalpha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_four_bands_are_read_whatever_they_are_called(tmp_path: Path, photometric: str, extra: str, dtype: Any) -> None:
    names = ["unspecified", "unspecified", extra] if photometric == "minisblack" else [extra]
    path = write(tmp_path / "x.tif", noise(4, dtype), photometric=photometric, extrasamples=names)
    assert np.array_equal(read_image(path, ImageRule(channels=4)).pixels, expected(noise(4, dtype), 65535))
    message = refused(path)
    assert "data.channels=4" in message
    assert (
        "transparent" in message
        if (photometric, extra) != ("minisblack", extra) and extra != "unspecified"
        else "data.bands=[0,1,2]" in message
    )


@settings(max_examples=25, deadline=None)
@given(data=st.data(), number=st.integers(1, 6))
def test_chosen_bands_are_those_of_all_bands_in_the_order_asked_for(data: st.DataObject, number: int) -> None:
    wanted = data.draw(st.lists(st.integers(0, number - 1), min_size=1, max_size=6))
    with tempfile.TemporaryDirectory() as folder:
        values = noise(number, np.uint16)
        paths = [write(Path(folder, "x.tif"), values), Path(folder, "x.npy")]
        np.save(paths[1], values)
        for path in paths:
            every = read_image(path, ImageRule(channels=number)).pixels
            chosen = read_image(path, ImageRule(channels=len(wanted), bands=wanted)).pixels
            assert np.array_equal(chosen, every[wanted])


def test_bands_of_formats_that_pillow_reads_are_chosen_too(tmp_path: Path) -> None:
    values = noise(4)
    Image.fromarray(values[..., :3]).save(tmp_path / "rgb.png")
    Image.fromarray(values, "RGBA").save(tmp_path / "rgba.png")
    Image.fromarray(values[..., 0]).save(tmp_path / "gray.png")
    for name, channels, bands in (("rgb", 3, (2, 0, 1)), ("rgba", 2, (3, 1)), ("gray", 1, (0,)), ("rgb", 1, (1,))):
        pixels = read_image(tmp_path / f"{name}.png", ImageRule(channels=channels, bands=bands)).pixels
        assert np.array_equal(pixels, expected(values, 255)[list(bands)])
    assert np.array_equal(read_image(tmp_path / "rgba.png", ImageRule(channels=4)).pixels, expected(values, 255))
    for name, number in (("rgb", 3), ("gray", 1)):
        assert f"data.channels={number} " in refused(tmp_path / f"{name}.png", ImageRule(channels=4))
    assert "asks for band 3" in refused(tmp_path / "rgb.png", ImageRule(channels=1, bands=(3,)))


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize(("bands", "photometric"), [(3, "rgb"), (1, "minisblack")])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_plain_files_are_read_as_pillow_reads_them(
    tmp_path: Path, compression: str | None, bands: int, photometric: str, dtype: Any
) -> None:
    values = noise(bands, dtype)
    path = write(tmp_path / "x.tif", values, photometric=photometric, compression=compression)
    with Image.open(path) as image:
        shown = np.atleast_3d(np.asarray(image))
    assert np.array_equal(read_image(path, ImageRule(channels=bands)).pixels, expected(shown, 65535))
    # tifffile gives the same of 8 bits and of 16-bit gray. Of 16-bit colour Pillow keeps the upper 8 bits.
    again = write(tmp_path / "y.tif", np.concatenate([values, values], 2), compression=compression)
    chosen = read_image(again, ImageRule(channels=bands, bands=list(range(bands)))).pixels
    assert np.abs(chosen.astype(int) - expected(shown, 65535)).max() <= (1 if (bands, dtype) == (3, np.uint16) else 0)


def test_colour_of_twelve_bits_in_a_tiff_is_scaled_from_white(tmp_path: Path) -> None:
    values = noise(3, np.uint16) >> 4
    path = write(tmp_path / "x.tif", values, photometric="rgb")
    assert np.array_equal(read_image(path, ImageRule(white=4095)).pixels, expected(values, 4095))
    assert read_image(path).top == 4095


def test_a_folder_of_three_and_of_four_bands_is_read_as_either_message_says(tmp_path: Path) -> None:
    three, four = (write(tmp_path / f"{number}.tif", noise(number, np.uint16)) for number in (3, 4))
    for path, channels in ((three, 4), (four, 3)):
        message = refused(path, ImageRule(channels=channels))
        assert "data.bands=[0,1,2]" in message
    assert "data.channels=3 and 'data.bands" in refused(three, ImageRule(channels=4))
    for path, number in ((three, 3), (four, 4)):
        pixels = read_image(path, ImageRule(channels=3, bands=(0, 1, 2))).pixels
        assert np.array_equal(pixels, expected(noise(number, np.uint16), 65535)[:3])


def test_opaque_transparency_is_no_band_unless_it_is_asked_for(tmp_path: Path) -> None:
    values = noise(4)
    values[..., 3] = 255
    path = write(tmp_path / "x.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(read_image(path).pixels, expected(values, 255)[:3])
    assert np.array_equal(read_image(path, ImageRule(channels=4)).pixels, expected(values, 255))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16, np.uint32, np.int32])
@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_values_without_a_natural_white_need_one(tmp_path: Path, dtype: Any, bands: int, kind: str) -> None:
    values = noise(bands, np.float64) if np.dtype(dtype).kind == "f" else noise(bands, np.uint8) * 100
    values = values.astype(dtype)
    path = tmp_path / f"x.{kind}"
    write(path, values) if kind == "tif" else np.save(path, values)
    message = refused(path, ImageRule(channels=bands))
    white = float(values.max())
    assert message.endswith(f"data.white={white:g}")
    assert np.array_equal(read_image(path, ImageRule(channels=bands, white=white)).pixels, expected(values, white))
    assert f"data.white={white / 2:g}" in refused(path, ImageRule(channels=bands, white=white / 2))
    if values.dtype.kind != "u":
        values[3, 4, 0] = -1
        write(path, values) if kind == "tif" else np.save(path, values)
        assert "negative" in refused(path, ImageRule(channels=bands, white=white))


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_floats_that_are_no_numbers_are_counted_and_refused_where_they_are_read(tmp_path: Path, strange: float) -> None:
    values = noise(4, np.float32)
    values[2, 3:5, 3] = strange
    for path in (write(tmp_path / "x.tif", values), tmp_path / "x.npy"):
        np.save(tmp_path / "x.npy", values)
        assert "2 values that are NaN or infinite" in refused(path, ImageRule(channels=4, white=1))
        chosen = read_image(path, ImageRule(channels=3, white=1, bands=(2, 1, 0))).pixels
        assert np.array_equal(chosen, expected(values[..., [2, 1, 0]], 1))


def test_an_array_has_its_bands_where_channels_says_or_on_the_shorter_end(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    for bands in (1, 3, 4, 60):
        values = noise(bands)
        for stored in (values, np.moveaxis(values, 2, 0), np.asfortranarray(values)):
            np.save(path, stored)
            assert np.array_equal(read_image(path, ImageRule(channels=bands)).pixels, expected(values, 255))
            assert image_shape(path, ImageRule(channels=bands)) == (35, 41)
    np.save(path, noise(1)[..., 0])
    assert np.array_equal(read_image(path).pixels, np.repeat(expected(noise(1), 255), 3, 0))
    np.save(path, np.zeros((4, 9, 4), np.uint8))
    assert "[4, 9, 4]" in refused(path, ImageRule(channels=4))
    np.save(path, np.zeros((35, 41, 5), np.uint8))
    assert "data.channels=5 " in refused(path, ImageRule(channels=4))
    np.save(path, np.zeros((2, 3, 4, 5), np.uint8))
    assert "[2, 3, 4, 5]" in refused(path)


@pytest.mark.parametrize("dtype", [bool, np.complex64, "U3", object])
def test_arrays_of_no_such_numbers_are_refused(tmp_path: Path, dtype: Any) -> None:
    np.save(tmp_path / "x.npy", np.zeros((9, 9, 3)).astype(dtype))
    assert "type" in refused(tmp_path / "x.npy")


def test_a_tiff_that_tifffile_would_misread_is_refused(tmp_path: Path) -> None:
    values = noise(4)
    path = tmp_path / "x.tif"
    for word, options in {
        "MinIsWhite": {"photometric": "miniswhite", "extrasamples": ["unspecified"] * 3},
        "orientation (6)": {"extratags": [(274, 3, 1, 6, True)]},
        "compression": {"compression": "webp", "photometric": "rgb"},
    }.items():
        write(path, values, **options)
        assert word in refused(path, ImageRule(channels=4))
    tifffile.imwrite(path, np.zeros((4, 9, 9), np.uint8), photometric="minisblack")
    assert "pages" in refused(path, ImageRule(channels=4))
    assert "pages" in refused(path, ImageRule(channels=1))


def test_signed_bytes_are_not_taken_for_unsigned_ones(tmp_path: Path) -> None:
    values = np.full((9, 9, 1), -1, np.int8)
    assert "-1" in refused(write(tmp_path / "x.tif", values), ImageRule(channels=1))


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), layout=st.sampled_from(sorted(LAYOUTS)))
def test_a_file_cut_off_anywhere_is_refused_or_still_whole(share: float, layout: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder, "x.npy")
        np.save(arrays, noise(4))
        for path in (write(Path(folder, "x.tif"), noise(4), **LAYOUTS[layout]), arrays):
            content = path.read_bytes()
            path.write_bytes(content[: int(share * len(content))])
            try:
                pixels = read_image(path, ImageRule(channels=4)).pixels
            except UserError:
                refused(path, ImageRule(channels=4))
            else:
                assert np.array_equal(pixels, expected(noise(4), 255))


@pytest.mark.parametrize(("height", "width"), [(30_000, 30_000), (2**31 - 1, 2**31 - 1), (20_000, 25_000)])
def test_bombs_are_refused_by_their_header(tmp_path: Path, height: int, width: int) -> None:
    path = write(tmp_path / "x.tif", noise(5, np.uint16))
    content = path.read_bytes()
    for tag, old, new in ((0x100, 41, width), (0x101, 35, height)):
        entry = next(head for kind in (3, 4) if (head := struct.pack("<HHL", tag, kind, 1)) in content)
        at = content.index(entry)
        content = content[:at] + struct.pack("<HHLL", tag, 4, 1, new) + content[at + 12 :]
        assert old
    path.write_bytes(content)
    with (tmp_path / "x.npy").open("wb") as file:  # sparse: it takes no space on disk
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<u2", "fortran_order": False, "shape": (5, height, width)}
        )
        file.truncate(10**12)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "too large" in refused(tmp_path / "x.tif", ImageRule(channels=5))
    word = "too large" if 10 * height * width < 10**12 else "npy"
    assert word in refused(tmp_path / "x.npy", ImageRule(channels=5))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_many_bands_take_more_of_the_room_for_decoding(tmp_path: Path) -> None:
    assert room_needed(write(tmp_path / "x.tif", noise(3), photometric="rgb")) == 35 * 41
    assert room_needed(write(tmp_path / "x.tif", noise(12, np.float32))) == 35 * 41 * 8
    np.save(tmp_path / "x.npy", noise(12, np.float32))
    assert room_needed(tmp_path / "x.npy") == 35 * 41 * 8


def test_without_tifffile_the_extra_is_named_and_plain_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four, three = write(tmp_path / "4.tif", noise(4)), write(tmp_path / "3.tif", noise(3), photometric="rgb")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    assert read_image(three).pixels.shape == (3, 35, 41)
    assert "data.channels=4 " in refused(four)
    assert "pip install tifffile imagecodecs" in refused(four, ImageRule(channels=4))
