"""Two kinds of figures: printed numbers next to our runs, and pictures in rows."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from segsweep.plots.style import GREY, LINE_COLORS, bare, new_figure, plain_ticks, scale_log_y, styled


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
    """Draws a column for each setting: our runs as dots, their mean as a line, the printed number as a cross.

    The number of diverged runs (not finite) is written below the column.

    Args:
        printed: printed number by setting, in drawing order; None if there is none.
        ours: numbers of our runs by setting; settings without runs show only the cross.
        value: label of the y axis.
        printed_name: name of the printed numbers in the legend.
        log_y: logarithmic y axis.
        title: title of the figure.

    Raises:
        ValueError: nothing to draw.
    """
    if not printed:
        raise ValueError("there is nothing to draw: give at least one setting.")
    figure = new_figure(max(4.0, 1.0 + 0.75 * len(printed)), 3.4)
    axes = figure.subplots()
    handles: dict[str, Line2D] = {}
    drawn: list[float] = []
    for place, (name, other) in enumerate(printed.items()):
        runs = np.asarray(ours.get(name, ()), dtype=float)
        finite = runs[np.isfinite(runs)]
        if len(finite) < len(runs):
            axes.annotate(
                f"{len(runs) - len(finite)} diverged", (place, 0), (0, 3), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="center", fontsize=7,
            )  # fmt: skip
        if other is not None:
            (handles[printed_name],) = axes.plot(
                [place], [other], "x", color="black", linestyle="none", markersize=8, markeredgewidth=2
            )
            drawn.append(other)
        if len(finite):
            shifts = np.linspace(-0.15, 0.15, len(finite)) if len(finite) > 1 else np.zeros(1)
            axes.plot(place + shifts, finite, "o", color=LINE_COLORS[0], markersize=4, alpha=0.75, linestyle="none")
            axes.hlines(finite.mean(), place - 0.3, place + 0.3, color=LINE_COLORS[0], linewidth=1.5)
            handles["ours: runs and their mean"] = Line2D([], [], marker="o", color=LINE_COLORS[0], markersize=4)
            drawn += [*finite]
    axes.set_xticks(range(len(printed)), list(printed), rotation=30 if max(map(len, printed)) > 8 else 0, ha="center")
    axes.set_xlim(-0.6, len(printed) - 0.4)
    axes.set_ylabel(value)
    if log_y:
        scale_log_y(axes, np.asarray(drawn))
    axes.yaxis.set_major_formatter(plain_ticks())
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=2)
    if title is not None:
        figure.suptitle(title)
    return figure


@styled
def picture_rows(pictures: Sequence[NDArray], names: Sequence[str], *, title: str | None = None) -> Figure:
    """Draws pictures of one size in rows.

    Args:
        pictures: uint8 [H, W, 3], at least one.
        names: labels, one for each picture.
        title: title of the figure.

    Raises:
        ValueError: no pictures, or not one name for each.
    """
    if not pictures or len(pictures) != len(names):
        raise ValueError(f"{len(pictures)} pictures and {len(names)} names: give one name for each of at least one")
    height, width = pictures[0].shape[:2]
    figure = new_figure(7.6, 0.4 + len(pictures) * 6.6 * height / width)
    rows = figure.subplots(len(pictures), squeeze=False)[:, 0]
    for axes, picture, name in zip(rows, pictures, names, strict=True):
        axes.imshow(picture)
        bare(axes)
        axes.set_anchor("W")  # the layout leaves room for the name on the left
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
    if title is not None:
        figure.suptitle(title)
    return figure
