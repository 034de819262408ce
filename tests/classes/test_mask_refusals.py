"""A mask that cannot be read exactly is refused, on one line with the file and what to do."""

import io
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_support import LABELS, assert_says, palette_image, png, refusal
from PIL import Image

from segsweep.classes import ClassTable, LabelClass, MaskRule, read_mask, write_mask
from segsweep.errors import UserError


def rgb(*colors: tuple[int, int, int]) -> Image.Image:
    return Image.fromarray(np.array([colors], dtype=np.uint8))


def test_an_unlisted_color_is_refused_with_count_nearest_class_and_ways_out(tmp_path):
    path = tmp_path / "part_003.png"
    pixels = np.zeros((1500, 800, 3), dtype=np.uint8)
    pixels[0] = (0x84, 0x29, 0xF6)
    Image.fromarray(pixels).save(path)
    assert_says(
        refusal(path),
        *("1,199,200 pixels", "#000000", "Building #3C1098", "data.map_colors", "data.ignore_colors=['#000000']"),
    )


def test_several_unlisted_colors_are_named_the_most_frequent_first(tmp_path):
    path = tmp_path / "mask.png"
    odd = [(0, 0, 0)] * 3 + [(255, 255, 255)] * 2 + [(0x84, 0x29, 0xF7), (1, 0, 0), (0, 1, 0)]
    rgb(*[(0x84, 0x29, 0xF6)] * 8, *odd).save(path)
    assert_says(
        refusal(path),
        *(
            "3 pixels",
            "#000000",
            "Building #3C1098",
            "2 of #FFFFFF",
            "Road #6EC1E4",
            "1 of #000100",
            "Building #3C1098",
        ),
        *("2 of 2 others", "data.map_colors", "data.ignore_colors=['#000000','#FFFFFF','#000100','#010000','#8429F7']"),
    )


def test_a_mask_mostly_of_unlisted_colors_points_to_the_class_table(tmp_path):
    path = tmp_path / "mask.png"
    rgb((0x3C, 0x10, 0x98), (1, 2, 3), (4, 5, 6)).save(path)
    assert_says(refusal(path), "Most pixels", "data.labels", "data.map_colors")


def test_a_mask_in_the_colors_of_a_preset_names_the_preset(tmp_path):
    path = tmp_path / "mask.png"
    other = ClassTable([LabelClass(0, "Water", (0x50, 0xE3, 0xC2)), LabelClass(1, "Unlabeled", (0x9B, 0x9B, 0x9B))])
    dubai = [(0x84, 0x29, 0xF6), (0x6E, 0xC1, 0xE4), (0, 0, 0)]  # Land, Road, and black, which the preset ignores
    rgb(*dubai, (0x9B, 0x9B, 0x9B)).save(path)
    assert_says(refusal(path, labels=other), "Most pixels", "data.labels=dubai", "data.map_colors")
    palette_image([0, 1, 0], dubai).save(path)
    assert_says(refusal(path, labels=other), "ids", "data.labels=dubai", "data.by=index")
    for strangers in ([*dubai, (1, 2, 3)], [(0x84, 0x29, 0xF6), (0, 0, 0)]):  # one colour too many; one class alone
        rgb(*strangers).save(path)
        assert_says(message := refusal(path, labels=other), "Most pixels", "data.labels", "data.map_colors")
        assert "dubai" not in message


def test_many_unlisted_colors_point_to_blurred_edges_and_snapping(tmp_path):
    path = tmp_path / "mask.png"
    rgb((0x3C, 0x10, 0x98), *[(value, 0, 0) for value in range(40)]).save(path)
    assert_says(refusal(path), "37 of 37 others", "compression", "data.snap=true")


def test_an_unlisted_id_is_refused_with_count_nearest_class_and_ways_out(tmp_path):
    path = tmp_path / "mask.npy"
    np.save(path, np.array([[0, 1, 2, 9, 9]]))
    assert_says(refusal(path), "2 pixels of id 9", "Road 2", "data.map_ids", "data.ignore_ids=[9]")


@pytest.mark.parametrize("unlisted", [-1, 3, 255, 65536, -(2**40), 2**63 - 1])
def test_no_id_is_ignored_unless_the_rule_lists_it(tmp_path, unlisted):
    path = tmp_path / "mask.npy"
    np.save(path, np.array([[0, unlisted]]))
    assert_says(refusal(path), f"1 pixel of id {unlisted},", f"data.ignore_ids=[{unlisted}]")


