"""A sweep ends with a ranked report, continues after an interruption, and its jobs do not affect each other."""

import contextlib
import errno
import json
import math
import os
import re
import shlex
import shutil
import signal
import threading
import time
from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import ConfigCompositionException
from PIL import Image
from support import ROOT, SENDERS, Command, Outcome, printed_arguments
from sweep_support import GRID, TINY, TRAP, Sweep, content, run_record, same_weights, state, statuses

from segsweep.cli import start as resolvers
from segsweep.errors import Interrupted
from segsweep.fingerprint import job_key
from segsweep.runs import RunDirectory
from segsweep.sweeps import jobs
from segsweep.sweeps.__main__ import main as sweeps_main
from segsweep.sweeps.load import load_sweep
from segsweep.sweeps.plan import add_jobs
from segsweep.sweeps.ranking import compare
from segsweep.sweeps.running import RunningSweep
from segsweep.sweeps.state import Job, SweepDirectory, SweepRecord

Finished = tuple[Path, Outcome]
FOLDERS = ["optim=sgd,lr=0.001", "optim=sgd,lr=0.01", "optim=adam,lr=0.001", "optim=adam,lr=0.01"]


# The files of a sweep


def test_a_sweep_leaves_the_documented_files(finished: Finished):
    sweep, outcome = finished
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    names = {path.name for path in sweep.iterdir() if not path.name.startswith(".")}
    assert names == {
        *FOLDERS, "sweep.json", "summary.csv", "settings.csv", "summary.md", "curves.png", "heatmap.png", "multirun.yaml",
    }  # fmt: skip
    for folder in FOLDERS:
        for name in (
            "config.yaml",
            "run.json",
            "metrics.csv",
            "train.log",
            "checkpoints/best.ckpt",
            ".hydra/config.yaml",
        ):
            assert (sweep / folder / name).is_file()
    for name in ("curves.png", "heatmap.png"):
        assert Image.open(sweep / name).size[0] > 300
    assert not list(sweep.rglob("*.tmp"))


def test_sweep_json_has_the_command_and_the_status_of_each_job(finished: Finished):
    sweep, _ = finished
    asked = content(sweep)
    assert asked["overrides"] == [*TINY, *GRID, "name=grid"]
    assert asked["objective"] == {"name": "val/iou", "mode": "max"}
    assert asked["axes"] == ["optim", "lr"]
    assert [job["directory"] for job in asked["jobs"]] == FOLDERS
    assert [job["number"] for job in asked["jobs"]] == [0, 1, 2, 3]
    assert {job["status"] for job in asked["jobs"]} == {"completed"}
    assert [job["values"] for job in asked["jobs"]] == [
        {"optim": optim, "lr": lr} for optim in ("sgd", "adam") for lr in (0.001, 0.01)
    ]
    for job in asked["jobs"]:
        settings = asked["shared"]["settings"] | job["settings"]
        assert job["key"] == job_key(settings)
        assert set(job["directory"].split(",")) < set(job["overrides"])
    assert len({job["key"] for job in asked["jobs"]}) == 4


def test_summary_csv_has_the_values_of_the_run_directories(finished: Finished):
    sweep, _ = finished
    table = pd.read_csv(sweep / "summary.csv")
    expected = []
    for folder in FOLDERS:
        history, record = pd.read_csv(sweep / folder / "metrics.csv"), run_record(sweep / folder)
        best = history.loc[history["val/iou"].idxmax()]
        row = {"optim": folder.split(",")[0][6:], "lr": float(folder.split("lr=")[1]), "objective": best["val/iou"]}
        for name in history.columns:
            if name.startswith("val/"):
                row[name] = best[name]
            elif name.startswith(("test/", "train/")):
                row[name] = history[name].dropna().iloc[-1]
        scored = history["val/iou"].dropna()
        row |= {"objective_best": scored.max(), "objective_last": scored.iloc[-1]}
        row["objective_mean_last_3"] = math.fsum(scored[-3:]) / len(scored[-3:])
        row |= {"status": "completed", "seconds": record["seconds"], "directory": folder}
        row["checkpoint"] = f"{folder}/checkpoints/best.ckpt"
        assert (sweep / row["checkpoint"]).is_file()
        assert record["status"] == "completed"
        assert record["metrics"] == {name: value for name, value in row.items() if "/" in name and name != "checkpoint"}
        expected.append(row)
    expected.sort(key=lambda row: -row["objective"])
    wanted = pd.DataFrame(expected)
    wanted.insert(0, "rank", [1, 2, 3, 4])
    assert set(table.columns) == {*wanted.columns, "error"}
    assert table["error"].isna().all()
    pd.testing.assert_frame_equal(table[list(wanted.columns)], wanted, check_exact=True, check_dtype=False)


def test_the_ranked_table_is_printed_and_in_summary_md(finished: Finished):
    sweep, outcome = finished
    text = (sweep / "summary.md").read_text()
    table = pd.read_csv(sweep / "summary.csv")
    rows = [line.strip("| ").split(" | ") for line in text.split("## Jobs")[1].splitlines() if line.startswith("| ")]
    assert rows[0][:4] == ["rank", "optim", "lr", "val/iou"]
    assert [(row[1], row[2]) for row in rows[2:]] == [(row.optim, f"{row.lr}") for row in table.itertuples()]
    assert [row[3] for row in rows[2:]] == [f"{value:.4f}" for value in table["objective"]]
    first = f"optim={table['optim'][0]}, lr={table['lr'][0]} has the highest val/iou"
    assert first in text
    assert first in outcome.out
    assert outcome.out.count("One seed does not show") == 1
    assert text.count("One seed does not show") == 1
    assert "![curves](curves.png)" in text
    lines = [line for line in outcome.out.splitlines() if re.match(r"\[\d/4\] ", line)]
    assert [line.split(" · ")[0] for line in lines] == [
        f"[{number}/4] {folder.replace(',', ', ')}" for number, folder in enumerate(FOLDERS, start=1)
    ]


def test_the_next_commands_that_are_printed_work(finished: Finished, grid: Path, command: Command):
    _, outcome = finished
    printed = next(line for line in outcome.out.splitlines() if "evaluate.py" in line)
    words = shlex.split(printed)
    assert words[:2] == ["python", f"{ROOT}/evaluate.py"]
    scored = command("evaluate.py", *words[2:], "hydra.run.dir=evaluation", "accelerator=cpu")
    assert scored.code == 0, scored.err


