"""Scales and limits of the axes of curves."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from segsweep.plots.series import Curve
from segsweep.plots.style import horizontal_grid, plain_ticks, scale_log_y

Limits = tuple[float, float]

FEW_STEPS = 6
"""Up to this many steps, each has its own tick."""


def steps_of(curves: Sequence[Curve]) -> NDArray[np.float64]:
    """The different x of all curves, ascending."""
    return np.unique(np.concatenate([np.empty(0), *(x for c in curves for x, _ in ((c.x, c.y), *c.runs, *c.tails))]))


def side_by_side(curves: Sequence[Curve]) -> list[Curve]:
    """Moves curves apart along x if all have the same single x, where they would hide one another.

    They then stand in the middle of an axis from x - 1 to x + 1.
    """
    if len(steps_of(curves)) != 1:
        return list(curves)
    widest = min(0.7, 0.1 * (len(curves) - 1))
    shifts = np.linspace(-widest, widest, len(curves))
    return [curve.moved(float(shift)) for curve, shift in zip(curves, shifts, strict=True)]


def frame_x(axes: Axes, steps: NDArray[np.float64], start: float = 0.0) -> None:
    """Starts the x axis at `start` and gives a few steps a tick each.

    Matplotlib's own limits around a single step are some steps to each side of it, and would look like a range.

    Args:
        axes: changed in place.
        steps: [N], the different x of all curves, ascending.
        start: left end of the axis; without effect on a single step and on negative x.
    """
    axes.xaxis.set_major_formatter(plain_ticks())
    if not len(steps):
        return
    if len(steps) == 1:
        axes.set_xlim(steps[0] - 1, steps[0] + 1)
    elif steps[0] >= 0:
        axes.set_xlim(start, steps[-1] + 0.02 * (steps[-1] - start))
    low, high = axes.get_xlim()
    shown = steps[steps >= low]
    if len(shown) <= FEW_STEPS and (np.diff(shown) >= (high - low) / 12).all():
        axes.set_xticks(shown)


def first_near(curves: Sequence[Curve], limits: Limits) -> float:
    """The x at which a picture of the curves within limits of y begins.

    The last step before any of them comes within the limits, or 0 if that is in the first quarter of all steps; the last
    step if all of them come within the limits there.
    """
    steps = steps_of(curves)
    inside = [x[(limits[0] <= y) & (y <= limits[1])] for curve in curves for x, y in ((curve.x, curve.y), curve.anchor)]
    first = np.min(np.concatenate(inside))
    if first == steps[-1]:
        return float(first)
    before = steps[steps < first]
    return float(before[-1]) if len(before) and before[-1] > steps[-1] / 4 else 0.0


def scale_y(axes: Axes, curves: Sequence[Curve], limits: Limits | None, *, log: bool) -> None:
    """Scales the y axis for everything drawn, or to the limits."""
    if log:
        shown = finite([curve.drawn for curve in curves])
        scale_log_y(axes, shown if limits is None else np.clip(shown, *limits))
    if limits is not None:
        axes.set_ylim(*limits)
    axes.yaxis.set_major_formatter(plain_ticks())
    horizontal_grid(axes)


def is_logarithmic(means: Sequence[NDArray[np.float64]]) -> bool:
    """Whether values are positive, span two decades and the largest exceeds 1.5, so never for shares."""
    values = finite(means)
    return bool(len(values) and values.min() > 0 and values.max() > 1.5 and values.max() / values.min() >= 100)


def finite(series: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """All finite values in one array."""
    joined = np.concatenate([np.empty(0), *series])
    return joined[np.isfinite(joined)]


def enlarged_limits(curves: Sequence[Curve], best: Literal["max", "min"], leading: int, *, log: bool) -> Limits | None:
    """Limits of y that separate the best curves; None if the full axis separates them.

    The last values of the `leading` best curves decide. If they differ by less than an eighth of all that is drawn, the
    limits hold them, and every other last value that is at most three times as far from the best.

    Args:
        curves: of one panel.
        best: which values are good.
        leading: number of curves to separate; at least two are.
        log: whether the axis is logarithmic.

    Returns:
        Lower and upper limit, from a fiftieth to a quarter of the full axis.
    """
    sign = 1 if best == "max" else -1

    def height(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        kept = finite([np.asarray(values, dtype=np.float64)])
        return sign * (np.log(kept[kept > 0]) if log else kept)

    drawn = height(np.concatenate([np.empty(0), *(curve.drawn for curve in curves)]))
    ends = np.sort(height([curve.last for curve in curves if not curve.diverged]))[::-1]
    if len(ends) < 2:
        return None
    full, apart = float(np.ptp(drawn)), float(ends[0] - ends[: max(leading, 2)][-1])
    if not 1e-9 * full < apart <= full / 8:
        return None
    low, top = float(ends[ends >= ends[0] - 3 * apart][-1]), float(ends[0])
    for curve in curves:
        # A curve may have been better before its end: its peak belongs to the picture.
        if (height([curve.last]) >= low).any():
            top = max(top, float(height([*curve.y, curve.last]).max()))
    margin = max(0.1 * (top - low), (full / 50 - (top - low)) / 2)
    if top - low + 2 * margin > full / 4:
        return None
    low, top = sorted((sign * (low - margin), sign * (top + margin)))
    return (float(np.exp(low)), float(np.exp(top))) if log else (low, top)
