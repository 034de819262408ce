"""Metrics against steps: a curve for each setting, a colour for each group, readable without colour too."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from segsweep.plots.scales import (
    Limits,
    enlarged_limits,
    finite,
    first_near,
    frame_x,
    is_logarithmic,
    scale_y,
    side_by_side,
    steps_of,
)
from segsweep.plots.series import Band, Curve, Panel, label_ends, read_panels, read_points, running_mean, thin_band
from segsweep.plots.style import (
    GREY,
    LINE_COLORS,
    LINE_STYLES,
    MARKERS,
    PALE,
    counted,
    legend_below,
    new_figure,
    plain,
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
    lines: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    diverged: Collection[str] = (),
    log_y: bool | Literal["auto"] = "auto",
    band: Band = "minmax",
    best: Best | Mapping[str, Best] | None = None,
    limits: Limits | None = None,
    enlarge: bool = False,
    title: str | None = None,
) -> Figure:
    """Draws metrics of many runs against steps, a panel for each metric.

    Up to 16 curves are named at their right end; of more, only the six best (without `best`, the three highest and the
    three lowest), and the others are pale. A group has one colour and marker; line styles tell its settings apart.

    Args:
        histories: a table for each run, by name; rows without `y` are skipped.
        y, x: the column, or columns, to draw, and the column to draw them against.
        groups: the group of each run, such as its optimizer; None gives each curve a style of its own.
        lines: what the line style of each run says, such as its learning rate; only with `groups`.
        settings: the setting of each run. Replicates (runs of one setting) become one curve, their mean over the steps
            that all have, with a band; a replicate that has later steps continues as a thin line.
        diverged: runs that ended in NaN. They, and runs that logged an infinite value, end in a cross.
        log_y: "auto" takes a logarithm if all means are positive, span two decades and the largest exceeds 1.5, so never
            for shares.
        band: "minmax" from lowest to highest replicate, or a thin line for each where the band would end more than a
            quarter of the panel high; "std" mean ± sample standard deviation, "runs" no band but a
            thin line for each replicate.
        best: which values are good, for all columns or by column.
        limits: limits of the y axis; the legend gives the range of values that lie outside.
        enlarge: draws a column with `best` whose best curves end close together a second time below, with limits that
            separate them. Each curve is named in one of the two. Below, curves that end outside the limits have neither
            band nor replicates.
        title: above all panels; None counts runs and settings.

    Raises:
        ValueError: no runs, a column that no run has or without numbers, or a run missing in `groups`, `lines` or
            `settings`.
    """
    columns = [y] if isinstance(y, str) else list(y)
    panels = read_panels(
        histories, columns, x, groups=groups, lines=lines, settings=settings, diverged=diverged, band=band
    )
    order = list(dict.fromkeys(settings[run] if settings else run for run in histories))
    styles = _styles(order, panels, groups is not None)
    views = []
    for panel in panels:
        good = best.get(panel.column) if isinstance(best, Mapping) else best
        log = is_logarithmic([curve.y for curve in panel.curves]) if log_y == "auto" else log_y
        views.append(_View.of(panel, styles, good, log=log, enlarge=enlarge and limits is None))
    rows = 2 if any(view.near for view in views) else 1
    height = (4.8 if len(order) <= LABELLED else 5.6) + 2.4 * (rows - 1)
    figure = new_figure(6.2 * len(columns) + 0.4, height)
    grid = figure.add_gridspec(rows, len(columns), height_ratios=(2, 3)[-rows:])
    inches = height - 1.3 - 0.6 * (rows - 1)  # titles, axis labels and legend take the rest
    x_label = "optimizer step" if x == "step" else x
    for place, view in enumerate(views):
        axes = figure.add_subplot(grid[0 if view.near else slice(None), place])
        axes.set_title(view.panel.column if view.near else view.title, loc="left")
        view.draw(axes, limits, inches * (0.4 if view.near else 1), "" if view.near else x_label)
        if view.near:
            axes = figure.add_subplot(grid[1, place])
            inside = sum(view.is_near(curve) for curve in view.panel.curves)
            axes.set_title(f"enlarged {view.title}: {inside} of {len(view.panel.curves)} curves end here", loc="left")
            view.draw(axes, view.near, inches * 0.6, x_label, enlarged=True)
    if handles := _legend(panels, styles, band, limits):
        legend_below(figure, handles)
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
    shown = np.where(np.isfinite(values), values, np.nan)
    mean = running_mean(values)
    mean[~np.isfinite(mean)] = np.nan
    figure = new_figure(6.4, 3.9)
    axes = figure.add_subplot()
    # Thousands of noisy values at full strength would hide the mean.
    line = (
        {"linewidth": 1.0, "marker": "o", "markersize": 2.5} if len(steps) <= 60 else {"linewidth": 0.6, "alpha": 0.6}
    )
    axes.plot(steps, shown, color=LINE_COLORS[0], label=y, **line)
    axes.plot(steps, mean, color=LINE_COLORS[1], linewidth=1.8, linestyle="--", label="running mean")
    drawn = [Curve("", "", steps, values) for values in (shown, mean)]
    scale_y(axes, drawn, None, log=is_logarithmic([shown, mean]))
    frame_x(axes, np.unique(steps))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(y)
    axes.set_title(f"{y} against optimizer step")
    axes.legend()
    return figure


def _styles(order: Sequence[str], panels: Sequence[Panel], grouped: bool) -> dict[str, dict[str, Any]]:
    """Returns colour, line style and marker of each setting, which are the same in every panel."""
    found = {curve.name: curve for panel in panels for curve in panel.curves}
    names = [name for name in order if name in found]
    groups, lines = (list(dict.fromkeys(getattr(found[name], part) for name in names)) for part in ("group", "line"))
    seen: dict[str, int] = {}
    styles = {}
    for index, name in enumerate(order):
        if name not in found:
            continue
        curve = found[name]
        if not grouped:
            styles[name] = _style(index, index)
            continue
        place = seen[curve.group] = seen.get(curve.group, -1) + 1
        group = groups.index(curve.group)
        # Many curves cannot be told apart by line styles, but their groups can.
        line = group if len(order) > LABELLED else lines.index(curve.line) if any(lines) else place
        styles[name] = _style(group, line)
    return styles


@dataclass(frozen=True)
class _View:
    """How a panel is drawn.

    Args:
        panel: the curves.
        title: what is drawn.
        styles: of each curve.
        named: the curves that get a label.
        log: whether the y axis is logarithmic.
        near: limits of a second picture of the best curves, or None.
    """

    panel: Panel
    title: str
    styles: Mapping[str, dict[str, Any]]
    named: Collection[str]
    log: bool
    near: Limits | None

    @classmethod
    def of(
        cls, panel: Panel, styles: Mapping[str, dict[str, Any]], best: Best | None, *, log: bool, enlarge: bool
    ) -> "_View":
        """Chooses the curves to name, and whether to enlarge the best: these, or the better half of all."""
        if best not in ("max", "min", None):
            raise ValueError(f"best is {best!r} for {panel.column!r}; give 'max', 'min' or None.")
        found, title = panel.curves, panel.column
        named, leading = [curve.name for curve in found], -(-len(found) // 2)
        if len(styles) > LABELLED:
            ended = [curve for curve in found if not curve.diverged and np.isfinite(curve.end)]
            ended.sort(key=lambda curve: curve.end)
            chosen = [*ended[:3], *ended[-3:]] if best is None else ended[-6:] if best == "max" else ended[:6]
            named, leading = [curve.name for curve in chosen], len(chosen)
            title += f", the {'highest and lowest' if best is None else 'best'} named"
            if not any(curve.group for curve in found):
                # Without groups the named curves have a style each, and all others are grey.
                own = {name: _style(place, place) for place, name in enumerate(named)}
                styles = {curve.name: own.get(curve.name, {"color": GREY, "linestyle": "-"}) for curve in found}
        near = enlarged_limits(found, best, leading, log=log) if enlarge and best else None
        return cls(panel, title, styles, named, log, near)

    def is_near(self, curve: Curve) -> bool:
        """Whether a curve ends within the enlarged limits, and so is named there."""
        return self.near is not None and self.near[0] <= curve.last <= self.near[1]

    def draw(self, axes: Axes, limits: Limits | None, inches: float, x_label: str, *, enlarged: bool = False) -> None:
        """Draws the curves and the labels of those that end here; `inches` is the height of the axes, at least."""
        found = self.panel.curves
        near = [curve for curve in found if self.is_near(curve)]
        start = first_near(near, self.near) if self.near else 0.0
        if enlarged and start == steps_of(near)[-1]:
            found = [curve.cut(start) for curve in found]
        steps = steps_of(found)
        for place, curve in enumerate(found := side_by_side(found)):
            every = max(len(curve.x) // 7, 1)
            # Markers start at different places, so that they stay visible on curves that coincide.
            first = place * every // max(len(found), 1) if len(curve.x) > 7 else 0
            whole = self.is_near(curve) or not enlarged
            _draw_curve(axes, curve, self.styles[curve.name], curve.name in self.named, whole, (first, every))
        if not found:
            axes.text(0.5, 0.5, "nothing logged yet", transform=axes.transAxes, ha="center", color=GREY)
        scale_y(axes, found, limits, log=self.log)
        frame_x(axes, steps, start if enlarged else 0.0)
        axes.set_xlabel(x_label + (", curves side by side" if x_label and len(found) > 1 == len(steps) else ""))
        labels = [
            (*curve.anchor, curve.label, self.styles[curve.name]["color"])
            for curve in found
            if curve.name in self.named and self.is_near(curve) == enlarged
        ]
        if self.near and not enlarged:
            left, right = axes.get_xlim()
            if len(steps) > 1:
                left = max(left, min(start, right - 0.05 * (right - left)))
            axes.fill_between((left, right), *self.near, color=PALE, linewidth=0, zorder=0)
            middle = np.array([right]), np.array([sum(self.near) / 2])
            labels.append((*middle, f"{len(near)} curves: see below", GREY))
        label_ends(axes, labels, inches)


def _style(number: int, line: int) -> dict[str, Any]:
    return {
        "color": LINE_COLORS[number % len(LINE_COLORS)],
        "linestyle": LINE_STYLES[line % len(LINE_STYLES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def _draw_curve(
    axes: Axes, curve: Curve, style: dict[str, Any], named: bool, whole: bool, markers: tuple[int, int]
) -> None:
    """Draws a curve; its replicates or their band only if it is to be `whole`."""
    line: dict[str, Any] = {"linewidth": 1.6, "zorder": 3} if named else {"linewidth": 0.7, "alpha": 0.35, "zorder": 2}
    if not named:
        line["marker"] = "" if len(curve.x) > 1 else "."
    axes.plot(curve.x, curve.y, label=curve.name, markevery=markers, markersize=5, **(style | line))
    color = style["color"]
    if whole and curve.low is not None and curve.high is not None:
        edges = thin_band(curve.x, curve.low, curve.high)
        # The band of a single step has no area, but its outline is a line.
        single = {"linewidth": 1.5, "alpha": 0.5} if len(curve.x) == 1 else {"linewidth": 0}
        axes.fill_between(*edges, color=color, zorder=1, **({"alpha": 0.14 if named else 0.05} | single))
    for steps, values in curve.runs if whole else ():  # solid, because dashes of thin lines are hard to see
        point = "." if len(steps) == 1 else ""
        axes.plot(steps, values, color=color, linestyle="-", marker=point, linewidth=0.7, alpha=0.6)
    for steps, values in [] if curve.runs else curve.tails:
        axes.plot(steps, values, color=color, linestyle=style["linestyle"], linewidth=0.7, alpha=0.7)
    for stop in curve.stops:
        axes.plot(*stop, marker="X", color=color, markersize=8, markeredgecolor="black", zorder=4, gid="stop")


def _legend(
    panels: Sequence[Panel], styles: Mapping[str, dict[str, Any]], band: Band, limits: Limits | None
) -> list[Line2D | Patch]:
    """Lists groups, line styles, the meaning of band and cross, runs without a column, and values outside the limits."""
    every = [curve for panel in panels for curve in panel.curves]
    few = len(styles) <= LABELLED
    handles: list[Line2D | Patch] = []
    lines: dict[Any, dict[str, None]] = {}
    for curve in every:
        lines.setdefault(styles[curve.name]["linestyle"], {})[curve.line] = None
    by_line = few and any(curve.line for curve in every)
    members: dict[str, set[str]] = {}
    for curve in every if any(curve.group for curve in every) else []:
        members.setdefault(curve.group, set()).add(curve.name)
    for group, names in members.items():
        style = dict(styles[next(name for name in styles if name in names)])
        if few and (by_line or len(names) > 1):
            style["linestyle"] = "" if by_line else "-"
        handles.append(Line2D([], [], label=group, markersize=5, **style))
    for style, texts in lines.items() if by_line else ():
        handles.append(Line2D([], [], color=GREY, linestyle=style, linewidth=1.6, label=", ".join(texts)))
    if any(curve.low is not None for curve in every):
        meaning = "lowest to highest replicate" if band == "minmax" else "mean ± standard deviation"
        handles.append(Patch(facecolor=GREY, alpha=0.35, label=f"line: mean, band: {meaning}"))
    if any(curve.runs for curve in every):
        if band == "runs":
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
        drawn = finite([curve.drawn for curve in panel.curves])
        if limits is not None and len(drawn) and not limits[0] <= drawn.min() <= drawn.max() <= limits[1]:
            low, high = (plain(float(f"{end:.2g}"), thousands=True) for end in (drawn.min(), drawn.max()))
            notes.append(f"not all shown: {panel.column} is from {low} to {high}")
    return [*handles, *(Line2D([], [], linestyle="", label=note) for note in notes)]
