"""Answers the texture notebook's open question: does each layer help, and does another architecture do better."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from replication.published import PUBLISHED, VARIANTS
from replication.results import ROUNDING, values
from segsweep.sweeps.statistics import LEVEL, holm, paired_p, t_quantile

Beside = Literal["better", "worse", "no difference shown", "cannot be told"]


@dataclass(frozen=True)
class Difference:
    """The difference between a net and the published one, over the seeds of both.

    Args:
        name: the net.
        seeds: number of common seeds in which neither diverged.
        mean: mean of net minus published, in units of the metric; NaN without common seeds.
        half_width: half the 95 % t-interval of the mean, for this net alone; NaN if not tested.
        p: p of the paired t-test, adjusted by Holm for all other nets; NaN if not tested.
        said: the conclusion at 5 %.
    """

    name: str
    seeds: int
    mean: float
    half_width: float
    p: float
    said: Beside


def beside_published(scores: Mapping[str, Mapping[int, float]]) -> list[Difference]:
    """Tests each net against the published one.

    The published net was chosen before any training, so one test a net is enough. A sweep's ranking picks the best by the
    same numbers and therefore has to compare all pairs.

    Args:
        scores: by net and seed, higher is better; NaN for a diverged run. A net with diverged runs is tested by its other
            runs, which favours it: it can be called worse, but not better.

    Returns:
        The other nets that have scores, best mean difference first. p is corrected for all nets of `VARIANTS`, trained or
        not, so that it does not rise when one is added.
    """
    reference = scores.get(PUBLISHED, {})
    pairs = {
        name: np.array([found[seed] - reference[seed] for seed in sorted(found) if seed in reference])
        for name, found in scores.items()
        if name != PUBLISHED
    }
    raw = np.full(len(VARIANTS) - 1, math.nan)
    raw[: len(pairs)] = [float(paired_p(each[~np.isnan(each)], ROUNDING)) for each in pairs.values()]
    adjusted = np.where(np.isnan(raw), math.nan, holm(np.nan_to_num(raw, nan=1.0)))
    found = [_difference(name, each, p) for (name, each), p in zip(pairs.items(), adjusted, strict=False)]
    return sorted(found, key=lambda entry: (math.isnan(entry.mean), -entry.mean, entry.name))


def _difference(name: str, found: NDArray[np.float64], p: float) -> Difference:
    each = found[~np.isnan(found)]
    n = len(each)
    mean = float(each.mean()) if n else math.nan
    if math.isnan(p):
        return Difference(name, n, mean, math.nan, p, "cannot be told")
    half = t_quantile(n) * float(each.std(ddof=1)) / math.sqrt(n)
    said: Beside = "no difference shown" if p > LEVEL else "better" if mean > 0 else "worse"
    if n < len(found) and said != "worse":
        said = "cannot be told"
    return Difference(name, n, mean, half, p, said)


def scores_of(results: Mapping[str, Any], metric: str) -> dict[str, dict[int, float]]:
    """A metric by trained net and seed; NaN for a diverged run."""
    found = {name: values(results, f"ablation: {name}", metric) for name in VARIANTS}
    return {name: each for name, each in found.items() if each}
