"""The question that the texture notebook leaves: whether each layer makes sense, and what another architecture does."""

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
    """A net beside the published one, over the seeds that both were trained with.

    Args:
        name: of the net.
        seeds: how many both have, without those that diverged.
        mean: of net minus published, in units of the metric; NaN without common seeds.
        half_width: of the 95 % t-interval of the mean, of this net alone; NaN where not tested.
        p: of the paired t-test, adjusted by Holm for all other nets; NaN where not tested.
        said: what follows at 5 %.
    """

    name: str
    seeds: int
    mean: float
    half_width: float
    p: float
    said: Beside


def beside_published(scores: Mapping[str, Mapping[int, float]]) -> list[Difference]:
    """Each net beside the published one, which was chosen before any was trained: so only as many tests as other nets.

    That all pairs are compared, as in a sweep's ranking, is the price of picking the best by the same numbers.

    Args:
        scores: of each net a value for each seed, more being better; NaN where a run diverged. Such a net is tested by
            its other runs, which flatters it: so it may be worse all the same, but it is not called better.

    Returns:
        The other nets that there are scores of, best mean difference first. p is corrected for all other nets of
        `VARIANTS`, trained or not, so that it does not rise when one is added.
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
    """A metric of every run of every net that was trained, by seed; NaN where it diverged."""
    found = {name: values(results, f"ablation: {name}", metric) for name in VARIANTS}
    return {name: each for name, each in found.items() if each}
