"""What one training leaves on disk, and how to read it back."""

from segsweep.root_settings import ObjectiveAt
from segsweep.runs.directory import Objective, RunDirectory, RunRecord, git_state, objective_mode, versions
from segsweep.runs.metrics_csv import MetricsCSV, read_metrics

__all__ = [
    "MetricsCSV",
    "Objective",
    "ObjectiveAt",
    "RunDirectory",
    "RunRecord",
    "git_state",
    "objective_mode",
    "read_metrics",
    "versions",
]
