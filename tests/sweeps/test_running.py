"""While jobs run, writing sweep.json and the tables takes a limited share of the time; each run.json is always right."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sweep_support import GRID, Made, Sweep, Values, content, state, statuses

from segsweep.runs import Objective, RunRecord
from segsweep.sweeps import running, scored
from segsweep.sweeps.load import load_sweep
from segsweep.sweeps.ranking import Comparison, compare
from segsweep.sweeps.report import print_report, write_report
from segsweep.sweeps.running import SHARE, RunningSweep
from segsweep.sweeps.state import Job, SweepDirectory, SweepRecord

FOUR = {"optim": ["sgd", "adam"], "lr": [0.1, 0.2]}


def pending(values: Values) -> str:
    return "pending"


def ended(sweep: SweepDirectory, job: Job, status: str = "completed", at: int = 0) -> None:
    """Writes run.json of a job that ends `at` seconds from now."""
    run = sweep.run(job)
    run.path.mkdir(exist_ok=True)
    value = 0.5 if status == "completed" else None
    RunRecord(status, None, 0, [], Objective("val/iou", "max", value), seconds=7.0).write(run.record)
    os.utime(run.record, (run.record.stat().st_mtime + at,) * 2)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often each run.json was read, by the job's directory."""
    counts: Counter[str] = Counter()
    read = RunRecord.read

    def counting(path: Path) -> RunRecord:
        counts[path.parent.name] += 1
        return read(path)

    monkeypatch.setattr(RunRecord, "read", counting)
    return counts


# Each file is read once


def test_a_report_reads_each_run_once_and_compares_once(made: Made, reads: Counter[str], monkeypatch, capsys):
    sweep = made({**FOUR, "seed": [0, 1, 2]}, lambda values: values["lr"] + values["seed"] / 100)
    compared = []

    def counting(*given: Any, **options: Any) -> Comparison:
        compared.append(given)
        return compare(*given, **options)

    monkeypatch.setattr(scored, "compare", counting)
    reads.clear()
    print_report(write_report(sweep.directory))
    assert reads == dict.fromkeys((job.directory for job in sweep.record.jobs), 1)
    assert len(compared) == 1


def test_the_end_of_a_job_reads_only_its_run_and_writes_nothing_before_it_is_due(
    made: Made, reads: Counter[str], capsys
):
    sweep = made(FOUR, pending)
    here = RunningSweep(sweep.directory, sweep.record)
    here.save_planned()
    before = state(sweep.path)
    for job in sweep.record.jobs:
        ended(sweep.directory, job)
        reads.clear()
        here.ended(job)
        assert reads == {job.directory: 1}
    after = state(sweep.path)
    assert {name for name in after if before.get(name) != after[name]} == {
        f"{job.directory}/run.json" for job in sweep.record.jobs
    }
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]


def test_continuing_a_sweep_reads_each_run_once_before_and_once_after(grid: Path, sweep: Sweep, reads: Counter[str]):
    outcome = sweep(*GRID, "name=grid")
    assert outcome.code == 0, outcome.err
    assert reads == dict.fromkeys(statuses(grid), 2)


# A limited share of the time


@given(
    cost=st.floats(0.01, 30), trainings=st.lists(st.floats(0.1, 100), min_size=1, max_size=40),
)  # fmt: skip
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_writing_the_tables_takes_a_limited_share_of_the_time(
    cost: float, trainings: list[float], tmp_path_factory: pytest.TempPathFactory
):
    sweep = SweepDirectory(tmp_path_factory.mktemp("sweep"))
    jobs = [Job(str(number), number, [], f"lr={number}", {"lr": number}) for number in range(len(trainings))]
    record = SweepRecord([], {"name": "val/iou", "mode": "max"}, jobs, ["lr"])
    now, saved = 0.0, []

    def save(_: object) -> None:
        nonlocal now
        saved.append((now, sum(job["status"] == "completed" for job in content(sweep.path)["jobs"])))
        now += cost

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running.time, "monotonic", lambda: now)
        patch.setattr(running, "write_tables", save)
        here = RunningSweep(sweep, record)
        here.save_planned()
        for done, (job, seconds) in enumerate(zip(jobs, trainings, strict=True), start=1):
            now += seconds
            ended(sweep, job)
            here.ended(job)
            # Either this job is in the file, or the next save is not due yet.
            assert saved[-1][1] == done or now - (saved[-1][0] + cost) < cost / SHARE + 1e-6
    assert cost * (len(saved) - 2) <= SHARE * now  # without the first save, and one that has just ended


