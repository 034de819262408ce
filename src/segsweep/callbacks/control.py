"""When a training ends: at its last step, with a validation, or at the end of a step when it is told to stop."""

import signal
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback


class Interrupted(BaseException):
    """A signal asked the run to stop; `signum` is which."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class EndOfTraining(Callback):
    """Ends a training that stops inside an epoch with a validation, as one that stops at the end of an epoch does."""

    def __init__(self) -> None:
        self._total = -1.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._total = trainer.estimated_stepping_batches

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step >= self._total:
            trainer.should_stop = True


class StopOnSignal(Callback):
    """Turns the first SIGINT or SIGTERM into a clean end after the batch at hand; a second one stops at once.

    Weights, counters and files are consistent between batches, and only there. A context manager around everything that
    can be stopped.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopOnSignal":
        for signum in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[signum] = signal.signal(signum, self._note)
            except ValueError:  # not the main thread: whoever runs us there handles signals
                break
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, _: FrameType | None) -> None:
        if self.signum is not None:
            raise Interrupted(signum)
        self.signum = signum

    def raise_if_told(self) -> None:
        """Raises Interrupted if a signal has come."""
        if self.signum is not None:
            raise Interrupted(self.signum)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.raise_if_told()

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.raise_if_told()

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.raise_if_told()
