"""The pictures of a sweep: curves.png and heatmap.png."""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from segsweep.fingerprint import Leaf
from segsweep.plots import curves, heatmap, save
from segsweep.runs import read_metrics
from segsweep.sweeps.ranking import UNFINISHED, Comparison, entry_key
from segsweep.sweeps.report_text import ends, entry_text, missing, setting_name
from segsweep.sweeps.results import Results
from segsweep.sweeps.state import FINAL, is_diverged

MOST_CURVES = 100
MOST_CHOICES = 40
"""Most values of an axis of heatmap.png: more cannot be read, and thousands cannot be drawn."""
_MOST_GROUPS = 8
_GROUP = "scored on"
"""Column and label of the groups of jobs that were scored on the same images."""


def draw(results: Results) -> None:
    """Writes both pictures; skips one that would be empty."""
    sweep = results.sweep
    for figure, path in ((sweep_curves(results), sweep.curves), (sweep_heatmap(results), sweep.heatmap)):
        if figure is not None:
            save(figure, path)


def sweep_curves(results: Results) -> Figure | None:
    """The objective and the running training loss against steps, a curve for each setting; None if nothing was logged.

    Draws the best `MOST_CURVES` jobs.
    """
    record, table = results.record, results.table
    objective = record.objective["name"]
    drawn = _logged(results, MOST_CURVES)
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
    compared = results.compared
    apart = compared is not None and bool(compared.parts)
    groups = None
    if first is not None and len(axes) > 1 and 1 < len({str(rows[name][first]) for name in drawn}) <= _MOST_GROUPS:
        groups = {name: setting_name(rows[name], [first]) for name in drawn}
    return curves(
        drawn, columns, settings=settings, groups=groups, title=_title(table, drawn, len(set(settings.values()))),
        diverged=[name for name in drawn if is_diverged(rows[name]["error"])],
        # Groups that were scored on other images have no common best.
        best=None if apart else {objective: record.mode, "train/loss_running": "min"},
    )  # fmt: skip


def _logged(results: Results, most: int) -> dict[str, pd.DataFrame]:
    """metrics.csv of the best jobs that have logged anything, in the order of the jobs."""
    found: dict[str, pd.DataFrame] = {}
    for directory in results.table["directory"]:
        path = results.sweep.path / directory / "metrics.csv"
        if len(found) < most and path.exists() and len(history := read_metrics(path)):
            found[directory] = history
    return {job.directory: found[job.directory] for job in results.record.jobs if job.directory in found}


def _title(table: pd.DataFrame, drawn: dict[str, pd.DataFrame], settings: int) -> str:
    what = f"{len(drawn)} job{'s' if len(drawn) != 1 else ''}"
    if settings < len(drawn):
        what += f", {settings} setting{'s' if settings != 1 else ''}"
    others = table[~table["directory"].isin(list(drawn))]
    if len(others):
        counts = pd.Series(ends(others)).value_counts(sort=False)
        what += " (not drawn: " + ", ".join(f"{count} {end}" for end, count in counts.items()) + ")"
    return what


