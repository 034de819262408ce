"""A finished sweep for tests to read, copies of it for tests to continue, and sweeps with made-up results."""

import contextlib
import io
import itertools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, Command, Outcome
from sweep_support import DIVERGED, GRID, TINY, Made, Values

from segsweep.fingerprint import typed
from segsweep.runs import Objective, RunRecord
from segsweep.runs.files import write_json
from segsweep.sweeps.load import load_sweep
from segsweep.sweeps.report import write_report
from segsweep.sweeps.state import FINAL, Job, SweepDirectory, SweepRecord


@pytest.fixture
def sweep(command: Command) -> Callable[..., Outcome]:
    """Sweeps with the given overrides: `sweep("lr=0.1,0.2", "name=mine")`."""
    return lambda *overrides: command("train.py", "-m", *TINY, *overrides)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The sweep directory of `GRID`, and the outcome of its command. Tests must not write into it."""
    from segsweep import cli

    folder = tmp_path_factory.mktemp("finished")
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(folder)
        patch.syspath_prepend(str(ROOT))
        patch.setattr(sys, "argv", [str(ROOT / "train.py"), "-m", *TINY, *GRID, "name=grid"])
        import train as entry

        try:
            cli.run(entry.main)
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
        finally:
            os.environ.pop("HYDRA_FULL_ERROR", None)
    return folder / "multirun/grid", Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture
def grid(finished: tuple[Path, Outcome], tmp_path: Path) -> Path:
    """A copy of the finished sweep, with the times of its files. The command with name=grid continues it."""
    return Path(shutil.copytree(finished[0], tmp_path / "multirun/grid"))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Makes a sweep over `axes`. A job has the objective `score(values)`; None means diverged, "pending" not started."""

    def make(
        axes: dict[str, list[Any]],
        score: Callable[[Values], Any],
        objective: str = "val/iou",
        final: bool = False,
        common: Values | None = None,
    ):
        jobs, folder = [], tmp_path / "made"
        folder.mkdir()
        mode = "min" if objective.endswith("loss") else "max"
        asked = [(dict(zip(axes, values, strict=True)), None) for values in itertools.product(*axes.values())]
        for number, (values, stage) in enumerate([*asked, *([(asked[0][0], FINAL)] if final else [])]):
            name = ",".join([*([FINAL] if stage else []), *(f"{key}={typed(value)}" for key, value in values.items())])
            settings = {"optim": "adam", "lr": 0.1, "momentum": None, "seed": 0} | (common or {}) | values
            scored = {key: value for key, value in values.items() if key.startswith("data.")}
            jobs.append(Job(f"{number:012d}", number, [], name, values, settings, scored=scored, stage=stage))
            if (value := score(values)) == "pending":
                continue
            run = SweepDirectory(folder).run(jobs[-1])
            run.path.mkdir(parents=True)
            record = RunRecord("completed", None, 0, [], Objective(objective, mode, value), seconds=9.0)
            if value is None:
                record.status, record.error = "failed", DIVERGED
            else:
                record.metrics = {objective: value, "test/iou": 0.9, "test/loss": 0.0123}
                run.metrics.write_text(f"step,epoch,{objective}\n50,0,{value / 2}\n100,0,{value}\n")
            record.write(run.record)
        write_json(
            folder / "sweep.json",
            SweepRecord(["lr=0.1,0.2"], {"name": objective, "mode": mode}, jobs, list(axes), "made").to_dict(),
        )
        write_report(SweepDirectory(folder))
        return load_sweep(folder)

    return make
