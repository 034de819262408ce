"""The pictures of a sweep: curves.png and heatmap.png."""

import math
from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from segsweep.plots import curves, heatmap, save
from segsweep.sweeps.grouping import UNFINISHED, entry_key, setting_key
from segsweep.sweeps.ranking import Comparison
from segsweep.sweeps.report_text import GROUPS, count_missing, entry_text, outcomes, setting_name
from segsweep.sweeps.results import Results
from segsweep.sweeps.state import FINAL, is_diverged

MOST_CURVES = 100
MOST_VALUES = 40
"""Most values on an axis of heatmap.png: more cannot be read, and thousands cannot be drawn."""
_MOST_COLORS = 8
_MARKS = {"contender": "○", "unstable": "~", "ruled out": "×"}
"""Symbols of standings in the heatmap."""
_GROUP = "scored on"
"""Column and label of the groups of jobs that were scored on the same images."""


def draw(results: Results) -> None:
    """Writes both pictures; skips one that would be empty."""
    sweep = results.sweep
    for figure, path in ((sweep_curves(results), sweep.curves), (sweep_heatmap(results), sweep.heatmap)):
        if figure is not None:
            save(figure, path)


def sweep_curves(results: Results) -> Figure | None:
    """The objective and the running training loss against steps, a curve per setting, of the best `MOST_CURVES` jobs.

    None if no job has logged anything.
    """
    record, table, compared = results.record, results.table, results.compared
    objective = record.objective["name"]
    best = results.histories(MOST_CURVES)
    drawn = {job.directory: best[job.directory] for job in record.jobs if job.directory in best}
    columns = [name for name in (objective, "train/loss_running") if any(name in h for h in drawn.values())]
    if not columns:
        return None
    axes = record.settings_axes
    rows = {str(row["directory"]): row for _, row in table[table["directory"].isin(list(drawn))].iterrows()}
    settings = {}
    for directory in drawn:
        setting = setting_name(rows[directory], axes) if axes else "all jobs"
        settings[directory] = f"final: {setting}" if rows[directory].get("stage") == FINAL else setting
    first = "optim" if "optim" in axes else (axes[0] if axes else None)
    groups = lines = None
    if first is not None and len(axes) > 1 and 1 < len({str(rows[name][first]) for name in drawn}) <= _MOST_COLORS:
        groups = {name: setting_name(rows[name], [first]) for name in drawn}
        lines = {name: setting_name(rows[name], [axis for axis in axes if axis != first]) for name in drawn}
    jobs, different = len(drawn), len(set(settings.values()))
    title = f"{jobs} job{'s' if jobs != 1 else ''}"
    if different < jobs:
        title += f", {different} setting{'s' if different != 1 else ''}"
    if len(others := table[~table["directory"].isin(list(drawn))]):
        counts = pd.Series(outcomes(others)).value_counts(sort=False)
        title += f" (not drawn: {', '.join(f'{count} {outcome}' for outcome, count in counts.items())})"
    apart = compared is not None and (bool(compared.parts) or bool(compared.shared))
    return curves(
        drawn, columns, settings=settings, groups=groups, lines=lines, title=title, enlarge=True,
        diverged=[name for name in drawn if is_diverged(rows[name]["error"])],
        # Jobs that were scored on different images, as folds are, have no common best.
        best=None if apart else {objective: record.mode, "train/loss_running": "min"},
    )  # fmt: skip


