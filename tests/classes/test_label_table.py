import json

import numpy as np
import pytest

from segsweep.classes import IGNORE, PRESETS, ClassTable, LabelClass
from segsweep.errors import UserError

ROAD = LabelClass(7, "road", (128, 64, 128))
WALK = LabelClass(8, "walk", (244, 35, 232))


def refusal(make) -> str:
    with pytest.raises(UserError) as caught:
        make()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClassTable([]), "the class table has no class; list at least one with name and color."),
        (
            lambda: ClassTable([LabelClass(i, str(i), (i % 256, i // 256, 0)) for i in range(256)]),
            "the class table has 256 classes; at most 255 fit.",
        ),
        (
            lambda: ClassTable([ROAD, LabelClass(1, "road", (1, 1, 1))]),
            "two classes are named 'road'; give each a name of its own.",
        ),
        (
            lambda: ClassTable([ROAD, LabelClass(7, "walk", (1, 1, 1))]),
            "classes 'road' and 'walk' have the same id 7; change one.",
        ),
        (
            lambda: ClassTable([ROAD, LabelClass(8, "walk", (128, 64, 128))]),
            "classes 'road' and 'walk' have the same colour #804080; change one.",
        ),
        (lambda: ClassTable([ROAD, WALK], "sky"), "the background 'sky' is no class; choose one of road, walk."),
        (lambda: LabelClass(0, " ", (1, 2, 3)), "the class with colour (1, 2, 3) has no name; give it one."),
        (lambda: LabelClass(0, True, (1, 2, 3)), "the class name True is not text; put it in quotes."),
        (
            lambda: LabelClass(0, "a\nb", (1, 2, 3)),
            "the class name 'a\\nb' holds line breaks or control characters; remove them.",
        ),
        (
            lambda: LabelClass(0, "a", (1, 2, 256)),
            "class 'a': 256 is no colour value; red, green and blue are whole numbers in 0..255.",
        ),
        (
            lambda: LabelClass(0, "a", (0.5, 0.2, 0.1)),
            "class 'a': 0.5 is no colour value; red, green and blue are whole numbers in 0..255.",
        ),
        (lambda: LabelClass(0, "a", (1, 2)), "class 'a': (1, 2) is no colour; write it as '#RRGGBB' (in quotes) or"),
        (lambda: LabelClass(0, "a", 123456), "class 'a': 123456 is no colour; write it as '#RRGGBB' (in quotes)"),
        (lambda: LabelClass(0, "a", "#12345"), "class 'a': '#12345' is no colour; write it as '#RRGGBB' or [r, g, b]."),
        (lambda: LabelClass(-1, "a", (1, 2, 3)), "class 'a': the id -1 is not a whole number in 0..65535."),
        (lambda: LabelClass(65536, "a", (1, 2, 3)), "class 'a': the id 65536 is not a whole number in 0..65535."),
        (lambda: ClassTable([ROAD]).index("raod"), "there is no class 'raod'; the classes are road."),
    ],
)
def test_a_table_that_is_not_valid_is_refused_on_one_line(make, message):
    assert refusal(make).startswith(message)


@pytest.mark.parametrize(
    "labels", [ClassTable([ROAD, WALK], "walk"), ClassTable([ROAD]), *(pair[0] for pair in PRESETS.values())]
)
def test_a_table_survives_the_way_through_plain_data(labels):
    assert ClassTable.from_dict(json.loads(json.dumps(labels.to_dict()))) == labels


def test_a_class_is_its_position_in_the_table_whatever_its_id():
    labels = ClassTable([ROAD, WALK])
    assert [labels.index(name) for name in labels.names] == [0, 1]
    assert len(labels) == 2
    assert labels.colors.dtype == np.uint8
    assert labels.colors.tolist() == [[128, 64, 128], [244, 35, 232]]


def test_masks_are_drawn_in_the_class_colors_and_ignored_pixels_in_none_of_them():
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
