"""`python -m segsweep runs [FOLDER] ...` lists runs and sweeps."""

import argparse
from pathlib import Path

from segsweep.console import mistakes_in_one_line
from segsweep.listing import list_runs


def main(arguments: list[str] | None = None) -> None:
    """Runs the command.

    Args:
        arguments: as typed; None for `sys.argv`.
    """
    parser = argparse.ArgumentParser(prog="python -m segsweep", description="Tools for what training leaves on disk.")
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser(
        "runs", help="list runs and sweeps: when, name, what was changed, status, objective, path"
    )
    runs.add_argument("folder", type=Path, nargs="*", help="where to look (default: outputs and multirun)")
    runs.add_argument("--json", action="store_true", help="print JSON: a list with an object for each")
    options = parser.parse_args(arguments)
    with mistakes_in_one_line():
        list_runs(options.folder, options.json)


if __name__ == "__main__":
    main()
