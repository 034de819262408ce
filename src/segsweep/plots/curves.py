"""Metrics against steps: a curve for each setting, a colour for each group, readable without colour too."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from segsweep.plots.series import Band, Curve, Panel, label_ends, read_panels, read_points, running_mean, thin_band
from segsweep.plots.style import (
    GREY,
    LINE_COLORS,
    LINE_STYLES,
    MARKERS,
    counted,
    horizontal_grid,
    new_figure,
    plain,
    plain_ticks,
    scale_log_y,
    shorten,
    styled,
)

if TYPE_CHECKING:
    import pandas as pd

LABELLED = 16
"""If there are more curves than this, only the outstanding ones are named."""

Best = Literal["max", "min"]


@styled
def curves(
    histories: "Mapping[str, pd.DataFrame]",
    y: str | Sequence[str],
    x: str = "step",
    *,
    groups: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    diverged: Collection[str] = (),
    log_y: bool | Literal["auto"] = "auto",
    band: Band = "minmax",
    best: Best | Mapping[str, Best] | None = None,
    limits: tuple[float, float] | None = None,
    title: str | None = None,
) -> Figure:
    """Draws metrics of many runs against steps, a panel for each metric.

    Up to 16 curves are named at their right end; of more, only the six best (without `best`, the three highest and the
    three lowest), and the others are pale. A group has one colour and marker; line styles tell its settings apart.

    Args:
        histories: a table for each run, by name; rows without `y` are skipped.
        y, x: the column, or columns, to draw, and the column to draw them against.
        groups: the group of each run, such as its optimizer; None gives each curve a style of its own.
        settings: the setting of each run. Replicates (runs of one setting) become one curve, their mean over the steps
            that all have, with a band; a replicate that has later steps continues as a thin line.
        diverged: runs that ended in NaN. They, and runs that logged an infinite value, end in a cross.
        log_y: "auto" takes a logarithm if all means are positive, span two decades and the largest exceeds 1.5, so never
            for shares.
        band: "minmax" from lowest to highest replicate, "std" mean ± sample standard deviation, "runs" no band but a
            thin line for each replicate.
        best: which values are good, for all columns or by column.
        limits: limits of the y axis; the legend gives the range of values that lie outside.
        title: above all panels; None counts runs and settings.

    Raises:
        ValueError: no runs, a column that no run has or without numbers, or a run missing in `groups`/`settings`.
    """
    columns = [y] if isinstance(y, str) else list(y)
    panels = read_panels(histories, columns, x, groups=groups, settings=settings, diverged=diverged, band=band)
    order = list(dict.fromkeys(settings[run] if settings else run for run in histories))
    styles = _styles(order, panels, groups is not None)
    figure = new_figure(7.6 * len(columns) + 0.4, 4.8 if len(order) <= LABELLED else 5.6)
    for axes, panel in zip(figure.subplots(1, len(columns), squeeze=False)[0], panels, strict=True):
        good = best.get(panel.column) if isinstance(best, Mapping) else best
        _draw_panel(axes, panel, styles, len(order) > LABELLED, log_y, good, limits)
        axes.set_xlabel("optimizer step" if x == "step" else x)
    if handles := _legend(panels, styles, groups is not None, band, limits):
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5 * len(columns)))
    number = counted(len(histories), "run")
    if settings is not None and len(order) < len(histories):
        number += f", {counted(len(order), 'setting')}"
    figure.suptitle(number if title is None else title)
    return figure


@styled
def loss_curve(history: "pd.DataFrame", y: str = "train/loss") -> Figure:
    """Draws the loss of one run against steps: each logged value, and the mean of all values so far.

    Args:
        history: a row for each logged step; rows without `y` are skipped.
        y: the column of the loss.

    Raises:
        ValueError: a column is missing or does not hold numbers, or no row has a loss.
    """
    missing = [column for column in ("step", y) if column not in history]
    if missing:
        known = ", ".join(str(column) for column in history) or "none"
        raise ValueError(f"the history has no column {missing[0]!r}; there are: {known}.")
    steps, values = read_points(history, y, "step", "history")
    if not len(values):
        raise ValueError(f"the history has no row with both 'step' and {y!r}.")
    finite = np.where(np.isfinite(values), values, np.nan)
    mean = running_mean(values)
    mean[~np.isfinite(mean)] = np.nan
    figure = new_figure(6.4, 3.9)
    axes = figure.add_subplot()
    # Thousands of noisy values at full strength would hide the mean.
    line = (
        {"linewidth": 1.0, "marker": "o", "markersize": 2.5} if len(steps) <= 60 else {"linewidth": 0.6, "alpha": 0.6}
    )
    axes.plot(steps, finite, color=LINE_COLORS[0], label=y, **line)
    axes.plot(steps, mean, color=LINE_COLORS[1], linewidth=1.8, linestyle="--", label="running mean")
    _scale(axes, [finite, mean], [finite, mean], "auto", None)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(y)
    axes.set_title(f"{y} against optimizer step")
    axes.legend()
    return figure


def _styles(order: Sequence[str], panels: Sequence[Panel], grouped: bool) -> dict[str, dict[str, Any]]:
    """Returns colour, line style and marker of each setting, which are the same in every panel."""
    group_of = {curve.name: curve.group for panel in panels for curve in panel.curves}
    names = list(dict.fromkeys(group_of[name] for name in order if name in group_of))
    seen: dict[str, int] = {}
    styles = {}
    for index, name in enumerate(order):
        if name not in group_of:
            continue
        group = names.index(group_of[name])
        place = seen[group_of[name]] = seen.get(group_of[name], -1) + 1
        # Many curves cannot be told apart by line styles, but their groups can.
        line = group if len(order) > LABELLED else place
        styles[name] = _style(group, line) if grouped else _style(index, index)
    return styles


def _style(number: int, line: int) -> dict[str, Any]:
    return {
        "color": LINE_COLORS[number % len(LINE_COLORS)],
        "linestyle": LINE_STYLES[line % len(LINE_STYLES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def _draw_panel(
    axes: Axes,
    panel: Panel,
    styles: Mapping[str, dict[str, Any]],
    many: bool,
    log_y: bool | Literal["auto"],
    best: Best | None,
    limits: tuple[float, float] | None,
) -> None:
    if best not in ("max", "min", None):
        raise ValueError(f"best is {best!r} for {panel.column!r}; give 'max', 'min' or None.")
    found = panel.curves
    named = [curve.name for curve in found]
    title = panel.column
    if many:
        ended = sorted((curve for curve in found if not curve.diverged and np.isfinite(curve.end)), key=lambda c: c.end)
        chosen = [*ended[:3], *ended[-3:]] if best is None else ended[-6:] if best == "max" else ended[:6]
        named = [curve.name for curve in chosen]
        title += f", the {'highest and lowest' if best is None else 'best'} named"
        if not any(curve.group for curve in found):
            # Without groups the named curves have a style each, and all others are grey.
            own = {name: _style(place, place) for place, name in enumerate(named)}
            styles = {curve.name: own.get(curve.name, {"color": GREY, "linestyle": "-"}) for curve in found}
    for place, curve in enumerate(found):
        every = max(len(curve.x) // 7, 1)
        # Markers start at different places, so that they stay visible on curves that coincide.
        start = place * every // max(len(found), 1) if len(curve.x) > 7 else 0
        _draw_curve(axes, curve, styles[curve.name], curve.name in named, (start, every))
    if not found:
        axes.text(0.5, 0.5, "nothing logged yet", transform=axes.transAxes, ha="center", color=GREY)
    _scale(axes, [curve.y for curve in found], [curve.drawn for curve in found], log_y, limits)
    label_ends(
        axes, [(*curve.anchor, curve.label, styles[curve.name]["color"]) for curve in found if curve.name in named]
    )
    axes.set_title(title, loc="left")


def _draw_curve(axes: Axes, curve: Curve, style: dict[str, Any], named: bool, markers: tuple[int, int]) -> None:
    line: dict[str, Any] = {"linewidth": 1.6, "zorder": 3} if named else {"linewidth": 0.7, "alpha": 0.35, "zorder": 2}
    if not named:
        line["marker"] = "" if len(curve.x) > 1 else "."
    axes.plot(curve.x, curve.y, label=curve.name, markevery=markers, markersize=5, **(style | line))
    color = style["color"]
    if curve.low is not None and curve.high is not None:
        edges = thin_band(curve.x, curve.low, curve.high)
        axes.fill_between(*edges, color=color, alpha=0.18 if named else 0.05, linewidth=0, zorder=1)
    for steps, values in curve.runs:  # solid, because dashes of thin lines are hard to see
        axes.plot(steps, values, color=color, linestyle="-", linewidth=0.7, alpha=0.6)
    for steps, values in [] if curve.runs else curve.tails:
        axes.plot(steps, values, color=color, linestyle=style["linestyle"], linewidth=0.7, alpha=0.7)
    for stop in curve.stops:
        axes.plot(*stop, marker="X", color=color, markersize=8, markeredgecolor="black", zorder=4, gid="stop")


def _scale(
    axes: Axes,
    means: Sequence[NDArray[np.float64]],
    drawn: Sequence[NDArray[np.float64]],
    log_y: bool | Literal["auto"],
    limits: tuple[float, float] | None,
) -> None:
    """Scales the y axis for everything drawn; "auto" looks at the means alone, not at bands and thin lines."""
    values = _finite_values(means)
    if log_y == "auto":
        log_y = bool(len(values) and values.min() > 0 and values.max() > 1.5 and values.max() / values.min() >= 100)
    if log_y:
        shown = _finite_values(drawn)
        scale_log_y(axes, shown if limits is None else np.clip(shown, *limits))
    if limits is not None:
        axes.set_ylim(*limits)
    axes.yaxis.set_major_formatter(plain_ticks())
    axes.xaxis.set_major_formatter(plain_ticks())
    horizontal_grid(axes)


def _finite_values(series: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    joined = np.concatenate([np.empty(0), *series])
    return joined[np.isfinite(joined)]


def _legend(
    panels: Sequence[Panel],
    styles: Mapping[str, dict[str, Any]],
    grouped: bool,
    band: Band,
    limits: tuple[float, float] | None,
) -> list[Line2D | Patch]:
    """Lists groups, the meaning of band and cross, runs without a column, and values outside the limits."""
    every = [curve for panel in panels for curve in panel.curves]
    handles: list[Line2D | Patch] = []
    if grouped:
        members: dict[str, set[str]] = {}
        for curve in every:
            members.setdefault(curve.group, set()).add(curve.name)
        for group, names in members.items():
            style = dict(styles[next(name for name in styles if name in names)])
            if len(names) > 1 and len(styles) <= LABELLED:
                style["linestyle"] = "-"
            handles.append(Line2D([], [], label=group, markersize=5, **style))
    if any(curve.low is not None for curve in every):
        meaning = "lowest to highest replicate" if band == "minmax" else "mean ± standard deviation"
        handles.append(Patch(facecolor=GREY, alpha=0.35, label=f"line: mean, band: {meaning}"))
    if any(curve.runs for curve in every):
        handles.append(Line2D([], [], color=GREY, linewidth=1.6, label="mean over the steps that all have"))
        handles.append(Line2D([], [], color=GREY, linewidth=0.7, label="replicates"))
    if any(curve.stops for curve in every):
        cross = {"marker": "X", "markersize": 8, "markeredgecolor": "black", "color": "white", "linestyle": ""}
        handles.append(Line2D([], [], label="diverged here", **cross))  # type: ignore[arg-type]
    notes = []
    for panel in panels:
        if without := panel.missing:
            listed = ", ".join(shorten(name, 30) for name in without[:3]) + (", …" if len(without) > 3 else "")
            notes.append(f"no {panel.column}: {len(without)} ({listed})")
    for panel in panels:
        drawn = _finite_values([curve.drawn for curve in panel.curves])
        if limits is not None and len(drawn) and not limits[0] <= drawn.min() <= drawn.max() <= limits[1]:
            low, high = (plain(float(f"{end:.2g}"), thousands=True) for end in (drawn.min(), drawn.max()))
            notes.append(f"not all shown: {panel.column} is from {low} to {high}")
    return [*handles, *(Line2D([], [], linestyle="", label=note) for note in notes)]
