"""A folder of images and masks as a source of samples.

Shapes: B samples, C channels, H x W pixels.
"""

import copy
import functools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn
from torch.utils.data import Dataset

from segsweep.classes import ClassTable
from segsweep.classes.readers import find_class_table, load_class_table
from segsweep.classes.rules import MaskRule
from segsweep.data.augment import apply_jitter, apply_symmetries, to_ids, to_unit
from segsweep.data.cache import PixelCache, Pixels
from segsweep.data.crops import RandomCrops, Sample, Tile, Tiles, Tiling, symmetries
from segsweep.data.images import Alpha, Exif, ImageRule, image_shape
from segsweep.data.pairs import Layout, Pair, find_pairs
from segsweep.data.reading import read_pair
from segsweep.data.source import Batch, Source, Split
from segsweep.data.splits import SplitBy, SplitRule, Splits, split_pairs
from segsweep.errors import UserError, shown
from segsweep.image_files.arrays import Brightest
from segsweep.image_files.limits import parallel_map
from segsweep.instantiate import AtLeast0, AtLeast1, From0To1, NotNegative, checked
from segsweep.nets.tiling import ReceptiveField

log = logging.getLogger(__name__)

_BLOCK = 1 << 20
"""Pixels whose classes are counted at once: numpy makes eight bytes of each."""
LabelSpec = str | Sequence[Mapping[str, Any]] | Mapping[str, Any] | ClassTable


