"""Masks laid over images: as arrays, as one picture, and as a sheet of many."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from segsweep.plots.arrays import (
    IGNORE,
    Batch,
    Colors,
    as_colors,
    as_image,
    as_mask,
    class_handles,
    colorize,
    same_size,
)
from segsweep.plots.style import counted, new_figure, shorten, show_colors, show_image, styled


def overlay_rgba(
    mask: ArrayLike,
    colors: Colors | None = None,
    *,
    background: int | None = None,
    ignore: int | None = IGNORE,
    alpha: float = 0.5,
) -> NDArray[np.float32]:
    """A mask as a layer to lay over its image: opacity `alpha`, background and ignored pixels clear.

    Args:
        mask: class ids [H, W].
        colors: the classes' colours by id; None takes a colour-blind-safe palette.
        background: the class to leave clear; None paints every class.
        ignore: the id that is no class, always clear; None if there is none.
        alpha: opacity of what is painted, 0 to 1.

    Returns:
        float32 [H, W, 4], RGBA in [0, 1].

    Raises:
        ValueError: `alpha` outside [0, 1], an id without colour, or no mask.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; give an opacity from 0 to 1.")
    ids = as_mask(mask)
    palette = as_colors(colors, [ids], ignore)
    clear = np.zeros(ids.shape, dtype=bool)
    for unpainted in (background, ignore):
        if unpainted is not None:
            clear |= ids == unpainted
    layer = np.empty((*ids.shape, 4), dtype=np.float32)
    layer[..., :3] = colorize(ids, palette, ignore) / np.float32(255)
    layer[..., 3] = np.where(clear, 0, alpha)
    return layer


def overlay(
    image: ArrayLike,
    mask: ArrayLike,
    colors: Colors | None = None,
    *,
    background: int | None = None,
    ignore: int | None = IGNORE,
    alpha: float = 0.5,
) -> NDArray[Any]:
    """The image with its mask laid over it; where the mask is clear, the pixels are exactly the image's.

    Args:
        image: [H, W], [1, H, W] or [3, H, W] in [0, 1], or uint8.
        mask: class ids [H, W].
        colors: as `overlay_rgba` takes it, and so the following.
        background: the class to leave clear; None paints every class.
        ignore: the id that is no class, always clear.
        alpha: opacity of what is painted, 0 to 1.

    Returns:
        float [H, W, 3] in [0, 1].

    Raises:
        ValueError: as `overlay_rgba`, or image and mask differ in size.
    """
    picture = as_image(image)
    ids = as_mask(mask)
    same_size(ids, picture, "mask")
    layer = overlay_rgba(ids, colors, background=background, ignore=ignore, alpha=alpha)
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=-1)
    result = picture.copy()
    painted = layer[..., 3] > 0
    result[painted] = (1 - alpha) * picture[painted] + alpha * layer[painted][:, :3]
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
    alpha: float = 0.5,
    title: str | None = None,
) -> Figure:
    """Four panels: image, true mask, predicted mask, and the image with the prediction laid over it.

    Args:
        image: [H, W], [1, H, W] or [3, H, W] in [0, 1], or uint8.
        mask: true class ids [H, W].
        prediction: predicted class ids [H, W].
        colors: the classes' colours by id; None takes a colour-blind-safe palette.
        class_names: by id, for the legend of the classes that occur.
        background: the class to leave clear; None paints every class.
        ignore: the id that is no class, always clear.
        alpha: opacity of what is painted, 0 to 1.
        title: above all panels, such as the file's name.

    Raises:
        ValueError: as `overlay`.

    Source: U-Net report (docs/sources.md), the picture of its `evaluate_test_data`.
    """
    picture, truth, guess = as_image(image), as_mask(mask), as_mask(prediction, "prediction")
    same_size(truth, picture, "mask")
    same_size(guess, picture, "prediction")
    palette = as_colors(colors, [truth, guess], ignore)
    handles = class_handles([truth, guess], palette, class_names, ignore)
    width = 2.7
    figure = new_figure(4 * width, width * float(np.clip(picture.shape[0] / picture.shape[1], 0.3, 2.5)) + 0.9)
    axes = figure.subplots(1, 4)
    show_image(axes[0], picture)
    show_colors(axes[1], colorize(truth, palette, ignore))
    show_colors(axes[2], colorize(guess, palette, ignore))
    show_image(axes[3], overlay(picture, guess, palette, background=background, ignore=ignore, alpha=alpha))
    for panel, name in zip(axes, ("image", "true mask", "predicted mask", "prediction over image"), strict=True):
        panel.set_title(name)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6))
    if title is not None:
        figure.suptitle(title)
    return figure


