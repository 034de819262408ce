"""`segsweep train lr=0.1` and `python -m segsweep train lr=0.1`: every command, from any folder."""

import segsweep.interrupt  # first: Ctrl-C ends the other imports in one line

# isort: split
import argparse
import difflib
import sys
from pathlib import Path

from segsweep.console import fail, mistakes_in_one_line, shell_word
from segsweep.invocation import COMMANDS, called

COMMAND_HELP = {
    "train": "train one network, or sweep many with -m",
    "evaluate": "score a trained run",
    "predict": "segment images with a trained run",
    "export": "write a trained net as a file that needs no segsweep",
    "check": "check every file of a folder before a training",
    "runs": "list runs and sweeps: when, name, what was changed, status, objective, path",
    "report": "write the report of a sweep again, even of an unfinished one",
}
"""What each command does."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the command.

    Args:
        arguments: as typed; None for `sys.argv`. Only runs and report can be called with arguments.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("--help", "-h", "help"):
        print("Usage: segsweep COMMAND ...\n")
        print(*(f"  {name:<8}  {what}" for name, what in COMMAND_HELP.items()), sep="\n")
        print("\nsegsweep COMMAND --help lists what a command takes.")
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        print(f"segsweep {segsweep.__version__}")
        return
    if words[0] not in COMMAND_HELP:
        fail(no_command(words))
    if words[0] in COMMANDS.values():
        from segsweep import cli

        cli.run_command(called()[0])
        return
    parser = argparse.ArgumentParser(prog=f"segsweep {words[0]}", description=COMMAND_HELP[words[0]].capitalize() + ".")
    if words[0] == "runs":
        parser.add_argument("folder", type=Path, nargs="*", help="where to look (default: outputs and multirun)")
        parser.add_argument("--json", action="store_true", help="print JSON: a list with an object for each")
    else:
        parser.add_argument("directory", type=Path, help="a sweep directory; it has a sweep.json")
    options = parser.parse_args(words[1:])
    with mistakes_in_one_line():
        if words[0] == "runs":
            from segsweep.listing import list_runs

            list_runs(options.folder, options.json)
        else:
            from segsweep.sweeps.report import print_report, write_report
            from segsweep.sweeps.state import SweepDirectory

            print_report(write_report(SweepDirectory(options.directory)))


def no_command(words: list[str]) -> str:
    """The line for words that begin with no command: with the nearest one, or with train before what train takes."""
    if "=" in words[0] or words[0].startswith("-"):
        return f"{words[0]}: a command comes first; type segsweep train {' '.join(map(shell_word, words))}"
    near = difflib.get_close_matches(words[0].lower(), COMMAND_HELP, n=1, cutoff=0.4)
    return (
        f"{words[0]}: no such command; {f'did you mean {near[0]}? ' if near else ''}there are {', '.join(COMMAND_HELP)}"
    )


if __name__ == "__main__":
    main()