def test_load_sweep_gives_summary_histories_and_the_best_run(finished: Finished):
    sweep = load_sweep(finished[0])
    table = pd.read_csv(finished[0] / "summary.csv")
    assert sweep.summary["directory"].tolist() == table["directory"].tolist()
    assert list(sweep.histories) == table["directory"].tolist()
    assert sweep.axes == ["optim", "lr"]
    best = sweep.best()
    assert best.directory == finished[0] / table["directory"][0]
    assert best.summary.objective.value == table["objective"][0]
    assert sweep.comparison.best == {"optim": table["optim"][0], "lr": table["lr"][0]}


def test_sweeps_started_in_the_same_second_have_different_folders(sweep: Sweep, tmp_path: Path, monkeypatch):
    class Clock(resolvers.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.setattr(resolvers, "datetime", Clock)
    outcomes = [sweep("lr=0.1,0.2", "trainer.max_steps=1") for _ in range(2)]
    assert [outcome.code for outcome in outcomes] == [0, 0]
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.glob("multirun/*/*"))] == [
        "multirun/2026-01-02/03-04-05", "multirun/2026-01-02/03-04-05-2",
    ]  # fmt: skip
    assert all(set(statuses(path).values()) == {"completed"} for path in tmp_path.glob("multirun/*/*"))
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(resolvers.new_folder(str(tmp_path)))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 16


# Continuing a sweep


@pytest.mark.quick
def test_continuing_leaves_completed_jobs_alone(grid: Path, sweep: Sweep):
    before, table = state(grid), pd.read_csv(grid / "summary.csv")
    outcome = sweep(*GRID, "name=grid")
    assert outcome.code == 0, outcome.err
    assert "4 completed before" in outcome.out
    after = state(grid)
    assert before.keys() == after.keys()
    assert [name for name in before if "/" in name and before[name] != after[name]] == []
    pd.testing.assert_frame_equal(pd.read_csv(grid / "summary.csv"), table, check_exact=True)


@pytest.mark.slow
def test_a_larger_grid_and_an_added_seed_run_only_what_is_new(grid: Path, sweep: Sweep):
    before = {name: entry for name, entry in state(grid).items() if "/" in name}
    outcome = sweep("optim=sgd,adam", "lr=0.001,0.01,0.1", "name=grid")
    assert outcome.code == 0, outcome.err
    assert "6 jobs" in outcome.out
    assert "4 completed before" in outcome.out
    assert list(statuses(grid)) == [*FOLDERS, "optim=sgd,lr=0.1", "optim=adam,lr=0.1"]
    outcome = sweep("optim=adam", "lr=0.01,0.1", "seed=0,1,2", "name=grid")
    assert outcome.code == 0, outcome.err
    assert "6 jobs" in outcome.out
    assert "2 completed before" in outcome.out
    after = state(grid)
    assert [name for name in before if before[name] != after[name]] == []
    assert list(statuses(grid))[6:] == [f"optim=adam,lr={lr},seed={seed}" for lr in (0.01, 0.1) for seed in (1, 2)]
    assert set(statuses(grid).values()) == {"completed"}
    table = pd.read_csv(grid / "summary.csv")
    assert len(table) == 10
    assert table.loc[table["directory"].isin(FOLDERS), "seed"].tolist() == [0] * 4
    assert content(grid)["axes"] == ["optim", "lr", "seed"]
    assert_grouped_as_compare_does(grid)


def assert_grouped_as_compare_does(sweep: Path) -> None:
    """summary.md and the comparison of the sweep equal `compare` of summary.csv."""
    table, loaded = pd.read_csv(sweep / "summary.csv"), load_sweep(sweep)
    axes = [axis for axis in loaded.axes if axis != "seed"]
    table["status"] = ["diverged" if "DivergedError" in str(row.error) else row.status for row in table.itertuples()]
    pixels = run_record(sweep / table["directory"][0])["scored_pixels"]["val"]
    looks = content(sweep)["looks"] or [{"level": 0.04}]  # a ranking without tests is no look
    expected = compare(table, axes, mode="max", name="val/iou", scale="logit", pixels=pixels, level=looks[-1]["level"])
    text = (sweep / "summary.md").read_text()
    for sentence in expected.at_look(len(looks), 0).sentences():
        assert sentence in text
    rows = [
        line.strip("| ").split(" | ") for line in text.split("## Settings")[1].splitlines() if line.startswith("| ")
    ]
    shown = [row[1 : 1 + len(axes)] for row in rows[2 : 2 + len(expected.table)]]
    assert shown == [[str(row[axis]) for axis in axes] for _, row in expected.table.iterrows()]
    means = [row[2 + len(axes)] for row in rows[2 : 2 + len(expected.table)]]
    assert means == [f"{value:.4f}" if value == value else "" for value in expected.table["mean"]]


@pytest.mark.slow
def test_replicates_are_compared_by_setting(sweep: Sweep, tmp_path: Path):
    outcome = sweep("lr=0.001,0.01", "seed=0,1,2", "name=seeds")
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "multirun/seeds"
    assert_grouped_as_compare_does(folder)
    text = (folder / "summary.md").read_text()
    assert "over 3 seeds" in text
    assert "One seed" not in text
    # The run to take is the best replicate of the best setting, which need not be the best of all jobs.
    table, loaded = pd.read_csv(folder / "summary.csv"), load_sweep(folder)
    means = table.groupby("lr")["objective"].mean()
    of_best = table[table["lr"] == means.idxmax()]
    assert loaded.best().directory.name == of_best.loc[of_best["objective"].idxmax(), "directory"]
    assert (
        of_best.loc[of_best["objective"].idxmax(), "directory"].split("lr=")[1] in outcome.out.split("evaluate.py")[1]
    )


