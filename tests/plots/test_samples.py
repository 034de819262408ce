import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segsweep import plots
from segsweep.plots.samples import IGNORED, RIGHT, WRONG

random = np.random.default_rng(0)
masks_2d = arrays(np.int64, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2, 255]))


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def pictures(figure):
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@given(masks_2d, st.data())
def test_the_error_map_marks_exactly_the_wrong_pixels(mask, data):
    guess = data.draw(arrays(np.int64, mask.shape, elements=st.integers(0, 2)))
    errors = plots.error_map(mask, guess)
    assert np.array_equal(errors == IGNORED, mask == 255)
    assert np.array_equal(errors == WRONG, (mask != guess) & (mask != 255))
    assert np.array_equal(errors == RIGHT, (mask == guess) & (mask != 255))
    judged = mask != 255
    share = plots.wrong_share(errors)
    assert share == (mask != guess)[judged].mean() if judged.any() else np.isnan(share)


def test_without_an_ignored_id_every_pixel_is_judged():
    assert plots.error_map([[255, 255]], [[255, 0]], ignore=None).tolist() == [[RIGHT, WRONG]]


def test_the_drawn_error_map_is_the_array():
    mask = random.integers(0, 3, (2, 6, 8))
    guess = random.integers(0, 3, (2, 6, 8))
    mask[:, 0] = 255
    figure = plots.samples(random.random((2, 6, 8)), mask, guess)
    for row in range(2):
        drawn = pictures(figure)[4 * row + 3]
        errors = plots.error_map(mask[row], guess[row])
        colors = {code: np.unique(drawn[errors == code], axis=0) for code in (RIGHT, WRONG, IGNORED)}
        assert all(len(found) == 1 for found in colors.values())
        assert len({tuple(found[0]) for found in colors.values()}) == 3
        share = plots.wrong_share(errors)
        assert titles(figure)[4 * row + 3].endswith(f"{share * 100:.2f} % wrong")


def test_images_and_masks_are_drawn_as_they_are():
    images, masks = random.random((2, 3, 6, 8)), random.integers(0, 2, (2, 1, 6, 8))
    figure = plots.samples(images, masks, colors=["black", "white"])
    drawn = pictures(figure)
    assert np.array_equal(drawn[0], np.moveaxis(images[0], 0, -1))
    assert np.array_equal(drawn[3], np.repeat(masks[1, 0, ..., None] * 255, 3, axis=-1))


def test_a_dim_grayscale_image_stays_dim():
    figure = plots.samples(np.full((1, 4, 4), 0.25), np.zeros((1, 4, 4)))
    assert figure.axes[0].images[0].get_clim() == (0, 1)


@pytest.mark.parametrize(
    ("shape", "number", "channels"),
    [((1, 1), 1, ()), ((1, 1), 1, (3,)), ((1, 50), 2, (1,)), ((50, 1), 1, ()), ((17, 31), 2, (3,))],
)
def test_any_size_and_number_renders(shape, number, channels):
    images = random.random((number, *channels, *shape)).astype(np.float32)
    masks = random.random((number, *shape)) > 0.5
    figure = plots.samples(images, masks, ~masks, titles=[f"a${index}^{{" for index in range(number)])
    image = plots.to_image(figure, dpi=30)
    assert image.ndim == 3
    assert image.shape[-1] == 3


def test_only_the_first_rows_are_drawn_and_the_title_says_so():
    figure = plots.samples(np.zeros((5, 4, 4)), np.zeros((5, 4, 4)), max_rows=2)
    assert len(figure.axes) == 4
    assert figure.get_suptitle() == "the first 2 of 5 samples"


def test_the_legend_names_the_classes_that_occur():
    mask = np.array([[[0, 2, 255]]])
    figure = plots.samples(np.zeros((1, 1, 3)), mask, mask, class_names=["sky", "sea", "land"])
    assert legend(figure) == ["sky", "land", "ignored", "wrong"]


def test_samples_refuses_arguments_that_do_not_fit():
    images, masks = np.zeros((2, 4, 4)), np.zeros((2, 4, 4))
    with pytest.raises(ValueError, match="masks has 1 entries for 2 images"):
        plots.samples(images, masks[:1])
    with pytest.raises(ValueError, match=r"predictions\[0\] is 4×3, its image 4×4"):
        plots.samples(images, masks, masks[..., :3])
    with pytest.raises(ValueError, match="images is empty"):
        plots.samples(images[:0], masks[:0])
    with pytest.raises(ValueError, match="titles has 1"):
        plots.samples(images, masks, titles=["a"])
    with pytest.raises(ValueError, match="max_rows is 0"):
        plots.samples(images, masks, max_rows=0)
    with pytest.raises(ValueError, match=r"images\[0\] has shape \[4\]"):
        plots.samples(images[0], masks)


