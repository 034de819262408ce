"""Numbers of docs/replication.md as text, and prediction intervals for a further run."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from replication.published import LOSS, OVERFIT_IOU
from segsweep.plots.style import plain
from segsweep.sweeps.statistics import t_quantile


def number(value: float) -> str:
    """Four significant digits, without an exponent if that is short."""
    return plain(float(f"{value:.4g}"))


def as_printed(value: float, digits: int = 5) -> str:
    """Exactly the digits that were printed, trailing zeros included; a loss has five."""
    return f"{value:#.{digits}g}"


def as_printed_iou(value: float) -> str:
    """The U-Net report prints one IoU in per cent and one as a share."""
    return f"{100 * value:.2f} %" if value == OVERFIT_IOU else as_printed(value, 3)


def spread(found: Mapping[int, float]) -> str:
    """Mean ± standard deviation and number of seeds. Diverged runs are counted in front, and left out of both."""
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
    # The deviation of equal numbers can be 1e-16, because their mean is rounded.
    deviation = each.std(ddof=1) if np.ptp(each) > 0 else 0.0
    return f"{number(each.mean())} ± {deviation:.2g} (n = {len(each)})"


def within(printed: float, found: Mapping[int, float], metric: str) -> str:
    """Whether a printed figure lies in the 95 % prediction interval for one further run, and the interval.

    "" if there is only one run, or one diverged. The interval of losses is computed from their logarithms. No loss (mean
    squared error of probabilities) and no share exceeds 1. An interval that does shows values that are not normally
    distributed, or too few values; then the values are listed instead.
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
    """The interval that contains one further value with 95 %, if the values are normally distributed."""
    n = len(each)
    half = t_quantile(n) * float(each.std(ddof=1)) * math.sqrt(1 + 1 / n)
    return float(each.mean()) - half, float(each.mean()) + half


def difference_of_two(each: NDArray[np.float64]) -> float:
    """With 95 % two further runs differ by less than this, if values are normally distributed; NaN if one diverged."""
    return t_quantile(len(each)) * float(each.std(ddof=1)) * math.sqrt(2)
