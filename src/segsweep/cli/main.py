"""Shared by all entry points: resolvers for folder names and help, `run`, and `run_command`."""

import hashlib
import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from segsweep.cli import commands
from segsweep.cli.slips import refuse_slips, whole_numbers
from segsweep.cli.start import how_to_continue, new_folder, started
from segsweep.cli.unbegun import made, remove_unbegun
from segsweep.console import explain, fail
from segsweep.errors import UserError, signal_behind
from segsweep.fingerprint import NAME
from segsweep.invocation import COMMANDS, called, conf_folder, to_type
from segsweep.keys import opened
from segsweep.sweeps.callback import finish_sweep


def run_folder(resume: str | None, name: str | None) -> str:
    """The directory of a single run: a new one, with the run's name in its name, or the one to resume."""
    if resume is None:
        return new_folder("outputs", None if name is None else str(name))
    if not (Path(resume) / "run.json").is_file():
        raise UserError(f"resume={resume}: no run there; give a run directory, which holds a run.json")
    return str(resume)


def sweep_folder(name: str | None) -> str:
    """The directory of a sweep: a new one, or `multirun/<name>`, where a sweep of that name is continued."""
    if name is None:
        return new_folder("multirun")
    if not re.fullmatch(NAME, str(name)):
        raise UserError(f"name={name}: must be letters, digits, spaces and . , = + - _ only")
    return str(Path("multirun") / str(name))


def hydra_subdir(resume: str | None) -> str | None:
    """Where Hydra writes its files; None on resume, which keeps those of the first start."""
    return ".hydra" if resume is None else None


def job_folder(dirname: str) -> str:
    """The name of a job's folder under a sweeper that is not ours: its overrides, in at most 120 characters."""
    name = re.sub(r"[^\w.,=+-]+", "-", dirname).lstrip(".") or "job"
    return name if len(name) <= 120 else f"{name[:107]}-{hashlib.sha256(dirname.encode()).hexdigest()[:12]}"


def typed(command: str) -> str:
    """What is typed for a command, in a template of Hydra's help, where a $ begins a name."""
    return to_type(command).replace("$", "$$")


for _resolver in (run_folder, sweep_folder, hydra_subdir, new_folder, job_folder):
    OmegaConf.register_new_resolver(_resolver.__name__, _resolver, use_cache=True, replace=True)
OmegaConf.register_new_resolver(typed.__name__, typed, replace=True)


def run(main: Callable[[], object]) -> None:
    """Runs a Hydra entry point. A user's mistake prints one line on stderr and exits with code 1, without a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack letters of file names
        sys.stdout.reconfigure(errors="backslashreplace")
    full_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Makes Hydra raise the exception instead of printing it in several lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    succeeded, started.what = True, None
    made.clear()
    try:
        try:
            command, words = called()
            refuse_slips(command, words)
            sys.argv[1:] = opened(command, whole_numbers(words))
            main()
        finally:
            succeeded = finish_sweep()
    except SystemExit:  # a mistake whose line is printed already
        remove_unbegun()
        raise
    except BaseException as error:
        if (stopped := signal_behind(error)) is not None:
            lines = how_to_continue(stopped)
            remove_unbegun()
            print(*lines, sep="\n", file=sys.stderr)
            sys.exit(128 + stopped.signum)
        line = explain(error) if isinstance(error, Exception) and not full_traceback else None
        if line is None:
            raise
        remove_unbegun()
        fail(line)
    if not succeeded:
        sys.exit(1)


def run_command(command: str) -> None:
    """Runs `segsweep train lr=0.1` from `sys.argv`, as `python train.py lr=0.1` runs.

    Args:
        command: a key of `COMMANDS`.
    """
    program, words = sys.argv[0], called()[1]

    def job(config: DictConfig) -> object:
        # ddp starts sys.argv again in its other processes; a worker of a launcher may have none of ours.
        sys.argv = [program, COMMANDS[command], *words]
        return getattr(commands, command)(config)

    sys.argv = [f"{program} {COMMANDS[command]}", *words]  # Hydra takes all words for overrides
    run(hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=command)(job))
