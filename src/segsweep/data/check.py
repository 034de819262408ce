"""The verifier: looks at every file of a folder before anything is trained on it."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segsweep.absent_classes import absence
from segsweep.classes.masks import MaskReading, read_mask
from segsweep.data.folder import FolderSource
from segsweep.data.images import ImageReading, read_image
from segsweep.data.pairs import Pair, scan
from segsweep.data.reading import require_match, room_for
from segsweep.data.splits import PARTS, Splits, split_pairs
from segsweep.errors import UserError, shown
from segsweep.image_files.arrays import Brightest
from segsweep.image_files.limits import parallel_map

Progress = Callable[[int, int], None]
"""Called with the number of pairs looked at, and of all."""


@dataclass(frozen=True)
class PairReport:
    """What one pair holds. Where a file could not be read, `errors` says why, and what it would have told is empty."""

    name: str
    image: str
    mask: str
    split: str
    """train, val, test or, where it is in none of them, "unused"."""
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    height: int = 0
    width: int = 0
    mode: str = ""
    """Pillow's word for the image's pixels, or as in "4 bands of uint16"."""
    top: float | None = None
    """The largest value in the image's file; None of a file of bytes. Whatever it is, 8 bits are read."""
    mask_mode: str = ""
    """Whether the mask was read by color or by index."""
    pixels: tuple[int, ...] = ()
    """Of each class, by its position in the table."""
    ignored: int = 0
    snapped: int = 0
    image_hash: str = ""
    """Of the decoded pixels and their shape."""
    mask_hash: str = ""


