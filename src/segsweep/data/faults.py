"""Lines about the faults of a folder: the same image twice, and one line for all files with the same fault."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from segsweep.classes import ClassTable, MaskRule
from segsweep.classes.unlisted import BLURRED, unlisted_message
from segsweep.data.check_report import PairReport
from segsweep.errors import shown

NAMED = 3
"""How many files a line names."""


def in_fewer_lines(lines: Sequence[str], root: str) -> list[str]:
    """One line for all files with the same fault: their number, the first names, and what is said of the first file.

    Faults are the same if their lines differ in file names, numbers, colours and quoted texts alone.

    Args:
        lines: a line for each fault of each file, which begins with the file's path and a colon.
        root: the folder, as the lines name it.
    """
    file = re.escape(root) + r"/.*?(?=: | \(|; |, | and |$)"
    groups: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        groups[re.sub(r"'[^']*'|#[0-9A-F]{6}|(?<!\w)\d[\d,.]*", "0", re.sub(file, "file", line))].append(line)
    found = []
    for same in groups.values():
        texts = [line.removeprefix(f"{root}/").partition(": ") for line in same]
        if len(same) == 1 or not all(line.startswith(f"{root}/") for line in same):
            found += same
            continue
        said = texts[0][2] if len({text for _, _, text in texts}) == 1 else f"the first: {texts[0][2]}"
        found.append(f"{len(same):,} files ({some([name for name, _, _ in texts])}): {said}")
    return found


def some(names: Sequence[str]) -> str:
    """The first names."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def mistakes_of_masks(reports: Sequence[PairReport], labels: ClassTable, rule: MaskRule, root: str) -> list[str]:
    """A line for all masks with colours that are no classes, and one for all with such ids, with the sums of the pixels."""
    found = []
    for mode in ("color", "index"):
        masks = [
            report for report in reports if any((mode == "color") == key.startswith("#") for key in report.unlisted)
        ]
        if len(masks) < 2:
            found += [line for report in masks for line in report.errors if line.startswith(f"{shown(report.mask)}: ")]
            continue
        total: Counter[int] = Counter()
        for report in masks:
            total.update(
                {
                    int(key.removeprefix("#"), 16 if mode == "color" else 10): count
                    for key, count in report.unlisted.items()
                }
            )
        names = some([shown(report.mask).removeprefix(f"{root}/") for report in masks])
        sizes = [report.height * report.width for report in masks]
        pixels = sum(sizes) if all(sizes) else None  # an image that cannot be read has no size
        values, counts = np.array(list(total.keys())), np.array(list(total.values()))
        # Many masks can hold many forgotten classes, each mask a few of them.
        blurred = any(len(report.unlisted) > BLURRED for report in masks)
        where = f"{len(masks):,} masks ({names})"
        found.append(unlisted_message(where, mode, values, counts, pixels, labels, rule, blurred))
    return found


def passed_over_in_one_line(lines: Sequence[str], root: str) -> list[str]:
    """One line for all files that are neither image nor mask: their number by reason, and the first names; or none."""
    if not lines:
        return []
    parts = [line.removeprefix(f"{root}/").partition(": ") for line in lines]
    reasons = [
        f"{number:,}: {reason}" for reason, number in Counter(reason for _, _, reason in parts).most_common(NAMED)
    ]
    return [f"passed over: {len(lines):,} files, such as {some([name for name, _, _ in parts])} ({'; '.join(reasons)})"]


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