def test_a_failed_job_without_a_checkpoint_starts_again_and_no_other_job_does(sweep: Sweep, tmp_path: Path):
    asked = [TRAP, "+callbacks.trap.kind=raise", "+callbacks.trap.flag=broken", "lr=0.001,0.01", "name=again"]
    (tmp_path / "broken").touch()
    outcome = sweep(*asked)
    assert outcome.code == 1
    folder = tmp_path / "multirun/again"
    assert statuses(folder) == {"lr=0.001": "failed", "lr=0.01": "completed"}
    other = state(folder / "lr=0.01")
    outcome = sweep(*asked)
    assert outcome.code == 0, outcome.err
    assert "1 failed before" in outcome.out
    assert set(statuses(folder).values()) == {"completed"}
    assert state(folder / "lr=0.01") == other
    record = run_record(folder / "lr=0.001")
    assert (record["continued_at"], record["error"], record["traceback"]) == ([], None, None)
    assert "the trap has snapped" in (folder / "lr=0.001/train.log").read_text()
    assert pd.read_csv(folder / "summary.csv")["error"].isna().all()
    assert "Failed" not in (folder / "summary.md").read_text()
    assert sweep(*asked[:3], "lr=0.001", "name=alone").code == 0
    (alone,) = statuses(tmp_path / "multirun/alone")
    assert same_weights(folder / "lr=0.001", tmp_path / "multirun/alone" / alone)


@pytest.mark.parametrize("kind", ["raise", "SIGTERM"])
def test_a_mistake_when_a_sweep_continues_deletes_no_checkpoint(sweep: Sweep, tmp_path: Path, monkeypatch, kind: str):
    asked = [
        TRAP, f"+callbacks.trap.kind={kind}", "+callbacks.trap.flag=stop", "+callbacks.trap.step=3", "seed=0,1",
        "callbacks.last_checkpoint.every_n_steps=1",
    ]  # fmt: skip
    assert sweep(*asked, "name=whole").code == 0
    (tmp_path / "stop").touch()
    assert sweep(*asked, "on_error=stop", "name=cut").code in (1, 143)
    whole, cut = tmp_path / "multirun/whole", tmp_path / "multirun/cut"
    kept = [cut / "seed=0" / name for name in ("checkpoints/last.ckpt", "config.yaml", "metrics.csv")]
    before = [path.read_bytes() for path in kept]
    reached = run_record(cut / "seed=0")["steps"]

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    outcome = sweep(*asked, "data.num_workers=-1", "on_error=stop", "name=cut")
    assert outcome.code == 1
    assert "num_workers=-1: " in outcome.out
    assert list(statuses(cut).values()) == ["failed", "pending"]
    with monkeypatch.context() as patch:
        patch.setattr(lightning.Trainer, "fit", full)
        assert sweep(*asked, "on_error=stop", "name=cut").code == 1
    assert list(statuses(cut).values()) == ["failed", "pending"]
    assert [path.read_bytes() for path in kept] == before
    assert run_record(cut / "seed=0")["steps"] == reached
    outcome = sweep(*asked, "on_error=stop", "name=cut")
    assert outcome.code == 0, outcome.err
    assert run_record(cut / "seed=0")["continued_at"][-1] in (2, 3)
    assert all(same_weights(whole / folder, cut / folder) for folder in statuses(whole))


@pytest.mark.quick
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_interrupts_the_job_writes_the_report_and_the_same_command_resumes(
    sweep: Sweep, command: Command, tmp_path: Path, name: str, code: int
):
    asked = [
        TRAP, f"+callbacks.trap.kind={name}", "+callbacks.trap.flag=stop", "+callbacks.trap.step=3",
        "lr=0.001,0.01,0.1",
    ]  # fmt: skip
    assert sweep(*asked, "name=whole").code == 0
    (tmp_path / "stop").touch()
    outcome = sweep(*asked, "name=cut")
    whole, cut = tmp_path / "multirun/whole", tmp_path / "multirun/cut"
    assert outcome.code == code
    assert outcome.error_lines[-2] == f"stopped by {SENDERS[name]}; 0 of 3 jobs are completed, in multirun/cut"
    assert "left" not in outcome.out
    assert "Traceback" not in outcome.err + outcome.out
    assert list(statuses(cut).values()) == ["interrupted", "pending", "pending"]
    assert run_record(cut / "lr=0.001")["status"] == "interrupted"
    assert "1 interrupted" in (cut / "summary.md").read_text()
    assert pd.read_csv(cut / "summary.csv")["status"].tolist() == ["interrupted", "pending", "pending"]
    outcome = command("train.py", *printed_arguments(outcome))
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("continuing the sweep in multirun/cut\n")
    assert "1 resumed" in outcome.out
    assert run_record(cut / "lr=0.001")["continued_at"] == [3]
    for folder in statuses(whole):
        assert same_weights(whole / folder, cut / folder)
    timeless = [pd.read_csv(folder / "summary.csv").drop(columns="seconds") for folder in (whole, cut)]
    pd.testing.assert_frame_equal(*timeless, check_exact=True)


