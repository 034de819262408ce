"""Scores every image of a test, to find the best and the worst.

Shapes: B images, K classes, H x W pixels.
"""

from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from segsweep.data import Batch
from segsweep.tasks import SegmentationTask
from segsweep.tasks.metrics import class_iou, confusion_per_image


@dataclass(frozen=True)
class ImageScore:
    """One image, or one tile of a large one.

    Args:
        index: position in the split.
        iou: the value that `iou_image` averages; NaN if undefined.
        wrong: share of wrong pixels among those that count; NaN if none counts.
    """

    index: int
    iou: float
    wrong: float


def score_images(task: SegmentationTask, logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The iou and the share of wrong pixels of each image, float64 [B] each.

    Args:
        task: turns logits into predictions.
        logits: float [B, K, H, W].
        mask: int64 [B, H, W], 255 ignored.
    """
    confusion = confusion_per_image(task.predict(logits), mask, len(task.labels))
    per_class = class_iou(confusion)
    right, judged = confusion.diagonal(dim1=1, dim2=2).sum(1), confusion.sum((1, 2))
    return per_class[:, 1] if task.kind == "binary" else per_class.nanmean(1), 1 - right.double() / judged


class ImageScores(Callback):
    """Scores every image of a test."""

    def __init__(self) -> None:
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert isinstance(pl_module, SegmentationTask)
        self._rows.append((batch.indices, *score_images(pl_module, outputs, batch.mask)))

    def scores(self) -> list[ImageScore]:
        """The scores of all images, in the order of the split."""
        index, iou, wrong = (
            torch.cat([row.cpu() for row in column]).tolist() for column in zip(*self._rows, strict=True)
        )
        return sorted((ImageScore(*row) for row in zip(index, iou, wrong, strict=True)), key=lambda score: score.index)
