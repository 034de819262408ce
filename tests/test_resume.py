"""A training that was interrupted and resumed ends, bit for bit, like an uninterrupted one."""

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from same_runs import assert_same_result, assert_same_run, result_of
from support import ROOT, SENDERS, SMALL, Command, printed_arguments
from torch import Tensor, nn

import segsweep.nets
from segsweep.callbacks import BestCheckpoint, LastCheckpoint, TrainingLog
from segsweep.console import quoted
from segsweep.data.demo import write_demo_folder
from segsweep.nets.registry import NETS, register_net
from segsweep.resume import reopen_failed
from segsweep.runs import RunDirectory, RunRecord

# Epochs of three steps, validations of two batches, and a last step inside an epoch.
STEPS = ["trainer.max_steps=8", "data.samples_per_epoch=6", "callbacks.panel=null"]
TEXTURES = [*SMALL, *STEPS, "data.limit_samples=6", "data.val_size=4", "data.test_size=4"]
FOLDER = [
    *(entry for entry in SMALL if entry != "debug=fast"), *STEPS, "data=rgb_demo", "data.scenes=[2,2,2]",
    "data.scene_size=48", "data.image_size=32", "data.batch_size=2", "model.widths=[4,4,8]", "trainer.log_every_n_steps=2",
    "callbacks.precise_bn.batches=2", "callbacks.confusion=null", "optim=adam",
]  # fmt: skip
EVERY_STEP = "callbacks.last_checkpoint.every_n_steps=1"
OWN = quoted("code", ROOT / "tests/traps.py")
"""Starting and resuming a run with a trap in it needs this."""
Train = Callable[..., Path]


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())


