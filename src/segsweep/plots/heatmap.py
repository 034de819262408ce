"""One value over two swept axes, a cell a setting."""

from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from segsweep.plots.style import GREY, PALE, bare, new_figure, plain, shorten, styled, text_color

Best = Literal["max", "min"]


@dataclass(frozen=True)
class Cell:
    """What one cell says: `value` is NaN where no run has one, and `note` then says why."""

    value: float
    deviation: float
    runs: int
    failed: int
    note: str = ""


def heatmap_cells(
    table: pd.DataFrame,
    rows: str,
    columns: str,
    value: str,
    *,
    best: Best = "max",
    reduce: Literal["mean", "best"] = "mean",
    status: str | None = None,
) -> tuple[list[Any], list[Any], list[list[Cell]]]:
    """The table as a grid: the row keys, the column keys, and the cells; see `heatmap` for the arguments.

    Numbers are in ascending order, other keys in order of first appearance; a missing key (None, NaN) is its own, last.

    Raises:
        ValueError: no rows, a column that is missing or without numbers, or the same column for both axes.
    """
    wanted = [rows, columns, value, *([status] if status else [])]
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
    keys = [[_key(entry) for entry in table[name]] for name in (rows, columns)]
    row_keys, column_keys = _in_order(keys[0]), _in_order(keys[1])
    stated = [None] * len(table) if status is None else [str(entry) for entry in table[status]]
    found: dict[tuple[Any, Any], list[tuple[float, str | None]]] = {}
    for row, column, number, state in zip(*keys, numbers, stated, strict=True):
        found.setdefault((row, column), []).append((float(number), state))
    cells = [[_cell(found.get((row, column), []), best, reduce) for column in column_keys] for row in row_keys]
    return row_keys, column_keys, cells


@styled
def heatmap(
    table: pd.DataFrame,
    rows: str,
    columns: str,
    value: str,
    *,
    best: Best = "max",
    reduce: Literal["mean", "best"] = "mean",
    status: str | None = None,
    log_color: bool | Literal["auto"] = "auto",
    title: str | None = None,
    star: bool = True,
) -> Figure:
    """A value over two axes: every cell with its number, the best one framed, cells without a number hatched and named.

    Lighter is better, in colour and in grey. Where several runs fall into a cell it shows their mean, sample standard
    deviation and number. A cell in which some run has no finite value says how many, and is never the best.

    Args:
        table: a row for each run.
        rows: the column whose values are the rows.
        columns: the column whose values are the columns.
        value: the column drawn; NaN and infinite values are runs that diverged or failed.
        best: whether high or low values are good.
        reduce: "mean" takes the runs of a cell for replicates; "best" shows the best of them, for a third swept axis.
        status: a column that says why a value is missing, such as "failed"; without it such a run is called "diverged".
        log_color: colours by the logarithm, which needs positive values; "auto" does so where low is good and positive
            values span two decades or more, as losses do.
        title: None says what is drawn.
        star: whether the best cell is marked; False where cells cannot be compared.

    Raises:
        ValueError: as `heatmap_cells`, or `log_color` with values that are not positive.
    """
    if best not in ("max", "min") or reduce not in ("mean", "best"):
        raise ValueError(f"best is {best!r} and reduce {reduce!r}; give 'max' or 'min', and 'mean' or 'best'.")
    row_keys, column_keys, cells = heatmap_cells(table, rows, columns, value, best=best, reduce=reduce, status=status)
    values = np.array([[cell.value for cell in line] for line in cells])
    finite = values[np.isfinite(values)]
    if log_color == "auto":
        log_color = bool(best == "min" and len(finite) and finite.min() > 0 and finite.max() / finite.min() >= 100)
    norm = _norm(finite, log_color)
    color_map = matplotlib.colormaps["cividis" if best == "max" else "cividis_r"]
    width = 1.15 if len(column_keys) <= 8 else 0.9
    height = 0.62
    row_names, column_names = [_name(key) for key in row_keys], [_name(key) for key in column_keys]
    margin = 0.075 * max(map(len, row_names)) + 0.5
    if title is None:
        replicated = max(cell.runs for line in cells for cell in line) > 1
        what = f"{'mean' if reduce == 'mean' else 'best'} {value} of each setting's runs" if replicated else value
        mark = "" if _winner(cells, best) is None else f"; ★ {'highest' if best == 'max' else 'lowest'}"
        title = f"{what}, {rows} by {columns}{mark}"
    wide = max(width * len(column_keys) + margin + 1.3, 4.2, 0.085 * len(title))
    figure = new_figure(wide, max(height * len(row_keys), 1.2) + 1.5)
    axes = figure.add_subplot()
    winner = _winner(cells, best) if star else None
    for row, line in enumerate(cells):
        for column, cell in enumerate(line):
            color = color_map(norm(cell.value)) if np.isfinite(cell.value) else None
            _draw_cell(axes, row, column, cell, color, is_best=cell.value == winner and not cell.failed)
    axes.set(xlim=(-0.5, len(column_keys) - 0.5), ylim=(len(row_keys) - 0.5, -0.5))
    bare(axes)
    crowded = sum(map(len, column_names)) * 0.075 > width * len(column_keys) * 0.9
    axes.set_xticks(
        range(len(column_keys)), column_names, rotation=30 if crowded else 0, ha="right" if crowded else "center"
    )
    axes.set_yticks(range(len(row_keys)), row_names)
    axes.tick_params(length=0)
    axes.set_xlabel(columns)
    axes.set_ylabel(rows)
    # One value alone has no scale.
    if len(np.unique(finite)) > 1:
        mappable = matplotlib.cm.ScalarMappable(norm=norm, cmap=color_map)
        bar = figure.colorbar(mappable, ax=axes, label=value, shrink=0.9, aspect=25)
        bar.formatter = matplotlib.ticker.FuncFormatter(lambda number, _: plain(number))
        bar.ax.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        bar.update_ticks()
    figure.suptitle(title)
    return figure