@settings(max_examples=50, deadline=None)
@given(
    shades=st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=2, max_size=9, unique=True),
    kind=st.sampled_from(["RGB", "RGBA", "P", "npy"]),
    by=st.sampled_from(["auto", "color"]),
    count=st.integers(1, 5),
)
def test_an_unlisted_color_is_always_refused(shades, kind, by, count):
    *listed, unlisted = shades
    # Ids beyond the palette, so that a palette file has one reading.
    labels = ClassTable([LabelClass(1000 + i, f"class {i}", color) for i, color in enumerate(listed)])
    pixels = np.array([[*listed, *[unlisted] * count]], dtype=np.uint8)
    nearest = min(listed, key=lambda color: sum((a - b) ** 2 for a, b in zip(color, unlisted, strict=True)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("mask.npy" if kind == "npy" else "mask.png")
        if kind == "npy":
            np.save(path, pixels)
        elif kind == "P":
            image = Image.fromarray(np.array([[*range(len(listed)), *[len(listed)] * count]], dtype=np.uint8))
            image.putpalette(np.array(shades, dtype=np.uint8).tobytes())
            image.save(path)
        else:
            Image.fromarray(pixels).convert(kind).save(path)
        message = refusal(path, MaskRule(by=by), labels)
    word = "pixels" if count > 1 else "pixel"
    assert message.startswith(f"{count} {word} of ")
    assert_says(message, "#{:02X}{:02X}{:02X}".format(*unlisted), "#{:02X}{:02X}{:02X}".format(*nearest))


def test_a_jpeg_is_refused_with_the_reason_and_the_way_out(tmp_path):
    path = tmp_path / "mask.jpg"
    rgb(*[(0x3C, 0x10, 0x98)] * 8).save(path)
    assert_says(refusal(path), "JPEG", "PNG", "data.snap=true")


def test_a_gray_jpeg_is_never_read_by_index(tmp_path):
    path = tmp_path / "mask.jpg"
    Image.fromarray(np.ones((8, 8), dtype=np.uint8)).save(path)
    assert_says(refusal(path, MaskRule(by="index", snap=True)), "JPEG", "PNG")


@pytest.mark.parametrize("channel", [slice(None), 0])
def test_a_tiff_is_as_exact_as_its_compression(tmp_path, channel):
    path = tmp_path / "mask.tif"
    labels = ClassTable([LabelClass(2, "dark", (0, 0, 0)), LabelClass(3, "light", (90, 90, 90))])
    values = np.arange(40 * 40).reshape(40, 40) // 7 % 2
    image = Image.fromarray(labels.colors[values][..., channel])
    for compression in ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "lzma", "zstd"):
        image.save(path, compression=compression)
        assert np.array_equal(read_mask(path, labels).mask, values), compression
    image.save(path, compression="jpeg")
    for by in ("auto", "color", "index"):
        assert_says(refusal(path, MaskRule(by=by), labels), "TIFF compressed by jpeg", "data.snap=true")
    assert_says(refusal(path, MaskRule(by="index", snap=True), labels), "TIFF compressed by jpeg", "PNG")
    assert read_mask(path, labels, MaskRule(snap=True)).snapped > 0


@pytest.mark.parametrize("alpha", [0, 128, 254])
def test_transparent_pixels_are_refused_with_their_number(tmp_path, alpha):
    path = tmp_path / "mask.png"
    pixels = np.full((4, 4, 4), 255, dtype=np.uint8)
    pixels[..., :3] = (0x3C, 0x10, 0x98)
    pixels[0, :3, 3] = alpha
    Image.fromarray(pixels).save(path)
    assert refusal(path).startswith("3 pixels are transparent")


def test_a_transparent_palette_entry_or_gray_counts_only_if_a_pixel_has_it(tmp_path):
    path = tmp_path / "mask.png"
    image = palette_image([0, 1, 1], [(0x3C, 0x10, 0x98), (0x84, 0x29, 0xF6), (0x6E, 0xC1, 0xE4)])
    image.save(path, transparency=1)
    assert refusal(path).startswith("2 pixels are transparent")
    image.save(path, transparency=2)
    assert read_mask(path, LABELS).mask.tolist() == [[0, 1, 1]]
    for dtype in (np.uint8, np.uint16):
        Image.fromarray(np.array([[0, 1, 1]], dtype=dtype)).save(path, transparency=1)
        assert refusal(path).startswith("2 pixels are transparent")


@pytest.mark.parametrize(("color_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_a_color_channel_are_refused_and_not_cut_to_eight(tmp_path, color_type, channels):
    path = tmp_path / "mask.png"
    path.write_bytes(png(1, 1, 16, color_type, b"\0" + b"\x3c\x01" * (channels - 1) + b"\xff\xff"))
    assert "16 bits" in refusal(path)


def test_a_png_that_declares_too_many_pixels_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "mask.png"
    path.write_bytes(png(50_000, 50_000, 8, 2, b"\0"))
    assert "is too large" in refusal(path)


def test_a_sparse_array_of_too_many_pixels_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "mask.npy"
    header = np.lib.format.header_data_from_array_1_0(np.zeros((1, 1), dtype=np.uint8)) | {"shape": (1 << 20, 1 << 20)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + (1 << 40))
    assert refusal(path).startswith("is too large")
    with path.open("rb+") as file:
        file.truncate(1000)
    assert refusal(path).startswith("is not a whole .npy array")


def test_postscript_for_which_pillow_starts_a_program_is_refused(tmp_path):
    path = tmp_path / "mask.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    assert refusal(path).startswith("is of type PostScript")


def test_a_number_outside_the_palette_is_refused(tmp_path):
    path = tmp_path / "mask.png"
    buffer = io.BytesIO()
    palette_image([0, 1], [(0x3C, 0x10, 0x98), (0x84, 0x29, 0xF6)]).save(buffer, format="PNG", bits=8)
    content = buffer.getvalue()
    at = content.index(b"PLTE") - 4
    shorter = struct.pack(">I", 3) + b"PLTE" + bytes((0x3C, 0x10, 0x98))
    end = at + 12 + struct.unpack(">I", content[at : at + 4])[0]
    path.write_bytes(content[:at] + shorter + struct.pack(">I", zlib.crc32(shorter[4:])) + content[end:])
    assert_says(refusal(path, MaskRule(by="color")), "number 1 ", "palette of 1 ")
    assert_says(refusal(path), "number 1 ", "palette of 1,", "data.by=index")
    assert read_mask(path, LABELS, MaskRule(by="index")).mask.tolist() == [[0, 1]]


def test_an_empty_file_is_refused(tmp_path):
    for name in ("mask.png", "mask.npy"):
        path = tmp_path / name
        path.write_bytes(b"")
        assert refusal(path).startswith("the file is empty")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.png")
    assert "folder" in refusal(tmp_path)


def test_a_text_file_that_is_called_an_image_is_refused(tmp_path):
    path = tmp_path / "mask.png"
    path.write_text("not an image\n" * 20)
    assert refusal(path).startswith("is a text file")


def test_a_truncated_image_is_refused(tmp_path):
    path = tmp_path / "mask.png"
    rgb(*[(0x3C, 0x10, 0x98)] * 100).save(path)
    path.write_bytes(path.read_bytes()[:-30])
    assert refusal(path).startswith("is damaged or cut short")


def test_several_images_in_one_file_are_refused(tmp_path):
    path = tmp_path / "mask.tif"
    rgb((0x3C, 0x10, 0x98)).save(path, save_all=True, append_images=[rgb((0x84, 0x29, 0xF6))])
    assert refusal(path).startswith("holds 2 frames")


def test_a_gif_of_several_frames_or_of_a_part_of_its_area_is_refused(tmp_path):
    path = tmp_path / "mask.gif"
    rgb((0x3C, 0x10, 0x98)).save(path, save_all=True, append_images=[rgb((0x84, 0x29, 0xF6))])
    assert refusal(path).startswith("holds 2 frames")
    rgb((0x3C, 0x10, 0x98)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:6] + (99).to_bytes(2, "little") + content[8:])  # the canvas is wider than its frame
    assert refusal(path).startswith("is a GIF whose frame covers a part")


def test_a_gif_s_number_is_its_gray_and_not_its_place_in_the_palette(tmp_path):
    path = tmp_path / "mask.gif"
    labels = ClassTable([LabelClass(at, f"class {at}", (200, 10, at)) for at in range(3)])
    Image.fromarray(np.full((4, 5), 2, dtype=np.uint8)).save(path)
    with Image.open(path) as image:
        assert np.asarray(image).max() == 0  # the writer numbered the only gray 0
    assert read_mask(path, labels, MaskRule(by="index")).counts.tolist() == [0, 0, 20]
    image = Image.fromarray(np.ones((4, 5), dtype=np.uint8))
    image.putpalette([0, 0, 0, 200, 10, 1])
    image.save(path)
    with pytest.raises(UserError, match=r"data\.by=color"):
        read_mask(path, labels, MaskRule(by="index"))
    assert read_mask(path, labels).counts.tolist() == [0, 20, 0]


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"), (b"\0\0\0\x20ftypavif\0\0\0\0", "AVIF"),
        (b"P6\n1 1\n255\nabc", "PPM"), (b"8BPS\0\1", "Photoshop"), (b"%PDF-1.7\n", "PDF"), (b"PK\3\4", "ZIP"),
    ],
)  # fmt: skip
def test_a_file_of_another_type_is_refused_as_what_it_is(tmp_path, start, kind):
    path = tmp_path / "mask.png"
    path.write_bytes(start + bytes(100))
    assert refusal(path).startswith(f"is of type {kind}, ")