def sweep_heatmap(results: Results) -> Figure | None:
    """The objective over two axes; with more axes, the best over the others. None before a job has ended, and
    if only the seed was swept.

    If jobs were scored on different images, each group has a row, and no cell is marked as the best.
    """
    record, table, compared = results.record, results.table, results.compared
    axes = record.settings_axes
    counted = table["rank"].notna()
    if (look := results.look) is not None:  # jobs that ended later are not in the comparison
        numbers = {job.directory: job.number for job in record.jobs}
        counted &= table["directory"].map(numbers).isin(look.completed | look.failed)
    ended = table[counted].copy()
    if not axes or not len(ended):
        return None
    name = record.label
    parts = {} if compared is None else compared.parts
    inner = [axis for axis in axes if not parts or any(axis in part.settings for part in parts.values())]
    columns = "lr" if "lr" in inner else [_GROUP, *inner][-1]
    others = [axis for axis in inner if axis != columns]
    rows = "optim" if "optim" in others else (others[0] if others else "")
    if parts:
        rows = _GROUP if inner else ""
    rest = [axis for axis in others if axis != rows]
    title = (
        name
        if compared is None or compared.replicates < 2
        else f"mean {name} over {compared.replicates} {compared.replicate}s"
    )
    if compared is not None and (rest or parts or compared.shared or record.race is not None):
        ended = _settings(compared, name)
        title = f"mean {name} over the racing seeds" if "out_at" in ended else title
        # A cell shows the best of its settings with all replicates. If it has no such setting, it says why.
        good = ended[name].notna()
        ended = ended[good | ~good.groupby([ended[rows].map(str), ended[columns].map(str)]).transform("any")]
        title += f", the best over {', '.join(rest)}" if rest else ""
    else:
        ended["status"] = outcomes(ended)
        if compared is not None and "seed" in record.axes:
            ended = _compared_jobs(ended, compared)
        ended[name] = ended["objective"]
    for axis in (name for name in (columns, rows) if name in axes):
        # Names in the order of the command, not in the order of their best jobs. The picture sorts numbers itself.
        asked = dict.fromkeys(record.value_of(job, axis) for job in record.jobs)
        places = {value: place for place, value in enumerate(asked) if isinstance(value, str)}
        ended = ended.iloc[np.argsort([places.get(value, 0) for value in ended[axis]], kind="stable")]
    if not rows:
        ended[rows] = ""
    for axis in (columns, rows):
        ended, values = _best_values(ended, axis, rows, columns, name, record.mode)
        title += f", {MOST_VALUES} of {values:,} {axis}" if values > MOST_VALUES else ""
    note = f"\n★ {'highest' if record.mode == 'max' else 'lowest'}" if ended[name].notna().any() else ""
    if parts and compared is not None:
        note = f"\n{compared.why.partition('. ')[0]}"
    by_setting = {} if compared is None or parts else compared.by_setting()
    standings = [by_setting.get(setting_key(row, axes)) for _, row in ended.iterrows()]
    ended["mark"] = ["" if found is None else _MARKS.get(found["standing"], "") for found in standings]
    note += "".join(f", {mark} {GROUPS[name].lower()}" for name, mark in _MARKS.items() if mark in set(ended["mark"]))
    return heatmap(
        ended, rows, columns, name, best=record.mode, status="status", reduce="best" if rest else "mean", mark="mark",
        title=title + note, star=not parts,
    )  # fmt: skip


def _settings(compared: Comparison, name: str) -> pd.DataFrame:
    """The settings with their means, if all replicates are there: the best single run may be a lucky seed."""
    found = compared.table.assign(
        status=[count_missing(reasons) or "completed" for reasons in compared.table["missing"]]
    )
    found[name] = found["mean"].where(found["missing"] == "")
    if "out_at" in found:  # of a race: one seed is no mean, and those ruled out have fewer seeds
        screened = found["out_at"] == "screening"
        found[name] = found[name].where(~screened)
        found["status"] = found["status"].where(~screened, "screened out")
    groups = (compared.parts or {"": compared}).items()
    found[_GROUP] = [group for group, part in groups for _ in range(len(part.table))]
    found[""] = ""
    return found


def _compared_jobs(ended: pd.DataFrame, compared: Comparison) -> pd.DataFrame:
    """The jobs that count in the comparison. An unfinished setting gets a single row, with a reason instead of a value."""
    settings, rows = list(compared.settings), []
    of_setting: dict[tuple[str, ...], list[dict[Hashable, Any]]] = {}
    for job in ended.to_dict("records"):
        of_setting.setdefault(tuple(entry_text(job[axis]) for axis in settings), []).append(job)
    for _, setting in compared.table.iterrows():
        reasons = [reason.partition(" ")[2] for reason in setting["missing"].split(", ") if reason]
        if reasons and all(reason in UNFINISHED for reason in reasons):
            rows.append({**setting[settings], "objective": math.nan, "status": count_missing(setting["missing"])})
        else:
            own = of_setting[tuple(entry_text(setting[axis]) for axis in settings)]
            left_out = [f"seed={entry_text(job['seed'])}" in compared.left_out for job in own]
            rows += [job for job, out in zip(own, left_out, strict=True) if reasons or not out]
    return pd.DataFrame(rows)


def _best_values(
    table: pd.DataFrame, axis: str, rows: str, columns: str, name: str, mode: str
) -> tuple[pd.DataFrame, int]:
    """The rows with the best `MOST_VALUES` values of an axis, judged by their best cells; and how many values there are."""
    row, column, own = (table[key].map(lambda entry: entry_key(entry)[2]) for key in (rows, columns, axis))
    cells = table.groupby([row.rename("row"), column.rename("column")])[name].mean()
    best = cells.groupby(level="row" if axis == rows else "column").agg(mode)
    kept = best.sort_values(ascending=mode == "min").index[:MOST_VALUES]
    return table[own.isin(kept)], len(best)
