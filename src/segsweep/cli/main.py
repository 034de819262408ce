"""What all entry points share: names of new folders, unknown keys refused, and one line for a user's mistake."""

import hashlib
import os
import re
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from segsweep.console import explain, fail, mistakes_in_one_line
from segsweep.errors import UserError
from segsweep.fingerprint import NAME
from segsweep.keys import opened, require_known, typed_keys
from segsweep.sweeps.callback import finish_sweep


def new_folder(parent: str) -> str:
    """A folder `<parent>/<date>/<time>` that nobody has; made here, so that nobody else gets it in the same second."""
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
    """Where a single run goes: a folder of its own, or that of the run it continues."""
    if resume is None:
        return new_folder("outputs")
    if not (Path(resume) / "run.json").is_file():
        raise UserError(f"resume={resume}: no run there; give a run directory, one with a run.json")
    return str(resume)


def sweep_folder(name: str | None) -> str:
    """Where a sweep goes: a folder of its own, or that of its name, in which it is continued."""
    if name is None:
        return new_folder("multirun")
    if not re.fullmatch(NAME, str(name)):
        raise UserError(f"name={name}: must be letters, digits, spaces and . , = + - _ only")
    return str(Path("multirun") / str(name))


def hydra_subdir(resume: str | None) -> str | None:
    """None where a run is continued: what Hydra wrote when it was begun stays."""
    return ".hydra" if resume is None else None


def job_folder(dirname: str) -> str:
    """The folder of a job that another sweeper than ours asks for, from its overrides; no longer than a folder's name."""
    name = re.sub(r"[^\w.,=+-]+", "-", dirname).lstrip(".") or "job"
    return name if len(name) <= 120 else f"{name[:107]}-{hashlib.sha256(dirname.encode()).hexdigest()[:12]}"


for _resolver in (run_folder, sweep_folder, hydra_subdir, new_folder, job_folder):
    OmegaConf.register_new_resolver(_resolver.__name__, _resolver, use_cache=True, replace=True)


def run(main: Callable[[], object]) -> None:
    """Runs a Hydra entry point; a user's mistake ends in one line on stderr and exit code 1, without a traceback."""
    sys.argv[1:] = opened(Path(sys.argv[0]).stem, sys.argv[1:])
    asked_for_more = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra then hands us the exception instead of printing it in several lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    well = True
    try:
        try:
            main()
        finally:
            well = finish_sweep()
    except Exception as error:
        line = None if asked_for_more else explain(error)
        if line is None:
            raise
        fail(line)
    except BaseException as error:
        signum = getattr(error, "signum", signal.SIGINT if isinstance(error, KeyboardInterrupt) else None)
        if signum is None:
            raise
        print(f"stopped by {signal.Signals(signum).name}", file=sys.stderr)
        sys.exit(128 + signum)
    if not well:
        sys.exit(1)


class KnownKeys(Callback):
    """Refuses unknown keys at the root of a command's configuration before anything is made, and once for a sweep.

    Args:
        command: in whose configuration this callback is; a key of `keys.KEYS`.
    """

    def __init__(self, command: str) -> None:
        self.command = command

    def on_run_start(self, config: DictConfig, **_: object) -> None:
        with mistakes_in_one_line():  # Hydra would go on
            require_known(config, self.command, typed_keys(config))

    on_multirun_start = on_run_start
