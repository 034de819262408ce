"""Histories of runs as curves: running means, replicates of one setting put together, and names at the ends of curves."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from numpy.typing import ArrayLike, NDArray

from segsweep.plots.arrays import to_array

Band = Literal["minmax", "std", "runs"]
Points = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass
class Curve:
    """One setting's curve: that of its only run, or the mean of its replicates with a band, or with each of them."""

    name: str
    group: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    replicates: int = 1
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    runs: list[Points] = field(default_factory=list)
    """Each replicate, where these are drawn and no band."""
    tails: list[Points] = field(default_factory=list)
    """What replicates logged outside the steps that all of them have, one line each."""
    stops: list[tuple[float, float]] = field(default_factory=list)
    """Where diverged runs had their last finite value."""
    diverged: int = 0

    @property
    def drawn(self) -> NDArray[np.float64]:
        """Every value that is drawn, float64 [N]."""
        edges = [edge for edge in (self.low, self.high) if edge is not None]
        return np.concatenate([self.y, *edges, *(values for _, values in (*self.runs, *self.tails))])

    @property
    def anchor(self) -> Points:
        """The points whose last one a label belongs to: the longest tail's, where there are tails."""
        return max(self.tails, key=lambda points: points[0][-1], default=(self.x, self.y))

    @property
    def end(self) -> float:
        """The last finite value; NaN where there is none."""
        finite = self.y[np.isfinite(self.y)]
        return float(finite[-1]) if len(finite) else float("nan")


def running_mean(values: ArrayLike) -> NDArray[np.float64]:
    """The mean of all values so far, at every place: `values[: i + 1].mean()`; float64 [N] for [N]."""
    array = to_array(values, "values").astype(np.float64)
    if array.ndim != 1:
        raise ValueError(f"values has shape {list(array.shape)}; give one dimension.")
    return np.cumsum(array) / np.arange(1, len(array) + 1)


def read_points(history: pd.DataFrame, y: str, x: str, name: str) -> Points:
    """The rows of a history that have both `x` and `y`, in the order logged; rows without are other metrics' rows.

    Raises:
        ValueError: a column that does not hold numbers.
    """
    columns = {}
    for column in (x, y):
        try:
            columns[column] = pd.to_numeric(history[column]).to_numpy(dtype=np.float64, na_value=np.nan)
        except (ValueError, TypeError):
            raise ValueError(f"{name}: column {column!r} does not hold numbers.") from None
    kept = ~(np.isnan(columns[x]) | np.isnan(columns[y]))
    return columns[x][kept], columns[y][kept]


def read_curves(
    histories: Mapping[str, pd.DataFrame],
    y: str,
    x: str,
    *,
    groups: Mapping[str, str] | None,
    settings: Mapping[str, str] | None,
    diverged: Collection[str],
    running: bool,
    band: Band,
) -> tuple[list[Curve], list[str]]:
    """One curve for each setting, in the order of the histories, and the names of the runs that have not logged `y`.

    Raises:
        ValueError: no history has the columns, a run that `groups` or `settings` lacks, replicates of one setting in
            two groups, or a column without numbers.
    """
    if not any(y in history and x in history for history in histories.values()):
        known = sorted({str(column) for history in histories.values() for column in history})
        raise ValueError(f"no history has the columns {x!r} and {y!r}; there are: {', '.join(known) or 'none'}.")
    points: dict[str, dict[str, Points]] = {}
    group_of: dict[str, str] = {}
    without: list[str] = []
    for run, history in histories.items():
        setting = _look_up(settings, run, "settings") if settings is not None else run
        group = _look_up(groups, run, "groups") if groups is not None else ""
        if group_of.setdefault(setting, group) != group:
            raise ValueError(f"groups: replicates of {setting!r} are in {group_of[setting]!r} and {group!r}.")
        found = y in history and x in history
        steps, values = read_points(history, y, x, run) if found else (np.empty(0), np.empty(0))
        if not len(values):
            without.append(run)
            continue
        if running:
            values = running_mean(values)
        points.setdefault(setting, {})[run] = (steps, values)
    failed = {run for runs in points.values() for run, (_, values) in runs.items() if np.isinf(values).any()}
    failed |= set(diverged)
    return [_combine(setting, group_of[setting], runs, failed, band) for setting, runs in points.items()], without


def _look_up(names: Mapping[str, str], run: str, argument: str) -> str:
    if run not in names:
        raise ValueError(f"{argument} has no entry for run {run!r}.")
    return str(names[run])


