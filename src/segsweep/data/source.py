"""What a source of samples is, which random numbers a sample gets, and which training samples make a batch.

A sample is a function of (seed, split, index) alone, and the batch of a step one of the step. Torch's CPU generator keeps
only the low 32 bits of its seed, so a hash of (seed, split, index) would now and then give two samples the same noise. Here
the map is one-to-one instead: within a run no two samples share a generator seed, and the training samples of every run
seed lie in another half of the numbers than validation and test samples.
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
"""`bn_calibration` holds the samples from which batch-norm statistics are estimated; no metric is ever computed on it."""


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

    training_only: ClassVar[frozenset[str]] = frozenset({"seed"})
    """Settings that change training samples alone: an evaluation refuses them."""

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


_HALF = 1 << 31
_MASK = _HALF - 1
# Positions within a half: train samples have a half for themselves, the other splits share one.
_OFFSET: dict[str, int] = {"train": 0, "val": 0, "test": 1 << 29, "bn_calibration": 1 << 30}
_MULTIPLIERS = (0x7FEB352D, 0x46CA6B51, 0x1B873593)  # odd, so invertible modulo 2**31
_ROOM: dict[str, int] = {"train": _HALF, "val": 1 << 29, "test": 1 << 29, "bn_calibration": 1 << 30}


def sample_seed(seed: int, split: Split, index: int) -> int:
    """The 32-bit generator seed of one sample.

    Args:
        seed: the run's seed for `train`, the data's own seed for the fixed splits.
        split: which split the sample belongs to.
        index: the sample's position in its split; for `train`, `epoch * samples_per_epoch + i`.

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
    return half + _permute(_OFFSET[split] + index, _keys(seed, half))


@functools.cache  # a SeedSequence takes as long as the noise of a small image
def _keys(seed: int, half: int) -> tuple[int, ...]:
    words = np.random.SeedSequence([seed % (1 << 64), half]).generate_state(len(_MULTIPLIERS))
    return tuple(int(word) & _MASK for word in words)


def _permute(x: int, keys: tuple[int, ...]) -> int:
    """A one-to-one map of 31-bit integers onto themselves: every step can be undone.

    A key enters every round. Were it mixed in once, before a fixed map, the samples of one seed would be those of
    another in blocks: two keys that differ in their high bits only would meet in the same numbers.
    """
    for multiplier, key in zip(_MULTIPLIERS, keys, strict=True):
        x = (x * multiplier + key) & _MASK
        x ^= x >> 16
        x = (x * multiplier) & _MASK
        x ^= x >> 15
    return x


def generator(seed: int, split: Split, index: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for one sample, on `device`."""
    return torch.Generator(device=device).manual_seed(sample_seed(seed, split, index))


class TrainBatches(Sampler[list[int]]):
    """The batches from the current step to the end of its epoch, as sample indices `epoch * samples + i`.

    Where to begin is read off the steps done when an iteration begins. That is right in every epoch, after an
    interruption in the middle of one, and with workers that fetch ahead; an epoch told later by a callback is not.

    Args:
        samples: training samples in an epoch, over all processes.
        batch_size: samples of a batch, over all processes.
        steps_done: gives the optimizer steps done so far; one step takes one batch.
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
        """Batches of a whole epoch, as Lightning counts them, wherever an iteration begins."""
        return self.samples // self.batch_size
