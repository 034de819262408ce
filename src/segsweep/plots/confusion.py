"""Confusion matrices, and errors by their distance from the borders of classes."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from segsweep.plots.arrays import IGNORE, ImageBatch, as_mask, to_array
from segsweep.plots.samples import ERROR_COLORS, IGNORED, WRONG, error_map
from segsweep.plots.style import (
    LINE_COLORS,
    counted,
    hatched_cells,
    horizontal_grid,
    matrix_axes,
    new_figure,
    shorten,
    styled,
    text_color,
)


def row_shares(matrix: ArrayLike) -> NDArray[np.float64]:
    """Divides each row of a confusion matrix by its sum, float64 [K, K]; the row of an absent class is NaN.

    Raises:
        ValueError: not square, not whole numbers, or negative counts.
    """
    counts = _counts(matrix).astype(np.float64)
    sums = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, sums, out=np.full_like(counts, np.nan), where=sums > 0)


@styled
def confusion(matrix: ArrayLike, class_names: Sequence[str], *, title: str | None = None) -> Figure:
    """Draws a confusion matrix: true classes as rows, predicted ones as columns, in per cent of the true class's pixels.

    With up to 12 classes each cell also has its count; with more, cells under 0.5 % stay empty. The number of true pixels
    stands beside each row. A class without true pixels has no shares: its row is hatched and marked absent.

    Args:
        matrix: counts [K, K]; row i, column j: pixels of class i predicted as j.
        class_names: K names.
        title: None says what the numbers are.

    Raises:
        ValueError: as `row_shares`, or the number of names is not K.
    """
    counts, shares = _counts(matrix), row_shares(matrix)
    number = len(counts)
    if len(class_names) != number:
        raise ValueError(f"class_names has {len(class_names)} names for {number} classes; give one each.")
    names = [shorten(str(name), 24) for name in class_names]
    detailed = number <= 12
    cell = 0.8 if detailed else max(0.36, 10.5 / number)
    margin = 0.075 * max(map(len, names)) + 1.0
    side = max(cell * number, 1.6)
    figure = new_figure(side + margin + 1.9, side * (0.8 if detailed else 0.72) + margin * 0.8 + 0.8)
    axes = figure.add_subplot()
    _draw_shares(axes, counts, shares, detailed)
    sums = counts.sum(axis=1)
    small = 8 if detailed else 7
    rows = [name + ("" if total else " (absent)") for name, total in zip(names, sums, strict=True)]
    matrix_axes(axes, rows, names, fontsize=small)
    if max(map(len, names)) * 0.075 > cell:
        # Anchored, a slanted name ends under the middle of its column.
        slant = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if detailed else {"rotation": 90}
        for label in axes.get_xticklabels():
            label.set(**slant)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    totals = axes.secondary_yaxis("right")
    totals.set_yticks(range(number), [compact(int(total)) for total in sums], fontsize=small)
    totals.tick_params(length=0)
    totals.spines[:].set_visible(False)
    totals.set_ylabel("true pixels")
    what = "per cent of the true class's pixels" + (", and their number" if detailed else "; under 0.5 % left empty")
    figure.suptitle(f"confusion: {what}" if title is None else title)
    return figure


@styled
def confusion_thumbnail(matrix: ArrayLike, class_names: Sequence[str], *, title: str) -> Figure:
    """Draws a confusion matrix of 340 x 370 pixels, to be read at that size: whole per cents of the true class's pixels.

    With more than 12 classes only the colours are drawn. The row of a class without true pixels is hatched.

    Args:
        matrix, class_names: as `confusion` takes them.
        title: above it, short.

    Raises:
        ValueError: as `confusion`.
    """
    shares = row_shares(matrix)
    number = len(shares)
    if len(class_names) != number:
        raise ValueError(f"class_names has {len(class_names)} names for {number} classes; give one each.")
    figure = new_figure(3.4, 3.7)
    axes = figure.add_subplot()
    names = [shorten(str(name), 10) for name in class_names] if number <= 12 else [""] * number
    matrix_axes(axes, names, names, fontsize=9)
    for label in axes.get_xticklabels():
        label.set(rotation=90)
    for row, column in np.ndindex(shares.shape):
        share = float(shares[row, column])
        if np.isnan(share):
            if column == 0:
                hatched_cells(axes, row, 0, number, "absent", 9)
            continue
        color = matplotlib.colormaps["Blues"](share)
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=color, edgecolor="white", linewidth=0.8))
        if number <= 12 and share >= 0.005:
            size = 12 if number <= 6 else 8
            axes.text(
                column, row, f"{100 * share:.0f}", fontsize=size, color=text_color(color), ha="center", va="center"
            )
    axes.set_ylabel("true class")
    axes.set_xlabel("predicted class")
    figure.suptitle(title)
    return figure


def _draw_shares(axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64], detailed: bool) -> None:
    """Draws a cell for each pair of classes, coloured by its share."""
    font = 8.5 if detailed else 6.5
    for row, column in np.ndindex(counts.shape):
        share, count = float(shares[row, column]), int(counts[row, column])
        if np.isnan(share):
            if column == 0:
                hatched_cells(axes, row, column, len(counts), "absent", font)
            continue
        color = matplotlib.colormaps["Blues"](share)
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=color, edgecolor="white", linewidth=0.8))
        if detailed:
            per_cent = "<0.1 %" if count > 0 and share < 0.0005 else f"{share * 100:.1f} %" if count else "0 %"
            text = f"{per_cent}\n{compact(count)}"
        else:
            text = f"{share * 100:.0f}" if share >= 0.005 else ""
        right = row == column
        axes.text(
            column, row, text, fontsize=font if right or not detailed else font - 1, color=text_color(color),
            fontweight="bold" if right else "normal", ha="center", va="center", in_layout=False,
        )  # fmt: skip


def compact(count: int) -> str:
    """Writes a count in at most five characters: 950, 12.3k, 4.57M."""
    for size, letter in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        # Rounding 999,999 gives 1.00M, not 1000k.
        if count >= size - size // 2000:
            value = count / size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{letter}"
    return str(count)


def _counts(matrix: ArrayLike) -> NDArray[np.int64]:
    array = to_array(matrix, "matrix")
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.size == 0:
        raise ValueError(f"matrix has shape {list(array.shape)}; give [K, K].")
    if array.dtype.kind not in "iuf" or (array.dtype.kind == "f" and not (array == np.round(array)).all()):
        raise ValueError("matrix holds no counts; give whole numbers, not shares.")
    if array.min() < 0:
        raise ValueError(f"matrix holds the negative count {array.min()}.")
    return array.astype(np.int64)


def border_distance(mask: ArrayLike, ignore: int | None = IGNORE) -> NDArray[np.float64]:
    """Measures how far each pixel is from the nearest pixel of another class.

    Args:
        mask: class ids [H, W]; pixels of id `ignore` belong to no class.
        ignore: None if every id is a class.

    Returns:
        float64 [H, W], in pixels, from centre to centre: 1 if a pixel above, below, left or right has another class,
        infinite if the mask has only one class, NaN at ignored pixels.

    Raises:
        ValueError: not a mask.
    """
    ids = as_mask(mask)
    ignored = np.zeros(ids.shape, dtype=bool) if ignore is None else ids == ignore
    classes = np.unique(ids[~ignored])
    result = np.full(ids.shape, np.nan if len(classes) == 0 else np.inf)
    if len(classes) > 1:
        for value in classes:
            own = ids == value
            # Ignored pixels are not another class, so distances are measured across them.
            result[own] = ndimage.distance_transform_edt(own | ignored)[own]
    result[ignored] = np.nan
    return result


@styled
def border_errors(
    masks: ImageBatch,
    predictions: ImageBatch,
    *,
    ignore: int | None = IGNORE,
    max_distance: int = 8,
    title: str | None = None,
) -> Figure:
    """Draws errors against the distance from the nearest border of classes, in two panels.

    Left: the share of wrong pixels among those at each distance. Right: the share of all wrong pixels, and of all pixels,
    up to each distance. Distance k holds pixels that are more than k - 1 and up to k pixels from another class. Ignored
    pixels are not counted; in a mask of one class every pixel is farther than any distance.

    Args:
        masks, predictions: true and predicted class ids [N, H, W], or lists of masks of any sizes.
        ignore: see `segsweep.plots`.
        max_distance: the last distance drawn, in pixels; all farther pixels share one more place.
        title: above both panels; None counts images and pixels.

    Raises:
        ValueError: nothing to draw, lengths or sizes that differ, every pixel ignored, or `max_distance` below 1.
    """
    if max_distance < 1:
        raise ValueError(f"max_distance is {max_distance}; give at least 1.")
    if not 0 < len(masks) == len(predictions):
        raise ValueError(f"there are {len(masks)} masks and {len(predictions)} predictions; give as many, and some.")
    # Judged and wrong pixels at the distances 1, 2, ..., max_distance, and farther.
    pixels, wrong = np.zeros((2, max_distance + 1), dtype=np.int64)
    for index in range(len(masks)):
        errors = error_map(masks[index], predictions[index], ignore)
        place = np.minimum(np.ceil(border_distance(masks[index], ignore)), max_distance + 1)
        for counts, chosen in ((pixels, errors != IGNORED), (wrong, errors == WRONG)):
            counts += np.bincount(place[chosen].astype(np.int64) - 1, minlength=max_distance + 1)
    if not pixels.sum():
        raise ValueError("every pixel is ignored; there is nothing to draw.")
    figure = new_figure(9.2, 3.7)
    left, right = figure.subplots(1, 2)
    _draw_by_distance(left, right, pixels, wrong)
    total = f"{counted(len(masks), 'image')}: {wrong.sum():,} of {pixels.sum():,} pixels wrong"
    figure.suptitle(total if title is None else title)
    return figure


def _draw_by_distance(left: Axes, right: Axes, pixels: NDArray[np.int64], wrong: NDArray[np.int64]) -> None:
    places = np.arange(1, len(pixels) + 1)
    red = tuple(float(channel) / 255 for channel in ERROR_COLORS[WRONG])
    found = pixels > 0
    shares = 100 * wrong[found] / pixels[found]
    bars = left.bar(places[found], shares, color=red, width=0.7)
    labels = [
        "0" if share == 0 else "<0.01" if share < 0.005 else f"{share:.3g}" if share >= 0.995 else f"{share:.2f}"
        for share in shares
    ]
    left.bar_label(bars, labels, fontsize=7, padding=1)
    left.set_title("of the pixels at this distance, wrong", loc="left")
    left.set_xticks(places, [*map(str, places[:-1]), f"> {places[-2]}"])
    for counts, label, style in (
        (wrong, "of all wrong pixels", {"color": red, "marker": "o"}),
        (pixels, "of all pixels", {"color": LINE_COLORS[0], "marker": "s", "linestyle": "--"}),
    ):
        if counts.sum():
            right.plot(places[:-1], 100 * counts.cumsum()[:-1] / counts.sum(), label=label, markersize=4, **style)
    right.set_title("up to this distance", loc="left")
    right.set_ylim(0, 104)
    right.legend(loc="best")
    right.set_xticks(places[:-1])
    for axes in (left, right):
        axes.set_xlabel("pixels to the nearest pixel of another class")
        axes.set_ylabel("per cent")
        horizontal_grid(axes)
