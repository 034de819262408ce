"""Reads a sweep back from its directory."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from segsweep.errors import UserError
from segsweep.runs.load import Run, load_run
from segsweep.sweeps.figures import sweep_curves, sweep_heatmap
from segsweep.sweeps.ranking import Comparison
from segsweep.sweeps.results import Results
from segsweep.sweeps.state import SweepDirectory, SweepRecord


@dataclass(frozen=True)
class Sweep:
    """A sweep, finished or not, as it was when it was read."""

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
        """metrics.csv of every job that has logged anything, by the job's directory, best first."""
        return self.results.histories()

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


def load_sweep(path: str | Path) -> Sweep:
    """Reads a sweep, finished or not, from its directory.

    Raises:
        UserError: there is no sweep, or its sweep.json is damaged.
    """
    return Sweep(Results.read(SweepDirectory(Path(path))))
