"""Turns the results of a sweep into tables, sentences and lines of text. It reads no file and decides nothing."""

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from segsweep.errors import one_line, shown
from segsweep.fingerprint import typed
from segsweep.runs import RunRecord
from segsweep.sweeps.state import FINAL, Job, SweepRecord, is_diverged

if TYPE_CHECKING:  # `ranking` imports this module, for the sentences of a comparison
    from segsweep.sweeps.ranking import Comparison

_MOST_SETTINGS = 5  # that a sentence names
_MOST_JOBS = 3  # that an error line names
_OTHER_METRICS = ("test/iou", "test/loss", "train/loss_running")
"""The metrics of the table of jobs, besides the objective."""

OBJECTIVES = {"objective_best": "best", "objective_last": "last", "objective_mean_last_3": "mean of last 3"}
"""Columns of the table of jobs with the objective at each validation that may rank them, and their titles."""

Table = tuple[list[str], list[list[str]]]
"""Header and rows."""


GROUPS = {
    "leader": "Use",
    "contender": "May be as good",
    "unstable": "Unstable",
    "ruled out": "Ruled out",
    "untested": "Not tested",
}
"""The heading of each standing."""


def verdict_sentences(comparison: "Comparison") -> list[str]:
    """Lines that say what to use, what may be as good, what to drop, and how sure that is.

    Args:
        comparison: of jobs that were all scored on the same images.
    """
    table, settings, replicates = comparison.table, comparison.settings, comparison.replicates
    lines = []
    alone = replicates == 1 or len(table) == 1
    if comparison.compared == 0:
        lines.append("No setting has all its replicates, so nothing is compared.")
    elif alone or not comparison.tested:
        lines.append(_ranking_line(comparison))
    for standing, heading in GROUPS.items():
        rows = table[(table["standing"] == standing) & ((table["missing"] != "") if alone else True)]
        if len(rows) and comparison.tested:
            named = (f"{setting_name(row, settings)} ({_note(row, comparison)})" for _, row in rows.iterrows())
            lines.append(f"{heading}: {'; '.join(named)}.")
    if comparison.compared > 1 and not alone and table["p_best"].notna().any():
        lines += _test_lines(comparison)
    first = table.iloc[0]
    if pd.notna(first.get("test/iou std")):
        mean, std = (_rounded(first[f"test/iou {name}"], first["test/iou std"]) for name in ("mean", "std"))
        lines.append(f"On test, which ranks nothing: {setting_name(first, settings)} has test/iou {mean} ± {std}.")
    if comparison.later:
        jobs = "1 job that ended after this verdict; it counts" if comparison.later == 1 else (
            f"{comparison.later} jobs that ended after this verdict; they count"
        )  # fmt: skip
        lines.append(f"Not counted yet: {jobs} when all jobs that were asked for have ended.")
    if comparison.left_out:
        lines.append(f"Not used, because not every setting compared has it: {', '.join(comparison.left_out)}.")
    # If settings have exactly the same values, the keys in which they differ have no effect.
    same: dict[tuple[str, ...], list[list[str]]] = {}
    for alike in comparison.identical:
        keys = tuple(key for key in settings if len({entry_text(values[key]) for values in alike}) > 1)
        same.setdefault(keys, []).append([setting_name(values, settings) for values in alike])
    for keys, classes in same.items():
        has = "has" if len(keys) == 1 else "have"
        others = f" (and so in {len(classes) - 1} more cases)" if len(classes) > 1 else ""
        lines.append(
            f"{', '.join(keys)} {has} no effect here: exactly the same {comparison.name} for every "
            f"{comparison.replicate} with {_first(classes[0], _MOST_SETTINGS)}{others}."
        )
    return [*lines, *comparison.notes]


def setting_name(values: Mapping[str, Any] | pd.Series, settings: Sequence[str]) -> str:
    """A setting as text: "optim=adam, lr=0.01"."""
    return ", ".join(f"{column}={entry_text(values[column])}" for column in settings) or "the only setting"


