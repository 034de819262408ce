"""The jobs of a sweep as one table, the best first, and which of them to take."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from segsweep.absent_classes import absence
from segsweep.errors import DivergedError
from segsweep.runs import RunRecord, read_metrics
from segsweep.sweeps.plan import FINAL, key_of
from segsweep.sweeps.scored import compare_apart, scoring
from segsweep.sweeps.state import Job, SweepDirectory, SweepRecord
from segsweep.sweeps.statistics import Comparison
from segsweep.sweeps.verdict import entry_text


def summary(record: SweepRecord, runs: Mapping[str, RunRecord]) -> pd.DataFrame:
    """A row per job, the best first; failed and diverged ones last, without a rank those that are not finished.

    Jobs that were scored on other images have ranks of their own, one group behind the other.

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
        alone = places.get(group.get(row["directory"], ""), len(places))  # a final training is behind all
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
    """The job to take: the best replicate of the best setting, or its final training; None before a job is completed,
    and where jobs were scored on other images, so that none is better than another.

    The best of all jobs may be a lucky seed of a setting that is worse.
    """
    completed = table[table["status"] == "completed"]
    if compared is not None and compared.parts:
        return None
    final = completed[completed["stage"] == FINAL] if "stage" in completed else completed[:0]
    if compared is not None and compared.best is not None:
        best = {axis: entry_text(value) for axis, value in compared.best.items()}
        # What is final of another setting belongs to a search that had found less.
        final = final[[_is_of(record.job_at(row["directory"]), row, best) for _, row in final.iterrows()]]
        completed = completed[[_is_of(None, row, best) for _, row in completed.iterrows()]]
    taken = final if len(final) else completed
    return str(taken["directory"].iloc[0]) if len(taken) else None


def _is_of(final: Job | None, row: "pd.Series[Any]", best: dict[str, str]) -> bool:
    """Whether a job has the best values, but for those that a final training was given anew, behind the best ones."""
    typed = [key_of(override) for override in final.overrides] if final is not None else []
    return all(entry_text(row[axis]) == value for axis, value in best.items() if typed.count(axis) < 2)


def is_diverged(error: str | None) -> bool:
    """Whether a job's error says that its loss or a weight was not finite."""
    return bool(error) and str(error).startswith(DivergedError.__name__)


def ends(table: pd.DataFrame) -> list[str]:
    """How each job ended, or where it is: its status, or "diverged"."""
    pairs = zip(table["error"], table["status"], strict=True)
    return ["diverged" if is_diverged(error) else str(status) for error, status in pairs]


def settings_axes(record: SweepRecord) -> list[str]:
    """The swept keys that make a setting: all but the seed, which makes replicates."""
    return [axis for axis in record.axes if axis != "seed"]


def comparison(record: SweepRecord, table: pd.DataFrame) -> Comparison | None:
    """Which settings are really worse than the best, of those scored on the same images; None before a job is finished."""
    jobs = table[table["stage"] != FINAL].copy() if "stage" in table else table.copy()
    if not (jobs["status"] == "completed").any():
        return None
    if "seed" not in jobs:
        jobs["seed"] = 0
    jobs["status"] = ends(jobs)
    found = scoring(record, [job for job in record.jobs if job.directory in set(jobs["directory"])])
    jobs["scored"] = [found.group[directory] for directory in jobs["directory"]]
    return compare_apart(
        jobs, settings_axes(record), scored="scored", why=found.why, apart=found.axes,
        mode=record.mode, name=record.objective["name"],
    )  # fmt: skip


def absences(runs: Mapping[str, RunRecord], record: SweepRecord, table: pd.DataFrame) -> list[str]:
    """A line for the classes that val does not show, of each group of jobs that were scored on the same images."""
    group = scoring(record, record.jobs).group
    lines: dict[str, None] = {}
    for directory in table[table["status"] == "completed"].groupby(table["directory"].map(group))["directory"].first():
        names = runs[directory].absent_classes.get("val")
        lines |= {absence("val", names): None} if names else {}
    return list(lines)


def histories(sweep: SweepDirectory, record: SweepRecord) -> dict[str, pd.DataFrame]:
    """metrics.csv of every job that has one, by the job's directory."""
    found = {}
    for job in record.jobs:
        path = sweep.run(job).metrics
        if path.exists() and len(history := read_metrics(path)):
            found[job.directory] = history
    return found
