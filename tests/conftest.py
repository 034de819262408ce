"""Shared fixtures: run the real command line in this process, and train a small run."""

import importlib
import os
import sys

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported: the threads of parallel workers would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import ROOT, SMALL, Command, Outcome


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that run a command as slow, and all but the first case of a test marked `quick`.

    Skip tests marked `gpu` where there is none.
    """
    without_gpu = not torch.cuda.is_available()
    kept = set()
    for item in items:
        function, quick = item.nodeid.partition("[")[0], item.get_closest_marker("quick")
        if quick and function not in kept:
            kept.add(function)
        elif quick or "command" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")
        if without_gpu and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="torch sees no CUDA GPU on this machine"))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs an entry point with tmp_path as the working directory: `command("train.py", "lr=0.1")`, or a whole path."""

    def run(script: str, *arguments: str) -> Outcome:
        from segsweep import cli

        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(ROOT))
        monkeypatch.setattr(sys, "argv", [str(ROOT / script), *arguments])
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        main = importlib.import_module(Path(script).stem).main
        capsys.readouterr()
        code = 0
        try:
            cli.run(main)
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
        finally:
            os.environ.pop("HYDRA_FULL_ERROR", None)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def train(command: Command, tmp_path: Path) -> Callable[..., Path]:
    """Trains a small run with more overrides, and returns the run directory."""

    def run(*overrides: str, folder: str = "run") -> Path:
        outcome = command("train.py", *SMALL, f"hydra.run.dir={folder}", *overrides)
        assert outcome.code == 0, outcome.err
        return tmp_path / folder

    return run
