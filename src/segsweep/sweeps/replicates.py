"""The jobs of a sweep by setting and seed, and the seeds that settings are compared over."""

import math
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd

from segsweep.sweeps.verdict import entry_text, setting_name

NOT_RUN = "not run"
"""Why a replicate is missing that has no job."""

UNFINISHED = ("pending", "queued", "running", "interrupted", NOT_RUN)
"""Statuses of jobs that may still complete; any other but "completed" is a replicate that was lost."""

Key = tuple[int, float, str]
"""An entry of the table of jobs, comparable with any other: kind, number, text."""


@dataclass
class Group:
    """The jobs of one setting; `scores` and `missing` by seed."""

    key: tuple[Key, ...]
    settings: dict[str, Any]
    scores: dict[Key, float] = field(default_factory=dict)
    missing: dict[Key, str] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Replicates that will not complete by themselves."""
        return sum(why not in UNFINISHED for why in self.missing.values())

    @property
    def mean(self) -> float:
        return math.fsum(self.scores.values()) / len(self.scores) if self.scores else math.nan

    def restrict(self, seeds: Set[Key]) -> None:
        """Forgets what is not finished outside of `seeds`, and, with all of these and none lost, the other scores.

        Args:
            seeds: that settings are compared over; none where no setting has a score, and then nothing is forgotten.
        """
        if seeds:
            self.missing = {key: why for key, why in self.missing.items() if key in seeds or why not in UNFINISHED}
            self.missing |= dict.fromkeys(seeds - self.scores.keys() - self.missing.keys(), NOT_RUN)
        kept = self.scores.keys() if self.missing else seeds
        self.scores = {key: self.scores[key] for key in sorted(kept)}

    def rank(self, sign: int) -> tuple[Any, ...]:
        """Sorts the best first. Complete settings, then unfinished ones, then those that lost replicates.

        Args:
            sign: 1 where more is better, -1 where less is.
        """
        return (self.lost, len(self.missing), -sign * self.mean if self.scores else math.inf, self.key)

    def reasons(self, seed: str) -> str:
        """The missing replicates and why: "seed=1 diverged, seed=2 not run"."""
        return ", ".join(f"{seed}={key[2]} {why}" for key, why in sorted(self.missing.items()))


def group_jobs(jobs: pd.DataFrame, settings: list[str], value: str, seed: str, status: str | None) -> list[Group]:
    """The jobs by setting, in order of first appearance; for the arguments and errors see `statistics.compare`."""
    try:
        numbers = pd.to_numeric(jobs[value]).to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError):
        raise ValueError(f"column {value!r} does not hold numbers") from None
    ends = ["completed"] * len(jobs) if status is None else [entry_text(entry) for entry in jobs[status]]
    columns = {column: list(jobs[column]) for column in settings}
    groups: dict[tuple[Key, ...], Group] = {}
    for row, (entry, number, end) in enumerate(zip(jobs[seed], numbers, ends, strict=True)):
        here = {column: entries[row] for column, entries in columns.items()}
        key = tuple(map(entry_key, here.values()))
        group = groups.setdefault(key, Group(key, here))
        replicate = entry_key(entry)
        label = setting_name(here, settings)
        if replicate == entry_key(None):
            raise ValueError(f"a job of {label} has no {seed!r}")
        if replicate in group.scores or replicate in group.missing:
            raise ValueError(f"two jobs of {label} have {seed}={entry_text(entry)}; keep one")
        if end != "completed":
            group.missing[replicate] = end
        elif not math.isfinite(number):
            group.missing[replicate] = "has no finite value"
        else:
            group.scores[replicate] = float(number)
    return list(groups.values())


def common_seeds(groups: Sequence[Group]) -> Set[Key]:
    """The seeds to compare over: of all choices, the one that keeps the most runs of settings that have them all.

    Settings that lost a replicate have no say. In a sweep that was cut off, whichever varies fastest, this leaves out
    the settings that hardly began, or the seed that few settings have reached.
    """
    # Thousands of settings have a handful of different sets of seeds; and sets without a common seed give no choice.
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
    """Settings with exactly the same value for every seed that they share, at least one; two or more together."""
    classes: list[list[Group]] = []
    having: dict[tuple[Key, float], dict[int, None]] = {}  # in which classes a seed has a value
    for group in sorted(groups, key=lambda group: (-len(group.scores), group.key)):
        near = dict.fromkeys(place for item in group.scores.items() for place in having.get(item, ()))
        place = next((place for place in near if all(_agree(group, other) for other in classes[place])), len(classes))
        if place == len(classes):
            classes.append([])
        classes[place].append(group)
        for item in group.scores.items():
            having.setdefault(item, {})[place] = None
    return [sorted(alike, key=lambda group: group.key) for alike in classes if len(alike) > 1]


def _agree(one: Group, other: Group) -> bool:
    common = one.scores.keys() & other.scores.keys()
    return bool(common) and all(one.scores[seed] == other.scores[seed] for seed in common)


def entry_key(entry: Any) -> Key:
    """What makes two entries the same, and their order: numbers ascending, text, null. 1 and 1.0 are the same."""
    text = entry_text(entry)
    if text == "null":
        return (2, 0.0, text)
    if isinstance(entry, (bool, np.bool_)) or not isinstance(entry, (int, float, np.number)):
        return (1, 0.0, text)
    return (0, float(entry), text.removesuffix(".0"))