def _key(entry: Any) -> Any:
    """A value that compares: numbers written as text are numbers, and all that is missing is None."""
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


def _name(key: Any) -> str:
    if key is None:
        return "default"
    return plain(key) if isinstance(key, float) else shorten(key, 28)


def _cell(runs: list[tuple[float, str | None]], best: Best, reduce: str) -> Cell:
    if not runs:
        return Cell(np.nan, np.nan, 0, 0, "not run")
    finite = np.array([number for number, _ in runs if np.isfinite(number)])
    failed = len(runs) - len(finite)
    if not len(finite):
        states = list(dict.fromkeys(state if state and state != "completed" else "diverged" for _, state in runs))
        return Cell(np.nan, np.nan, len(runs), failed, ", ".join(states))
    if reduce == "best":
        return Cell(float(finite.max() if best == "max" else finite.min()), np.nan, len(runs), failed)
    deviation = float(finite.std(ddof=1)) if len(finite) > 1 else np.nan
    return Cell(float(finite.mean()), deviation, len(runs), failed)


def _winner(cells: list[list[Cell]], best: Best) -> float | None:
    """The best value among the cells all of whose runs have one."""
    whole = [cell.value for line in cells for cell in line if np.isfinite(cell.value) and not cell.failed]
    if not whole:
        return None
    return max(whole) if best == "max" else min(whole)


def _norm(finite: Any, log_color: bool) -> Normalize:
    if not len(finite):
        return Normalize(0, 1)
    low, high = float(finite.min()), float(finite.max())
    if log_color and low <= 0:
        raise ValueError(f"log_color needs positive values; the lowest is {low:.4g}.")
    if high == low:
        return Normalize(low - 1, high + 1)
    return LogNorm(low, high) if log_color else Normalize(low, high)


def _draw_cell(axes: Axes, row: int, column: int, cell: Cell, color: Any, *, is_best: bool) -> None:
    corner = (column - 0.5, row - 0.5)
    if color is None:
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=PALE, edgecolor=GREY, hatch="////", linewidth=0))
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="white", linewidth=1.5))
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.text(column, row, shorten(cell.note, 18), ha="center", va="center", in_layout=False, fontsize=8, bbox=box)
        return
    axes.add_patch(Rectangle(corner, 1, 1, facecolor=color, edgecolor="white", linewidth=1.5))
    ink = text_color(color)
    lines = []
    if cell.runs > 1:
        if cell.failed:
            lines.append(f"{cell.failed} of {cell.runs} failed")
        elif np.isfinite(cell.deviation):
            decimals = len(plain(cell.value, 4).partition(".")[2])  # as many as the mean is written with
            lines.append(f"±{cell.deviation:.{decimals}f} (n={cell.runs})")
        else:
            lines.append(f"of {cell.runs}")
    shift = 0.14 if lines else 0.0
    text = plain(cell.value, 4)
    axes.text(
        column,
        row - shift,
        text,
        ha="center",
        va="center",
        in_layout=False,
        color=ink,
        fontweight="bold" if is_best else "normal",
    )
    for line in lines:
        axes.text(column, row + 0.22, line, ha="center", va="center", in_layout=False, color=ink, fontsize=6.5)
    if is_best:
        # Inside the cell's edge, where no neighbour covers it.
        axes.add_patch(
            Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, fill=False, edgecolor=ink, linewidth=2, zorder=3)
        )
        axes.text(column - 0.42, row - 0.3, "★", ha="left", va="center", color=ink, fontsize=8)
