"""Samples cut from decoded images: random crops for training, whole images or tiles of them for val and test.

Shapes: C channels, H x W pixels. Decoded pairs are uint8 [C + 1, H, W], the mask behind the image's channels.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from segsweep.data.augment import FLIP_COLUMNS, FLIP_ROWS, TURN, random_below, random_between, random_words
from segsweep.data.seeds import Split, sample_seed
from segsweep.labels import IGNORE

Pixels = NDArray[np.uint8]

# Positions in a sample's stream of random words, one a decision. Orders of files have the upper half.
_TOP, _LEFT, _SYMMETRY, _BRIGHTNESS, _CONTRAST, _ORDER = 0, 1, 2, 3, 4, 1 << 31


class Sample(NamedTuple):
    """One sample as a loader's worker makes it; default collation puts a batch axis before everything."""

    image: Tensor
    """uint8 [C, H, W]"""
    mask: Tensor
    """uint8 [H, W]: positions in the class table; 255 is ignored."""
    position: Tensor
    """int64 []: the sample's position in its split."""
    symmetry: Tensor
    """int64 []: the flip or turn still to be done, bits as in `segsweep.data.augment`."""
    jitter: Tensor
    """float32 [2]: brightness and contrast still to be changed, as `apply_jitter` takes them."""


class Tile(NamedTuple):
    """A window of an image; of its pixels only those in the inner window count, the others are context."""

    file: int
    top: int
    left: int
    height: int
    width: int
    inner: tuple[int, int, int, int]
    """Top, left, bottom and right of what counts, in the image."""


def symmetries(flips: bool, turns: bool) -> tuple[int, ...]:
    """The symmetries that samples draw from: flips, quarter turns, both (all eight of the square) or none."""
    if flips and turns:
        return tuple(range(8))
    if flips:
        return 0, FLIP_COLUMNS, FLIP_ROWS, FLIP_COLUMNS | FLIP_ROWS
    if turns:
        return 0, TURN | FLIP_COLUMNS, FLIP_COLUMNS | FLIP_ROWS, TURN | FLIP_ROWS
    return (0,)


@functools.lru_cache(maxsize=8)
def file_order(seed: int, split: Split, round_: int, count: int) -> NDArray[np.int64]:
    """A permutation of `count` files for each round through them, int64 [count]."""
    words = random_words(sample_seed(seed, split, round_), np.arange(_ORDER, _ORDER + count, dtype=np.uint64))
    return np.argsort(words, kind="stable")


class RandomCrops(Dataset[Sample]):
    """Endless random crops: which file, where in it and how it is turned follow from (seed, split, index) alone.

    Every run of as many indices as there are files, from a multiple of that number on, has each file once.

    Args:
        arrays: decoded pairs.
        size: height and width of a crop, in pixels. A smaller image is reflected below and to the right; its mask there
            is 255.
        seed: of all choices.
        split: "train" or "norm", which draw differently.
        choices: the symmetries to draw from.
        brightness, contrast: how far both are changed at most; 0 is off.
    """

    def __init__(
        self,
        arrays: Sequence[Pixels],
        size: int,
        seed: int,
        split: Split,
        choices: tuple[int, ...] = (0,),
        brightness: float = 0.0,
        contrast: float = 0.0,
    ) -> None:
        self.arrays = arrays
        self.size = size
        self.seed = seed
        self.split = split
        self.choices = choices
        self.brightness = brightness
        self.contrast = contrast

    def __getitem__(self, index: int) -> Sample:
        round_, place = divmod(index, len(self.arrays))
        pixels = self.arrays[file_order(self.seed, self.split, round_, len(self.arrays))[place]]
        own = sample_seed(self.seed, self.split, index)
        top = random_below(own, _TOP, max(pixels.shape[1] - self.size, 0) + 1)
        left = random_below(own, _LEFT, max(pixels.shape[2] - self.size, 0) + 1)
        crop = np.array(pixels[:, top : top + self.size, left : left + self.size])
        if crop.shape[1:] != (self.size, self.size):
            crop = pad(crop, self.size, self.size)
        symmetry = self.choices[random_below(own, _SYMMETRY, len(self.choices))]
        brightness = random_between(own, _BRIGHTNESS, -self.brightness, self.brightness)
        contrast = random_between(own, _CONTRAST, 1 - self.contrast, 1 + self.contrast)
        return _sample(crop, index, symmetry, brightness, contrast)


class Tiles(Dataset[Sample]):
    """Windows of images, each at its place in `tiles`.

    Args:
        arrays: decoded pairs.
        tiles: which windows of which of them.
    """

    def __init__(self, arrays: Sequence[Pixels], tiles: Sequence[Tile]) -> None:
        self.arrays = arrays
        self.tiles = tiles

    def __getitem__(self, index: int) -> Sample:
        tile = self.tiles[index]
        pixels = self.arrays[tile.file]
        cut = np.array(pixels[:, tile.top : tile.top + tile.height, tile.left : tile.left + tile.width])
        top, left, bottom, right = tile.inner
        if (bottom - top, right - left) != cut.shape[1:]:
            context = np.ones(cut.shape[1:], dtype=bool)
            context[top - tile.top : bottom - tile.top, left - tile.left : right - tile.left] = False
            cut[-1][context] = IGNORE
        return _sample(cut, index, 0, 0.0, 1.0)

    def __len__(self) -> int:
        return len(self.tiles)


def tiles_of(file: int, height: int, width: int, size: int, margin: int) -> list[Tile]:
    """An image whole where it fits into `size` x `size`, else in windows of that size at most.

    Every pixel counts in exactly one window, and lies at least `margin` pixels from where that cuts through the image.
    All windows of one image are equally large, so they can share batches.
    """
    rows, columns = _spans(height, size, margin), _spans(width, size, margin)
    return [
        Tile(file, top, left, min(height, size), min(width, size), (inner_top, inner_left, inner_bottom, inner_right))
        for top, inner_top, inner_bottom in rows
        for left, inner_left, inner_right in columns
    ]


def _spans(length: int, size: int, margin: int) -> list[tuple[int, int, int]]:
    """Start of each window along one axis, and start and end of what counts in it."""
    if length <= size:
        return [(0, 0, length)]
    step = size - 2 * margin
    count = -(-(length - 2 * margin) // step)
    starts = [min(number * step, length - size) for number in range(count)]
    inner = [0, *(start + margin for start in starts[1:]), length]
    return list(zip(starts, inner[:-1], inner[1:], strict=True))


def pad(pixels: Pixels, height: int, width: int) -> Pixels:
    """Fills a decoded pair up to a size, below and to the right: the image reflected, the mask 255."""
    below, right = height - pixels.shape[1], width - pixels.shape[2]
    padded = np.pad(pixels, ((0, 0), (0, below), (0, right)), mode="reflect")
    padded[-1, pixels.shape[1] :] = IGNORE
    padded[-1, :, pixels.shape[2] :] = IGNORE
    return padded


def _sample(pixels: Pixels, index: int, symmetry: int, brightness: float, contrast: float) -> Sample:
    both = torch.from_numpy(pixels)
    jitter = torch.tensor([brightness, contrast], dtype=torch.float32)
    return Sample(both[:-1], both[-1], torch.tensor(index), torch.tensor(symmetry), jitter)
