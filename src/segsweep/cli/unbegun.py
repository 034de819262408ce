"""Folders of runs and sweeps that never began: a typing mistake or a missing GPU leaves none behind."""

import contextlib
import json
import os
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from segsweep.invocation import called

made: list[Path] = []
"""Folders that were not there before this command, outer ones first."""
_AT_START = (".hydra", ".lock", ".sweep.lock", "multirun.yaml", "config.yaml", "run.json", "loggers.json", "wandb")
"""What the folder of a run or sweep has before anything is built, beside the log."""


def absent(folder: Path) -> list[Path]:
    """Those of a folder and the folders above it that do not exist, outer ones first."""
    return [path for path in (*reversed(folder.parents), folder) if not os.path.lexists(path)]


def remove_unbegun() -> None:
    """Removes the folder of a run or sweep that never began, if this command made it, and the empty folders above it.

    Such a folder holds what is written at the start, and a run.json that only says which mistake ended the run.
    """
    at_start = {*_AT_START, f"{called()[0]}.log"}
    with contextlib.suppress(OSError, Timeout):
        if not made or {path.name for path in made[-1].iterdir()} - at_start:
            return
        lock = made[-1] / ".lock"
        # Another process may train there.
        with FileLock(lock, timeout=0) if lock.exists() else contextlib.nullcontext():
            if (record := made[-1] / "run.json").exists():
                content = json.loads(record.read_text(encoding="utf-8"))
                if content["status"] != "failed" or content["device"] is not None:
                    return
            shutil.rmtree(made[-1])
        for folder in reversed(made[:-1]):
            folder.rmdir()