def entry_text(entry: Any) -> str:
    """A value as it is typed in a command: null for None and NaN, true for True."""
    if entry is None or entry is pd.NA or (isinstance(entry, (float, np.floating)) and math.isnan(entry)):
        return "null"
    return str(entry).lower() if isinstance(entry, (bool, np.bool_)) else shown(entry)


def _first(names: Sequence[str], most: int, number: int | None = None) -> str:
    """The first `most` of `number` names: "a; b; and 3 more"."""
    number = len(names) if number is None else number
    return "; ".join(names[:most]) + (f"; and {number - most} more" if number > most else "")


def _ranking_line(comparison: "Comparison") -> str:
    """The best setting where there is nothing to test: one seed, or one setting."""
    first = comparison.table.iloc[0]
    value = _value(first, comparison)
    if len(comparison.table) == 1:
        return f"One setting only, so nothing is compared: {value}."
    extreme = "highest" if comparison.mode == "max" else "lowest"
    line = f"{setting_name(first, comparison.settings)} has the {extreme} {value}"
    if not comparison.tested:
        return f"So far {line}; the report tests settings when all jobs have ended."
    if comparison.shared:
        return f"{line}. One fold does not show how far values vary, so nothing is ruled out; train the other folds."
    return (
        f"{line}. One seed does not show how far values vary by chance, so nothing is ruled out; train the best settings "
        "with seeds that had no part in picking them."
    )


def _value(row: pd.Series, comparison: "Comparison") -> str:
    """Mean and spread of a setting: "val/iou 0.98320 ± 0.00066 over 3 seeds"."""
    if pd.isna(row["std"]):
        return f"{comparison.name} {row['mean']:.4g}"
    mean, std = _rounded(row["mean"], row["std"]), _rounded(row["std"], row["std"])
    marked = ", but unstable" if row["unstable"] and row["standing"] != "unstable" else ""
    return f"{comparison.name} {mean} ± {std} over {row['n']} {comparison.replicate}s{marked}"


def _note(row: pd.Series, comparison: "Comparison") -> str:
    """What to know of a setting in its group: its value, its difference to the leader, why it is unstable or not tested."""
    left = f", at {row['out_at']}" if row.get("out_at") else ""  # of a race
    if row["missing"]:
        return str(row["missing"]) + left
    if row.get("out_at") == "screening":
        return f"{comparison.name} {row['mean']:.4g}, screened out by one seed"
    if row["standing"] in ("leader", "unstable"):
        return _value(row, comparison)
    if row["standing"] == "untested":
        return f"{row['difference']:+.2g} for every {comparison.replicate}, so chance cannot be judged"
    if row["detectable"] == 0:
        return "the same values"
    return f"{row['difference']:+.2g}" + (", unstable" if row["unstable"] else "") + left


def _test_lines(comparison: "Comparison") -> list[str]:
    """How sure the groups are, which settings are worse than the leader, and what could have shown."""
    table, settings, compared = comparison.table, comparison.settings, comparison.compared
    scale = {"raw": "", "log": ", on the logarithmic scale", "logit": ", on the logit scale"}[comparison.scale]
    level = f"{comparison.level * 100:.3g} %"
    what = "verdict {} over this sweep" if comparison.corrected_for is None else "look {} of this race"
    look = "" if comparison.look is None else f"This is {what.format(comparison.look)}, at level {level}. "
    number = comparison.corrected_for or compared
    lines = [
        f"{look}Ruled out means that another setting beats it seed by seed (one-sided paired t-tests{scale}, corrected for "
        f"{number} settings); the best setting is ruled out in at most {level} of such verdicts."
    ]
    if comparison.shared:
        level = f"about {level}"
        lines = [
            f"Ruled out means that another setting beats it fold by fold (one-sided paired t-tests{scale}, with Nadeau and "
            f"Bengio's variance, corrected for {compared} settings, level {level}). Folds share training images, so the "
            "level is only approximate."
        ]
    rows = table.iloc[1:compared]
    if len(worse := rows[(rows["verdict"] == "worse") & (rows["standing"] == "ruled out")]):
        correction = f", {comparison.correction}" if comparison.pairs > 1 else ""
        names = "; ".join(setting_name(row, settings) for _, row in worse.iterrows())
        leader = setting_name(table.iloc[0], settings)
        lines.append(f"Worse than {leader} (two-sided paired t-tests{correction}, {level}): {names}.")
    needed = rows["detectable"][rows["standing"].isin(["contender", "unstable"]) & (rows["detectable"] > 0)]
    seeds = f"With {comparison.replicates} {comparison.replicate}s"
    if len(shown := needed[np.isfinite(needed)]):
        low, high = f"{shown.min():.2g}", f"{shown.max():.2g}"
        span = (
            f"{low} or more" if low == high else f"{low} (for the steadiest) to {high} (for the most varying) or more"
        )
        lines.append(f"{seeds}, only a difference to the leader of about {span} is found.")
    if len(shown) < len(needed):
        varying = [setting_name(rows.loc[place], settings) for place in needed.index if not np.isfinite(needed[place])]
        lines.append(f"{seeds}, no difference could have shown for {'; '.join(varying)}: the values vary too much.")
    return lines