def state(run: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(run)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def trap(kind: str, step: int, hook: str = "on_train_batch_end") -> list[str]:
    """A callback that sends this process a signal, or raises, once: while there is a file `trap`."""
    settings = {"_target_": "traps.Trap", "kind": kind, "step": step, "hook": hook, "flag": "trap"}
    return [OWN, *(f"+callbacks.trap.{name}={value}" for name, value in settings.items())]


# Killed


@pytest.fixture
def snapshots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Copies of the run directory `whole`, as kills at many moments would leave it."""
    copies: list[Path] = []

    def watch(kind: type, name: str) -> None:
        hook = getattr(kind, name)

        def watched(self: Any, trainer: Any, *arguments: Any, **more: Any) -> None:
            for moment in ("before", "after"):
                if trainer.state.fn in ("fit", "test"):
                    copy = tmp_path / f"{len(copies):03d}-{moment}-{kind.__name__}.{name}-{trainer.global_step}"
                    shutil.copytree(tmp_path / "whole", copy)
                    copies.append(copy)
                if moment == "before":
                    hook(self, trainer, *arguments, **more)

        monkeypatch.setattr(kind, name, watched)

    for name in ("on_train_batch_end", "on_validation_end", "on_test_end"):
        watch(TrainingLog, name)
    watch(BestCheckpoint, "on_validation_end")
    watch(LastCheckpoint, "on_validation_end")
    return copies


SETTINGS = {
    "textures": [EVERY_STEP],
    "saved seldom": ["callbacks.last_checkpoint.every_n_steps=4", "optim=sgd", "momentum=0.9"],
    "validated inside an epoch": ["trainer.val_every_n_steps=2", EVERY_STEP],
    "accumulated": ["data.batch_size=1", "trainer.accumulate=2", EVERY_STEP],
    "one cycle": ["optim=rmsprop", "scheduler=onecycle", EVERY_STEP, "data.num_workers=2"],
}


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_killed_at_any_moment_and_continued_is_the_same_run(
    command: Command, snapshots: list[Path], settings: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    begun = command("train.py", *TEXTURES, *settings, "hydra.run.dir=whole")
    assert begun.code == 0, begun.err
    monkeypatch.undo()
    assert len(snapshots) > 30
    # All would take minutes; together, the settings meet every kind of moment. The last moments are around the test.
    every = len(snapshots) // 5
    for moment in {*snapshots[list(SETTINGS.values()).index(settings) * every // 4 :: every], snapshots[-2]}:
        continued = command("train.py", f"resume={moment.name}")
        assert continued.code == 0, continued.err
        assert_same_run(tmp_path / "whole", moment)


# Stopped by a signal

MOMENTS = {
    "inside an epoch": ("SIGINT", 4, "on_train_batch_end"),
    "at the end of an epoch": ("SIGTERM", 3, "on_train_batch_end"),
    "as a batch begins": ("SIGTERM", 4, "on_train_batch_start"),
    "in a validation": ("SIGINT", 3, "on_validation_batch_end"),
    "as a validation ends": ("SIGTERM", 6, "on_validation_end"),
    "as the last step ends": ("SIGINT", 8, "on_train_batch_end"),
    "in the last validation": ("SIGTERM", 8, "on_validation_batch_end"),
    "as the training ends": ("SIGINT", 8, "on_train_end"),
}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("asked", [TEXTURES, FOLDER], ids=["textures", "folder"])
def test_stopped_at_any_moment_and_continued_is_the_same_run(
    command: Command, tmp_path: Path, asked: list[str], workers: int
):
    assert command("train.py", *asked, "hydra.run.dir=whole").code == 0
    # Workers take seconds to start, so with them every other moment only.
    for number, (signal, step, hook) in enumerate(list(MOMENTS.values())[:: 2 if workers else 1]):
        (tmp_path / "trap").touch()
        settings = [*asked, *trap(signal, step, hook), f"data.num_workers={workers}", f"hydra.run.dir=cut{number}"]
        stopped = command("train.py", *settings)
        assert stopped.code == {"SIGINT": 130, "SIGTERM": 143}[signal], (hook, stopped.err)
        assert stopped.error_lines[-2].startswith(f"stopped by {SENDERS[signal]} at step ")
        assert not (tmp_path / "trap").exists()
        cut = tmp_path / f"cut{number}"
        assert record(cut)["status"] == "interrupted"
        saved = torch.load(cut / "checkpoints/last.ckpt", weights_only=True)["global_step"]
        assert saved == record(cut)["steps"]
        continued = command("train.py", *printed_arguments(stopped))
        assert continued.code == 0, (hook, continued.err)
        assert record(cut)["continued_at"] == [saved]
        assert_same_run(tmp_path / "whole", cut)


@pytest.mark.quick
@pytest.mark.parametrize("kind", ["SIGINT", "SIGTERM"])
def test_stopped_and_continued_more_than_once_is_the_same_run(command: Command, tmp_path: Path, kind: str):
    (tmp_path / "trap").touch()
    other = ["+callbacks.again._target_=traps.Trap", f"+callbacks.again.kind={kind}", "+callbacks.again.flag=again"]
    settings = [*TEXTURES, *trap(kind, 2), *other, "+callbacks.again.step=5"]
    stopped = command("train.py", *settings, "hydra.run.dir=cut")
    assert stopped.code > 128
    assert stopped.error_lines[-2] == f"stopped by {SENDERS[kind]} at step 2; the checkpoint is in cut"
    assert printed_arguments(stopped) == ["resume=cut", OWN]
    (tmp_path / "again").touch()
    assert command("train.py", *printed_arguments(stopped)).code > 128
    assert command("train.py", *printed_arguments(stopped)).code == 0
    assert record(tmp_path / "cut")["continued_at"] == [2, 5]
    assert command("train.py", *settings, "hydra.run.dir=whole").code == 0
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_run_that_failed_after_a_checkpoint_can_be_continued(command: Command, tmp_path: Path):
    settings = [*TEXTURES, EVERY_STEP, *trap("raise", 5)]
    assert command("train.py", *settings, "hydra.run.dir=whole").code == 0
    (tmp_path / "trap").touch()
    with pytest.raises(RuntimeError, match="the trap has snapped"):
        command("train.py", *settings, "hydra.run.dir=cut")
    assert record(tmp_path / "cut")["status"] == "failed"
    assert command("train.py", "resume=cut", OWN).code == 0
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_net_with_dropout_is_continued_with_the_same_drops(command: Command, tmp_path: Path, monkeypatch):
    class Dropping(segsweep.nets.TextureCNN):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(nn.functional.dropout(image, 0.5, self.training))

    register_net(Dropping)
    monkeypatch.setattr(segsweep.nets, "Dropping", Dropping, raising=False)
    settings = [*TEXTURES, "model._target_=segsweep.nets.Dropping", *trap("SIGTERM", 4)]
    try:
        assert command("train.py", *settings, "hydra.run.dir=whole").code == 0
        (tmp_path / "trap").touch()
        assert command("train.py", *settings, "hydra.run.dir=cut").code == 143
        torch.manual_seed(123)
        torch.rand(7)
        assert command("train.py", "resume=cut", OWN).code == 0
        assert_same_run(tmp_path / "whole", tmp_path / "cut")
        assert (
            command("train.py", *settings, "model._target_=segsweep.nets.TextureCNN", "hydra.run.dir=plain").code == 0
        )
    finally:
        del NETS["segsweep.nets.Dropping"]
    plain, dropped = (result_of(tmp_path / name / "checkpoints/last.ckpt") for name in ("plain", "whole"))
    assert not torch.equal(plain["/state_dict/net.conv1.0.weight"], dropped["/state_dict/net.conv1.0.weight"])


# Settings that may change on resume


@pytest.mark.quick
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["lr=0.01"], "lr: 0.001 before, 0.01 now, and 1 more; "),
        (["optim.lr=0.01"], "optim.lr: 0.001 before, 0.01 now; "),
        (["seed=1"], "seed: 0 before, 1 now, and 1 more; "),
        (["optim=sgd"], "optim._target_: segsweep.tasks.Adam before, segsweep.tasks.SGD now"),
        (["data.batch_size=3"], "data.batch_size: 2 before, 3 now; "),
        (["trainer.max_steps=4"], "trainer.max_steps: 8 before, 4 now; "),
        (["data.sigma1=0.3"], "data.sigma1: 0.2 before, 0.3 now; "),
        (["callbacks.precise_bn=null"], "callbacks.precise_bn._target_: "),
        (["objective=val/loss"], "objective: val/iou before, val/loss now; "),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_setting_that_would_change_the_result_is_refused_by_name(
    train: Train, command, changed: list[str], said: str
):
    run = train(*TEXTURES)
    before = {name: entry for name, entry in state(run).items() if name != "train.log"}
    outcome = command("train.py", "resume=run", *changed)
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert outcome.err.startswith(f"error: {said}")
    assert {name: entry for name, entry in state(run).items() if name != "train.log"} == before


@pytest.mark.parametrize("mistake", ["data.num_workers=-1", "trainer.threads=-1", "callbacks.last_checkpoint=null"])
def test_a_mistake_when_a_run_is_continued_changes_nothing(
    cut_off: Path, command: Command, tmp_path: Path, mistake: str
):
    run = Path(shutil.copytree(cut_off, tmp_path / "cut"))
    before = {name: entry for name, entry in state(run).items() if name != "train.log"}
    outcome = command("train.py", "resume=cut", OWN, mistake)
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert {name: entry for name, entry in state(run).items() if name != "train.log"} == before
    assert command("train.py", "resume=cut", OWN).code == 0


def test_device_workers_and_pictures_may_change(train: Train, command: Command, tmp_path: Path):
    (tmp_path / "trap").touch()
    settings = [*TEXTURES, *trap("SIGTERM", 4)]
    assert command("train.py", *settings, "hydra.run.dir=cut").code == 143
    more = [
        "data.num_workers=1",
        "trainer=cpu",
        "callbacks.panel.samples=1",
        "trainer.log_every_n_steps=1",
        "logger=csv",
    ]
    assert command("train.py", "resume=cut", OWN, *(entry for entry in more if "panel" not in entry)).code == 0
    whole = train(*settings)
    for name in ("last", "best"):
        one, other = (result_of(run / f"checkpoints/{name}.ckpt") for run in (whole, tmp_path / "cut"))
        assert all(torch.equal(one[key], other[key]) for key in one if isinstance(one[key], Tensor))


@pytest.mark.slow
def test_more_steps_give_the_weights_of_one_training_of_that_length(train: Train, command: Command, tmp_path: Path):
    long, run = train(*TEXTURES, "trainer.max_steps=13", folder="long"), train(*TEXTURES)
    outcome = command("train.py", "resume=run", "trainer.max_steps=13")
    assert outcome.code == 0, outcome.err
    assert record(run)["steps"] == 13
    assert record(run)["continued_at"] == [8]
    one, other = (result_of(path / "checkpoints/last.ckpt") for path in (long, run))
    assert [key for key in one if isinstance(one[key], Tensor) and not torch.equal(one[key], other[key])] == []
    tables = [pd.read_csv(path / "metrics.csv").set_index("step") for path in (long, run)]
    validated = [table.index[table["val/iou"].notna()].tolist() for table in tables]
    assert validated == [[3, 6, 9, 12, 13], [3, 6, 8, 9, 12, 13]]
    same = tables[1].loc[validated[0], "val/loss"]
    assert same.tolist() == tables[0].loc[validated[0], "val/loss"].tolist()
    # And again: the run now has the settings that it was resumed with.
    assert command("train.py", "resume=run").code == 0
    assert record(run)["continued_at"] == [8]
    assert command("train.py", "resume=run", "trainer.max_steps=14").code == 0
    assert record(run)["continued_at"] == [8, 13]


@pytest.mark.parametrize("gone", [[], ["checkpoints/last.ckpt"], ["checkpoints/last.ckpt", "checkpoints/best.ckpt"]])
def test_a_completed_run_is_left_as_it_is(train: Train, command: Command, gone: list[str]):
    run = train(*TEXTURES)
    for name in gone:
        (run / name).unlink()
    before = state(run)
    outcome = command("train.py", "resume=run")
    assert outcome.code == 0, outcome.err
    assert state(run) == before


def test_a_completed_run_without_its_last_checkpoint_is_not_begun_again_for_more_steps(train: Train, command: Command):
    run = train(*TEXTURES)
    (run / "checkpoints/last.ckpt").unlink()
    before = {name: entry for name, entry in state(run).items() if name != "train.log"}
    outcome = command("train.py", "resume=run", "trainer.max_steps=13")
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert "last.ckpt" in outcome.err
    assert {name: entry for name, entry in state(run).items() if name != "train.log"} == before


def test_a_run_that_saved_nothing_is_resumed_from_scratch(train: Train, command: Command, tmp_path: Path):
    settings = [*TEXTURES, *trap("raise", 2)]
    (tmp_path / "trap").touch()
    with pytest.raises(RuntimeError, match="the trap has snapped"):
        command("train.py", *settings, "hydra.run.dir=cut")
    assert not (tmp_path / "cut/checkpoints").exists()
    assert command("train.py", "resume=cut", OWN).code == 0
    assert_same_run(train(*settings), tmp_path / "cut")


def test_a_run_that_was_moved_goes_on_and_keeps_its_best_checkpoint(train: Train, command: Command, tmp_path: Path):
    settings = [*TEXTURES, *trap("SIGTERM", 4), BEST_FIRST]
    whole = train(*settings)
    assert record(whole)["best_step"] == 3
    (tmp_path / "trap").touch()
    assert command("train.py", *settings, "hydra.run.dir=cut").code == 143
    (tmp_path / "far/away").mkdir(parents=True)
    moved = (tmp_path / "cut").rename(tmp_path / "far/away/it is, a=run")
    outcome = command("train.py", "resume='far/away/it is, a=run'", OWN)
    assert outcome.code == 0, outcome.err
    assert not (tmp_path / "cut").exists()
    assert [path.name for path in sorted((moved / "checkpoints").iterdir())] == ["best.ckpt", "last.ckpt"]
    assert_same_run(whole, moved)


BEST_FIRST = "seed=6"
"""With this seed, the first of three validations is the best."""


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    write_demo_folder(tmp_path / "here/scenes", scenes=(2, 2, 2), size=48)
    shutil.copy(tmp_path / "here/scenes/classes.csv", tmp_path / "here/table.csv")
    return tmp_path / "here"


ON_SCENES = [
    *(entry for entry in FOLDER if not entry.startswith(("data=", "data.scene"))), "data=folder",
    "data.root=here/scenes", "data.labels=here/table.csv",
]  # fmt: skip


@pytest.mark.parametrize("kept", [True, False], ids=["contents kept", "written before contents were kept"])
def test_a_run_goes_on_when_its_data_has_moved(scenes: Path, command: Command, tmp_path: Path, kept: bool):
    assert command("train.py", *ON_SCENES, *trap("SIGTERM", 4), "hydra.run.dir=whole").code == 0
    (tmp_path / "trap").touch()
    assert command("train.py", *ON_SCENES, *trap("SIGTERM", 4), "hydra.run.dir=cut").code == 143
    if not kept:
        content = record(tmp_path / "cut")
        del content["contents"]
        (tmp_path / "cut/run.json").write_text(json.dumps(content))
    scenes.rename(tmp_path / "there")
    moved = ["data=folder", "data.root=there/scenes", "data.labels=there/table.csv"]
    outcome = command("train.py", "resume=cut", OWN, *moved)
    assert outcome.code == 0, outcome.err
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert record(tmp_path / "cut")["contents"] == record(tmp_path / "whole")["contents"]


@pytest.mark.parametrize(
    ("name", "key"), [("scenes/train/images/notes.txt", "data.content"), ("table.csv", "data.labels")]
)
def test_a_run_is_not_resumed_on_changed_data(scenes: Path, command, tmp_path: Path, name: str, key: str):
    (tmp_path / "trap").touch()
    assert command("train.py", *ON_SCENES, *trap("SIGTERM", 4), "hydra.run.dir=cut").code == 143
    before = {file: entry for file, entry in state(tmp_path / "cut").items() if file != "train.log"}
    with (scenes / name).open("a") as file:
        file.write("\n")
    outcome = command("train.py", "resume=cut", OWN)
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert outcome.err.startswith(f"error: {key}: ")
    assert {file: entry for file, entry in state(tmp_path / "cut").items() if file != "train.log"} == before


def test_a_sweep_goes_on_when_its_data_has_moved(scenes: Path, command: Command, tmp_path: Path):
    asked = ["-m", *ON_SCENES, *trap("SIGTERM", 4), "seed=0,1", "name=cut"]
    (tmp_path / "trap").touch()
    assert command("train.py", *asked).code == 143
    scenes.rename(tmp_path / "there")
    outcome = command("train.py", *asked, "data.root=there/scenes", "data.labels=there/table.csv")
    assert outcome.code == 0, outcome.out + outcome.err
    assert record(tmp_path / "multirun/cut/seed=0")["continued_at"] == [4]


# Damaged files


@pytest.mark.quick
@pytest.mark.parametrize(
    "name", ["checkpoints/last.ckpt", "config.yaml", ".hydra/overrides.yaml", "run.json", "metrics.csv"]
)
@pytest.mark.parametrize("damage", ["empty", "cut short", "a list", "binary", "a folder"])
def test_a_damaged_file_ends_in_one_line(cut_off: Path, command: Command, tmp_path: Path, name: str, damage: str):
    run = Path(shutil.copytree(cut_off, tmp_path / "cut"))
    path, content = run / name, (run / name).read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    else:
        path.write_bytes({
            "empty": b"", "cut short": content[: len(content) * 2 // 3 + 1],
            "a list": b"[1, 2]\n", "binary": bytes(range(256)),
        }[damage])  # fmt: skip
    outcome = command("train.py", "resume=cut", OWN)
    if outcome.code == 0:  # the rest of a text may still be valid
        assert damage in ("cut short", "empty", "a list")
        assert name in (".hydra/overrides.yaml", "metrics.csv")
        return
    assert len(outcome.error_lines) == 1, outcome.err
    assert outcome.err.startswith("error: ")
    assert Path(name).name in outcome.err or "cut:" in outcome.err or "resume=cut" in outcome.err
    kept = [entry for entry in ("checkpoints/best.ckpt", "checkpoints/last.ckpt") if entry != name]
    for entry in kept:
        assert (run / entry).read_bytes() == (cut_off / entry).read_bytes()


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory that was interrupted at step 4. Do not write to it."""
    from segsweep import cli
    from segsweep.errors import Interrupted

    folder = tmp_path_factory.mktemp("cut_off")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(Path(__file__).parent.parent))
        patch.setattr(sys, "argv", ["train.py", *TEXTURES, *trap("SIGTERM", 4), "hydra.run.dir=cut"])
        (folder / "trap").touch()
        import train as entry

        with pytest.raises((SystemExit, Interrupted)):
            cli.run(entry.main)
        os.environ.pop("HYDRA_FULL_ERROR", None)
    return folder / "cut"