def test_sigterm_between_two_jobs_writes_the_report_too(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def ended_and_signal(self: RunningSweep, job: Job) -> None:
        ended(self, job)
        os.kill(os.getpid(), signal.SIGTERM)

    ended = RunningSweep.ended
    with monkeypatch.context() as patch:
        patch.setattr(RunningSweep, "ended", ended_and_signal)
        outcome = sweep("lr=0.001,0.01", "name=cut")
    cut = tmp_path / "multirun/cut"
    assert outcome.code == 143
    assert "stopped by SIGTERM" in outcome.err
    assert list(statuses(cut).values()) == ["completed", "pending"]
    assert (cut / "curves.png").exists()
    assert sweep("lr=0.001,0.01", "name=cut").code == 0
    assert list(statuses(cut).values()) == ["completed", "completed"]


AFTER_TEST = [
    TRAP, "+callbacks.trap.hook=on_test_end", "+callbacks.trap.stage=test", "+callbacks.trap.step=null",
    "+callbacks.trap.flag=stop",
]  # fmt: skip


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_after_the_last_test_batch_stops_before_the_next_job(sweep: Sweep, tmp_path: Path, name, code: int):
    (tmp_path / "stop").touch()
    asked = [*AFTER_TEST, f"+callbacks.trap.kind={name}"]
    outcome = sweep(*asked, "lr=0.001,0.01", ONE_STEP, "name=cut")
    assert outcome.code == code
    assert list(statuses(tmp_path / "multirun/cut").values()) == ["completed", "pending"]
    assert sweep(*asked, "lr=0.001,0.01", ONE_STEP, "name=cut").code == 0


def test_a_job_that_fails_in_its_test_is_not_trained_again(sweep: Sweep, tmp_path: Path):
    (tmp_path / "stop").touch()
    asked = [*AFTER_TEST, "+callbacks.trap.kind=raise"]
    assert sweep(*asked, "lr=0.001,0.01", "name=cut").code == 1
    job = tmp_path / "multirun/cut/lr=0.001"
    before = {name: (job / f"checkpoints/{name}.ckpt").read_bytes() for name in ("best", "last")}
    outcome = sweep(*asked, "lr=0.001,0.01", "name=cut")
    assert outcome.code == 0, outcome.err
    assert {name: (job / f"checkpoints/{name}.ckpt").read_bytes() for name in before} == before
    assert run_record(job)["continued_at"] == [run_record(job)["steps"]]
    assert "test/iou" in run_record(job)["metrics"]


def test_a_signal_before_a_job_has_started_stops_the_sweep(sweep: Sweep, tmp_path: Path, monkeypatch):
    def waits(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "train", waits)
        outcome = sweep("lr=0.001,0.01", ONE_STEP, "name=cut")
    assert outcome.code == 130
    assert outcome.error_lines[0] == "stopped by Ctrl-C; 0 of 2 jobs are completed, in multirun/cut"
    assert set(statuses(tmp_path / "multirun/cut").values()) == {"pending"}


def test_a_job_with_a_damaged_checkpoint_fails_and_then_starts_again(sweep: Sweep, tmp_path: Path):
    asked = [
        TRAP, "+callbacks.trap.kind=SIGTERM", "+callbacks.trap.flag=stop", "+callbacks.trap.step=3", "lr=0.1,0.2",
        "name=cut",
    ]  # fmt: skip
    (tmp_path / "stop").touch()
    assert sweep(*asked).code == 143
    cut = tmp_path / "multirun/cut"
    (cut / "lr=0.1/checkpoints/last.ckpt").write_bytes(b"damaged")
    outcome = sweep(*asked)
    assert outcome.code == 1
    assert statuses(cut) == {"lr=0.1": "failed", "lr=0.2": "completed"}
    assert "last.ckpt" in run_record(cut / "lr=0.1")["error"]
    assert sweep(*asked).code == 0
    assert statuses(cut) == {"lr=0.1": "completed", "lr=0.2": "completed"}


def test_a_job_whose_record_is_damaged_is_run_again(grid: Path, sweep: Sweep):
    (grid / FOLDERS[1] / "run.json").write_text('{"status": "comp')
    expected = grid.parent / "expected"
    shutil.copytree(grid / FOLDERS[1], expected)
    outcome = sweep(*GRID, "name=grid")
    assert outcome.code == 0, outcome.err
    assert set(statuses(grid).values()) == {"completed"}
    assert same_weights(grid / FOLDERS[1], expected)


@pytest.mark.slow
def test_a_sweep_that_was_moved_continues_in_its_new_place(grid: Path, sweep: Sweep):
    moved = grid.rename(grid.with_name("moved"))
    before = {name: entry for name, entry in state(moved).items() if "/" in name}
    outcome = sweep(*GRID, "seed=0,1", "name=moved")
    assert outcome.code == 0, outcome.err
    after = state(moved)
    assert [name for name in before if before[name] != after[name]] == []
    assert not grid.exists()
    assert len(statuses(moved)) == 8


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["seed=1"], "seed: 0 before, 1 now"),
        (["trainer.max_steps=5"], "trainer.max_steps: 4 before, 5 now"),
        (["data.sigma2=3"], "data.sigma2: 1.2 before, 3 now"),
        (["momentum=0.5"], "momentum: null before, 0.5 now"),
        (["objective=val/loss"], "objective: val/iou before, val/loss now"),
        ([TRAP], "callbacks.trap._target_: nothing before, traps.Trap now"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_with_another_unswept_setting_is_refused_and_changes_nothing(grid, sweep: Sweep, changed, said: str):
    before = state(grid.parent, without=(".lock",))
    outcome = sweep(*GRID, *changed, "name=grid")
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert outcome.err.startswith("error: name=grid: ")
    assert said in outcome.err
    assert state(grid.parent, without=(".lock",)) == before


ONE_STEP = "trainer.max_steps=1"


@pytest.mark.parametrize(
    ("begun", "changed", "said"),
    [
        ("optim=sgd,adam", ["optim=sgd,adam", "optim.weight_decay=0.3", "seed=0,1"], "optim.weight_decay: 0"),
        ("optim=sgd,adam", ["optim=sgd,adam", "optim.weight_decay=0.3"], "optim.weight_decay: 0"),
        ("optim=sgd,adam", ["optim=rmsprop", "optim.weight_decay=0.3"], "optim.weight_decay: 0"),
        ("optim=adam,adamw", ["optim=sgd", "optim.nesterov=true"], "optim=adam: "),
        ("experiment=texture_adam,texture_momentum", ["experiment=texture_adam", "momentum=0.5"], "momentum: "),
        ("loss=bce,dice", ["loss=bce", "data=textures", "data.sigma2=3", "lr=0.1"], "data.sigma2: "),
    ],
)
def test_an_unswept_setting_must_stay_even_in_a_swept_group(
    sweep: Sweep, tmp_path: Path, begun: str, changed: list[str], said: str
):
    assert sweep(begun, ONE_STEP, "name=kind").code == 0
    folder = tmp_path / "multirun/kind"
    before = state(folder, without=(".lock",))
    outcome = sweep(*changed, ONE_STEP, "name=kind")
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert outcome.err.startswith("error: name=kind: ")
    assert said in outcome.err
    assert state(folder, without=(".lock",)) == before
    assert sweep(begun, "lr=0.001,0.01", ONE_STEP, "name=kind").code == 0


def test_jobs_that_differ_in_a_setting_without_effect_are_found_by_its_value(sweep: Sweep, tmp_path: Path):
    assert sweep("data.num_workers=0,2", ONE_STEP, "name=workers").code == 0
    folder = tmp_path / "multirun/workers"
    two = ["data.num_workers=0", "data.num_workers=2"]
    assert list(statuses(folder)) == two
    before = {name: entry for name, entry in state(folder).items() if "/" in name}
    for again in (["data.num_workers=2"], ["data.num_workers=0"], ["data.num_workers=2,0"]):
        outcome = sweep(*again, ONE_STEP, "name=workers")
        assert outcome.code == 0, outcome.err
        assert {name: entry for name, entry in state(folder).items() if "/" in name} == before
    assert sweep("data.num_workers=1", ONE_STEP, "name=workers").code == 0
    assert list(statuses(folder)) == [*two, "data.num_workers=1"]


def test_another_choice_with_the_same_settings_keeps_the_values_of_the_jobs(sweep: Sweep, tmp_path: Path):
    assert sweep("model=texture_cnn,ablation/blocks_1", "seed=0,1", ONE_STEP, "name=names").code == 0
    folder = tmp_path / "multirun/names"
    before = content(folder)["jobs"]
    outcome = sweep("model=default_for_textures", "seed=0", ONE_STEP, "name=names")
    assert outcome.code == 0, outcome.err
    assert [job["values"] for job in content(folder)["jobs"]] == [job["values"] for job in before]


def test_an_axis_may_have_whole_nodes_as_values(sweep: Sweep, tmp_path: Path):
    nodes = ",".join(f"{{_target_:traps.Trap,word:{word}}}" for word in ("one", "two"))
    asked = [f"+callbacks.trap={nodes}", "seed=0,1", ONE_STEP, "name=nodes"]
    assert sweep(*asked).code == 0
    outcome = sweep(*asked)
    assert outcome.code == 0, outcome.err
    assert "4 completed before" in outcome.out
    assert len(load_sweep(tmp_path / "multirun/nodes").comparison.table) == 2


def test_workers_and_logging_may_change_when_a_sweep_continues(grid: Path, sweep: Sweep):
    outcome = sweep(*GRID, "data.num_workers=1", "trainer.log_every_n_steps=1", "name=grid")
    assert outcome.code == 0, outcome.err
    assert "4 completed before" in outcome.out


# Jobs do not affect each other


@pytest.mark.slow
def test_a_job_depends_neither_on_the_order_nor_on_the_sweep(finished: Finished, sweep: Sweep, train, tmp_path):
    assert sweep("lr=0.01,0.001", "optim=adam,sgd", "name=back").code == 0
    assert sweep("optim=sgd", "lr=0.001", "name=alone").code == 0
    names = list(statuses(tmp_path / "multirun/back"))
    assert names == ["lr=0.01,optim=adam", "lr=0.01,optim=sgd", "lr=0.001,optim=adam", "lr=0.001,optim=sgd"]
    for name in names:
        there = ",".join(reversed(name.split(",")))
        assert same_weights(tmp_path / "multirun/back" / name, finished[0] / there)
    (alone,) = statuses(tmp_path / "multirun/alone")
    assert same_weights(tmp_path / "multirun/alone" / alone, finished[0] / FOLDERS[0])
    single = train(*TINY, "optim=adam", "lr=0.01")
    assert same_weights(single, finished[0] / "optim=adam,lr=0.01")
    keys = [{job["key"] for job in content(folder)["jobs"]} for folder in (finished[0], tmp_path / "multirun/back")]
    assert keys[0] == keys[1]


def test_a_job_can_be_resumed_as_a_single_run(grid: Path, command: Command):
    run = grid / FOLDERS[0]
    outcome = command("train.py", f"resume='{run}'", "trainer.max_steps=6")
    assert outcome.code == 0, outcome.err
    assert (run_record(run)["steps"], run_record(run)["continued_at"]) == (6, [4])


FAILURES = {
    "raise": "RuntimeError: the trap has snapped",
    "memory": "MemoryError: no room for the trap",
    "cuda": "OutOfMemoryError: CUDA out of memory: no room for the trap",
    "exit": "SystemExit: 3",
    "exit well": "SystemExit: 0",
}


@pytest.mark.slow
def test_jobs_that_fail_in_any_way_are_recorded_and_the_others_run(sweep: Sweep, tmp_path: Path):
    kinds = ",".join(["nothing", *(f"'{kind}'" for kind in FAILURES), "SIGCONT"])
    outcome = sweep(TRAP, f"+callbacks.trap.kind={kinds}", "name=failing")
    assert outcome.code == 1
    assert "Traceback" not in outcome.out + outcome.err
    folder = tmp_path / "multirun/failing"
    found = {job["values"]["callbacks.trap.kind"]: job for job in content(folder)["jobs"]}
    assert {kind: job["status"] for kind, job in found.items()} == {
        "nothing": "completed", **dict.fromkeys(FAILURES, "failed"), "SIGCONT": "completed"
    }  # fmt: skip
    text = (folder / "summary.md").read_text()
    for kind, said in FAILURES.items():
        run = folder / found[kind]["directory"]
        record = run_record(run)
        assert record["status"] == "failed"
        assert said in record["error"]
        assert "Traceback (most recent call last)" in record["traceback"]
        assert "traps.py" in record["traceback"]
        assert "traps.py" in (run / "train.log").read_text()
        assert f"- callbacks.trap.kind={kind}: {said}" in text
    table = pd.read_csv(folder / "summary.csv")
    assert table["status"].tolist() == ["completed"] * 2 + ["failed"] * 5
    assert table["objective"].isna().tolist() == [False] * 2 + [True] * 5
    assert outcome.out.count("failed: ") >= 5


@pytest.mark.slow
def test_a_job_that_diverges_is_ranked_last_and_named_as_diverged(sweep: Sweep, tmp_path: Path):
    outcome = sweep("optim=sgd", "lr=1e30,0.001", "loss=bce", "data.limit_samples=40", "trainer.max_steps=20",
                    "seed=0,1", "name=diverged")  # fmt: skip
    folder = tmp_path / "multirun/diverged"
    assert outcome.code == 1
    assert list(statuses(folder).values()) == ["failed", "failed", "completed", "completed"]
    assert "DivergedError" in run_record(folder / "lr=1e+30,seed=0")["error"]
    text = (folder / "summary.md").read_text()
    assert "| 1e+30 | 0 |" in text
    assert "seed=0 diverged, seed=1 diverged" in text
    assert pd.read_csv(folder / "summary.csv")["lr"].tolist() == [0.001, 0.001, 1e30, 1e30]
    assert_grouped_as_compare_does(folder)


def test_on_error_stop_ends_the_sweep_at_the_first_job_that_fails(sweep: Sweep, tmp_path: Path):
    asked = [TRAP, "+callbacks.trap.kind=nothing,raise,SIGCONT", "name=stop"]
    outcome = sweep(*asked, "on_error=stop")
    assert outcome.code == 1
    assert "on_error=stop" in outcome.err
    folder = tmp_path / "multirun/stop"
    assert list(statuses(folder).values()) == ["completed", "failed", "pending"]
    assert not (folder / "callbacks.trap.kind=SIGCONT").exists()
    # A failed job that this command does not ask for stops nothing.
    outcome = sweep(TRAP, "+callbacks.trap.kind=SIGCONT", "name=stop", "on_error=stop")
    assert list(statuses(folder).values()) == ["completed", "failed", "completed"]
    assert sweep(*asked).code == 1


def test_a_typo_fails_one_job_and_that_job_goes_away_when_the_typo_is_corrected(sweep: Sweep, tmp_path: Path):
    outcome = sweep("optim=sgd,adamm", "trainer.max_steps=1", "name=typo")
    assert outcome.code == 1
    folder = tmp_path / "multirun/typo"
    assert statuses(folder) == {"optim=sgd": "completed", "optim=adamm": "failed"}
    assert "adamm" in outcome.err
    assert "adamw" in outcome.err  # one of the choices
    assert "adamm" in (folder / "summary.md").read_text()
    assert not (folder / "optim=adamm").exists()
    outcome = sweep("optim=sgd,adamm", "trainer.max_steps=1", "name=typo")
    assert outcome.code == 1
    assert len(statuses(folder)) == 2
    outcome = sweep("optim=sgd,adam", "trainer.max_steps=1", "name=typo")
    assert outcome.code == 0, outcome.err
    assert statuses(folder) == {"optim=sgd": "completed", "optim=adam": "completed"}


def test_a_mistyped_value_at_the_root_fails_that_job_alone_and_a_number_is_a_name(sweep: Sweep, tmp_path: Path):
    asked = ["seed=1.5,a,-1,0", ONE_STEP, "name=1"]
    for _ in range(2):
        outcome = sweep(*asked)
        assert outcome.code == 1
        assert "Traceback" not in outcome.out + outcome.err
        assert "seed=1.5: " in outcome.err
        assert statuses(tmp_path / "multirun/1")["seed=0"] == "completed"
        assert sorted(statuses(tmp_path / "multirun/1").values()) == ["completed", "failed", "failed", "failed"]
    assert run_record(tmp_path / "multirun/1/seed=0")["name"] == "1"
    assert content(tmp_path / "multirun/1")["name"] == "1"


def test_a_damaged_run_json_after_an_error_does_not_end_the_sweep(sweep: Sweep, tmp_path: Path, monkeypatch):
    def broken(config: object, directory: Path, *_: object, **__: object) -> None:
        (directory / "run.json").write_text('{"status": "running", "name": 1}')
        raise RuntimeError("at once")

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "train", broken)
        outcome = sweep("lr=0.001,0.01", ONE_STEP, "name=broken")
    assert outcome.code == 1
    folder = tmp_path / "multirun/broken"
    assert set(statuses(folder).values()) == {"failed"}
    assert run_record(folder / "lr=0.01")["error"] == "RuntimeError: at once"
    assert sweep("lr=0.001,0.01", ONE_STEP, "name=broken").code == 0


