"""Groups the jobs of a sweep by setting, and chooses the seeds to compare them over."""

import math
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd

from segsweep.errors import UserError
from segsweep.sweeps.report_text import entry_text, setting_name
from segsweep.sweeps.scale import Scale
from segsweep.sweeps.statistics import standard_error, t_quantile

NOT_RUN = "not run"
"""The reason given for a missing replicate that has no job."""

UNFINISHED = ("pending", "queued", "running", "interrupted", NOT_RUN)
"""Statuses of jobs that may still complete; "queued" only in tables made elsewhere. A job that is neither these nor
"completed" is a lost replicate."""

Key = tuple[int, float, str]
"""Sort key of an entry of the table of jobs: kind, number, text. Any two can be compared."""


@dataclass
class Group:
    """The replicates of one setting, by seed: the scores of completed ones, and why the others are missing."""

    key: tuple[Key, ...]
    settings: dict[str, Any]
    scores: dict[Key, float] = field(default_factory=dict)
    missing: dict[Key, str] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """How many replicates will never complete."""
        return sum(why not in UNFINISHED for why in self.missing.values())

    @property
    def mean(self) -> float:
        return math.fsum(self.scores.values()) / len(self.scores) if self.scores else math.nan

    def restrict(self, seeds: Set[Key]) -> None:
        """Keeps only the replicates that a comparison over `seeds` uses.

        Drops unfinished replicates of other seeds. Drops the scores of other seeds too, unless a replicate is missing: then
        the mean is over all scores.

        Args:
            seeds: the seeds to compare over; empty if no setting has a score, and then nothing is dropped.
        """
        if seeds:
            self.missing = {key: why for key, why in self.missing.items() if key in seeds or why not in UNFINISHED}
            self.missing |= dict.fromkeys(seeds - self.scores.keys() - self.missing.keys(), NOT_RUN)
        kept = self.scores.keys() if self.missing else seeds
        self.scores = {key: self.scores[key] for key in sorted(kept)}

    def rank(self, sign: int) -> tuple[Any, ...]:
        """Sort key, best first: complete settings, then unfinished ones, then those that lost replicates.

        Args:
            sign: 1 if more is better, -1 if less is better.
        """
        return (self.lost, len(self.missing), -sign * self.mean if self.scores else math.inf, self.key)

    def columns(self, seed: str, scale: Scale, shared: float) -> dict[str, Any]:
        """The row of `Comparison.table` before any test. `missing` uses the key `seed`; the interval uses the others."""
        values = np.array(list(self.scores.values()))
        n, std, low, high = len(values), math.nan, math.nan, math.nan
        if n > 1:
            std, on_scale = float(values.std(ddof=1)), scale.forward(values)
            half = t_quantile(n) * standard_error(on_scale, shared)
            low, high = (float(scale.back(on_scale.mean() + end)) for end in (-half, half))
        reasons = ", ".join(f"{seed}={key[2]} {why}" for key, why in sorted(self.missing.items()))
        return {
            "n": n, "mean": self.mean, "std": std, "low": low, "high": high, "difference": math.nan,
            "standing": "unstable" if self.lost and n else "untested", "p_best": math.nan, "unstable": bool(self.lost),
            "p": math.nan, "detectable": math.nan, "verdict": "no statement", "missing": reasons,
        }  # fmt: skip


def group_jobs(jobs: pd.DataFrame, settings: list[str], value: str, seed: str, status: str | None) -> list[Group]:
    """Groups jobs by setting, in the order of their first jobs. Arguments and errors are those of `compare`."""
    try:
        numbers = pd.to_numeric(jobs[value]).to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError):
        raise ValueError(f"column {value!r} does not hold numbers") from None
    statuses = ["completed"] * len(jobs) if status is None else [entry_text(entry) for entry in jobs[status]]
    columns = {column: list(jobs[column]) for column in settings}
    groups: dict[tuple[Key, ...], Group] = {}
    for row, (entry, number, ended) in enumerate(zip(jobs[seed], numbers, statuses, strict=True)):
        here = {column: entries[row] for column, entries in columns.items()}
        key = tuple(map(entry_key, here.values()))
        group = groups.setdefault(key, Group(key, here))
        replicate = entry_key(entry)
        label = setting_name(here, settings)
        if replicate == entry_key(None):
            raise UserError(f"a job of {label} has no {seed!r}")
        if replicate in group.scores or replicate in group.missing:
            raise UserError(f"two jobs of {label} have {seed}={entry_text(entry)}; keep one")
        if ended != "completed":
            group.missing[replicate] = ended
        elif not math.isfinite(number):
            group.missing[replicate] = "has no finite value"
        else:
            group.scores[replicate] = float(number)
    return list(groups.values())


def common_seeds(groups: Sequence[Group]) -> Set[Key]:
    """Chooses the seeds to compare over, so that the most runs take part. A setting takes part if it has all these seeds.

    Settings that lost a replicate do not count. In an interrupted sweep this drops the settings that have hardly started;
    if the settings vary faster than the seed, it drops the seed that few settings have reached.
    """
    # Thousands of settings have only a handful of different sets of seeds, and only sets that share a seed are intersected.
    have = Counter(frozenset(group.scores) for group in groups if group.scores and not group.lost)
    if not have:
        return {key for group in groups for key in group.scores}
    with_seed: dict[Key, list[frozenset[Key]]] = {}
    for own in have:
        for key in own:
            with_seed.setdefault(key, []).append(own)
    pairs = {pair for sharing in with_seed.values() for pair in combinations_with_replacement(sharing, 2)}
    choices = {one & other for one, other in pairs}

    def kept(seeds: frozenset[Key]) -> int:
        return sum(have[own] for own in with_seed[next(iter(seeds))] if seeds <= own)

    return max(choices, key=lambda seeds: (len(seeds) * kept(seeds), len(seeds), sorted(seeds)))


def identical(groups: Sequence[Group]) -> list[list[Group]]:
    """Finds groups of two or more settings that share a seed and have exactly the same value for every seed they share."""
    classes: list[list[Group]] = []
    having: dict[tuple[Key, float], dict[int, None]] = {}  # the classes in which this seed has this value

    def agree(one: Group, other: Group) -> bool:
        common = one.scores.keys() & other.scores.keys()
        return bool(common) and all(one.scores[seed] == other.scores[seed] for seed in common)

    for group in sorted(groups, key=lambda group: (-len(group.scores), group.key)):
        near = dict.fromkeys(place for item in group.scores.items() for place in having.get(item, ()))
        place = next((place for place in near if all(agree(group, other) for other in classes[place])), len(classes))
        if place == len(classes):
            classes.append([])
        classes[place].append(group)
        for item in group.scores.items():
            having.setdefault(item, {})[place] = None
    return [sorted(alike, key=lambda group: group.key) for alike in classes if len(alike) > 1]


def entry_key(entry: Any) -> Key:
    """Sort key of an entry: numbers ascending, then text, then null. Equal entries, as 1 and 1.0, have equal keys."""
    text = entry_text(entry)
    if text == "null":
        return (2, 0.0, text)
    if isinstance(entry, (bool, np.bool_)) or not isinstance(entry, (int, float, np.number)):
        return (1, 0.0, text)
    return (0, float(entry), text.removesuffix(".0"))


def setting_key(values: Any, axes: Sequence[str]) -> tuple[Key, ...]:
    """The sort key of a setting, from its values by axis: a dict or a row of a table."""
    return tuple(entry_key(values[axis]) for axis in axes)
