"""A training step on a device: it never waits for a GPU, and a loss that is not finite stops the run with its step."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from devices import DEVICES, small
from hydra import compose, initialize_config_dir
from support import ROOT
from torch.utils._python_dispatch import TorchDispatchMode

from segsweep.errors import DivergedError
from segsweep.instantiate import to_plain
from segsweep.runs import RunDirectory
from segsweep.training_setup import Session, assemble

# One epoch is longer than the training, so no validation comes between its steps.
LONG = ["data.limit_samples=40", "data.val_size=2", "trainer.test=false"]


def session(folder: Path, device: str, *overrides: str) -> Session:
    """A small training, ready to fit."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        node = to_plain(compose("train", overrides=[*small(device), *LONG, *overrides]))
    return assemble(node, RunDirectory(folder))


class AtStep(L.Callback):
    """Calls functions at the ends of steps, before every other callback."""

    def __init__(self, actions: dict[int, Callable[[L.LightningModule], object]]) -> None:
        self.actions = actions

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step in self.actions:
            self.actions[trainer.global_step](pl_module)


class Readings(TorchDispatchMode):
    """Counts the numbers that Python reads from tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


GPU_OPTIMIZERS = [pytest.param("cuda", name, marks=pytest.mark.gpu) for name in ("sgd", "adam", "rmsprop")]


@pytest.mark.parametrize(("device", "optim"), [("cpu", "sgd"), *GPU_OPTIMIZERS])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_gpu_does_not_wait_between_rows_of_metrics(device: str, optim: str, precision: str, tmp_path: Path):
    overrides = ["trainer.max_steps=9", "trainer.log_every_n_steps=8", "trainer.gradient_clip_val=1.0"]
    training = session(tmp_path, device, *overrides, f"optim={optim}", f"trainer.precision={precision}")
    watched, readings, opened = contextlib.ExitStack(), Readings(), []

    def watch(_: L.LightningModule) -> None:
        opened.append(True)
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("error")
            watched.callback(torch.cuda.set_sync_debug_mode, "default")
        else:
            watched.enter_context(readings)

    # From the end of the second step to the end of the eighth, before its row of metrics is written.
    training.trainer.callbacks.insert(0, AtStep({2: watch, 8: lambda _: watched.close()}))
    with watched:
        training.trainer.fit(training.task, training.data)
    assert opened
    assert training.trainer.global_step == 9
    # On the CPU the loss is read in every step, to stop at once if it is not finite; that is all.
    assert readings.count == (6 if device == "cpu" else 0)
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert len(rows) == 3  # the header, step 8, and the last validation with its training metrics


@pytest.mark.parametrize("device", DEVICES)
def test_weights_that_become_nan_stop_the_run_with_the_step_of_the_first_bad_loss(device: str, tmp_path: Path):
    training = session(tmp_path, device, "trainer.max_steps=9", "trainer.log_every_n_steps=5")

    def poison(task: L.LightningModule) -> None:
        with torch.no_grad():
            next(task.net.parameters()).fill_(torch.nan)

    training.trainer.callbacks.insert(0, AtStep({2: poison}))
    with pytest.raises(DivergedError) as raised:
        training.trainer.fit(training.task, training.data)
    assert raised.value.step == 3
    # The CPU stops in that step. A GPU, which would wait for the number, stops at the next row of metrics.
    assert training.trainer.global_step == {"cpu": 2, "cuda": 5}[device]
    assert not (tmp_path / "checkpoints/last.ckpt").exists()


@pytest.mark.parametrize("device", DEVICES)
def test_a_diverged_run_never_reaches_a_validation(device: str, tmp_path: Path):
    training = session(tmp_path, device, "trainer.max_steps=4", "trainer.log_every_n_steps=50")

    def poison(task: L.LightningModule) -> None:
        with torch.no_grad():
            next(task.net.parameters()).fill_(torch.inf)

    training.trainer.callbacks.insert(0, AtStep({4: poison}))
    with pytest.raises(DivergedError) as raised:
        training.trainer.fit(training.task, training.data)
    assert raised.value.step == 4
    assert not list(tmp_path.glob("checkpoints/*"))
