"""What one training leaves on disk, and how to read it back."""

from segsweep.runs.directory import RunDirectory
from segsweep.runs.metrics_csv import MetricsCSV, read_metrics
from segsweep.runs.record import Objective, RunRecord, git_state, objective_mode, versions

__all__ = [
    "MetricsCSV",
    "Objective",
    "RunDirectory",
    "RunRecord",
    "git_state",
    "objective_mode",
    "read_metrics",
    "versions",
]
