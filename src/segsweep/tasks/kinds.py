"""The two kinds of segmentation task: an object and its background, or one channel for each class.

Shapes: B images, K channels of logits, H x W pixels.
"""

import torch
from torch import Tensor

from segsweep.classes import ClassTable
from segsweep.tasks.losses import TaskKind
from segsweep.tasks.segmentation import SegmentationTask, Stage


class BinaryTask(SegmentationTask):
    """An object and its background, one channel of logits: the logit of class 1, the object.

    Ignored classes may follow these two in the class table. They have no probability and no pixels.
    """

    kind = "binary"

    @staticmethod
    def out_channels(labels: ClassTable) -> int:
        return 1

    @staticmethod
    def probabilities(logits: Tensor) -> Tensor:
        positive = torch.sigmoid(logits.float())
        return torch.cat([1 - positive, positive], dim=1)

    @staticmethod
    def predict(logits: Tensor) -> Tensor:
        return (logits[:, 0] > 0).long()

    def count(self, stage: Stage, logits: Tensor, mask: Tensor, batches: int = 1) -> None:
        metrics = self.counts(stage).metrics
        metrics.update(self.predict(logits), mask, torch.sigmoid(logits[:, 0].float()), batches)
        if stage == "train":
            near, pixels = metrics.confident_of_batches.double().unbind(1)
            # A mean of step means, as in the published figure, without steps whose pixels are all ignored.
            self.running_mean("confident_accuracy").update(near / pixels.clamp(min=1), (pixels > 0).double())


class MulticlassTask(SegmentationTask):
    """One channel of logits per class."""

    kind = "multiclass"

    @staticmethod
    def out_channels(labels: ClassTable) -> int:
        return len(labels)

    @staticmethod
    def probabilities(logits: Tensor) -> Tensor:
        return torch.softmax(logits.float(), dim=1)

    @staticmethod
    def predict(logits: Tensor) -> Tensor:
        return logits.max(dim=1).indices  # on a CPU `argmax` takes 2 to 25 times as long

    def count(self, stage: Stage, logits: Tensor, mask: Tensor, batches: int = 1) -> None:
        self.counts(stage).metrics.update(self.predict(logits), mask, batches=batches)


TASKS: dict[TaskKind, type[SegmentationTask]] = {"binary": BinaryTask, "multiclass": MulticlassTask}
