"""No two samples share their random numbers: the map from (split, index) to a generator's seed is one-to-one."""

import itertools

import numpy as np
import pytest
import torch
from data_folders import generator
from hypothesis import given, settings
from hypothesis import strategies as st

from segsweep.data.source import Split, permute, sample_seed

ROOM: dict[Split, int] = {"train": 2**31, "val": 2**29, "test": 2**29, "bn_calibration": 2**30}
"""The most samples that a split can have."""

seeds = st.integers(-(2**63), 2**64 - 1)
positions = st.one_of(*[st.tuples(st.just(split), st.integers(0, room - 1)) for split, room in ROOM.items()])


@given(seeds, positions)
@settings(max_examples=200, deadline=None)
def test_seed_is_a_number_that_torch_keeps_whole(seed: int, position: tuple[Split, int]):
    value = sample_seed(seed, *position)
    assert 0 <= value < 2**32
    assert isinstance(value, int)
    assert value == sample_seed(seed, *position)


@given(seeds, positions, positions)
@settings(max_examples=300, deadline=None)
def test_two_samples_of_a_run_never_share_a_seed(seed: int, first: tuple[Split, int], second: tuple[Split, int]):
    assert (sample_seed(seed, *first) == sample_seed(seed, *second)) == (first == second)


@given(seeds, st.sampled_from(list(ROOM)), st.integers(0, 31), st.integers(0, 2**31 - 1))
@settings(max_examples=200, deadline=None)
def test_indices_that_differ_in_one_bit_never_share_a_seed(seed: int, split: Split, bit: int, index: int):
    index %= ROOM[split]
    other = index ^ (1 << bit)
    if other < ROOM[split]:
        assert sample_seed(seed, split, index) != sample_seed(seed, split, other)


@pytest.mark.parametrize("seed", [0, 123456789])
def test_many_samples_of_a_run_have_as_many_seeds(seed: int):
    draw = np.random.default_rng(seed)
    chosen = {
        (split, index)
        for split, room in ROOM.items()
        for index in [*range(4000), *draw.integers(0, room, 8000).tolist(), *range(room - 1000, room)]
    }
    assert len(chosen) > 50_000
    assert len({sample_seed(seed, split, index) for split, index in chosen}) == len(chosen)


@pytest.mark.parametrize("keys", [(0, 0, 0), (0x2A5F3C71, 1, 0x7FFFFFFF)])
def test_the_map_behind_it_loses_no_number(keys: tuple[int, ...]):
    # Every step is invertible, so no two numbers have the same result; checked for many numbers at once.
    many = np.arange(2**17)
    numbers = np.unique(np.concatenate([many, 2**31 - 1 - many, many << 14]))
    mapped = permute(numbers.copy(), keys)
    assert mapped.min() >= 0
    assert mapped.max() < 2**31
    assert len(np.unique(mapped)) == len(numbers)
    assert [permute(int(number), keys) for number in numbers[::10_007]] == mapped[::10_007].tolist()


@given(seeds, seeds, st.integers(0, ROOM["train"] - 1), positions)
@settings(max_examples=200, deadline=None)
def test_training_shares_no_seed_with_another_split_for_any_two_run_seeds(
    seed: int, other_seed: int, index: int, position: tuple[Split, int]
):
    if position[0] != "train":
        assert sample_seed(seed, "train", index) != sample_seed(other_seed, *position)


@pytest.mark.parametrize("bit", [0, 17, 30])
def test_seeds_whose_keys_are_alike_share_no_more_samples_than_chance(bit: int):
    # Two sets of 8,000 among 2**31 numbers share 0.03 by chance. With one key before a fixed map they share whole blocks.
    indices = np.arange(8000)
    keys = (0x2A5F3C71, 0x11111111, 0x5DEECE66)
    first = permute(indices.copy(), keys)
    for place in range(len(keys)):
        other = tuple(key ^ (1 << bit) if i == place else key for i, key in enumerate(keys))
        assert len(np.intersect1d(first, permute(indices.copy(), other))) <= 2


def test_training_and_the_other_splits_lie_in_halves_of_their_own():
    for seed, index in itertools.product((0, 1, 2**40), (0, 1, 17, 2**29 - 1)):
        assert sample_seed(seed, "train", index) < 2**31
        assert all(sample_seed(seed, split, index) >= 2**31 for split in ROOM if split != "train")


def test_runs_of_different_seeds_see_different_samples():
    drawn = [{sample_seed(seed, "train", index) for index in range(1000)} for seed in range(30)]
    # By chance 30 * 29 / 2 pairs of runs share 1000**2 / 2**31 samples each.
    shared = sum(len(first & second) for first, second in itertools.combinations(drawn, 2))
    expected = 30 * 29 / 2 * 1000**2 / 2**31
    assert shared < expected + 5 * expected**0.5
    assert [sample_seed(seed, "train", 0) for seed in range(50)] != [sample_seed(0, "train", 0)] * 50


def test_neighbouring_samples_are_not_correlated():
    noise = torch.stack([torch.randn(4000, generator=generator(0, "train", index)) for index in range(40)])
    correlation = torch.corrcoef(noise)
    off_diagonal = correlation[~torch.eye(40, dtype=torch.bool)]
    # Each has the standard deviation 1 / sqrt(4000); the largest of 780 is below 5 standard deviations.
    assert off_diagonal.abs().max() < 5 / 4000**0.5


@pytest.mark.parametrize("split", list(ROOM))
def test_index_outside_the_split_is_refused_by_name(split: Split):
    sample_seed(0, split, ROOM[split] - 1)
    for index in (-1, ROOM[split]):
        with pytest.raises(ValueError, match=rf"^index={index}: the {split} split"):
            sample_seed(0, split, index)


def test_unknown_split_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^split='training': must be one of train, val, test, bn_calibration"):
        sample_seed(0, "training", 0)  # type: ignore[arg-type]
