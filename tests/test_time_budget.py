"""trainer.max_minutes ends a training by wall time; the schedule, resuming and the report know of it."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from same_runs import assert_same_run
from support import ROOT, SMALL, Command
from torch import nn

from segsweep.callbacks import ConsoleProgress, TrainingLog
from segsweep.console import quoted
from segsweep.fingerprint import job_key
from segsweep.runs import read_metrics
from segsweep.tasks import SGD, Cosine, LengthSchedule, OneCycle, TimeBudget

Train = Callable[..., Path]
ENDLESS = ["trainer.max_steps=-1", "callbacks.panel=null"]
AT_ONCE = "trainer.max_minutes=1e-9"
OWN = quoted("code", ROOT / "tests/traps.py")


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that shows a second more at each look: each step and each validation takes one."""
    now = iter(range(1000, 10**6))
    monkeypatch.setattr("segsweep.tasks.time_budget.monotonic", lambda: next(now))


def seconds(number: int) -> str:
    return f"trainer.max_minutes={number / 60}"


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())


@pytest.mark.quick
@pytest.mark.parametrize("asked", [["scheduler=onecycle"], ["trainer.max_epochs=3", "scheduler=exponential"]])
def test_a_budget_of_almost_nothing_ends_after_one_step_with_validation_checkpoints_and_test(
    train: Train, command: Command, asked: list[str]
):
    run = train(*ENDLESS, AT_ONCE, *asked)
    content = record(run)
    assert (content["status"], content["steps"], content["best_step"]) == ("completed", 1, 1)
    assert content["limited_by_time"] is True
    assert {"val/iou", "test/iou"} <= set(content["metrics"])
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert (run / "train.log").read_text().count("trainer.max_minutes=") == 1
    again = command("train.py", "resume=run")
    assert again.code == 0, again.err
    assert "trainer.max_minutes=N or trainer.max_steps=N trains it further" in again.out


@pytest.mark.parametrize(
    ("limit", "steps", "validated"),
    [(1, 1, [1]), (2, 2, [2]), (3, 2, [2]), (4, 3, [2, 3]), (6, 4, [2, 4]), (7, 5, [2, 4, 5])],
)
def test_it_ends_after_the_first_step_or_validation_that_uses_up_the_time(
    train: Train, ticks: None, limit: int, steps: int, validated: list[int]
):
    # An epoch has two steps; then comes a validation.
    table = read_metrics(train(*ENDLESS, seconds(limit)) / "metrics.csv")
    assert table.loc[table["val/iou"].notna(), "step"].tolist() == validated
    assert table["step"].max() == steps


def test_steps_end_a_training_that_has_time_left_with_the_weights_of_one_without_a_budget(train: Train):
    asked = ["trainer.max_steps=5", "callbacks.panel=null", "scheduler=onecycle"]
    whole, timed = train(*asked, folder="whole"), train(*asked, "trainer.max_minutes=1e9", folder="timed")
    one, other = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (whole, timed))
    assert all(torch.equal(weight, other["state_dict"][name]) for name, weight in one["state_dict"].items())
    assert record(timed)["steps"] == 5
    assert record(whole)["limited_by_time"] is False
    assert "EndOfTraining" not in one["callbacks"]


@given(
    st.one_of(st.builds(Cosine, st.floats(0, 0.9)), st.builds(OneCycle, st.floats(0.05, 0.95), st.floats(0.01, 1))),
    st.integers(1, 400), st.floats(0, 1), st.floats(0, 1.5),
)  # fmt: skip
@example(OneCycle(), 100, 0.5, 0.5)
@example(OneCycle(), 100, 0.0, 1.0)
def test_the_rate_is_that_of_the_larger_share(
    schedule: LengthSchedule, total: int, step_share: float, time_share: float
):
    def factor(total_steps: int | None, step: int, share: float) -> float:
        optimizer = SGD(lr=0.1)([nn.Parameter(torch.zeros(1))])
        (found,) = schedule(optimizer, total_steps, 7, lambda: share).lr_lambdas  # type: ignore[attr-defined]
        return float(found(step))

    step = round(step_share * total)
    found = factor(total, step, time_share)
    if step / total >= time_share:
        assert found == pytest.approx(factor(total, step, 0.0), rel=1e-9, abs=1e-12)
    else:
        assert found == pytest.approx(factor(None, 0, time_share), rel=1e-9, abs=1e-12)
    assert factor(None, step, time_share) == factor(None, 0, time_share)


