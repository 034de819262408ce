"""Which settings of a sweep are really worse than the best, by few replicates.

Each setting is trained with the same seeds, and the same seed means the same data and initial weights, so settings are
compared seed by seed: by paired t-tests. The best setting is picked by the numbers that then compare it, so the tests
are corrected as if all pairs of settings had been tested, by Holm's procedure with the counts of Shaffer. When all
settings are equal, the chance that any is called worse is at most 5 %, whatever their variances and correlations, as
long as the differences are normally distributed. Correcting over the comparisons with the best alone does not hold
this (12 % with 9 settings and 10 seeds), nor does a pooled variance (50 % with 30 settings of very unequal spread).
Signed permutations and Wilcoxon's test have no p below 0.25 with 3 seeds. docs/statistics.md has the simulation, and
what it says of power: with 3 seeds and 9 settings, one that is worse by 10 standard deviations is found in 44 %.

Source: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979) 65-70; Shaffer,
Modified sequentially rejective multiple test procedures, J. Am. Statist. Assoc. 81 (1986) 826-831, procedure S1.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special  # stdtr, stdtrit: the t distribution, without the second that importing scipy.stats takes

from segsweep.sweeps.replicates import Group, common_seeds, group_jobs, identical
from segsweep.sweeps.verdict import verdict_sentences

Mode = Literal["min", "max"]
Verdict = Literal["best", "not distinguishable", "worse", "no statement"]

LEVEL = 0.05
"""Chance that any setting is called worse when all are equal."""

SHAFFER_UP_TO = 300
"""Settings; the time that Shaffer's counts take grows with the fourth power of their number. Above, Holm's count."""

_BLOCK = 1_000_000
"""Pairs that are tested at a time, so that memory is bounded."""

COLUMNS = ("n", "mean", "std", "low", "high", "difference", "p", "detectable", "verdict", "missing")
"""What `Comparison.table` adds to the columns of the settings."""


@dataclass(frozen=True)
class Comparison:
    """The settings of a sweep, best first, and what can be said about them.

    Args:
        table: a row per setting. The settings' columns, and, in units of the objective where not said otherwise:
            `n`: completed replicates; of settings that are compared, those that they are compared over.
            `mean`, `std` (n - 1 in the denominator), `low`, `high` (95 % t-interval of the mean, for this setting
                alone): over these; NaN where there are too few.
            `difference`: mean of setting minus best over the seeds that both have.
            `p`: adjusted for all pairs, from 0 to 1; NaN where not tested.
            `detectable`: the difference from which on this setting would have been called worse, its spread over seeds
                being what it is; NaN where not tested.
            `verdict`: see `compare`.
            `missing`: the replicates that are missing and why, "seed=2 failed"; "" where there are none.
        best: the values of the first row's settings; None where every setting has missing replicates.
        name: what was compared, for sentences: "val/iou".
        mode: whether more or less is better.
        replicates: how many seeds were compared over.
        compared: how many settings were; the first rows of the table.
        settings: the columns that identify a setting.
        left_out: seeds that some of these settings completed too, but not all: "seed=3".
        identical: settings with exactly the same value for every seed that they share, those that agree together.
        parts: of jobs that were scored on other images, the comparison of each group alone, by the group's name. Then
            `table` has their rows one group behind the other, `compared` is 0 and nothing is best.
        why: what parts these groups, for a person.
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
    def alone(self) -> Sequence["Comparison"]:
        """The comparisons that are each ranked: this one, or that of each group."""
        return tuple(self.parts.values()) or (self,)

    @property
    def pairs(self) -> int:
        """How many comparisons the p values are corrected for."""
        return sum(part.compared * (part.compared - 1) // 2 for part in self.alone)

    @property
    def correction(self) -> str:
        """What the p values are corrected by, in words."""
        over = f"correction over all {self.pairs} pairs"
        if self.compared <= SHAFFER_UP_TO:
            return f"Holm-Shaffer {over}"
        return f"Holm {over}, without Shaffer's counts above {SHAFFER_UP_TO} settings"

    @property
    def verdict(self) -> str:
        """What can be said, as one paragraph; of groups that are ranked alone, one each."""
        return ("\n" if self.parts else " ").join(self.sentences())

    def sentences(self) -> list[str]:
        """What can be said, for a person."""
        if self.parts:
            return [f"{self.why}.", *(f"{name}: {part.verdict}" for name, part in self.parts.items())]
        return verdict_sentences(
            self.table, self.settings, self.name, self.mode, self.replicates, self.compared, self.left_out,
            self.identical, LEVEL, self.correction if self.pairs > 1 else "",
        )  # fmt: skip


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
    """Ranks the settings of a sweep, and says which are worse than the best by more than chance.

    Settings are compared over the same seeds: those that most of them have, where a sweep is not finished. Settings
    that lack one of these, or lost any replicate, come behind and are not tested: a mean over the runs that survived
    flatters a setting of which some diverge. Of these, merely unfinished ones come first, then those with fewest lost.

    A verdict is
    "best": the best mean, of those compared. As the best of many it is too good by chance: train it anew, with other
        seeds, for a number to report.
    "worse": than the best, by a paired t-test over the seeds, corrected for all pairs of settings compared.
    "not distinguishable": from the best, by the same test. It says not that they are equal.
    "no statement": one replicate, or some missing, or a difference to the best that is the same for every seed but not
        0. Such a difference would have an infinite t; it comes from rounded values or a seed without effect, where
        replicates say nothing about chance. Where it is 0 for every seed, the two are not distinguishable (p = 1).

    Equal means are ranked by the values of the settings: numbers ascending, then text, then null.

    Args:
        jobs: a row per job, in any order.
        settings: the columns that were swept, other than `seed`; none where only the seed was.
        value: the column of the objective, a number or nothing.
        mode: "max" where more is better.
        seed: the column that tells replicates apart.
        status: the column that says how a job ended; values of jobs other than "completed" are not used. None: all are.
        name: of the objective in sentences; default `value`.

    Raises:
        ValueError: no jobs; a column is missing, named twice or named like one of `COLUMNS`; a job without a seed; two
            jobs with the same settings and seed; objectives that are no numbers.
    """
    _check(jobs, settings, value, mode, seed, status)
    groups = group_jobs(jobs, list(settings), value, seed, status)
    seeds = common_seeds(groups)
    completed = {key for group in groups for key in group.scores}
    same = tuple(tuple(dict(group.settings) for group in alike) for alike in identical(groups))
    for group in groups:
        group.restrict(seeds)
    sign = 1 if mode == "max" else -1
    groups.sort(key=lambda group: group.rank(sign))
    full = [group for group in groups if not group.missing]
    rows = [_describe(group, seed) for group in groups]
    if full:
        ordered, best = sorted(seeds), full[0].scores
        judged = judge(np.array([[group.scores[key] for key in ordered] for group in full]))
        for row, said in zip(rows, judged, strict=False):
            row |= said
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


_UNTESTED = {"difference": math.nan, "p": math.nan, "detectable": math.nan, "verdict": "no statement"}


def _describe(group: Group, seed: str) -> dict[str, Any]:
    """Columns of a setting, as far as they can be said of it alone."""
    values = np.array(list(group.scores.values()))
    n, mean = len(values), group.mean
    std = float(values.std(ddof=1)) if n > 1 else math.nan
    half = t_quantile(n) * std / math.sqrt(n) if n > 1 else math.nan
    interval = {"low": mean - half, "high": mean + half}
    return {"n": n, "mean": mean, "std": std, **interval, **_UNTESTED, "missing": group.reasons(seed)}


def judge(values: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Compares settings with the first, which must have the best mean.

    Args:
        values: [k, n], a row per setting, a column per seed.

    Returns:
        Of each setting the columns `difference`, `p`, `detectable` and `verdict`, without those that say nothing.
    """
    k, n = values.shape
    differences = values[1:] - values[0]
    mean = differences.mean(axis=1)
    rows = [{"difference": 0.0, "verdict": "best" if n > 1 else "no statement"}]
    if n == 1:
        return rows + [{"difference": float(entry)} for entry in mean]
    # Differences that vary by no more than the rounding of the values themselves are constant.
    rounding = 8 * np.finfo(np.float64).eps * np.abs(values).max(axis=1)
    p = _p_of_all_pairs(values, rounding)
    adjusted, count = step_down(np.where(np.isnan(p), 1.0, p), k)
    constant = np.isnan(p[: k - 1])
    same = constant & (np.abs(mean) <= np.maximum(rounding[1:], rounding[0]))
    error = np.where(constant, 0.0, differences.std(axis=1, ddof=1) / math.sqrt(n))
    needed = -special.stdtrit(n - 1, LEVEL / 2 / count) * error if count else error * math.nan
    for pair in range(k - 1):
        row: dict[str, Any] = {"difference": float(mean[pair])}
        if same[pair] or not constant[pair]:
            verdict: Verdict = "worse" if adjusted[pair] <= LEVEL else "not distinguishable"
            row |= {"p": float(adjusted[pair]), "detectable": float(needed[pair]), "verdict": verdict}
        rows.append(row)
    return rows


def _p_of_all_pairs(values: NDArray[np.float64], rounding: NDArray[np.float64]) -> NDArray[np.float64]:
    """`paired_p` of all pairs of settings, [k (k - 1) / 2]; those with the first are the first k - 1."""
    first, second = np.triu_indices(len(values), 1)
    p = np.empty(len(first))
    for start in range(0, len(p), _BLOCK):
        block = slice(start, start + _BLOCK)
        one, other = first[block], second[block]
        p[block] = paired_p(values[other] - values[one], np.maximum(rounding[one], rounding[other]))
    return p


def t_quantile(n: int) -> float:
    """Standard errors that half of the interval of a mean of n values has, at `LEVEL`."""
    return float(special.stdtrit(n - 1, 1 - LEVEL / 2))


def paired_p(differences: NDArray[np.float64], rounding: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Two-sided, of the t-test whether differences are 0 in the mean.

    Args:
        differences: [..., n], of two settings, by seed.
        rounding: [...]; differences that vary by no more are one difference for every seed.

    Returns:
        [...]; NaN where there are fewer than two, or the same for every seed, which says nothing about chance.
    """
    n = differences.shape[-1]
    if n < 2:
        return np.full(differences.shape[:-1], math.nan)
    constant = np.ptp(differences, axis=-1) <= rounding
    error = np.where(constant, 1.0, differences.std(axis=-1, ddof=1) / math.sqrt(n))
    return np.where(constant, math.nan, 2 * special.stdtr(n - 1, -np.abs(differences.mean(axis=-1)) / error))


def step_down(p: NDArray[np.float64], k: int) -> tuple[NDArray[np.float64], int]:
    """Adjusts the p values of all pairs of k settings.

    The smallest p is multiplied by the number of pairs. Each next one by the largest number of pairs that can be equal
    in truth when all before it are not: once one setting of three differs from another, at most one pair is equal.
    Of more than `SHAFFER_UP_TO` settings it is multiplied by the number of pairs left, which is never less.

    Args:
        p: [k (k - 1) / 2], in any order.
        k: settings.

    Returns:
        The adjusted p, in the order of `p`, and the count that applies to the first that is above `LEVEL`; where all
        are below, the last count.

    Source: Shaffer 1986, procedure S1; with k (k - 1) / 2, ..., 2, 1 as counts it is Holm 1979.
    """
    counts = np.array(equal_pairs(k) if k <= SHAFFER_UP_TO else range(len(p), 0, -1), dtype=np.float64)
    adjusted = _adjusted(p, counts)
    rejected = int((adjusted <= LEVEL).sum())
    return adjusted, int(counts[min(rejected, len(p) - 1)]) if len(p) else 0


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjusts the p values of comparisons that were chosen beforehand, so that only these are corrected for.

    When those up to 0.05 are called different, the chance that any is not is at most 5 %.

    Args:
        p: [n], in any order.

    Source: Holm 1979.
    """
    return _adjusted(p, np.arange(len(p), 0, -1, dtype=np.float64))


def _adjusted(p: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The smallest p times the first count, the next one times the next, and none below the one before."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * counts))
    return adjusted


@lru_cache(maxsize=128)
def equal_pairs(k: int) -> tuple[int, ...]:
    """The largest number of equal pairs among k settings when at least 0, 1, 2, ... pairs are not equal; at least 1.

    Settings that are equal form classes, and classes of sizes a, b, ... have a (a - 1) / 2 + b (b - 1) / 2 + ... equal
    pairs. Bit i of `possible[k]` says whether i pairs can be.
    """
    possible = [1]
    for size in range(1, k + 1):
        possible.append(0)
        for part in range(1, size + 1):
            possible[size] |= possible[size - part] << part * (part - 1) // 2
    pairs = k * (k - 1) // 2
    return tuple(max(1, (possible[k] & ((1 << pairs - unequal + 1) - 1)).bit_length() - 1) for unequal in range(pairs))


def _check(jobs: pd.DataFrame, settings: Sequence[str], value: str, mode: str, seed: str, status: str | None) -> None:
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
