"""What a source of samples is: the interface the DataModule wraps, whether images are made or read."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from segsweep.classes import ClassTable
from segsweep.data.sampling import Split
from segsweep.errors import UserError


class Batch(NamedTuple):
    """Shapes: B samples, C channels, H x W pixels."""

    image: Tensor
    """float32 [B, C, H, W] in [0, 1]."""
    mask: Tensor
    """int64 [B, H, W] of class ids; 255 is ignored by the loss and by every metric."""
    indices: Tensor
    """int64 [B], the samples' positions in their split."""


class Source(ABC):
    """Where samples come from.

    A sample is a function of (seed, split, index) alone: never of the worker that reads it, of the batch it is in or of
    what was asked for before. For `train`, index is `epoch * size("train") + i`, so every epoch shows new samples or
    the same files in a new order and with new augmentation.
    """

    kind: Literal["binary", "multiclass"] = "multiclass"
    """Whether a net for this source has one channel of logits, for class 1 of two, or one a class."""
    labels: ClassTable
    labels_from: str = "of its source"
    """Where the class table is from, in words."""
    channels: int
    """Of an image."""
    unscored: ClassVar[frozenset[str]] = frozenset({"seed"})
    """Settings that change no image and no mask of val. A sweep ranks jobs that differ in any other setting of the source
    apart, since they are scored on other images; every seed must be scored on the same ones."""

    def prepare(self) -> None:  # noqa: B027  (most sources have nothing to prepare)
        """Once per machine, before anything is read: whatever has to be written to disk."""

    def describe(self) -> list[str]:
        """What a person should know before training on it: what was inferred, a line each."""
        return []

    def for_net(self, net: nn.Module) -> "Source":
        """A source whose val and test samples are cut as `net` needs it; what was read is shared with this one."""
        return self

    def cautions(self, splits: Sequence[Split]) -> list[str]:
        """What a person should know before the source's net is scored on these splits, a line each.

        Raises:
            UserError: an image cannot be cut as the settings say.
        """
        return []

    def unlearnable(self) -> str | None:
        """Why there is nothing to learn from this source; None where there is."""
        if len(self.labels) > 1:
            return None
        return (
            f"data.labels ({self.labels_from}): has the class {self.labels.names[0]} alone, so there is nothing to learn;"
            " add the background as a class, in the colour or id that it has in the masks"
        )

    def class_counts(self, split: Literal["train", "val", "test"] = "train") -> NDArray[np.int64]:
        """Pixels of each class in a split, int64 [K]; ignored ones are in none.

        Raises:
            UserError: the source cannot tell.
        """
        raise UserError(f"{type(self).__name__} has no files to count classes in")

    def absent_classes(self, split: Literal["val", "test"]) -> list[str] | None:
        """Names of the classes without a pixel in a split; None where only scoring the split tells."""
        return None

    @abstractmethod
    def size(self, split: Split) -> int:
        """Number of samples in the split; for `train`, the samples that make an epoch."""

    @abstractmethod
    def dataset(self, split: Split) -> Dataset[Any]:
        """The part of making a sample that runs in a DataLoader worker; items are collated by torch's default."""

    @abstractmethod
    def to_batch(self, collated: Any, split: Split, device: torch.device) -> Batch:
        """The part that runs on the accelerator, a batch at a time: from collated items to a Batch on `device`."""

    def batches(self, split: Split, batch_size: int) -> list[Sequence[int]]:
        """Which samples of a fixed split (not `train`) share a batch."""
        size = self.size(split)
        return [range(start, min(start + batch_size, size)) for start in range(0, size, batch_size)]
