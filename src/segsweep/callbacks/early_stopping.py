"""Ends a training that no longer improves."""

import logging
from typing import Annotated

import lightning as L
from lightning.pytorch import callbacks
from pydantic import Field

from segsweep.instantiate import AtLeast1, checked
from segsweep.runs import objective_mode

log = logging.getLogger(__name__)


@checked
class EarlyStopping(callbacks.EarlyStopping):
    """Ends a training after some validations in a row without a better objective. NaN is not better.

    Args:
        monitor: the validation metric, as in objective=val/iou.
        patience: validations in a row without a better value.
        min_delta: how much better a value must be to count, in the metric's unit.

    Raises:
        ValueError: `patience` is below 1 or `min_delta` below 0.
    """

    def __init__(self, monitor: str, patience: AtLeast1 = 10, min_delta: Annotated[float, Field(ge=0)] = 0.0) -> None:
        mode = objective_mode(monitor)
        super().__init__(monitor, min_delta, patience, mode=mode, check_finite=False, check_on_train_epoch_end=False)

    @property
    def stopped(self) -> bool:
        """Whether the training has ended, or would have if it had not been interrupted just before."""
        return bool(self.wait_count >= self.patience)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.stopped:  # the checkpoint of the last validation, whose process was killed before it ended
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.stopped:
            step, number = f"{trainer.global_step:,}", self.patience
            log.info("stopped early at step %s: %s not better in %s validations", step, self.monitor, number)
