"""Histories of runs as curves: running means, means of replicates, and labels at the ends of curves."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from numpy.typing import ArrayLike, NDArray

from segsweep.plots.arrays import to_array
from segsweep.plots.style import GREY, shorten

if TYPE_CHECKING:
    import pandas as pd

Band = Literal["minmax", "std", "runs"]
Points = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass
class Curve:
    """One setting's curve: its only run, or the mean of its replicates with a band or with a line for each."""

    name: str
    group: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    line: str = ""
    """Curves with the same text have the same line style."""
    replicates: int = 1
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    runs: list[Points] = field(default_factory=list)
    """Each replicate, if these are drawn instead of a band."""
    tails: list[Points] = field(default_factory=list)
    """What follows the last step that all replicates have, for each replicate; everything if they have none in common."""
    stops: list[tuple[float, float]] = field(default_factory=list)
    """The last finite point of each diverged run."""
    diverged: int = 0

    @classmethod
    def of(
        cls, name: str, group: str, line: str, runs: Mapping[str, Points], failed: Collection[str], band: Band
    ) -> "Curve":
        """Combines the runs of one setting. The mean would jump if it covered steps that only some replicates have."""
        import pandas as pd  # here, because a training that starts does without

        finite = {run: (steps, np.where(np.isfinite(values), values, np.nan)) for run, (steps, values) in runs.items()}
        bad = [run for run in runs if run in failed]
        stops = []
        for steps, values in (finite[run] for run in bad):
            if len(places := np.flatnonzero(np.isfinite(values))):
                stops.append((float(steps[places[-1]]), float(values[places[-1]])))
        curve = cls(name, group, np.empty(0), np.empty(0), line, len(runs), stops=stops, diverged=len(bad))
        if len(runs) == 1:
            curve.x, curve.y = next(iter(finite.values()))
            return curve
        # After a resume a step may be logged twice; its later value counts.
        columns = {run: pd.Series(values, steps).groupby(level=0).last() for run, (steps, values) in finite.items()}
        table = pd.DataFrame(columns).sort_index()
        common = table.dropna()
        if common.empty:
            curve.tails = list(finite.values())
            return curve
        for run in runs:
            rest = table[run][table.index >= common.index[-1]].dropna()
            if len(rest) > 1:
                curve.tails.append((rest.index.to_numpy(dtype=np.float64), rest.to_numpy(dtype=np.float64)))
        curve.x, curve.y = common.index.to_numpy(dtype=np.float64), common.mean(axis=1).to_numpy()
        if band == "std":
            deviation = common.std(axis=1, ddof=1).to_numpy()
            curve.low, curve.high = curve.y - deviation, curve.y + deviation
        elif band == "minmax":
            curve.low, curve.high = common.min(axis=1).to_numpy(), common.max(axis=1).to_numpy()
        else:
            curve.runs = list(finite.values())
        return curve

    def moved(self, shift: float) -> "Curve":
        """The curve with `shift` added to every x."""
        runs, tails = ([(x + shift, y) for x, y in lines] for lines in (self.runs, self.tails))
        return replace(self, x=self.x + shift, runs=runs, tails=tails, stops=[(x + shift, y) for x, y in self.stops])

    def cut(self, start: float) -> "Curve":
        """The curve from step `start` on."""
        kept = self.x >= start
        low, high = (None if edge is None else edge[kept] for edge in (self.low, self.high))
        runs, tails = ([(x[x >= start], y[x >= start]) for x, y in lines] for lines in (self.runs, self.tails))
        return replace(self, x=self.x[kept], y=self.y[kept], low=low, high=high, runs=runs, tails=tails)

    @property
    def drawn(self) -> NDArray[np.float64]:
        """Every value that is drawn, float64 [N]."""
        edges = [edge for edge in (self.low, self.high) if edge is not None]
        return np.concatenate([self.y, *edges, *(values for _, values in (*self.runs, *self.tails))])

    @property
    def anchor(self) -> Points:
        """The line that ends last and therefore carries the label: the longest tail if there are tails."""
        return max(self.tails, key=lambda points: points[0][-1], default=(self.x, self.y))

    @property
    def end(self) -> float:
        """The last finite value; NaN if there is none."""
        finite = self.y[np.isfinite(self.y)]
        return float(finite[-1]) if len(finite) else float("nan")

    @property
    def last(self) -> float:
        """The last finite value where the label stands: of the mean, or of the longest tail; NaN if there is none."""
        values = self.anchor[1][np.isfinite(self.anchor[1])]
        return float(values[-1]) if len(values) else float("nan")

    @property
    def label(self) -> str:
        """The name, with the number of replicates and of those that diverged."""
        text = shorten(self.name, 40)
        if self.replicates > 1:
            text += f" (n={self.replicates})"
        if self.diverged:
            text += " diverged" if self.replicates == 1 else f", {self.diverged} diverged"
        return text


