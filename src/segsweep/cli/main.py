"""Shared by all entry points: resolvers for folder names, the check for unknown keys, and `run`."""

import hashlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from segsweep.console import explain, fail, mistakes_in_one_line
from segsweep.errors import UserError
from segsweep.fingerprint import NAME
from segsweep.keys import opened, require_known, typed_keys
from segsweep.sweeps.callback import finish_sweep


def new_folder(parent: str) -> str:
    """Makes the folder `<parent>/<date>/<time>`, numbered if it exists, so that two commands never share one."""
    now = datetime.now()
    for attempt in range(1, 1000):
        folder = Path(parent) / f"{now:%Y-%m-%d}" / (f"{now:%H-%M-%S}" + (f"-{attempt}" if attempt > 1 else ""))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not folder.is_dir():
                raise
            continue
        return str(folder)
    raise OSError(f"{parent}: no free folder name at {now:%H-%M-%S}")


def run_folder(resume: str | None) -> str:
    """The directory of a single run: a new one, or the one to resume."""
    if resume is None:
        return new_folder("outputs")
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


for _resolver in (run_folder, sweep_folder, hydra_subdir, new_folder, job_folder):
    OmegaConf.register_new_resolver(_resolver.__name__, _resolver, use_cache=True, replace=True)


def run(main: Callable[[], object]) -> None:
    """Runs a Hydra entry point. A user's mistake prints one line on stderr and exits with code 1, without a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack letters of file names
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.argv[1:] = opened(Path(sys.argv[0]).stem, sys.argv[1:])
    full_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Makes Hydra raise the exception instead of printing it in several lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    succeeded = True
    try:
        try:
            main()
        finally:
            succeeded = finish_sweep()
    except Exception as error:
        line = None if full_traceback else explain(error)
        if line is None:
            raise
        fail(line)
    except BaseException as error:
        signum = getattr(error, "signum", signal.SIGINT if isinstance(error, KeyboardInterrupt) else None)
        if signum is None:
            raise
        print(f"stopped by {signal.Signals(signum).name}", file=sys.stderr)
        sys.exit(128 + signum)
    if not succeeded:
        sys.exit(1)


class KnownKeys(Callback):
    """Refuses unknown keys at the root of the configuration, and keys that do not go together.

    It does so before any folder is made; in a sweep once.

    Args:
        command: name of the configuration, a key of `keys.KEYS`.
    """

    def __init__(self, command: str) -> None:
        self.command = command

    def on_run_start(self, config: DictConfig, **_: object) -> None:
        with mistakes_in_one_line():  # Hydra only logs an exception of a callback
            require_known(config, self.command, typed_keys(config))
            if config.hydra.runtime.choices.get("debug") == "speed":
                if config.hydra.mode is RunMode.MULTIRUN:
                    raise UserError(
                        "debug=speed: measures a single training; leave out -m, and use its result in the sweep"
                    )
                if config.resume is not None:
                    raise UserError(f"debug=speed: measures a new training; leave out resume={config.resume}")
            if self.command == "train":
                require_joint_axis(config)

    on_multirun_start = on_run_start


def require_joint_axis(config: DictConfig) -> None:
    """Refuses settings_of and keep where nothing reads them.

    Args:
        config: with Hydra's node.

    Raises:
        UserError: names the key and what to type.
    """
    sweeper, chosen = config.hydra.sweeper, config.hydra.runtime.choices.get("hydra/sweeper")
    settings_of, keep = sweeper.get("settings_of"), sweeper.get("keep")
    if "settings_of" not in sweeper:
        if keep is not None and chosen != "race":  # a race has a `keep` of its own
            raise UserError(f"keep={keep}: needs a sweep to take settings from; add settings_of=multirun/NAME")
        return
    if settings_of in (None, ""):
        raise UserError("settings_of: needs a value; give a sweep directory, as in settings_of=multirun/first")
    if config.hydra.mode is not RunMode.MULTIRUN:
        raise UserError(f"settings_of={settings_of}: starts a sweep; add -m")
    if chosen != "grid":
        raise UserError(f"settings_of={settings_of}: needs hydra/sweeper=grid; leave out hydra/sweeper={chosen}")
    if sweeper.get("final"):
        raise UserError(
            f"settings_of={settings_of}: has no final training; leave out hydra.sweeper.final, or take the best setting "
            "with keep=1 and a new seed"
        )