@checked
class FolderSource(Source):
    """Images and masks from files.

    Training samples are random crops; validation and test samples are whole images, or tiles of those that are larger
    than `tile_size`. The split `norm` is crops of training images, neither turned nor changed, drawn by `split_seed`.

    Nothing but the class table and the list of files is read before samples are asked for. Files are decoded once, when
    the dataset of their split is first asked for, which is before any worker is started.

    Args:
        root: the folder; only read. Links that leave it are refused, files of more than 500 million pixels too.
        labels: a preset's name, a .csv or .json file, or the classes themselves; None: the table that lies in `root`.
        image_size: height and width of training crops, in pixels.
        samples_per_epoch: None: as many crops as together have the pixels of all training images.
        seed: of the training samples.
        images, masks, image_suffix, mask_suffix: where the files lie; see `Layout`.
        split, train, val, test, fractions, whole_groups, split_seed: what is for which split; see `SplitRule`.
        channels, alpha, exif, white, bands: how images are read; see `ImageRule`.
        by, ignore_colors, ignore_ids, map_colors, map_ids, snap: how masks are read; see `MaskRule`. None: as the
            preset of `labels` says, else the rule's own default.
        flips, turns: whether training samples are mirrored, and turned by quarters.
        brightness: how much at most is added to or taken from the values of a training image, which lie in [0, 1].
        contrast: by which part at most they move away from their mean, or towards it.
        small: what becomes of training images smaller than a crop: "pad" reflects them (masks are 255 there), "refuse"
            is an error.
        tile_size: the largest height and width, in pixels, of a validation or test sample.
        tile_margin: what a tile sees beyond the pixels that count, in pixels; every pixel counts in one tile.
        cache_gib: GiB of decoded images that may lie in memory; the others are mapped from a file on disk.
        cache_dir: where that file is kept, with those of other runs up to 64 GiB; None: `~/.cache/segsweep`.

    Raises:
        UserError: a value is outside its range, or there is no valid class table.
    """

    # Training crops alone; and how an image is shown to the net, while the same pixels are judged by the same mask.
    unscored = Source.unscored | {
        "image_size", "samples_per_epoch", "flips", "turns", "brightness", "contrast", "small",
        "channels", "alpha", "white", "bands",
    }  # fmt: skip

    def __init__(
        self,
        root: str | Path,
        labels: LabelSpec | None = None,
        image_size: AtLeast1 = 320,
        samples_per_epoch: AtLeast1 | None = None,
        seed: int = 0,
        images: str = "images",
        masks: str = "masks",
        image_suffix: str = "",
        mask_suffix: str = "",
        split: SplitBy = "auto",
        train: Sequence[str] = (),
        val: Sequence[str] = (),
        test: Sequence[str] = (),
        fractions: Annotated[Sequence[From0To1], Field(min_length=3, max_length=3)] = (0.7, 0.15, 0.15),
        whole_groups: bool | None = None,
        split_seed: int = 0,
        channels: int = 3,
        alpha: Alpha = "refuse",
        exif: Exif = "apply",
        white: float | None = None,
        bands: Sequence[int] | None = None,
        by: Literal["auto", "color", "index"] | None = None,
        ignore_colors: Sequence[str] | None = None,
        ignore_ids: Sequence[int] | None = None,
        map_colors: Mapping[str, str] | None = None,
        map_ids: Mapping[int, str] | None = None,
        snap: bool | None = None,
        flips: bool = True,
        turns: bool = True,
        brightness: From0To1 = 0.0,
        contrast: From0To1 = 0.0,
        small: Literal["pad", "refuse"] = "pad",
        tile_size: AtLeast1 = 1536,
        tile_margin: AtLeast0 = 32,
        cache_gib: NotNegative = 4.0,
        cache_dir: str | None = None,
    ) -> None:
        if tile_margin >= tile_size / 2:
            raise UserError(f"data.tile_margin={tile_margin}: must be less than half of data.tile_size={tile_size}")
        self.root = Path(root).expanduser()
        self.layout = Layout(images, masks, image_suffix, mask_suffix)
        self.split_rule = SplitRule(
            split,
            _names(train),
            _names(val),
            _names(test),
            (fractions[0], fractions[1], fractions[2]),
            whole_groups,
            split_seed,
        )
        self.image_rule = ImageRule(channels, alpha, exif, white, bands)
        self.labels, self.mask_rule, self.labels_from = _labels(self.root, labels)
        given = {
            "by": by,
            "ignore_colors": ignore_colors,
            "ignore_ids": ignore_ids,
            "map_colors": map_colors,
            "map_ids": map_ids,
            "snap": snap,
        }
        chosen = {name: value for name, value in given.items() if value is not None}
        self.mask_rule = MaskRule.from_dict({**self.mask_rule.to_dict(), **chosen})
        self.mask_rule.check(self.labels)
        self.channels = channels
        self.image_size = image_size
        self.seed = seed
        self.split_seed = split_seed
        self.symmetries = symmetries(flips, turns)
        self.brightness = brightness
        self.contrast = contrast
        self.small = small
        self.tiling = Tiling(tile_size, tile_margin)
        self._samples_per_epoch = samples_per_epoch
        settings = {
            "image": asdict(self.image_rule),
            "mask": self.mask_rule.to_dict(),
            "labels": [(entry.id, entry.name, entry.color) for entry in self.labels.classes],
        }
        folder = Path(cache_dir).expanduser() if cache_dir is not None else Path.home() / ".cache" / "segsweep"
        self._cache = PixelCache(int(cache_gib * 2**30), folder, json.dumps(settings))
        self._shapes: dict[str, list[tuple[int, int]]] = {}
        self._tiles: dict[str, list[Tile]] = {}
        self._arrays: dict[str, list[Pixels]] = {}
        self._brightest = Brightest(white)

    @functools.cached_property
    def splits(self) -> Splits:
        """The folder's pairs by split.

        Raises:
            UserError: files that do not pair, or a split that cannot be made.
        """
        return split_pairs(find_pairs(self.root, self.layout), self.root, self.split_rule)

    def describe(self) -> list[str]:
        """What was taken from the folder and what was inferred, a line each."""
        splits = self.splits
        counts = ", ".join(f"{part} {len(splits[part])}" for part in ("train", "val", "test"))
        unused = f", unused {len(splits.unused)}" if splits.unused else ""
        return [
            f"labels: {len(self.labels)} classes ({', '.join(self.labels.names)}), {self.labels_from}",
            f"split: {splits.reason}: {counts}{unused}",
        ]

    def prepare(self) -> None:
        _ = self.splits  # so that a folder that does not pair is refused before anything is built for it

    def for_net(self, net: nn.Module) -> "FolderSource":
        other = copy.copy(self)
        other.tiling, other._tiles = replace(self.tiling, field=ReceptiveField.of(net)), {}
        return other

    def cautions(self, splits: Sequence[Split]) -> list[str]:
        fixed = [split for split in splits if split in ("val", "test") and self.tiles(split)]
        line = self.tiling.caution([shape for split in fixed for shape in self.shapes(split)])
        return [] if line is None else [line]

    def size(self, split: Split) -> int:
        if split in ("val", "test"):
            return len(self.tiles(split))
        if self._samples_per_epoch is not None:
            return self._samples_per_epoch
        pixels = sum(height * width for height, width in self.shapes("train"))
        return max(len(self.splits.train), round(pixels / self.image_size**2))

    def dataset(self, split: Split) -> Dataset[Any]:
        """Items are `Sample`s.

        Raises:
            UserError: a file of the split cannot be read; names it.
        """
        if split == "train":
            changes = (self.symmetries, self.brightness, self.contrast)
            return RandomCrops(self.arrays("train"), self.image_size, self.seed, "train", *changes)
        if split == "bn_calibration":
            return RandomCrops(self.arrays("train"), self.image_size, self.split_seed, "bn_calibration")
        tiles = self.tiles(split)  # first: reading takes long, and a tile size may be refused
        return Tiles(self.arrays(split), tiles)

    def to_batch(self, collated: Any, split: Split, device: torch.device) -> Batch:
        sample = Sample(*collated)
        image, mask = (part.to(device, non_blocking=True) for part in (sample.image, sample.mask))
        changed = split == "train"
        if changed and len(self.symmetries) > 1:
            image, mask = apply_symmetries(image, sample.symmetry), apply_symmetries(mask, sample.symmetry)
        image = to_unit(image)
        if changed and (self.brightness or self.contrast):
            image = apply_jitter(image, sample.jitter)
        return Batch(image, to_ids(mask), sample.position)

    def batches(self, split: Split, batch_size: int) -> list[Sequence[int]]:
        """Samples of equal size together, with no more pixels a batch than a training batch has, or one sample."""
        by_shape: dict[tuple[int, int], list[int]] = {}
        for index, tile in enumerate(self.tiles(split)):
            by_shape.setdefault((tile.height, tile.width), []).append(index)
        batches: list[Sequence[int]] = []
        for (height, width), indices in by_shape.items():
            together = min(batch_size, max(1, batch_size * self.image_size**2 // (height * width)))
            batches += [indices[start : start + together] for start in range(0, len(indices), together)]
        return batches

    def tiles(self, split: Split) -> list[Tile]:
        """The samples of `val` or `test`, in order: images by name, and the tiles of each from the top left on.

        Raises:
            UserError: as `Tiling.tiles`.
        """
        if split not in ("val", "test"):
            raise ValueError(f"split={split!r}: only val and test have fixed samples")
        if split not in self._tiles:
            self._tiles[split] = self.tiling.tiles(self.shapes(split))
        return self._tiles[split]

    def name(self, split: Split, index: int) -> str:
        """The name of a val or test sample: that of its pair, and where it is a tile of it, its place."""
        tile = self.tiles(split)[index]
        pair, shape = self.splits[split][tile.file], self.shapes(split)[tile.file]
        window = f" [{tile.top}:{tile.top + tile.height}, {tile.left}:{tile.left + tile.width}]"
        return pair.name + (window if (tile.height, tile.width) != shape else "")

    def class_counts(self, split: Literal["train", "val", "test"] = "train") -> NDArray[np.int64]:
        """Pixels of each class in the masks of a split, int64 [K]; ignored ones are in none."""
        total = np.zeros(256, dtype=np.int64)
        for counts in parallel_map(
            lambda pixels: np.bincount(pixels[-1].reshape(-1), minlength=256), self.arrays(split)
        ):
            total += counts
        return total[: len(self.labels)]

    def absent_classes(self, split: Literal["val", "test"]) -> list[str]:
        """Reads masks until every class was met: one or two as a rule, all of them only where a class is absent."""
        missing = set(range(len(self.labels)))
        for pixels in self.arrays(split):
            mask = pixels[-1].reshape(-1)
            for start in range(0, mask.size, _BLOCK):
                missing -= set(np.flatnonzero(np.bincount(mask[start : start + _BLOCK])).tolist())
                if not missing:
                    return []
        return [self.labels.names[position] for position in sorted(missing)]

    def shapes(self, part: str) -> list[tuple[int, int]]:
        """Height and width of each image of a split, from the files' headers."""
        if part not in self._shapes:
            pairs = self.splits[part]
            shapes = list(parallel_map(lambda pair: image_shape(pair.image, self.image_rule), pairs))
            small = [
                message for pair, shape in zip(pairs, shapes, strict=True) if (message := self.too_small(pair, shape))
            ]
            if part == "train" and small:
                raise UserError(small[0])
            self._shapes[part] = shapes
        return self._shapes[part]

    def too_small(self, pair: Pair, shape: tuple[int, int]) -> str | None:
        """What is wrong with the size of an image to train on; None where it is right."""
        if self.small == "pad" or min(shape) >= self.image_size:
            return None
        return (
            f"{shown(pair.image)}: is {shape[0]} x {shape[1]} pixels, smaller than data.image_size={self.image_size};"
            " set data.small=pad or a smaller data.image_size"
        )

    def arrays(self, part: str) -> list[Pixels]:
        """The decoded pairs of a split, uint8 [C + 1, H, W] each; decoded when first asked for."""
        if part not in self._arrays:
            shapes = [(self.channels + 1, height, width) for height, width in self.shapes(part)]
            self._arrays[part] = self._cache.load(self.splits[part], shapes, self._decode)
            if doubt := self._brightest.doubt():
                log.warning(doubt)
        return self._arrays[part]

    def _decode(self, pair: Pair) -> Pixels:
        image, mask = read_pair(pair, self.labels, self.image_rule, self.mask_rule)
        self._brightest.add(pair.image, image.top)
        return np.concatenate([image.pixels, mask.mask[None]])


def _labels(root: Path, spec: LabelSpec | None) -> tuple[ClassTable, MaskRule, str]:
    """The class table, the rule that comes with it, and in words where it is from."""
    if isinstance(spec, ClassTable):
        return spec, MaskRule(), "as given"
    if spec is not None:
        return *load_class_table(spec), f"from {spec}" if isinstance(spec, str) else "as configured"
    if not root.is_dir():
        raise UserError(f"{shown(root)}: no such folder; set data.root to the folder with images and masks")
    table = find_class_table(root)
    if table is None:
        raise UserError(
            f"{shown(root)}: holds no class table (a .csv or .json file with name and colour of each class);"
            " add one, or name a preset or a file in data.labels"
        )
    return *load_class_table(str(table)), f"from {shown(table)}"


def _names(names: Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