def _rounded(number: float, spread: float) -> str:
    """A number rounded to the second digit of its spread; very large and very small numbers get an exponent."""
    if not spread:
        return f"{number:.6g}"
    decimals = 1 - math.floor(math.log10(spread))
    if decimals > 7 or abs(number) >= 1e7:
        return f"{number:.4g}"
    return f"{number:.{max(0, decimals)}f}"


def number(value: Any, decimals: int = 4) -> str:
    """A measured number; "" for None and NaN."""
    return "" if value is None or pd.isna(value) else f"{value:.{decimals}f}"


def outcomes(table: pd.DataFrame) -> list[str]:
    """The status of each job in the table of jobs; "diverged" instead of "failed" if it diverged."""
    pairs = zip(table["error"], table["status"], strict=True)
    return ["diverged" if is_diverged(error) else str(status) for error, status in pairs]


def decimals(values: Iterable[Any]) -> int:
    """How many decimals a column needs: enough for four digits of its first value, which is the best, and at least 4."""
    first = next((abs(value) for value in values if value is not None and not pd.isna(value) and value), 1.0)
    return min(max(3 - math.floor(math.log10(first)), 4), 12) if math.isfinite(first) else 4


def settings_table(compared: "Comparison", details: bool) -> Table:
    """A row per setting, best first; if there are groups, one group after the other.

    Args:
        compared: the comparison of the sweep.
        details: whether to add intervals, p values and every missing replicate; without them a row fits a terminal.
    """
    axes = list(compared.settings)
    on_scale = "" if compared.scale == "raw" else f" ({compared.scale})"
    spread = ["std", f"95 % interval{on_scale}", "difference", "p_best"] if details else ["± std", "difference"]
    places = decimals(compared.table["mean"])
    rows = []
    tested = "test/iou mean" in compared.table
    ranked = (ranks for part in compared.rankings for ranks in enumerate(part.table.iterrows(), start=1))
    for rank, (_, row) in ranked:
        mean, std, low, high, difference = (
            number(row[name], places) for name in ("mean", "std", "low", "high", "difference")
        )
        difference = "" if rank == 1 else difference  # the best has no difference to itself
        cells = [str(rank), *(entry_text(row[axis]) for axis in axes), str(row["n"])]
        test = [" ± ".join(number(row[f"test/iou {name}"], 4) for name in ("mean", "std"))] if tested else []
        if details:
            interval = f"{low} to {high}" if low else ""
            cells += [mean, std, interval, difference, number(row["p_best"], 4), *test]
            why = row["missing"] or row.get("out_at")
            cells.append(row["standing"] + (f" ({why})" if why else ""))
        else:
            cells += [mean, std, difference, *test, count_missing(row["missing"]) or row["standing"]]
        rows.append(cells)
    return ["rank", *axes, "n", compared.name, *spread, *(["test/iou ± std"] if tested else []), "standing"], rows


def count_missing(reasons: str) -> str:
    """Counts missing replicates by reason: "seed=0 diverged, seed=2 not run" gives "1 diverged, 1 not run"."""
    counts = Counter(reason.partition(" ")[2] for reason in reasons.split(", ") if reason)
    return ", ".join(f"{count} {why}" for why, count in counts.items())