@dataclass
class Panel:
    """A column of the histories: its curves, and the runs that have not logged it."""

    column: str
    curves: list[Curve]
    missing: list[str]


def running_mean(values: ArrayLike) -> NDArray[np.float64]:
    """Returns the mean of all values up to each one, `values[: i + 1].mean()`; float64 [N] for [N]."""
    array = to_array(values, "values").astype(np.float64)
    if array.ndim != 1:
        raise ValueError(f"values has shape {list(array.shape)}; give one dimension.")
    return np.cumsum(array) / np.arange(1, len(array) + 1)


def read_points(history: "pd.DataFrame", y: str, x: str, name: str) -> Points:
    """Returns `x` and `y` of the rows that have both, in the order logged; other rows hold other metrics.

    Raises:
        ValueError: a column that does not hold numbers.
    """
    import pandas as pd

    columns = {}
    for column in (x, y):
        try:
            columns[column] = pd.to_numeric(history[column]).to_numpy(dtype=np.float64, na_value=np.nan)
        except (ValueError, TypeError):
            raise ValueError(f"{name}: column {column!r} does not hold numbers.") from None
    kept = ~(np.isnan(columns[x]) | np.isnan(columns[y]))
    return columns[x][kept], columns[y][kept]


def read_panels(
    histories: "Mapping[str, pd.DataFrame]",
    columns: Sequence[str],
    x: str,
    *,
    groups: Mapping[str, str] | None,
    lines: Mapping[str, str] | None,
    settings: Mapping[str, str] | None,
    diverged: Collection[str],
    band: Band,
) -> list[Panel]:
    """Reads a panel for each column, with a curve for each setting in the order of the histories; see `plots.curves`.

    Raises:
        ValueError: as `plots.curves`, or replicates of one setting are in two groups or have two line styles.
    """
    if not histories or not columns:
        raise ValueError("there is nothing to draw: give at least one history and one column.")
    if band not in get_args(Band):
        raise ValueError(f"band is {band!r}; give one of {', '.join(get_args(Band))}.")
    setting_of = {run: _look_up(settings, run, "settings") if settings is not None else run for run in histories}
    style_of: dict[str, dict[str, str]] = {"groups": {}, "lines": {}}
    for argument, names in (("groups", groups), ("lines", lines)):
        for run, setting in setting_of.items():
            name = _look_up(names, run, argument) if names is not None else ""
            if (other := style_of[argument].setdefault(setting, name)) != name:
                raise ValueError(f"{argument}: replicates of {setting!r} are in {other!r} and {name!r}.")
    panels = []
    for y in columns:
        if not any(y in history and x in history for history in histories.values()):
            known = sorted({str(column) for history in histories.values() for column in history})
            raise ValueError(f"no history has the columns {x!r} and {y!r}; there are: {', '.join(known) or 'none'}.")
        points: dict[str, dict[str, Points]] = {}
        missing, failed = [], set(diverged)
        for run, history in histories.items():
            found = y in history and x in history
            steps, values = read_points(history, y, x, run) if found else (np.empty(0), np.empty(0))
            if not len(values):
                missing.append(run)
                continue
            points.setdefault(setting_of[run], {})[run] = (steps, values)
            if np.isinf(values).any():
                failed.add(run)
        curves = [
            Curve.of(setting, style_of["groups"][setting], style_of["lines"][setting], runs, failed, band)
            for setting, runs in points.items()
        ]
        panels.append(Panel(y, _runs_for_wide_bands(curves, points, failed) if band == "minmax" else curves, missing))
    return panels


