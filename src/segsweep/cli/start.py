"""The start of a command, before anything heavy is imported: checks what was typed, and says what will be done where."""

import contextlib
import gc
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segsweep import interrupt
from segsweep.cli.unbegun import absent, made
from segsweep.console import as_typed, mistakes_in_one_line, quoted, relative, shell_word
from segsweep.errors import Interrupted, UserError
from segsweep.invocation import called, to_type
from segsweep.keys import require_known, typed_keys
from segsweep.root_settings import check_root


def free_folder(parent: str, ending: str | None = None) -> Path:
    """A folder `<parent>/<date>/<time>[-<ending>]` that does not exist, numbered if another command has its name."""
    now = datetime.now()
    for attempt in range(1, 1000):
        parts = [f"{now:%H-%M-%S}", *([ending] if ending else []), *([str(attempt)] if attempt > 1 else [])]
        folder = Path(parent) / f"{now:%Y-%m-%d}" / "-".join(parts)
        if not os.path.lexists(folder):
            return folder
    raise OSError(f"{parent}: no free folder name at {now:%H-%M-%S}")


def new_folder(parent: str, ending: str | None = None) -> str:
    """Makes and returns a `free_folder`; two commands never share one."""
    while True:
        folder = free_folder(parent, ending)
        new = absent(folder)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if os.path.lexists(folder):
                continue  # another command has just made it
            raise
        made.extend(new)
        return str(folder)


@dataclass
class Started:
    """What this process trains, and where; None for other commands, and before the first checks have passed."""

    what: Literal["run", "sweep"] | None = None
    folder: Path = Path()


started = Started()

FIRST_PROCESS = os.environ.get("LOCAL_RANK", "0") == "0"
"""ddp starts the command again in its other processes; these print nothing."""


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Pauses garbage collection while torch and Lightning are imported, and exempts what they made from it.

    The collector would pass over these million objects during the import and again at the exit, and find nothing to free.
    """
    if "torch" in sys.modules:  # another job of this process came first: freezing again would keep that job's garbage
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class KnownKeys(Callback):
    """Refuses unknown keys, wrong values at the root, and keys that do not go together; says which sweep starts.

    It does so before any folder is made; in a sweep once. Refuses a run directory with links that lead out of it.

    Args:
        command: name of the configuration, a key of `keys.KEYS`.
    """

    def __init__(self, command: str) -> None:
        self.command = command

    def on_run_start(self, config: DictConfig, **_: object) -> None:
        with mistakes_in_one_line():  # Hydra only logs an exception of a callback
            require_known(config, self.command, typed_keys(config))
            if config.get("resume") is not None and config.get("init") is not None:
                raise UserError(
                    f"init={config.init}: begins a new run, and resume={config.resume} goes on with one; leave one out"
                )
            speed = config.hydra.runtime.choices.get("debug") == "speed"
            if speed and config.hydra.mode is RunMode.MULTIRUN:
                raise UserError(
                    "debug=speed: measures a single training; leave out -m, and use its result in the sweep"
                )
            if speed and config.resume is not None:
                raise UserError(f"debug=speed: measures a new training; leave out resume={config.resume}")
            if self.command == "train":
                check_early(config)
                require_joint_axis(config)
            sweep = config.hydra.mode is RunMode.MULTIRUN
            if not sweep:  # a sweep may vary it
                require_root(config)
            folder = Path(str(config.hydra.sweep.dir if sweep else config.hydra.run.dir))
            made.extend(absent(folder))
            if self.command == "train" and not sweep and folder.is_dir() and any(folder.iterdir()):
                with importing():
                    from segsweep.runs import RunDirectory

                RunDirectory(folder).require_inside()  # before Hydra opens train.log there
            if sweep and self.command == "train":
                begin_sweep(config)

    on_multirun_start = on_run_start


def check_early(config: DictConfig) -> None:
    """Refuses wrong values of a training that can be seen without torch.

    Raises:
        UserError: names the key and the value.
    """
    try:
        settings: dict[str, Any] = {
            str(key): config[key] for key in ("lr", "momentum", "seed", "name", "objective", "objective_at", "init")
        }
        settings |= {"on_error": config.on_error, "code": None if config.code is None else ""}
    except OmegaConfBaseException:
        return  # a missing value, or an interpolation of a swept key: the job checks it
    check_root(settings)


def require_root(config: DictConfig) -> None:
    """Refuses a data folder that is not given, or empty: `data.root=`."""
    if not isinstance(data := config.get("data"), DictConfig):
        return
    if OmegaConf.is_missing(data, "root") or OmegaConf.select(data, "root") == "":
        raise UserError("data.root: needs a value; give a folder of images and masks, as in data.root=my_images")


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


def begin_sweep(config: DictConfig) -> None:
    """Says which sweep starts or continues."""
    try:
        folder = Path(str(config.hydra.sweep.dir))
    except OmegaConfBaseException:  # its name is swept: the sweeper refuses that
        return
    started.what, started.folder = "sweep", folder
    say(f"{'continuing the sweep' if (folder / 'sweep.json').exists() else 'sweep'} in {relative(folder)}")


def say(line: str) -> None:
    """Prints a line at once."""
    if FIRST_PROCESS:
        print(line, flush=True)


def how_to_continue(interruption: Interrupted) -> list[str]:
    """Lines after a signal: what is saved, where, and the command that continues it.

    Reads JSON alone, because importing torch here could take seconds.
    """
    stopped, folder, what = str(interruption), started.folder, started.what
    if what is None or not FIRST_PROCESS:
        return [stopped]
    shown, script, arguments = relative(folder), to_type(), called()[1]
    try:
        content = json.loads((folder / f"{what}.json").read_text(encoding="utf-8"))
        if what == "sweep":
            completed = sum(job["status"] == "completed" for job in content["jobs"])
            words = [as_typed(word) for word in arguments]
            if content["name"] is None and not any(word.startswith("hydra.sweep.dir=") for word in words):
                words.append(quoted("hydra.sweep.dir", shown))
            typed = " ".join(map(shell_word, words))
            return [
                f"{stopped}; {completed} of {len(content['jobs'])} jobs are completed, in {shown}",
                f"continue with: {script} {typed}",
            ]
        if content["status"] == "completed":
            return [f"{stopped}; the run is complete, in {shown}"]
        saved = (folder / "checkpoints/last.ckpt").exists()
        at = f" at step {content['steps']:,}; the checkpoint is" if saved else " before the first checkpoint"
        # A stored `code` is not trusted, nor where stored loggers write to: they are typed again.
        again = [quoted("resume", shown), *(word for word in arguments if re.match(r"code=|\+*logger[.=]", word))]
        verb = "continue" if saved else "start again"
        return [f"{stopped}{at} in {shown}", f"{verb} with: {script} {' '.join(map(shell_word, again))}"]
    except (OSError, ValueError, LookupError, TypeError):
        return [f"{stopped} before the {'training' if what == 'run' else what} began"]


interrupt.last_words = how_to_continue
