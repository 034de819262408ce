"""Samples with what they scored: the true mask and the prediction, each laid over the image, and what is wrong."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from segsweep.plots.arrays import IGNORE, Batch, Colors, as_colors, as_images, as_masks, class_handles, color_patch
from segsweep.plots.overlays import overlay
from segsweep.plots.samples import ERROR_COLORS, WRONG, error_map, show_colors, show_image
from segsweep.plots.style import new_figure, shorten, styled

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

    tile = 2.2
    heights = [tile * float(np.clip(picture.shape[0] / picture.shape[1], 0.3, 2.5)) + 0.3 for picture in pictures]
    figure = new_figure(4 * tile + 0.2, sum(heights) + 1.0)
    grid = figure.subplots(len(pictures), 4, squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, picture in enumerate(pictures):
        show_image(grid[row, 0], picture)
        for column, mask in ((1, truths[row]), (2, guesses[row])):
            laid_over = overlay(picture, mask, palette, background=background, ignore=ignore, alpha=alpha)
            show_image(grid[row, column], laid_over)
        show_colors(grid[row, 3], ERROR_COLORS[error_map(truths[row], guesses[row], ignore)])
        name = f"sample {row}" if names is None else shorten(str(names[row]), 36)
        grid[row, 0].set_title(name, fontsize=8)
        grid[row, 3].set_title(f"{score_name} {scores[row]:.4f}", fontsize=8)
    for panel, name in zip(grid[0], ("image", "true mask over image", "prediction over image", "error"), strict=True):
        panel.set_title(f"{name}\n{panel.get_title()}", fontsize=8)
    handles.append(color_patch(ERROR_COLORS[WRONG], "wrong"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 7))
    if title is not None:
        figure.suptitle(title)
    return figure
