import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from segsweep import plots
from segsweep.plots.network import mosaic

random = np.random.default_rng(0)


def test_the_sigma_study_has_a_row_for_each_sigma1_and_a_column_for_each_difference():
    sigma1 = [0.2, 0.2, 1, 1, 5, 5, 10, 10]
    sigma2 = [first + difference for first, difference in zip(sigma1, [0.2, 1] * 4, strict=True)]
    images = random.random((8, 1, 16, 16))
    mask = random.random((16, 16)) > 0.5
    figure = plots.sigma_study(images, sigma1, sigma2, mask=mask)
    grid = {axes.get_title(): axes for axes in figure.axes}
    expected = [
        f"σ₁ = {a}, σ₂ = {b}" for a, b in zip(sigma1, ["0.4", "1.2", "1.2", "2", "5.2", "6", "10.2", "11"], strict=True)
    ]
    assert set(grid) == {*expected, "mask"}
    for title, image in zip(expected, images, strict=True):
        assert np.array_equal(grid[title].images[0].get_array(), image[0])
    places = [
        (grid[title].get_subplotspec().rowspan.start, grid[title].get_subplotspec().colspan.start) for title in expected
    ]
    assert places == [(row, column) for row in range(4) for column in (1, 2)]


def test_the_sigma_study_takes_images_in_any_order_and_an_incomplete_grid():
    images = random.random((3, 8, 8))
    figure = plots.sigma_study(images, [5, 1, 1], [6, 2, 1.2])
    drawn = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in drawn] == ["σ₁ = 1, σ₂ = 1.2", "σ₁ = 1, σ₂ = 2", "σ₁ = 5, σ₂ = 6"]
    assert plots.to_image(figure, dpi=30).ndim == 3


def test_the_sigma_study_refuses_arguments_that_do_not_fit():
    images = np.zeros((2, 4, 4))
    with pytest.raises(ValueError, match="2 images, 1 values of sigma1"):
        plots.sigma_study(images, [1], [2])
    with pytest.raises(ValueError, match="sigma1 1 and sigma2 0"):
        plots.sigma_study(images, [1, 1], [2, 0])
    with pytest.raises(ValueError, match="two images have sigma1 1 and sigma2 2"):
        plots.sigma_study(images, [1, 1], [2, 2])


def test_a_texture_pair_shows_image_and_mask_and_says_how_much_of_each_class():
    image, mask = random.random((1, 4, 8)), np.zeros((4, 8))
    mask[0] = 1
    figure = plots.texture_pair(image, mask, title="σ₁ = 1")
    left, right = figure.axes
    assert np.array_equal(left.images[0].get_array(), image[0])
    assert "4×8 pixels" in left.get_title()
    assert right.get_title() == "mask, share of class 0: 75 %, 1: 25 %"


def test_a_mosaic_holds_every_tile_unchanged_with_gaps_between():
    tiles = random.random((2, 3, 5, 4))
    picture = mosaic(tiles)
    assert picture.shape == (2 * 5 + 1, 3 * 4 + 2)
    for row in range(2):
        for column in range(3):
            assert np.array_equal(picture[row * 6 : row * 6 + 5, column * 5 : column * 5 + 4], tiles[row, column])
    assert np.isnan(picture).sum() == picture.size - tiles.size


@pytest.mark.parametrize(
    "shape", [(16, 1, 5, 5), (16, 16, 5, 5), (1, 16, 5, 5), (64, 3, 3, 3), (1, 1, 1, 1), (128, 64, 3, 3)]
)
def test_filters_share_a_scale_whose_middle_is_zero(shape):
    weights = random.standard_normal(shape)
    figure = plots.filters(weights)
    image = figure.axes[0].images[0]
    low, high = image.get_clim()
    shown = weights[:32, :32]
    assert -low == high == np.abs(shown).max()
    drawn = np.ma.filled(image.get_array(), np.nan)
    assert np.array_equal(np.sort(drawn[np.isfinite(drawn)]), np.sort(shown.ravel()))
    assert plots.to_image(figure, dpi=30).ndim == 3


def test_titles_say_how_many_filters_and_maps_are_left_out():
    assert "128 outputs × 64 inputs, 3×3; the first 32 × 32" in plots.filters(np.ones((128, 64, 3, 3))).get_suptitle()
    assert "100 channels, 4×4; the first 64" in plots.feature_maps(random.random((100, 4, 4))).get_suptitle()
    assert plots.feature_maps(np.zeros((1, 4, 4))).get_suptitle() == "feature maps (1 channel, 4×4)"


@pytest.mark.parametrize("shape", [(1, 16, 8, 8), (1, 8, 8), (7, 3, 40), (65, 1, 1)])
def test_feature_maps_of_any_shape_render(shape):
    figure = plots.feature_maps(random.random(shape))
    assert plots.to_image(figure, dpi=30).ndim == 3


@pytest.mark.parametrize("scale", [0.07, 1, 100])
@pytest.mark.parametrize("shape", [(16, 16, 5, 5), (5, 5, 7, 7), (3, 7, 3, 3), (64, 64, 3, 3), (1, 16, 5, 5)])
def test_no_label_of_filters_is_cut_off(shape, scale):
    figure = plots.filters(random.standard_normal(shape) * scale)
    plots.to_image(figure)
    drawn = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
    assert drawn.x0 > 0
    assert drawn.y0 > 0
    assert drawn.x1 < figure.get_figwidth()
    assert drawn.y1 < figure.get_figheight()


def test_the_scale_of_feature_maps_may_leave_out_the_largest_values():
    maps = random.random((4, 8, 8))
    maps[0, 0, 0] = 100
    for clip, limits, ends in ((0.0, (maps.min(), 100), "neither"), (0.01, np.quantile(maps, [0.01, 0.99]), "both")):
        image = plots.feature_maps(maps, clip=clip).axes[0].images[0]
        assert image.get_clim() == pytest.approx(tuple(limits))
        assert image.colorbar.extend == ends
    assert plots.feature_maps(np.maximum(maps, 0.5), clip=0.1).axes[0].images[0].colorbar.extend == "max"
    with pytest.raises(ValueError, match=r"clip is 0\.5"):
        plots.feature_maps(maps, clip=0.5)


def test_filters_and_maps_refuse_arguments_that_do_not_fit():
    with pytest.raises(ValueError, match=r"weights has shape \[3, 3\]"):
        plots.filters(np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"maps has shape \[2, 3, 4, 4\]; give \[C, H, W\] of one sample"):
        plots.feature_maps(np.zeros((2, 3, 4, 4)))
    with pytest.raises(ValueError, match="2 values that are NaN or infinite"):
        plots.feature_maps(np.array([[[np.nan, 1, np.inf]]]))