def test_a_tiff_with_white_as_zero_is_refused(tmp_path):
    path = tmp_path / "mask.tif"
    Image.fromarray(np.zeros((2, 2), dtype=np.uint8)).save(path, tiffinfo={262: 0})
    with Image.open(path) as image:
        assert image.tag_v2[262] == 0
    assert_says(refusal(path), "TIFF", "white as zero")


@pytest.mark.parametrize("mode", ["F", "CMYK"])
def test_a_pixel_mode_that_masks_do_not_have_is_refused_by_name(tmp_path, mode):
    path = tmp_path / "mask.tif"
    rgb((0x3C, 0x10, 0x98)).convert(mode).save(path)
    assert refusal(path).startswith(f"has the pixel mode {mode};")


@pytest.mark.parametrize(
    ("array", "hint"),
    [
        (np.zeros((2, 2)), "is float64 [2, 2]"),
        (np.zeros(4, dtype=int), "is int64 [4]"),
        (np.zeros((2, 2, 1), dtype=np.uint8), "is uint8 [2, 2, 1]"),
        (np.zeros((2, 2, 3), dtype=np.uint16), "is uint16 [2, 2, 3]"),
        (np.zeros((0, 4), dtype=np.uint8), ""),
        (np.array([[{"a": 1}]], dtype=object), "is not a whole .npy array of numbers"),
    ],
)
def test_an_array_that_is_no_mask_is_refused_with_its_type_and_shape(tmp_path, array, hint):
    path = tmp_path / "mask.npy"
    np.save(path, array, allow_pickle=True)
    assert hint in refusal(path)