def _runs_for_wide_bands(
    curves: Sequence[Curve], points: Mapping[str, Mapping[str, Points]], failed: Collection[str]
) -> list[Curve]:
    """Gives curves their replicates instead of a band that ends more than a quarter of the panel high.

    If one of three runs learns, no run is near their mean, and their band hides the other curves.
    """
    drawn = np.concatenate([np.empty(0), *(curve.drawn for curve in curves)])
    most = np.ptp(drawn[np.isfinite(drawn)]) / 4 if len(curves) > 1 else np.inf
    return [
        Curve.of(curve.name, curve.group, curve.line, points[curve.name], failed, "runs")
        if curve.low is not None and curve.high is not None and curve.high[-1] - curve.low[-1] > most
        else curve
        for curve in curves
    ]


def _look_up(names: Mapping[str, str], run: str, argument: str) -> str:
    if run not in names:
        raise ValueError(f"{argument} has no entry for run {run!r}.")
    return str(names[run])


def thin_band(
    x: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], most: int = 800
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Reduces a band to at most about `most` points that cover it: each holds the extremes of its neighbours.

    The time to fill a noisy outline grows with the square of its points, and a page is about `most` pixels wide.
    """
    if len(x) <= most:
        return x, low, high
    starts = np.arange(0, len(x), -(-len(x) // most))
    covered = np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)
    return np.append(x[starts], x[-1]), *(np.append(edge, edge[-1]) for edge in covered)  # type: ignore[return-value]


def spread(positions: ArrayLike, gap: float, low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
    """Moves labels apart by at least `gap`, as little as possible (least squares), and keeps their order.

    Args:
        positions: the wanted place of each label, [N].
        gap: the least distance between two labels; reduced if N labels do not fit between `low` and `high`.
        low, high: no label goes below or above them.

    Returns:
        float64 [N].
    """
    from scipy.optimize import isotonic_regression  # here, because the import takes half a second

    wanted = np.asarray(positions, dtype=np.float64)
    number = len(wanted)
    if number == 0:
        return wanted
    gap = min(gap, (high - low) / max(number - 1, 1))
    order = np.argsort(wanted, kind="stable")
    steps = np.arange(number) * gap
    # After subtracting the gaps, the positions only have to be non-decreasing.
    level = isotonic_regression(wanted[order] - steps).x
    result = np.empty(number)
    result[order] = np.clip(level, low, high - steps[-1]) + steps
    return result


def label_ends(
    axes: Axes, curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64], str, str]], inches: float
) -> None:
    """Writes each curve's label to the right of the axes, near the height of its end, with a dotted grey line to it.

    Args:
        axes: with their final scale and limits.
        curves: x, y, text and colour of each; curves without a finite value get no label.
        inches: height of the axes, at least.
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
    font_size = 7.5
    # Grey and dotted, because a line in the curve's colour looks like a part of the curve.
    line = {"arrowstyle": "-", "linewidth": 0.7, "linestyle": (0, (1, 2)), "color": GREY, "shrinkA": 1, "shrinkB": 2}
    to_fraction = axes.transScale + axes.transLimits
    heights = [float(to_fraction.transform((x, y))[1]) for x, y, _, _ in ends]
    for (end_x, end_y, text, color), height in zip(ends, spread(heights, 1.25 * font_size / 72 / inches), strict=True):
        axes.annotate(
            text,
            xy=(end_x, end_y),
            xytext=(1.04, float(height)),
            textcoords="axes fraction",
            va="center",
            ha="left",
            fontsize=font_size,
            # Darker than the line, because thin letters need more contrast with the paper.
            color=tuple(0.72 * channel for channel in to_rgb(color)),
            arrowprops=line | {"relpos": (0, 0.5)},
            annotation_clip=False,
        )
