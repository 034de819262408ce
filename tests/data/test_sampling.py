"""The samples of a batch depend only on the optimizer steps done."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from segsweep.data import Textures
from segsweep.data.source import Split, TrainBatches
from segsweep.datamodule import SegmentationDataModule


class Steps:
    """Optimizer steps done, as a trainer counts them."""

    def __init__(self, done: int = 0) -> None:
        self.done = done

    def __call__(self) -> int:
        return self.done


def train(samples: int, batch_size: int, start: int, stop: int, rank: int = 0, world_size: int = 1) -> list[list[int]]:
    """The batches of the steps from `start` to `stop`, epoch after epoch."""
    steps = Steps(start)
    batches = TrainBatches(samples, batch_size, steps, rank, world_size)
    seen = []
    while steps.done < stop:
        for batch in batches:
            seen.append(batch)
            steps.done += 1
            if steps.done == stop:
                break
    return seen


shapes = st.tuples(st.integers(1, 12), st.integers(1, 7)).map(lambda pair: (pair[0] * pair[1], pair[1]))
uneven = st.tuples(st.integers(1, 60), st.integers(1, 9)).filter(lambda pair: pair[0] >= pair[1])


@given(shapes, st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_epochs_together_give_each_index_once_and_in_order(shape: tuple[int, int], epochs: int):
    samples, batch_size = shape
    seen = train(samples, batch_size, 0, epochs * samples // batch_size)
    assert [index for batch in seen for index in batch] == list(range(epochs * samples))


@given(uneven, st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_every_batch_is_full_and_within_its_epoch(shape: tuple[int, int], epochs: int):
    samples, batch_size = shape
    per_epoch = samples // batch_size
    seen = train(samples, batch_size, 0, epochs * per_epoch)
    for epoch in range(epochs):
        batches = seen[epoch * per_epoch : (epoch + 1) * per_epoch]
        indices = [index for batch in batches for index in batch]
        # An incomplete batch is dropped; the next epoch still starts at its own first sample.
        assert indices == list(range(epoch * samples, epoch * samples + per_epoch * batch_size))
        assert all(len(batch) == batch_size for batch in batches)


@given(uneven, st.integers(0, 60), st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_resumed_training_has_the_batches_of_an_uninterrupted_one(shape: tuple[int, int], start: int, further: int):
    assert train(*shape, start, start + further) == train(*shape, 0, start + further)[start:]


@given(uneven, st.integers(0, 40), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_workers_that_fetch_ahead_change_nothing(shape: tuple[int, int], start: int, ahead: int):
    """An iterator reads the steps done once, when it begins, even if it runs ahead."""
    steps = Steps(start)
    batches = TrainBatches(*shape, steps)
    iterator = iter(batches)
    fetched = list(itertools.islice(iterator, ahead))
    steps.done += 1
    fetched += list(iterator)
    end = (start // len(batches) + 1) * len(batches)
    assert fetched == train(*shape, start, end)


@given(st.integers(1, 10), st.integers(1, 4), st.integers(1, 4), st.integers(0, 20))
@settings(max_examples=100, deadline=None)
def test_processes_share_every_batch_equally(count: int, share: int, world_size: int, start: int):
    batch_size = share * world_size
    samples = count * batch_size + share
    alone = train(samples, batch_size, start, start + 5)
    together = [train(samples, batch_size, start, start + 5, rank, world_size) for rank in range(world_size)]
    for step, batch in enumerate(alone):
        parts = [batches[step] for batches in together]
        assert all(len(part) == share for part in parts)
        assert sorted(index for part in parts for index in part) == batch


@given(uneven, st.integers(0, 40))
@settings(max_examples=50, deadline=None)
def test_length_counts_the_batches_of_a_whole_epoch_from_any_start(shape: tuple[int, int], start: int):
    samples, batch_size = shape
    batches = TrainBatches(samples, batch_size, Steps(start))
    assert len(batches) == samples // batch_size
    assert len(list(batches)) == len(batches) - start % len(batches)


@pytest.mark.parametrize("start", [0, 2, 3])
def test_loader_yields_the_batches_as_they_are(start: int):
    items = list(range(100, 200))
    loader = DataLoader(items, batch_sampler=TrainBatches(12, 4, Steps(start)), collate_fn=list)
    expected = [[100 + index for index in batch] for batch in TrainBatches(12, 4, Steps(start))]
    assert list(loader) == expected


@given(st.integers(1, 30), st.integers(1, 4), st.sampled_from(["val", "test", "bn_calibration"]))
@settings(max_examples=30, deadline=None)
def test_a_limit_keeps_the_first_samples_of_every_split_and_the_order_of_training(limit: int, batch: int, split: Split):
    source = Textures(image_size=16, samples_per_epoch=12, val_size=7, test_size=9)
    data = SegmentationDataModule(source, batch, limit_samples=limit)
    size = min(limit, source.size(split))
    assert data.size(split) == size
    assert [index for indices in data.batches(split, batch) for index in indices] == list(range(size))
    if data.steps_per_epoch:
        if data.size("train") % batch == 12 % batch == 0:  # else each epoch leaves some out
            assert train(data.size("train"), batch, 0, 9) == train(12, batch, 0, 9)
        images = data.calibration_images(3, torch.device("cpu"))
        first = data.samples("bn_calibration", range(data.size("bn_calibration"))).image
        assert torch.equal(torch.cat(list(images)), first[torch.arange(3 * batch) % len(first)])


def test_no_limit_is_a_limit_beyond_every_split():
    source = Textures(image_size=16, samples_per_epoch=12, val_size=7, test_size=9)
    free, wide = (SegmentationDataModule(source, 4, limit_samples=limit) for limit in (None, 100))
    for split in ("val", "test"):
        assert free.batches(split, 4) == wide.batches(split, 4) == [list(part) for part in source.batches(split, 4)]
