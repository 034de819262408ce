"""Patches are cut correctly, and two trainings of a pair differ in neighbours of the test patches alone."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from leaking_patches import Division, cut_folder, divide

from segsweep.data import FolderSource
from segsweep.data.demo import DEMO_LABELS, write_demo_folder
from segsweep.errors import UserError


def decoded(source: FolderSource) -> dict[str, np.ndarray]:
    """Image and mask by name."""
    return {
        pair.name: pixels
        for part in ("train", "val", "test")
        for pair, pixels in zip(source.splits[part], source.arrays(part), strict=True)
    }


def test_patches_hold_the_pixels_and_classes_of_their_place(tmp_path: Path):
    scenes, cut = tmp_path / "scenes", tmp_path / "new/cut"
    write_demo_folder(scenes, scenes=(3, 1, 2), size=50)
    assert cut_folder(scenes, cut, size=16) == 6 * 3 * 3
    patches = decoded(FolderSource(str(cut), DEMO_LABELS, split="fraction", whole_groups=False))
    expected = {
        f"{name}_{top:04}_{left:04}": pixels[:, top : top + 16, left : left + 16]
        for name, pixels in decoded(FolderSource(str(scenes))).items()
        for top in (0, 16, 32)
        for left in (0, 16, 32)
    }
    assert patches.keys() == expected.keys()
    assert all(np.array_equal(patches[name], pixels) for name, pixels in expected.items())
    with pytest.raises(OSError, match="cut"):
        cut_folder(scenes, cut, size=32)
    assert decoded(FolderSource(str(cut), DEMO_LABELS, split="fraction", whole_groups=False)).keys() == expected.keys()
    assert [path.name for path in cut.parent.iterdir()] == ["cut"]


SIZE = 256


def place(name: str) -> tuple[str, int, int]:
    """The image of a patch, its row and its column."""
    image, top, left = name.rsplit("_", 2)
    return image, int(top) // SIZE, int(left) // SIZE


def grid(image: str, rows: int, columns: int) -> list[str]:
    return [f"{image}_{row * SIZE:04}_{column * SIZE:04}" for row in range(rows) for column in range(columns)]


@st.composite
def tiles(draw: st.DrawFn) -> list[str]:
    """The patches of three tiles; those of "Tile 1" are at most about as many as the others."""
    sides = st.tuples(st.integers(1, 4), st.integers(2, 4))
    images = draw(st.lists(sides, min_size=1, max_size=3))
    names = [name for at, shape in enumerate(images) for name in grid(f"Tile 1/part_00{at}", *shape)]
    for tile in (2, 10):
        for at, (rows, columns) in enumerate(images):
            names += grid(f"Tile {tile}/part_00{at}", rows, columns)
    return draw(st.permutations(names))


def neighbours(name: str, names: list[str]) -> set[str]:
    """The patches that share a side with one."""
    image, row, column = place(name)
    return {
        other
        for other in names
        if place(other)[0] == image and abs(place(other)[1] - row) + abs(place(other)[2] - column) == 1
    }


@given(tiles(), st.integers(0, 5))
def test_no_patch_is_in_two_parts_and_both_trainings_have_as_many(names: list[str], seed: int):
    division = divide(names, "Tile 1", SIZE, seed)
    for train in division.train.values():
        parts = [*division.test, *division.val, *train]
        assert len(parts) == len(set(parts))
        assert set(parts) <= set(names)
    assert len(division.train[True]) == len(division.train[False]) > 0
    assert division.test
    assert division.val
    assert not any(name.startswith("Tile 1/") for name in division.val)


@given(tiles(), st.integers(0, 5))
def test_only_neighbours_of_the_test_patches_tell_the_trainings_apart(names: list[str], seed: int):
    division = divide(names, "Tile 1", SIZE, seed)
    without, with_ = (set(division.train[arm]) for arm in (False, True))
    own = {name for name in names if name.startswith("Tile 1/")}
    assert not without & own
    assert with_ & own == with_ - without == own - set(division.test)
    for name in division.test:
        beside = neighbours(name, names)
        assert beside
        assert beside <= with_
        assert not beside & without
    assert abs(len(division.test) - len(own - set(division.test))) <= len({place(name)[0] for name in own})


@given(tiles(), st.integers(0, 5), st.randoms(use_true_random=False))
def test_a_division_follows_from_names_tile_and_seed_and_every_seed_has_the_same_test_patches(names, seed, random):
    shuffled = random.sample(names, len(names))
    assert divide(names, "Tile 1", SIZE, seed) == divide(shuffled, "Tile 1", SIZE, seed)
    assert divide(names, "Tile 1", SIZE, seed + 1).test == divide(names, "Tile 1", SIZE, seed).test


def test_a_seed_draws_val_and_the_patches_that_give_way():
    names = [name for tile in range(1, 5) for name in grid(f"Tile {tile}/part", 4, 4)]
    found: list[Division] = [divide(names, "Tile 1", SIZE, seed) for seed in (0, 1)]
    assert found[0].val != found[1].val
    assert set(found[0].train[True]) != set(found[1].train[True])


@pytest.mark.parametrize("others", [grid("Tile 2/part", 2, 2), []])
def test_too_few_patches_are_refused(others: list[str]):
    with pytest.raises(UserError, match="Tile 1: "):
        divide([*grid("Tile 1/part", 4, 4), *others], "Tile 1", SIZE, 0)
    with pytest.raises(UserError, match="Tile 1: 1 patches to test, 0 neighbours"):
        divide([*grid("Tile 1/part", 1, 1), *grid("Tile 2/part", 4, 4)], "Tile 1", SIZE, 0)
