"""How this process was called, and what to type for another command: `segsweep evaluate` or `python evaluate.py`."""

import shlex
import sys
from pathlib import Path

COMMANDS = {"train": "train", "evaluate": "evaluate", "predict": "predict", "export": "export", "check_data": "check"}
"""Commands with a configuration: the name of conf/<name>.yaml and of <name>.py, and the word after `segsweep`."""


def called() -> tuple[str, list[str]]:
    """The command of this process, a key of `COMMANDS`, and its arguments; of another program the name of its file.

    `sys.argv` is all that is read, because worker processes of multiprocessing and joblib get it too. Hydra sees the word
    after `segsweep` joined to the program, "bin/segsweep train": the rest are its overrides.
    """
    program, words = Path(sys.argv[0]), sys.argv[1:]
    name, _, word = program.name.partition(" ")
    if name in ("segsweep", "segsweep.exe") or (name, program.parent.name) == ("__main__.py", "segsweep"):
        if not word and words:
            word, *words = words
        return next((command for command, typed in COMMANDS.items() if typed == word), word), words
    return program.stem, words


def to_type(command: str | None = None) -> str:
    """What is typed for a command: "python evaluate.py" where this process is one of the scripts, else "segsweep evaluate".

    Args:
        command: a key of `COMMANDS`; None for the command of this process.
    """
    program = Path(sys.argv[0])
    command = command or called()[0]
    if command not in COMMANDS:
        return f"python {shlex.quote(sys.argv[0])}"
    script = program.with_name(f"{command}.py")
    if program.suffix == ".py" and program.stem in COMMANDS and script.is_file():
        return f"python {shlex.quote(str(script))}"
    return f"segsweep {COMMANDS[command]}"


def conf_folder() -> Path:
    """The folder of the configuration: in an installed package beside its modules, in a clone at the root."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "conf"
