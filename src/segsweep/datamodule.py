"""The one LightningDataModule, around any source."""

import functools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from segsweep.classes import IGNORE
from segsweep.data.crops import Crops
from segsweep.data.source import Batch, Source, Split, TrainBatches
from segsweep.errors import UserError
from segsweep.image_files.limits import available_cores
from segsweep.instantiate import AtLeast0, AtLeast1, checked

LOADING_KEYS = ("batch_size", "num_workers", "overfit_samples", "limit_samples")
"""Settings of the `data` group that the DataModule takes; its source takes the others."""


class Collated(NamedTuple):
    """Collated items of one split, as a loader yields them; `Source.to_batch` makes a Batch of them.

    `items` is a UserError if an item could not be made.
    """

    split: Split
    items: Any


def collate(split: Split, items: list[Any]) -> Collated:
    """Joins a worker's items by torch's default collation, and notes their split for `Source.to_batch`."""
    mistakes = [item for item in items if isinstance(item, UserError)]
    return Collated(split, mistakes[0] if mistakes else default_collate(items))


@dataclass(eq=False, repr=False)
class _ErrorsAsItems(Dataset[Any]):
    """Gives a UserError as an item. Raised in a worker, its line would get a traceback.

    Items are made one by one: a dataset's `__getitems__`, which makes a whole batch, is not used.
    """

    dataset: Dataset[Any]

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except UserError as error:
            return error


@dataclass(eq=False, repr=False)
class _Ahead:
    """Batches of a dataset, whose files are decoded in threads while earlier batches are used."""

    dataset: Crops
    batches: TrainBatches | Sequence[Sequence[int]]

    def __iter__(self) -> Iterator[Sequence[int]]:
        waiting: deque[Sequence[int]] = deque()
        try:
            for batch in self.batches:
                waiting.append(batch)
                self._expect(waiting)
                if len(waiting) > 2 and sum(map(len, waiting)) > 4 * available_cores():
                    yield waiting.popleft()
            while waiting:
                self._expect(waiting)
                yield waiting.popleft()
        finally:
            self.dataset.cancel()

    def _expect(self, waiting: Iterable[Sequence[int]]) -> None:
        # All of them every time: what did not fit before may fit now.
        self.dataset.expect([index for batch in waiting for index in batch])

    def __len__(self) -> int:
        return len(self.batches)


@dataclass(eq=False, repr=False)
class _FirstSamples(Dataset[Any]):
    """The first `size` samples of a dataset, repeated endlessly."""

    dataset: Dataset[Any]
    size: int

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index % self.size]