def test_on_error_stop_stops_at_a_typo_and_says_so(sweep: Sweep, tmp_path: Path):
    outcome = sweep("optim=adamm,sgd", "name=typo", "on_error=stop")
    assert outcome.code == 1
    assert "on_error=stop" in outcome.err
    assert statuses(tmp_path / "multirun/typo") == {"optim=adamm": "failed", "optim=sgd": "pending"}


def test_all_jobs_of_a_sweep_may_fail(sweep: Sweep, tmp_path: Path):
    outcome = sweep(TRAP, "+callbacks.trap.kind=raise", "lr=0.1,0.2", "name=failing")
    assert outcome.code == 1
    folder = tmp_path / "multirun/failing"
    assert set(statuses(folder).values()) == {"failed"}
    assert "2 failed" in (folder / "summary.md").read_text()
    with pytest.raises(ValueError, match="failing: "):
        load_sweep(folder).best()


# Refused commands


@pytest.mark.quick
@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("name=a,b", "name: "),
        ("objective=val/iou,val/loss", "objective: "),
        ("resume=a,b", "resume: "),
        ("resume=a", "resume=a: "),
        ("on_error=stop,continue", "on_error: "),
        ("trainer=ddp", "trainer=ddp: "),
        ("trainer=cpu,ddp", "trainer=ddp: "),
        ("trainer.devices=2", "trainer=ddp: "),
        ("lrr=0.1,0.2", "lrr"),
        ("name=../a", "name=../a: "),
        ("name=''", "name=: "),
    ],
)
def test_a_key_that_cannot_be_swept_is_refused_in_one_line_and_leaves_no_folder(
    sweep: Sweep, tmp_path, typed: str, said: str
):
    outcome = sweep("lr=0.1,0.2", typed)
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert outcome.err.startswith("error: ")
    assert said in outcome.err
    assert list(tmp_path.glob("multirun/*")) == []