def jobs_table(record: SweepRecord, table: pd.DataFrame, details: bool) -> Table:
    """A row per job, best first; `details` adds the running training loss, and the objective by `OBJECTIVES`."""
    metrics = _OTHER_METRICS if details else _OTHER_METRICS[:2]
    others = [name for name in metrics if name in table and name != record.objective["name"]]
    others = [name for name in OBJECTIVES if details and name in table] + others
    places = {name: decimals(table[name]) for name in ("objective", *others)}
    rows = []
    for (_, row), outcome in zip(table.iterrows(), outcomes(table), strict=True):
        rank = "final" if row.get("stage") == FINAL else "" if pd.isna(row["rank"]) else str(row["rank"])
        seconds = "" if pd.isna(row["seconds"]) else f"{row['seconds']:.0f}"
        values = [entry_text(row[axis]) for axis in record.axes]
        rows.append([rank, *values, *(number(row[name], places[name]) for name in places), seconds, outcome])
    titles = [OBJECTIVES.get(name, name) for name in others]
    return ["rank", *record.axes, record.label, *titles, "seconds", "status"], rows


def final_trainings(record: SweepRecord, table: pd.DataFrame) -> list[str]:
    """A sentence for each final training."""
    if "stage" not in table:
        return []
    sentences = []
    for _, row in table[table["stage"] == FINAL].iterrows():
        job = record.job_at(row["directory"])
        seed = "" if job is None else f", seed={entry_text(record.value_of(job, 'seed'))}"
        setting = setting_name(row, record.settings_axes) + seed
        values = {record.label: row["objective"], **{name: row.get(name) for name in _OTHER_METRICS[:2]}}
        found = ", ".join(f"{name} {value:.4g}" for name, value in values.items() if not pd.isna(value))
        sentences.append(f"Final training with {setting}: {found or row['status']}.")
    return sentences


def failure_lines(record: SweepRecord, table: pd.DataFrame) -> list[str]:
    """A line for each error: the jobs that failed with it, then the error."""
    lines = []
    for error, rows in table[table["status"] == "failed"].groupby("error", sort=False):
        names = [setting_name(row, record.axes) if record.axes else row["directory"] for _, row in rows.iterrows()]
        lines.append(f"{_first(names, _MOST_JOBS)}: {error}")
    return lines


@dataclass(frozen=True)
class Tally:
    """How many jobs of a sweep are done and left, and the mean seconds of completed jobs; None if none is completed."""

    done: int
    left: int
    seconds: float | None


def job_line(record: SweepRecord, job: Job, found: RunRecord, tally: Tally) -> str:
    """A line for a job that has ended: "[2/4] lr=0.1 · val/iou 0.97 · 12 s · about 24 s left".

    Args:
        record: sweep.json.
        job: the job.
        found: its run.json.
        tally: counts of the whole sweep.
    """
    value = found.objective.value
    if found.status == "completed":
        name = found.objective.label
        # The IoU of a class without a pixel in the split is not defined; run.json has null for it.
        outcome = f"{name} is not defined on this validation split" if value is None else f"{name} {value:.4f}"
    else:
        reason = one_line(found.error or "its process has died")
        outcome = (
            reason if job.status == "interrupted" else f"failed: {textwrap.shorten(reason, 240, placeholder=' ...')}"
        )
    # A foreign sweeper does not tell how many jobs will follow, and its overrides include settings that it does not vary.
    other = job.stage == "other"
    of = "" if other else f"/{len(record.jobs)}"
    axes = [f"{axis}={typed(record.value_of(job, axis))}" for axis in record.axes] if other else []
    parts = [f"[{tally.done}{of}] {', '.join(axes) or job.name}", outcome, clock(found.seconds)]
    if tally.left and tally.seconds is not None and not other and job.status != "interrupted":
        parts.append(f"about {clock(tally.seconds * tally.left / min(record.at_once, tally.left))} left")
    return shown(" · ".join(parts))


def clock(seconds: float) -> str:
    """A duration as text: "42 s", "12 min", "3 h 05 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
