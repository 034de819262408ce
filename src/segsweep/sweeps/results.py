"""The results of a sweep, read once: a table of its jobs, the comparison of its settings, the run to take."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from segsweep.absent_classes import absence
from segsweep.console import explain
from segsweep.errors import UserError, one_line
from segsweep.runs import RunRecord, read_metrics
from segsweep.sweeps.looks import Look, last_look
from segsweep.sweeps.plan import key_of
from segsweep.sweeps.race import Course, follow
from segsweep.sweeps.ranking import COLUMNS, Comparison
from segsweep.sweeps.report_text import OBJECTIVES, entry_text, outcomes, setting_name
from segsweep.sweeps.scale import PIXELS, scale_of
from segsweep.sweeps.scored import compare_apart, scoring
from segsweep.sweeps.state import ENDED, FINAL, FOLD, FOLDS, Job, SweepDirectory, SweepRecord
from segsweep.sweeps.statistics import LEVEL

_COLUMNS = frozenset({
    "rank", "stage", "status", "directory", "error", "metrics", "objective", "seconds", "checkpoint", "scored",
    "scored on", "mark", "", *OBJECTIVES, *COLUMNS,
})  # fmt: skip
"""Columns of the tables and of the heatmap, beside the swept keys and the metrics."""

LIMITED_BY_TIME = (
    "Time limited these trainings (trainer.max_minutes): the load of the machine is part of the result, and jobs at "
    "once share the machine."
)
"""A sentence of the verdict."""


@dataclass(frozen=True)
class Results:
    """The contents of a sweep's files. Tables and comparisons are computed from them when asked for, once.

    Attributes:
        sweep: the directory.
        record: sweep.json, with the status of each job from its run.json.
        runs: run.json of every job that has one, by the job's directory.
        look: the look whose verdict this is; None ranks the settings and tests nothing.
        unreadable: why a job's metrics.csv cannot be read, by the job's directory; filled by `histories`.
    """

    sweep: SweepDirectory
    record: SweepRecord
    runs: Mapping[str, RunRecord]
    look: Look | None = None
    unreadable: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, sweep: SweepDirectory, look: Callable[[SweepRecord], Look | None] = last_look) -> "Results":
        """Reads sweep.json, which may be out of date, and every run.json.

        Args:
            sweep: the directory.
            look: chooses the look; `look_now` for a report, which stores it.

        Raises:
            UserError: there is no sweep, or its sweep.json is damaged.
        """
        record = sweep.read()
        objective = record.objective["name"]
        if wrong := (_COLUMNS & {*record.axes, objective}) | ({objective} & set(record.axes)):
            raise UserError(f"{sweep.record}: {min(wrong)} is a column of the tables: no swept key, no objective")
        sweep.require_inside(job.directory for job in record.jobs if job.settings)
        found = {job.directory: sweep.refresh(job) for job in record.jobs}
        return cls(sweep, record, {name: run for name, run in found.items() if run is not None}, look(record))

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per job, best first; see `summary`."""
        return summary(self.record, self.runs)

    @cached_property
    def compared(self) -> Comparison | None:
        """The ranking of the settings, and the verdict of the look; None before a job is completed."""
        try:
            if self.course is not None:
                found = self.course.compared
            else:
                found = comparison(self.record, self.table, self.look, self.pixels)
        except UserError as error:
            raise UserError(f"{self.sweep.record}: {error}") from error
        if found is None or not any(run.limited_by_time for run in self.runs.values()):
            return found
        return replace(found, notes=(*found.notes, LIMITED_BY_TIME))

    @cached_property
    def course(self) -> Course | None:
        """How a race went since the cut; None before it, and for other sweeps."""
        record, race = self.record, self.record.race
        if race is None or not race.kept:
            return None
        jobs, name = self.table, record.objective["name"]
        if "stage" in jobs:
            jobs = jobs[jobs["stage"] != FINAL]
        return follow(
            jobs.assign(status=outcomes(jobs)), record.settings_axes, race, name=record.label, mode=record.mode,
            scale=scale_of(name, jobs["objective"]), pixels=self.pixels,
        )  # fmt: skip

    @property
    def pixels(self) -> int:
        """How many pixels of val the jobs were scored on; the fewest, if they differ."""
        pixels = (run.scored_pixels.get("val", 0) for run in self.runs.values() if run.status == "completed")
        return min((number for number in pixels if number), default=PIXELS)

    @property
    def has_replicates(self) -> bool:
        """Whether a setting has completed several seeds or folds: a table of settings says more than one of jobs."""
        return self.compared is not None and bool(self.record.settings_axes) and self.compared.table["n"].max() > 1

    @cached_property
    def best(self) -> str | None:
        """Directory of the run to take; see `best_directory`."""
        return best_directory(self.record, self.table, self.compared)

    @cached_property
    def absent(self) -> dict[str, list[str]]:
        """The classes without a pixel in val, by the group of jobs scored on the same images."""
        group = scored_images(self.record, self.record.jobs)
        completed = self.table[self.table["status"] == "completed"]
        first = completed.groupby(self.table["directory"].map(group))["directory"].first()
        absent = {str(name): self.runs[directory].absent_classes.get("val", []) for name, directory in first.items()}
        return {name: classes for name, classes in absent.items() if classes}

    @property
    def absence_lines(self) -> list[str]:
        """A line for each entry of `absent`."""
        return [(f"{name}: " if name else "") + absence("val", classes) for name, classes in self.absent.items()]

    def histories(self, most: int | None = None) -> dict[str, pd.DataFrame]:
        """metrics.csv by the job's directory, of the `most` best jobs that have logged anything; best first.

        Leaves out those that cannot be read; see `unreadable`.
        """
        found: dict[str, pd.DataFrame] = {}
        for directory in self.table["directory"]:
            path = self.sweep.path / directory / "metrics.csv"
            if (most is None or len(found) < most) and path.exists():
                try:
                    history = read_metrics(path)
                except (OSError, UserError) as error:
                    self.unreadable[directory] = explain(error) or str(error)
                    continue
                if len(history):
                    found[directory] = history
        return found


