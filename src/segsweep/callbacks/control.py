"""Callbacks between steps: seeds, batch-norm statistics, the last validation, stopping at a signal."""

import math
import signal
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from segsweep.console import counted
from segsweep.data.source import sample_seed
from segsweep.datamodule import SegmentationDataModule
from segsweep.errors import Interrupted
from segsweep.instantiate import AtLeast1, checked
from segsweep.nets import batch_norms, estimate_norm_statistics
from segsweep.tasks import SegmentationTask, TimeBudget


def validation_due(trainer: L.Trainer) -> bool:
    """Whether a validation follows the last optimizer step. Only for callbacks listed after `EndOfTraining`."""
    by_epoch = trainer.check_val_every_n_epoch is not None
    interval = trainer.num_training_batches if by_epoch else trainer.val_check_interval
    return trainer.should_stop or trainer.global_step % int(interval) == 0


STEP_HOOKS = (
    "on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step",
    "on_train_batch_end",
)  # fmt: skip


def skip_empty_hooks(task: L.LightningModule, callbacks: Iterable[Callback]) -> None:
    """Makes Lightning skip the step hooks that a task or a callback does not define.

    Lightning opens a profiler's context around each hook, even an empty one. With 14 callbacks that is 90 times a step, a
    tenth of a small step's CPU time. It skips a hook that is None.
    """
    pairs: list[tuple[object, type]] = [(task, L.LightningModule), *((callback, Callback) for callback in callbacks)]
    for instance, base in pairs:
        for hook in STEP_HOOKS:
            # An instance may have a hook of its own.
            if getattr(getattr(instance, hook), "__func__", None) is getattr(base, hook):
                setattr(instance, hook, None)


class EndOfTraining(Callback):
    """Ends a training with a validation, also if its last step lies between two validations.

    Args:
        budget: ends the training after the first step or validation that uses it up, and is kept in checkpoints.
    """

    def __init__(self, budget: TimeBudget | None = None) -> None:
        self.budget = budget
        self._total = -1.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._total = trainer.estimated_stepping_batches
        if self.budget is not None:
            self.budget.start()
            # The checkpoint of the last validation, whose process was killed before it ended.
            trainer.should_stop = trainer.should_stop or self.budget.over

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step >= self._total or (self.budget is not None and self.budget.over):
            trainer.should_stop = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.budget is not None and trainer.state.fn == "fit":
            self.budget.look(trainer)
            trainer.should_stop = trainer.should_stop or self.budget.over

    def state_dict(self) -> dict[str, Any]:
        return {} if self.budget is None else {"seconds": self.budget.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.budget is not None:
            if not 0 <= state_dict["seconds"] < math.inf:
                raise ValueError(f"{state_dict['seconds']} seconds of training")
            self.budget.seconds = state_dict["seconds"]


class StepSeed(Callback):
    """Seeds each step by (seed, step, process), so that dropout does not depend on interruptions or earlier draws."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        # The seeds of a split other than train, so that no training sample shares one.
        seed = sample_seed(self.seed, "bn_calibration", trainer.global_step * trainer.world_size + trainer.global_rank)
        # `torch.manual_seed` also seeds every kind of accelerator, which takes longer than the rest of this.
        torch.default_generator.manual_seed(seed)
        if pl_module.device.type == "cuda":
            torch.cuda.manual_seed(seed)


class StopOnSignal(Callback):
    """Ends a training cleanly after the current batch at the first signal; a second signal stops at once.

    Weights, counters and files agree only between batches. A validation that follows the batch is finished first, because
    Lightning cannot resume in the middle of one. Use it as a context manager around everything that can be stopped.

    Args:
        signals: the signals to handle.
        asked: called after every batch; a signal that it returns stops the training too.
    """

    def __init__(
        self,
        signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM),
        asked: Callable[[], int | None] | None = None,
    ) -> None:
        self.signum: int | None = None
        self._signals = signals
        self._asked = asked
        self._previous: dict[int, Any] = {}
        self._validated = False

    def __enter__(self) -> "StopOnSignal":
        for signum in self._signals:
            try:
                self._previous[signum] = signal.signal(signum, self._note)
            except ValueError:  # not the main thread: the caller handles signals
                break
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, _: FrameType | None) -> None:
        if self.signum is not None:
            raise Interrupted(signum)
        self.signum = signum

    def told(self) -> bool:
        """Whether a signal has arrived, or `asked` gives one."""
        if self.signum is None and self._asked is not None:
            self.signum = self._asked()
        return self.signum is not None

    def raise_if_told(self) -> None:
        """Raises Interrupted if a signal has arrived, or `asked` gives one."""
        if self.told():
            assert self.signum is not None
            raise Interrupted(self.signum, between_steps=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Lightning replaced our handler of SIGTERM by its own, which skips or interrupts the validation after the batch.
        # Only processes that train together need Lightning's.
        if trainer.world_size == 1:
            for signum in self._previous:
                signal.signal(signum, self._note)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self._validated = False
        if self.told() and not validation_due(trainer):
            self.raise_if_told()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated = True

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        # By now the checkpoints of that validation are saved.
        if self._validated:
            self.raise_if_told()

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.raise_if_told()


@checked
class PreciseBN(Callback):
    """Recomputes the running statistics of every batch norm before each validation.

    Running averages lag behind weights that still change, which costs the published network several points of IoU in eval
    mode. Averages over the same images every time depend on the weights alone. Training never reads them.

    Args:
        batches: number of batches to average over, of the training's batch size.

    Raises:
        ValueError: `batches` is below 1.

    Source: Wu and Johnson 2021, Rethinking "Batch" in BatchNorm, section 3.
    """

    def __init__(self, batches: AtLeast1 = 16) -> None:
        self.batches = batches

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return  # a checkpoint holds its statistics
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it, its class does not declare it
        assert isinstance(data, SegmentationDataModule)
        assert isinstance(pl_module, SegmentationTask)
        if batch_norms(pl_module.net):
            # Outside of autocast, which would change images that the accelerator makes.
            loaded = data.calibration_images(self.batches, pl_module.device)
            shown = counted(loaded, "images for batch-norm statistics", self.batches, "batches")
            images = [image.to(memory_format=pl_module.memory_format) for image in shown]
            # Eager, because the estimate counts batches in a way that breaks a compiled graph.
            with trainer.precision_plugin.forward_context(), torch.compiler.set_stance("force_eager"):
                again = counted(images, "batch-norm statistics", self.batches, "batches")
                estimate_norm_statistics(pl_module.net, again)
