"""A folder of images and masks as a source of samples.

Shapes: B samples, C channels, H x W pixels.
"""

import contextlib
import copy
import functools
import json
import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset

import segsweep
from segsweep.classes.binary import for_task
from segsweep.classes.masks import histogram
from segsweep.classes.rules import MaskSettings
from segsweep.data.augment import apply_jitter, apply_symmetries, to_ids, to_unit
from segsweep.data.cache import CacheRule, PixelCache
from segsweep.data.crops import Crop, CropRule, RandomCrops, Tile, TileRule, Tiles, Tiling, symmetries
from segsweep.data.drawn import Pixels
from segsweep.data.finding import Found, require_pairs, scan
from segsweep.data.folder_classes import LabelSpec, load_labels
from segsweep.data.images import ImageRule, image_shape
from segsweep.data.layouts import LayoutSettings, layout_settings
from segsweep.data.pairs import Layout, Pair
from segsweep.data.reading import PairReader
from segsweep.data.source import Batch, Source, Split
from segsweep.data.splits import SplitRule, Splits, split_pairs
from segsweep.errors import UserError, shown
from segsweep.file_facts import Fact, FileFacts, file_version, is_shape, numbers
from segsweep.image_files.arrays import Brightest
from segsweep.instantiate import checked, flattened, part
from segsweep.nets.tiling import ReceptiveField

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderSettings(CacheRule, TileRule, CropRule, MaskSettings, ImageRule, SplitRule, LayoutSettings):
    """All settings of a folder source: three of its own, and those of its base classes, which document them.

    Args:
        root: the folder; nothing is written to it. Links that leave it and files of more than 500 million pixels are
            refused.
        labels: a preset's name, a .csv, .json or .txt file, or the classes themselves; None: the table in `root`.
        task: "binary" for an object and its background, see `classes.binary`; "multiclass" for one channel a class; "auto"
            is binary if exactly two classes are not ignored.
    """

    root: str | Path
    labels: LabelSpec | None = None
    task: Literal["auto", "binary", "multiclass"] = "auto"

    def __post_init__(self) -> None:
        """Checks nothing: `part` builds each base class alone, which checks its own settings."""