def test_a_refused_command_does_not_change_an_existing_sweep(grid: Path, sweep: Sweep):
    before = state(grid.parent, without=(".lock",))
    for typed in ("objective=val/iou,val/loss", "resume=a", "trainer=ddp", "lrr=1,2"):
        assert sweep(*GRID, typed, "name=grid").code == 1
        assert state(grid.parent, without=(".lock",)) == before, typed


def test_a_second_process_on_the_same_sweep_is_refused(grid: Path, sweep: Sweep):
    before = state(grid.parent, without=(".lock",))
    with FileLock(grid / ".lock"):
        outcome = sweep(*GRID, "name=grid")
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert outcome.err.startswith("error: multirun/grid: ")
    assert state(grid.parent, without=(".lock",)) == before
    assert sweep(*GRID, "name=grid").code == 0


def test_a_second_process_on_the_same_run_is_refused(grid: Path, command: Command):
    run = grid / FOLDERS[0]
    before = state(run)
    with FileLock(run / ".lock"):
        outcome = command("train.py", f"resume='{run}'", "trainer.max_steps=9")
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert "another process is training there" in outcome.err
    assert state(run, without=(".hparams", ".lock", "train.log")) == {
        name: entry for name, entry in before.items() if name != "train.log"
    }


# Names of folders


NASTY = [
    "a/b", "../../up", "/abs=olute/p,a", "a b", "a-b", "'", '"quoted"', "ü" * 200, "𝔸" * 150, "x" * 400, "x" * 401, ".",
    "..", "", "CON", "a\nb", "a\tb", "*?[", "$HOME", "~", "-rf", "{}", "a|b", None, True, False, 0, 0.0, 1e-300, 1e300,
    "[1, 2]", "[]", "null", "true", "0",
]  # fmt: skip


