import numpy as np
import pytest

from segsweep.plots.arrays import as_colors, as_image, as_mask, class_colors, class_handles, mask_to_rgb
from segsweep.plots.style import plain, shorten, text_color


class Tensor:
    """A tensor of another library, which only has `__array__`."""

    def __init__(self, values, *, readable=True):
        self.values, self.readable = np.asarray(values), readable

    def __array__(self, dtype=None, copy=None):
        if not self.readable:
            raise RuntimeError("requires grad")
        return self.values


@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (5, 7, 1)])
def test_one_channel_is_drawn_as_grey_whatever_the_layout(shape):
    values = np.random.default_rng(0).random((5, 7), dtype=np.float32)
    assert np.array_equal(as_image(values.reshape(shape)), values)


def test_channels_first_and_channels_last_are_the_same_picture():
    values = np.random.default_rng(0).random((3, 5, 7))
    assert np.array_equal(as_image(values), as_image(np.moveaxis(values, 0, -1)))


def test_eight_and_sixteen_bit_images_span_zero_to_one():
    assert np.array_equal(as_image(np.array([[0, 255]], dtype=np.uint8)), [[0, 1]])
    assert np.array_equal(as_image(np.array([[0, 65535]], dtype=np.uint16)), [[0, 1]])


def test_anything_with_an_array_interface_is_read():
    assert np.array_equal(as_image(Tensor([[0.25, 0.5]])), [[0.25, 0.5]])
    with pytest.raises(ValueError, match=r"image: .*detach\(\)\.cpu\(\)"):
        as_image(Tensor([[0.25]], readable=False))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((1, 2, 5, 7)), r"shape \[1, 2, 5, 7\]"),
        (np.zeros(5), r"shape \[5\]"),
        (np.zeros((0, 5)), r"shape \[0, 5\]"),
        (np.full((2, 2), 255.0), "from 255 to 255"),
        (np.full((2, 2), np.nan), "from nan to nan"),
        (np.zeros((2, 2), dtype=np.int64), "type int64"),
        ([[0.1, "a"]], "type"),
    ],
)
def test_other_values_than_an_image_are_refused_in_one_line(image, message):
    with pytest.raises(ValueError, match=message) as caught:
        as_image(image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("channels", "drawn"), [(2, [0]), (4, [0, 1, 2]), (5, [0, 1, 2])])
def test_the_first_of_many_channels_are_drawn(channels, drawn):
    values = np.random.default_rng(0).random((channels, 5, 7))
    assert np.array_equal(as_image(values), np.squeeze(values[drawn].transpose(1, 2, 0)))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_masks_keep_their_ids_in_every_type(dtype):
    mask = as_mask(np.array([[[0, 1]]], dtype=dtype))
    assert mask.dtype == np.int64
    assert mask.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[0.3, 0.7]], "holds fractions"),
        ([[np.nan]], "holds fractions"),
        ([[-1]], "negative id -1"),
        (np.zeros((2, 3, 4)), r"shape \[2, 3, 4\]"),
        ([["a"]], "type"),
    ],
)
def test_other_values_than_a_mask_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        as_mask(mask)


def test_integer_float_and_named_colors_are_the_same_table():
    mask = [np.array([[0, 1]])]
    table = as_colors([(255, 0, 0), (0, 0, 255)], mask, None)
    assert np.array_equal(table, as_colors([(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)], mask, None))
    assert np.array_equal(table, as_colors(["red", "#0000FF"], mask, None))


def test_an_id_without_a_color_or_a_name_is_refused():
    mask = np.array([[0, 7, 255]])
    with pytest.raises(ValueError, match=r"ids 7\b.*0 to 1"):
        as_colors(["red", "blue"], [mask], 255)
    with pytest.raises(ValueError, match=r"class 7\b.*class_names has 2"):
        class_handles([mask], class_colors(8), ["a", "b"], 255)


@pytest.mark.parametrize("colors", [["no colour"], [(0, 0)], [(0, 0, 300)], [(0.0, 0.0, 1.5)], []])
def test_other_values_than_a_color_table_are_refused(colors):
    with pytest.raises(ValueError, match="color"):
        as_colors(colors, [np.array([[0]])], None)


def test_each_pixel_has_its_class_color_and_ignored_ones_are_grey():
    colors = class_colors(3)
    picture = mask_to_rgb(np.array([[0, 1], [2, 255]]), colors, 255)
    assert np.array_equal(picture[0, 0], colors[0])
    assert np.array_equal(picture[0, 1], colors[1])
    assert np.array_equal(picture[1, 0], colors[2])
    assert len(set(picture[1, 1].tolist())) == 1


@pytest.mark.parametrize("number", [1, 2, 8, 9, 30, 150])
def test_default_colors_are_distinct_and_the_first_ones_never_change(number):
    colors = class_colors(number)
    assert colors.shape == (number, 3)
    assert len({tuple(color) for color in colors.tolist()}) == number
    assert np.array_equal(colors, class_colors(200)[:number])


def test_the_legend_lists_the_classes_that_occur_and_no_others():
    handles = class_handles([np.array([[0, 2]]), np.array([[255, 2]])], class_colors(4), list("abcd"), 255)
    assert [handle.get_label() for handle in handles] == ["a", "c", "ignored"]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.001, None, "0.001"),
        (1e-05, None, "0.00001"),
        (10000, None, "10000"),
        (0.1 + 0.2, None, "0.3"),
        (5.0, None, "5"),
        (0, None, "0"),
        (-0.5, None, "-0.5"),
        (3e-9, None, "3e-9"),
        (1.5e12, None, "1.5e12"),
        (0.98, 4, "0.9800"),
        (0.99999, 4, "1.000"),
        (0.00012345, 4, "0.0001234"),
        (123.456, 4, "123.5"),
        (12345.6, 4, "12350"),
        (0, 4, "0.000"),
        (np.nan, 4, "NaN"),
        (np.inf, None, "∞"),
    ],
)
def test_numbers_are_written_plainly(value, digits, text):
    assert plain(value, digits) == text


def test_thousands_are_separated_if_asked():
    written = [plain(value, thousands=True) for value in (999, 1000, -12345.5, 0.25)]
    assert written == ["999", "1,000", "-12,345.5", "0.25"]


@pytest.mark.parametrize("length", [3, 4, 10, 11])
def test_shortened_text_keeps_both_ends_and_fits(length):
    text = "Tile 3/images/part_001.png"
    short = shorten(text, length)
    assert len(short) == length
    assert short[0] == text[0]
    assert short[-1] == text[-1]
    assert shorten(text, 26) == text


def test_text_has_contrast_with_its_background():
    assert text_color((1, 1, 0, 1)) == "black"
    assert text_color((0, 0, 0.5)) == "white"
