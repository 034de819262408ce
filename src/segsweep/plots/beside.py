"""Numbers from elsewhere beside our own runs."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from segsweep.plots.style import GREY, LINE_COLORS, new_figure, plain_ticks, styled


@styled
def beside(
    printed: Mapping[str, float | None],
    ours: Mapping[str, Sequence[float]],
    *,
    value: str,
    printed_name: str = "printed",
    log_y: bool = True,
    title: str | None = None,
) -> Figure:
    """A column for each setting: every run of ours as a dot, their mean as a line, the other number as a cross.

    Args:
        printed: the other number of each setting, in the order to draw; None where there is none.
        ours: a number for each run of each setting; settings that are missing, or have none, show the cross alone.
        value: what the numbers are.
        printed_name: what the others are called.
        log_y: a logarithmic axis.
        title: above the figure.

    Raises:
        ValueError: nothing to draw.
    """
    if not printed:
        raise ValueError("there is nothing to draw: give at least one setting.")
    figure = new_figure(max(4.0, 1.0 + 0.75 * len(printed)), 3.4)
    axes = figure.subplots()
    for place, (name, other) in enumerate(printed.items()):
        runs = np.asarray([number for number in ours.get(name, ()) if np.isfinite(number)], dtype=float)
        if len(runs):
            shifts = np.linspace(-0.15, 0.15, len(runs)) if len(runs) > 1 else np.zeros(1)
            axes.plot(place + shifts, runs, "o", color=LINE_COLORS[0], markersize=4, alpha=0.75, linestyle="none")
            axes.hlines(runs.mean(), place - 0.3, place + 0.3, color=LINE_COLORS[0], linewidth=1.5)
        if other is not None:
            axes.plot([place], [other], "x", color="black", markersize=8, markeredgewidth=2)
    axes.set_xticks(range(len(printed)), list(printed), rotation=30 if max(map(len, printed)) > 8 else 0, ha="center")
    axes.set_xlim(-0.6, len(printed) - 0.4)
    axes.set_ylabel(value)
    if log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(plain_ticks())
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    handles = [
        Line2D(
            [], [], marker="x", color="black", linestyle="none", markersize=8, markeredgewidth=2, label=printed_name
        ),
        Line2D([], [], marker="o", color=LINE_COLORS[0], markersize=4, label="ours: runs and their mean"),
    ]
    if all(other is None for other in printed.values()):
        handles = handles[1:]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    if title is not None:
        figure.suptitle(title)
    return figure
