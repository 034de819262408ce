"""The numbers of docs/replication.md as text, and the intervals that a further run is expected in."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from replication.published import LOSS, OVERFIT_IOU
from segsweep.plots.style import plain
from segsweep.sweeps.statistics import t_quantile


def number(value: float) -> str:
    """Four significant digits, without an exponent where that is short."""
    return plain(float(f"{value:.4g}"))


def as_printed(value: float, digits: int = 5) -> str:
    """All digits that were printed: five of a loss, also where they end in 0."""
    return f"{value:#.{digits}g}"


def as_printed_iou(value: float) -> str:
    """The U-Net report prints one IoU in per cent and one as a share."""
    return f"{100 * value:.2f} %" if value == OVERFIT_IOU else as_printed(value, 3)


def spread(found: Mapping[int, float]) -> str:
    """Mean ± standard deviation, and over how many seeds; how many diverged is said first, and they are in no mean."""
    if not found:
        return "not trained yet"
    each = np.array(list(found.values()))
    kept = each[~np.isnan(each)]
    if len(kept) < len(each):
        lost = f"diverged in {len(each) - len(kept)} of {len(each)}"
        return f"{lost}, else {_spread(kept)}" if len(kept) else lost
    return _spread(kept)


def _spread(each: NDArray[np.float64]) -> str:
    if len(each) == 1:
        return f"{number(each[0])} (n = 1)"
    # Of equal numbers the rounded mean may be another one, and leave 1e-16.
    deviation = each.std(ddof=1) if np.ptp(each) > 0 else 0.0
    return f"{number(each.mean())} ± {deviation:.2g} (n = {len(each)})"


def within(printed: float, found: Mapping[int, float], metric: str) -> str:
    """Whether a printed figure lies in the prediction interval of one further run, and the interval.

    "" where that cannot be said: of one run, or where one diverged. Losses are taken by their logarithm. An interval that
    reaches beyond 1, which no mean squared error of probabilities and no share does, shows that they are not normal or too
    few, so they are listed instead.
    """
    each = np.array(list(found.values()))
    if len(each) < 2 or np.isnan(each).any():
        return ""
    low, high = prediction_interval(np.log(each) if metric == LOSS else each)
    if metric == LOSS:
        low, high = math.exp(low), math.exp(high)
    if high > 1:
        return f"not said: {', '.join(number(value) for value in sorted(each))}"
    said = "yes" if low <= printed <= high else "no"
    return f"{said} ({plain(float(f'{low:.3g}'))} to {plain(float(f'{high:.3g}'))})"


def prediction_interval(each: NDArray[np.float64]) -> tuple[float, float]:
    """In which one further value lies with 95 %, where values are normal."""
    n = len(each)
    half = t_quantile(n) * float(each.std(ddof=1)) * math.sqrt(1 + 1 / n)
    return float(each.mean()) - half, float(each.mean()) + half


def difference_of_two(each: NDArray[np.float64]) -> float:
    """What two further runs differ by less than with 95 %, where values are normal; NaN where one diverged."""
    return t_quantile(len(each)) * float(each.std(ddof=1)) * math.sqrt(2)