def _combine(name: str, group: str, runs: Mapping[str, Points], failed: Collection[str], band: Band) -> Curve:
    """The curve of one setting. The mean covers the steps that every replicate has: over fewer it would jump."""
    finite = {run: (steps, np.where(np.isfinite(values), values, np.nan)) for run, (steps, values) in runs.items()}
    stops = []
    for steps, values in (finite[run] for run in runs if run in failed):
        if len(places := np.flatnonzero(np.isfinite(values))):
            stops.append((float(steps[places[-1]]), float(values[places[-1]])))
    bad = sum(run in failed for run in runs)
    if len(finite) == 1:
        steps, values = next(iter(finite.values()))
        return Curve(name, group, steps, values, stops=stops, diverged=bad)
    # A step logged twice, as one is after a resume, counts with its later value.
    columns = {run: pd.Series(values, steps).groupby(level=0).last() for run, (steps, values) in finite.items()}
    table = pd.DataFrame(columns).sort_index()
    common = table.dropna()
    if common.empty:
        empty = np.empty(0)
        tails = list(finite.values())
        return Curve(name, group, empty, empty, len(finite), tails=tails, stops=stops, diverged=bad)
    last = common.index[-1]
    tails = []
    for run in runs:
        rest = table[run][table.index >= last].dropna()
        if len(rest) > 1:
            tails.append((rest.index.to_numpy(dtype=np.float64), rest.to_numpy(dtype=np.float64)))
    mean = common.mean(axis=1).to_numpy()
    x = common.index.to_numpy(dtype=np.float64)
    curve = Curve(name, group, x, mean, len(finite), tails=tails, stops=stops, diverged=bad)
    if band == "std":
        spread = common.std(axis=1, ddof=1).to_numpy()
        curve.low, curve.high = mean - spread, mean + spread
    elif band == "minmax":
        curve.low, curve.high = common.min(axis=1).to_numpy(), common.max(axis=1).to_numpy()
    else:
        curve.runs = list(finite.values())
    return curve


def thin_band(
    x: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], most: int = 800
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """A band in at most about `most` points that still covers all of it: each stands for the extremes of its neighbours.

    Filling a noisy outline takes time that grows with its points squared, and a page has no more columns than these.
    """
    if len(x) <= most:
        return x, low, high
    starts = np.arange(0, len(x), -(-len(x) // most))
    covered = np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)
    return np.append(x[starts], x[-1]), *(np.append(edge, edge[-1]) for edge in covered)  # type: ignore[return-value]


_FONT_SIZE = 7.5


def spread(positions: ArrayLike, gap: float, low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
    """Positions as near to the given ones as a least distance allows, in the same order.

    Args:
        positions: where each label would like to be, [N].
        gap: the least distance between two; reduced where N labels do not fit between `low` and `high`.
        low: no label goes below it.
        high: no label goes above it.

    Returns:
        float64 [N]; the sum of squared moves is the least possible.
    """
    from scipy.optimize import isotonic_regression  # here, because it takes half a second

    wanted = np.asarray(positions, dtype=np.float64)
    number = len(wanted)
    if number == 0:
        return wanted
    gap = min(gap, (high - low) / max(number - 1, 1))
    order = np.argsort(wanted, kind="stable")
    steps = np.arange(number) * gap
    # With the least distances taken off, positions in order need only not decrease.
    level = isotonic_regression(wanted[order] - steps).x
    result = np.empty(number)
    result[order] = np.clip(level, low, high - steps[-1]) + steps
    return result


def label_ends(axes: Axes, curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64], str, str]]) -> None:
    """Writes each curve's name to the right of the axes at the height where the curve ends, with a thin line to it.

    Args:
        axes: scale and limits as they will stay.
        curves: x, y, text and colour of each; a curve without a finite value is left out.
    """
    ends = []
    for x, y, text, color in curves:
        places = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        if axes.get_yscale() == "log":
            places = places[y[places] > 0]
        if len(places):
            ends.append((float(x[places[-1]]), float(y[places[-1]]), text, color))
    if not ends:
        return
    axes.set_ylim(axes.get_ylim())
    figure = axes.get_figure(root=True)
    assert figure is not None
    # Title, axis labels and the legend below take about this much of the figure's height.
    inches = figure.get_size_inches()[1] - 1.3
    line = {"arrowstyle": "-", "linewidth": 0.5, "alpha": 0.6, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)}
    to_fraction = axes.transScale + axes.transLimits
    heights = [float(to_fraction.transform((x, y))[1]) for x, y, _, _ in ends]
    for (end_x, end_y, text, color), height in zip(ends, spread(heights, 1.25 * _FONT_SIZE / 72 / inches), strict=True):
        axes.annotate(
            text,
            xy=(end_x, end_y),
            xytext=(1.02, float(height)),
            textcoords="axes fraction",
            va="center",
            ha="left",
            fontsize=_FONT_SIZE,
            # Thin letters need more contrast with the paper than lines of the same colour.
            color=tuple(0.72 * channel for channel in to_rgb(color)),
            arrowprops=line | {"color": color},
            annotation_clip=False,
        )
