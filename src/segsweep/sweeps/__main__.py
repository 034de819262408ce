"""`python -m segsweep.sweeps report DIR` writes the report of a sweep again, even of an unfinished one."""

import argparse
import sys
from pathlib import Path

from segsweep.console import explain
from segsweep.sweeps.report import print_report, write_report
from segsweep.sweeps.state import SweepDirectory


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    Args:
        arguments: as typed; None for `sys.argv`.
    """
    parser = argparse.ArgumentParser(prog="python -m segsweep.sweeps", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser("report", help="write tables, pictures and HPARAMS again")
    report.add_argument("directory", type=Path, help="a sweep directory; it has a sweep.json")
    directory = parser.parse_args(arguments).directory
    try:
        print_report(write_report(SweepDirectory(directory)))
    except Exception as error:
        if (line := explain(error)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
