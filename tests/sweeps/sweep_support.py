"""A small sweep for the tests of sweeps, and functions that read one."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import SMALL, Outcome

from segsweep.sweeps.load import Sweep as LoadedSweep

# Draws no pictures of single runs.
TINY = [*SMALL, "callbacks.panel=null", "callbacks.confusion=null"]
GRID = ["optim=sgd,adam", "lr=0.001,0.01"]
TRAP = "+callbacks.trap._target_=traps.Trap"

Sweep = Callable[..., Outcome]
Values = dict[str, Any]
Made = Callable[..., LoadedSweep]
DIVERGED = "DivergedError: loss or weights became NaN or infinite at step 512"


def installed(plugin: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(plugin) is None, reason=f"{plugin} is not installed")


def content(sweep: Path) -> dict[str, Any]:
    """sweep.json."""
    return json.loads((sweep / "sweep.json").read_text())


def statuses(sweep: Path) -> dict[str, str]:
    """The status of every job, by its directory."""
    return {job["directory"]: job["status"] for job in content(sweep)["jobs"]}


def run_record(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())


def state(folder: Path, without: tuple[str, ...] = (".hparams", ".lock")) -> dict[str, tuple[int, bytes]]:
    """Modification time and bytes of every file, without HPARAMS, which every report may replace, and empty lock files."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(without)
    }


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"]


def same_weights(one: Path, other: Path) -> bool:
    pairs = [(weights(one, name), weights(other, name)) for name in ("last", "best")]
    return all(
        first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
        for first, second in pairs
    )
