"""benchmarks/kills.py finds nothing in a killed sweep that is right, and every damage to one that is not."""

import csv
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import kills
import pytest
import torch
from support import ROOT
from torch.utils.tensorboard import SummaryWriter

from segsweep.runs.files import write_json

JOB = "optim=adam,lr=0.01"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_sweep_that_is_killed_at_random_moments_loses_nothing(tmp_path: Path):
    def run(number: int) -> tuple[str, dict]:
        command = [sys.executable, str(ROOT / "benchmarks/kills.py"), "--kills", str(number), "--json", "kills.json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout, json.loads((tmp_path / "kills.json").read_text())

    printed, content = run(3)
    entry = content["launchers"]["basic"]
    assert len(entry["kills"]) >= 3
    assert entry["sweeps"] >= 1
    assert entry["findings"] == [], printed
    again, same = run(3)  # there are enough kills, so nothing is trained
    assert same == content
    assert again.strip() == kills.table(content).strip()


def change_a_metric(run: Path) -> None:
    with (run / "metrics.csv").open() as file:
        names, *rows = csv.reader(file)
    column = names.index("val/iou")
    row = next(row for row in rows if row[column])
    row[column] = repr(float(row[column]) + 1e-12)
    with (run / "metrics.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([names, *rows])


def repeat_a_row(run: Path) -> None:
    lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join([*lines, lines[-1]]))


def change_a_weight(run: Path) -> None:
    path = run / "checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    weight = next(each for each in checkpoint["state_dict"].values() if each.is_floating_point())
    weight.view(-1)[0] = torch.nextafter(weight.view(-1)[0], torch.tensor(torch.inf))
    torch.save(checkpoint, path)


def repeat_a_point(run: Path) -> None:
    with SummaryWriter(run / "tensorboard", filename_suffix=".later") as writer:
        writer.add_scalar("val/iou", 0.5, global_step=4)


def cut(name: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        path = run / name
        path.write_bytes(path.read_bytes()[:-200])

    return damage


def interrupt(run: Path) -> None:
    content = json.loads((run.parent / "sweep.json").read_text())
    content["jobs"][-1]["status"] = "interrupted"
    write_json(run.parent / "sweep.json", content)


DAMAGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "a metric": (change_a_metric, {"other result"}),
    "a row twice": (repeat_a_row, {"other result"}),
    "a weight": (change_a_weight, {"other result"}),
    "a point twice": (repeat_a_point, {"other result"}),
    "a cut checkpoint": (cut("checkpoints/best.ckpt"), {"other result", "unreadable file"}),
    "a cut run.json": (cut("run.json"), {"other result", "unreadable file"}),
    "a cut sweep.json": (cut("../sweep.json"), {"sweep.json", "unreadable file"}),
    "an interrupted job": (interrupt, {"job not completed", "sweep.json"}),
    "litter": (lambda run: (run / "checkpoints/.last.ckpt.0123abcd.tmp").touch(), {"litter"}),
    "another file": (lambda run: (run / "checkpoints/last-v1.ckpt").touch(), {"other files", "unreadable file"}),
    "a cut table": (cut("../summary.csv"), {"summary.csv"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_result_is_found(finished, grid: Path, damage: str):
    whole, _ = finished
    assert list(kills.differences(whole, grid)) == []
    change, kinds = DAMAGES[damage]
    change(grid / JOB)
    found = list(kills.differences(whole, grid))
    assert {kind for kind, _ in found} == kinds, found


STOPPED = kills.Kill("SIGTERM", "main", after=9.0, early=False, code=143, steps=5, ended=1.0, left=0)
LINE = "stopped by SIGTERM; 1 of 4 jobs are completed, in multirun/kills\n"


@pytest.mark.parametrize(
    ("changed", "errors", "kinds"),
    [
        ({}, LINE, []),
        ({}, "", ["no last line"]),
        ({}, LINE + "Traceback (most recent call last):", ["traceback"]),
        ({"code": 1}, "error: two jobs", ["exit code"]),
        ({"code": 0}, "", ["exit code"]),
        ({"code": -15}, "", ["exit code"]),
        ({"code": -15, "early": True}, "", []),
        ({"code": 1, "early": True}, "Fatal Python error: init_import_site: Failed to import", []),
        ({"code": 1, "early": True}, "error: something else", ["exit code"]),
        ({"code": 1}, "Fatal Python error: init_import_site: Failed to import", ["exit code"]),
        ({"left": 2}, LINE, ["process left"]),
        ({"signal": "SIGKILL", "code": -9, "left": 2}, "", []),
        ({"signal": "SIGKILL", "code": -9, "left": 2, "target": "group"}, "", ["process left"]),
        ({"signal": "SIGKILL", "code": 1, "target": "worker"}, "error: the process of a job has died", []),
        ({"signal": "SIGKILL", "code": 0, "target": "worker"}, "", ["exit code"]),
    ],
)
def test_a_wrong_end_is_found(changed: dict, errors: str, kinds: list[str]):
    kill = dataclasses.replace(STOPPED, **changed)
    assert [kind for kind, _ in kills.faults_of_end(kill, errors, complete=False)] == kinds
