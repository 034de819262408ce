"""debug=speed: every combination once, the losses of a real training, and a line that composes to what was chosen."""

import csv
import json
import multiprocessing
import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from support import ROOT, Command

from segsweep.errors import UserError
from segsweep.instantiate import to_plain
from segsweep.speed import bench, measure, worker
from segsweep.speed.bench import Bench, Combination, Row
from segsweep.speed.worker import Worker

TINY = ["trainer.accelerator=cpu", "data.image_size=32", "data.batch_size=2", "hydra.run.dir=speed"]
GIVEN = Combination(precision="32-true", channels_last=True, compile=False, threads=2, batch_size=8)
FASTER = Combination(precision="bf16-mixed", channels_last=True, compile=False, threads=2, batch_size=8)
MORE_CHANGES = Combination(precision="bf16-mixed", channels_last=True, compile=True, threads=2, batch_size=8)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short turns, and no combination is too slow."""
    monkeypatch.setattr(bench, "HOPELESS", 0.0)
    monkeypatch.setattr(bench, "TURN_SECONDS", 0.01)
    monkeypatch.setattr(bench, "ROUNDS", 2)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """No C++ compiler. Not an empty PATH: the processes of later tests would have it too."""
    monkeypatch.setattr("shutil.which", lambda name: None)


def composed(arguments: list[str]) -> dict[str, Any]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return to_plain(compose("train", overrides=arguments))


def recommended(out: str) -> list[str]:
    """The arguments of the printed command."""
    (line,) = [line for line in out.splitlines() if line.startswith(f"  python {ROOT}/train.py")]
    return shlex.split(line)[2:]


def value_at(settings: dict[str, Any], key: str) -> Any:
    group, name = key.split(".")
    return settings[group][name]


def formats(report: dict[str, Any]) -> list[tuple[str, bool, bool]]:
    rows = [row["combination"] for row in report["rows"]]
    return [tuple(row[f"trainer.{name}"] for name in ("precision", "channels_last", "compile")) for row in rows]


@pytest.mark.quick
@pytest.mark.usefixtures("short", "no_compiler")
def test_each_combination_is_measured_once_and_the_line_composes_to_the_best(command: Command, tmp_path: Path):
    outcome = command("train.py", "debug=speed", *TINY, "lr=0.01", "name='a, b'")
    assert outcome.code == 0, outcome.err
    report = json.loads((tmp_path / "speed/speed.json").read_text())
    rows = [json.dumps(row["combination"]) for row in report["rows"]]
    assert len(set(rows)) == len(rows)
    wanted = {(precision, last, False) for precision in ("32-true", "bf16-mixed") for last in (False, True)}
    assert set(formats(report)) == wanted
    assert any("compiler" in line for line in report["remarks"])
    table = [line for line in outcome.out.splitlines() if line.startswith((" 32-true ", " bf16-mixed "))]
    assert len(table) == len(rows)
    assert all(len(line) <= 80 for line in table)

    reference = next(row for row in report["rows"] if row["combination"] == report["reference"] | {"jobs": 1})
    assert reference["loss_difference"] == 0
    arguments = recommended(outcome.out)
    assert arguments == report["arguments"]
    settings, given = composed(arguments), composed([*TINY[:-1], "lr=0.01", "name='a, b'"])
    for key, value in report["chosen"].items():
        assert value_at(settings, key) == (value_at(given, key) if value == report["given"][key] else value)
        given[key.split(".")[0]][key.split(".")[1]] = value_at(settings, key)
    assert settings == given
    assert {path.name for path in (tmp_path / "speed").iterdir()} == {".hydra", "speed.json", "train.log"}


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_compiled_combinations_are_measured(command: Command, tmp_path: Path):
    outcome = command("train.py", "debug=speed", *TINY, "model=ablation/blocks_1")
    assert outcome.code == 0, outcome.err
    report = json.loads((tmp_path / "speed/speed.json").read_text())
    assert len(set(formats(report))) == 8
    assert all(row["peak_bytes"] > 0 and row["first_step_seconds"] > 0 and row["ratio"] > 0 for row in report["rows"])
    assert {row["combination"]["jobs"] for row in report["rows"]} >= {1, 2}


@pytest.mark.usefixtures("short", "no_compiler")
def test_the_losses_are_those_of_a_training(command: Command, tmp_path: Path):
    steps = 6
    settings = [*TINY[:-1], f"trainer.max_steps={steps}", "scheduler=onecycle", "data.samples_per_epoch=4", "seed=3"]
    assert command("train.py", "debug=speed", *settings, "hydra.run.dir=speed").code == 0
    short = ["trainer.log_every_n_steps=1", "trainer.test=false", "callbacks.graph=null", "hydra.run.dir=run"]
    assert command("train.py", *settings, *short).code == 0
    with (tmp_path / "run/metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    report = json.loads((tmp_path / "speed/speed.json").read_text())
    given = next(row for row in report["rows"] if row["combination"] == report["given"] | {"jobs": 1})
    assert len(losses) == steps
    assert given["losses"][:steps] == pytest.approx(losses, rel=1e-6)


NET = """
import torch
from segsweep import nets

