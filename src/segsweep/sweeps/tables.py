"""The tables and lines of a sweep's report, as text; how they are laid out, `markdown` and `printed` say."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pandas as pd

from segsweep.sweeps.plan import FINAL
from segsweep.sweeps.ranking import ends
from segsweep.sweeps.state import SweepRecord
from segsweep.sweeps.statistics import Comparison
from segsweep.sweeps.verdict import entry_text, setting_name

Table = tuple[list[str], list[list[str]]]
"""Header and rows."""

_NAMED = 3  # jobs that a line names
_BESIDE = ("test/iou", "test/loss", "train/loss_running")


def number(value: Any, decimals: int = 4) -> str:
    """A measured number, or "" where there is none."""
    return "" if value is None or pd.isna(value) else f"{value:.{decimals}f}"


def decimals(values: Iterable[Any]) -> int:
    """How many decimals a column needs whose first value is the best one: four digits of that, and at least 4 decimals."""
    first = next((abs(value) for value in values if value is not None and not pd.isna(value) and value), 1.0)
    return min(max(3 - math.floor(math.log10(first)), 4), 12) if math.isfinite(first) else 4


def settings_table(compared: Comparison, details: bool) -> Table:
    """A row per setting, the best first; of each group alone where jobs were scored on other images.

    Args:
        compared: of the sweep.
        details: with intervals and p values, and every missing replicate; else what fits a line of a terminal.
    """
    axes = list(compared.settings)
    spread = ["std", "95 % interval", "difference", "p"] if details else ["± std", "difference"]
    places = decimals(compared.table["mean"])
    rows = []
    ranked = (ranks for part in compared.alone for ranks in enumerate(part.table.iterrows(), start=1))
    for rank, (_, row) in ranked:
        # The best one's own difference would be a 0 that says nothing.
        mean, std, low, high, difference = (
            number(row[name], places) for name in ("mean", "std", "low", "high", "difference")
        )
        difference = "" if rank == 1 else difference
        cells = [str(rank), *(entry_text(row[axis]) for axis in axes), str(row["n"])]
        if details:
            interval = f"{low} to {high}" if low else ""
            cells += [mean, std, interval, difference, number(row["p"], 3)]
            cells.append(row["verdict"] + (f" ({row['missing']})" if row["missing"] else ""))
        else:
            cells += [mean, std, difference, missing(row["missing"]) or row["verdict"]]
        rows.append(cells)
    return ["rank", *axes, "n", compared.name, *spread, "verdict"], rows


def missing(reasons: str) -> str:
    """How many replicates are missing, and why: "2 diverged, 1 not run"."""
    counts = Counter(reason.partition(" ")[2] for reason in reasons.split(", ") if reason)
    return ", ".join(f"{count} {why}" for why, count in counts.items())


def jobs_table(record: SweepRecord, table: pd.DataFrame, details: bool) -> Table:
    """A row per job, the best first; with `details` also the running loss of training."""
    also = [
        name for name in (_BESIDE if details else _BESIDE[:2]) if name in table and name != record.objective["name"]
    ]
    places = {name: decimals(table[name]) for name in ("objective", *also)}
    rows = []
    for (_, row), end in zip(table.iterrows(), ends(table), strict=True):
        rank = "final" if row.get("stage") == FINAL else "" if pd.isna(row["rank"]) else str(row["rank"])
        seconds = "" if pd.isna(row["seconds"]) else f"{row['seconds']:.0f}"
        values = [entry_text(row[axis]) for axis in record.axes]
        rows.append([rank, *values, *(number(row[name], places[name]) for name in places), seconds, end])
    return ["rank", *record.axes, record.objective["name"], *also, "seconds", "status"], rows


def final_trainings(record: SweepRecord, table: pd.DataFrame) -> list[str]:
    """A sentence for each training with the best values that came after a search."""
    if "stage" not in table:
        return []
    said = []
    for _, row in table[table["stage"] == FINAL].iterrows():
        job = record.job_at(row["directory"])
        seed = "" if job is None else f", seed={entry_text(record.value_of(job, 'seed'))}"
        who = setting_name(row, [axis for axis in record.axes if axis != "seed"]) + seed
        values = {record.objective["name"]: row["objective"], **{name: row.get(name) for name in _BESIDE[:2]}}
        found = ", ".join(f"{name} {value:.4g}" for name, value in values.items() if not pd.isna(value))
        said.append(f"Final training with {who}: {found or row['status']}.")
    return said


def failures(record: SweepRecord, table: pd.DataFrame) -> list[str]:
    """A line for each error: the jobs that it ended, and what it says."""
    lines = []
    for error, rows in table[table["status"] == "failed"].groupby("error", sort=False):
        names = [setting_name(row, record.axes) if record.axes else row["directory"] for _, row in rows.iterrows()]
        more = f"; and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        lines.append(f"{'; '.join(names[:_NAMED])}{more}: {error}")
    return lines