# Files out of date


def put_out_of_date(sweep: Path) -> None:
    """Leaves the files as a process that was killed before it wrote them again."""
    made = content(sweep)
    for job in made["jobs"]:
        job["status"], job["error"] = "pending", None
    (sweep / "sweep.json").write_text(json.dumps(made))
    for name in ("summary.csv", "summary.md"):
        (sweep / name).unlink()


def test_a_sweep_whose_files_are_out_of_date_is_read_from_each_run_json(made: Made):
    sweep = made(FOUR, lambda values: None if values["lr"] == 0.2 else 0.5)
    expected = sweep.summary
    put_out_of_date(sweep.path)
    read = load_sweep(sweep.path)
    pd.testing.assert_frame_equal(read.summary, expected)
    assert {job.status for job in read.record.jobs} == {"completed", "failed"}
    write_report(sweep.directory)
    assert statuses(sweep.path) == {job.directory: job.status for job in read.record.jobs}


def test_a_sweep_whose_files_are_out_of_date_trains_only_what_is_left(grid: Path, sweep: Sweep):
    table = pd.read_csv(grid / "summary.csv")
    before = {name: entry for name, entry in state(grid).items() if "/" in name}
    put_out_of_date(grid)
    outcome = sweep(*GRID, "name=grid")
    assert outcome.code == 0, outcome.err
    assert "4 completed before" in outcome.out
    assert {name: entry for name, entry in state(grid).items() if "/" in name} == before
    pd.testing.assert_frame_equal(pd.read_csv(grid / "summary.csv"), table, check_exact=True)


# Jobs in other processes


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.split(" · ")[0] for line in capsys.readouterr().out.splitlines()]


def test_each_job_in_another_process_has_a_line_in_the_order_of_the_ends(made: Made, capsys):
    sweep = made(FOUR, pending)
    capsys.readouterr()
    first, second, third, fourth = sweep.record.jobs
    here = RunningSweep(sweep.directory, sweep.record)
    here.check_workers()
    ended(sweep.directory, second, at=2)
    ended(sweep.directory, third, "failed", at=1)
    ended(sweep.directory, first, "interrupted")
    here.check_workers()
    assert said(capsys) == [f"[1/4] {third.name}", f"[2/4] {second.name}"]
    here.check_workers()
    assert said(capsys) == []
    ended(sweep.directory, fourth)
    here.check_workers(over=True)
    assert said(capsys) == [f"[2/4] {first.name}", f"[3/4] {fourth.name}"]


def test_a_job_that_was_interrupted_before_and_did_not_run_again_has_no_line(made: Made, capsys):
    sweep = made(FOUR, pending)
    capsys.readouterr()
    ended(sweep.directory, sweep.record.jobs[0], "interrupted")
    here = RunningSweep(sweep.directory, sweep.record)
    here.check_workers()
    here.check_workers(over=True)
    assert said(capsys) == []


def test_a_job_whose_process_is_gone_counts_as_interrupted_at_the_end(made: Made, capsys):
    sweep = made(FOUR, pending)
    capsys.readouterr()
    job = sweep.record.jobs[0]
    here = RunningSweep(sweep.directory, sweep.record)
    ended(sweep.directory, job, "running")
    here.check_workers(over=True)
    assert said(capsys) == [f"[0/4] {job.name}"]
    assert job.status == "interrupted"


def test_jobs_that_another_process_adds_are_taken_over_and_kept(made: Made, capsys):
    sweep = made(FOUR, pending)
    capsys.readouterr()
    here = RunningSweep(sweep.directory, sweep.record)
    other = Job("other", 4, [], "lr=0.3", {"optim": "sgd", "lr": 0.3}, stage="other")
    sweep.directory.update(lambda record: record.jobs.append(other))
    ended(sweep.directory, other)
    here.check_workers()
    assert said(capsys) == ["[1] optim=sgd, lr=0.3"]
    ended(sweep.directory, sweep.record.jobs[0])
    here.check_workers()
    here._next_save = 0.0
    here.save_if_due()
    assert statuses(sweep.path) == dict.fromkeys(statuses(sweep.path), "pending") | {
        "lr=0.3": "completed", sweep.record.jobs[0].directory: "completed"
    }  # fmt: skip
