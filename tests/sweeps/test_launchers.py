"""Hydra's other launchers and sweepers leave the same files as the basic launcher, bit for bit."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from support import ROOT, Outcome
from sweep_support import GRID, TINY, content, installed, run_record, same_weights, statuses

from segsweep.sweeps.state import SweepDirectory

# One thread for each job: two parallel jobs share the cores, and the weights depend on the number of threads.
ONE_THREAD = "trainer.threads=1"


def slurm_answers() -> bool:
    try:
        return subprocess.run(["sinfo"], capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


JOBLIB = pytest.param("joblib", [], marks=installed("joblib"), id="joblib")
LOCAL = pytest.param("submitit_local", [], marks=installed("submitit"), id="submitit_local")
SLURM = pytest.param(
    "submitit_slurm", ["hydra.launcher.timeout_min=5"], id="submitit_slurm",
    marks=[installed("submitit"), pytest.mark.skipif(not slurm_answers(), reason="no Slurm answers here")],
)  # fmt: skip
RAY = pytest.param("ray", [], marks=installed("ray"), id="ray")
LAUNCHERS = pytest.mark.parametrize(("launcher", "settings"), [JOBLIB, LOCAL, SLURM, RAY])

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # Each test starts several processes that import torch; together they take a quarter of an hour.
    pytest.mark.skipif(not os.environ.get("SEGSWEEP_ENGINES"), reason="takes minutes; SEGSWEEP_ENGINES=1 runs it"),
]


def run(folder: Path, *overrides: str) -> Outcome:
    """The command in a process of its own, with `folder` as the working directory."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "-m", *TINY, *overrides],
        cwd=folder, capture_output=True, text=True, env=environment(), timeout=500,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "RAY_AUTH_MODE": "disabled"}


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("basic")
    outcome = run(folder, ONE_THREAD, *GRID, "name=grid")
    assert outcome.code == 0, outcome.err
    return folder / "multirun/grid", outcome


@LAUNCHERS
def test_a_launcher_leaves_the_files_of_the_basic_one_and_continues_under_a_name(
    basic, launcher, settings, tmp_path: Path
):
    expected, _ = basic
    chosen = [f"hydra/launcher={launcher}", *settings, ONE_THREAD, "name=grid"]
    # A job that fails is recorded, the others run.
    first = run(tmp_path, *chosen, "optim=sgd,adam", "lr=0.001,1e30")
    assert first.code == 1
    sweep = tmp_path / "multirun/grid"
    assert sorted(statuses(sweep).values()) == ["completed", "completed", "failed", "failed"]
    assert sum(line.startswith("[") for line in first.out.splitlines()) == 4
    assert "Traceback" not in first.out + first.err
    before = {
        name: (sweep / name / "run.json").stat().st_mtime_ns for name in ("optim=sgd,lr=0.001", "optim=adam,lr=0.001")
    }
    # The rest of the grid is run, and nothing else.
    outcome = run(tmp_path, *chosen, *GRID)
    assert outcome.code == 1, "the jobs that failed are in the sweep"
    assert "2 completed before" in outcome.out
    assert before == {name: (sweep / name / "run.json").stat().st_mtime_ns for name in before}
    done = [name for name, status in statuses(sweep).items() if status == "completed"]
    assert sorted(done) == sorted(statuses(expected))
    for name in done:
        assert same_weights(sweep / name, expected / name)
        assert run_record(sweep / name)["device"] == "CPU (1 threads)"
        assert {file.name for file in (sweep / name).iterdir()} == {file.name for file in (expected / name).iterdir()}
    own = {".submitit"} if launcher.startswith("submitit") else set()
    left = {file.name for file in sweep.iterdir()} - own - {file.name for file in expected.iterdir()}
    assert left <= {"optim=sgd,lr=1e+30", "optim=adam,lr=1e+30"}
    ours, theirs = (
        table[table["status"] == "completed"].drop(columns=["seconds", "error", "rank"]).reset_index(drop=True)
        for table in (pd.read_csv(sweep / "summary.csv"), pd.read_csv(expected / "summary.csv"))
    )
    pd.testing.assert_frame_equal(ours, theirs)


@installed("joblib")
def test_a_race_under_joblib_is_that_of_the_basic_launcher(tmp_path: Path):
    asked = ["hydra/sweeper=race", "lr=0.1,0.01,0.001", "hydra.sweeper.keep=2", "hydra.sweeper.looks=[2,3]", ONE_THREAD]
    assert run(tmp_path, *asked, "name=basic").code == 0
    outcome = run(tmp_path, *asked, "name=joblib", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert outcome.code == 0, outcome.err
    one, other = tmp_path / "multirun/basic", tmp_path / "multirun/joblib"
    assert statuses(one) == statuses(other)
    assert content(one)["race"] == content(other)["race"]
    assert all(same_weights(one / name, other / name) for name in statuses(one))
    assert (one / "settings.csv").read_bytes() == (other / "settings.csv").read_bytes()


@installed("joblib")
def test_on_error_stop_begins_no_further_job_in_any_process(tmp_path: Path):
    overrides = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "on_error=stop", "lr=1e30,0.001,0.01", "name=stop"]
    outcome = run(tmp_path, *overrides)
    assert outcome.code == 1
    assert list(statuses(tmp_path / "multirun/stop").values()) == ["failed", "pending", "pending"]
    assert "on_error=stop" in outcome.err


LONG = ["data.limit_samples=400", "data.val_size=2", "data.test_size=2", "trainer.val_every_n_steps=100000", ONE_THREAD]


JOBLIB_OF_TWO = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


