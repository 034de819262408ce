"""The question that the texture notebook leaves: whether each layer makes sense, and what another architecture does."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special  # stdtr, stdtrit: the t distribution, without the second that importing scipy.stats takes

from segsweep.replication.finished import CONF
from segsweep.replication.paired import can_be_tested, holm, paired_p
from segsweep.replication.published import Setting, Study
from segsweep.sweeps.statistics import LEVEL

PUBLISHED = "published"
VARIANTS: tuple[str, ...] = tuple(sorted(path.stem for path in (CONF / "model/ablation").glob("*.yaml")))
"""Files of conf/model/ablation, each of which changes one thing of the published net."""

ABLATION = Study(
    "Ablation",
    ("study=ablation",),
    tuple(Setting(name, ("experiment=texture_adam", f"model=ablation/{name}")) for name in VARIANTS),
)

Beside = Literal["better", "worse", "no difference shown", "cannot be told"]


@dataclass(frozen=True)
class Difference:
    """A net beside the published one, over the seeds that both were trained with.

    Args:
        name: of the net.
        seeds: how many both have.
        mean: of net minus published, in units of the metric; NaN without common seeds.
        half_width: of the 95 % t-interval of the mean, of this net alone; NaN with fewer than two seeds.
        p: of the paired t-test, adjusted by Holm for all nets that were tested; NaN where not tested.
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
        scores: of each net a value for each seed, more being better; of nets without a value for every seed none.

    Returns:
        The other nets, best mean difference first.
    """
    reference = scores.get(PUBLISHED, {})
    pairs = {
        name: np.array([found[seed] - reference[seed] for seed in sorted(found) if seed in reference])
        for name, found in scores.items()
        if name != PUBLISHED
    }
    tested = [name for name, each in pairs.items() if can_be_tested(each)]
    adjusted = dict(zip(tested, holm(np.array([paired_p(pairs[name]) for name in tested])), strict=True))
    found = [_difference(name, each, adjusted.get(name, math.nan)) for name, each in pairs.items()]
    return sorted(found, key=lambda entry: (math.isnan(entry.mean), -entry.mean, entry.name))


def _difference(name: str, each: NDArray[np.float64], p: float) -> Difference:
    n = len(each)
    if math.isnan(p):
        return Difference(name, n, float(each.mean()) if n else math.nan, math.nan, p, "cannot be told")
    half = float(special.stdtrit(n - 1, 1 - LEVEL / 2)) * float(each.std(ddof=1)) / math.sqrt(n)
    mean = float(each.mean())
    said: Beside = "no difference shown" if p > LEVEL else "better" if mean > 0 else "worse"
    return Difference(name, n, mean, half, p, said)


def scores_of(results: Mapping[str, Any], metric: str) -> dict[str, dict[int, float]]:
    """A metric of every run of every net that was trained, by seed; none of a net that diverged in any."""
    found = {}
    for name in VARIANTS:
        runs = results["settings"].get(f"ablation: {name}", {"runs": []})["runs"]
        if runs:
            lost = any(run["diverged"] for run in runs)
            found[name] = {} if lost else {run["seed"]: run["metrics"][metric] for run in runs}
    return found
