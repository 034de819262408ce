"""run.json is read as it was written, and holds the versions that a result depends on."""

import dataclasses
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segsweep.runs import Objective, RunRecord, git_state, objective_mode, versions
from segsweep.runs.directory import PACKAGES

numbers = st.floats(allow_nan=False, allow_infinity=False)
records = st.builds(
    RunRecord,
    status=st.sampled_from(["running", "completed", "failed", "interrupted"]),
    name=st.none() | st.text(),
    seed=st.integers(0, 2**32),
    overrides=st.lists(st.text(), max_size=3),
    objective=st.builds(Objective, st.just("val/iou"), st.sampled_from(["min", "max"]), st.none() | numbers),
    metrics=st.dictionaries(st.text(min_size=1), numbers, max_size=4),
    best_checkpoint=st.none() | st.just("checkpoints/best.ckpt"),
    best_step=st.none() | st.integers(0, 10**9),
    steps=st.integers(0, 10**9),
    seconds=st.floats(0, 1e9),
    steps_per_second=st.none() | st.floats(0, 1e9),
    parameters=st.none() | st.integers(0, 10**12),
    device=st.none() | st.text(),
    git=st.none() | st.just({"commit": "0" * 40, "dirty": True}),
    error=st.none() | st.text(),
    traceback=st.none() | st.text(),
)


def minimal(**changes: Any) -> RunRecord:
    return RunRecord("completed", None, 0, [], Objective("val/iou", "max", 0.5), **changes)


@given(records)
@settings(max_examples=60, deadline=None)
def test_record_comes_back_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, record: RunRecord):
    path = tmp_path_factory.getbasetemp() / "run.json"
    record.write(path)
    assert RunRecord.read(path) == record


def test_file_has_the_keys_that_other_tools_read(tmp_path: Path):
    minimal(metrics={"val/iou": 0.5}).write(tmp_path / "run.json")
    content = json.loads((tmp_path / "run.json").read_text())
    assert set(content) >= {
        "status", "seed", "overrides", "objective", "metrics", "best_checkpoint", "steps", "seconds", "steps_per_second",
        "parameters", "device", "versions", "git", "error", "traceback",
    }  # fmt: skip
    assert content["seed"] == 0
    assert content["metrics"] == {"val/iou": 0.5}
    assert content["objective"].items() >= {"name": "val/iou", "mode": "max", "value": 0.5}.items()


def test_metric_without_a_number_is_null(tmp_path: Path):
    minimal(metrics={"val/iou/absent": float("nan")}).write(tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text())["metrics"] == {"val/iou/absent": None}


def test_keys_of_a_newer_version_are_left_out(tmp_path: Path):
    path = tmp_path / "run.json"
    record = minimal()
    content = dataclasses.asdict(record) | {"energy": 3.5}
    content["objective"]["unit"] = "share"
    path.write_text(json.dumps(content))
    assert RunRecord.read(path) == record


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", "{}", '{"status": "completed"}', '{"objective": {"name": "val/iou", "mode": "max"}}',
     json.dumps(dataclasses.asdict(minimal()) | {"objective": None}),
     json.dumps(dataclasses.asdict(minimal()) | {"objective": {"name": "val/iou"}})],
)  # fmt: skip
def test_a_file_that_is_not_a_record_is_a_value_error(tmp_path: Path, text: str):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r".+"):
        RunRecord.read(path)


def test_a_missing_record_is_an_os_error(tmp_path: Path):
    with pytest.raises(OSError, match=r"run\.json"):
        RunRecord.read(tmp_path / "run.json")


def test_two_records_share_no_list_or_table():
    first, second = minimal(), minimal()
    first.metrics["val/iou"] = 1.0
    first.versions["torch"] = "0"
    assert second.metrics == second.versions == {}


def test_versions_are_those_in_use():
    found = versions()
    assert set(found) == {"python", *PACKAGES}
    assert found["torch"] == torch.__version__


def git(folder: Path, *arguments: str) -> str:
    settings = ("user.name=a", "user.email=a@b", "commit.gpgsign=false", "core.hooksPath=/dev/null")
    command = ["git", "-C", str(folder), *(part for setting in settings for part in ("-c", setting)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_git_state_is_the_commit_and_whether_a_tracked_file_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    outside, inside = tmp_path / "outside", tmp_path / "checkout" / "src"
    outside.mkdir()
    inside.mkdir(parents=True)
    assert git_state(outside) is None
    assert git_state(tmp_path / "nowhere") is None
    git(inside.parent, "init", "-q")
    assert git_state(inside) is None  # no commit yet
    (inside / "code.py").write_text("1")
    git(inside.parent, "add", ".")
    git(inside.parent, "commit", "-q", "-m", "one")
    commit = git(inside.parent, "rev-parse", "HEAD")
    assert git_state(inside) == {"commit": commit, "dirty": False}
    (inside.parent / "outputs.txt").write_text("untracked")
    (installed := inside.parent / ".venv/segsweep").mkdir(parents=True)  # a package in the user's own checkout
    assert git_state(installed) is None
    assert git_state(inside) == {"commit": commit, "dirty": False}
    (inside / "code.py").write_text("2")
    assert git_state(inside) == {"commit": commit, "dirty": True}
    (inside / "code.py").write_text("1")
    os.utime(
        inside / "code.py", (1, 1)
    )  # the content is the same, but `git status` alone would note the time in its index
    index = inside.parent / ".git/index"
    before = index.read_bytes()
    assert git_state(inside) == {"commit": commit, "dirty": False}
    assert index.read_bytes() == before, "git_state changed the index"
    git(inside.parent, "status")
    assert index.read_bytes() != before


@pytest.mark.parametrize("name", ["val/loss", "test/loss", "train/loss", "train/loss_running"])
def test_losses_are_minimised(name: str):
    assert objective_mode(name) == "min"


@pytest.mark.parametrize(
    "name", ["val/iou", "val/iou/Forest loss", "val/iou/loss", "val/iou/a/loss", "train/iou_running"]
)
def test_other_metrics_are_maximised_even_of_a_class_called_loss(name: str):
    assert objective_mode(name) == "max"