def started_sweep(folder: Path, *overrides: str, launcher: Sequence[str] = JOBLIB_OF_TWO) -> "subprocess.Popen[str]":
    """Starts a sweep, and returns when two of its jobs train."""
    started = time.time()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "-m", *TINY, *LONG, *launcher, *overrides],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True,
    )  # fmt: skip

    def training() -> bool:
        new = [path.parent for path in folder.glob("multirun/*/*/run.json") if path.stat().st_mtime > started]
        return sum(run_record(run)["status"] == "running" for run in new) == 2

    wait_until(lambda: training() or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    time.sleep(2)
    return process


def wait_until(true, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.1)
    assert true()


def workers_of(process: "subprocess.Popen[str]") -> list[int]:
    """The joblib workers of a process, from /proc."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == process.pid and b"popen_loky" in command:
            found.append(int(folder.name))
    return found


@installed("joblib")
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
def test_the_same_command_continues_a_sweep_in_several_processes_however_it_was_stopped(tmp_path: Path):
    grid = ["lr=0.001,0.01,0.1", "name=cut", "trainer.max_steps=1000"]
    sweep = SweepDirectory(tmp_path / "multirun/cut")
    # Ctrl-C reaches every process of the terminal.
    process = started_sweep(tmp_path, *grid)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopped by Ctrl-C; 0 of 3 jobs are completed" in err
    assert "Traceback" not in out + err
    assert statuses(sweep.path) == {"lr=0.001": "interrupted", "lr=0.01": "interrupted", "lr=0.1": "pending"}
    steps = [run_record(sweep.path / name)["steps"] for name in ("lr=0.001", "lr=0.01")]
    assert all(0 < step < 1000 for step in steps)
    # If a worker is killed, the sweep ends with one line that says so.
    process = started_sweep(tmp_path, *grid)
    assert [run_record(sweep.path / name)["continued_at"][0] for name in ("lr=0.001", "lr=0.01")] == steps
    os.kill(workers_of(process)[0], signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    assert "has died" in line
    assert "Traceback" not in out + err
    # If the parent alone is killed, its jobs save a checkpoint and end.
    process = started_sweep(tmp_path, *grid)
    workers = workers_of(process)
    process.kill()
    process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    # The sweep still continues, to the weights of an uninterrupted sweep.
    outcome = run(tmp_path, *LONG, "hydra/launcher=joblib", *grid)
    assert outcome.code == 0, outcome.err
    assert set(statuses(sweep.path).values()) == {"completed"}
    assert run(tmp_path, *LONG, *grid, "name=whole").code == 0
    for name in statuses(sweep.path):
        assert same_weights(sweep.path / name, tmp_path / "multirun/whole" / name)


@installed("joblib")
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
def test_a_worker_without_a_job_ends_when_the_command_is_killed(tmp_path: Path):
    process = started_sweep(tmp_path, "lr=0.001", "trainer.max_steps=30,100000", "name=idle")
    sweep = tmp_path / "multirun/idle"
    wait_until(lambda: run_record(sweep / "trainer.max_steps=30")["status"] == "completed")
    workers = workers_of(process)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), seconds=60)


@installed("submitit")
def test_ctrl_c_lets_the_jobs_of_submitit_save_and_prints_no_traceback(tmp_path: Path):
    grid = ["lr=0.001,0.01", "name=cut", "trainer.max_steps=100000"]
    process = started_sweep(tmp_path, *grid, launcher=["hydra/launcher=submitit_local"])
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in out + err
    sweep = tmp_path / "multirun/cut"
    assert set(statuses(sweep).values()) == {"interrupted"}
    for name in statuses(sweep):
        saved = torch.load(sweep / name / "checkpoints/last.ckpt", weights_only=True)["global_step"]
        assert run_record(sweep / name)["steps"] == saved > 0


OPTUNA = ["hydra/sweeper=optuna", "optim=sgd,adam", "lr=tag(log,interval(0.0001,0.1))", "name=ranges"]


@installed("optuna")
def test_optuna_follows_the_objective_and_continues_under_a_name(tmp_path: Path):
    sweep = tmp_path / "multirun/ranges"
    first = run(tmp_path, *OPTUNA, "hydra.sweeper.n_trials=2")
    assert first.code == 0, first.err
    before = {path: path.stat().st_mtime_ns for path in sweep.glob("*/run.json")}
    assert len(before) == 2
    outcome = run(tmp_path, *OPTUNA, "hydra.sweeper.n_trials=4")
    assert outcome.code == 0, outcome.err
    # Optuna draws the same two trials again, and they are found: only the other two are trained.
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert len(statuses(sweep)) == 4
    table = pd.read_csv(sweep / "summary.csv")
    best = OmegaConf.load(sweep / "optimization_results.yaml")
    assert best.best_value == table["objective"].max()
    assert best.best_params.lr == pytest.approx(table["lr"].iloc[0])
    assert {"summary.md", "curves.png", "heatmap.png", "sweep.json"} <= {file.name for file in sweep.iterdir()}
    assert "hydra/sweeper=optuna" in content(sweep)["overrides"]


@installed("optuna")
@installed("joblib")
def test_a_trial_that_fails_does_not_end_the_search_also_in_processes(tmp_path: Path):
    overrides = ["hydra/sweeper=optuna", "lr=choice(0.01,-1)", "hydra.sweeper.n_trials=4", "hydra/launcher=joblib"]
    outcome = run(tmp_path, *overrides, "objective=val/loss", "name=trials")
    assert outcome.code == 1  # because of the trial, which is in the table
    sweep = tmp_path / "multirun/trials"
    assert sorted(statuses(sweep).values()) == ["completed", "failed"]
    best = OmegaConf.load(sweep / "optimization_results.yaml")
    assert best.best_value == pd.read_csv(sweep / "summary.csv")["objective"].min()
