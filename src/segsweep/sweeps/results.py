"""A sweep as far as it has come, read once and handed around: to tables, pictures, and whoever asks for the best."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from segsweep.runs import RunRecord
from segsweep.sweeps.ranking import best_directory, comparison, summary
from segsweep.sweeps.state import SweepDirectory, SweepRecord
from segsweep.sweeps.statistics import Comparison


@dataclass(frozen=True)
class Results:
    """What the files of a sweep say.

    Attributes:
        sweep: the directory.
        record: sweep.json, with the status of each job as its run.json has it.
        runs: run.json of every job that has one, by the job's directory.
    """

    sweep: SweepDirectory
    record: SweepRecord
    runs: Mapping[str, RunRecord]

    @classmethod
    def read(cls, sweep: SweepDirectory) -> "Results":
        """Reads sweep.json, which may be behind, and every run.json.

        Raises:
            UserError: there is no sweep, or its sweep.json is damaged.
        """
        record = sweep.read()
        found = {job.directory: sweep.refresh(job) for job in record.jobs}
        return cls(sweep, record, {name: run for name, run in found.items() if run is not None})

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per job, the best first; see `ranking.summary`."""
        return summary(self.record, self.runs)

    @cached_property
    def compared(self) -> Comparison | None:
        """Which settings are really worse than the best; None before there is a finished job."""
        return comparison(self.record, self.table)

    @cached_property
    def best(self) -> str | None:
        """Directory of the job to take; see `ranking.best_directory`."""
        return best_directory(self.record, self.table, self.compared)
