"""No sequence of encode, save, load and decode changes a mask."""

import io
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_support import png
from PIL import Image
from support import write_bmp

from segsweep.classes import IGNORE, ClassTable, LabelClass, MaskRule, read_mask, resize_mask, write_mask, written_rule
from segsweep.errors import UserError

PALETTE_FORMATS = ("palette PNG by color", "palette PNG by index", "palette BMP", "palette GIF")
SMALL_ID_FORMATS = (*PALETTE_FORMATS, "8-bit PNG", "8-bit TIFF", "8-bit GIF")
COLOR_FORMATS = ("RGB PNG", "RGBA PNG", "RGB TIFF", "color npy")
LARGE_ID_FORMATS = ("16-bit PNG", "16-bit TIFF", "index npy", "wide npy")
FORMATS = (*SMALL_ID_FORMATS, *COLOR_FORMATS, *LARGE_ID_FORMATS)

colors = st.tuples(*[st.integers(0, 255)] * 3)


@st.composite
def tables(draw, largest_id=255, most=12):
    """A class table, and for ignored pixels an id and a colour that no class has."""
    number = draw(st.integers(1, most))
    ids = draw(st.lists(st.integers(0, largest_id), min_size=number + 1, max_size=number + 1, unique=True))
    shades = draw(st.lists(colors, min_size=number + 1, max_size=number + 1, unique=True))
    classes = [LabelClass(ids[i], f"class {i}", shades[i]) for i in range(number)]
    return ClassTable(classes), ids[-1], shades[-1]


def masks(number: int, ignored: bool = True):
    values = [*range(number), *([IGNORE] if ignored else [])]
    return st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
        lambda size: st.lists(st.sampled_from(values), min_size=size[0] * size[1], max_size=size[0] * size[1]).map(
            lambda flat: np.array(flat, dtype=np.uint8).reshape(size)
        )
    )


def encode(folder: Path, kind: str, mask: np.ndarray, labels: ClassTable, ignored_id: int, ignored_color) -> Path:
    """Write a mask in a format, without the code under test."""
    ids = np.zeros(256, dtype=np.int64)
    shades = np.zeros((256, 3), dtype=np.uint8)
    for position, entry in enumerate(labels.classes):
        ids[position], shades[position] = entry.id, entry.color
    ids[IGNORE], shades[IGNORE] = ignored_id, ignored_color
    numbers, rgb = ids[mask], shades[mask]
    suffix = {"PNG": ".png", "TIFF": ".tif", "BMP": ".bmp", "GIF": ".gif", "npy": ".npy"}[
        kind.split(" by ")[0].split()[-1]
    ]
    path = folder / f"{kind.replace(' ', '_')}{suffix}"
    if kind == "color npy":
        np.save(path, rgb)
    elif kind == "index npy":
        np.save(path, numbers.astype(np.uint16))
    elif kind == "wide npy":
        np.save(path, np.asfortranarray(numbers.astype(">i8")))
    elif kind in PALETTE_FORMATS:
        image = Image.fromarray(numbers.astype(np.uint8))
        palette = np.zeros((256, 3), dtype=np.uint8)
        palette[ids[: len(labels)]] = shades[: len(labels)]
        palette[ignored_id] = ignored_color
        image.putpalette(palette.tobytes())
        image.save(path)
    elif kind.startswith("RGB"):
        image = Image.fromarray(rgb)
        (image.convert("RGBA") if kind.startswith("RGBA") else image).save(path)
    else:
        Image.fromarray(numbers.astype(np.uint16 if kind.startswith("16") else np.uint8)).save(path)
    return path


def reading(kind: str) -> str:
    return "color" if kind in (*COLOR_FORMATS, "palette PNG by color", "palette BMP", "palette GIF") else "index"


BLACK_AND_WHITE = [(0, 0, 0), (255, 255, 255)]


