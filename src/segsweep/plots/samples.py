"""Rows of samples: image, true mask, prediction and error map, with or without scores."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from segsweep.plots.arrays import (
    IGNORE,
    IGNORED_COLOR,
    Colors,
    ImageBatch,
    as_colors,
    as_images,
    as_mask,
    as_masks,
    class_handles,
    color_patch,
    mask_to_rgb,
    require_one_each,
    thinned,
)
from segsweep.plots.overlays import overlay
from segsweep.plots.style import legend_below, new_figure, shorten, show_colors, show_image, styled

RIGHT, WRONG, IGNORED = 0, 1, 2
"""The values of an error map."""

ERROR_COLORS = np.array([(255, 255, 255), (176, 0, 32), IGNORED_COLOR], dtype=np.uint8)
"""The RGB colours of RIGHT, WRONG and IGNORED."""


def error_map(mask: ArrayLike, prediction: ArrayLike, ignore: int | None = IGNORE) -> NDArray[np.uint8]:
    """Marks the pixels at which a prediction differs from the truth.

    Args:
        mask: true class ids [H, W]; pixels of id `ignore` are neither right nor wrong.
        prediction: predicted class ids [H, W].
        ignore: None judges every pixel.

    Returns:
        uint8 [H, W]: RIGHT (0), WRONG (1) or IGNORED (2).

    Raises:
        ValueError: the two differ in size, or are not masks.
    """
    truth = as_mask(mask)
    predicted = as_mask(prediction, "prediction", truth)
    result = np.where(truth == predicted, RIGHT, WRONG).astype(np.uint8)
    if ignore is not None:
        result[truth == ignore] = IGNORED
    return result


def wrong_share(errors: NDArray[np.uint8]) -> float:
    """Returns the share of judged pixels that are wrong, 0 to 1; NaN if every pixel is ignored."""
    judged = int((errors != IGNORED).sum())
    return int((errors == WRONG).sum()) / judged if judged else float("nan")


@styled
def samples(
    images: ImageBatch,
    masks: ImageBatch,
    predictions: ImageBatch | None = None,
    *,
    colors: Colors | None = None,
    class_names: Sequence[str] | None = None,
    ignore: int | None = IGNORE,
    titles: Sequence[str] | None = None,
    title: str | None = None,
    max_rows: int = 8,
) -> Figure:
    """Draws a row per sample: image, true mask and, if predictions are given, prediction and error map.

    Wrong pixels are red on white, ignored ones grey; the share of wrong pixels is written above each error map.

    Args:
        images: [N, H, W], [N, 1, H, W] or [N, 3, H, W] in [0, 1], or a list of images of any sizes.
        masks, predictions: class ids [N, H, W] or [N, 1, H, W], or a list.
        colors, class_names, ignore: see `segsweep.plots`.
        titles: a name for each sample, such as its file.
        title: above all rows.
        max_rows: draws only so many samples, and says so in the title.

    Raises:
        ValueError: nothing to draw, sizes that differ, images outside [0, 1], or an id without a colour or name.
    """
    if max_rows < 1:
        raise ValueError(f"max_rows is {max_rows}; give at least 1.")
    pictures = as_images(images)
    require_one_each(pictures, titles=titles)
    truths = as_masks(masks, pictures)[:max_rows]
    guesses = [] if predictions is None else as_masks(predictions, pictures, "predictions")[:max_rows]
    palette = as_colors(colors, [*truths, *guesses], ignore)
    handles = class_handles([*truths, *guesses], palette, class_names, ignore)

    columns = 4 if guesses else 2
    figure, grid = _grid(pictures[:max_rows], columns, tile=2.1, head=0.22, rest=0.9)
    for row, truth in enumerate(truths):
        show_image(grid[row, 0], pictures[row])
        show_colors(grid[row, 1], mask_to_rgb(truth, palette, ignore))
        if titles is not None:
            grid[row, 0].set_title(shorten(str(titles[row]), 34), fontsize=8)
        if guesses:
            errors = error_map(truth, guesses[row], ignore)
            show_colors(grid[row, 2], mask_to_rgb(guesses[row], palette, ignore))
            show_colors(grid[row, 3], ERROR_COLORS[errors])
            share = wrong_share(errors)
            label = "all ignored" if np.isnan(share) else f"{share:.2%} wrong".replace("%", " %")
            grid[row, 3].set_title(label, fontsize=8)
    _column_heads(grid, ["image", "true mask", "prediction", "error"][:columns])
    if guesses:
        handles.append(color_patch(ERROR_COLORS[WRONG], "wrong"))
    legend_below(figure, handles)
    heads = [] if title is None else [title]
    heads += [f"the first {max_rows} of {len(pictures)} samples"] if len(pictures) > max_rows else []
    if heads:
        figure.suptitle(", ".join(heads))
    return figure


@styled
def scored_samples(
    images: ImageBatch,
    masks: ImageBatch,
    predictions: ImageBatch,
    scores: Sequence[float],
    *,
    colors: Colors | None = None,
    class_names: Sequence[str] | None = None,
    background: int | None = None,
    ignore: int | None = IGNORE,
    names: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Draws a row per sample: image, true mask over it, prediction over it, and wrong pixels with the sample's iou.

    Args:
        images: [N, H, W], [N, 1, H, W] or [N, 3, H, W] in [0, 1], or a list of images of any sizes.
        masks, predictions: class ids [N, H, W], or a list.
        scores: the iou of each sample.
        colors, class_names, background, ignore: see `segsweep.plots`.
        names: a name for each sample, such as its file.
        title: above all rows.

    Raises:
        ValueError: nothing to draw, sizes or lengths that differ, images outside [0, 1], or an id without a colour or name.
    """
    pictures = as_images(images)
    require_one_each(pictures, scores=scores, names=names)
    truths, guesses = as_masks(masks, pictures), as_masks(predictions, pictures, "predictions")
    rows = [thinned(*row, most=600) for row in zip(pictures, truths, guesses, strict=True)]
    drawn = [mask for _, *both in rows for mask in both]
    palette = as_colors(colors, drawn, ignore)
    handles = class_handles(drawn, palette, class_names, ignore)
    if background is not None:
        clear = f"class {background}" if class_names is None else str(class_names[background])
        handles = [handle for handle in handles if handle.get_label() != clear]
        handles.append(color_patch((255, 255, 255), f"{clear} (left clear)"))
    handles.append(color_patch(ERROR_COLORS[WRONG], "wrong"))

    figure, grid = _grid([picture for picture, *_ in rows], 4, tile=2.2, head=0.3, rest=1.0)
    for row, (picture, truth, guess) in enumerate(rows):
        show_image(grid[row, 0], picture)
        for column, mask in ((1, truth), (2, guess)):
            show_image(grid[row, column], overlay(picture, mask, palette, background=background, ignore=ignore))
        show_colors(grid[row, 3], ERROR_COLORS[error_map(truth, guess, ignore)])
        name = f"sample {row}" if names is None else shorten(str(names[row]), 36)
        grid[row, 0].set_title(name, fontsize=8)
        grid[row, 3].set_title(f"iou {scores[row]:.4f}", fontsize=8)
    _column_heads(grid, ["image", "true mask over image", "prediction over image", "error"])
    legend_below(figure, handles)
    if title is not None:
        figure.suptitle(title)
    return figure


def _grid(
    pictures: Sequence[NDArray[Any]], columns: int, *, tile: float, head: float, rest: float
) -> tuple[Figure, NDArray[Any]]:
    """Makes a figure with a row of axes per picture, as high as the picture is at the axes' width.

    Args:
        pictures: [H, W] or [H, W, 3] each.
        columns: axes in a row.
        tile: width of the axes, in inches.
        head: space above the axes of each row, in inches.
        rest: space above and below all rows, in inches.

    Returns:
        The figure, and its axes [N, columns].
    """
    heights = [tile * float(np.clip(picture.shape[0] / picture.shape[1], 0.3, 2.5)) + head for picture in pictures]
    figure = new_figure(columns * tile + 0.2, sum(heights) + rest)
    return figure, figure.subplots(len(pictures), columns, squeeze=False, gridspec_kw={"height_ratios": heights})


def _column_heads(grid: NDArray[Any], names: Sequence[str]) -> None:
    """Names the columns above the titles of the first row, all at one height."""
    second_line = any(axes.get_title() for axes in grid[0])
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(f"{name}\n{axes.get_title()}" if second_line else name, fontsize=8)