class NoAutocast(nets.TextureCNN):
    def forward(self, x):
        if torch.is_autocast_enabled(x.device.type):
            raise RuntimeError("not under autocast")
        return super().forward(x)
"""


@pytest.mark.usefixtures("short", "no_compiler")
def test_a_combination_that_fails_is_noted(command: Command, tmp_path: Path):
    (tmp_path / "mine.py").write_text(NET)
    outcome = command(
        "train.py", "debug=speed", *TINY, "trainer.precision=32-true", "code=mine.py", "model._target_=mine.NoAutocast"
    )
    assert outcome.code == 0, outcome.err
    rows = json.loads((tmp_path / "speed/speed.json").read_text())["rows"]
    for row in rows:
        failed = row["combination"]["trainer.precision"] == "bf16-mixed"
        assert bool(row["note"] and "not under autocast" in row["note"]) == failed
        assert (row["ratio"] is None) == failed


DYING = """
import torch
from segsweep import nets

class Dying(nets.TextureCNN):
    steps = 0
    def forward(self, x):
        self.steps += torch.is_autocast_enabled(x.device.type) and self.training
        if self.steps == 7:
            raise RuntimeError("no more")
        return super().forward(x)
"""


@pytest.mark.usefixtures("short", "no_compiler")
def test_what_was_measured_until_the_given_settings_failed_is_reported(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bench, "TURN_SECONDS", 1e-9)  # one step: the given settings fail in the second round
    (tmp_path / "mine.py").write_text(DYING)
    given = ["trainer.precision=bf16-mixed", "code=mine.py", "model._target_=mine.Dying"]
    outcome = command("train.py", "debug=speed", *TINY, *given)
    assert outcome.code == 0, outcome.err
    assert "the given settings failed beside the others, so no more was measured: " in outcome.out
    report = json.loads((tmp_path / "speed/speed.json").read_text())
    assert [len(row["ratios"]) for row in report["rows"]] == [1, 1, 1, 1]
    assert report["compared_steps"] > 0
    assert recommended(outcome.out) == report["arguments"]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["-m", "debug=speed", "lr=0.1,0.2"], "debug=speed"),
        (["debug=speed", "resume=somewhere"], "debug=speed"),
        (["-m", "debug=fast,speed"], "debug"),
        (["debug=speed", "trainer.devices=2", "trainer.accelerator=cpu"], "trainer.devices=2"),
        (["debug=speed", *TINY, "data.batch_size=10_000"], "data.batch_size=10000"),
    ],
)
def test_what_it_cannot_measure_is_refused(command: Command, tmp_path: Path, arguments: list[str], key: str):
    outcome = command("train.py", *arguments)
    assert outcome.code == 1
    assert len([line for line in outcome.error_lines if line.startswith("error:")]) == 1
    assert key in outcome.err
    assert not list(tmp_path.rglob("run.json")) + list(tmp_path.rglob("sweep.json"))


def bench_of(tmp_path: Path, *measured: tuple[Combination, float, float]) -> Bench:
    """A bench with measured rows: combination, ratio to the given settings, loss in every step."""
    made = Bench({}, tmp_path, GIVEN)
    reference = Combination(precision="32-true", channels_last=False, compile=False, threads=2, batch_size=8)
    for combination, ratio, loss in [(GIVEN, 1.0, 1.0), (reference, 0.9, 1.0), *measured]:
        made.rows[combination] = Row(combination=combination, speeds=[ratio], ratios=[ratio], losses=[loss] * 20)
        made._workers[combination] = []
    return made


@pytest.mark.parametrize(
    ("measured", "best"),
    [
        ([], GIVEN),
        ([(FASTER, 1.02, 1.0)], GIVEN),  # noise
        ([(FASTER, 1.5, 1.0)], FASTER),
        ([(FASTER, 1.5, 1.02)], GIVEN),  # another loss
        ([(FASTER, 1.5, float("nan"))], GIVEN),
        ([(FASTER, 1.5, 1.0), (MORE_CHANGES, 1.52, 1.0)], FASTER),  # no faster beyond noise
        ([(FASTER, 1.5, 1.0), (MORE_CHANGES, 1.6, 1.0)], MORE_CHANGES),
    ],
)
def test_the_fastest_with_a_near_loss_and_the_fewest_changes_is_best(
    tmp_path: Path, measured: list[tuple[Combination, float, float]], best: Combination
):
    assert bench_of(tmp_path, *measured).best().combination == best


def test_a_combination_whose_processes_have_ended_is_not_best(tmp_path: Path):
    made = bench_of(tmp_path, (FASTER, 1.5, 1.0), (MORE_CHANGES, 1.6, 1.0))
    made.keep(FASTER)
    assert made.best().combination == FASTER
    assert made.rows[MORE_CHANGES].loss_difference == 0


def test_a_turn_without_an_end_is_a_failure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker, "LONGEST_TURN", 0.01)
    waiting = Worker.__new__(Worker)
    waiting._pipe, other = multiprocessing.Pipe()
    with pytest.raises(UserError, match=r"longer than 0\.01 s"):
        waiting.answer()
    other.close()


def test_without_the_reference_losses_are_compared_with_the_given_settings(tmp_path: Path):
    made = bench_of(tmp_path, (FASTER, 1.5, 2.0))
    made.rows[made.reference] = Row(combination=made.reference, note="out of memory")
    assert made.best().combination == made.reference == GIVEN
    assert made.rows[GIVEN].loss_difference == 0
    assert made.rows[FASTER].loss_difference == 1


@pytest.mark.parametrize("typed", ["trainer.compile=false", "+trainer.compile=false", "debug=speed", "+debug=speed"])
def test_the_line_leaves_out_what_it_changes(typed: str):
    kept = ["lr=0.1", "data.root='a b, c'", "data.bands=[1, 2]"]
    changes = {"trainer.compile": True}
    assert measure.arguments([*kept, typed], changes) == [*kept, "trainer.compile=true"]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_line_composes_to_any_change(precision: str):
    other = Combination(precision=precision, channels_last=False, compile=True, threads=1, batch_size=8)
    given = Combination(precision="16-mixed", channels_last=True, compile=False, threads=2, batch_size=8)
    settings = composed(measure.arguments(["debug=speed", "trainer=cpu", "lr=0.1"], other.changes(given)))
    assert {key: value_at(settings, key) for key in other.settings} == other.settings
    assert (settings["trainer"]["accelerator"], settings["lr"]) == ("cpu", 0.1)
