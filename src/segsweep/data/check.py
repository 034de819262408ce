"""Checks every file of a folder before training on it."""

import hashlib
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segsweep.absent_classes import absence
from segsweep.classes.masks import MaskReading, read_mask
from segsweep.classes.unlisted import UnlistedError
from segsweep.data.check_report import CheckReport, PairReport
from segsweep.data.faults import find_duplicates, in_fewer_lines, mistakes_of_masks
from segsweep.data.folder import FolderSource
from segsweep.data.folds import absences
from segsweep.data.images import ImageReading, read_image
from segsweep.data.pairs import Pair
from segsweep.data.reading import require_match, room_for
from segsweep.data.splits import PARTS, Splits, split_pairs
from segsweep.errors import UserError, shown
from segsweep.file_facts import FileFacts, file_version, is_shape, numbers
from segsweep.image_files.arrays import Brightest


def check_folder(source: FolderSource, workers: int | None = None) -> CheckReport:
    """Reads every file of a folder as training would, in threads, and reports all problems, not only the first.

    A pair that was found right before, and has not changed, is not read again; see `pair_facts`.

    Errors: a class table of one class, images without masks and masks without images, names that occur twice,
    unreadable files, colours or ids that are no class, image and mask of different sizes, masks without a pixel that
    counts, training images smaller than a crop (with data.small=refuse), links that leave the folder, a split that cannot
    be made, and the same image, pixel by pixel, in two splits. Warnings: classes without pixels in all masks or in a
    split, masks of one class, images of one value, snapped colours, EXIF orientations, a data.white that is probably
    wrong, pairs in no split, an empty test split, and the same image twice in one split.

    Args:
        source: the folder and how to read it. Decoded images are not kept in memory.
        workers: threads; None: one per core.

    Raises:
        UserError: the folder does not exist, or has no images or no masks.
    """
    start = time.perf_counter()
    pairing = source.found
    errors = [*([wrong] if (wrong := source.unlearnable()) else []), *pairing.problems]
    splits: Splits | None = None
    try:
        splits = split_pairs(pairing.pairs, source.root, source.split_rule)
    except UserError as error:
        if len(pairing.pairs) > len(PARTS) or not errors:  # else pairs are missing, which is said already
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
    file_warnings = [warning for report in reports for warning in report.warnings]
    if doubt := brightest.doubt():
        file_warnings.append(doubt)
    folds = splits.folds if splits else ()
    in_fold = {name: f"fold {at}" for at, fold in enumerate(folds) for name in fold.pairs}
    in_two_splits, repeated = find_duplicates([replace(at, split=in_fold.get(at.name, at.split)) for at in reports])
    root = shown(source.root)
    unlisted = {line for at in reports for line in at.errors if at.unlisted and line.startswith(f"{shown(at.mask)}: ")}
    errors += [*(error for report in reports for error in report.errors), *in_two_splits]
    # What concerns the whole folder comes first.
    warnings = [*folder_warnings(source, splits, reports), *file_warnings, *repeated]
    return CheckReport(
        str(source.root),
        tuple(source.labels.names),
        splits.reason if splits else "",
        tuple(f"fold {number}: {fold}" for number, fold in enumerate(folds)),
        tuple(reports),
        tuple(errors),
        tuple(warnings),
        time.perf_counter() - start,
        (
            *in_fewer_lines([line for line in errors if line not in unlisted], root),
            *mistakes_of_masks(reports, source.labels, source.mask_rule, root),
        ),
        tuple(in_fewer_lines(warnings, root)),
        pairing.notes,
        pairing.skipped,
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
        and fact["unlisted"] == {}
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
        found["unlisted"] = error.pixels if isinstance(error, UnlistedError) else {}
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
    if len(read) < len(reports):  # a class may be in the masks that could not be read
        return warnings
    masks_with = {
        name: Counter(report.split for report in read if report.pixels[position])
        for position, name in enumerate(source.labels.names)
        if name not in source.ignored_classes
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
