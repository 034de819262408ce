"""Rows of samples: image, true mask, prediction and what is wrong with it; with or without what they scored."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from segsweep.plots.arrays import (
    IGNORE,
    IGNORED_COLOR,
    Batch,
    Colors,
    as_colors,
    as_images,
    as_mask,
    as_masks,
    class_handles,
    color_patch,
    colorize,
    same_size,
)
from segsweep.plots.overlays import overlay
from segsweep.plots.style import new_figure, shorten, show_colors, show_image, styled

RIGHT, WRONG, IGNORED = 0, 1, 2
"""The values of an error map."""

ERROR_COLORS = np.array([(255, 255, 255), (176, 0, 32), IGNORED_COLOR], dtype=np.uint8)
"""What the values of an error map are drawn in."""


def error_map(mask: ArrayLike, prediction: ArrayLike, ignore: int | None = IGNORE) -> NDArray[np.uint8]:
    """Where a prediction differs from the truth.

    Args:
        mask: true class ids [H, W]; pixels of id `ignore` are judged neither right nor wrong.
        prediction: predicted class ids [H, W].
        ignore: None judges every pixel.

    Returns:
        uint8 [H, W]: RIGHT (0), WRONG (1) or IGNORED (2).

    Raises:
        ValueError: the two differ in size, or are no masks.
    """
    truth, predicted = as_mask(mask), as_mask(prediction, "prediction")
    same_size(predicted, truth, "prediction")
    result = np.where(truth == predicted, RIGHT, WRONG).astype(np.uint8)
    if ignore is not None:
        result[truth == ignore] = IGNORED
    return result


def wrong_share(errors: NDArray[np.uint8]) -> float:
    """The share of judged pixels that are wrong, 0 to 1; NaN where every pixel is ignored."""
    judged = int((errors != IGNORED).sum())
    return int((errors == WRONG).sum()) / judged if judged else float("nan")


@styled
def samples(
    images: Batch,
    masks: Batch,
    predictions: Batch | None = None,
    *,
    colors: Colors | None = None,
    class_names: Sequence[str] | None = None,
    ignore: int | None = IGNORE,
    titles: Sequence[str] | None = None,
    max_rows: int = 8,
) -> Figure:
    """A row a sample: image, true mask and, where there are predictions, prediction and error map.

    Wrong pixels are red on white, ignored ones grey, and the share of wrong pixels stands above each error map. The
    legend names the classes that occur.

    Args:
        images: [N, H, W], [N, 1, H, W] or [N, 3, H, W] in [0, 1], or a list of images of any sizes.
        masks: class ids [N, H, W] or [N, 1, H, W], or a list.
        predictions: class ids, shaped as `masks`.
        colors: the classes' colours by id; None takes a colour-blind-safe palette.
        class_names: by id; None numbers the classes.
        ignore: the id that counts for nothing; None if there is none.
        titles: a name for each sample, such as its file.
        max_rows: only the first so many are drawn, and the title says so.

    Raises:
        ValueError: nothing to draw, sizes that differ, images outside [0, 1], or an id without colour or name.
    """
    if max_rows < 1:
        raise ValueError(f"max_rows is {max_rows}; give at least 1.")
    pictures = as_images(images)
    number = len(pictures)
    if titles is not None and len(titles) != number:
        raise ValueError(f"titles has {len(titles)} entries for {number} images; give one each.")
    truths = as_masks(masks, pictures)[:max_rows]
    guesses = None if predictions is None else as_masks(predictions, pictures, "predictions")[:max_rows]
    pictures = pictures[:max_rows]
    drawn = [*truths, *(guesses or [])]
    palette = as_colors(colors, drawn, ignore)
    handles = class_handles(drawn, palette, class_names, ignore)

    columns = 2 if guesses is None else 4
    figure, grid = _grid(pictures, columns, tile=2.1, head=0.22, rest=0.9)
    for row, (picture, truth) in enumerate(zip(pictures, truths, strict=True)):
        show_image(grid[row, 0], picture)
        show_colors(grid[row, 1], colorize(truth, palette, ignore))
        if titles is not None:
            grid[row, 0].set_title(shorten(str(titles[row]), 34), fontsize=8)
        if guesses is not None:
            errors = error_map(truth, guesses[row], ignore)
            show_colors(grid[row, 2], colorize(guesses[row], palette, ignore))
            show_colors(grid[row, 3], ERROR_COLORS[errors])
            share = wrong_share(errors)
            label = "all ignored" if np.isnan(share) else f"{share:.2%} wrong".replace("%", " %")
            grid[row, 3].set_title(label, fontsize=8)
    _column_heads(grid, ["image", "true mask", "prediction", "error"][:columns])
    if guesses is not None:
        handles.append(color_patch(ERROR_COLORS[WRONG], "wrong"))
    # A narrow figure has room for fewer names side by side.
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 2 * columns - 2))
    if number > max_rows:
        figure.suptitle(f"the first {max_rows} of {number} samples")
    return figure


def _grid(
    pictures: Sequence[NDArray[Any]], columns: int, *, tile: float, head: float, rest: float
) -> tuple[Figure, NDArray[Any]]:
    """A figure with a row of axes for each picture, as high as the picture is at a width of `tile` inches.

    Args:
        pictures: [H, W] or [H, W, 3] each.
        columns: axes in a row.
        tile: width of the axes, in inches.
        head: what a row needs above its axes, in inches.
        rest: what the figure needs above and below all rows, in inches.

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