@dataclass(frozen=True)
class CheckReport:
    """What a folder holds, what is wrong with it, and what is worth a look; each problem is one line that names it."""

    root: str
    classes: tuple[str, ...]
    split: str
    """By what the pairs were split."""
    pairs: tuple[PairReport, ...]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """False where training on this folder would be wrong."""
        return not self.errors

    @property
    def sizes(self) -> dict[tuple[int, int], int]:
        """How many images there are of each (height, width), the most frequent first."""
        return dict(Counter((pair.height, pair.width) for pair in self.pairs if pair.height).most_common())

    @property
    def modes(self) -> dict[str, int]:
        """How many images there are of each of Pillow's modes."""
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
        """By name, which part of the pixels that are not ignored a class has; 0 where there are no pixels."""
        pixels = self.class_pixels(split)
        fractions = pixels / max(int(pixels.sum()), 1)
        return {name: float(fraction) for name, fraction in zip(self.classes, fractions, strict=True)}

    @cached_property
    def images_without(self) -> dict[str, tuple[str, ...]]:
        """By class, the names of the pairs in which it has no pixel."""
        read = [pair for pair in self.pairs if pair.pixels]
        return {
            name: tuple(pair.name for pair in read if not pair.pixels[position])
            for position, name in enumerate(self.classes)
        }

    @property
    def class_weights(self) -> dict[str, float]:
        """Suggested weights, by class, from the training split; see `balanced_weights`."""
        return dict(zip(self.classes, balanced_weights(self.class_pixels("train")), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as JSON takes it."""
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
    """A weight a class, inverse to its pixels, so that every class has the same part in the loss.

    The mean weight over the pixels is 1, so the learning rate keeps its meaning. A class without pixels gets 1.

    Args:
        pixels: of each class, [K].
    """
    counts = np.asarray(pixels, dtype=np.float64)
    present = counts > 0
    weights = np.ones(len(counts))
    if present.any():
        weights[present] = counts.sum() / (present.sum() * counts[present])
    return [float(weight) for weight in weights]


def check_folder(source: FolderSource, workers: int | None = None, progress: Progress | None = None) -> CheckReport:
    """Reads every file of a folder as training would, in parallel, and reports all that is wrong, not only the first.

    Wrong are: a table of a single class, images without masks and the reverse, names that occur twice, files that cannot
    be read, colours or ids that are no class, sizes that differ in a pair, masks of ignored pixels alone, a split that
    cannot be made, and images that are the same, pixel by pixel, in two splits. Worth a look are: classes without pixels
    in all masks or in a split, masks of a single class, images of a single value, snapped colours, EXIF orientations,
    files passed over, and the same image twice in a split.

    Args:
        source: says what lies where and how it is read. It is not trained on, so nothing stays in memory.
        workers: threads; None: one per core.
        progress: called after each pair.

    Raises:
        UserError: the folder does not exist, or holds no images or no masks at all.
    """
    start = time.perf_counter()
    pairing = scan(source.root, source.layout)
    errors = [*([wrong] if (wrong := source.unlearnable()) else []), *pairing.problems]
    splits: Splits | None = None
    try:
        splits = split_pairs(pairing.pairs, source.root, source.split_rule)
    except UserError as error:
        errors.append(str(error))
    part_of = {pair.name: part for part in PARTS for pair in splits[part]} if splits else {}

    def look(pair: Pair) -> PairReport:
        with room_for(pair):
            return check_pair(pair, part_of.get(pair.name, "unused"), source)

    reports: list[PairReport] = []
    for report in parallel_map(look, pairing.pairs, workers):
        reports.append(report)
        if progress is not None:
            progress(len(reports), len(pairing.pairs))
    errors += [error for report in reports for error in report.errors]
    warnings = [*pairing.skipped, *(warning for report in reports for warning in report.warnings)]
    brightest = Brightest(source.image_rule.white)
    for report in reports:
        brightest.add(Path(report.image), report.top, report.mode)
    warnings += [doubt] if (doubt := brightest.doubt()) else []
    twice, repeated = _duplicates(reports)
    return CheckReport(
        str(source.root),
        tuple(source.labels.names),
        splits.reason if splits else "",
        tuple(reports),
        (*errors, *twice),
        # First what concerns the whole folder: a person is shown some lines only, and files have many.
        (
            *_split_warnings(source.root, splits),
            *_missing_classes(source, reports),
            *_unscored_classes(source, reports),
            *warnings,
            *repeated,
        ),
        time.perf_counter() - start,
    )


def check_pair(pair: Pair, split: str, source: FolderSource) -> PairReport:
    """Reads one pair; what is wrong with its files is in the report, not raised."""
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
        found["image_hash"] = _hash(image.pixels)
        warnings += _image_warnings(pair.image, image)
        if split == "train" and (message := source.too_small(pair, (height, width))):
            errors.append(message)
    try:
        mask = read_mask(pair.mask, source.labels, source.mask_rule)
    except UserError as error:
        errors.append(str(error))
    else:
        found |= {"pixels": tuple(mask.counts.tolist()), "ignored": mask.ignored, "snapped": mask.snapped}
        found |= {"mask_mode": mask.mode, "mask_hash": _hash(mask.mask)}
        warnings += _mask_warnings(pair.mask, mask, source.labels.names)
    if image is not None and mask is not None:
        try:
            require_match(pair, image, mask)
        except UserError as error:
            errors.append(str(error))
    return PairReport(pair.name, str(pair.image), str(pair.mask), split, tuple(errors), tuple(warnings), **found)


def _hash(pixels: NDArray[np.uint8]) -> str:
    state = hashlib.sha256(str(pixels.shape).encode())
    state.update(np.ascontiguousarray(pixels).data)
    return state.hexdigest()


def _image_warnings(path: Path, image: ImageReading) -> list[str]:
    warnings = []
    low, high = int(image.pixels.min()), int(image.pixels.max())
    if low == high:
        warnings.append(f"{shown(path)}: every pixel is {low}; is this an image?")
    if image.orientation != 1:
        done = "was applied" if image.upright else "was ignored"
        warnings.append(f"{shown(path)}: its EXIF orientation {image.orientation} {done}; look whether the mask fits")
    return warnings


def _mask_warnings(path: Path, mask: MaskReading, names: Sequence[str]) -> list[str]:
    warnings = []
    present = np.flatnonzero(mask.counts)
    if len(present) == 1:
        warnings.append(f"{shown(path)}: has a single class ({names[present[0]]}); is that so?")
    if mask.snapped:
        share = mask.snapped / mask.mask.size
        warnings.append(f"{shown(path)}: {mask.snapped:,} pixels ({share:.2%}) took the nearest class's colour")
    return warnings


def _split_warnings(root: Path, splits: Splits | None) -> list[str]:
    if splits is None:
        return []
    warnings = []
    if splits.unused:
        warnings.append(f"{shown(root)}: {len(splits.unused)} pairs are in no split ({splits.reason})")
    if not splits.test:
        warnings.append(f"{shown(root)}: the split {splits.reason} leaves test empty, so nothing can be tested")
    return warnings


def _missing_classes(source: FolderSource, reports: Sequence[PairReport]) -> list[str]:
    """A class that no mask has, or none that is trained on."""
    warnings = []
    for position, name in enumerate(source.labels.names):
        having = Counter(report.split for report in reports if report.pixels and report.pixels[position])
        if not having:
            warnings.append(
                f"{shown(source.root)}: the class {name} has no pixels in any mask; is it spelt as in the masks?"
            )
        elif not having["train"] and (having["val"] or having["test"]):
            where = " and ".join(f"{having[part]} of {part}" for part in ("val", "test") if having[part])
            warnings.append(
                f"{shown(source.root)}: the class {name} has no pixels in train, but in {where}; split otherwise"
            )
    return warnings


def _unscored_classes(source: FolderSource, reports: Sequence[PairReport]) -> list[str]:
    """A line for each scored split in which classes have no pixel; those that no mask has are named already."""
    warnings = []
    somewhere = {place for report in reports for place in np.flatnonzero(report.pixels)}
    for part in ("val", "test"):
        read = [report.pixels for report in reports if report.pixels and report.split == part]
        there = {place for pixels in read for place in np.flatnonzero(pixels)}
        absent = [name for place, name in enumerate(source.labels.names) if place in somewhere - there]
        if read and absent:
            warnings.append(absence(part, absent))
    return warnings


def _duplicates(reports: Sequence[PairReport]) -> tuple[list[str], list[str]]:
    """Images that are the same pixel by pixel: those in two splits, and those in one."""
    errors, warnings = [], []
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
            warnings.append(f"{line}; remove one of them")
        else:
            errors.append(f"{line}; what is trained on cannot measure: remove one of them")
    return errors, warnings
