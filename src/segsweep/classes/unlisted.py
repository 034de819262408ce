"""Colours and ids that no class has: which class is nearest, and the error that says so."""

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from segsweep.classes.colors import hex_color, pack, parse_color
from segsweep.classes.presets import PRESETS
from segsweep.classes.rules import Reading
from segsweep.classes.table import ClassTable
from segsweep.errors import UserError

SHOWN = 3
"""How many unlisted values an error names, the most frequent first."""

BLURRED = 16
"""More unlisted colours than this in one file are edges blurred by compression or resizing, not forgotten classes."""


def nearest_listed(colors: NDArray[Any], listed: NDArray[Any]) -> NDArray[np.int64]:
    """For each colour the nearest of `listed`, by squared distance in RGB; the first of those equally near.

    Args:
        colors: integers [N] of 0xRRGGBB.
        listed: integers [M] of 0xRRGGBB, M >= 1.

    Returns:
        int64 [N], values of `listed`.
    """
    # scipy's cdist takes two to three times as long here, and memory for N x M numbers.
    channels = [(colors >> shift & 255).astype(np.int32) for shift in (16, 8, 0)]
    nearest = np.zeros(len(colors), dtype=np.int64)
    smallest = np.full(len(colors), np.iinfo(np.int32).max, dtype=np.int32)
    for candidate in listed.tolist():
        distance = np.zeros(len(colors), dtype=np.int32)
        for shift, channel in zip((16, 8, 0), channels, strict=True):
            distance += (channel - (candidate >> shift & 255)) ** 2
        nearer = distance < smallest
        nearest[nearer] = candidate
        smallest[nearer] = distance[nearer]
    return nearest


def refuse_unlisted(
    path: Path, mode: Reading, values: NDArray[Any], counts: NDArray[np.int64], labels: ClassTable, pixels: int
) -> NoReturn:
    """Raise the UserError for a mask with unlisted values: file, counts, nearest classes and the ways out.

    Args:
        path: the mask file.
        mode: whether `values` are colours or ids.
        values: integers [N], the unlisted colours as 0xRRGGBB or ids, each once.
        counts: integers [N], the pixels of each.
        labels: the class table.
        pixels: the number of pixels of the file, listed or not.
    """
    order = np.argsort(-counts, kind="stable")
    shown = [(int(values[i]), int(counts[i])) for i in order[:SHOWN]]
    kind = "colour" if mode == "color" else "id"
    parts: list[str] = []
    for value, count in shown:
        amount = f"{count:,} of" if parts else f"{count:,} pixel{'s' if count > 1 else ''} of {kind}"
        which = ", which is no class" if len(values) == 1 else ""
        parts.append(f"{amount} {_text(value, mode)}{which} (nearest: {_nearest(value, mode, labels)})")
    if rest := len(values) - len(shown):
        parts.append(f"{int(counts[order[SHOWN:]].sum()):,} of {rest:,} other{'s' if rest > 1 else ''}")
    what = ", ".join(parts) + (", which are no classes" if len(values) > 1 else "")
    # A single colour on most of a mask is what unlabelled background looks like; several are another table's classes.
    mostly = len(values) > 1 and 2 * counts.sum() > pixels
    doubt = ""
    if mostly:
        known = preset_hint(values) if mode == "color" else ""
        doubt = f"Most pixels are of no class: is data.labels the table of these masks? {known}Otherwise: "
    raise UserError(f"{path}: {what}. {doubt}{_way_out(mode, [value for value, _ in shown], len(values))}")


def preset_hint(colors: NDArray[Any]) -> str:
    """A sentence that names the preset to which unlisted colours belong, and a space; else nothing.

    All must be in the preset, two of them as classes: a single black or white is in many tables.

    Args:
        colors: integers [N] of 0xRRGGBB.
    """
    found = set(colors.tolist())
    for name, (labels, rule) in PRESETS.items():
        classes = {pack(entry.color) for entry in labels.classes}
        ignored = {pack(parse_color(color)) for color in rule.ignore_colors}
        if rule.by != "index" and found <= classes | ignored and len(found & classes) > 1:
            return f"These are colours of data.labels={name}. "
    return ""


def _way_out(mode: Reading, shown: list[int], number: int) -> str:
    if mode == "color" and number > BLURRED:
        return (
            "So many colours come from lossy compression or from resizing with interpolation: use the masks as they "
            "were before, or take the nearest class with data.snap=true."
        )
    kind = "colors" if mode == "color" else "ids"
    quoted = [f'"{_text(value, mode)}"' if mode == "color" else str(value) for value in shown]
    values = ",".join(quoted) + (",..." if number > len(shown) else "")
    it = "it" if number == 1 else "them"
    return f"Map {it} in data.map_{kind}, or ignore {it} with data.ignore_{kind}=[{values}]."


def _text(value: int, mode: Reading) -> str:
    return hex_color(value) if mode == "color" else str(value)


def _nearest(value: int, mode: Reading, labels: ClassTable) -> str:
    if mode == "index":
        entry = min(labels.classes, key=lambda entry: abs(entry.id - value))
        return f"{entry.name} {entry.id}"
    packed = [pack(entry.color) for entry in labels.classes]
    found = int(nearest_listed(np.array([value]), np.array(packed))[0])
    return f"{labels.names[packed.index(found)]} {hex_color(found)}"