@settings(max_examples=30, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 40)),
    bits=st.sampled_from([1, 4, 8]),
    palette=st.one_of(
        st.just(BLACK_AND_WHITE),
        st.integers(1, 16).map(lambda number: [(gray, gray, gray) for gray in range(number)]),
        st.lists(colors, min_size=1, max_size=16, unique=True),
    ),
    seed=st.integers(0, 99),
)
def test_a_bmp_of_any_depth_and_palette_is_read_as_it_is_or_refused(size, bits, palette, seed):
    palette = palette[: 1 << bits]
    values = np.random.default_rng(seed).integers(0, len(palette), size, dtype=np.uint8)
    labels = ClassTable([LabelClass(1000 + i, f"class {i}", color) for i, color in enumerate(palette)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.bmp"
        write_bmp(path, values, palette, bits)
        found, refusal = None, ""
        try:
            found = read_mask(path, labels, MaskRule(by="color")).mask
        except UserError as error:
            refusal = str(error)
    if found is None:
        assert f"mask.bmp: is a BMP of {bits} bits" in refusal
        assert all(red == green == blue for red, green, blue in palette)
        assert (bits, len(palette)) != (1, 2)
    else:
        assert np.array_equal(found, values)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_black_and_white_palette_in_more_than_one_bit_a_pixel_is_refused(tmp_path, bits):
    labels = ClassTable([LabelClass(0, "ground", (0, 0, 0)), LabelClass(1, "house", (255, 255, 255))])
    values = np.arange(24 * 40, dtype=np.uint16).reshape(24, 40) // 7 % 2
    for depth in (1, bits):
        write_bmp(tmp_path / f"{depth}.bmp", values.astype(np.uint8), BLACK_AND_WHITE, depth)
    assert np.array_equal(read_mask(tmp_path / "1.bmp", labels).mask, values)
    with pytest.raises(UserError, match=rf"{bits}\.bmp: is a BMP of {bits} bits .* PNG"):
        read_mask(tmp_path / f"{bits}.bmp", labels)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_sequence_of_encode_save_load_decode_changes_a_mask(data):
    labels, ignored_id, ignored_color = data.draw(tables())
    mask = data.draw(masks(len(labels)))
    with tempfile.TemporaryDirectory() as folder:
        current = mask
        for kind in data.draw(st.lists(st.sampled_from(FORMATS), min_size=1, max_size=4)):
            path = encode(Path(folder), kind, current, labels, ignored_id, ignored_color)
            rule = MaskRule(
                by=reading(kind), ignore_ids=[ignored_id], ignore_colors=["#{:02x}{:02x}{:02x}".format(*ignored_color)]
            )
            result = read_mask(path, labels, rule)
            current = result.mask
            assert current.dtype == np.uint8
            assert np.array_equal(current, mask)
            assert result.counts.tolist() == [int((mask == k).sum()) for k in range(len(labels))]
            assert result.ignored == int((mask == IGNORE).sum())
            assert (result.snapped, result.mode) == (0, reading(kind))


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_large_ids_survive_every_format_that_can_hold_them(data):
    labels, ignored_id, ignored_color = data.draw(tables(largest_id=65535))
    mask = data.draw(masks(len(labels)))
    with tempfile.TemporaryDirectory() as folder:
        path = encode(
            Path(folder), data.draw(st.sampled_from(LARGE_ID_FORMATS)), mask, labels, ignored_id, ignored_color
        )
        assert np.array_equal(read_mask(path, labels, MaskRule(ignore_ids=[ignored_id])).mask, mask)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_written_mask_reads_back_as_it_was(data):
    labels, _, _ = data.draw(tables(largest_id=data.draw(st.sampled_from([254, 255, 65535]))))
    mask = data.draw(masks(len(labels)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.png"
        write_mask(path, mask, labels)
        assert np.array_equal(read_mask(path, labels, written_rule(labels)).mask, mask)
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image.convert("RGB")), labels.colorize(mask))
            numbers = np.asarray(image)
        if max(entry.id for entry in labels.classes) < 255:
            assert np.array_equal(read_mask(path, labels, MaskRule(by="index", ignore_ids=[255])).mask, mask)
            assert set(np.unique(numbers)) <= {entry.id for entry in labels.classes} | {255}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_palette_mask_is_read_or_refused_just_as_the_same_picture_in_rgb(data):
    labels, _, ignored_color = data.draw(tables(most=4))
    known = [*(entry.color for entry in labels.classes), ignored_color]
    # Any order; one colour can have several numbers; some colours are unlisted, and not every picture uses them.
    palette = data.draw(st.lists(st.sampled_from(known) | colors, min_size=1, max_size=8))
    picture = Image.fromarray(data.draw(masks(len(palette), ignored=False)))
    picture.putpalette([value for color in palette for value in color])
    rule = MaskRule(
        by="color", ignore_colors=["#{:02x}{:02x}{:02x}".format(*ignored_color)], snap=data.draw(st.booleans())
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.png"

        def outcome(image: Image.Image):
            image.save(path)
            try:
                result = read_mask(path, labels, rule)
            except UserError as error:
                return str(error)
            return result.mask.tolist(), result.counts.tolist(), result.ignored, result.snapped

        assert outcome(picture) == outcome(picture.convert("RGB"))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_auto_never_gives_another_mask_than_a_possible_explicit_reading(data):
    # Few ids and colours, so that readings often clash.
    number = data.draw(st.integers(1, 3))
    shades = data.draw(st.permutations([(v, v, v) for v in (0, 1, 2, 255)] + [(9, 8, 7)]))
    labels = ClassTable([LabelClass(i, str(i), shades[i]) for i in range(number)])
    values = np.array(data.draw(st.lists(st.sampled_from([0, 1, 2, 255]), min_size=1, max_size=4)), dtype=np.uint8)
    image = Image.fromarray(values[None])
    if data.draw(st.booleans()):
        palette = data.draw(st.permutations([(v, v, v) for v in (0, 1, 2)] + [(9, 8, 7)]))
        image.putpalette(np.array([*palette, *[(200, v, v) for v in range(251)], (255, 255, 255)], np.uint8).tobytes())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.png"
        image.save(path)

        def attempt(by):
            try:
                return read_mask(path, labels, MaskRule(by=by)).mask.tolist()
            except UserError:
                return None

        automatic = attempt("auto")
        if automatic is not None:
            explicit = {by: attempt(by) for by in ("color", "index")}
            assert all(mask in (None, automatic) for mask in explicit.values())
            assert automatic in explicit.values()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_gray_png_of_few_bits_is_read_by_its_stored_numbers(tmp_path, depth):
    # Pillow stretches 2 and 4 bits to 0..255, so the id 1 of a 4-bit file arrives as 17.
    values = list(range(min(1 << depth, 8)))
    packed = int("".join(f"{v:0{depth}b}" for v in values).ljust(64, "0"), 2).to_bytes(8, "big")
    size = -(-len(values) * depth // 8)
    path = tmp_path / "mask.png"
    path.write_bytes(png(len(values), 1, depth, 0, b"\0" + packed[:size]))
    labels = ClassTable([LabelClass(v, f"class {v}", (9, v, v)) for v in [*values, 17, 34, 85]])
    assert read_mask(path, labels).mask.tolist() == [values]


def test_a_gray_image_saved_as_rgb_can_be_read_by_index(tmp_path):
    labels = ClassTable([LabelClass(v, str(v), (v, 0, 0)) for v in range(3)])
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("RGB").save(path)
    assert read_mask(path, labels, MaskRule(by="index")).mask.tolist() == [[0, 1, 2]]


def test_a_mask_turns_upright_with_its_image(tmp_path):
    labels = ClassTable([LabelClass(0, "a", (1, 1, 1)), LabelClass(1, "b", (2, 2, 2))])
    exif = Image.Exif()
    exif[0x0112] = 6  # viewers turn it a quarter turn clockwise
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[0, 1, 1]], dtype=np.uint8)).save(path, exif=exif)
    assert read_mask(path, labels).mask.tolist() == [[0], [1], [1]]
    path = tmp_path / "mask.tif"
    Image.fromarray(np.array([[0, 1, 1]], dtype=np.uint8)).save(path, tiffinfo={0x0112: 3})  # half a turn
    assert read_mask(path, labels).mask.tolist() == [[1, 1, 0]]
    Image.fromarray(np.array([[0, 1, 1]], dtype=np.uint8)).save(path, tiffinfo={0x0112: 6})
    assert read_mask(path, labels).mask.tolist() == [[0], [1], [1]]


@settings(max_examples=40, deadline=None)
@given(mask=masks(5), height=st.integers(1, 20), width=st.integers(1, 20))
def test_resizing_takes_the_nearest_pixel_and_invents_none(mask, height, width):
    resized = resize_mask(mask, (height, width))
    rows, columns = (
        [int((i + Fraction(1, 2)) * old / new) for i in range(new)]
        for new, old in zip((height, width), mask.shape, strict=True)
    )
    assert resized.dtype == mask.dtype
    assert resized.tolist() == [[int(mask[row, column]) for column in columns] for row in rows]
    assert np.array_equal(resize_mask(mask, mask.shape), mask)


def test_a_jpeg_is_snapped_to_the_nearest_class_and_the_changes_are_counted(tmp_path):
    labels = ClassTable(
        [LabelClass(0, "red", (200, 0, 0)), LabelClass(1, "green", (0, 200, 0)), LabelClass(2, "c", (0, 0, 9))]
    )
    mask = np.random.default_rng(0).integers(0, 3, (12, 12)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    path = tmp_path / "mask.jpg"
    Image.fromarray(labels.colorize(mask)).save(path, quality=80, subsampling=0)
    with Image.open(path) as image:
        pixels = np.asarray(image).astype(int)
    distance = ((pixels[:, :, None] - labels.colors.astype(int)) ** 2).sum(-1)
    result = read_mask(path, labels, MaskRule(snap=True))
    assert np.array_equal(result.mask, distance.argmin(-1))
    assert result.snapped == int((distance.min(-1) > 0).sum()) > 0
    assert (result.mask == mask).mean() > 0.95


def test_snapping_also_takes_ignored_and_mapped_colors(tmp_path):
    labels = ClassTable([LabelClass(0, "a", (200, 0, 0)), LabelClass(1, "b", (0, 200, 0))])
    rule = MaskRule(snap=True, ignore_colors=["#000000"], map_colors={"#0000FF": "b"})
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[[3, 3, 3], [0, 0, 250], [190, 5, 5], [0, 0, 0]]], dtype=np.uint8)).save(path)
    result = read_mask(path, labels, rule)
    assert result.mask.tolist() == [[255, 1, 0, 255]]
    assert (result.snapped, result.ignored) == (3, 2)


