import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from segsweep.data.cache import PixelCache
from segsweep.data.pairs import Pair
from segsweep.errors import UserError

SHAPES = [(4, 5, 6), (4, 7, 3), (4, 2, 2), (4, 9, 9)]
SIZES = [120, 84, 16, 324]


class Files:
    """Pairs that decode to noise of their own, and a count of how often each was decoded."""

    def __init__(self, root: Path) -> None:
        self.decoded: Counter[str] = Counter()
        self.pairs = [Pair(name, root / f"{name}.jpg", root / f"{name}.png") for name in "abcd"]
        for pair in self.pairs:
            pair.image.write_bytes(b"image")
            pair.mask.write_bytes(b"mask")

    def decode(self, pair: Pair) -> NDArray[np.uint8]:
        self.decoded[pair.name] += 1
        return self.expected(pair)

    def expected(self, pair: Pair) -> NDArray[np.uint8]:
        place = "abcd".index(pair.name)
        return np.random.default_rng(place).integers(0, 256, SHAPES[place], dtype=np.uint8)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def new_cache(tmp_path: Path) -> Callable[..., PixelCache]:
    return lambda budget, settings="rgb": PixelCache(budget, tmp_path / "cache", settings)


@pytest.mark.parametrize("in_memory", range(5))
def test_arrays_are_the_same_wherever_they_lie(
    files: Files, new_cache: Callable[..., PixelCache], in_memory: int
) -> None:
    cache = new_cache(sum(SIZES[:in_memory]))
    arrays = cache.load(files.pairs, SHAPES, files.decode)
    for place, (pair, array) in enumerate(zip(files.pairs, arrays, strict=True)):
        assert np.array_equal(array, files.expected(pair))
        assert isinstance(array, np.memmap) == (place >= in_memory)
        assert array.flags.writeable == (place < in_memory)
    assert set(files.decoded.values()) == {1}
    assert cache.left == 0


def test_the_budget_is_for_all_calls_together(files: Files, new_cache: Callable[..., PixelCache]) -> None:
    cache = new_cache(sum(SIZES[:2]) + 15)
    assert not any(isinstance(array, np.memmap) for array in cache.load(files.pairs[:2], SHAPES[:2], files.decode))
    assert all(isinstance(array, np.memmap) for array in cache.load(files.pairs[2:], SHAPES[2:], files.decode))


def test_what_is_on_disk_is_not_decoded_again(files: Files, new_cache: Callable[..., PixelCache]) -> None:
    for _ in range(3):
        new_cache(SIZES[0]).load(files.pairs, SHAPES, files.decode)
    assert files.decoded == {"a": 3, "b": 1, "c": 1, "d": 1}


def test_a_changed_file_or_setting_is_decoded_again(files: Files, new_cache: Callable[..., PixelCache]) -> None:
    new_cache(0).load(files.pairs, SHAPES, files.decode)
    os.utime(files.pairs[2].mask, (1, 1))
    new_cache(0).load(files.pairs, SHAPES, files.decode)
    files.pairs[3].image.write_bytes(b"another image")
    new_cache(0).load(files.pairs, SHAPES, files.decode)
    new_cache(0, "gray").load(files.pairs, SHAPES, files.decode)
    assert set(files.decoded.values()) == {4}


def test_an_incomplete_file_is_written_anew(files: Files, new_cache: Callable[..., PixelCache], tmp_path: Path) -> None:
    new_cache(0).load(files.pairs, SHAPES, files.decode)
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    arrays = new_cache(0).load(files.pairs, SHAPES, files.decode)
    assert all(np.array_equal(array, files.expected(pair)) for pair, array in zip(files.pairs, arrays, strict=True))


def test_a_file_that_cannot_be_decoded_leaves_nothing_behind(
    files: Files, new_cache: Callable[..., PixelCache], tmp_path: Path
) -> None:
    def decode(pair: Pair) -> NDArray[np.uint8]:
        if pair.name == "c":
            raise UserError("c: is damaged")
        return files.decode(pair)

    with pytest.raises(UserError, match="c: is damaged"):
        new_cache(0).load(files.pairs, SHAPES, decode)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_full_disk_and_a_file_in_the_way_are_refused_with_the_way_out(
    files: Files, new_cache: Callable[..., PixelCache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(UserError, match=r"data\.cache_gib"):
        new_cache(0).load(files.pairs, SHAPES, files.decode)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_bytes(b"a file")
    with pytest.raises(UserError, match=r"data\.cache_dir"):
        new_cache(0).load(files.pairs, SHAPES, files.decode)


@pytest.mark.parametrize("budget", [0, 10**6])
def test_a_file_whose_size_has_changed_is_refused(
    files: Files, new_cache: Callable[..., PixelCache], budget: int
) -> None:
    with pytest.raises(UserError, match=r"a\.jpg: has changed"):
        new_cache(budget).load(files.pairs, [(4, 6, 5), *SHAPES[1:]], files.decode)
