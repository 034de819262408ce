"""A finished sweep that tests read, and copies of it that tests go on with."""

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import ROOT, Command, Outcome
from sweep_support import GRID, TINY


@pytest.fixture
def sweep(command: Command) -> Callable[..., Outcome]:
    """Sweeps with the given overrides: `sweep("lr=0.1,0.2", "name=mine")`."""
    return lambda *overrides: command("train.py", "-m", *TINY, *overrides)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The sweep directory of `GRID`, and how its command ended; not to be written to."""
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
    """A copy of the finished sweep, with the times of its files, that can be gone on with under its name."""
    return Path(shutil.copytree(finished[0], tmp_path / "multirun/grid"))