def test_the_rule_ignores_or_maps_ids_that_the_table_does_not_list(tmp_path):
    labels = ClassTable([LabelClass(7, "road", (1, 1, 1)), LabelClass(8, "walk", (2, 2, 2))])
    path = tmp_path / "mask.npy"
    np.save(path, np.array([[-1, 7, 8, 9, 255]]))
    rule = MaskRule(ignore_ids=[-1, 255], map_ids={9: "road"})
    assert read_mask(path, labels, rule).mask.tolist() == [[255, 0, 1, 0, 255]]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow warns so about some of the cut TIFF files
@pytest.mark.parametrize("format_name", ["PNG", "TIFF", "BMP", "GIF"])
def test_a_file_cut_off_anywhere_is_refused_or_still_whole(tmp_path, format_name):
    labels = ClassTable([LabelClass(v, str(v), (v, v, v)) for v in range(4)])
    mask = np.random.default_rng(1).integers(0, 4, (24, 24), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format=format_name)
    whole = buffer.getvalue()
    path = tmp_path / f"mask.{format_name.lower()}"
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        refused = ""
        try:
            result = read_mask(path, labels, MaskRule(by="index")).mask
        except UserError as error:
            refused = str(error)
        if refused:
            assert refused.startswith(f"{path}: ")
            assert "\n" not in refused
        else:
            assert np.array_equal(result, mask)
