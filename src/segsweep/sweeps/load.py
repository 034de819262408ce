"""Reads a sweep back from its directory."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

import pandas as pd
from matplotlib.figure import Figure

from segsweep.cards import Card
from segsweep.console import relative
from segsweep.errors import UserError
from segsweep.runs.load import Run, load_run
from segsweep.sweeps.figures import sweep_curves, sweep_heatmap
from segsweep.sweeps.ranking import Comparison
from segsweep.sweeps.report_text import entry_text, jobs_table, settings_table
from segsweep.sweeps.results import Results
from segsweep.sweeps.state import SweepDirectory, SweepRecord

_MOST_ROWS = 8
"""Of the table on a sweep's card."""


@dataclass(frozen=True)
class Runs(Sequence[Run]):
    """Runs by number; each is loaded, with its best checkpoint, when it is taken."""

    directories: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.directories)

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> "Runs": ...
    def __getitem__(self, index: int | slice) -> "Run | Runs":
        found = self.directories[index]
        return Runs(found) if isinstance(found, tuple) else load_run(found)


@dataclass(frozen=True, repr=False)
class Sweep:
    """A sweep, finished or not, as it was when it was read.

    `sweep[0]`, `len(sweep)` and `for run in sweep` are of its completed jobs, as `sweep.runs` is.
    """

    results: Results

    @property
    def directory(self) -> SweepDirectory:
        return self.results.sweep

    @property
    def record(self) -> SweepRecord:
        """sweep.json, with the status of each job from its run.json."""
        return self.results.record

    @property
    def path(self) -> Path:
        return self.directory.path

    @property
    def axes(self) -> list[str]:
        """The swept keys."""
        return list(self.record.axes)

    @property
    def summary(self) -> pd.DataFrame:
        """A row per job, best first, with the columns of summary.csv."""
        return self.results.table

    @cached_property
    def histories(self) -> dict[str, pd.DataFrame]:
        """metrics.csv of every job that has logged anything, by the job's directory, best first.

        Warns of each that cannot be read, and leaves it out.
        """
        found = self.results.histories()
        for reason in self.results.unreadable.values():
            warnings.warn(reason, stacklevel=2)
        return found

    @property
    def comparison(self) -> Comparison:
        """The verdict that sweep.json stored last: `.table` and `.verdict`; `.parts` for jobs scored on different images.

        Before the first verdict, settings are ranked and not tested; `python -m segsweep.sweeps report` makes one.

        Raises:
            UserError: no job is completed yet.
        """
        if self.results.compared is None:
            raise UserError(f"{self.path}: no job is completed yet, so there is nothing to compare")
        return self.results.compared

    def curves(self) -> Figure:
        """The figure of curves.png.

        Raises:
            UserError: no job has logged a value to draw yet.
        """
        return self._require_drawn(sweep_curves(self.results), "no job has logged a value to draw yet")

    def heatmap(self) -> Figure:
        """The figure of heatmap.png.

        Raises:
            UserError: no job has ended yet, or only the seed was swept.
        """
        swept = self.results.record.settings_axes
        reason = "no job has ended yet" if swept else "no setting was swept beside the seed, so there is no heatmap"
        return self._require_drawn(sweep_heatmap(self.results), reason)

    def _require_drawn(self, figure: Figure | None, reason: str) -> Figure:
        if figure is None:
            raise UserError(f"{self.path}: {reason}")
        return figure

    def run(self, directory: str) -> Run:
        """The run of a job, with its best checkpoint; `directory` is the one in `summary`."""
        return load_run(self.path / directory)

    @property
    def runs(self) -> Runs:
        """The runs of the completed jobs, in the order of `summary`: best first."""
        completed = self.summary[self.summary["status"] == "completed"]
        return Runs(tuple(self.path / directory for directory in completed["directory"]))

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, index: int) -> Run:
        return self.runs[index]

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def best(self) -> Run:
        """The best replicate of the best setting, with its best checkpoint.

        Raises:
            UserError: no job is completed yet, or the jobs were scored on different images.
        """
        if self.results.best is None:
            if self.comparison.shared:
                raise UserError(f"{self.path}: each fold is scored on other images; .run(directory) gives any job")
            if why := self.comparison.why:
                raise UserError(
                    f"{self.path}: {why.partition('. ')[0]}, so there is no best job; .run(directory) gives any job"
                )
            raise UserError(f"{self.path}: no job is completed yet, so there is no best job")
        return self.run(self.results.best)

    def __repr__(self) -> str:
        return self._card().text()

    def _repr_html_(self) -> str:
        """The card that Jupyter shows: the heatmap, or the curves if there is none."""
        return self._card().html(sweep_heatmap(self.results) or sweep_curves(self.results))

    def _card(self) -> Card:
        record, table, compared = self.record, self.summary, self.results.compared
        counts = ", ".join(f"{number} {status}" for status, number in table["status"].value_counts().items())
        lines = [f"{len(table)} jobs: {counts}; objective {record.label}"]
        asked = {
            axis: dict.fromkeys(entry_text(record.value_of(job, axis)) for job in record.jobs) for axis in record.axes
        }
        lines.append("swept: " + " ".join(f"{axis}={','.join(values)}" for axis, values in asked.items()))
        if compared is not None:
            lines += compared.sentences()[:2]
        if compared is not None and self.results.has_replicates:
            header, rows = settings_table(compared, details=False)
        else:
            header, rows = jobs_table(record, table, details=False)
        return Card(f"Sweep {relative(self.path)}", lines, header, rows[:_MOST_ROWS])


def load_sweep(path: str | Path) -> Sweep:
    """Reads a sweep, finished or not, from its directory.

    Raises:
        UserError: there is no sweep, or its sweep.json is damaged.
    """
    return Sweep(Results.read(SweepDirectory(Path(path))))