@pytest.mark.parametrize(
    ("error", "kept"),
    [(None, True), ("DivergedError: the loss became NaN", False), (OSError(errno.EIO, "Input/output error"), True)],
    ids=["an error that may not recur", "diverged", "a disk that does not answer"],
)
def test_a_failed_run_is_reopened_from_its_checkpoint_unless_it_diverged(
    cut_off: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str | OSError | None, kept: bool
):
    def read(path: Path) -> None:
        raise error

    run = RunDirectory(Path(shutil.copytree(cut_off, tmp_path / "cut")))
    said = error if isinstance(error, str) else "MemoryError: no room"
    run.record.write_text(json.dumps(record(run.path) | {"status": "failed", "error": said}))
    if isinstance(error, OSError):
        monkeypatch.setattr(RunRecord, "read", read)
    reopen_failed(run)
    assert run.last.exists() == run.record.exists() == kept
    if error is None:
        assert record(run.path)["status"] == "interrupted"


def test_resuming_a_folder_without_a_run_is_refused_in_one_line(command: Command, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for typed in ("resume=nowhere", "resume=empty", "resume=''"):
        outcome = command("train.py", *TEXTURES, typed)
        assert outcome.code == 1
        assert len(outcome.error_lines) == 1, outcome.err
        assert "run.json" in outcome.err
    assert list(tmp_path.iterdir()) == [tmp_path / "empty"]
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_run_is_not_trained_over_another(train: Train, command: Command):
    run = train(*TEXTURES)
    before = state(run / "checkpoints")
    outcome = command("train.py", *TEXTURES, "hydra.run.dir=run")
    assert outcome.code == 1
    (line,) = outcome.error_lines
    assert line.startswith(f"error: {run}: ")
    assert f" resume={run} " in line
    assert state(run / "checkpoints") == before


# Independence of the result


@pytest.mark.slow
@pytest.mark.parametrize("asked", [TEXTURES, FOLDER], ids=["textures", "folder"])
def test_a_result_does_not_depend_on_workers_progress_or_logging(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: list[str]
):
    def train(*overrides: str, folder: str) -> Path:
        outcome = command("train.py", *overrides, f"hydra.run.dir={folder}")
        assert outcome.code == 0, outcome.err
        return tmp_path / folder

    reference = train(*asked, folder="reference")
    for number in (1, 3):
        assert_same_run(reference, train(*asked, f"data.num_workers={number}", folder=f"workers{number}"))
    assert_same_result(reference, train(*asked, "logger=csv", folder="csv"))
    assert_same_run(reference, train(*asked, EVERY_STEP, folder="saved"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert_same_run(reference, train(*asked, "trainer.progress_bar=true", folder="bar"))


def test_the_checkpoint_of_another_run_is_refused(train: Train, command: Command, tmp_path: Path):
    run, other = train(*TEXTURES), train(*TEXTURES, "model.channels=6", folder="other")
    before = {name: entry for name, entry in state(run).items() if name != "checkpoints/last.ckpt"}
    shutil.copy(other / "checkpoints/last.ckpt", run / "checkpoints/last.ckpt")
    outcome = command("train.py", "resume=run", "trainer.max_steps=9")
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert re.search(r"last\.ckpt: .*model\.channels: 6 ", outcome.err)
    assert {name: entry for name, entry in state(run).items() if name != "checkpoints/last.ckpt"} == before


@pytest.mark.parametrize("step", [2, 8], ids=["between validations", "in the last step"])
def test_an_output_folder_that_is_removed_ends_the_run_in_one_line(command: Command, tmp_path: Path, step: int):
    (tmp_path / "trap").touch()
    outcome = command("train.py", *TEXTURES, *trap("remove", step), "hydra.run.dir=cut")
    assert outcome.code == 1
    (line,) = [line for line in outcome.error_lines if "error: " in line]
    assert line.startswith(f"error: {tmp_path / 'cut'}: was renamed or removed")
    assert "Traceback" not in outcome.err


@pytest.mark.quick
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells the new name of a folder")
@pytest.mark.parametrize("step", [5, 2, 8], ids=["with a checkpoint", "before the first", "in the last step"])
def test_a_renamed_run_is_whole_under_its_new_name(command: Command, tmp_path: Path, step: int):
    (tmp_path / "trap").touch()
    asked = [*TEXTURES, "trainer.val_every_n_steps=4", EVERY_STEP, *trap("rename", step)]
    outcome = command("train.py", *asked, "hydra.run.dir=cut")
    assert outcome.code == 1
    (line,) = [line for line in outcome.error_lines if "error: " in line]
    assert "cut: was renamed or removed" in line
    assert "resume='cut elsewhere'" in line
    assert not (tmp_path / "cut").exists()
    assert record(tmp_path / "cut elsewhere")["status"] == "interrupted"
    assert command("train.py", "resume=cut elsewhere", OWN).code == 0
    assert command("train.py", *asked, "hydra.run.dir=whole").code == 0
    assert_same_run(tmp_path / "whole", tmp_path / "cut elsewhere")
