"""callbacks=early_stopping ends a training whose objective no longer improves, also if it is killed as it ends."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from same_runs import assert_same_result
from support import ROOT, SMALL, Command

from segsweep.console import quoted
from segsweep.runs import read_metrics

Train = Callable[..., Path]
ASKED = ["callbacks=early_stopping", "callbacks.graph=null", "callbacks.early_stopping.patience=2", "lr=0.1",
         "trainer.max_steps=40", "trainer.val_every_n_steps=1"]  # fmt: skip


def stop_at(scores: list[float], patience: int, sign: int) -> int | None:
    """The validation, from 1, that ends a training: the `patience`-th in a row without a better score."""
    best, since = -np.inf, 0
    for at, score in enumerate(scores, start=1):
        best, since = (sign * score, 0) if sign * score > best else (best, since + 1)
        if since == patience:
            return at
    return None


@pytest.mark.parametrize(("objective", "sign"), [("val/iou", 1), ("val/loss", -1)])
def test_a_training_ends_at_the_first_validation_that_is_one_too_many(train: Train, objective: str, sign: int):
    run = train(*ASKED, f"objective={objective}")
    record = json.loads((run / "run.json").read_text())
    scores = read_metrics(run / "metrics.csv")[objective].dropna().tolist()
    assert record["status"] == "completed"
    assert record["steps"] == len(scores) == stop_at(scores, 2, sign) < 40
    assert "test/iou" in record["metrics"]
    assert f"stopped early at step {record['steps']}" in (run / "train.log").read_text()


def test_a_run_that_stopped_early_is_complete(train: Train, command: Command):
    run = train(*ASKED)
    before = (run / "run.json").read_bytes()
    outcome = command("train.py", f"resume={run}")
    assert outcome.code == 0, outcome.err
    assert "was complete already" in outcome.out
    assert (run / "run.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("before_the_end", [0, 1])
def test_a_run_that_was_stopped_at_its_last_validations_is_continued_to_the_same_result(
    train: Train, command: Command, tmp_path: Path, before_the_end: int
):
    whole = train(*ASKED, folder="whole")
    step = json.loads((whole / "run.json").read_text())["steps"] - before_the_end
    own = quoted("code", ROOT / "tests/traps.py")
    settings = {"_target_": "traps.Trap", "kind": "SIGTERM", "step": step, "hook": "on_validation_end", "flag": "trap"}
    (tmp_path / "trap").touch()
    trap = [own, *(f"+callbacks.trap.{name}={value}" for name, value in settings.items())]
    assert command("train.py", *SMALL, *ASKED, *trap, "hydra.run.dir=cut").code == 143
    outcome = command("train.py", "resume=cut", own)
    assert outcome.code == 0, outcome.err
    assert_same_result(whole, tmp_path / "cut")


@pytest.mark.parametrize("wrong", ["patience=0", "min_delta=-1", "patience=x"])
def test_a_wrong_setting_is_refused_by_its_key(command: Command, tmp_path: Path, wrong: str):
    outcome = command("train.py", "callbacks=early_stopping", f"callbacks.early_stopping.{wrong}")
    assert (outcome.code, len(outcome.error_lines)) == (1, 1), outcome.err
    assert f"callbacks.early_stopping.{wrong.partition('=')[0]}" in outcome.err
