import json

import numpy as np
import pytest
from mask_support import assert_says

from segsweep.classes import IGNORE, PRESETS, ClassTable, LabelClass, read_table
from segsweep.errors import UserError

ROAD = LabelClass(7, "road", (128, 64, 128))
WALK = LabelClass(8, "walk", (244, 35, 232))


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: ClassTable([]), ("no class", "name and color")),
        (lambda: ClassTable([LabelClass(i, str(i), (i % 256, i // 256, 0)) for i in range(256)]), ("256", "255")),
        (lambda: ClassTable([ROAD, LabelClass(1, "road", (1, 1, 1))]), ("'road'", "rename")),
        (lambda: ClassTable([ROAD, LabelClass(7, "walk", (1, 1, 1))]), ("'road'", "'walk'", "id 7")),
        (lambda: ClassTable([ROAD, LabelClass(8, "walk", (128, 64, 128))]), ("'road'", "'walk'", "#804080")),
        (lambda: ClassTable([ROAD, WALK], "sky"), ("background 'sky'", "road, walk")),
        (lambda: LabelClass(0, " ", (1, 2, 3)), ("(1, 2, 3)", "no name")),
        (lambda: LabelClass(0, True, (1, 2, 3)), ("name True", "quotes")),
        (lambda: LabelClass(0, "a\nb", (1, 2, 3)), ("name 'a\\nb'", "line breaks")),
        (lambda: LabelClass(0, "a", (1, 2, 256)), ("class 'a'", "256", "0..255")),
        (lambda: LabelClass(0, "a", (0.5, 0.2, 0.1)), ("class 'a'", "0.5", "0..255")),
        (lambda: LabelClass(0, "a", (1, 2)), ("class 'a'", "(1, 2)", "'#RRGGBB' (in quotes)", "[r, g, b]")),
        (lambda: LabelClass(0, "a", 12345), ("class 'a'", "12345", "'#RRGGBB' (in quotes)")),
        (lambda: LabelClass(0, "a", float("1E2040")), ("class 'a'", "inf", "0xRRGGBB")),
        (lambda: LabelClass(0, "a", "#12345"), ("class 'a'", "'#12345'", "'#RRGGBB' or [r, g, b]")),
        (lambda: LabelClass(-1, "a", (1, 2, 3)), ("class 'a'", "id -1", "0..65535")),
        (lambda: LabelClass(65536, "a", (1, 2, 3)), ("class 'a'", "id 65536", "0..65535")),
        (lambda: ClassTable([ROAD]).index("raod"), ("'raod'", "road")),
    ],
)
def test_an_invalid_table_is_refused_on_one_line(make, parts):
    with pytest.raises(UserError) as caught:
        make()
    assert_says(str(caught.value), *parts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "labels", [ClassTable([ROAD, WALK], "walk"), ClassTable([ROAD]), *(pair[0] for pair in PRESETS.values())]
)
def test_a_table_survives_json(labels):
    assert ClassTable.from_dict(json.loads(json.dumps(labels.to_dict()))) == labels


def test_a_class_is_its_position_in_the_table_whatever_its_id():
    labels = ClassTable([ROAD, WALK])
    assert [labels.index(name) for name in labels.names] == [0, 1]
    assert len(labels) == 2
    assert labels.colors.dtype == np.uint8
    assert labels.colors.tolist() == [[128, 64, 128], [244, 35, 232]]


def test_masks_are_drawn_in_the_class_colors_and_ignored_pixels_in_another():
    labels = ClassTable([ROAD, WALK])
    for dtype in (np.uint8, np.int64):
        picture = labels.colorize(np.array([[0, 1], [IGNORE, 0]], dtype=dtype))
        assert picture.dtype == np.uint8
        assert picture.tolist() == [[[128, 64, 128], [244, 35, 232]], [[255, 255, 255], [128, 64, 128]]]


def test_the_color_of_ignored_pixels_is_never_a_class_color():
    shades = [(255, 255, 255), (0, 0, 0), (255, 0, 255), *[(v, v, v) for v in range(1, 253)]]
    for number in (1, 2, 3, 255):
        labels = ClassTable([LabelClass(i, str(i), shades[i]) for i in range(number)])
        assert labels.ignore_color not in shades[:number]


@pytest.mark.parametrize("wrong", [[[2]], [[-1]], [[256]], [[0.5]]])
def test_a_mask_with_other_values_is_not_drawn(wrong):
    with pytest.raises(ValueError, match="mask"):
        ClassTable([ROAD, WALK]).colorize(np.array(wrong))


def test_background_index_is_the_position_of_the_background_class():
    assert ClassTable([ROAD, WALK]).background_index is None
    assert [ClassTable([ROAD, WALK], name).background_index for name in ("road", "walk")] == [0, 1]


def test_a_table_of_too_many_ids_without_colours_is_refused_in_one_line(tmp_path):
    path = tmp_path / "classes.csv"
    path.write_text("".join(f"{number},class {number}\n" for number in range(300)))
    with pytest.raises(UserError, match=r"classes\.csv: .*300 classes.*255"):
        read_table(path)
