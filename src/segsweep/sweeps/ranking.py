"""Ranks the settings of a sweep over the seeds that they share. `statistics` has the tests, `report_text` the sentences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segsweep.sweeps import statistics
from segsweep.sweeps.grouping import Key, common_seeds, entry_key, group_jobs, identical, setting_key
from segsweep.sweeps.report_text import verdict_sentences
from segsweep.sweeps.scale import PIXELS, Scale, ScaleName
from segsweep.sweeps.state import Job, SweepRecord

Mode = Literal["min", "max"]
Standing = Literal["leader", "contender", "unstable", "ruled out", "untested"]

COLUMNS = (
    "n", "mean", "std", "low", "high", "difference", "standing", "p_best", "unstable", "p", "detectable", "verdict",
    "missing",
)  # fmt: skip
"""The columns of `Comparison.table` after those of the settings."""


@dataclass(frozen=True)
class Comparison:
    """The settings of a sweep, best first, with their statistics and verdicts.

    Args:
        table: a row per setting, with the settings' columns and these, in units of the objective unless stated otherwise:
            `n`: completed replicates; for a compared setting, the replicates it is compared over.
            `mean`, `std` (n - 1 in the denominator), `low`, `high` (95 % t-interval of the mean on `scale`, in the metric's
                unit): over these replicates; NaN if there are too few.
            `difference`: mean of setting minus leader, over the seeds that both have.
            `standing`: what to do with the setting; see `compare`.
            `p_best`: p value of "no other setting is better"; see `statistics.p_best`. NaN if not tested.
            `unstable`: whether a replicate failed or collapsed; see `statistics.unstable`.
            `p`: of the difference to the leader, adjusted for all pairs, from 0 to 1; NaN if not tested.
            `detectable`: the smallest difference to the leader that would have ruled the setting out by itself, given its
                spread over the seeds; inf if none that is possible; NaN if not tested.
            `verdict`: whether it is worse than the leader; see `compare`.
            `missing`: the missing replicates and why, "seed=2 failed"; "" if none is missing.
        best: the leader's values; None if every setting has missing replicates.
        name: the name of the objective in sentences: "val/iou".
        mode: "max" if more is better.
        replicates: how many seeds the settings are compared over.
        compared: how many settings have all these seeds; they are the first rows of the table.
        settings: the columns that identify a setting.
        left_out: seeds that some of these settings completed, but not all: "seed=3".
        identical: groups of settings with exactly the same value for every seed that they share.
        parts: if jobs were scored on different images, the comparison of each group scored on the same ones, by the group's
            name. Then `table` has the rows one group after the other, `compared` is 0 and nothing is best.
        why: one line for a person that names the settings that make these groups.
        level: the chance that a setting which is truly the best is ruled out.
        scale: the scale of tests and intervals; see `Scale`.
        look: which look at the sweep it is, from 1 on; None outside of sweeps.
        later: jobs that ended after this look, and are not in it.
        tested: whether settings were tested, not only ranked.
        shared: above 0 if the replicates are the folds of a cross-validation; see `statistics.standard_error`.
        corrected_for: in a race, how many settings `p_best` is corrected for; None for those compared.
        notes: more sentences for the verdict.
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
    level: float = statistics.LEVEL
    scale: ScaleName = "raw"
    look: int | None = None
    later: int = 0
    tested: bool = True
    shared: float = 0.0
    corrected_for: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def replicate(self) -> str:
        """What a replicate is called: seed or fold."""
        return "fold" if self.shared else "seed"

    @property
    def rankings(self) -> Sequence["Comparison"]:
        """The comparison of each group, or this one if there are no groups. Each has its own ranking."""
        return tuple(self.parts.values()) or (self,)

    def at_look(self, number: int, later: int) -> "Comparison":
        """The same, as the look with this number, before `later` more jobs had ended."""
        parts = {name: part.at_look(number, later) for name, part in self.parts.items()}
        return replace(self, look=number, later=later, parts=parts)

    def by_setting(self) -> dict[tuple[Key, ...], "pd.Series[Any]"]:
        """The rows of the table, by the sort keys of the settings' values."""
        return {setting_key(row, self.settings): row for _, row in self.table.iterrows()}

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
        """The result for a person: lines that say what to use, what may be as good, and what to drop."""
        return "\n".join(self.sentences())

    def sentences(self) -> list[str]:
        """The lines of `verdict`; if there are groups, each line begins with the group's name."""
        if self.parts:
            lines = (f"{name}: {line}" for name, part in self.parts.items() for line in verdict_sentences(part))
            return [f"{self.why}.", *lines, *self.notes]
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
    level: float = statistics.LEVEL,
    scale: ScaleName = "raw",
    pixels: int = PIXELS,
    test: bool = True,
    shared: float = 0.0,
) -> Comparison:
    """Ranks the settings of a sweep, and tests which of them can be dropped without dropping the best.

    All settings are compared over the same seeds; in an unfinished sweep, over the seeds that most settings have. A setting
    that lacks one of these seeds, or lost any replicate, comes last and is not tested: if some of its runs diverge, the
    mean of the others flatters it. Among these, unfinished settings come first, then those that lost the fewest replicates.

    The standings are
    "leader": the best mean. The best of many is partly luck: to report a number, train it again with other seeds.
    "contender": may be as good.
    "ruled out": another setting beats it seed by seed, by `statistics.p_best`.
    "unstable": not ruled out, but a replicate failed or collapsed, by `statistics.unstable`.
    "untested": one replicate, or missing ones, or "no statement" as below.

    The verdicts answer a harder question, whether a setting is worse than the leader:
    "best": the leader.
    "worse": worse by a two-sided paired t-test over the seeds, corrected for all pairs of compared settings.
    "not distinguishable": not worse by that test, which does not mean equal.
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
        level: the chance that a truly best setting is ruled out, and that any of equal settings is called worse.
        scale: the scale of tests and intervals: log for losses, logit for shares. Means and differences keep their unit.
        pixels: pixels of the scored split; on the logit scale, 0 and 1 count as half a pixel away from it.
        test: False ranks the settings and tests nothing, for jobs that are still being trained.
        shared: above 0 if the replicates are folds; see `statistics.standard_error`. Jobs with several seeds in a fold:
            `folds.compare_folds`.

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
    groups.sort(key=lambda group: group.rank(1 if mode == "max" else -1))
    full = [group for group in groups if not group.missing]
    rows = [group.columns(seed, Scale(scale, pixels), shared) for group in groups]
    if full:
        if test:
            values = np.array([[group.scores[key] for key in sorted(seeds)] for group in full])
            tested = judged(values, mode, Scale(scale, pixels), level, shared)
            rows[: len(full)] = [row | more for row, more in zip(rows, tested, strict=False)]
        for group, row in zip(groups, rows, strict=True):
            if common := [
                group.scores[key] - full[0].scores[key] for key in group.scores.keys() & full[0].scores.keys()
            ]:
                row["difference"] = math.fsum(common) / len(common)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for position, column in enumerate(settings):
        table.insert(
            position, column, pd.Series([group.settings[column] for group in groups], dtype=jobs[column].dtype)
        )
    left_out = tuple(f"{seed}={key[2]}" for key in sorted(completed - seeds))
    winner = dict(full[0].settings) if full else None
    return Comparison(
        table, winner, name or value, mode, len(seeds), len(full), tuple(settings), left_out, same,
        level=level, scale=scale, tested=test, shared=shared,
    )  # fmt: skip


def judged(
    values: NDArray[np.float64], mode: Mode, scale: Scale, level: float, shared: float = 0.0
) -> list[dict[str, Any]]:
    """The columns of `Comparison.table` that tests give, for settings that have all replicates.

    Args:
        values: [k, n], in the metric's unit, best mean first.
        mode: "max" if more is better.
        scale: of the tests.
        level, shared: as in `compare`.
    """
    sign = 1 if mode == "max" else -1
    on_scale, means = sign * scale.forward(values), values.mean(axis=1)
    p_best = statistics.p_best(on_scale, sign * means, level, shared)
    # Some folds are harder than others for every setting: each is seen beside the best value of its fold.
    best = (values.max(axis=0) if mode == "max" else values.min(axis=0)) if shared else np.ones(values.shape[1])
    collapsed = statistics.unstable(values / np.where(best > 0, best, 1), mode)
    rows = statistics.judge(on_scale, level, shared)
    for place, row in enumerate(rows):
        row |= {"p_best": float(p_best[place]), "unstable": bool(collapsed[place])}
        if "detectable" in row:
            row["detectable"] = scale.step(float(means[0]), -sign * row["detectable"])
        standing: Standing = "contender"
        if math.isnan(p_best[place]):
            standing = "untested"
        elif p_best[place] <= level:
            standing = "ruled out"
        elif place == 0:
            standing = "leader"
        elif collapsed[place]:
            standing = "unstable"
        row["standing"] = standing
    return rows


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


def values_key(record: SweepRecord, job: Job, axes: Sequence[str]) -> tuple[Key, ...]:
    """The sort keys of a job's values on these axes."""
    return tuple(entry_key(record.value_of(job, axis)) for axis in axes)