def sweep_heatmap(results: Results) -> Figure | None:
    """The objective over two axes; with more axes, the best over the others. None before a job has ended.

    Jobs that were scored on other images are drawn in a row for each group, and no cell is marked as the best.
    """
    record, table, compared = results.record, results.table, results.compared
    axes = record.settings_axes
    ended = table[table["rank"].notna()].copy()
    if not axes or not len(ended):
        return None
    name = record.objective["name"]
    parts = {} if compared is None else compared.parts
    inner = [axis for axis in axes if not parts or any(axis in part.settings for part in parts.values())]
    columns = "lr" if "lr" in inner else [_GROUP, *inner][-1]
    others = [axis for axis in inner if axis != columns]
    rows = "optim" if "optim" in others else (others[0] if others else "")
    if parts:
        rows = _GROUP if inner else ""
    rest = [axis for axis in others if axis != rows]
    of = name if compared is None or compared.replicates < 2 else f"mean {name} over {compared.replicates} seeds"
    if (rest or parts) and compared is not None:
        # The best mean over the seeds: the best single run may be a lucky seed of a worse setting.
        ended = compared.table.assign(status=[missing(reasons) or "completed" for reasons in compared.table["missing"]])
        ended[name] = ended["mean"].where(ended["missing"] == "")
        ended[_GROUP] = [group for group, part in (parts or {"": compared}).items() for _ in range(len(part.table))]
        ended[""] = ""
        # A cell shows the best of its settings with all replicates; a cell without such a setting says why.
        good = ended[name].notna()
        ended = ended[good | ~good.groupby([ended[rows].map(str), ended[columns].map(str)]).transform("any")]
        of = f"{of}, the best over {', '.join(rest)}" if rest else of
    else:
        ended["status"] = ends(ended)
        if compared is not None and "seed" in record.axes:
            ended = _over_the_same_seeds(ended, compared)
        ended[name] = ended["objective"]
    for axis in (name for name in (columns, rows) if name in axes):
        ended = _as_asked(ended, axis, [record.value_of(job, axis) for job in record.jobs])
    if not rows:
        ended[rows] = ""
    for axis in (columns, rows):
        ended, choices = _best_choices(ended, axis, rows, columns, name, record.mode)
        of += f", {MOST_CHOICES} of {choices:,} {axis}" if choices > MOST_CHOICES else ""
    star = f"; ★ {'highest' if record.mode == 'max' else 'lowest'}" if ended[name].notna().any() else ""
    if parts and compared is not None:
        star = f"; {compared.why}"
    return heatmap(
        ended,
        rows,
        columns,
        name,
        best=record.mode,
        status="status",
        reduce="best" if rest else "mean",
        title=of + star,
        star=not parts,
    )


def _over_the_same_seeds(ended: pd.DataFrame, compared: Comparison) -> pd.DataFrame:
    """The jobs that the settings are compared by; an unfinished setting has one row, with a reason instead of a value."""
    settings, rows = list(compared.settings), []
    of_setting: dict[tuple[str, ...], list[dict[Hashable, Any]]] = {}
    for job in ended.to_dict("records"):
        of_setting.setdefault(tuple(entry_text(job[axis]) for axis in settings), []).append(job)
    for _, setting in compared.table.iterrows():
        reasons = [reason.partition(" ")[2] for reason in setting["missing"].split(", ") if reason]
        if reasons and all(reason in UNFINISHED for reason in reasons):
            told = {"objective": math.nan, "status": missing(setting["missing"])}
            rows.append({**setting[settings], **told})
        else:
            own = of_setting[tuple(entry_text(setting[axis]) for axis in settings)]
            left_out = [f"seed={entry_text(job['seed'])}" in compared.left_out for job in own]
            rows += [job for job, out in zip(own, left_out, strict=True) if reasons or not out]
    return pd.DataFrame(rows)


def _best_choices(
    table: pd.DataFrame, axis: str, rows: str, columns: str, name: str, mode: str
) -> tuple[pd.DataFrame, int]:
    """The rows with the best `MOST_CHOICES` values of an axis, by their best cells, and how many values there are."""
    row, column, own = (table[key].map(lambda entry: entry_key(entry)[2]) for key in (rows, columns, axis))
    cells = table.groupby([row.rename("row"), column.rename("column")])[name].mean()
    best = cells.groupby(level="row" if axis == rows else "column").agg(mode)
    kept = best.sort_values(ascending=mode == "min").index[:MOST_CHOICES]
    return table[own.isin(kept)], len(best)


def _as_asked(table: pd.DataFrame, axis: str, asked: Sequence[Leaf]) -> pd.DataFrame:
    """Sorts rows by `axis`, its text values in the order asked for. The picture sorts numbers itself.

    Without this the values would come in the order of their best jobs, as in the summary.
    """
    places = {value: place for place, value in reversed([*enumerate(asked)]) if isinstance(value, str)}
    return table.sort_values(axis, key=lambda values: values.map(lambda value: places.get(value, 0)), kind="stable")