_THUMBNAIL = 600
"""Pixels a side, beyond which only every second, third, ... pixel is drawn."""


@styled
def scored_samples(
    images: Batch,
    masks: Batch,
    predictions: Batch,
    scores: Sequence[float],
    *,
    score_name: str = "iou",
    colors: Colors | None = None,
    class_names: Sequence[str] | None = None,
    background: int | None = None,
    ignore: int | None = IGNORE,
    names: Sequence[str] | None = None,
    title: str | None = None,
    alpha: float = 0.5,
) -> Figure:
    """A row a sample: image, true mask over it, prediction over it, and the pixels that are wrong, with its score.

    Args:
        images: [N, H, W], [N, 1, H, W] or [N, 3, H, W] in [0, 1], or a list of images of any sizes.
        masks: true class ids [N, H, W], or a list.
        predictions: predicted class ids, shaped as `masks`.
        scores: a number for each sample.
        score_name: what the number is.
        colors: the classes' colours by id; None takes a colour-blind-safe palette.
        class_names: by id, for the legend of the classes that occur.
        background: the class that overlays leave clear; None paints every class.
        ignore: the id that counts for nothing, always clear; None if there is none.
        names: a name for each sample, such as its file.
        title: above all rows.
        alpha: opacity of what the overlays paint, 0 to 1.

    Raises:
        ValueError: nothing to draw, sizes or lengths that differ, images outside [0, 1], or an id without colour or name.
    """
    pictures = as_images(images)
    for label, values in (("scores", scores), ("names", names)):
        if values is not None and len(values) != len(pictures):
            raise ValueError(f"{label} has {len(values)} entries for {len(pictures)} images; give one each.")
    truths, guesses = as_masks(masks, pictures), as_masks(predictions, pictures, "predictions")
    for row, picture in enumerate(pictures):
        step = -(-max(picture.shape[:2]) // _THUMBNAIL)
        pictures[row], truths[row], guesses[row] = (
            part[::step, ::step] for part in (picture, truths[row], guesses[row])
        )
    palette = as_colors(colors, [*truths, *guesses], ignore)
    handles = class_handles([*truths, *guesses], palette, class_names, ignore)
    if background is not None:
        clear = f"class {background}" if class_names is None else str(class_names[background])
        handles = [handle for handle in handles if handle.get_label() != clear]
        handles.append(color_patch((255, 255, 255), f"{clear} (left clear)"))

    figure, grid = _grid(pictures, 4, tile=2.2, head=0.3, rest=1.0)
    for row, picture in enumerate(pictures):
        show_image(grid[row, 0], picture)
        for column, mask in ((1, truths[row]), (2, guesses[row])):
            laid_over = overlay(picture, mask, palette, background=background, ignore=ignore, alpha=alpha)
            show_image(grid[row, column], laid_over)
        show_colors(grid[row, 3], ERROR_COLORS[error_map(truths[row], guesses[row], ignore)])
        name = f"sample {row}" if names is None else shorten(str(names[row]), 36)
        grid[row, 0].set_title(name, fontsize=8)
        grid[row, 3].set_title(f"{score_name} {scores[row]:.4f}", fontsize=8)
    _column_heads(grid, ["image", "true mask over image", "prediction over image", "error"])
    handles.append(color_patch(ERROR_COLORS[WRONG], "wrong"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 7))
    if title is not None:
        figure.suptitle(title)
    return figure