def scored_images(record: SweepRecord, jobs: Sequence[Job]) -> dict[str, str]:
    """The name of the images that each job was scored on, by its directory: its group and its fold."""
    group = scoring(record, jobs).group
    if FOLD not in record.axes:
        return group
    fold = {job.directory: f"{FOLD}={entry_text(record.value_of(job, FOLD))}" for job in jobs}
    return {directory: ", ".join(filter(None, (name, fold[directory]))) for directory, name in group.items()}


def summary(record: SweepRecord, runs: Mapping[str, RunRecord]) -> pd.DataFrame:
    """The content of summary.csv: a row per job, completed jobs best first, then failed, then unfinished ones.

    Jobs are ranked among those scored on the same images, one group or fold after the other. Unfinished jobs and final
    trainings have no rank; final trainings come last.

    Args:
        record: sweep.json, up to date.
        runs: run.json by the job's directory.
    """
    rows = []
    for job in record.jobs:
        row: dict[str, Any] = {axis: record.value_of(job, axis) for axis in record.axes}
        row |= {"stage": None if job.stage == "other" else job.stage, "status": job.status, "directory": job.directory}
        row["error"] = None if job.error is None else one_line(job.error)
        row |= {"metrics": {}, "objective": None, "seconds": None, "checkpoint": None}
        if (run := runs.get(job.directory)) is not None:
            if job.status == "completed":
                row |= {"objective": run.objective.value, "metrics": dict(run.metrics)}
                row |= {name: getattr(run.objective, name.removeprefix("objective_")) for name in OBJECTIVES}
            row["seconds"] = run.seconds
            row["checkpoint"] = f"{job.directory}/{run.best_checkpoint}" if run.best_checkpoint else None
        rows.append(row)

    order = {"completed": 0, "failed": 1}
    group = scored_images(record, [job for job in record.jobs if job.stage != FINAL])
    places = {name: place for place, name in enumerate(dict.fromkeys(group.values()))}

    def place(row: dict[str, Any]) -> tuple[int, int, float]:
        value = row["objective"]
        missing = value is None or value != value
        end = 3 if row["stage"] == FINAL else order.get(row["status"], 2) + (missing and row["status"] == "completed")
        of_group = places.get(group.get(row["directory"], ""), len(places))  # final trainings are in no group
        return of_group, end, 0.0 if missing else value if record.mode == "min" else -value

    rows.sort(key=place)
    ranks: Counter[str] = Counter()
    for row in rows:
        row["rank"] = None
        if row["status"] in order and row["stage"] != FINAL:
            ranks[group[row["directory"]]] += 1
            row["rank"] = ranks[group[row["directory"]]]
    metrics = [name for name in dict.fromkeys(name for row in rows for name in row["metrics"]) if "/" in name]
    stage = ["stage"] if any(row["stage"] is not None for row in rows) else []
    last = ["status", "seconds", "checkpoint", "directory", "error"]
    each = [name for name in OBJECTIVES if any(row.get(name) is not None for row in rows)]
    columns = ["rank", *stage, *record.axes, "objective", *each, *metrics, *last]
    table = pd.DataFrame([{**row["metrics"], **row} for row in rows], columns=columns)
    table["rank"] = table["rank"].astype("Int64")
    table = table.astype(dict.fromkeys(["objective", *each], float))
    return table


