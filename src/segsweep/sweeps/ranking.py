"""Ranks the settings of a sweep over the seeds that they share. `statistics` has the tests, `report_text` the sentences."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import Any, Literal

import numpy as np
import pandas as pd

from segsweep.sweeps import statistics
from segsweep.sweeps.report_text import entry_text, setting_name, verdict_sentences
from segsweep.sweeps.state import Job, SweepRecord

Mode = Literal["min", "max"]

COLUMNS = ("n", "mean", "std", "low", "high", "difference", "p", "detectable", "verdict", "missing")
"""The columns of `Comparison.table` after those of the settings."""

NOT_RUN = "not run"
"""The reason given for a missing replicate that has no job."""

UNFINISHED = ("pending", "queued", "running", "interrupted", NOT_RUN)
"""Statuses of jobs that may still complete; "queued" only in tables made elsewhere. A job that is neither these nor
"completed" is a lost replicate."""

Key = tuple[int, float, str]
"""Sort key of an entry of the table of jobs: kind, number, text. Any two can be compared."""


@dataclass(frozen=True)
class Comparison:
    """The settings of a sweep, best first, with their statistics and verdicts.

    Args:
        table: a row per setting, with the settings' columns and these, in units of the objective unless stated otherwise:
            `n`: completed replicates; for a compared setting, the replicates it is compared over.
            `mean`, `std` (n - 1 in the denominator), `low`, `high` (95 % t-interval of this setting's mean): over these
                replicates; NaN if there are too few.
            `difference`: mean of setting minus best, over the seeds that both have.
            `p`: adjusted for all pairs, from 0 to 1; NaN if not tested.
            `detectable`: the smallest difference that would have been called worse, given this setting's spread over the
                seeds; NaN if not tested.
            `verdict`: see `compare`.
            `missing`: the missing replicates and why, "seed=2 failed"; "" if none is missing.
        best: the settings' values in the first row; None if every setting has missing replicates.
        name: the name of the objective in sentences: "val/iou".
        mode: "max" if more is better.
        replicates: how many seeds the settings are compared over.
        compared: how many settings have all these seeds; they are the first rows of the table.
        settings: the columns that identify a setting.
        left_out: seeds that some of these settings completed, but not all: "seed=3".
        identical: groups of settings with exactly the same value for every seed that they share.
        parts: if jobs were scored on different images, the comparison of each group scored on the same ones, by the group's
            name. Then `table` has the rows one group after the other, `compared` is 0 and nothing is best.
        why: one sentence for a person that names the settings that make these groups.
    """

    table: pd.DataFrame
    best: dict[str, Any] | None
    name: str
    mode: Mode
    replicates: int
    compared: int
    settings: tuple[str, ...]
    left_out: tuple[str, ...]
    identical: tuple[tuple[Mapping[str, Any], ...], ...] = ()
    parts: Mapping[str, "Comparison"] = field(default_factory=dict)
    why: str = ""

    @property
    def rankings(self) -> Sequence["Comparison"]:
        """The comparison of each group, or this one if there are no groups. Each has its own ranking."""
        return tuple(self.parts.values()) or (self,)

    @property
    def pairs(self) -> int:
        """How many pairs of settings the p values are corrected for."""
        return sum(part.compared * (part.compared - 1) // 2 for part in self.rankings)

    @property
    def correction(self) -> str:
        """The correction of the p values, in words."""
        over = f"correction over all {self.pairs} pairs"
        if self.compared <= statistics.SHAFFER_UP_TO:
            return f"Holm-Shaffer {over}"
        return f"Holm {over}, without Shaffer's counts above {statistics.SHAFFER_UP_TO} settings"

    @property
    def verdict(self) -> str:
        """The result for a person: one paragraph, or one for each group."""
        return ("\n" if self.parts else " ").join(self.sentences())

    def sentences(self) -> list[str]:
        """The sentences of `verdict`."""
        if self.parts:
            return [f"{self.why}.", *(f"{name}: {part.verdict}" for name, part in self.parts.items())]
        return verdict_sentences(self)


def compare(
    jobs: pd.DataFrame,
    settings: Sequence[str],
    value: str = "objective",
    *,
    mode: Mode,
    seed: str = "seed",
    status: str | None = "status",
    name: str | None = None,
) -> Comparison:
    """Ranks the settings of a sweep and tests which are worse than the best by more than chance.

    All settings are compared over the same seeds; in an unfinished sweep, over the seeds that most settings have. A setting
    that lacks one of these seeds, or lost any replicate, comes last and is not tested: if some of its runs diverge, the
    mean of the others flatters it. Among these, unfinished settings come first, then those that lost the fewest replicates.

    The verdicts are
    "best": the best mean of the compared settings. The best of many is partly luck: to report a number, train it again with
        other seeds.
    "worse": worse than the best by a paired t-test over the seeds, corrected for all pairs of compared settings.
    "not distinguishable": not worse than the best by that test, which does not mean equal.
    "no statement": one replicate, or missing ones, or the same difference to the best for every seed, other than 0. Such a
        difference has an infinite t. It comes from rounded values or from a seed without effect, and then replicates say
        nothing about chance. If the difference is 0 for every seed, the two are not distinguishable (p = 1).

    Equal means are ranked by the values of the settings: numbers ascending, then text, then null.

    Args:
        jobs: a row per job, in any order.
        settings: the swept columns without `seed`; empty if only the seed was swept.
        value: the column of the objective: numbers, or nothing.
        mode: "max" if more is better.
        seed: the column with the seed of each replicate.
        status: the column with the status of each job. Only "completed" jobs count; None counts every job as completed.
        name: the name of the objective in sentences; default `value`.

    Raises:
        ValueError: there are no jobs; a column is missing, named twice or named like one of `COLUMNS`; a job has no seed;
            two jobs have the same settings and seed; an objective is no number.
    """
    _require_comparable(jobs, settings, value, mode, seed, status)
    groups = group_jobs(jobs, list(settings), value, seed, status)
    seeds = common_seeds(groups)
    completed = {key for group in groups for key in group.scores}
    same = tuple(tuple(dict(group.settings) for group in alike) for alike in identical(groups))
    for group in groups:
        group.restrict(seeds)
    sign = 1 if mode == "max" else -1
    groups.sort(key=lambda group: group.rank(sign))
    full = [group for group in groups if not group.missing]
    rows = [group.columns(seed) for group in groups]
    if full:
        ordered, best = sorted(seeds), full[0].scores
        judged = statistics.judge(np.array([[group.scores[key] for key in ordered] for group in full]))
        for row, judgement in zip(rows, judged, strict=False):
            row |= judgement
        for group, row in zip(groups[len(full) :], rows[len(full) :], strict=True):
            if common := [group.scores[key] - best[key] for key in group.scores.keys() & best.keys()]:
                row["difference"] = math.fsum(common) / len(common)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for position, column in enumerate(settings):
        table.insert(
            position, column, pd.Series([group.settings[column] for group in groups], dtype=jobs[column].dtype)
        )
    left_out = tuple(f"{seed}={key[2]}" for key in sorted(completed - seeds))
    winner = dict(full[0].settings) if full else None
    return Comparison(table, winner, name or value, mode, len(seeds), len(full), tuple(settings), left_out, same)


def _require_comparable(
    jobs: pd.DataFrame, settings: Sequence[str], value: str, mode: str, seed: str, status: str | None
) -> None:
    if mode not in ("min", "max"):
        raise ValueError(f"mode={mode!r}: must be min or max")
    wanted = [*settings, seed, value, *([status] if status is not None else [])]
    for column in wanted:
        if column not in jobs:
            there = ", ".join(map(str, jobs)) or "none"
            raise ValueError(f"the table of jobs has no column {column!r}; there are: {there}")
        if wanted.count(column) > 1:
            raise ValueError(f"{column!r} is named twice: settings, seed, value and status must be different columns")
    if taken := [column for column in settings if column in COLUMNS]:
        raise ValueError(f"a setting cannot be named {taken[0]!r}, which is a column of the result; rename it")
    if jobs.empty:
        raise ValueError("the table of jobs has no rows; there is nothing to compare")


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

    def columns(self, seed: str) -> dict[str, Any]:
        """The row of `Comparison.table`, without what follows from the best setting. `missing` uses the key `seed`."""
        values = np.array(list(self.scores.values()))
        n = len(values)
        std = float(values.std(ddof=1)) if n > 1 else math.nan
        half = statistics.t_quantile(n) * std / math.sqrt(n) if n > 1 else math.nan
        reasons = ", ".join(f"{seed}={key[2]} {why}" for key, why in sorted(self.missing.items()))
        return {
            "n": n, "mean": self.mean, "std": std, "low": self.mean - half, "high": self.mean + half,
            "difference": math.nan, "p": math.nan, "detectable": math.nan, "verdict": "no statement", "missing": reasons,
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
            raise ValueError(f"a job of {label} has no {seed!r}")
        if replicate in group.scores or replicate in group.missing:
            raise ValueError(f"two jobs of {label} have {seed}={entry_text(entry)}; keep one")
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


def values_key(record: SweepRecord, job: Job, axes: Sequence[str]) -> tuple[Key, ...]:
    """The sort keys of a job's values on these axes."""
    return tuple(entry_key(record.value_of(job, axis)) for axis in axes)


def entry_key(entry: Any) -> Key:
    """Sort key of an entry: numbers ascending, then text, then null. Equal entries, as 1 and 1.0, have equal keys."""
    text = entry_text(entry)
    if text == "null":
        return (2, 0.0, text)
    if isinstance(entry, (bool, np.bool_)) or not isinstance(entry, (int, float, np.number)):
        return (1, 0.0, text)
    return (0, float(entry), text.removesuffix(".0"))
