"""The interface of a source of samples, the random seed of each sample, and the samples of each training batch.

A sample is a function of (seed, split, index) alone, and a batch is a function of the step. Torch's CPU generator keeps
only the low 32 bits of its seed, so with a hash of (seed, split, index) two samples would sometimes get the same noise. The
map here is one-to-one instead: no two samples of a run share a generator seed. Training samples have the lower half of the
numbers, all other samples the upper half, for every run seed.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

from segsweep.classes import ClassTable
from segsweep.errors import UserError

Split = Literal["train", "val", "test", "bn_calibration"]
"""Batch-norm statistics are estimated on the samples of `bn_calibration`; no metric is computed on it."""


class Batch(NamedTuple):
    """Shapes: B samples, C channels, H x W pixels."""

    image: Tensor
    """float32 [B, C, H, W] in [0, 1]."""
    mask: Tensor
    """int64 [B, H, W] of positions in the class table; 255 is ignored by the loss and by every metric."""
    indices: Tensor
    """int64 [B], the samples' positions in their split."""


class Source(ABC):
    """Where samples come from.

    A sample is a function of (seed, split, index) alone: it does not depend on its worker, its batch or earlier requests.
    For `train`, index is `epoch * size("train") + i`, so every epoch has new samples, or the same files in a new order
    with new augmentation.
    """

    kind: Literal["binary", "multiclass"] = "multiclass"
    """The net has one channel of logits, for class 1 of two ("binary"), or one channel per class ("multiclass")."""
    labels: ClassTable
    labels_from: str = "fixed by the source"
    """Where the class table comes from, in words."""
    ignored_classes: Sequence[str] = ()
    """Names of the classes whose pixels are ignored. A split may lack them without a warning."""
    channels: int
    """Channels of an image."""
    unscored: ClassVar[frozenset[str]] = frozenset({"seed"})
    """Settings that change no image and no mask of val. A sweep ranks jobs together only if the source's other settings are
    equal, so that they were scored on the same images. Val must not depend on the seed."""

    training_only: ClassVar[frozenset[str]] = frozenset({"seed"})
    """Settings that change training samples only; an evaluation refuses them."""

    def prepare(self) -> None:  # noqa: B027  (most sources have nothing to prepare)
        """Writes files to disk if the source needs them; called once per machine, before anything is read."""

    def found_settings(self) -> dict[str, Any]:
        """Settings that say what was found in the data without being typed. They are stored with the weights, so that a
        later reading cannot find something else.
        """
        return {}

    def describe(self) -> list[str]:
        """Lines that say what the data is and what was inferred, to be read before training."""
        return []

    def for_net(self, net: nn.Module) -> "Source":
        """A source whose val and test samples are cut for `net`; it shares the decoded files with this one."""
        return self

    def cautions(self, splits: Sequence[Split]) -> list[str]:
        """Warnings, one line each, for scoring the net of `for_net` on these splits.

        Raises:
            UserError: an image cannot be cut as the settings say.
        """
        return []

    def unlearnable(self) -> str | None:
        """The error for a source with a single class; None for any other."""
        if len(self.labels) > 1:
            return None
        return (
            f"data.labels ({self.labels_from}): has the class {self.labels.names[0]} alone, so there is nothing to learn;"
            " add the background as a class, in the colour or id that it has in the masks"
        )

    def class_counts(self, split: Literal["train", "val", "test"] = "train") -> NDArray[np.int64]:
        """Pixels of each class in a split, int64 [K], without ignored pixels.

        Raises:
            UserError: the source has no files.
        """
        raise UserError(f"{type(self).__name__} has no files to count classes in")

    def absent_classes(self, split: Literal["val", "test"]) -> list[str] | None:
        """Names of the classes without a pixel in a split, but for ignored ones; None if only scoring tells."""
        return None

    @abstractmethod
    def size(self, split: Split) -> int:
        """Number of samples in the split; for `train`, the samples that make an epoch."""

    @abstractmethod
    def dataset(self, split: Split) -> Dataset[Any]:
        """Makes the items of a split in DataLoader workers; torch's default collation joins them."""

    @abstractmethod
    def to_batch(self, collated: Any, split: Split, device: torch.device) -> Batch:
        """Makes a Batch on `device` from collated items; runs on the accelerator."""

    def batches(self, split: Split, batch_size: int) -> list[Sequence[int]]:
        """The samples of each batch of a fixed split (not `train`)."""
        size = self.size(split)
        return [range(start, min(start + batch_size, size)) for start in range(0, size, batch_size)]


