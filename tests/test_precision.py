"""trainer.precision=auto: what it becomes, where that is stored, and that nothing changes it later."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from same_runs import assert_same_result
from scipy import stats
from support import ROOT, SMALL, Command

from segsweep.runs import RunDirectory, RunRecord
from segsweep.sweeps.state import SweepDirectory
from segsweep.trainer_settings import TrainerSettings, auto_precision

Machine = Callable[[bool], None]
SWEEP = ["-m", *SMALL, "name=first", "trainer.max_steps=1", "trainer.test=false", "logger=csv"]


@pytest.fixture
def amx(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes this machine one with AMX or without; bfloat16 gives the same numbers on both, but is slower without."""
    return lambda there: monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: there, raising=False)


def stored_precision(run: Path) -> set[str | None]:
    """The precision in the files of a run that name it."""
    checkpoint = torch.load(RunDirectory(run).last, weights_only=True)["segsweep"]["config"]
    config = yaml.safe_load(RunDirectory(run).config.read_text())
    record = RunRecord.read(RunDirectory(run).record)
    return {record.precision, config["trainer"]["precision"], checkpoint["trainer"]["precision"]}


def test_auto_is_bfloat16_on_a_cpu_with_amx_alone(amx: Machine, monkeypatch: pytest.MonkeyPatch):
    found = {}
    for there in (True, False):
        amx(there)
        found[there] = (auto_precision("cpu"), TrainerSettings(accelerator="cpu").precision)
    assert found == {True: ("bf16-mixed", "bf16-mixed"), False: ("32-true", "32-true")}
    amx(True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert auto_precision("auto") == auto_precision("gpu") == "32-true"
    assert auto_precision("cpu") == "bf16-mixed"


def test_a_torch_that_cannot_tell_of_amx_trains_in_float32(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert auto_precision("cpu") == "32-true"


@pytest.mark.quick
def test_a_run_keeps_the_precision_that_it_began_with(command: Command, amx: Machine, tmp_path: Path):
    amx(True)
    small, length = [*SMALL, "trainer.val_every_n_steps=2", "trainer.test=false"], "trainer.max_steps=4"
    assert command("train.py", *small, length, "hydra.run.dir=whole").code == 0
    assert command("train.py", *small, "trainer.max_steps=2", "hydra.run.dir=half").code == 0
    assert stored_precision(tmp_path / "half") == {"bf16-mixed"}
    amx(False)
    outcome = command("train.py", "resume=half", length)
    assert outcome.code == 0, outcome.err
    assert stored_precision(tmp_path / "half") == {"bf16-mixed"}
    assert_same_result(tmp_path / "whole", tmp_path / "half")


def test_a_sweep_keeps_the_precision_that_it_began_with(command: Command, amx: Machine, tmp_path: Path):
    amx(True)
    first = command("train.py", *SWEEP, "lr=0.001")
    amx(False)
    second = command("train.py", *SWEEP, "lr=0.001,0.01")
    assert (first.code, second.code) == (0, 0), second.err
    assert "bf16-mixed" in first.out
    (line,) = [line for line in second.out.splitlines() if "trainer.precision=auto" in line]
    assert "bf16-mixed" in line
    assert "32-true" in line
    sweep = SweepDirectory(tmp_path / "multirun/first")
    record = sweep.read()
    assert record.precision == "bf16-mixed"
    assert len(record.jobs) == 2
    for job in record.jobs:
        assert job.settings["trainer.precision"] == "bf16-mixed"
        assert stored_precision(sweep.run(job).path) == {"bf16-mixed"}


def test_a_sweep_of_a_version_without_auto_stays_in_float32(command: Command, amx: Machine, tmp_path: Path):
    amx(False)
    assert command("train.py", *SWEEP, "lr=0.001").code == 0
    file = tmp_path / "multirun/first/sweep.json"
    content = json.loads(file.read_text())
    del content["precision"]
    file.write_text(json.dumps(content))
    amx(True)
    assert command("train.py", *SWEEP, "lr=0.001,0.01").code == 0
    assert {job.settings["trainer.precision"] for job in SweepDirectory(file.parent).read().jobs} == {"32-true"}


@pytest.mark.parametrize(("there", "typed"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_and_what_it_becomes_are_one_job(command: Command, amx: Machine, tmp_path: Path, there: bool, typed: str):
    amx(there)
    assert command("train.py", *SWEEP, "lr=0.001").code == 0
    outcome = command("train.py", *SWEEP, "lr=0.001", f"trainer.precision={typed}")
    assert outcome.code == 0, outcome.err
    assert "1 completed before" in outcome.out
    assert len(SweepDirectory(tmp_path / "multirun/first").read().jobs) == 1


@pytest.mark.parametrize(
    "experiment",
    ["texture_sgd", "texture_adam", "texture_rmsprop", "texture_momentum", "texture_exponential", "rgb_report"],
)
def test_published_settings_are_in_float32_on_every_machine(experiment: str):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert compose("train", overrides=[f"experiment={experiment}"]).trainer.precision == "32-true"


@pytest.fixture(scope="module")
def equivalence() -> Callable:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("precision").equivalence


@given(st.floats(-0.1, 0.1), st.lists(st.floats(-1e-3, 1e-3), min_size=3, max_size=10))
@settings(deadline=None)
def test_precisions_are_equivalent_only_if_the_whole_interval_is_within_the_bound(
    equivalence: Callable, shift: float, noise: list[float]
):
    assume(np.ptp(noise) > 1e-9)  # scipy warns of equal numbers
    rows = [
        (seed, precision, "completed", 0.9 + (precision == "bf16-mixed") * (shift + change))
        for seed, change in enumerate(noise)
        for precision in ("32-true", "bf16-mixed")
    ]
    alone = [(len(noise), "32-true", "completed", 0.1), (len(noise) + 1, "bf16-mixed", "failed", 0.1)]
    summary = pd.DataFrame([*rows, *alone], columns=["seed", "trainer.precision", "status", "test/iou"])
    found = equivalence(summary, bound=0.01)
    assert found.seeds == len(noise)
    assert found.difference == pytest.approx(shift + np.mean(noise), abs=1e-9)
    expected = stats.ttest_1samp(shift + np.array(noise), 0).confidence_interval(0.9)
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=1e-9), pytest.approx(expected.high, abs=1e-9))
    assert found.shown == (found.low > -0.01 and found.high < 0.01)
