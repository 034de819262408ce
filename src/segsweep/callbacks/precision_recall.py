"""Precision-recall curves of binary tasks, for TensorBoard.

Shapes: B images, H x W pixels, T thresholds.
"""

from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import Tensor

from segsweep.callbacks.tensorboard import writers
from segsweep.classes import IGNORE
from segsweep.data import Batch
from segsweep.tasks import SegmentationTask, Stage

STEPS = 64
"""Thresholds are 0/64, 1/64, ..., 64/64, which TensorBoard takes to be evenly spaced in [0, 1]. One is 0.5, that of every
other metric; and by a power of two a probability is multiplied without rounding, so that no pixel is on a wrong side."""


TAGS: dict[Stage, str] = {"val": "precision_recall/1: val", "test": "precision_recall/2: test"}
"""TensorBoard's slider has the steps of a run's first tag in alphabetical order: those of all validations, not of the one
test."""


class PrecisionRecall(Callback):
    """After each validation and test of a binary task, the precision-recall curve of the positive class over the split.

    Pixels are counted batch by batch, from the logits that the step returns, in 2 x 65 numbers on the device: memory does
    not grow with the split, and the net does not run again.
    """

    def __init__(self) -> None:
        self._counts: Tensor | None = None

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin(trainer, pl_module, wanted=trainer.state.fn == "fit")

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin(trainer, pl_module, wanted=True)

    def _begin(self, trainer: L.Trainer, task: L.LightningModule, wanted: bool) -> None:
        assert isinstance(task, SegmentationTask)
        # Each process has all of validation and test: the first one's curve is that of the split.
        wanted = wanted and task.kind == "binary" and trainer.is_global_zero and bool(writers(trainer))
        self._counts = torch.zeros(2, STEPS + 1, dtype=torch.int64, device=task.device) if wanted else None

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, *_: Any
    ) -> None:
        self._count(pl_module, outputs, batch)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, *_: Any
    ) -> None:
        self._count(pl_module, outputs, batch)

    def _count(self, task: L.LightningModule, logits: Tensor, batch: Batch) -> None:
        if self._counts is not None:
            assert isinstance(task, SegmentationTask)
            self._counts += count_levels(task.probabilities(logits)[:, 1], batch.mask)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, "val")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, "test")

    def _write(self, trainer: L.Trainer, stage: Stage) -> None:
        if self._counts is None:
            return
        rows = curve(self._counts.cpu().numpy())
        self._counts = None
        for writer in writers(trainer):
            writer.add_pr_curve_raw(TAGS[stage], *rows, trainer.global_step, num_thresholds=STEPS + 1)


def count_levels(probability: Tensor, mask: Tensor) -> Tensor:
    """How many pixels of each class have a probability from one threshold up to the next.

    torchmetrics' BinaryPrecisionRecallCurve gives the same counts from a pass over all pixels for each threshold, which
    takes two thirds of the time that the texture net needs for them.

    Args:
        probability: float [B, H, W] of the positive class, in [0, 1]; NaN counts as 0, as it does in a prediction.
        mask: int64 [B, H, W] of 0, 1 or 255, which is left out.

    Returns:
        int64 [2, T]: of the negative and of the positive class.
    """
    thresholds = STEPS + 1
    level = (probability.nan_to_num(nan=0.0) * STEPS).long()
    # Ignored pixels are counted in a cell behind the last, so that nothing has to be selected (a wait on a GPU).
    cell = torch.where(mask == IGNORE, 2 * thresholds, mask * thresholds + level).flatten()
    counts = torch.zeros(2 * thresholds + 1, dtype=torch.int64, device=cell.device)
    counts.scatter_add_(0, cell, torch.ones_like(cell))
    return counts[:-1].view(2, thresholds)


def curve(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """What TensorBoard draws a precision-recall curve from.

    Args:
        counts: int64 [2, T], as of `count_levels`.

    Returns:
        float64 [6, T]: true positives, false positives, true negatives, false negatives, precision and recall, where
        what has at least the threshold's probability is positive. A ratio of nothing is 0, as in TensorBoard's own curves;
        it leaves out the thresholds that nothing reaches.
    """
    false, true = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    missed, rejected = true[0] - true, false[0] - false
    precision, recall = true / np.maximum(true + false, 1), true / np.maximum(true + missed, 1)
    return np.stack([true, false, rejected, missed, precision, recall])
