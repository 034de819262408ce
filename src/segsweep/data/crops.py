"""Crops and tiles of decoded images: random crops for training, whole images or tiles for val and test.

Shapes: C channels, H x W pixels. A decoded pair is uint8 [C + 1, H, W]: the image's channels, then the mask.
"""

import functools
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from segsweep.classes import IGNORE
from segsweep.data.augment import (
    FLIP_COLUMNS,
    FLIP_ROWS,
    NONE,
    SAME,
    TURN,
    Jitter,
    random_below,
    random_between,
    random_words,
)
from segsweep.data.drawn import DrawnPairs, Pixels
from segsweep.data.source import Split, sample_seed
from segsweep.errors import UserError
from segsweep.instantiate import AtLeast0, AtLeast1, From0To1, NotNegative, checked
from segsweep.nets.tiling import ALIGNMENT, ReceptiveField, least_tile, spans

# Positions in a sample's random stream, one for each decision. File orders use the upper half.
_TOP, _LEFT, _SYMMETRY, _BRIGHTNESS, _CONTRAST, _ORDER = 0, 1, 2, 3, 4, 1 << 31
_SCALE, _SATURATION, _HUE, _BLUR = 5, 6, 7, 8


class Crop(NamedTuple):
    """Pixels that a worker cut from a decoded pair, and the augmentation left for the accelerator.

    Torch's default collation adds a batch axis to every field.
    """

    image: Tensor
    """uint8 [C, H, W]"""
    mask: Tensor
    """uint8 [H, W] of positions in the class table; 255 is ignored."""
    position: Tensor
    """int64 []: the sample's position in its split."""
    symmetry: Tensor
    """int64 []: the flip or turn to apply, bits as in `segsweep.data.augment`."""
    jitter: Tensor
    """float32 [5]: the changes of values, as `apply_jitter` takes them."""

    @classmethod
    def of(cls, pixels: Pixels, index: int, symmetry: int = 0, jitter: Jitter = SAME) -> "Crop":
        """Splits pixels [C + 1, H, W] into image and mask. By default nothing is augmented."""
        both = torch.from_numpy(pixels)
        changes = torch.tensor(astuple(jitter), dtype=torch.float32)
        return cls(both[:-1], both[-1], torch.tensor(index), torch.tensor(symmetry), changes)


class Tile(NamedTuple):
    """A window of an image. Only pixels in its inner window count; the others are context."""

    file: int
    top: int
    left: int
    height: int
    width: int
    inner: tuple[int, int, int, int]
    """Top, left, bottom and right of the pixels that count, in the image."""


@checked
@dataclass(frozen=True, kw_only=True)
class CropRule:
    """Settings of training samples, which are random crops.

    Args:
        image_size: height and width of a crop, in pixels.
        samples_per_epoch: crops in an epoch; None: as many as cover the pixels of all training images, at least one
            per image.
        seed: seed of the crops.
        flips, turns: whether crops are mirrored, and turned by quarter turns.
        brightness: the most that is added to or subtracted from the values of a crop, which lie in [0, 1].
        contrast: the largest relative change of a value's distance from the crop's mean.
        saturation: the largest relative change of a value's distance from the pixel's gray; needs three channels.
        hue: the largest turn of the hues, as a share of the colour circle, to 0.5; needs three channels.
        blur: the largest standard deviation of a Gaussian filter, in pixels.
        scale: crops are enlarged or reduced by up to this factor, from 1; log-uniformly. Images bilinearly, with
            antialiasing where they are reduced; masks by the nearest pixel.
        small: training images smaller than a crop: "pad" pads them by reflection, where the mask is 255; "refuse" is an
            error.

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
    saturation: From0To1 = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    blur: NotNegative = 0.0
    scale: Annotated[float, Field(ge=1, le=8)] = 1.0
    small: Literal["pad", "refuse"] = "pad"

    @property
    def jitter(self) -> Jitter:
        """The largest changes of a crop's values."""
        return Jitter(self.brightness, self.contrast, self.saturation, self.hue, self.blur)


@checked
@dataclass(frozen=True, kw_only=True)
class TileRule:
    """Settings of val and test tiles; every pixel of an image counts in exactly one tile.

    Args:
        tile_size: largest height and width of a tile, in pixels; a smaller image is not cut.
        tile_margin: context around the pixels that count, in pixels, on the sides where the image continues.

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
    """Cuts val and test images into tiles for a net.

    Args:
        rule: largest size and margin of a tile.
        field: the net's receptive field; None: no net is known yet.
    """

    rule: TileRule
    field: ReceptiveField | None = None

    @property
    def alignment(self) -> int:
        """Tiles begin at multiples of this many pixels."""
        return ALIGNMENT if self.field is None else self.field.alignment

    def tiles(self, shapes: Sequence[tuple[int, int]]) -> list[Tile]:
        """The tiles of images of these heights and widths, each image from its top left.

        Raises:
            UserError: an image must be cut, and `tile_size` is too small for that.
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
        """A warning if images of these heights and widths are cut and that may change the net's logits; else None."""
        largest = max(map(max, shapes), default=0)
        if largest <= self.rule.tile_size or self.field is None:
            return None

        def wider(margin: int) -> str:
            least = least_tile(margin, 0, self.alignment)
            return f"data.tile_margin={margin}" + (f" data.tile_size={least}" if least > self.rule.tile_size else "")

        return self.field.caution(self.rule.tile_margin, wider, f"data.tile_size={largest}")


