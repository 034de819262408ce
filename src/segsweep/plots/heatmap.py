"""One value over two swept axes, a cell for each setting."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, NullFormatter

from segsweep.plots.style import hatched_cells, matrix_axes, new_figure, plain, shorten, styled, text_color

if TYPE_CHECKING:
    import pandas as pd

Best = Literal["max", "min"]


@dataclass(frozen=True)
class Cell:
    """The content of one cell; if no run has a finite value, `value` is NaN and `note` says why."""

    value: float
    deviation: float
    runs: int
    failed: int
    note: str = ""
    mark: str = ""

    @classmethod
    def of(cls, runs: Sequence[tuple[float, str | None, str]], best: Best, reduce: str) -> "Cell":
        """Combines the values, statuses and marks of a cell's runs."""
        if not runs:
            return cls(np.nan, np.nan, 0, 0, "not run")
        finite = [(number, mark) for number, _, mark in runs if np.isfinite(number)]
        failed = len(runs) - len(finite)
        if not finite:
            states = (state if state and state != "completed" else "diverged" for _, state, _ in runs)
            return cls(np.nan, np.nan, len(runs), failed, ", ".join(dict.fromkeys(states)))
        if reduce == "best":
            value, mark = (max if best == "max" else min)(finite, key=lambda run: run[0])
            return cls(value, np.nan, len(runs), failed, mark=mark)
        values = np.array([number for number, _ in finite])
        deviation = float(values.std(ddof=1)) if len(values) > 1 else np.nan
        return cls(float(values.mean()), deviation, len(runs), failed, mark=finite[0][1])


def heatmap_cells(
    table: "pd.DataFrame",
    rows: str,
    columns: str,
    value: str,
    *,
    best: Best = "max",
    reduce: Literal["mean", "best"] = "mean",
    status: str | None = None,
    mark: str | None = None,
) -> tuple[list[Any], list[Any], list[list[Cell]]]:
    """Arranges a table as a grid: the row keys, the column keys, and the cells; see `heatmap` for the arguments.

    Numbers are in ascending order, other keys in order of first appearance; a missing key (None, NaN) comes last.

    Raises:
        ValueError: no rows, a column that is missing or without numbers, or the same column for both axes.
    """
    import pandas as pd  # here, because a training that starts does without

    wanted = [rows, columns, value, *(name for name in (status, mark) if name)]
    missing = [name for name in wanted if name not in table]
    if missing:
        raise ValueError(f"the table has no column {missing[0]!r}; there are: {', '.join(map(str, table)) or 'none'}.")
    if rows == columns:
        raise ValueError(f"rows and columns are both {rows!r}; give two axes.")
    if table.empty:
        raise ValueError("the table has no rows; there is nothing to draw.")
    try:
        numbers = pd.to_numeric(table[value]).to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError):
        raise ValueError(f"column {value!r} does not hold numbers.") from None
    keys = [[axis_key(entry) for entry in table[name]] for name in (rows, columns)]
    row_keys, column_keys = _in_order(keys[0]), _in_order(keys[1])
    stated = [None] * len(table) if status is None else [str(entry) for entry in table[status]]
    marks = [""] * len(table) if mark is None else list(table[mark])
    found: dict[tuple[Any, Any], list[tuple[float, str | None, str]]] = {}
    for row, column, *run in zip(*keys, map(float, numbers), stated, marks, strict=True):
        found.setdefault((row, column), []).append(tuple(run))
    cells = [[Cell.of(found.get((row, column), []), best, reduce) for column in column_keys] for row in row_keys]
    return row_keys, column_keys, cells


def axis_key(entry: Any) -> str | float | None:
    """Makes entries of an axis comparable: numbers written as text become numbers, all missing values None."""
    import pandas as pd

    if entry is None or entry is pd.NA or (isinstance(entry, float) and np.isnan(entry)):
        return None
    if isinstance(entry, (bool, np.bool_)):
        return str(bool(entry)).lower()
    try:
        number = float(entry)
    except (TypeError, ValueError):
        return str(entry)
    return str(entry) if np.isnan(number) else number


def _in_order(keys: list[Any]) -> list[Any]:
    different = list(dict.fromkeys(keys))
    numbers = sorted(key for key in different if isinstance(key, float))
    texts = [key for key in different if isinstance(key, str)]
    return [*numbers, *texts, *([None] if None in different else [])]


