"""A signal at any moment of a sweep's command ends it without a traceback, and the same command continues the sweep."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import ROOT
from sweep_support import TINY, statuses

MOMENTS = 20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def started(folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, str(ROOT / "train.py"), "-m", *TINY, "seed=0,1,2", "name=cut"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_signal_at_any_moment_ends_the_command_without_a_traceback(tmp_path: Path):
    began = time.monotonic()
    _, err = started(tmp_path).communicate()
    whole = time.monotonic() - began
    sweep = tmp_path / "multirun/cut"
    assert set(statuses(sweep).values()) == {"completed"}, err
    for moment in range(MOMENTS):
        done = [name for name, status in statuses(sweep).items() if status == "completed"]
        for name in done[1:]:  # so that the next command has something to train
            (sweep / name / "run.json").unlink(missing_ok=True)
        kept = (sweep / done[0] / "checkpoints/last.ckpt").read_bytes() if done else b""
        process, signum = started(tmp_path), (signal.SIGINT, signal.SIGTERM)[moment % 2]
        time.sleep(0.1 + whole * moment / MOMENTS)
        process.send_signal(signum)
        out, err = process.communicate(timeout=120)
        # Python itself ends by the signal before it runs any code, and after all of it.
        assert process.returncode in (128 + signum, -signum, 0), (moment, out, err)
        lines = err.splitlines()
        assert (process.returncode == 128 + signum) == bool(lines), (moment, err)
        if lines:
            assert lines[0].startswith(f"stopped by {'Ctrl-C' if signum == signal.SIGINT else 'SIGTERM'}"), (
                moment,
                err,
            )
            assert [line.partition(":")[0] for line in lines[1:]] in ([], ["continue with"]), (moment, err)
        assert not done or (sweep / done[0] / "checkpoints/last.ckpt").read_bytes() == kept
        assert not list(sweep.rglob("*.tmp"))
    _, err = started(tmp_path).communicate()
    assert set(statuses(sweep).values()) == {"completed"}, err
