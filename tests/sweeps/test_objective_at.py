"""objective_at chooses the validation that ranks the jobs; best.ckpt is that of the best validation in any case."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from support import ROOT, Command
from sweep_support import TRAP, Made, Sweep, content, run_record, same_weights, statuses, weights

from segsweep.console import quoted
from segsweep.runs import RunRecord
from segsweep.sweeps.report import write_report
from segsweep.sweeps.state import SweepDirectory

OWN = quoted("code", ROOT / "tests/traps.py")
OFTEN = ["trainer.max_steps=5", "trainer.val_every_n_steps=1"]


def validations(run: Path) -> pd.Series:
    """The objective at each validation, by metrics.csv."""
    return pd.read_csv(run / "metrics.csv")["val/iou"].dropna()


@pytest.mark.quick
def test_the_choice_changes_the_value_and_nothing_else(train, tmp_path: Path):
    runs = {at: train(*OFTEN, "lr=0.1", f"objective_at={at}", folder=at) for at in ("best", "last", "mean_last_3")}
    records = {at: run_record(run) for at, run in runs.items()}
    scored = validations(runs["last"])
    assert len(scored) == 5
    wanted = {"best": scored.max(), "last": scored.iloc[-1], "mean_last_3": math.fsum(scored[-3:]) / 3}
    assert len(set(wanted.values())) == 3
    for at, record in records.items():
        assert record["objective"] == {"name": "val/iou", "mode": "max", "value": wanted[at], "at": at, **wanted}
        assert same_weights(runs[at], runs["best"])
        assert record["best_step"] == records["best"]["best_step"]
        scores = [{k: v for k, v in found["metrics"].items() if "per_second" not in k} for found in records.values()]
        assert scores[0] == scores[1] == scores[2]


def test_with_fewer_than_three_validations_the_mean_is_over_all(train):
    run = train("trainer.max_steps=2", "trainer.val_every_n_steps=1", "objective_at=mean_last_3")
    assert run_record(run)["objective"]["value"] == math.fsum(validations(run)) / 2


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_resumed_run_has_the_values_of_an_uninterrupted_one(train, command: Command, tmp_path: Path, step: int):
    trap = [TRAP, "+callbacks.trap.kind=SIGTERM", "+callbacks.trap.flag=stop", f"+callbacks.trap.step={step}"]
    asked = [*OFTEN, "trainer.max_steps=6", "objective_at=mean_last_3", *trap]
    whole = train(*asked, folder="whole")
    (tmp_path / "stop").touch()
    with pytest.raises(AssertionError):
        train(*asked, folder="cut")
    assert run_record(tmp_path / "cut")["status"] == "interrupted"
    (tmp_path / "stop").unlink(missing_ok=True)
    outcome = command("train.py", "resume=cut", OWN)
    assert outcome.code == 0, outcome.err
    assert run_record(tmp_path / "cut")["objective"] == run_record(whole)["objective"]
    assert same_weights(tmp_path / "cut", whole)
    refused = command("train.py", "resume=cut", "objective_at=last", OWN)
    assert (refused.code, len(refused.error_lines)) == (1, 1), refused.err
    assert "objective_at: mean_last_3 before, last now" in refused.err


@pytest.mark.slow
def test_a_sweep_ranks_by_it_and_tests_the_best_checkpoint(sweep: Sweep, tmp_path: Path):
    outcome = sweep("lr=0.001,0.01,0.1", *OFTEN, "objective_at=last", "name=last")
    assert outcome.code == 0, outcome.err
    assert "val/iou (last)" in outcome.out
    folder = tmp_path / "multirun/last"
    assert content(folder)["objective"] == {"name": "val/iou", "mode": "max", "at": "last"}
    table = pd.read_csv(folder / "summary.csv")
    assert table["objective"].is_monotonic_decreasing
    for row in table.itertuples():
        scored = validations(folder / row.directory)
        assert (row.objective, row.objective_best) == (scored.iloc[-1], scored.max())
        assert table["val/iou"][row.Index] == scored.max()
    text = (folder / "summary.md").read_text()
    assert "| val/iou (last) | best | last | mean of last 3 |" in text
    for other in ([], ["objective_at=best"], ["objective_at=mean_last_3"]):
        refused = sweep("lr=0.001,0.5", *OFTEN, *other, "name=last")
        assert (refused.code, len(refused.error_lines)) == (1, 1), refused.err
        assert "objective_at: " in refused.err
    assert len(statuses(folder)) == 3
    assert weights(folder / table["directory"][0], "best")


@pytest.mark.parametrize("typed", [["objective_at=first"], ["-m", "objective_at=best,last"]])
def test_a_mistake_ends_in_one_line(command: Command, tmp_path: Path, typed):
    outcome = command("train.py", *typed)
    assert (outcome.code, len(outcome.error_lines)) == (1, 1), outcome.err
    assert "objective_at" in outcome.err
    assert not list((tmp_path / "multirun").rglob("*"))


def with_last(folder: Path, last) -> list[str]:
    """Writes the values of the last validations into the run.json of a made sweep; returns the lines of the verdict."""
    for path in folder.glob("*/run.json"):
        record = RunRecord.read(path)
        record.objective.last = last(dict(word.split("=") for word in path.parent.name.split(",")))
        record.write(path)
    return write_report(SweepDirectory(folder)).compared.sentences()


def test_the_verdict_says_if_the_last_validation_has_another_leader(made: Made, tmp_path: Path):
    made({"lr": [0.1, 0.2], "seed": [0, 1]}, lambda job: job["lr"] + 0.01 * job["seed"])
    same = with_last(tmp_path / "made", lambda job: float(job["lr"]))
    (line,) = set(with_last(tmp_path / "made", lambda job: -float(job["lr"]))) - set(same)
    assert "lr=0.1 leads" in line
    assert "objective_at=last" in line
    assert line in (tmp_path / "made/summary.md").read_text()


def test_runs_without_last_values_get_no_such_sentence(made: Made, tmp_path: Path):
    made({"lr": [0.1, 0.2]}, lambda job: job["lr"])
    before = write_report(SweepDirectory(tmp_path / "made")).compared.sentences()
    for path in (tmp_path / "made").glob("*/run.json"):  # as an earlier version wrote it
        record = json.loads(path.read_text())
        record["objective"] = {key: record["objective"][key] for key in ("name", "mode", "value")}
        path.write_text(json.dumps(record))
    assert write_report(SweepDirectory(tmp_path / "made")).compared.sentences() == before
    assert "objective_last" not in pd.read_csv(tmp_path / "made/summary.csv")