def test_every_value_gives_a_different_folder_name_that_all_file_systems_accept(tmp_path: Path):
    def planned(values: list) -> list[str]:
        jobs = [Job(job_key({"a": value}), -1, [], "", {"callbacks.trap.word": value}) for value in values]
        return [job.directory for job in add_jobs(SweepRecord([], {}), jobs)]

    different = list({job_key({"a": value}): value for value in NASTY}.values())
    names = planned(different)
    assert len({name.casefold() for name in names}) == len(different)
    for name in names:
        assert len(name.encode()) <= 200
        assert re.fullmatch(r"[\w.,=+-]+", name)
        (tmp_path / name).mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert planned(["a-b", "a b"])[0] == "callbacks.trap.word=a-b"


@pytest.mark.slow
def test_jobs_with_nasty_values_train_and_are_found_again(sweep: Sweep, tmp_path: Path):
    words = [
        "'a/b=c,d'",
        "[0.1,0.2]",
        "null",
        "true",
        "'" + "x" * 300 + "'",
        "'../up'",
        r"'it\'s \"{x}\" | ü $HOME'",
        "0.5",
    ]
    asked = [TRAP, f"+callbacks.trap.word={','.join(words)}", "trainer.max_steps=1", "name=nasty"]
    outcome = sweep(*asked)
    assert outcome.code == 0, outcome.out + outcome.err
    folder = tmp_path / "multirun/nasty"
    assert len(statuses(folder)) == len(words)
    assert set(statuses(folder).values()) == {"completed"}
    assert all((folder / name / "run.json").is_file() for name in statuses(folder))
    assert [path.name for path in (tmp_path / "multirun").iterdir()] == ["nasty"]
    assert not (tmp_path / "up").exists()
    before = {name: entry for name, entry in state(folder).items() if "/" in name}
    outcome = sweep(*asked)
    assert outcome.code == 0, outcome.err
    assert f"{len(words)} completed before" in outcome.out
    after = state(folder)
    assert [name for name in before if before[name] != after[name]] == []


def test_two_values_that_are_the_same_job_run_once(sweep: Sweep, tmp_path: Path):
    outcome = sweep("lr=0.1,0.10,1e-1", "data.smoothing=1,1.0", "trainer.max_steps=1", "name=same")
    assert outcome.code == 0, outcome.err
    assert statuses(tmp_path / "multirun/same") == {"lr=0.1,data.smoothing=1": "completed"}


# Reports


def test_the_report_of_an_unfinished_sweep_can_be_written_again(grid: Path, monkeypatch, capsys):
    for name in ("summary.csv", "summary.md", "curves.png", "heatmap.png"):
        (grid / name).unlink()
    shutil.rmtree(grid / FOLDERS[0])
    record = run_record(grid / FOLDERS[1])
    (grid / FOLDERS[1] / "run.json").write_text(json.dumps(record | {"status": "running"}))
    monkeypatch.chdir(grid.parent)
    assert sweeps_main(["report", "grid"]) == 0
    assert statuses(grid) == dict(zip(FOLDERS, ["pending", "interrupted", "completed", "completed"], strict=True))
    table = pd.read_csv(grid / "summary.csv")
    assert table["status"].tolist() == ["completed", "completed", "pending", "interrupted"]
    assert table["rank"].tolist()[:2] == [1, 2]
    assert table["rank"].isna().tolist() == [False, False, True, True]
    for name in ("curves.png", "heatmap.png"):
        assert (grid / name).is_file()
    assert "2 completed, 1 pending, 1 interrupted" in (grid / "summary.md").read_text()
    assert "Everything is in grid" in capsys.readouterr().out


def test_a_report_is_the_same_however_often_it_is_written(grid: Path, monkeypatch):
    monkeypatch.chdir(grid.parent)
    texts = [(grid / name).read_bytes() for name in ("summary.csv", "summary.md", "sweep.json")]
    assert sweeps_main(["report", "grid"]) == 0
    assert [(grid / name).read_bytes() for name in ("summary.csv", "summary.md", "sweep.json")] == texts


@pytest.mark.parametrize(
    "damage", [None, b"", b"{", b"[]", b'{"format": 99}', b'{"format": 1, "jobs": 3, "shared": {}}']
)
def test_a_damaged_or_missing_sweep_json_is_refused_in_one_line(
    grid: Path, sweep: Sweep, monkeypatch, capsys, damage: bytes | None
):
    monkeypatch.chdir(grid.parent)
    if damage is None:
        (grid / "sweep.json").unlink()
    else:
        (grid / "sweep.json").write_bytes(damage)
    assert sweeps_main(["report", "grid"]) == 1
    captured = capsys.readouterr()
    assert re.fullmatch(r"error: grid.*sweep.*\n", captured.err)
    if damage is not None:
        before = state(grid, without=(".lock",))
        monkeypatch.chdir(grid.parent.parent)
        outcome = sweep(*GRID, "name=grid")
        assert (outcome.code, len(outcome.error_lines)) == (1, 1), outcome.err
        assert state(grid, without=(".lock",)) == before


@pytest.mark.slow
def test_the_report_of_many_jobs_takes_seconds(grid: Path, monkeypatch):
    made = content(grid)
    (template,) = (job for job in made["jobs"] if job["directory"] == FOLDERS[0])
    record = run_record(grid / FOLDERS[0])
    rng = np.random.default_rng(0)
    history = (grid / FOLDERS[0] / "metrics.csv").read_text()
    for lr in (0.1 / 2**index for index in range(15)):
        for seed in range(10):
            name = f"many,lr={lr},seed={seed}"
            (grid / name).mkdir()
            value = float(rng.random())
            objective, metrics = record["objective"] | {"value": value}, record["metrics"] | {"val/iou": value}
            (grid / name / "run.json").write_text(json.dumps(record | {"objective": objective, "metrics": metrics}))
            (grid / name / "metrics.csv").write_text(history)
            values = {"optim": "sgd", "lr": lr, "seed": seed}
            made["jobs"].append(
                template | {"key": f"{len(made['jobs']):012x}", "number": len(made["jobs"]), "directory": name}
                | {"values": values, "settings": template["settings"] | {"lr": lr, "optim.lr": lr, "seed": seed}}
            )  # fmt: skip
    made["axes"] = ["optim", "lr", "seed"]
    (grid / "sweep.json").write_text(json.dumps(made))
    monkeypatch.chdir(grid.parent)
    started = time.process_time()
    assert sweeps_main(["report", "grid"]) == 0
    assert time.process_time() - started < 30
    assert len(pd.read_csv(grid / "summary.csv")) == 154
    assert_grouped_as_compare_does(grid)


