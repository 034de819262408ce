"""Which class was taken for which."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from segsweep.plots.arrays import to_array
from segsweep.plots.style import GREY, PALE, bare, new_figure, shorten, styled, text_color

_COUNTS_UP_TO = 12


def row_shares(matrix: ArrayLike) -> NDArray[np.float64]:
    """Each row of a confusion matrix as shares of its sum, float64 [K, K]; the row of an absent class is NaN.

    Raises:
        ValueError: not square, not whole numbers, or negative counts.
    """
    counts = _counts(matrix).astype(np.float64)
    sums = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, sums, out=np.full_like(counts, np.nan), where=sums > 0)


@styled
def confusion(matrix: ArrayLike, class_names: Sequence[str], *, title: str | None = None) -> Figure:
    """A confusion matrix: true classes as rows, predicted ones as columns, in per cent of the true class's pixels.

    Up to 12 classes each cell has its count too; of more, only the rows' pixels are given, and cells under 0.5 % stay
    empty. A class without true pixels is hatched and called absent: it has no shares.

    Args:
        matrix: counts [K, K]; row i, column j: pixels of class i predicted as j.
        class_names: K names.
        title: None says what the numbers are.

    Raises:
        ValueError: as `row_shares`, or not as many names as classes.
    """
    counts, shares = _counts(matrix), row_shares(matrix)
    number = len(counts)
    if len(class_names) != number:
        raise ValueError(f"class_names has {len(class_names)} names for {number} classes; give one each.")
    names = [shorten(str(name), 24) for name in class_names]
    detailed = number <= _COUNTS_UP_TO
    cell = 0.8 if detailed else max(0.36, 10.5 / number)
    margin = 0.075 * max(map(len, names)) + 1.0
    side = max(cell * number, 1.6)
    figure = new_figure(side + margin + 1.9, side * (0.8 if detailed else 0.72) + margin * 0.8 + 0.8)
    axes = figure.add_subplot()
    color_map = matplotlib.colormaps["Blues"]
    font = 8.5 if detailed else 6.5
    for row in range(number):
        if np.isnan(shares[row, 0]):
            band = Rectangle((-0.5, row - 0.5), number, 1, facecolor=PALE, edgecolor=GREY, hatch="////", linewidth=0)
            axes.add_patch(band)
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}
            axes.text(
                (number - 1) / 2, row, "absent", ha="center", va="center", in_layout=False, fontsize=font, bbox=box
            )
            continue
        for column in range(number):
            share = shares[row, column]
            color = color_map(share)
            axes.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=color, edgecolor="white", linewidth=0.8)
            )
            if detailed:
                text = f"{_per_cent(share, counts[row, column])}\n{compact(int(counts[row, column]))}"
            else:
                text = f"{share * 100:.0f}" if share >= 0.005 else ""
            weight = "bold" if row == column else "normal"
            size = font if row == column or not detailed else font - 1
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                in_layout=False,
                fontsize=size,
                color=text_color(color),
                fontweight=weight,
            )
    axes.set(xlim=(-0.5, number - 0.5), ylim=(number - 0.5, -0.5))
    bare(axes)
    axes.tick_params(length=0)
    sums = counts.sum(axis=1)
    absent = ["" if total else " (absent)" for total in sums]
    small = 8 if detailed else 7
    axes.set_yticks(range(number), [name + note for name, note in zip(names, absent, strict=True)], fontsize=small)
    steep = max(map(len, names)) * 0.075 > cell
    axes.set_xticks(range(number), names, fontsize=small)
    if steep:
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


def compact(count: int) -> str:
    """A count in at most five characters: 950, 12.3k, 4.57M."""
    for size, letter in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        # 999,999 is 1M, not 1000k.
        if count >= size - size // 2000:
            value = count / size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{letter}"
    return str(count)


def _per_cent(share: float, count: int) -> str:
    if count == 0:
        return "0 %"
    return "<0.1 %" if share < 0.0005 else f"{share * 100:.1f} %"


def _counts(matrix: ArrayLike) -> NDArray[np.int64]:
    array = to_array(matrix, "matrix")
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.size == 0:
        raise ValueError(f"matrix has shape {list(array.shape)}; give [K, K].")
    if array.dtype.kind not in "iuf" or (array.dtype.kind == "f" and not (array == np.round(array)).all()):
        raise ValueError("matrix holds no counts; give whole numbers, not shares.")
    if array.min() < 0:
        raise ValueError(f"matrix holds the negative count {array.min()}.")
    return array.astype(np.int64)
