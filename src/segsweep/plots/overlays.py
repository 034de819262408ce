"""Masks laid over images: as arrays, as one picture, and as a sheet of many."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from segsweep.plots.arrays import (
    IGNORE,
    Colors,
    ImageBatch,
    as_colors,
    as_image,
    as_mask,
    batch_length,
    class_handles,
    mask_to_rgb,
    require_one_each,
    thinned,
)
from segsweep.plots.style import counted, legend_below, new_figure, shorten, show_colors, show_image, styled


def overlay(
    image: ArrayLike,
    mask: ArrayLike,
    colors: Colors | None = None,
    *,
    background: int | None = None,
    ignore: int | None = IGNORE,
    alpha: float = 0.5,
) -> NDArray[Any]:
    """Lays a mask over its image; clear pixels keep exactly the image's values.

    Args:
        image: [H, W], [1, H, W] or [3, H, W] in [0, 1], or uint8.
        mask: class ids [H, W].
        colors, background, ignore: see `segsweep.plots`.
        alpha: opacity of painted pixels, 0 to 1.

    Returns:
        float [H, W, 3] in [0, 1].

    Raises:
        ValueError: `alpha` outside [0, 1], an id without a colour, not an image or mask, or they differ in size.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; give an opacity from 0 to 1.")
    picture = as_image(image)
    ids = as_mask(mask, like=picture)
    rgb = mask_to_rgb(ids, as_colors(colors, [ids], ignore), ignore) / np.float32(255)
    painted = ~np.isin(ids, [value for value in (background, ignore) if value is not None]) & (alpha > 0)
    result = np.repeat(picture[..., None], 3, axis=-1) if picture.ndim == 2 else picture.copy()
    result[painted] = (1 - alpha) * result[painted] + alpha * rgb[painted]
    return result


@styled
def overlay_panels(
    image: ArrayLike,
    mask: ArrayLike,
    prediction: ArrayLike,
    colors: Colors | None = None,
    *,
    class_names: Sequence[str] | None = None,
    background: int | None = None,
    ignore: int | None = IGNORE,
    title: str | None = None,
) -> Figure:
    """Draws four panels: image, true mask, predicted mask, and the prediction laid over the image.

    Args:
        image: [H, W], [1, H, W] or [3, H, W] in [0, 1], or uint8.
        mask: true class ids [H, W].
        prediction: predicted class ids [H, W].
        colors, class_names, background, ignore: see `segsweep.plots`.
        title: above all panels, such as the file's name.

    Raises:
        ValueError: as `overlay`, or a class that occurs has no name.

    Source: U-Net report (docs/sources.md), the picture of its `evaluate_test_data`.
    """
    picture = as_image(image)
    truth, guess = as_mask(mask, like=picture), as_mask(prediction, "prediction", picture)
    palette = as_colors(colors, [truth, guess], ignore)
    handles = class_handles([truth, guess], palette, class_names, ignore)
    width = 2.7
    figure = new_figure(4 * width, width * float(np.clip(picture.shape[0] / picture.shape[1], 0.3, 2.5)) + 0.9)
    axes = figure.subplots(1, 4)
    show_image(axes[0], picture)
    show_colors(axes[1], mask_to_rgb(truth, palette, ignore))
    show_colors(axes[2], mask_to_rgb(guess, palette, ignore))
    show_image(axes[3], overlay(picture, guess, palette, background=background, ignore=ignore))
    for panel, name in zip(axes, ("image", "true mask", "predicted mask", "prediction over image"), strict=True):
        panel.set_title(name)
    legend_below(figure, handles)
    if title is not None:
        figure.suptitle(title)
    return figure


@styled
def contact_sheet(
    images: ImageBatch,
    masks: ImageBatch,
    colors: Colors | None = None,
    *,
    names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    background: int | None = None,
    ignore: int | None = IGNORE,
    max_pairs: int = 24,
) -> Figure:
    """Draws many pairs of a data set: image, mask and overlay, with file names.

    Only the pairs that are drawn are read, so `images` and `masks` may be lazy sequences over files.

    Args:
        images: N of [H, W], [1, H, W], [3, H, W] or [H, W, 3], in [0, 1] or uint8; sizes may differ.
        masks: class ids [H, W], one for each image.
        names: a name for each pair; long ones are shortened in the middle.
        colors, class_names, background, ignore: see `segsweep.plots`.
        max_pairs: most pairs to draw; of more, a selection spread evenly over all, and the title says so.

    Raises:
        ValueError: nothing to draw, lengths or sizes that differ, or an id without a colour or name.
    """
    number = batch_length(images, "images")
    require_one_each(images, masks=masks, names=names)
    if max_pairs < 1:
        raise ValueError(f"max_pairs is {max_pairs}; give at least 1.")
    chosen = [int(index) for index in np.unique(np.linspace(0, number - 1, min(number, max_pairs)).round())]
    pairs = []
    for index in chosen:
        picture = as_image(images[index], f"images[{index}]")
        pairs.append(thinned(picture, as_mask(masks[index], f"masks[{index}]", picture), most=400))
    palette = as_colors(colors, [truth for _, truth in pairs], ignore)
    handles = class_handles([truth for _, truth in pairs], palette, class_names, ignore)

    across = 1 if len(pairs) < 3 else 2 if len(pairs) <= 16 else 3
    figure, panels = _sheet([picture for picture, _ in pairs], across)
    for index, (picture, truth), (left, middle, right) in zip(chosen, pairs, panels, strict=True):
        show_image(left, picture)
        show_colors(middle, mask_to_rgb(truth, palette, ignore))
        show_image(right, overlay(picture, truth, palette, background=background, ignore=ignore))
        middle.set_title(f"pair {index}" if names is None else shorten(str(names[index]), 46), fontsize=7, pad=2)
    legend_below(figure, handles)
    every = len(chosen) == number
    shown = counted(number, "pair") if every else f"{len(chosen)} of {number} pairs, spread evenly"
    figure.suptitle(f"image, mask and overlay: {shown}")
    return figure


def _sheet(pictures: Sequence[NDArray[Any]], across: int) -> tuple[Figure, list[NDArray[Any]]]:
    """Returns a figure with `across` pairs in a row, and the three axes of each picture."""
    rows = -(-len(pictures) // across)
    tile, gap = 1.35, 0.1
    shapes = [float(np.clip(picture.shape[0] / picture.shape[1], 0.3, 2.0)) for picture in pictures]
    heights = [tile * max(shapes[row * across : (row + 1) * across]) + 0.2 for row in range(rows)]
    figure = new_figure(across * 3 * tile + gap * across, sum(heights) + 0.8)
    # A narrow empty column separates neighbouring pairs.
    ratios = {"width_ratios": ([tile] * 3 + [gap]) * across, "height_ratios": heights, "wspace": 0.02, "hspace": 0.02}
    grid = figure.subplots(rows, 4 * across, squeeze=False, gridspec_kw=ratios)
    for axes in grid.flat:
        axes.set_axis_off()
    panels = [three for row in grid for three in row.reshape(across, 4)[:, :3]][: len(pictures)]
    for axes in np.concatenate(panels):
        axes.set_axis_on()
        axes.set_anchor("N")
    return figure, panels