@checked
class FolderSource(Source):
    """Images and masks from files.

    Training samples are random crops. Validation and test samples are whole images, or tiles of images larger than
    `tile_size`. The split `bn_calibration` has crops of training images without augmentation, drawn with `split_seed`.

    The constructor reads the class table only; without one it looks at some masks, to say what they hold. What `cache`
    keeps is decoded once, at the first call of `dataset` for its split, before any worker starts.

    Args:
        root, labels, task: the folder, its classes and what is predicted; see `FolderSettings`.
        images, masks, image_prefix, image_suffix, mask_prefix, mask_suffix, exclude, unpaired: where the files are and how
            they are named; see `LayoutSettings`.
        split, train, val, test, fractions, whole_groups, split_seed, folds, fold: which files are in which split; see
            `SplitRule`.
        channels, alpha, exif, white, bands: how images are read; see `ImageRule`.
        by, ignore_colors, ignore_ids, map_colors, map_ids, snap: how masks are read; see `MaskRule`. None: the value of
            the preset in `labels`, else the default of `MaskRule`.
        image_size, samples_per_epoch, seed, flips, turns, brightness, contrast, saturation, hue, blur, scale,
            small: see `CropRule`.
        tile_size, tile_margin: see `TileRule`.
        cache, cache_gib, cache_dir: see `CacheRule`.

    Raises:
        UserError: a value is outside its range, there is no valid class table, or it does not fit the task.
    """

    # The crop size also decides how many validation images share a batch.
    training_only = frozenset(entry.name for entry in fields(CropRule)) - {"image_size"}
    # The crop settings, and those that only change the channels that the net gets: val has the same pixels and masks.
    unscored = training_only | {"image_size", "channels", "alpha", "white", "bands"}

    @flattened(FolderSettings)
    def __init__(self, settings: FolderSettings) -> None:
        self.root = Path(settings.root).expanduser()
        self.wanted, self.split_rule = part(settings, LayoutSettings), part(settings, SplitRule)
        self.wanted.layout()  # refuses keys that cannot tell an image from its mask
        self.image_rule, self.crops = part(settings, ImageRule), part(settings, CropRule)
        self.tiling = Tiling(part(settings, TileRule))
        self.channels = self.image_rule.channels
        if self.channels != 3 and (coloured := [key for key in ("saturation", "hue") if getattr(self.crops, key)]):
            raise UserError(
                f"data.{coloured[0]}: changes red, green and blue, and data.channels={self.channels}; leave it out"
            )
        masks = part(settings, MaskSettings)
        self.labels, preset, self.labels_from = load_labels(self.root, settings.labels, self.wanted, masks)
        self.mask_rule = masks.applied(preset)
        read_otherwise = settings.labels is None and masks.by is None and preset.by != "auto"
        self.found_by = preset.by if read_otherwise else None
        self.mask_rule.check(self.labels)
        self.kind, self.labels, self.mask_rule = for_task(settings.task, self.labels, self.mask_rule)
        self.ignored_classes = [entry.name for entry in self.labels.classes if self.mask_rule.ignores(entry)]
        self.decoding = {
            "image": asdict(self.image_rule),
            "mask": self.mask_rule.to_dict(),
            "labels": [(entry.id, entry.name, entry.color) for entry in self.labels.classes],
        }
        self._cache = PixelCache(part(settings, CacheRule), json.dumps(self.decoding))
        self._reader = PairReader(self.labels, self.image_rule, self.mask_rule, Brightest(self.image_rule.white))
        # A lambda with `self` would make a cycle, and the pixels would stay until it is collected.
        rule = self.image_rule
        classes = len(self.labels)
        mask_settings = [self.decoding["mask"], self.decoding["labels"]]
        self._sizes = self.facts("size", self.decoding["image"], lambda path: list(image_shape(path, rule)), is_shape)
        self._counts = self.facts("class counts", mask_settings, self._reader.count, numbers(classes))
        self._shapes: dict[str, list[tuple[int, int]]] = {}
        self._tiles: dict[str, list[Tile]] = {}
        self._arrays: dict[str, Sequence[Pixels]] = {}

    def facts(
        self,
        kind: str,
        settings: Any,
        find: Callable[[Path], Fact],
        valid: Callable[[Any], bool],
        version: Callable[[Path | str], tuple[int, ...]] = file_version,
    ) -> FileFacts[Fact]:
        """A store of one fact about each file, which depends on some plain `settings`; see `FileFacts`.

        A later version of this program may find another fact, so its own version is in the key.
        """
        key = json.dumps([kind, settings, segsweep.__version__])
        return FileFacts(self._cache.folder, self.root, key, find, valid, version)

    @functools.cached_property
    def found(self) -> Found:
        """The folder's pairs, with the problems of its files; raises UserError as `scan` does."""
        return scan(self.root, self.wanted)

    @property
    def layout(self) -> Layout:
        return self.found.layout

    def found_settings(self) -> dict[str, Any]:
        found = layout_settings(self.layout) if self.found.inferred else {}
        # What a tool's table says of its masks; a run keeps the classes, so it must keep this too.
        return found if self.found_by is None else found | {"by": self.found_by}

    @functools.cached_property
    def splits(self) -> Splits:
        """The folder's pairs by split.

        Raises:
            UserError: files that do not pair, or a split that cannot be made.
        """
        return split_pairs(require_pairs(self.found), self.root, self.split_rule)

    def describe(self) -> list[str]:
        splits = self.splits
        counts = ", ".join(f"{part} {len(splits[part])}" for part in ("train", "val", "test"))
        unused = f", unused {len(splits.unused)}" if splits.unused else ""
        names = self.labels.names
        ignored = f"; ignored: {', '.join(self.ignored_classes)}" if self.ignored_classes else ""
        task = f"task: binary: {names[1]} against {names[0]}; data.task=multiclass gives each class a channel"
        return [
            f"labels: {len(names)} classes ({', '.join(names)}), {self.labels_from}{ignored}",
            *self.found.notes,
            *([task] if self.kind == "binary" else []),
            f"split: {splits.reason}: {counts}{unused}",
        ]

    def prepare(self) -> None:
        _ = self.splits  # refuses files that do not pair before anything is built

    def undivided(self) -> "FolderSource":
        """The same folder with every pair in the test split, for scoring.

        Raises:
            UserError: files that do not pair.
        """
        other = copy.copy(self)
        other.splits = Splits((), (), require_pairs(self.found), (), "every pair")
        other._shapes, other._tiles, other._arrays = {}, {}, {}
        return other

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
        if self.crops.samples_per_epoch is not None:
            return self.crops.samples_per_epoch
        pixels = sum(height * width for height, width in self.shapes("train"))
        return max(len(self.splits.train), round(pixels / self.crops.image_size**2))

    def dataset(self, split: Split) -> Dataset[Any]:
        """The split as `Crop`s; the first call reads its files.

        Raises:
            UserError: a file of the split cannot be read.
        """
        crops = self.crops
        if split == "train":
            changes = (symmetries(crops.flips, crops.turns), crops.jitter, crops.scale)
            return RandomCrops(self.arrays("train"), crops.image_size, crops.seed, "train", *changes)
        if split == "bn_calibration":
            seed = self.split_rule.split_seed
            return RandomCrops(self.arrays("train"), crops.image_size, seed, "bn_calibration")
        tiles = self.tiles(split)  # before the files are read, which is slow: a tile size may be refused
        return Tiles(self.arrays(split), tiles)

    def to_batch(self, collated: Any, split: Split, device: torch.device) -> Batch:
        crops = Crop(*collated)
        image, mask = (part.to(device, non_blocking=True) for part in (crops.image, crops.mask))
        augmented = split == "train"
        if augmented and (self.crops.flips or self.crops.turns):
            image, mask = apply_symmetries(image, crops.symmetry), apply_symmetries(mask, crops.symmetry)
        image = to_unit(image)
        if augmented and any(astuple(self.crops.jitter)):
            image = apply_jitter(image, crops.jitter, self.crops.jitter)
        return Batch(image, to_ids(mask), crops.position)

    def batches(self, split: Split, batch_size: int) -> list[Sequence[int]]:
        """Batches of samples of equal size, with at most the pixels of a training batch, or of one sample."""
        by_shape: dict[tuple[int, int], list[int]] = {}
        for index, tile in enumerate(self.tiles(split)):
            by_shape.setdefault((tile.height, tile.width), []).append(index)
        batches: list[Sequence[int]] = []
        for (height, width), indices in by_shape.items():
            together = min(batch_size, max(1, batch_size * self.crops.image_size**2 // (height * width)))
            batches += [indices[start : start + together] for start in range(0, len(indices), together)]
        return batches

    def tiles(self, split: Split) -> list[Tile]:
        """The samples of `val` or `test`, in order: images by name, and each image's tiles from its top left.

        Raises:
            UserError: as `Tiling.tiles`.
            ValueError: another split.
        """
        if split not in ("val", "test"):
            raise ValueError(f"split={split!r}: only val and test have fixed samples")
        if split not in self._tiles:
            self._tiles[split] = self.tiling.tiles(self.shapes(split))
        return self._tiles[split]

    def name(self, split: Split, index: int) -> str:
        """The name of a val or test sample: its pair's name and, for a tile, its place in the image."""
        tile = self.tiles(split)[index]
        pair, shape = self.splits[split][tile.file], self.shapes(split)[tile.file]
        window = f" [{tile.top}:{tile.top + tile.height}, {tile.left}:{tile.left + tile.width}]"
        return pair.name + (window if (tile.height, tile.width) != shape else "")

    def class_counts(self, split: Literal["train", "val", "test"] = "train") -> NDArray[np.int64]:
        """Pixels of each class in the masks of a split, int64 [K], without ignored pixels.

        Raises:
            UserError: a mask cannot be read.
        """
        total = np.zeros(len(self.labels), dtype=np.int64)
        for counts in self._class_counts(split):
            total += counts
        return total

    def absent_classes(self, split: Literal["val", "test"]) -> list[str]:
        """Searches the masks until every class is found; all of them only if a class is absent."""
        missing = {at for at, name in enumerate(self.labels.names) if name not in self.ignored_classes}
        with contextlib.closing(self._class_counts(split)) as masks:
            for counts in masks:
                missing -= set(np.flatnonzero(counts).tolist())
                if not missing:
                    return []
        return [self.labels.names[position] for position in sorted(missing)]

    def _class_counts(self, split: str) -> Generator[NDArray[np.int64], None, None]:
        """Pixels of each class in each mask of a split: from memory, else from the files and kept on disk."""
        arrays = self.arrays(split)
        if isinstance(arrays, list) and self._cache.rule.cache != "disk":
            for pixels in arrays:
                yield histogram(pixels[-1])[: len(self.labels)]
            return
        masks = [pair.mask for pair in self.splits[split]]
        with contextlib.closing(self._counts.each(masks, f"counting classes in {split}")) as found:
            for counts in found:
                yield np.array(counts, dtype=np.int64)

    def shapes(self, part: str) -> list[tuple[int, int]]:
        """Height and width of each image of a split, from the file headers."""
        if part not in self._shapes:
            pairs = self.splits[part]
            sizes = self._sizes.each([pair.image for pair in pairs], f"reading the sizes of images in {part}")
            shapes = [(height, width) for height, width in sizes]
            for pair, shape in zip(pairs, shapes, strict=True) if part == "train" else ():
                if message := self.too_small(pair, shape):
                    raise UserError(message)
            self._shapes[part] = shapes
        return self._shapes[part]

    def too_small(self, pair: Pair, shape: tuple[int, int]) -> str | None:
        """The error for an image that is too small to train on; None for any other."""
        if self.crops.small == "pad" or min(shape) >= self.crops.image_size:
            return None
        return (
            f"{shown(pair.image)}: is {shape[0]} x {shape[1]} pixels, smaller than"
            f" data.image_size={self.crops.image_size}; set data.small=pad or a smaller data.image_size"
        )

    def arrays(self, part: str) -> Sequence[Pixels]:
        """The pairs of a split, uint8 [C + 1, H, W] each; the first call reads the files that are kept.

        Raises:
            UserError: a file cannot be read. Of those that are decoded when they are drawn, only some are tried here.
        """
        if part not in self._arrays:
            pairs = self.splits[part]
            shapes = [(self.channels + 1, height, width) for height, width in self.shapes(part)]
            self._arrays[part] = self._cache.load(pairs, shapes, self._reader)
            if doubt := self._reader.brightest.doubt():
                log.warning(doubt)
        return self._arrays[part]
