"""Metrics against steps: a curve a setting, a colour a group, readable without colour too."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from segsweep.plots.series import Band, Curve, label_ends, read_curves, read_points, running_mean, thin_band
from segsweep.plots.style import (
    GREY,
    LINE_COLORS,
    LINE_STYLES,
    MARKERS,
    counted,
    new_figure,
    plain,
    plain_ticks,
    scale_log_y,
    shorten,
    styled,
)

LABELLED = 16
"""Up to so many curves each carry their name; of more, only the outstanding ones do."""

_OUTSTANDING = 6
_AXIS_NAMES = {"step": "optimizer step", "seconds": "time in seconds"}
Best = Literal["max", "min"]


@styled
def curves(
    histories: Mapping[str, pd.DataFrame],
    y: str | Sequence[str],
    x: str = "step",
    *,
    groups: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    diverged: Collection[str] = (),
    log_y: bool | Literal["auto"] = "auto",
    running_mean: bool | Collection[str] = False,
    band: Band = "minmax",
    best: Best | Mapping[str, Best] | None = None,
    limits: tuple[float, float] | None = None,
    title: str | None = None,
) -> Figure:
    """Metrics of many runs against steps, a panel for each metric.

    Up to 16 curves are named at their right end. Of more, the best six are (without `best`, the three that end highest
    and the three that end lowest), and the others stay pale. A group has one colour and one marker; within it line
    styles tell settings apart, so that a black-and-white print can be read.

    Args:
        histories: a table for each run, by name. Rows without `y` (another metric's rows) are skipped.
        y: column, or columns, to draw.
        x: column to draw them against.
        groups: the group of each run, such as its optimizer; None gives each curve a style of its own.
        settings: the setting of each run. Runs of one setting are its replicates: their mean is drawn over the steps
            that all of them have, with a band; what single replicates have after that is drawn thin.
        diverged: the runs that ended in NaN; these, and runs that logged an infinite value, end in a cross.
        log_y: "auto" takes a logarithmic axis for positive values over two decades or more that exceed 1.5, which a
            share from 0 to 1 never does.
        running_mean: draws each value as the mean of all its run has logged so far; True, or the columns it applies to.
        band: of replicates: "minmax" from lowest to highest, "std" mean ± sample standard deviation; "runs" draws each
            of them as a thin line instead, which shows that one is unlike the others.
        best: whether high or low is good, for all columns or by column; the names follow it.
        limits: of the y axis, where a few values would press all others together; the legend says how far it goes.
        title: above all panels; None says how many runs and settings there are.

    Raises:
        ValueError: no runs, a column that no run has or that holds no numbers, or a run missing in `groups`/`settings`.
    """
    columns = [y] if isinstance(y, str) else list(y)
    if not histories or not columns:
        raise ValueError("there is nothing to draw: give at least one history and one column.")
    if band not in get_args(Band):
        raise ValueError(f"band is {band!r}; give one of {', '.join(get_args(Band))}.")
    means = (set(columns) if running_mean else set()) if isinstance(running_mean, bool) else set(running_mean)
    read = {
        column: read_curves(
            histories,
            column,
            x,
            groups=groups,
            settings=settings,
            diverged=diverged,
            running=column in means,
            band=band,
        )
        for column in columns
    }
    order = list(dict.fromkeys(settings[run] if settings else run for run in histories))
    styles = _styles(
        order, {curve.name: curve.group for found, _ in read.values() for curve in found}, groups is not None
    )
    figure = new_figure(7.6 * len(columns) + 0.4, 4.8 if len(order) <= LABELLED else 5.6)
    for axes, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        found, _ = read[column]
        good = best.get(column) if isinstance(best, Mapping) else best
        if good not in ("max", "min", None):
            raise ValueError(f"best is {good!r} for {column!r}; give 'max', 'min' or None.")
        _draw_panel(axes, found, styles, len(order), log_y, good, limits)
        what = f"running mean of {column}" if column in means else column
        which = "highest and lowest" if good is None else "best"
        axes.set_title(what + (f", the {which} named" if len(order) > LABELLED else ""), loc="left")
        axes.set_xlabel(_AXIS_NAMES.get(x, x))
    handles = _handles(read, styles, groups is not None, band)
    handles += [] if limits is None else _beyond(read, limits)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5 * len(columns)))
    runs = counted(len(histories), "run")
    if settings is not None and len(order) < len(histories):
        runs += f", {counted(len(order), 'setting')}"
    figure.suptitle(runs if title is None else title)
    return figure


@styled
def loss_curve(
    history: pd.DataFrame,
    y: str = "train/loss",
    x: str = "step",
    *,
    log_y: bool | Literal["auto"] = "auto",
    title: str | None = None,
) -> Figure:
    """The loss of one run against steps: each value as logged, and the mean of all values so far.

    Args:
        history: a row for each logged step; rows without `y` are skipped.
        y: the column of the loss.
        x: the column to draw it against.
        log_y: as in `curves`.
        title: None says what is drawn.

    Raises:
        ValueError: a column is missing or holds no numbers, or no row has a loss.
    """
    missing = [column for column in (x, y) if column not in history]
    if missing:
        known = ", ".join(str(column) for column in history) or "none"
        raise ValueError(f"the history has no column {missing[0]!r}; there are: {known}.")
    steps, values = read_points(history, y, x, "history")
    if not len(values):
        raise ValueError(f"the history has no row with both {x!r} and {y!r}.")
    finite = np.where(np.isfinite(values), values, np.nan)
    mean = running_mean(values)
    mean[~np.isfinite(mean)] = np.nan
    figure = new_figure(6.4, 3.9)
    axes = figure.add_subplot()
    # Thousands of noisy values would cover the mean with a solid block.
    line = (
        {"linewidth": 1.0, "marker": "o", "markersize": 2.5} if len(steps) <= 60 else {"linewidth": 0.6, "alpha": 0.6}
    )
    axes.plot(steps, finite, color=LINE_COLORS[0], label=y, **line)
    axes.plot(steps, mean, color=LINE_COLORS[1], linewidth=1.8, linestyle="--", label="running mean")
    _scale(axes, [finite, mean], log_y)
    axes.set_xlabel(_AXIS_NAMES.get(x, x))
    axes.set_ylabel(y)
    axes.set_title(f"{y} against {_AXIS_NAMES.get(x, x)}" if title is None else title)
    axes.legend()
    return figure


def _styles(order: Sequence[str], group_of: Mapping[str, str], grouped: bool) -> dict[str, dict[str, Any]]:
    """Colour, line style and marker for each setting; the same in every panel."""
    names = list(dict.fromkeys(group_of[name] for name in order if name in group_of))
    seen: dict[str, int] = {}
    styles = {}
    many = len(order) > LABELLED
    for index, name in enumerate(order):
        if name not in group_of:
            continue
        group = names.index(group_of[name])
        place = seen[group_of[name]] = seen.get(group_of[name], -1) + 1
        # Among many curves a line style per setting tells nothing apart; one per group does.
        styles[name] = _style(group, group if many else place) if grouped else _style(index, index)
    return styles


def _style(number: int, line: int) -> dict[str, Any]:
    return {
        "color": LINE_COLORS[number % len(LINE_COLORS)],
        "linestyle": LINE_STYLES[line % len(LINE_STYLES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def _draw_panel(
    axes: Axes,
    found: Sequence[Curve],
    styles: Mapping[str, dict[str, Any]],
    number: int,
    log_y: bool | Literal["auto"],
    best: Best | None,
    limits: tuple[float, float] | None,
) -> None:
    many = number > LABELLED
    named = _outstanding(found, best) if many else [curve.name for curve in found]
    if many and not any(curve.group for curve in found):
        # Without groups the few that are named have a style each, and all others are grey.
        own = {name: _style(place, place) for place, name in enumerate(named)}
        styles = {curve.name: own.get(curve.name, {"color": GREY, "linestyle": "-"}) for curve in found}
    for place, curve in enumerate(found):
        style = styles[curve.name]
        strong = not many or curve.name in named
        every = max(len(curve.x) // 7, 1)
        # Markers start at different places, so those of curves that lie on each other stay visible.
        start = place * every // max(len(found), 1) if len(curve.x) > 7 else 0
        line: dict[str, Any] = (
            {"linewidth": 1.6, "zorder": 3} if strong else {"linewidth": 0.7, "alpha": 0.35, "zorder": 2}
        )
        if not strong:
            line["marker"] = "" if len(curve.x) > 1 else "."
        axes.plot(curve.x, curve.y, label=curve.name, markevery=(start, every), markersize=5, **(style | line))
        if curve.low is not None and curve.high is not None:
            shade = 0.18 if strong else 0.05
            edges = thin_band(curve.x, curve.low, curve.high)
            axes.fill_between(*edges, color=style["color"], alpha=shade, linewidth=0, zorder=1)
        for steps, values in curve.runs:  # solid, since dashes of thin lines are lost
            axes.plot(steps, values, color=style["color"], linestyle="-", linewidth=0.7, alpha=0.6)
        for steps, values in [] if curve.runs else curve.tails:
            axes.plot(steps, values, color=style["color"], linestyle=style["linestyle"], linewidth=0.7, alpha=0.7)
        for stop in curve.stops:
            axes.plot(
                *stop, marker="X", color=style["color"], markersize=8, markeredgecolor="black", zorder=4, gid="stop"
            )
    if not found:
        axes.text(0.5, 0.5, "nothing logged yet", transform=axes.transAxes, ha="center", color=GREY)
    _scale(axes, [curve.y for curve in found], log_y, [curve.drawn for curve in found], limits)
    label_ends(
        axes, [(*curve.anchor, _label(curve), styles[curve.name]["color"]) for curve in found if curve.name in named]
    )


def _outstanding(found: Sequence[Curve], best: Best | None) -> list[str]:
    ended = sorted((curve for curve in found if not curve.diverged and np.isfinite(curve.end)), key=lambda c: c.end)
    if best is None:
        return [curve.name for curve in [*ended[: _OUTSTANDING // 2], *ended[-_OUTSTANDING // 2 :]]]
    return [curve.name for curve in (ended[-_OUTSTANDING:] if best == "max" else ended[:_OUTSTANDING])]


def _label(curve: Curve) -> str:
    text = shorten(curve.name, 40)
    if curve.replicates > 1:
        text += f" (n={curve.replicates})"
    if curve.diverged:
        text += " diverged" if curve.replicates == 1 else f", {curve.diverged} diverged"
    return text


def _scale(
    axes: Axes,
    values: Sequence[Any],
    log_y: bool | Literal["auto"],
    drawn: Sequence[Any] | None = None,
    limits: tuple[float, float] | None = None,
) -> None:
    """The y axis for what is drawn; "auto" goes by `values` alone, which are the lines without bands and thin ones."""
    joined = _finite(values)
    if log_y == "auto":
        log_y = bool(len(joined) and joined.min() > 0 and joined.max() > 1.5 and joined.max() / joined.min() >= 100)
    if log_y:
        shown = joined if drawn is None else _finite(drawn)
        scale_log_y(axes, shown if limits is None else np.clip(shown, *limits))
    if limits is not None:
        axes.set_ylim(*limits)
    axes.yaxis.set_major_formatter(plain_ticks())
    axes.xaxis.set_major_formatter(plain_ticks())
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)


def _beyond(read: Mapping[str, tuple[list[Curve], list[str]]], limits: tuple[float, float]) -> list[Line2D]:
    """Says of each panel how far its values go, where not all of them are inside of the limits."""
    handles = []
    for column, (found, _) in read.items():
        drawn = _finite([curve.drawn for curve in found])
        if len(drawn) and not limits[0] <= drawn.min() <= drawn.max() <= limits[1]:
            low, high = (plain(float(f"{end:.2g}"), thousands=True) for end in (drawn.min(), drawn.max()))
            handles.append(Line2D([], [], linestyle="", label=f"not all shown: {column} is from {low} to {high}"))
    return handles


def _finite(values: Sequence[Any]) -> NDArray[np.float64]:
    joined = np.concatenate([np.asarray(series, dtype=float) for series in values]) if values else np.empty(0)
    return joined[np.isfinite(joined)]


def _handles(
    read: Mapping[str, tuple[list[Curve], list[str]]],
    styles: Mapping[str, dict[str, Any]],
    grouped: bool,
    band: Band,
) -> list[Line2D | Patch]:
    """The legend: groups, then what band and cross mean, then the runs that are in no panel's lines."""
    every = [curve for found, _ in read.values() for curve in found]
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
        handles.append(Line2D([], [], color=GREY, linewidth=1.6, label="mean, as far as all go"))
        handles.append(Line2D([], [], color=GREY, linewidth=0.7, label="replicates"))
    if any(curve.stops for curve in every):
        cross = {"marker": "X", "markersize": 8, "markeredgecolor": "black", "color": "white", "linestyle": ""}
        handles.append(Line2D([], [], label="diverged here", **cross))  # type: ignore[arg-type]
    for column, (_, without) in read.items():
        if without:
            listed = ", ".join(shorten(name, 30) for name in without[:3]) + (", …" if len(without) > 3 else "")
            handles.append(Line2D([], [], linestyle="", label=f"no {column}: {len(without)} ({listed})"))
    return handles