@pytest.mark.parametrize(("scheduler", "max_steps"), [("onecycle", -1), ("cosine", 40), ("exponential", 40)])
def test_a_training_has_the_rates_of_its_schedule_by_time(train: Train, ticks: None, scheduler: str, max_steps: int):
    asked = ["trainer.log_every_n_steps=1", f"scheduler={scheduler}", f"trainer.max_steps={max_steps}", "lr=0.1"]
    table = read_metrics(train("callbacks.panel=null", *asked, seconds(9)) / "metrics.csv")
    # Logged after the step: the rate of the next one.
    rates = table["lr"].dropna().tolist()
    used = [1, 2, 4, 5, 7, 8]  # a validation takes the third second
    if scheduler == "exponential":
        expected = [0.95 ** (step // 2) for step in range(1, 7)]
    else:
        schedule = OneCycle() if scheduler == "onecycle" else Cosine()
        expected = [schedule.factor(number / 9, 1) for number in used]
    assert rates == pytest.approx([0.1 * factor for factor in expected], rel=1e-9)


@pytest.mark.parametrize(
    ("hook", "step"), [("on_train_batch_end", 3), ("on_validation_end", 4), ("on_validation_end", 7)]
)
def test_a_resumed_training_counts_the_time_that_was_used(
    train: Train, command: Command, ticks: None, tmp_path: Path, hook: str, step: int
):
    trap = {"_target_": "traps.Trap", "kind": "SIGTERM", "step": step, "hook": hook, "flag": "trap"}
    asked = [*ENDLESS, seconds(10), "scheduler=onecycle", OWN]
    asked += [f"+callbacks.trap.{name}={value}" for name, value in trap.items()]
    whole = train(*asked, folder="whole")
    assert record(whole)["steps"] == 7
    (tmp_path / "trap").touch()
    assert command("train.py", *SMALL, *asked, "hydra.run.dir=cut").code == 143
    outcome = command("train.py", "resume=cut", OWN)
    assert outcome.code == 0, outcome.err
    assert_same_run(whole, tmp_path / "cut")


def test_the_time_may_be_raised_on_resume_and_nothing_else(train: Train, command: Command, ticks: None, tmp_path: Path):
    run = train(*ENDLESS, seconds(4))
    assert record(run)["steps"] == 3
    for wrong in (seconds(3), "trainer.max_minutes=null", AT_ONCE):
        copy = shutil.copytree(run, tmp_path / "copy", dirs_exist_ok=True)
        outcome = command("train.py", "resume=copy", wrong, "trainer.max_steps=-1")
        assert (outcome.code, len(outcome.error_lines)) == (1, 1), outcome.err
        assert outcome.err.startswith("error: trainer.max_minutes")
        assert record(copy)["steps"] == 3
    # The last validation took the fifth second.
    outcome = command("train.py", "resume=run", seconds(8))
    assert outcome.code == 0, outcome.err
    assert record(run)["steps"] == 5
    assert record(run)["continued_at"] == [3]


def test_the_budget_is_a_part_of_a_job_and_none_is_as_before():
    plain = {"lr": 0.1, "trainer.max_steps": 8}
    assert job_key({**plain, "trainer.max_minutes": None}) == job_key(plain)
    assert len({job_key({**plain, "trainer.max_minutes": minutes}) for minutes in (None, 1, 1.0, 2.0)}) == 3


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["trainer.max_minutes=0"], "trainer.max_minutes"),
        (["trainer.max_minutes=-1"], "trainer.max_minutes"),
        (["trainer.max_minutes=inf"], "trainer.max_minutes"),
        (["trainer.max_minutes=long"], "trainer.max_minutes"),
        (["trainer.max_time=5"], "trainer.max_minutes"),
        (["trainer.max_steps=-1"], "trainer.max_epochs=10 or trainer.max_minutes=5"),
        ([AT_ONCE, OWN, "scheduler._target_=traps.Trap"], "segsweep.tasks.LengthSchedule"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[-1],
)
def test_a_mistake_is_one_line(command: Command, typed: list[str], said: str):
    outcome = command("train.py", *SMALL, *typed)
    assert (outcome.code, len(outcome.error_lines)) == (1, 1), outcome.err
    assert said in outcome.err


@pytest.mark.parametrize(
    ("total", "used", "said"),
    [(100, 0.0, "step 50/100  loss 0.5000  1.0 steps/s  0:50 left"),
     (100, 40.0, "step 50/100  loss 0.5000  1.0 steps/s  0:20 left"),
     (float("inf"), 30.0, "step 50  loss 0.5000  1.0 steps/s  0:30 left"),
     (float("inf"), 70.0, "step 50  loss 0.5000  1.0 steps/s  0:00 left")],
)  # fmt: skip
def test_the_time_left_is_the_smaller_estimate(
    caplog: pytest.LogCaptureFixture, total: float, used: float, said: str
) -> None:
    log, budget = TrainingLog(objective="val/iou"), TimeBudget(1.0)
    log.latest, log.train_seconds, log.train_steps, budget.seconds = {"train/loss": 0.5}, 50.0, 50, used
    progress = ConsoleProgress(log, "val/iou", budget=budget)
    state = SimpleNamespace(fn="fit")
    trainer = SimpleNamespace(state=state, is_global_zero=True, estimated_stepping_batches=total, global_step=50)
    with caplog.at_level(logging.INFO):
        progress.on_validation_end(trainer, None)  # type: ignore[arg-type]
    assert caplog.messages == [said]
