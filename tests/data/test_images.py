import os
import re
import resource
import struct
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from data_folders import LABELS, Folder, png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from support import write_bmp

from segsweep.classes.rules import MaskRule
from segsweep.data.images import ImageRule, image_shape, read_image
from segsweep.data.pairs import Pair
from segsweep.data.reading import read_pair
from segsweep.errors import UserError

NOISE = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)


def refused(path: Path, rule: ImageRule | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read_image(path, rule or ImageRule())
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("extension", ["png", "bmp", "tif", "webp"])
def test_colour_is_read_as_stored(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"x.{extension}"
    Image.fromarray(NOISE).save(path, lossless=True)
    pixels = read_image(path).pixels
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, NOISE.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA"])
def test_every_mode_shows_what_a_viewer_shows(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(NOISE).convert("L" if mode == "LA" else "RGB").convert(mode)
    image.save(tmp_path / "x.png")
    shown = np.asarray(image.convert("RGB"))
    assert np.array_equal(read_image(tmp_path / "x.png").pixels, shown.transpose(2, 0, 1))
    luma = np.asarray(image.convert("RGB").convert("L"))
    assert np.array_equal(read_image(tmp_path / "x.png", ImageRule(channels=1)).pixels, luma[None])


@pytest.mark.parametrize("bits", [4, 8])
def test_a_bmp_whose_depth_its_palette_hides_is_refused(tmp_path: Path, bits: int) -> None:
    stripes = (np.arange(24) // 3 % 2).astype(np.uint8)[None].repeat(5, 0)
    for depth in (1, bits):
        write_bmp(tmp_path / f"{depth}.bmp", stripes, [(0, 0, 0), (255, 255, 255)], depth)
    assert np.array_equal(read_image(tmp_path / "1.bmp").pixels, np.stack([stripes * 255] * 3))
    assert f"BMP of {bits} bits" in refused(tmp_path / f"{bits}.bmp")


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_sixteen_bit_grays_are_scaled_from_white(tmp_path: Path, extension: str) -> None:
    values = np.array([[0, 128, 129], [4095, 257, 2000]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"x.{extension}")
    for white in (65535, 4095):
        pixels = read_image(tmp_path / f"x.{extension}", ImageRule(channels=1, white=white)).pixels
        assert np.array_equal(pixels[0], np.floor(values * (255 / white) + 0.5).astype(np.uint8))
    assert "values from 0 to 4095" in refused(tmp_path / f"x.{extension}", ImageRule(white=1000))


def test_sixteen_bit_colour_is_read_at_its_full_range_or_refused(tmp_path: Path) -> None:
    values = np.array([[[65535, 0, 257 * 99]]], dtype=">u2")
    path = png(tmp_path / "x.png", 1, 1, 16, 2, b"\0" + values.tobytes())
    reading = read_image(path)
    assert reading.pixels[:, 0, 0].tolist() == [255, 0, 99]
    assert reading.mode == "RGB;16"
    assert "16-bit colour" in refused(path, ImageRule(white=4095))


@pytest.mark.parametrize("extension", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_viewers_do(tmp_path: Path, extension: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{extension}"
    Image.fromarray(NOISE).save(path, exif=exif)
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    reading = read_image(path)
    assert np.array_equal(reading.pixels, upright.transpose(2, 0, 1))
    assert reading.orientation == orientation
    assert image_shape(path) == reading.pixels.shape[1:]
    if orientation != 1:
        assert f"EXIF orientation {orientation}" in refused(path, ImageRule(exif="refuse"))
    if extension == "tif" and orientation != 1:
        assert "cannot be ignored" in refused(path, ImageRule(exif="ignore"))
    else:
        stored = read_image(path, ImageRule(exif="ignore"))
        assert stored.pixels.shape == (3, 7, 5)
        assert image_shape(path, ImageRule(exif="ignore")) == (7, 5)


def test_transparency_is_refused_or_dropped_as_asked(tmp_path: Path) -> None:
    alpha = np.full((7, 5, 1), 255, dtype=np.uint8)
    alpha[0, 0] = 254
    Image.fromarray(np.concatenate([NOISE, alpha], axis=2)).save(tmp_path / "x.png")
    assert "transparent" in refused(tmp_path / "x.png")
    dropped = read_image(tmp_path / "x.png", ImageRule(alpha="drop")).pixels
    assert np.array_equal(dropped, NOISE.transpose(2, 0, 1))


def test_a_transparent_palette_colour_is_refused(tmp_path: Path) -> None:
    Image.fromarray(NOISE).convert("P").save(
        tmp_path / "x.png", transparency=int(np.asarray(Image.fromarray(NOISE).convert("P"))[0, 0])
    )
    assert "transparent" in refused(tmp_path / "x.png")


def test_files_that_are_no_image_are_refused_by_name(tmp_path: Path) -> None:
    contents = {
        "empty": b"",
        "text file": b"this is not a picture",
        "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "image": bytes(range(200, 256)) * 3,
    }
    for word, content in contents.items():
        (tmp_path / "x.png").write_bytes(content)
        assert word in refused(tmp_path / "x.png")
        with pytest.raises(UserError, match=word):
            image_shape(tmp_path / "x.png")
    assert "no such file" in refused(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("height", "width"), [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (25_001, 20_000), (1, 500_000_001)]
)
def test_decompression_bombs_are_refused_before_they_are_unpacked(tmp_path: Path, height: int, width: int) -> None:
    path = png(tmp_path / "bomb.png", width, height, 1, 0, b"\0" * 100)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "500,000,000 pixels" in refused(path)
    with pytest.raises(UserError, match="too large"):
        image_shape(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@pytest.mark.parametrize("extension", ["jpg", "tif", "bmp", "ppm", "jp2"])
def test_bombs_of_every_format_are_refused(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"x.{extension}"
    Image.fromarray(NOISE).save(path)
    content = path.read_bytes()
    wide, side = struct.pack("<HHLL", 0x100, 4, 1, 5), struct.pack(">I", 1 << 20)
    sizes = [struct.pack(">II", 5, 7), struct.pack(">II", 7, 5)]
    huge = {
        "jpg": lambda: re.sub(rb"(\xff\xc0..\x08)....", lambda found: found[1] + b"\xff" * 4, content, flags=re.DOTALL),
        "tif": lambda: content.replace(wide, struct.pack("<HHLL", 0x100, 4, 1, 2**31 - 1)),
        "bmp": lambda: content[:18] + struct.pack("<ii", 1 << 20, 1 << 20) + content[26:],
        "ppm": lambda: content.replace(b"5 7", b"99999 99999"),
        "jp2": lambda: content.replace(sizes[0], 2 * side).replace(sizes[1], 2 * side),
    }[extension]()
    assert huge != content
    path.write_bytes(huge)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_an_orthophoto_beyond_pillow_s_limit_is_read_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for name in ("x.png", "x.tif", "x.webp"):
        Image.fromarray(NOISE).save(tmp_path / name, lossless=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_image(tmp_path / name).pixels.shape == (3, 7, 5)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_the_size_that_is_promised_can_be_opened(tmp_path: Path) -> None:
    assert image_shape(png(tmp_path / "x.png", 20_000, 25_000, 1, 0, b"\0" * 100)) == (25_000, 20_000)


def test_formats_for_which_pillow_starts_a_program_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    assert "image" in refused(path)
    Image.fromarray(NOISE).save(tmp_path / "y.tga")
    (tmp_path / "y.tga").rename(tmp_path / "y.png")
    assert "image" in refused(tmp_path / "y.png")


def test_a_gif_is_read_as_its_colours(tmp_path: Path) -> None:
    pixels = NOISE // 128 * 255  # eight colours, which a GIF holds exactly
    Image.fromarray(pixels).save(tmp_path / "x.gif")
    np.testing.assert_array_equal(read_image(tmp_path / "x.gif").pixels, pixels.transpose(2, 0, 1))
    assert image_shape(tmp_path / "x.gif") == pixels.shape[:2]


def test_a_folder_and_a_pipe_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "device" in refused(tmp_path / "pipe.png")
    assert "folder" in refused(tmp_path)


def test_a_palette_that_is_missing_is_damage(tmp_path: Path) -> None:
    Image.fromarray(NOISE).convert("P").save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    at = content.index(b"PLTE") - 4
    (length,) = struct.unpack_from(">I", content, at)
    (tmp_path / "x.png").write_bytes(content[:at] + content[at + 12 + length :])
    assert "damaged" in refused(tmp_path / "x.png")


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_modes_without_one_meaning_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "x.tif")
    assert mode in refused(tmp_path / "x.tif")


def test_several_pages_are_refused(tmp_path: Path) -> None:
    page = Image.fromarray(NOISE)
    page.save(tmp_path / "x.tif", save_all=True, append_images=[page])
    assert "2 frames" in refused(tmp_path / "x.tif")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("extension", ["png", "jpg", "bmp", "webp", "tif"])
@settings(max_examples=30, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_off_anywhere_is_refused_or_still_whole(extension: str, share: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"x.{extension}")
        Image.fromarray(np.tile(NOISE, (6, 6, 1))).save(path)
        whole, content = read_image(path).pixels, path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        try:
            pixels = read_image(path).pixels
        except UserError:
            refused(path)
        else:
            assert np.array_equal(pixels, whole)


def test_a_pair_of_two_sizes_is_refused_with_both_named(folder: Folder) -> None:
    image, mask = folder.image("images/a.png", (8, 6)), folder.mask("masks/a.png", (8, 7))
    with pytest.raises(UserError, match=r"8 x 6 .* 8 x 7") as caught:
        read_pair(Pair("a", image, mask), LABELS, ImageRule(), MaskRule())
    assert str(image) in str(caught.value)
    assert str(mask) in str(caught.value)


@pytest.mark.parametrize(("rule", "other", "size"), [("apply", "ignore", (8, 6)), ("ignore", "apply", (6, 8))])
def test_a_mask_that_fits_the_image_turned_the_other_way_is_refused_with_the_way_out(
    folder: Folder, rule: str, other: str, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image, mask = folder.image("images/a.jpg", (8, 6), exif=exif), folder.mask("masks/a.png", size)
    with pytest.raises(UserError, match=f"data.exif={other}"):
        read_pair(Pair("a", image, mask), LABELS, ImageRule(exif=rule), MaskRule())  # type: ignore[arg-type]
    read_pair(Pair("a", image, mask), LABELS, ImageRule(exif=other), MaskRule())  # type: ignore[arg-type]


def test_a_mask_of_ignored_pixels_alone_is_refused(folder: Folder) -> None:
    image, mask = folder.image("images/a.png"), folder.mask("masks/a.png", values=1)
    with pytest.raises(UserError, match="every pixel is ignored"):
        read_pair(Pair("a", image, mask), LABELS, ImageRule(), MaskRule(ignore_colors=("#0050C8",)))


@pytest.mark.parametrize(
    "arguments",
    [
        {"channels": 0}, {"alpha": "keep"}, {"exif": "maybe"}, {"white": 0}, {"white": float("nan")}, {"bands": [0, 1]},
        {"bands": [0, 1, -1]}, {"channels": 1, "bands": []},
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(UserError, match=rf"^(data\.)?{list(arguments)[-1]}\b"):
        ImageRule(**arguments)  # type: ignore[arg-type]