def symmetries(flips: bool, turns: bool) -> tuple[int, ...]:
    """The symmetries to draw from: flips, quarter turns, both (all eight of the square) or none."""
    if flips and turns:
        return tuple(range(8))
    if flips:
        return 0, FLIP_COLUMNS, FLIP_ROWS, FLIP_COLUMNS | FLIP_ROWS
    if turns:
        return 0, TURN | FLIP_COLUMNS, FLIP_COLUMNS | FLIP_ROWS, TURN | FLIP_ROWS
    return (0,)


@functools.lru_cache(maxsize=8)
def file_order(seed: int, split: Split, round_: int, count: int) -> NDArray[np.int64]:
    """A random order of `count` files for one round through them, int64 [count]."""
    words = random_words(sample_seed(seed, split, round_), np.arange(_ORDER, _ORDER + count, dtype=np.uint64))
    return np.argsort(words, kind="stable")


class Crops(Dataset[Crop]):
    """Samples that are cut from decoded pairs."""

    arrays: Sequence[Pixels]

    @abstractmethod
    def file(self, index: int) -> int:
        """The place in `arrays` of the pair that a sample is cut from."""

    def expect(self, indices: Sequence[int]) -> None:
        """Starts to decode the pairs of samples that will be asked for soon; see `DrawnPairs.expect`."""
        if isinstance(self.arrays, DrawnPairs):
            self.arrays.expect([self.file(index) for index in indices])

    def cancel(self) -> None:
        """Forgets what was expected; see `DrawnPairs.cancel`."""
        if isinstance(self.arrays, DrawnPairs):
            self.arrays.cancel()

    def fill(self) -> None:
        """Decodes now what is kept in memory; see `DrawnPairs.fill`."""
        if isinstance(self.arrays, DrawnPairs):
            self.arrays.fill()


@dataclass(eq=False, repr=False)
class RandomCrops(Crops):
    """Endless random crops. File, place and augmentation depend on (seed, split, index) alone.

    With N files, the indices k * N to (k + 1) * N - 1 use each file once.

    Args:
        arrays: decoded pairs.
        size: height and width of a crop, in pixels. A smaller image is reflected below and to the right; its mask is 255
            there.
        seed: seed of all choices.
        split: "train" or "bn_calibration", which draw different crops.
        choices: the symmetries to draw from.
        jitter, scale: the largest changes, as in `CropRule`.
    """

    arrays: Sequence[Pixels]
    size: int
    seed: int
    split: Split
    choices: tuple[int, ...] = (0,)
    jitter: Jitter = NONE
    scale: float = 1.0

    def file(self, index: int) -> int:
        round_, place = divmod(index, len(self.arrays))
        return int(file_order(self.seed, self.split, round_, len(self.arrays))[place])

    def __getitem__(self, index: int) -> Crop:
        pixels = self.arrays[self.file(index)]
        own = sample_seed(self.seed, self.split, index)
        size = self.size
        if self.scale > 1:
            # A window larger than the image would show nothing more of it.
            largest = max(self.size, min(pixels.shape[1:]))
            size = min(round(self.size * self.scale ** random_between(own, _SCALE, -1, 1)), largest)
        top = random_below(own, _TOP, max(pixels.shape[1] - size, 0) + 1)
        left = random_below(own, _LEFT, max(pixels.shape[2] - size, 0) + 1)
        crop = np.array(pixels[:, top : top + size, left : left + size])
        height, width = crop.shape[1:]
        if (height, width) != (size, size):
            crop = np.pad(crop, ((0, 0), (0, size - height), (0, size - width)), mode="reflect")
            crop[-1, height:] = IGNORE
            crop[-1, :, width:] = IGNORE
        if size != self.size:
            crop = resized(crop, self.size)
        symmetry = self.choices[random_below(own, _SYMMETRY, len(self.choices))]
        most = self.jitter
        jitter = Jitter(
            random_between(own, _BRIGHTNESS, -most.brightness, most.brightness),
            random_between(own, _CONTRAST, 1 - most.contrast, 1 + most.contrast),
            random_between(own, _SATURATION, 1 - most.saturation, 1 + most.saturation),
            random_between(own, _HUE, -most.hue, most.hue),
            random_between(own, _BLUR, 0, most.blur),
        )
        return Crop.of(crop, index, symmetry, jitter)


def resized(pixels: Pixels, size: int) -> NDArray[np.uint8]:
    """Pixels uint8 [C + 1, H, H] at another size: the image bilinearly, antialiased, the mask by the nearest pixel."""
    both = torch.from_numpy(np.ascontiguousarray(pixels))[:, None]
    image = F.interpolate(both[:-1], size, mode="bilinear", antialias=True)
    mask = F.interpolate(both[-1:], size, mode="nearest-exact")
    return torch.cat([image, mask])[:, 0].numpy()


@dataclass(eq=False, repr=False)
class Tiles(Crops):
    """Tiles of decoded pairs; the mask is 255 outside the inner window."""

    arrays: Sequence[Pixels]
    tiles: Sequence[Tile]

    def file(self, index: int) -> int:
        return self.tiles[index].file

    def __getitem__(self, index: int) -> Crop:
        tile = self.tiles[index]
        pixels = self.arrays[tile.file]
        cut = np.array(pixels[:, tile.top : tile.top + tile.height, tile.left : tile.left + tile.width])
        top, left, bottom, right = tile.inner
        if (bottom - top, right - left) != cut.shape[1:]:
            context = np.ones(cut.shape[1:], dtype=bool)
            context[top - tile.top : bottom - tile.top, left - tile.left : right - tile.left] = False
            cut[-1][context] = IGNORE
        return Crop.of(cut, index)

    def __len__(self) -> int:
        return len(self.tiles)
