"""Distances from borders, and errors by distance."""

import numpy as np
import pytest

from segsweep import plots
from segsweep.plots import border_distance, border_errors

random = np.random.default_rng(0)


def brute_force(mask, ignore=255):
    rows, columns = np.indices(mask.shape)
    result = np.full(mask.shape, np.nan)
    for row, column in np.argwhere(mask != ignore):
        others = (mask != mask[row, column]) & (mask != ignore)
        squared = (rows - row) ** 2 + (columns - column) ** 2
        result[row, column] = np.sqrt(squared[others].min()) if others.any() else np.inf
    return result


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_the_distance_is_that_to_the_nearest_pixel_of_another_class(classes):
    mask = np.kron(random.integers(classes, size=(3, 4)), np.ones((4, 3), dtype=int))
    mask[random.random(mask.shape) < 0.1] = 255
    np.testing.assert_allclose(border_distance(mask), brute_force(mask))


def test_a_mask_of_one_class_has_no_border_and_an_ignored_one_no_distance():
    assert np.isinf(border_distance(np.ones((3, 4)))).all()
    assert np.isnan(border_distance(np.full((3, 4), 255))).all()
    assert border_distance([[7, 255]], ignore=None).tolist() == [[1, 1]]


def panels(figure):
    left, right = figure.axes
    bars = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in left.patches}
    return bars, {line.get_label(): line.get_ydata().tolist() for line in right.get_lines()}


def test_shares_are_those_of_the_pixels_at_each_distance():
    # The distances of the columns are 4, 3, 2, 1 | 1, 2, 3, 4; each has ten pixels.
    mask = np.repeat([[0, 0, 0, 0, 1, 1, 1, 1]], 10, axis=0)
    prediction = mask.copy()
    prediction[:5, 3] = 1
    prediction[0, 7] = 0
    figure = border_errors([mask], [prediction], max_distance=3)
    bars, lines = panels(figure)
    assert bars == {1: 25, 2: 0, 3: 0, 4: 5}
    np.testing.assert_allclose(lines["of all wrong pixels"], [500 / 6] * 3)
    assert lines["of all pixels"] == [25, 50, 75]
    assert figure.get_suptitle() == "1 image: 6 of 80 pixels wrong"
    assert [text.get_text() for text in figure.axes[0].texts] == ["25", "0", "0", "5"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "2", "3", "> 3"]


def test_ignored_pixels_count_nowhere_and_sizes_may_differ():
    mask = np.array([[0, 255, 1]])
    bars, _ = panels(border_errors([mask, np.zeros((2, 2))], [np.array([[1, 0, 1]]), np.zeros((2, 2))]))
    assert bars == {2: 50, 9: 0}


def test_a_prediction_without_mistakes_is_drawn():
    bars, lines = panels(border_errors([np.eye(3)], [np.eye(3)]))
    assert set(bars.values()) == {0}
    assert list(lines) == ["of all pixels"]


@pytest.mark.parametrize(
    ("masks", "predictions", "changes", "message"),
    [
        ([], [], {}, "0 masks and 0 predictions"),
        ([np.eye(2)], [], {}, "1 masks and 0 predictions"),
        ([np.eye(2)], [np.eye(3)], {}, "prediction is 3×3"),
        ([np.full((2, 2), 255)], [np.eye(2)], {}, "every pixel is ignored"),
        ([np.eye(2)], [np.eye(2)], {"max_distance": 0}, "max_distance is 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(masks, predictions, changes, message):
    with pytest.raises(ValueError, match=message):
        border_errors(masks, predictions, **changes)


def test_small_shares_are_not_written_as_0():
    mask = np.repeat([[0] * 200 + [1] * 200], 200, axis=0)
    prediction = mask.copy()
    prediction[0, 0] = 1
    figure = border_errors([mask], [prediction], max_distance=1)
    assert [text.get_text() for text in figure.axes[0].texts] == ["0", "<0.01"]
    assert plots.to_image(figure, dpi=30).ndim == 3
