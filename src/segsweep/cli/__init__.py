"""The command line: what each entry point runs, and one line for a user's mistake.

Nothing heavy is imported before there is something to do: `--help` and a mistyped key should answer at once.
"""

from segsweep.cli.commands import check_data, evaluate, export, predict, train
from segsweep.cli.main import KnownKeys, run

__all__ = ["KnownKeys", "check_data", "evaluate", "export", "predict", "run", "train"]
