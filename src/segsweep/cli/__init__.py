"""The command line: the job of each entry point, and one line for a user's mistake."""

from segsweep.cli.commands import check_data, evaluate, export, predict, train
from segsweep.cli.main import run, run_command
from segsweep.cli.start import KnownKeys

__all__ = ["KnownKeys", "check_data", "evaluate", "export", "predict", "run", "run_command", "train"]
