"""Step hooks that nobody defines are skipped, and the others are called as before."""

from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader

from segsweep.callbacks import skip_empty_hooks
from segsweep.callbacks.control import STEP_HOOKS


class Recorder:
    """Notes the calls of one hook, of its class or of the instance alone."""

    def __init__(self, hook: str) -> None:
        super().__init__()
        self.calls = 0
        setattr(self, hook, self.note)

    def note(self, *_: Any) -> None:
        self.calls += 1


class RecordingCallback(Recorder, Callback):
    pass


class Module(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.layer(batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class RecordingModule(Recorder, Module):
    pass


class OfItsClass(Callback):
    def __init__(self) -> None:
        self.calls = 0

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.calls += 1


def fit(module: L.LightningModule, *callbacks: Callback) -> None:
    trainer = L.Trainer(
        accelerator="cpu", max_steps=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks),
    )  # fmt: skip
    trainer.fit(module, DataLoader(torch.ones(8, 2), batch_size=2))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("hook", STEP_HOOKS)
def test_a_hook_that_is_defined_is_called_in_every_step(hook: str):
    module, callback, other = RecordingModule(hook), RecordingCallback(hook), OfItsClass()
    skip_empty_hooks(module, [callback, other])
    fit(module, callback, other)
    assert (module.calls, callback.calls, other.calls) == (3, 3, 3)


@pytest.mark.filterwarnings("ignore")
def test_skipping_changes_no_weight_and_leaves_only_hooks_that_do_something():
    weights = []
    for skipping in (False, True):
        torch.manual_seed(0)
        module, callback = Module(), OfItsClass()
        if skipping:
            skip_empty_hooks(module, [callback])
            assert [hook for hook in STEP_HOOKS if getattr(callback, hook) is not None] == ["on_after_backward"]
            assert not any(getattr(module, hook) for hook in STEP_HOOKS)
        fit(module, callback)
        weights.append(module.layer.weight)
    assert torch.equal(*weights)
