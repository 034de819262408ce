"""A sweep that is killed and continued again and again ends like an uninterrupted one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from same_runs import assert_same_result
from support import ROOT
from sweep_support import TINY, content, statuses

from segsweep.runs import read_metrics

ASKED = [
    "optim=sgd,adam,rmsprop", "trainer.max_steps=40", "trainer.log_every_n_steps=3", "data.limit_samples=22",
    "data.val_size=2", "data.test_size=2",
    "callbacks.last_checkpoint.every_n_steps=5", "momentum=0.5",
]  # fmt: skip
KILLS = 4


def changes(folder: Path, seen: dict[str, int]) -> int:
    """How many files below `folder` have changed since the last call; `seen` keeps their times."""
    number = 0
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            try:
                changed = os.stat(path).st_mtime_ns
            except OSError:
                continue  # renamed meanwhile
            number += seen.get(path) != changed
            seen[path] = changed
    return number


RACE = ["hydra/sweeper=race", "hydra.sweeper.keep=2", "hydra.sweeper.looks=[2,3]"]


def started(folder: Path, name: str, more: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "-m", *TINY, *ASKED, *more, f"name={name}"], cwd=folder, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def assert_no_half_written_file(sweep: Path) -> None:
    for path in sweep.rglob("*.json"):
        json.loads(path.read_text())
    for path in sweep.rglob("*.ckpt"):
        torch.load(path, weights_only=True)
    for path in sweep.rglob("metrics.csv"):
        read_metrics(path)
    for path in sweep.glob("summary.csv"):
        pd.read_csv(path)


def completed(sweep: Path) -> dict[str, bytes]:
    """run.json of every completed job, by its directory."""
    contents = {path.parent.name: path.read_bytes() for path in sweep.glob("*/run.json")}
    return {name: text for name, text in contents.items() if json.loads(text)["status"] == "completed"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("more", [[], RACE], ids=["grid", "race"])
def test_a_sweep_that_is_killed_several_times_ends_like_an_uninterrupted_one(tmp_path: Path, more: list[str]):
    whole, killed = tmp_path / "multirun/whole", tmp_path / "multirun/killed"
    process = started(tmp_path, "whole", more)
    total, seen = 0, {}
    while process.poll() is None:
        total += changes(whole, seen)
        time.sleep(0.01)
    assert process.returncode == 0, process.stdout.read()
    assert total > 40

    # Kill after a number of file changes, not after a time, so that the speed of the machine does not matter.
    rng = random.Random(0)
    done: dict[str, bytes] = {}
    for _ in range(KILLS):
        process, left, seen = started(tmp_path, "killed", more), rng.randint(1, total // 3), {}
        changes(killed, seen)
        while left > 0 and process.poll() is None:
            left -= changes(killed, seen)
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.returncode in (0, -signal.SIGKILL), process.stdout.read()
        assert_no_half_written_file(killed)
        after = completed(killed)
        assert all(after[name] == text for name, text in done.items())
        done = after

    process = started(tmp_path, "killed", more)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert_no_half_written_file(killed)
    assert statuses(killed) == statuses(whole)
    after = completed(killed)
    assert all(after[name] == text for name, text in done.items())
    for name in statuses(whole):
        assert_same_result(whole / name, killed / name)
    jobs = [[{**job} for job in content(sweep)["jobs"]] for sweep in (whole, killed)]
    for job in [*jobs[0], *jobs[1]]:
        job["overrides"] = [override for override in job["overrides"] if not override.startswith("name=")]
    assert jobs[0] == jobs[1]
    assert content(whole)["race"] == content(killed)["race"]
    tables = [pd.read_csv(sweep / "summary.csv").drop(columns="seconds") for sweep in (whole, killed)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    # At least one kill interrupted a training.
    assert any(json.loads(path.read_text())["continued_at"] for path in killed.glob("*/run.json"))