def test_damaged_arrays_are_refused(tmp_path):
    path = tmp_path / "mask.npy"
    np.save(path, np.zeros((50, 50), dtype=np.uint8))
    whole = path.read_bytes()
    for length in (5, 60, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert refusal(path).startswith("is not a whole .npy array")
    path.write_text("text\n" * 100)
    assert refusal(path).startswith("is not a whole .npy array")
    np.savez(tmp_path / "mask.npz", np.zeros((2, 2), dtype=np.uint8))
    path.write_bytes((tmp_path / "mask.npz").read_bytes())
    assert "archive" in refusal(path)


def test_refusing_leaves_no_file_open(tmp_path):
    path = tmp_path / "mask.png"
    rgb((1, 2, 3)).save(path)
    # A ResourceWarning would not fail the test, because a destructor raises it. So look at the open files.
    held = []
    for _ in range(3):
        try:
            read_mask(path, LABELS)
        except UserError as error:
            held.append(error)  # keeps the traceback, and so any file that the reader left open
    assert len(held) == 3
    assert not [link for link in Path("/proc/self/fd").iterdir() if link.exists() and link.resolve() == path.resolve()]


def test_masks_are_written_as_png_only_and_never_with_unknown_values(tmp_path):
    with pytest.raises(UserError, match=r"ends in \.png"):
        write_mask(tmp_path / "mask.jpg", np.zeros((2, 2), dtype=np.uint8), LABELS)
    with pytest.raises(ValueError, match="holds 3, but there are 3 classes"):
        write_mask(tmp_path / "mask.png", np.full((2, 2), 3), LABELS)
    assert not (tmp_path / "mask.png").exists()
