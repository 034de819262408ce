"""Texture images beside their masks, and the same mask under different smoothing lengths."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from segsweep.plots.arrays import IGNORE, ImageBatch, as_colors, as_image, as_images, as_mask, mask_to_rgb
from segsweep.plots.style import new_figure, plain, show_colors, show_image, styled


@styled
def texture_pair(image: ArrayLike, mask: ArrayLike, *, title: str | None = None) -> Figure:
    """Draws a texture image beside its mask, and says the size and the share of each class.

    Args:
        image: [H, W], [1, H, W] or [3, H, W] in [0, 1].
        mask: class ids [H, W], here 0 and 1.
        title: above both, such as their sigmas.

    Raises:
        ValueError: not an image or not a mask, or they differ in size.
    """
    picture = as_image(image)
    truth = as_mask(mask, like=picture)
    height = float(np.clip(picture.shape[0] / picture.shape[1], 0.3, 2.5)) * 3.4
    figure = new_figure(7.6, height + 0.7)
    left, right = figure.subplots(1, 2)
    show_image(left, picture)
    show_colors(right, mask_to_rgb(truth, as_colors(None, [truth], IGNORE), IGNORE))
    size = f"{picture.shape[0]}×{picture.shape[1]} pixels"
    left.set_title(f"image, {size}, black 0 to white 1")
    ids = ", ".join(f"{value}: {np.mean(truth == value):.0%}".replace("%", " %") for value in np.unique(truth))
    right.set_title(f"mask, share of class {ids}")
    if title is not None:
        figure.suptitle(title)
    return figure


@styled
def sigma_study(
    images: ImageBatch, sigma1: Sequence[float], sigma2: Sequence[float], *, mask: ArrayLike | None = None
) -> Figure:
    """Draws one mask under pairs of smoothing lengths: a row for each sigma1, a column for each difference.

    Args:
        images: [N, H, W] or [N, 1, H, W] in [0, 1], all made from the same mask and the same noise.
        sigma1: N smoothing lengths in pixels, of the texture inside the mask (1).
        sigma2: N smoothing lengths in pixels, of the texture outside the mask (0).
        mask: their mask [H, W], drawn to the left of every row.

    Raises:
        ValueError: lengths that differ, a sigma that is not positive, or two images with the same pair.

    Source: texture notebook (docs/sources.md), section 3.2.
    """
    pictures = as_images(images)
    if not len(pictures) == len(sigma1) == len(sigma2):
        counts = f"{len(pictures)} images, {len(sigma1)} values of sigma1, {len(sigma2)} of sigma2"
        raise ValueError(f"{counts}; give one of each for every image.")
    pairs = []
    for first, second in zip(sigma1, sigma2, strict=True):
        if not (first > 0 and second > 0 and np.isfinite(first + second)):
            raise ValueError(f"sigma1 {first} and sigma2 {second}: both are lengths in pixels, above 0.")
        # Rounded, so that equal differences compare equal: 5.2 - 5 and 1.2 - 1 are not the same float.
        pairs.append((float(first), round(float(second) - float(first), 6)))
    repeated = {pair for pair in pairs if pairs.count(pair) > 1}
    if repeated:
        first, difference = min(repeated)
        raise ValueError(f"two images have sigma1 {plain(first)} and sigma2 {plain(round(first + difference, 6))}.")

    firsts = sorted({first for first, _ in pairs})
    differences = sorted({difference for _, difference in pairs})
    offset = 0 if mask is None else 1
    tile = 2.2
    columns = len(differences) + offset
    figure = new_figure(tile * columns + 0.2, (tile + 0.28) * len(firsts) + 0.5)
    grid = figure.subplots(len(firsts), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for picture, (first, difference) in zip(pictures, pairs, strict=True):
        axes = grid[firsts.index(first), differences.index(difference) + offset]
        axes.set_axis_on()
        show_image(axes, picture)
        axes.set_title(f"σ₁ = {plain(first)}, σ₂ = {plain(round(first + difference, 6))}")
    if mask is not None:
        truth = as_mask(mask, like=pictures[0])
        picture = mask_to_rgb(truth, as_colors(None, [truth], IGNORE), IGNORE)
        for axes in grid[:, 0]:
            axes.set_axis_on()
            show_colors(axes, picture)
            axes.set_title("mask")
    figure.suptitle("smoothing lengths in pixels")
    return figure
