"""Names written at the right ends of curves, moved apart so that none covers another."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from numpy.typing import ArrayLike, NDArray

_FONT_SIZE = 7.5


def spread(positions: ArrayLike, gap: float, low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
    """Positions as near to the given ones as a least distance allows, in the same order.

    Args:
        positions: where each label would like to be, [N].
        gap: the least distance between two; reduced where N labels do not fit between `low` and `high`.
        low: no label goes below it.
        high: no label goes above it.

    Returns:
        float64 [N]; the sum of squared moves is the least possible.
    """
    from scipy.optimize import isotonic_regression  # here, because it takes half a second

    wanted = np.asarray(positions, dtype=np.float64)
    number = len(wanted)
    if number == 0:
        return wanted
    gap = min(gap, (high - low) / max(number - 1, 1))
    order = np.argsort(wanted, kind="stable")
    steps = np.arange(number) * gap
    # With the least distances taken off, positions in order need only not decrease.
    level = isotonic_regression(wanted[order] - steps).x
    result = np.empty(number)
    result[order] = np.clip(level, low, high - steps[-1]) + steps
    return result


def label_ends(axes: Axes, curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64], str, str]]) -> None:
    """Writes each curve's name to the right of the axes at the height where the curve ends, with a thin line to it.

    Args:
        axes: scale and limits as they will stay.
        curves: x, y, text and colour of each; a curve without a finite value is left out.
    """
    ends = []
    for x, y, text, color in curves:
        places = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        if axes.get_yscale() == "log":
            places = places[y[places] > 0]
        if len(places):
            ends.append((float(x[places[-1]]), float(y[places[-1]]), text, color))
    if not ends:
        return
    axes.set_ylim(axes.get_ylim())
    figure = axes.get_figure(root=True)
    assert figure is not None
    # Title, axis labels and the legend below take about this much of the figure's height.
    inches = figure.get_size_inches()[1] - 1.3
    line = {"arrowstyle": "-", "linewidth": 0.5, "alpha": 0.6, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)}
    to_fraction = axes.transScale + axes.transLimits
    heights = [float(to_fraction.transform((x, y))[1]) for x, y, _, _ in ends]
    for (end_x, end_y, text, color), height in zip(ends, spread(heights, 1.25 * _FONT_SIZE / 72 / inches), strict=True):
        axes.annotate(
            text,
            xy=(end_x, end_y),
            xytext=(1.02, float(height)),
            textcoords="axes fraction",
            va="center",
            ha="left",
            fontsize=_FONT_SIZE,
            # Thin letters need more contrast with the paper than lines of the same colour.
            color=tuple(0.72 * channel for channel in to_rgb(color)),
            arrowprops=line | {"color": color},
            annotation_clip=False,
        )
