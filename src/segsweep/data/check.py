"""Checks every file of a folder before training on it."""

import hashlib
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segsweep.absent_classes import absence
from segsweep.classes.masks import MaskReading, read_mask
from segsweep.data.folder import FolderSource, is_shape, numbers
from segsweep.data.folds import absences
from segsweep.data.images import ImageReading, read_image
from segsweep.data.pairs import Pair, scan
from segsweep.data.reading import require_match, room_for
from segsweep.data.splits import PARTS, Splits, split_pairs
from segsweep.errors import UserError, shown
from segsweep.file_facts import FileFacts, file_version
from segsweep.image_files.arrays import Brightest


@dataclass(frozen=True)
class PairReport:
    """What was read from one pair. If a file cannot be read, `errors` says why and its fields keep their defaults."""

    name: str
    image: str
    mask: str
    split: str
    """train, val, test or "unused"."""
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    height: int = 0
    width: int = 0
    mode: str = ""
    """Pillow's mode of the image, or for example "4 bands of uint16"."""
    top: float | None = None
    """The largest value in an image file of more than 8 bits, which is read as 8; None for 8 bits."""
    mask_mode: str = ""
    """How the mask was read: color or index."""
    pixels: tuple[int, ...] = ()
    """Number of pixels of each class, in the order of the class table."""
    ignored: int = 0
    snapped: int = 0
    image_hash: str = ""
    """SHA-256 of the decoded shape and pixels."""
    mask_hash: str = ""


