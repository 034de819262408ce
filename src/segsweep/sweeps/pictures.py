"""curves.png and heatmap.png of a sweep."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from segsweep.identity import Leaf
from segsweep.plots import curves, heatmap, save
from segsweep.sweeps.planning import FINAL
from segsweep.sweeps.ranking import comparison, ends, histories, is_diverged, settings_axes
from segsweep.sweeps.record import SweepDirectory, SweepRecord
from segsweep.sweeps.replicates import UNFINISHED
from segsweep.sweeps.statistics import Comparison
from segsweep.sweeps.tables import missing
from segsweep.sweeps.verdict import entry_text, setting_name

MOST_CURVES = 100
_MOST_GROUPS = 8
_GROUP = "scored on"
"""Column, and label, of the groups of jobs that were scored on the same images."""


def draw(sweep: SweepDirectory, record: SweepRecord, table: pd.DataFrame) -> None:
    """Writes both pictures, as far as there is something to draw."""
    for figure, path in (
        (sweep_curves(record, table, histories(sweep, record)), sweep.curves),
        (sweep_heatmap(record, table), sweep.heatmap),
    ):
        if figure is not None:
            save(figure, path)


def sweep_curves(record: SweepRecord, table: pd.DataFrame, logged: Mapping[str, pd.DataFrame]) -> Figure | None:
    """The objective and the running loss of training against steps, a curve a setting; None where nothing is logged.

    Args:
        record: sweep.json.
        table: the summary.
        logged: metrics.csv by the job's directory.
    """
    objective = record.objective["name"]
    columns = [name for name in (objective, "train/loss_running") if any(name in h for h in logged.values())]
    best_first = [name for name in table["directory"] if name in logged]
    kept = set(best_first[:MOST_CURVES])
    drawn = {name: history for name, history in logged.items() if name in kept}
    if not columns:
        return None
    axes = settings_axes(record)
    rows = {str(row["directory"]): row for _, row in table.iterrows()}
    settings = {name: _setting(rows[name], axes) for name in drawn}
    first = "optim" if "optim" in axes else (axes[0] if axes else None)
    compared = comparison(record, table)
    apart = compared is not None and bool(compared.parts)
    groups = None
    if first is not None and len(axes) > 1 and 1 < len({str(rows[name][first]) for name in drawn}) <= _MOST_GROUPS:
        groups = {name: setting_name(rows[name], [first]) for name in drawn}
    return curves(
        drawn, columns, settings=settings, groups=groups, title=_title(table, drawn, len(set(settings.values()))),
        diverged=[name for name in drawn if is_diverged(rows[name]["error"])],
        # Of jobs that were scored on other images none is the best.
        best=None if apart else {objective: record.mode, "train/loss_running": "min"},
    )  # fmt: skip


def _setting(row: "pd.Series", axes: list[str]) -> str:
    name = setting_name(row, axes) if axes else "all jobs"
    return f"final: {name}" if row.get("stage") == FINAL else name


def _title(table: pd.DataFrame, drawn: dict[str, pd.DataFrame], settings: int) -> str:
    what = f"{len(drawn)} job{'s' if len(drawn) != 1 else ''}"
    if settings < len(drawn):
        what += f", {settings} setting{'s' if settings != 1 else ''}"
    others = table[~table["directory"].isin(list(drawn))]
    if len(others):
        counts = pd.Series(ends(others)).value_counts(sort=False)
        what += " (not drawn: " + ", ".join(f"{count} {end}" for end, count in counts.items()) + ")"
    return what


def sweep_heatmap(record: SweepRecord, table: pd.DataFrame) -> Figure | None:
    """The objective over two axes, of more than two the best over the others; None before a job has ended.

    Jobs that were scored on other images have a row each group, and no cell is marked as the best.
    """
    axes = settings_axes(record)
    ended = table[table["rank"].notna()].copy()
    if not axes or not len(ended):
        return None
    compared = comparison(record, table)
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
        # Of means over the seeds: the best single run may be a lucky seed of a setting that is worse.
        ended = compared.table.assign(status=[missing(reasons) or "completed" for reasons in compared.table["missing"]])
        ended[name] = ended["mean"].where(ended["missing"] == "")
        ended[_GROUP] = [group for group, part in (parts or {"": compared}).items() for _ in range(len(part.table))]
        ended[""] = ""
        # The best of a cell is that of its settings that have all their replicates; a cell without one says why.
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
    """The jobs that settings are compared by; of settings that are not finished, a row without a value that says so."""
    settings, rows = list(compared.settings), []
    names = pd.Series([setting_name(row, settings) for _, row in ended.iterrows()], index=ended.index)
    for _, setting in compared.table.iterrows():
        reasons = [reason.partition(" ")[2] for reason in setting["missing"].split(", ") if reason]
        if reasons and all(reason in UNFINISHED for reason in reasons):
            told = {"objective": math.nan, "status": missing(setting["missing"])}
            rows.append(pd.DataFrame([{**setting[settings], **told}]))
        else:
            own = ended[names == setting_name(setting, settings)]
            left_out = [f"seed={entry_text(seed)}" in compared.left_out for seed in own["seed"]]
            rows.append(own if reasons else own[[not out for out in left_out]])
    return pd.concat(rows, ignore_index=True)


def _as_asked(table: pd.DataFrame, axis: str, asked: Sequence[Leaf]) -> pd.DataFrame:
    """Rows with their choices of `axis` in the order in which these were asked for; the picture orders numbers itself.

    The rank of their best jobs, by which the summary goes, is neither that order nor the order of means.
    """
    places = {value: place for place, value in reversed([*enumerate(asked)]) if isinstance(value, str)}
    return table.sort_values(axis, key=lambda values: values.map(lambda value: places.get(value, 0)), kind="stable")
