"""A sweep, read back from its directory."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from segsweep.errors import UserError
from segsweep.runs.load import Run, load_run
from segsweep.sweeps.pictures import sweep_curves, sweep_heatmap
from segsweep.sweeps.ranking import best_directory, comparison, histories, summary
from segsweep.sweeps.record import SweepDirectory, SweepRecord
from segsweep.sweeps.statistics import Comparison


@dataclass(frozen=True)
class Sweep:
    """A sweep, as far as it has come when it is read."""

    directory: SweepDirectory
    record: SweepRecord
    """sweep.json."""

    @property
    def path(self) -> Path:
        return self.directory.path

    @property
    def axes(self) -> list[str]:
        """The swept keys."""
        return list(self.record.axes)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A row per job, the best first; the columns are those of summary.csv."""
        return summary(self.directory, self.record)

    @cached_property
    def histories(self) -> dict[str, pd.DataFrame]:
        """metrics.csv of every job that has begun, by the job's directory, best first."""
        found = histories(self.directory, self.record)
        return {name: found[name] for name in self.summary["directory"] if name in found}

    @cached_property
    def comparison(self) -> Comparison:
        """Which settings are really worse than the best: `.table`, `.verdict`; `.parts` of jobs scored on other images.

        Raises:
            UserError: no job is completed yet.
        """
        found = comparison(self.record, self.summary)
        if found is None:
            raise UserError(f"{self.path}: no job is completed yet, so there is nothing to compare")
        return found

    def curves(self) -> Figure:
        """What curves.png shows.

        Raises:
            UserError: no job has logged anything yet.
        """
        return self._drawn(sweep_curves(self.record, self.summary, histories(self.directory, self.record)))

    def heatmap(self) -> Figure:
        """What heatmap.png shows.

        Raises:
            UserError: no job has ended yet, or nothing but the seed was swept.
        """
        return self._drawn(sweep_heatmap(self.record, self.summary))

    def _drawn(self, figure: Figure | None) -> Figure:
        if figure is None:
            raise UserError(f"{self.path}: there is nothing to draw yet")
        return figure

    def run(self, directory: str) -> Run:
        """The run of one job, by its directory as in `summary`, with its best checkpoint."""
        return load_run(self.path / directory)

    def best(self) -> Run:
        """The best replicate of the best setting, with its best checkpoint.

        Raises:
            UserError: no job is completed yet, or they were scored on other images.
        """
        directory = best_directory(self.record, self.summary)
        if directory is None:
            if why := self.comparison.why:
                raise UserError(f"{self.path}: {why}, so there is no best one; .run(directory) gives any")
            raise UserError(f"{self.path}: no job is completed yet, so there is no best one")
        return self.run(directory)


def load_sweep(path: str | Path) -> Sweep:
    """A sweep from its directory, also one that is not finished.

    Raises:
        UserError: there is no sweep, or its sweep.json is damaged.
    """
    directory = SweepDirectory(Path(path))
    record = directory.read()
    for job in record.jobs:
        directory.refresh(job)
    return Sweep(directory, record)
