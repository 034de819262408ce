"""The results of a sweep, read once and handed around: a table of its jobs, the comparison, the job to take."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from segsweep.absent_classes import absence
from segsweep.runs import RunRecord
from segsweep.sweeps.plan import key_of
from segsweep.sweeps.ranking import Comparison
from segsweep.sweeps.report_text import ends, entry_text
from segsweep.sweeps.scored import compare_apart, scoring
from segsweep.sweeps.state import FINAL, Job, SweepDirectory, SweepRecord


@dataclass(frozen=True)
class Results:
    """What the files of a sweep say; everything that is computed from them is computed once.

    Attributes:
        sweep: the directory.
        record: sweep.json, with the status of each job as its run.json has it.
        runs: run.json of every job that has one, by the job's directory.
    """

    sweep: SweepDirectory
    record: SweepRecord
    runs: Mapping[str, RunRecord]

    @classmethod
    def read(cls, sweep: SweepDirectory) -> "Results":
        """Reads sweep.json, which may be out of date, and every run.json.

        Raises:
            UserError: there is no sweep, or its sweep.json is damaged.
        """
        record = sweep.read()
        found = {job.directory: sweep.refresh(job) for job in record.jobs}
        return cls(sweep, record, {name: run for name, run in found.items() if run is not None})

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per job, best first; see `summary`."""
        return summary(self.record, self.runs)

    @cached_property
    def compared(self) -> Comparison | None:
        """Which settings are worse than the best; None before a job is completed."""
        return comparison(self.record, self.table)

    @cached_property
    def best(self) -> str | None:
        """Directory of the job to take; see `best_directory`."""
        return best_directory(self.record, self.table, self.compared)

    @cached_property
    def absent(self) -> dict[str, list[str]]:
        """The classes without a pixel in val, by the name of each group of jobs scored on the same images."""
        group = scoring(self.record, self.record.jobs).group
        completed = self.table[self.table["status"] == "completed"]
        first = completed.groupby(self.table["directory"].map(group))["directory"].first()
        absent = {str(name): self.runs[directory].absent_classes.get("val", []) for name, directory in first.items()}
        return {name: classes for name, classes in absent.items() if classes}

    @property
    def absences(self) -> list[str]:
        """A line for each group in which classes are absent."""
        return [(f"{name}: " if name else "") + absence("val", classes) for name, classes in self.absent.items()]


def summary(record: SweepRecord, runs: Mapping[str, RunRecord]) -> pd.DataFrame:
    """A row per job: completed jobs best first, then failed ones, then unfinished ones, which have no rank.

    Each group of jobs that were scored on the same images has its own ranks, one group after the other.

    Args:
        record: sweep.json, up to date.
        runs: run.json by the job's directory.
    """
    rows = [_row(record, job, runs.get(job.directory)) for job in record.jobs]
    mode = record.objective["mode"]
    order = {"completed": 0, "failed": 1}

    ranked = [job for job in record.jobs if job.stage != FINAL]
    group = scoring(record, ranked).group
    places = {name: place for place, name in enumerate(dict.fromkeys(group.values()))}

    def place(row: dict[str, Any]) -> tuple[int, int, float]:
        value = row["objective"]
        missing = value is None or value != value
        end = 3 if row["stage"] == FINAL else order.get(row["status"], 2) + (missing and row["status"] == "completed")
        alone = places.get(group.get(row["directory"], ""), len(places))  # final trainings come last
        return alone, end, 0.0 if missing else value if mode == "min" else -value

    rows.sort(key=place)
    ranks: Counter[str] = Counter()
    for row in rows:
        row["rank"] = None
        if row["status"] in order and row["stage"] != FINAL:
            ranks[group[row["directory"]]] += 1
            row["rank"] = ranks[group[row["directory"]]]
    metrics = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    stage = ["stage"] if any(row["stage"] is not None for row in rows) else []
    last = ["status", "seconds", "checkpoint", "directory", "error"]
    columns = ["rank", *stage, *record.axes, "objective", *metrics, *last]
    table = pd.DataFrame([{**row, **row["metrics"]} for row in rows], columns=columns)
    table["rank"] = table["rank"].astype("Int64")
    table["objective"] = table["objective"].astype(float)
    return table


def _row(record: SweepRecord, job: Job, found: RunRecord | None) -> dict[str, Any]:
    row: dict[str, Any] = {axis: record.value_of(job, axis) for axis in record.axes}
    row |= {
        "stage": None if job.stage == "other" else job.stage,
        "status": job.status,
        "directory": job.directory,
        "error": None,
        "metrics": {},
    }
    row |= {"objective": None, "seconds": None, "checkpoint": None}
    if job.error is not None:
        row["error"] = " ".join(job.error.split())
    if found is not None:
        completed = job.status == "completed"
        row["objective"] = found.objective.value if completed else None
        row["metrics"] = {name: value for name, value in found.metrics.items() if completed}
        row["seconds"] = found.seconds
        row["checkpoint"] = f"{job.directory}/{found.best_checkpoint}" if found.best_checkpoint else None
    return row


def best_directory(record: SweepRecord, table: pd.DataFrame, compared: Comparison | None) -> str | None:
    """The job to take: the final training of the best setting, else its best replicate.

    The best of all jobs is not taken: it may be a lucky seed of a worse setting.

    Returns:
        Its directory; None before a job is completed, and for jobs that were not all scored on the same images, because
        then none is better than another.
    """
    completed = table[table["status"] == "completed"]
    if compared is not None and compared.parts:
        return None
    final = completed[completed["stage"] == FINAL] if "stage" in completed else completed[:0]
    if compared is not None and compared.best is not None:
        best = {axis: entry_text(value) for axis, value in compared.best.items()}

        def has_best(row: "pd.Series[Any]", overrides: list[str]) -> bool:
            # A key that is typed twice was changed for the final training, and may differ from the best value.
            typed = [key_of(override) for override in overrides]
            return all(entry_text(row[axis]) == value for axis, value in best.items() if typed.count(axis) < 2)

        # A final training of another setting came from an earlier search that did not have the best one yet.
        jobs = {job.directory: job for job in record.jobs}
        final = final[[has_best(row, jobs[row["directory"]].overrides) for _, row in final.iterrows()]]
        completed = completed[[has_best(row, []) for _, row in completed.iterrows()]]
    taken = final if len(final) else completed
    return str(taken["directory"].iloc[0]) if len(taken) else None


def comparison(record: SweepRecord, table: pd.DataFrame) -> Comparison | None:
    """Which settings are worse than the best among those scored on the same images; None before a job is completed."""
    jobs = table[table["stage"] != FINAL].copy() if "stage" in table else table.copy()
    if not (jobs["status"] == "completed").any():
        return None
    if "seed" not in jobs:
        jobs["seed"] = 0
    jobs["status"] = ends(jobs)
    found = scoring(record, [job for job in record.jobs if job.directory in set(jobs["directory"])])
    jobs["scored"] = [found.group[directory] for directory in jobs["directory"]]
    return compare_apart(
        jobs, record.settings_axes, scored="scored", why=found.why, apart=found.axes,
        mode=record.mode, name=record.objective["name"],
    )  # fmt: skip