def best_directory(record: SweepRecord, table: pd.DataFrame, compared: Comparison | None) -> str | None:
    """The run to take: the final training of the best setting, else its best replicate.

    It need not be the best of all jobs, which may be a lucky seed of a worse setting.

    Returns:
        Its directory; None before a job is completed, and if the jobs were scored on different images, as folds are:
        then none is better than another.
    """
    completed = table[table["status"] == "completed"]
    if compared is not None and compared.parts:
        return None
    final = completed[completed["stage"] == FINAL] if "stage" in completed else completed[:0]
    if compared is not None and compared.best is not None:
        best = {axis: entry_text(value) for axis, value in compared.best.items()}

        def has_best(row: "pd.Series[Any]", overrides: list[str]) -> bool:
            # If a key is typed twice, `final` has changed it, and it may differ from the best value.
            typed = [key_of(override) for override in overrides]
            return all(entry_text(row[axis]) == value for axis, value in best.items() if typed.count(axis) < 2)

        # A final training of another setting came from an earlier search that did not have the best one yet.
        jobs = {job.directory: job for job in record.jobs}
        final = final[[has_best(row, jobs[row["directory"]].overrides) for _, row in final.iterrows()]]
        completed = completed[[has_best(row, []) for _, row in completed.iterrows()]]
    taken = final if len(final) or FOLD in record.axes else completed
    return str(taken["directory"].iloc[0]) if len(taken) else None


def comparison(
    record: SweepRecord, table: pd.DataFrame, look: Look | None = None, pixels: int = PIXELS
) -> Comparison | None:
    """Compares the settings scored on the same images; None before a job is completed.

    Args:
        record: sweep.json, up to date.
        table: from `summary`.
        look: the look to take; None ranks the settings and tests nothing.
        pixels: see `compare`.
    """
    jobs = table[table["stage"] != FINAL].copy() if "stage" in table else table.copy()
    later = 0
    if look is not None:
        number = {job.directory: job.number for job in record.jobs if job.settings}
        numbers = [number.get(directory) for directory in jobs["directory"]]
        seen = np.array([each is None or each in look.completed or each in look.failed for each in numbers], dtype=bool)
        later = int((jobs["status"].isin(ENDED) & ~seen).sum())
        # A job that failed then and has completed since would change the verdict of that look.
        failed = np.array([each in look.failed for each in numbers], dtype=bool)
        jobs["status"] = jobs["status"].where(~failed, "failed")
        for column in ("objective", *(name for name in OBJECTIVES if name in jobs)):
            jobs[column] = jobs[column].where(~failed)
        jobs = jobs[seen].copy()
    if not (jobs["status"] == "completed").any():
        return None
    if "seed" not in jobs and FOLD not in jobs:
        jobs["seed"] = 0
    jobs["status"] = outcomes(jobs)
    directories = set(jobs["directory"])
    found = scoring(record, [job for job in record.jobs if job.directory in directories])
    jobs["scored"] = [found.group[directory] for directory in jobs["directory"]]
    if FOLD in record.axes:
        folds = {job.directory: record.value_of(job, FOLDS) for job in record.jobs}
        jobs[FOLDS] = pd.to_numeric(jobs["directory"].map(folds))
    name = record.objective["name"]
    options: dict[str, Any] = {
        "scored": "scored", "why": found.why, "apart": found.axes, "mode": record.mode, "name": record.label,
        "scale": scale_of(name, jobs["objective"]), "pixels": pixels, "level": LEVEL if look is None else look.level,
    }  # fmt: skip
    compared = compare_apart(jobs, record.settings_axes, **options, test=look is not None)
    if "objective_last" in jobs and jobs["objective_last"].notna().equals(jobs["objective"].notna()):
        by_last = compare_apart(jobs, record.settings_axes, "objective_last", **options, test=False)
        compared = note_last_leader(compared, by_last, name)
    return compared if look is None else compared.at_look(look.number, later)


def note_last_leader(compared: Comparison, by_last: Comparison, name: str) -> Comparison:
    """Adds a sentence to the verdict if the ranking by the last validation has another leader.

    Args:
        compared: the ranking of the sweep.
        by_last: the ranking of the same jobs by the objective of their last validations.
        name: the metric.
    """
    parts = {group: note_last_leader(part, by_last.parts[group], name) for group, part in compared.parts.items()}
    compared = replace(compared, parts=parts)
    if compared.best is None or by_last.best is None:
        return compared
    leader, other = (setting_name(best, compared.settings) for best in (compared.best, by_last.best))
    means = {setting_name(row, compared.settings): row["mean"] for _, row in by_last.table.iterrows()}
    if means[leader] == means[other]:
        return compared
    note = (
        f"By the last validation of each job, {other} leads ({name} {means[other]:.4g} there, {means[leader]:.4g} with "
        f"{leader}); objective_at=last ranks by it, since the best of many validations flatters settings that vary."
    )
    return replace(compared, notes=(note,))