_HALF = 1 << 31
_MASK = _HALF - 1
# Start and size of each split within its half: train has one half, the other splits share the other.
_OFFSET: dict[str, int] = {"train": 0, "val": 0, "test": 1 << 29, "bn_calibration": 1 << 30}
_ROOM: dict[str, int] = {"train": _HALF, "val": 1 << 29, "test": 1 << 29, "bn_calibration": 1 << 30}
_MULTIPLIERS = (0x7FEB352D, 0x46CA6B51, 0x1B873593)  # odd, so invertible modulo 2**31


def sample_seed(seed: int, split: Split, index: int) -> int:
    """The 32-bit generator seed of one sample.

    Args:
        seed: the run's seed for `train`, the data's own seed for the fixed splits.
        split: which split the sample belongs to.
        index: position in the split; for `train`, `epoch * samples_per_epoch + i`.

    Returns:
        An integer in [0, 2**32); different for different (split, index) at the same seed, and different between `train`
        and every other split whatever the seeds.

    Raises:
        ValueError: the split is unknown or `index` is outside it.
    """
    if split not in get_args(Split):
        raise ValueError(f"split={split!r}: must be one of {', '.join(get_args(Split))}")
    if not 0 <= index < _ROOM[split]:
        raise ValueError(f"index={index}: the {split} split holds samples 0 to {_ROOM[split] - 1}")
    half = 0 if split == "train" else _HALF
    return half + permute(_OFFSET[split] + index, _round_keys(seed, half))


@functools.cache  # a SeedSequence takes as long as the noise of a small image
def _round_keys(seed: int, half: int) -> tuple[int, ...]:
    words = np.random.SeedSequence([seed % (1 << 64), half]).generate_state(len(_MULTIPLIERS))
    return tuple(int(word) & _MASK for word in words)


def permute(x: int, keys: tuple[int, ...]) -> int:
    """A one-to-one map of 31-bit integers onto themselves; every step is invertible.

    Every round has its own key. With one key before a fixed map, two keys that differ only in their high bits would give
    the same numbers in blocks, so two run seeds would share samples.
    """
    for multiplier, key in zip(_MULTIPLIERS, keys, strict=True):
        x = (x * multiplier + key) & _MASK
        x ^= x >> 16
        x = (x * multiplier) & _MASK
        x ^= x >> 15
    return x


class TrainBatches(Sampler[list[int]]):
    """Batches from the current step to the end of its epoch, as sample indices `epoch * samples + i`.

    An iteration begins at the optimizer steps done so far. That is right in every epoch, after an interruption within one,
    and with workers that fetch ahead. An epoch number set by a callback would come too late for those workers.

    Args:
        samples: training samples in an epoch, over all processes.
        batch_size: samples in an optimizer step, over all processes.
        steps_done: returns the optimizer steps done so far.
        rank: this process, of `world_size`.
        world_size: number of processes; each gets an equal share of every batch.
    """

    def __init__(
        self, samples: int, batch_size: int, steps_done: Callable[[], int], rank: int = 0, world_size: int = 1
    ) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.steps_done = steps_done
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[list[int]]:
        epoch, first = divmod(self.steps_done(), len(self))
        share = self.batch_size // self.world_size
        for batch in range(first, len(self)):
            start = epoch * self.samples + batch * self.batch_size + self.rank * share
            yield list(range(start, start + share))

    def __len__(self) -> int:
        """Batches in a whole epoch, as Lightning expects, even if an iteration begins within one."""
        return self.samples // self.batch_size
