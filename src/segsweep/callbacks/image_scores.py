"""What every image of a test contributes: which are the best, and which the worst.

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
        index: its position in the split.
        iou: its own, as `iou_image` averages it; NaN where that is undefined.
        wrong: the share of judged pixels that are wrong; NaN where none is judged.
    """

    index: int
    iou: float
    wrong: float


def score_images(task: SegmentationTask, logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The iou of each image and its share of wrong pixels, float64 [B] each.

    Args:
        task: reads the logits.
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
        """Every image, in the order of the split."""
        index, iou, wrong = (
            torch.cat([row.cpu() for row in column]).tolist() for column in zip(*self._rows, strict=True)
        )
        return sorted((ImageScore(*row) for row in zip(index, iou, wrong, strict=True)), key=lambda score: score.index)