@given(masks_2d, st.sampled_from([None, 0, 1]), st.floats(0, 1), st.booleans())
def test_an_overlay_leaves_clear_pixels_exactly_the_image(mask, background, alpha, gray):
    image = np.random.default_rng(1).random(mask.shape if gray else (3, *mask.shape))
    result = plots.overlay(image, mask, background=background, alpha=alpha)
    rgb = np.stack([image] * 3, -1) if gray else np.moveaxis(image, 0, -1)
    clear = (mask == 255) | (mask == background)
    assert np.array_equal(result[clear], rgb[clear])
    colors = plots.class_colors(3)[np.where(mask == 255, 0, mask)] / 255
    assert np.allclose(result[~clear], ((1 - alpha) * rgb + alpha * colors)[~clear], atol=1e-6)


def test_an_overlay_does_not_change_its_input():
    image = random.random((4, 4, 3)).astype(np.float32)
    before = image.copy()
    plots.overlay(image, np.ones((4, 4)))
    assert np.array_equal(image, before)


def test_overlay_refuses_arguments_that_do_not_fit():
    with pytest.raises(ValueError, match=r"alpha is 1\.5"):
        plots.overlay(np.zeros((2, 2)), np.zeros((2, 2)), alpha=1.5)
    with pytest.raises(ValueError, match="mask is 2×3, its image 2×2"):
        plots.overlay(np.zeros((2, 2)), np.zeros((2, 3)))


def test_the_four_panels_hold_image_truth_prediction_and_overlay():
    image, mask, guess = random.random((5, 7, 3)), random.integers(0, 2, (5, 7)), random.integers(0, 2, (5, 7))
    colors = np.array([(0, 0, 0), (200, 10, 10)])
    drawn = pictures(plots.overlay_panels(image, mask, guess, colors, background=0, title="part_$1"))
    assert np.array_equal(drawn[0], image)
    assert np.array_equal(drawn[1], colors[mask])
    assert np.array_equal(drawn[2], colors[guess])
    assert np.array_equal(drawn[3], plots.overlay(image, guess, colors, background=0))


class Files:
    """A lazy sequence, like a folder of files, that records what is read."""

    def __init__(self, number, read):
        self.number, self.read, self.opened = number, read, set()

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        self.opened.add(index)
        return self.read(index)


def test_a_contact_sheet_reads_only_the_pairs_it_draws_and_says_which():
    images = Files(30, lambda index: np.full((6 + index % 3, 9, 3), index, dtype=np.uint8))
    masks = Files(30, lambda index: np.full((6 + index % 3, 9), index % 2))
    figure = plots.contact_sheet(images, masks, names=[f"part_{index}.png" for index in range(30)], max_pairs=4)
    assert images.opened == masks.opened == {0, 10, 19, 29}
    assert "4 of 30 pairs" in figure.get_suptitle()
    assert {title for title in titles(figure) if title} == {f"part_{index}.png" for index in images.opened}
    assert len(pictures(figure)) == 12


@pytest.mark.parametrize(("number", "fit"), [(1, 1), (5, 5), (54, 24), (100, 7), (3, 24)])
def test_a_contact_sheet_spreads_its_pairs_from_the_first_to_the_last(number, fit):
    images = Files(number, lambda index: np.zeros((2, 2)))
    plots.contact_sheet(images, images, max_pairs=fit)
    assert len(images.opened) == min(number, fit)
    assert min(images.opened) == 0
    assert max(images.opened) == number - 1 or fit == 1


def test_a_contact_sheet_keeps_large_masks_in_pure_class_colors():
    mask = random.integers(0, 2, (901, 1203))
    image = random.random((901, 1203))
    drawn = pictures(plots.contact_sheet([image], [mask], ["black", "white"]))
    assert np.array_equal(drawn[1][..., 0] // 255, mask[::4, ::4])
    assert np.array_equal(drawn[0], image[::4, ::4])


def test_a_contact_sheet_refuses_arguments_that_do_not_fit():
    with pytest.raises(ValueError, match="masks has 1 entries for 2 images"):
        plots.contact_sheet([np.zeros((2, 2))] * 2, [np.zeros((2, 2))])
    with pytest.raises(ValueError, match="images is empty"):
        plots.contact_sheet([], [])
    with pytest.raises(ValueError, match="max_pairs is 0"):
        plots.contact_sheet([np.zeros((2, 2))], [np.zeros((2, 2))], max_pairs=0)
    with pytest.raises(ValueError, match=r"masks\[1\] is 3×2"):
        plots.contact_sheet([np.zeros((2, 2))] * 2, [np.zeros((2, 2)), np.zeros((3, 2))])