def test_each_verdict_over_new_jobs_is_a_look_at_a_smaller_level(sweep: Sweep, tmp_path: Path):
    asked, folder = ["lr=0.001,0.01", ONE_STEP, "name=looks"], tmp_path / "multirun/looks"
    for seeds, levels in (("0,1", [0.04]), ("0,1", [0.04]), ("0,1,2", [0.04, 0.005])):
        outcome = sweep(f"seed={seeds}", *asked)
        assert outcome.code == 0, outcome.err
        assert [look["level"] for look in content(folder)["looks"]] == pytest.approx(levels)
        assert f"This is verdict {len(levels)} over this sweep, at level {levels[-1] * 100:g} %" in outcome.out


OTHER = ["hydra/sweeper=basic", ONE_STEP, "name=other"]


def test_the_same_trial_in_two_processes_is_one_job(sweep: Sweep, tmp_path: Path, monkeypatch):
    """Hydra's Optuna sweeper may draw a trial twice in one batch, and a parallel launcher starts both at once."""

    def slower(full, overrides, axes, precision):
        twin = job_of(full, overrides, axes, precision)
        twin.directory, twin.stage, twin.number = "lr=0.001", "other", 0
        first = SweepRecord([], {"name": "val/iou", "mode": "max"}, sweeper="other")
        SweepDirectory(tmp_path / "multirun/other").update(lambda record: record.jobs.append(twin), first)
        return job_of(full, overrides, axes, precision)

    job_of = jobs.job_of
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "job_of", slower)
        outcome = sweep("lr=0.001", "hydra.sweep.subdir='lr=0.001'", *OTHER)
    assert outcome.code == 0, outcome.err
    assert statuses(tmp_path / "multirun/other") == {"lr=0.001": "completed"}


def test_a_job_that_another_process_completes_before_it_starts_stays_completed(
    sweep: Sweep, tmp_path: Path, monkeypatch
):
    asked = ["lr=0.001,0.01", "hydra.sweep.subdir='lr=${lr}'", *OTHER]
    assert sweep(*asked).code == 0
    folder = tmp_path / "multirun/other"
    done = folder.rename(tmp_path / "done") / "lr=0.01"
    before = {name: content for name, (_, content) in state(done).items()}

    @contextlib.contextmanager
    def locked(self: RunDirectory, wait: bool = False):
        if self.path.name == "lr=0.01":
            shutil.copytree(done, self.path, dirs_exist_ok=True)
        with held(self, wait):
            yield

    held = RunDirectory.locked
    monkeypatch.setattr(RunDirectory, "locked", locked)
    outcome = sweep(*asked)
    assert outcome.code == 0, outcome.err
    assert set(statuses(folder).values()) == {"completed"}
    now = {name: content for name, (_, content) in state(folder / "lr=0.01").items()}
    assert {name for name in before if before[name] != now[name]} <= {".hydra/hydra.yaml", "train.log"}


def test_a_foreign_sweeper_keeps_the_axes_of_an_existing_sweep(sweep: Sweep, tmp_path: Path):
    assert sweep("optim=sgd,adam", ONE_STEP, "name=other").code == 0
    assert sweep("lr=0.01", *OTHER).code == 0
    folder = tmp_path / "multirun/other"
    assert content(folder)["axes"] == ["optim", "lr"]
    assert len(load_sweep(folder).comparison.table) == 3


def test_a_foreign_sweeper_gets_a_report(sweep: Sweep, tmp_path: Path):
    outcome = sweep("optim=sgd,adam", "lr=0.001", "hydra/sweeper=basic", "name=basic", "trainer.max_steps=1")
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "multirun/basic"
    assert set(statuses(folder).values()) == {"completed"}
    assert pd.read_csv(folder / "summary.csv")["optim"].sort_values().tolist() == ["adam", "sgd"]


@pytest.mark.quick
@pytest.mark.parametrize("moment", ["fit", "store"])
def test_a_full_disk_ends_a_sweep_in_one_line(sweep: Sweep, tmp_path: Path, monkeypatch, moment: str):
    from segsweep.runs import RunRecord, stored

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "run.json")

    if moment == "fit":  # neither the training nor its failure can be recorded
        monkeypatch.setattr(RunRecord, "write", full)
    else:
        monkeypatch.setattr(stored, "store_plain", full)
    outcome = sweep("lr=0.1,0.2", "name=full")
    assert outcome.code == 1
    assert [line for line in outcome.error_lines if "error: " not in line] == []
    assert "No space left" in outcome.error_lines[-1]
    monkeypatch.undo()


@pytest.mark.parametrize("sweeper", ["optuna", "basic"])
def test_the_folders_of_a_foreign_sweeper_s_jobs_are_named_by_what_varies(sweep: Sweep, tmp_path: Path, sweeper: str):
    if sweeper == "optuna":
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    lr = {"optuna": "lr=choice(0.1,0.2)", "basic": "lr=0.1,0.2"}[sweeper]
    more = ["seed=choice(0,1)", "hydra.sweeper.n_trials=3"] if sweeper == "optuna" else ["seed=0,1"]
    outcome = sweep(f"hydra/sweeper={sweeper}", lr, *more, "optim=sgd", "momentum=0.5", "name=foreign")
    assert outcome.code == 0, outcome.err
    names = {path.parent.name for path in tmp_path.glob("multirun/foreign/*/run.json")}
    assert names
    assert names <= {f"lr={rate},seed={seed}" for rate in (0.1, 0.2) for seed in (0, 1)}
    assert set(statuses(tmp_path / "multirun/foreign")) == names


def test_a_signal_while_jobs_are_planned_breaks_no_job(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        try:
            raise Interrupted(signal.SIGTERM)
        finally:  # as OmegaConf does if the signal comes in the middle of a change
            raise ConfigCompositionException

    with monkeypatch.context() as patch:
        patch.setattr(ConfigLoaderImpl, "load_sweep_config", interrupted)
        outcome = sweep("optim=sgd,adam", "name=cut")
    assert outcome.code == 128 + signal.SIGTERM, outcome.err
    assert "stopped by SIGTERM" in outcome.err
    assert not (tmp_path / "multirun/cut/sweep.json").exists()