@dataclass(frozen=True)
class CheckReport:
    """All pairs of a folder, with errors and warnings of one line each."""

    root: str
    classes: tuple[str, ...]
    split: str
    """How the pairs were split, in words."""
    folds: tuple[str, ...]
    """The folds of a cross-validation, in words."""
    pairs: tuple[PairReport, ...]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """False if training on this folder would be wrong."""
        return not self.errors

    @property
    def sizes(self) -> dict[tuple[int, int], int]:
        """Number of images by (height, width), the most frequent first."""
        return dict(Counter((pair.height, pair.width) for pair in self.pairs if pair.height).most_common())

    @property
    def modes(self) -> dict[str, int]:
        """Number of images by mode, the most frequent first."""
        return dict(Counter(pair.mode for pair in self.pairs if pair.mode).most_common())

    @property
    def split_sizes(self) -> dict[str, int]:
        """Pairs in train, val and test."""
        counts = Counter(pair.split for pair in self.pairs)
        return {part: counts[part] for part in PARTS}

    def class_pixels(self, split: str | None = None) -> NDArray[np.int64]:
        """Pixels of each class, in one split or in all pairs; int64 [K]."""
        rows = [pair.pixels for pair in self.pairs if pair.pixels and split in (None, pair.split)]
        return np.array(rows, dtype=np.int64).reshape(-1, len(self.classes)).sum(0)

    def class_fractions(self, split: str | None = None) -> dict[str, float]:
        """Each class's share of the pixels that are not ignored, by name; 0 if there are no pixels."""
        pixels = self.class_pixels(split)
        fractions = pixels / max(int(pixels.sum()), 1)
        return {name: float(fraction) for name, fraction in zip(self.classes, fractions, strict=True)}

    @cached_property
    def images_without(self) -> dict[str, tuple[str, ...]]:
        """Names of the pairs without a pixel of a class, by class."""
        read = [pair for pair in self.pairs if pair.pixels]
        return {
            name: tuple(pair.name for pair in read if not pair.pixels[position])
            for position, name in enumerate(self.classes)
        }

    @property
    def class_weights(self) -> dict[str, float]:
        """Balanced loss weights by class, from the training split; see `balanced_weights`."""
        return dict(zip(self.classes, balanced_weights(self.class_pixels("train")), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON."""
        return {
            "ok": self.ok,
            **asdict(self),
            "sizes": [{"height": h, "width": w, "images": n} for (h, w), n in self.sizes.items()],
            "modes": self.modes,
            "split_sizes": self.split_sizes,
            "class_fractions": self.class_fractions(),
            "images_without": self.images_without,
            "class_weights": self.class_weights,
        }


def balanced_weights(pixels: Sequence[int] | NDArray[np.int64]) -> list[float]:
    """Loss weights inverse to class frequency, so that every class has the same share of the loss.

    The mean weight over all pixels is 1, so the learning rate keeps its meaning. A class without pixels gets 1.

    Args:
        pixels: number of pixels of each class, [K].
    """
    counts = np.asarray(pixels, dtype=np.float64)
    present = counts > 0
    weights = np.ones(len(counts))
    if present.any():
        weights[present] = counts.sum() / (present.sum() * counts[present])
    return [float(weight) for weight in weights]


def check_folder(source: FolderSource, workers: int | None = None) -> CheckReport:
    """Reads every file of a folder as training would, in threads, and reports all problems, not only the first.

    A pair that was found right before, and has not changed, is not read again; see `pair_facts`.

    Errors: a class table of one class, images without masks and masks without images, names that occur twice,
    unreadable files, colours or ids that are no class, image and mask of different sizes, masks without a pixel that
    counts, training images smaller than a crop (with data.small=refuse), links that leave the folder, a split that cannot
    be made, and the same image, pixel by pixel, in two splits. Warnings: classes without pixels in all masks or in a
    split, masks of one class, images of one value, snapped colours, EXIF orientations, a data.white that is probably
    wrong, skipped files, pairs in no split, an empty test split, and the same image twice in one split.

    Args:
        source: the folder and how to read it. Decoded images are not kept in memory.
        workers: threads; None: one per core.

    Raises:
        UserError: the folder does not exist, or has no images or no masks.
    """
    start = time.perf_counter()
    pairing = scan(source.root, source.layout)
    errors = [*([wrong] if (wrong := source.unlearnable()) else []), *pairing.problems]
    splits: Splits | None = None
    try:
        splits = split_pairs(pairing.pairs, source.root, source.split_rule)
    except UserError as error:
        errors.append(str(error))
    split_of = {pair.name: part for part in PARTS for pair in splits[part]} if splits else {}

    reports: list[PairReport] = []
    brightest = Brightest(source.image_rule.white)
    images = [pair.image for pair in pairing.pairs]
    found = pair_facts(source, pairing.pairs).each(images, "checking images and masks", workers)
    for pair, fact in zip(pairing.pairs, found, strict=True):
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fact.items()
        }
        report = PairReport(split=split_of.get(pair.name, "unused"), **values)
        if report.split == "train" and report.height:
            too_small = source.too_small(pair, (report.height, report.width))
            report = replace(report, errors=(*report.errors, too_small)) if too_small else report
        reports.append(report)
        brightest.add(Path(report.image), report.top, report.mode)
    file_warnings = [*pairing.skipped, *(warning for report in reports for warning in report.warnings)]
    if doubt := brightest.doubt():
        file_warnings.append(doubt)
    folds = splits.folds if splits else ()
    in_fold = {name: f"fold {at}" for at, fold in enumerate(folds) for name in fold.pairs}
    in_two_splits, repeated = find_duplicates([replace(at, split=in_fold.get(at.name, at.split)) for at in reports])
    return CheckReport(
        str(source.root),
        tuple(source.labels.names),
        splits.reason if splits else "",
        tuple(f"fold {number}: {fold}" for number, fold in enumerate(folds)),
        tuple(reports),
        (*errors, *(error for report in reports for error in report.errors), *in_two_splits),
        # Only the first lines are printed, so those that concern the whole folder come first.
        (*folder_warnings(source, splits, reports), *file_warnings, *repeated),
        time.perf_counter() - start,
    )


def pair_facts(source: FolderSource, pairs: Sequence[Pair]) -> FileFacts[dict[str, Any]]:
    """What `check_pair` says of each pair, by the path of its image; kept on disk if it found no error.

    An error may come from the machine instead of the file, as if a library is missing, so those pairs are read again.
    """
    pair_of = {str(pair.image): pair for pair in pairs}

    def version(image: Path | str) -> tuple[int, ...]:
        pair = pair_of[str(image)]
        return *file_version(pair.image), *file_version(pair.mask)

    def check(image: Path) -> dict[str, Any]:
        pair = pair_of[str(image)]
        with room_for(pair.image, pair.mask):
            return check_pair(pair, source)

    # Warnings name files as the user typed the root.
    settings = [source.decoding, str(source.root), asdict(source.layout)]
    return source.facts("check", settings, check, lambda value: is_sound(value, len(source.labels)), version)


def is_sound(value: Any, classes: int) -> bool:
    """Whether a value, as from disk, can be what `check_pair` says of a pair without errors."""
    if not isinstance(value, dict) or value.keys() != {entry.name for entry in fields(PairReport)} - {"split"}:
        return False
    fact = {name: list(entry) if isinstance(entry, tuple) else entry for name, entry in value.items()}
    texts = [fact[name] for name in ("name", "image", "mask", "mode", "mask_mode", "image_hash", "mask_hash")]
    top, warnings = fact["top"], fact["warnings"]
    return (
        fact["errors"] == []
        and isinstance(warnings, list)
        and all(isinstance(text, str) for text in [*texts, *warnings])
        and numbers(classes)(fact["pixels"])
        and numbers(2)([fact["ignored"], fact["snapped"]])
        and is_shape([fact["height"], fact["width"]])
        and (top is None or (isinstance(top, float) and math.isfinite(top)))
    )


def check_pair(pair: Pair, source: FolderSource) -> dict[str, Any]:
    """Reads one pair: the fields of its report, except its split. Errors of its files are in them, not raised."""
    errors, warnings = [], []
    image: ImageReading | None = None
    mask: MaskReading | None = None
    found: dict[str, Any] = {}
    try:
        image = read_image(pair.image, source.image_rule)
    except UserError as error:
        errors.append(str(error))
    else:
        _, height, width = image.pixels.shape
        found |= {"height": height, "width": width, "mode": image.mode, "top": image.top}
        found["image_hash"] = pixel_hash(image.pixels)
        low, high = int(image.pixels.min()), int(image.pixels.max())
        if low == high:
            warnings.append(f"{shown(pair.image)}: every pixel is {low}; is this an image?")
        if image.orientation != 1:
            done = "was applied" if image.upright else "was ignored"
            warnings.append(
                f"{shown(pair.image)}: its EXIF orientation {image.orientation} {done}; check that the mask fits"
            )
    try:
        mask = read_mask(pair.mask, source.labels, source.mask_rule)
    except UserError as error:
        errors.append(str(error))
    else:
        found |= {"pixels": tuple(mask.counts.tolist()), "ignored": mask.ignored, "snapped": mask.snapped}
        found |= {"mask_mode": mask.mode, "mask_hash": pixel_hash(mask.mask)}
        present = np.flatnonzero(mask.counts)
        if len(present) == 1:
            name = source.labels.names[present[0]]
            warnings.append(f"{shown(pair.mask)}: has a single class ({name}); is that right?")
        if mask.snapped:
            share = mask.snapped / mask.mask.size
            warnings.append(
                f"{shown(pair.mask)}: {mask.snapped:,} pixels ({share:.2%}) took the nearest class's colour"
            )
    if image is not None and mask is not None:
        try:
            require_match(pair, image, mask)
        except UserError as error:
            errors.append(str(error))
    report = PairReport(pair.name, str(pair.image), str(pair.mask), "", tuple(errors), tuple(warnings), **found)
    return {name: value for name, value in vars(report).items() if name != "split"}


def pixel_hash(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of an array's shape and values, in hexadecimal."""
    state = hashlib.sha256(str(pixels.shape).encode())
    state.update(np.ascontiguousarray(pixels).data)
    return state.hexdigest()


def folder_warnings(source: FolderSource, splits: Splits | None, reports: Sequence[PairReport]) -> list[str]:
    """Lines about pairs in no split, an empty test split, and classes without a pixel in all masks or in a split."""
    warnings = []
    if splits and splits.unused:
        warnings.append(f"{shown(source.root)}: {len(splits.unused)} pairs are in no split ({splits.reason})")
    if splits and not splits.test:
        warnings.append(f"{shown(source.root)}: the split {splits.reason} leaves test empty, so nothing can be tested")
    read = [report for report in reports if report.pixels]
    masks_with = {
        name: Counter(report.split for report in read if report.pixels[position])
        for position, name in enumerate(source.labels.names)
    }
    for name, counts in masks_with.items():
        if not counts:
            warnings.append(
                f"{shown(source.root)}: the class {name} has no pixels in any mask; is it spelt as in the masks?"
            )
        elif not counts["train"] and (counts["val"] or counts["test"]):
            where = " and ".join(f"{counts[part]} of {part}" for part in ("val", "test") if counts[part])
            warnings.append(
                f"{shown(source.root)}: the class {name} has no pixels in train, but in {where}; choose another split"
            )
    if splits and splits.folds:
        return warnings + absences(splits.folds, {each.name: each.pixels for each in read}, source.labels.names)
    for part in ("val", "test"):
        absent = [name for name, counts in masks_with.items() if counts and not counts[part]]
        if absent and any(report.split == part for report in read):
            warnings.append(absence(part, absent))
    return warnings


def find_duplicates(reports: Sequence[PairReport]) -> tuple[list[str], list[str]]:
    """Lines about images with the same pixels: in two splits, and in one."""
    in_two_splits, in_one = [], []
    first: dict[str, PairReport] = {}
    for report in reports:
        if not report.image_hash or report.split == "unused":
            continue
        other = first.setdefault(report.image_hash, report)
        if other is report:
            continue
        masks = "" if report.mask_hash == other.mask_hash else ", but with another mask"
        line = f"{shown(report.image)} ({report.split}): has the pixels of {shown(other.image)} ({other.split}){masks}"
        if report.split == other.split:
            in_one.append(f"{line}; remove one of them")
        else:
            in_two_splits.append(f"{line}; an image must not be in two splits: remove one of them")
    return in_two_splits, in_one