@styled
def heatmap(
    table: "pd.DataFrame",
    rows: str,
    columns: str,
    value: str,
    *,
    best: Best = "max",
    reduce: Literal["mean", "best"] = "mean",
    status: str | None = None,
    mark: str | None = None,
    title: str | None = None,
    star: bool = True,
) -> Figure:
    """Draws a value over two axes: each cell with its number, the best one framed, cells without a number hatched.

    Lighter is better, in colour and in grey. A cell of several runs shows their mean, sample standard deviation and
    number. A cell in which a run has no finite value says so, and is never the best.

    Args:
        table: a row for each run.
        rows, columns: the columns of the table whose values are the two axes.
        value: the column drawn; NaN and infinite values are runs that diverged or failed.
        best: whether high or low values are good. If low ones are, positive values over two decades or more, such as
            losses, are coloured by their logarithm.
        reduce: "mean" treats the runs of a cell as replicates; "best" shows the best of them, for a third swept axis.
        status: the column that says why a value is missing, such as "failed"; without it such a run is "diverged".
        mark: the column with a symbol for the corner of a run's cell.
        title: None says what is drawn.
        star: whether the best cell is marked; False if cells cannot be compared.

    Raises:
        ValueError: as `heatmap_cells`, or another `best` or `reduce`.
    """
    if best not in ("max", "min") or reduce not in ("mean", "best"):
        raise ValueError(f"best is {best!r} and reduce {reduce!r}; give 'max' or 'min', and 'mean' or 'best'.")
    row_keys, column_keys, cells = heatmap_cells(
        table, rows, columns, value, best=best, reduce=reduce, status=status, mark=mark
    )
    row_names, column_names = (
        ["default" if key is None else plain(key) if isinstance(key, float) else shorten(key, 28) for key in keys]
        for keys in (row_keys, column_keys)
    )
    complete = [cell.value for line in cells for cell in line if np.isfinite(cell.value) and not cell.failed]
    winner = (max if best == "max" else min)(complete, default=None)
    if title is None:
        replicated = max(cell.runs for line in cells for cell in line) > 1
        what = f"{'mean' if reduce == 'mean' else 'best'} {value} of each setting's runs" if replicated else value
        mark = "" if winner is None else f"; ★ {'highest' if best == 'max' else 'lowest'}"
        title = f"{what}, {rows} by {columns}{mark}"
    width = (1.15 if len(column_names) <= 8 else 0.9) * len(column_names)
    margin = 0.075 * max(map(len, row_names)) + 0.5
    title_lines = title.splitlines()
    wide = max(width + margin + 1.3, 4.2, 0.085 * max(map(len, title_lines)))
    figure = new_figure(wide, max(0.62 * len(row_names), 1.2) + 1.3 + 0.2 * len(title_lines))
    axes = figure.add_subplot(xlabel=columns, ylabel=rows)
    matrix_axes(axes, row_names, column_names)
    if sum(map(len, column_names)) * 0.075 > width * 0.9:
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="right")
    _draw_cells(axes, cells, best, winner if star else None, value)
    figure.suptitle(title)
    return figure


def _draw_cells(axes: Axes, cells: list[list[Cell]], best: Best, winner: float | None, value: str) -> None:
    """Draws all cells, and a colour bar unless all have the same value."""
    finite = np.array([cell.value for line in cells for cell in line if np.isfinite(cell.value)])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    norm = Normalize(low, high) if high > low else Normalize(low - 1, high + 1)
    if best == "min" and low > 0 and high / low >= 100:
        norm = LogNorm(low, high)
    color_map = matplotlib.colormaps["cividis" if best == "max" else "cividis_r"]
    for row, line in enumerate(cells):
        for column, cell in enumerate(line):
            if np.isfinite(cell.value):
                is_best = cell.value == winner and not cell.failed
                _draw_cell(axes, row, column, cell, color_map(norm(cell.value)), is_best=is_best)
            else:
                hatched_cells(axes, row, column, 1, shorten(cell.note, 18), fontsize=8)
                corner = (column - 0.5, row - 0.5)
                axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="white", linewidth=1.5))
    if len(np.unique(finite)) > 1:
        figure = axes.get_figure(root=True)
        assert figure is not None
        bar = figure.colorbar(ScalarMappable(norm, color_map), ax=axes, label=value, shrink=0.9, aspect=25)
        bar.formatter = FuncFormatter(lambda number, _: plain(number))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
        bar.update_ticks()


def _draw_cell(axes: Axes, row: int, column: int, cell: Cell, color: Any, *, is_best: bool) -> None:
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=color, edgecolor="white", linewidth=1.5))
    ink = text_color(color)
    text, note = plain(cell.value, 4), ""
    if cell.runs > 1:
        if cell.failed:
            note = f"{cell.failed} of {cell.runs} failed"
        elif np.isfinite(cell.deviation):
            decimals = len(text.partition(".")[2])  # as many as the mean has
            note = f"±{cell.deviation:.{decimals}f} (n={cell.runs})"
        else:
            note = f"of {cell.runs}"
    centred: dict[str, Any] = {"ha": "center", "va": "center", "in_layout": False, "color": ink}
    axes.text(column, row - (0.14 if note else 0), text, fontweight="bold" if is_best else "normal", **centred)
    if note:
        axes.text(column, row + 0.22, note, fontsize=6.5, **centred)
    if is_best:
        # Inside the cell's edge, so that neighbouring cells do not cover it.
        axes.add_patch(
            Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, fill=False, edgecolor=ink, linewidth=2, zorder=3)
        )
    if mark := "★" if is_best else cell.mark:
        axes.text(column - 0.42, row - 0.3, mark, ha="left", va="center", color=ink, fontsize=11)
