"""Rows of scored samples."""

import numpy as np
import pytest

from segsweep.plots import scored_samples

COLORS = [(0, 0, 255), (255, 0, 0), (0, 255, 0)]


def drawn(**changes):
    arguments = {
        "images": np.full((2, 3, 6, 8), 0.5), "masks": np.zeros((2, 6, 8), int), "predictions": np.ones((2, 6, 8), int),
        "scores": [0.25, 0.5], "colors": COLORS, "class_names": ["sky", "roof", "tree"], "background": 0,
    }  # fmt: skip
    return scored_samples(**(arguments | changes))


def test_masks_lie_over_the_image_and_the_background_stays_clear():
    true, predicted = (axes.images[0].get_array() for axes in drawn().axes[1:3])
    np.testing.assert_array_equal(true, 0.5)
    np.testing.assert_allclose(predicted, np.broadcast_to([0.75, 0.25, 0.25], (6, 8, 3)))


def test_samples_have_name_and_score_and_the_legend_lists_the_classes_that_occur():
    figure = drawn(names=["one.png", "two.png"], title="worst")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[4] == "two.png"
    assert titles[7] == "iou 0.5000"
    assert titles[3].endswith("iou 0.2500")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["roof", "sky (left clear)", "wrong"]


def test_large_images_are_subsampled_and_never_averaged():
    mask = np.random.default_rng(0).integers(3, size=(1300, 700))
    figure = drawn(images=[np.zeros((1300, 700))], masks=[mask], predictions=[mask], scores=[1.0], background=None)
    picture = figure.axes[1].images[0].get_array()
    assert picture.shape == (434, 234, 3)
    assert {tuple(color) for color in (picture * 2).reshape(-1, 3).round(3)} == {(0, 0, 1), (1, 0, 0), (0, 1, 0)}


@pytest.mark.parametrize("changes", [{"scores": [1.0]}, {"names": ["a"]}, {"masks": np.zeros((2, 5, 8), int)}])
def test_arguments_that_do_not_fit_are_refused(changes):
    with pytest.raises(ValueError, match=r"entries for|its image"):
        drawn(**changes)