@checked
class SegmentationDataModule(L.LightningDataModule):
    """Loads batches of a source: workers make its items, and `Source.to_batch` makes a Batch of them on the accelerator.

    There is no `setup` or `prepare_data`: the source is built and checked before the Trainer, and `trainer.global_step`
    decides the samples of a batch. Every process scores all of val and test, so Lightning's distributed sampler is off.

    Args:
        source: where samples come from.
        batch_size: samples in a batch, over all processes; also the most in a val or test batch of each process.
        num_workers: loader processes; they change no result.
        overfit_samples: number of training samples to train and validate on again and again; 0: off.
        limit_samples: upper limit of training samples in an epoch; val and test keep this many first samples. None: no
            limit. All files are read in any case.
        accumulate: batches in an optimizer step. They are loaded together.

    Raises:
        ValueError: a value is outside its range.
    """

    def __init__(
        self,
        source: Source,
        batch_size: AtLeast1 = 8,
        num_workers: AtLeast0 = 0,
        overfit_samples: AtLeast0 = 0,
        limit_samples: AtLeast1 | None = None,
        accumulate: AtLeast1 = 1,
    ) -> None:
        super().__init__()
        self.source = source
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.overfit_samples = overfit_samples
        self.limit_samples = limit_samples
        self.step_size = batch_size * accumulate
        """Samples in an optimizer step, over all processes."""
        self.test_split: Split = "test"
        """The split of `test_dataloader`; evaluation may set another."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch; samples that make no whole step are dropped."""
        return self.size("train") // self.step_size

    def total_steps(self, trainer: L.Trainer) -> int | None:
        """Optimizer steps of the whole training; None if no number of steps or epochs ends it."""
        limits = [trainer.max_steps] if trainer.max_steps > 0 else []
        limits += [trainer.max_epochs * self.steps_per_epoch] if trainer.max_epochs and trainer.max_epochs > 0 else []
        return min(limits, default=None)

    def size(self, split: Split) -> int:
        """Samples of a split, within the limit."""
        size = self.source.size(split)
        return size if self.limit_samples is None else min(size, self.limit_samples)

    def batches(self, split: Split, batch_size: int) -> list[Sequence[int]]:
        """The samples of each batch of a fixed split, within the limit."""
        size, batches = self.size(split), self.source.batches(split, batch_size)
        limited = ([index for index in batch if index < size] for batch in batches)
        return [batch for batch in limited if batch]

    def train_dataloader(self) -> DataLoader[Any]:
        trainer = self.trainer
        assert trainer is not None
        if self.batch_size % trainer.world_size:
            raise ValueError(f"batch_size={self.batch_size}: must be divisible by the {trainer.world_size} processes")
        batches = TrainBatches(
            self.size("train"),
            self.step_size,
            lambda: trainer.global_step,
            trainer.global_rank,
            trainer.world_size,
        )
        return self._loader("train", batches)

    def val_dataloader(self) -> DataLoader[Any]:
        if self.overfit_samples:
            return self._loader("train", [range(self.overfit_samples)])
        return self.eval_dataloader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        return self.eval_dataloader(self.test_split)

    def eval_dataloader(self, split: Split) -> DataLoader[Any]:
        """A loader over a fixed split. Every process scores all of it, so the metrics are those of a single process."""
        return self._loader(split, self.batches(split, self.batch_size))

    def _dataset(self, split: Split) -> Dataset[Any]:
        dataset = self.source.dataset(split)
        return _FirstSamples(dataset, self.overfit_samples) if self.overfit_samples and split == "train" else dataset

    def _loader(self, split: Split, batches: TrainBatches | Sequence[Sequence[int]]) -> DataLoader[Any]:
        dataset = self._dataset(split)
        ordered: Any = batches
        if isinstance(dataset, Crops):
            if self.num_workers:
                dataset.fill()
            else:
                ordered = _Ahead(dataset, batches)
        return DataLoader(
            _ErrorsAsItems(dataset),
            batch_sampler=ordered,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=functools.partial(collate, split),
            pin_memory=torch.cuda.is_available(),
        )

    def transfer_batch_to_device(self, batch: Collated, device: torch.device, dataloader_idx: int) -> Batch:
        if isinstance(batch.items, UserError):
            raise batch.items
        # The source moves tensors itself: the indices stay on the CPU, so reading them does not wait for the accelerator.
        return self.source.to_batch(batch.items, batch.split, device)

    def samples(self, split: Split, indices: Sequence[int], device: torch.device | str = "cpu") -> Batch:
        """The samples at `indices` of a split, as one batch."""
        dataset = self._dataset(split)
        if isinstance(dataset, Crops):
            dataset.expect(indices)
        return self.source.to_batch(default_collate([dataset[index] for index in indices]), split, torch.device(device))

    def first_batch(self, split: Split, size: int, device: torch.device | str = "cpu") -> Batch:
        """The first `size` samples of a split; of a fixed split its first batch of at most that size."""
        indices = range(size) if split == "train" else self.batches(split, size)[0]
        return self.samples(split, indices, device)

    def shown_batch(self, size: int, device: torch.device | str = "cpu") -> Batch:
        """At most `size` samples to look at, all of one height and width, the same at every call.

        The first of val that have several classes, of `4 * size` looked at; else any. In an overfit check its samples.
        """
        if self.overfit_samples:
            return self.first_batch("train", min(size, self.overfit_samples), device)
        candidates = self.batches("val", min(4 * size, self.size("val")))[0]
        several: list[int] = []
        for index in candidates:
            mask = self.samples("val", [index]).mask
            if len(mask[mask != IGNORE].unique()) > 1:
                several.append(index)
            if len(several) == size:
                break
        chosen = [*several, *(index for index in candidates if index not in several)][:size]
        return self.samples("val", sorted(chosen), device)

    def calibration_images(self, batches: int, device: torch.device) -> Iterator[torch.Tensor]:
        """Yields batches of images float32 [B, C, H, W] to estimate batch-norm statistics on; the same at every call."""
        split: Split = "train" if self.overfit_samples else "bn_calibration"
        size = self.overfit_samples or self.size(split)
        for start in range(0, batches * self.batch_size, self.batch_size):
            yield self.samples(split, [index % size for index in range(start, start + self.batch_size)], device).image
