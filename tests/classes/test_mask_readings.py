"""Files that can be read by colour or by index: the only possible reading is taken, never a guess."""

import numpy as np
import pytest
from mask_support import LABELS, assert_says, palette_image, refusal
from PIL import Image

from segsweep.classes import ClassTable, LabelClass, MaskRule, read_mask


def test_a_palette_file_is_read_by_color_where_its_numbers_are_no_ids(tmp_path):
    path = tmp_path / "mask.png"
    palette_image([0, 7], [(0x84, 0x29, 0xF6)] + [(0x3C, 0x10, 0x98)] * 7).save(path)
    reading = read_mask(path, LABELS)
    assert (reading.mask.tolist(), reading.mode) == ([[1, 0]], "color")


def test_a_gray_mask_is_read_by_its_grays_where_its_numbers_are_no_ids(tmp_path):
    path = tmp_path / "mask.png"
    black_and_white = ClassTable([LabelClass(0, "white", (255, 255, 255)), LabelClass(1, "black", (0, 0, 0))])
    for values, expected in (([255], [0]), ([1], [1]), ([0, 255], [1, 0])):
        Image.fromarray(np.array([values], dtype=np.uint8)).save(path)
        assert read_mask(path, black_and_white).mask.tolist() == [expected]
    Image.fromarray(np.array([[0]], dtype=np.uint8)).save(path)
    assert_says(refusal(path, labels=black_and_white), "two ways", "0 is white by index", "black", "#000000")
    Image.fromarray(np.array([[0, 255, 7]], dtype=np.uint8)).save(path)
    message = refusal(path, labels=black_and_white)
    assert_says(message, "1 pixel of id 7", "black 1", "1 of 255", "black 1", "data.ignore_ids=[7,255]")


def test_a_palette_that_numbers_the_classes_in_another_order_is_not_guessed_at(tmp_path):
    path = tmp_path / "mask.png"
    palette_image([0, 1], [(0x84, 0x29, 0xF6), (0x3C, 0x10, 0x98)]).save(path)
    message = refusal(path)
    assert_says(message, "two ways", "0 is Building by index", "Land", "#8429F6", "data.by=color or data.by=index")
    assert read_mask(path, LABELS, MaskRule(by="color")).mask.tolist() == [[1, 0]]
    assert read_mask(path, LABELS, MaskRule(by="index")).mask.tolist() == [[0, 1]]


def test_a_palette_in_strange_colors_is_not_read_by_index_unless_told(tmp_path):
    path = tmp_path / "mask.png"
    palette_image([0, 1], [(1, 2, 3), (4, 5, 6)]).save(path)
    assert_says(refusal(path), "palette", "#010203", "data.labels", "data.by=index")
    assert read_mask(path, LABELS, MaskRule(by="index")).mask.tolist() == [[0, 1]]


def test_a_plain_gray_palette_is_read_by_index(tmp_path):
    path = tmp_path / "mask.png"
    palette_image([0, 1, 1], [(v, v, v) for v in range(256)]).save(path)
    assert read_mask(path, LABELS).mask.tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("values", [[0, 1], [0, 1, 1], [1], [0, 2], [0, 1, 2], [0, 255, 3], [1, 254], [0]])
@pytest.mark.parametrize("swapped", [False, True])
def test_snapping_never_takes_a_gray_for_an_id_where_its_colour_says_otherwise(tmp_path, values, swapped):
    """Noise of one or two gray levels makes one file look like an index file, but not the next one."""
    path = tmp_path / "mask.png"
    grays = [(255, 255, 255), (0, 0, 0)] if swapped else [(0, 0, 0), (255, 255, 255)]
    labels = ClassTable([LabelClass(at, name, gray) for at, (name, gray) in enumerate(zip("ab", grays, strict=True))])
    Image.fromarray(np.array([values], dtype=np.uint8)).save(path)
    nearest = [int((value > 127) != swapped) for value in values]
    if set(values) <= {0, 1} and values != nearest:
        assert "two ways" in refusal(path, MaskRule(snap=True), labels)
    else:
        assert read_mask(path, labels, MaskRule(snap=True)).mask.tolist() == [nearest]
    assert read_mask(path, labels, MaskRule(snap=True, by="color")).mask.tolist() == [nearest]


@pytest.mark.parametrize(
    ("by", "parts"), [("index", ("colours", "data.by=color")), ("color", ("numbers", "data.by=index"))]
)
def test_a_reading_that_the_file_does_not_have_is_refused(tmp_path, by, parts):
    path = tmp_path / ("mask.png" if by == "index" else "mask.npy")
    if by == "index":
        Image.fromarray(np.array([[(0x3C, 0x10, 0x98)]], dtype=np.uint8)).save(path)
    else:
        np.save(path, np.zeros((2, 2), dtype=np.uint8))
    assert_says(refusal(path, MaskRule(by=by)), *parts)
