"""The scale on which values of a metric are tested, and their intervals computed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from segsweep.runs.directory import objective_mode

ScaleName = Literal["raw", "log", "logit"]

PIXELS = 1_000_000
"""Pixels of a split whose number is not known."""
_SMALLEST_LOSS = 1e-12


@dataclass(frozen=True)
class Scale:
    """A scale for tests and intervals: log for losses, logit for shares, raw for others.

    On these scales differences near a bound of the metric count as much as they mean: from 0.98 to 0.99, half of the errors
    are gone. An interval stays within the bounds.

    Args:
        name: raw, log or logit.
        pixels: pixels of the split; shares of exactly 0 and 1 count as half a pixel away from it.
    """

    name: ScaleName = "raw"
    pixels: int = PIXELS

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value that the scale tells apart, in the metric's unit."""
        if self.name == "logit":
            return 0.5 / self.pixels, 1 - 0.5 / self.pixels
        return (_SMALLEST_LOSS if self.name == "log" else -np.inf), np.inf

    def forward(self, values: Any) -> NDArray[np.float64]:
        """From the metric's unit to the scale."""
        within = np.clip(np.asarray(values, dtype=np.float64), *self.bounds)
        return {"raw": np.asarray, "log": np.log, "logit": special.logit}[self.name](within)

    def back(self, values: Any) -> NDArray[np.float64]:
        """From the scale to the metric's unit."""
        return {"raw": np.asarray, "log": np.exp, "logit": special.expit}[self.name](values)

    def step(self, start: float, difference: float) -> float:
        """The size of a difference on the scale, from `start` on, in the metric's unit; inf beyond what is possible.

        Args:
            start: in the metric's unit.
            difference: on the scale; negative towards smaller values.
        """
        if not difference:
            return 0.0
        low, high = self.forward(self.bounds) if self.name == "logit" else (-np.inf, np.inf)
        end = float(self.forward(start)) + difference
        return abs(float(self.back(end)) - start) if low <= end <= high else np.inf


def scale_of(metric: str, values: Iterable[float]) -> ScaleName:
    """The scale for a metric: log for a loss, logit for a share, raw where a value is neither."""
    found = [value for value in values if np.isfinite(value)]
    if objective_mode(metric) == "min":
        return "log" if all(value >= 0 for value in found) else "raw"
    return "logit" if all(0 <= value <= 1 for value in found) else "raw"
