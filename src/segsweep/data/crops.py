"""Samples cut from decoded images: random crops for training, whole images or tiles of them for val and test.

Shapes: C channels, H x W pixels. Decoded pairs are uint8 [C + 1, H, W], the mask behind the image's channels.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from segsweep.classes import IGNORE
from segsweep.data.augment import FLIP_COLUMNS, FLIP_ROWS, TURN, random_below, random_between, random_words
from segsweep.data.source import Split, sample_seed
from segsweep.errors import UserError
from segsweep.instantiate import AtLeast0, AtLeast1, From0To1, checked
from segsweep.nets.tiling import ALIGNMENT, ReceptiveField, least_tile, spans

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


@checked
@dataclass(frozen=True, kw_only=True)
class CropRule:
    """What training samples are: random crops of the images.

    Args:
        image_size: height and width of a crop, in pixels.
        samples_per_epoch: None: as many crops as together have the pixels of all training images.
        seed: of the crops.
        flips, turns: whether they are mirrored, and turned by quarters.
        brightness: how much at most is added to or taken from the values of a crop, which lie in [0, 1].
        contrast: by which part at most they move away from their mean, or towards it.
        small: what becomes of images smaller than a crop: "pad" reflects them (masks are 255 there), "refuse" is an error.

    Raises:
        UserError: a value is outside its range.
    """

    image_size: AtLeast1 = 320
    samples_per_epoch: AtLeast1 | None = None
    seed: int = 0
    flips: bool = True
    turns: bool = True
    brightness: From0To1 = 0.0
    contrast: From0To1 = 0.0
    small: Literal["pad", "refuse"] = "pad"


@checked
@dataclass(frozen=True, kw_only=True)
class TileRule:
    """Where val and test images are cut: every pixel counts in exactly one tile.

    Args:
        tile_size: the largest height and width of a tile, in pixels; an image that fits is not cut.
        tile_margin: what a tile sees beyond the pixels that count in it, where it cuts through the image, in pixels.

    Raises:
        UserError: a value is outside its range, or no pixel of a tile would count.
    """

    tile_size: AtLeast1 = 1536
    tile_margin: AtLeast0 = 32

    def __post_init__(self) -> None:
        if self.tile_margin >= self.tile_size / 2:
            raise UserError(
                f"data.tile_margin={self.tile_margin}: must be less than half of data.tile_size={self.tile_size}"
            )


@dataclass(frozen=True)
class Tiling:
    """How val and test images are cut for a net.

    Args:
        rule: the largest size of a window, and its margin.
        field: of the net that the windows are for.
    """

    rule: TileRule
    field: ReceptiveField | None = None

    @property
    def alignment(self) -> int:
        """Windows begin at multiples of it, in pixels."""
        return ALIGNMENT if self.field is None else self.field.alignment

    def tiles(self, shapes: Sequence[tuple[int, int]]) -> list[Tile]:
        """The windows of images of these heights and widths, from the top left of each on.

        Raises:
            UserError: an image has to be cut, and the largest size leaves no room for that.
        """
        size, margin = self.rule.tile_size, self.rule.tile_margin
        least = least_tile(margin, 0, self.alignment)
        if size < least and (large := [shape for shape in shapes if max(shape) > size]):
            raise UserError(
                f"data.tile_size={size}: must be at least {least} with data.tile_margin={margin}, to cut an image"
                f" of {large[0][0]} x {large[0][1]} pixels for this net"
            )
        tiles = []
        for file, shape in enumerate(shapes):
            rows, columns = (spans(length, size, margin, alignment=self.alignment) for length in shape)
            tiles += [
                Tile(
                    file, row.start, column.start, row.stop - row.start, column.stop - column.start,
                    (row.inner_start, column.inner_start, row.inner_stop, column.inner_stop),
                )
                for row in rows
                for column in columns
            ]  # fmt: skip
        return tiles

    def caution(self, shapes: Sequence[tuple[int, int]]) -> str | None:
        """What to say where images of these heights and widths are cut, and that may change the net's logits."""
        largest = max(map(max, shapes), default=0)
        if largest <= self.rule.tile_size or self.field is None:
            return None

        def wider(margin: int) -> str:
            least = least_tile(margin, 0, self.alignment)
            return f"data.tile_margin={margin}" + (f" data.tile_size={least}" if least > self.rule.tile_size else "")

        return self.field.caution(self.rule.tile_margin, wider, f"data.tile_size={largest}")


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
        split: "train" or "bn_calibration", which draw differently.
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