def sheet_selection(number: int, max_pairs: int, page: int | None = None) -> list[int]:
    """Which of `number` pairs a contact sheet shows, in order.

    Args:
        number: how many there are.
        max_pairs: how many fit.
        page: 0 for the first `max_pairs`, 1 for the next, ...; None for pairs spread evenly over all.

    Raises:
        ValueError: `max_pairs` is not positive, or there is no such page.
    """
    if max_pairs < 1:
        raise ValueError(f"max_pairs is {max_pairs}; give at least 1.")
    if page is None:
        return [int(index) for index in np.unique(np.linspace(0, number - 1, min(number, max_pairs)).round())]
    pages = -(-number // max_pairs)
    if not 0 <= page < pages:
        raise ValueError(f"page is {page}, but {number} pairs fill pages 0 to {pages - 1}.")
    return list(range(page * max_pairs, min((page + 1) * max_pairs, number)))


@styled
def contact_sheet(
    images: Batch,
    masks: Batch,
    colors: Colors | None = None,
    *,
    names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    background: int | None = None,
    ignore: int | None = IGNORE,
    alpha: float = 0.5,
    max_pairs: int = 24,
    page: int | None = None,
) -> Figure:
    """A sheet to look a data set over: image, mask in its classes' colours, and overlay, with file names.

    Only the pairs that are drawn are read, so `images` and `masks` may be lazy sequences over files. Where there are
    more than `max_pairs`, the title says which are shown.

    Args:
        images: a sequence of [H, W], [1, H, W], [3, H, W] or [H, W, 3], in [0, 1] or uint8; sizes may differ.
        masks: class ids [H, W], one for each image.
        colors: the classes' colours by id; None takes a colour-blind-safe palette.
        names: a name for each pair; the middle of a long one is left out.
        class_names: by id, for the legend of the classes that occur.
        background: the class that the overlay leaves clear; None paints every class.
        ignore: the id that is no class, always clear.
        alpha: opacity of what the overlay paints, 0 to 1.
        max_pairs: how many pairs a sheet holds.
        page: 0 for the first `max_pairs`, 1 for the next, ...; None for pairs spread evenly over all.

    Raises:
        ValueError: nothing to draw, lengths or sizes that differ, or an id without colour or name.
    """
    number = len(images)
    for label, values in (("masks", masks), ("names", names)):
        if values is not None and len(values) != number:
            raise ValueError(f"{label} has {len(values)} entries for {number} images; give one each.")
    if number == 0:
        raise ValueError("images is empty; there is nothing to draw.")
    chosen = sheet_selection(number, max_pairs, page)
    pictures, truths = [], []
    for index in chosen:
        picture, truth = as_image(images[index], f"images[{index}]"), as_mask(masks[index], f"masks[{index}]")
        same_size(truth, picture, f"masks[{index}]")
        step = -(-max(picture.shape[:2]) // _THUMBNAIL)
        # The same pixels of both are kept, so the overlay stays aligned; no class colour is ever averaged.
        pictures.append(picture[::step, ::step])
        truths.append(truth[::step, ::step])
    palette = as_colors(colors, truths, ignore)
    handles = class_handles(truths, palette, class_names, ignore)

    across = 1 if len(chosen) < 3 else 2 if len(chosen) <= 16 else 3
    rows = -(-len(chosen) // across)
    tile, gap = 1.35, 0.1
    shapes = [float(np.clip(picture.shape[0] / picture.shape[1], 0.3, 2.0)) for picture in pictures]
    heights = [tile * max(shapes[row * across : (row + 1) * across]) + 0.2 for row in range(rows)]
    figure = new_figure(across * 3 * tile + gap * across, sum(heights) + 0.8)
    # A narrow empty column stands between one pair and the next.
    ratios = {"width_ratios": ([tile] * 3 + [gap]) * across, "height_ratios": heights, "wspace": 0.02, "hspace": 0.02}
    grid = figure.subplots(rows, 4 * across, squeeze=False, gridspec_kw=ratios)
    for axes in grid.flat:
        axes.set_axis_off()
    for position, (picture, truth) in enumerate(zip(pictures, truths, strict=True)):
        row, column = divmod(position, across)
        left, middle, right = grid[row, 4 * column : 4 * column + 3]
        for axes in (left, middle, right):
            axes.set_axis_on()
            axes.set_anchor("N")
        show_image(left, picture)
        show_colors(middle, colorize(truth, palette, ignore))
        show_image(right, overlay(picture, truth, palette, background=background, ignore=ignore, alpha=alpha))
        name = f"pair {chosen[position]}" if names is None else shorten(str(names[chosen[position]]), 46)
        middle.set_title(name, fontsize=7, pad=2)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 3 * across))
    figure.suptitle(f"image, mask and overlay: {_shown(chosen, number, max_pairs, page)}")
    return figure


_THUMBNAIL = 400


def _shown(chosen: Sequence[int], number: int, max_pairs: int, page: int | None) -> str:
    if len(chosen) == number:
        return counted(number, "pair")
    if page is None:
        return f"{len(chosen)} of {number} pairs, spread evenly"
    pages = -(-number // max_pairs)
    return f"pairs {chosen[0] + 1} to {chosen[-1] + 1} of {number} (page {page + 1} of {pages})"
