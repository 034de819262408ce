"""A mask's pixels to positions in the class table; what no class has is refused, with the nearest class and the way out."""

from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segsweep.classes.mask_files import Pixels, read_pixels
from segsweep.classes.presets import preset_hint
from segsweep.classes.rules import SMALLEST_ID, MaskRule, Reading
from segsweep.classes.table import IGNORE, LARGEST_ID, ClassTable, hex_color, pack, parse_color
from segsweep.errors import UserError

SHOWN = 3
"""How many unlisted values an error names, the most frequent first."""

BLURRED = 16
"""More unlisted colours than this in one file are edges blurred by compression or resizing, not forgotten classes."""


UNLISTED = 256
"""In lookup tables: a colour or id that is neither a class's nor named by the rule. Larger than any value in a mask."""

LOWEST, HIGHEST = SMALLEST_ID - 1, LARGEST_ID + 1
"""One beyond the ids that a table or a rule can name."""


@dataclass(frozen=True)
class MaskReading:
    """A mask, and what was met while reading it.

    Args:
        mask: uint8 [H, W] of positions in the class table; 255 is ignored.
        counts: int64 [K], pixels by class.
        ignored: number of pixels that are 255.
        snapped: number of pixels whose colour was not listed and that took the nearest one.
        mode: which reading of the file the mask is.
    """

    mask: NDArray[np.uint8]
    counts: NDArray[np.int64]
    ignored: int
    snapped: int
    mode: Reading


def read_mask(path: str | PathLike[str], labels: ClassTable, rule: MaskRule | None = None) -> MaskReading:
    """Read a mask file; each pixel becomes the class that table and rule give it, or the file is refused.

    Args:
        path: PNG, TIFF or BMP in RGB, RGBA, palette, 1- to 16-bit gray; .npy of integers [H, W] or uint8 [H, W, 3];
            JPEG, WebP and TIFF compressed as JPEG where the rule says snap.
        labels: the class table.
        rule: how to read, and what becomes of unlisted colours and ids; by default `MaskRule()`.

    Raises:
        UserError: the file cannot be read exactly, can be read in two ways, or holds a colour or id that neither table
            nor rule lists.
    """
    path = Path(path)
    rule = rule or MaskRule()
    rule.check(labels)
    pixels = read_pixels(path)
    if pixels.lossy and not rule.snap:
        raise UserError(
            f"{path}: is {pixels.lossy}, which blurs colours at the edges of classes, so pixels would change class; "
            "use masks saved as PNG, or take the nearest colour with data.snap=true."
        )
    mode = _choose(path, pixels, labels, rule)
    if mode == "color":
        values, palette, table = pixels.values, _palette(path, pixels), _color_table(labels, rule)
        positions = table[values] if palette is None else table[palette][values]
    else:
        values, palette = _ids(path, pixels), None
        positions = _look_up_ids(_index_table(labels, rule), values)

    snapped = 0
    wrong = positions == UNLISTED
    if wrong.any():
        unlisted = values[wrong] if palette is None else palette[values[wrong]]
        unlisted, counts = np.unique(unlisted, return_counts=True)
        if mode == "index" or not rule.snap:
            refuse_unlisted(path, mode, unlisted, counts, labels, wrong.size)
        table = table.copy()
        table[unlisted] = table[_nearest_color(unlisted, table)]
        positions = table[values] if palette is None else table[palette][values]
        snapped = int(counts.sum())
    mask = positions.astype(np.uint8)
    histogram = _histogram(mask)
    return MaskReading(mask, histogram[: len(labels)], int(histogram[IGNORE]), snapped, mode)


def resize_mask(mask: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """The mask at another size, by nearest neighbour: every pixel is one of the mask's, never a mixture.

    The pixel taken is the one under the new pixel's centre (torch's 'nearest-exact'), and of two the lower right one.
    It is found in whole numbers; Pillow's NEAREST sums floats, and between two pixels takes now one, now the other.

    Args:
        mask: [H, W], any integer type, which is kept.
        size: (height, width), in pixels, both positive.

    Raises:
        ValueError: `mask` is not [H, W], or `size` is not positive.
    """
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"a mask is [H, W] with at least one pixel, not {list(mask.shape)}.")
    if min(size) < 1:
        raise ValueError(f"the size {size} is not positive.")
    # floor((i + 1/2) * old / new)
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, mask.shape, strict=True))
    return np.ascontiguousarray(mask[rows][:, columns])


def _choose(path: Path, pixels: Pixels, labels: ClassTable, rule: MaskRule) -> Reading:
    """Which reading of the file the rule asks for; for 'auto', the only one that is possible (see `MaskRule.by`)."""
    if rule.by != "auto":
        return rule.by
    if pixels.kind == "colors":
        return "color"
    if pixels.kind == "numbers":
        return "index"
    if pixels.lossy:
        return "color"
    assert pixels.palette is not None
    used = np.flatnonzero(_histogram(pixels.values))
    by_index = _look_up_ids(_index_table(labels, rule), used)
    index_fits = bool((by_index != UNLISTED).all())
    plain_gray = np.array_equal(pixels.palette, np.arange(len(pixels.palette)) * 0x010101)
    if used[-1] >= len(pixels.palette):  # a number without a colour has no reading by colour
        by_color = np.full_like(by_index, UNLISTED)
    else:
        shades, table = pixels.palette[used], _color_table(labels, rule)
        by_color = table[shades]
        strange = by_color == UNLISTED
        if rule.snap and index_fits and strange.any() and (pixels.kind == "gray" or plain_gray):
            # Else of files that are alike, those with a little noise in the right place would be read by index.
            by_color[strange] = table[_nearest_color(shades[strange], table)]
    color_fits = bool((by_color != UNLISTED).all())

    if index_fits and color_fits and not np.array_equal(by_index, by_color):
        at = int(np.flatnonzero(by_index != by_color)[0])
        color = hex_color(int(pixels.palette[used[at]]))
        raise UserError(
            f"{path}: can be read in two ways that differ: {used[at]} is {_name(labels, by_index[at])} by index and "
            f"{_name(labels, by_color[at])} by its colour {color}. Say which with data.by=color or data.by=index."
        )
    if pixels.kind == "gray":
        return "index" if index_fits or not (color_fits or rule.snap) else "color"
    if index_fits and not color_fits and not plain_gray:
        if (largest := int(used[-1])) >= len(pixels.palette):
            raise UserError(
                f"{path}: number {largest} has no colour in a palette of {len(pixels.palette)}, though all numbers are"
                " class ids. If these count, say data.by=index; else save the mask again."
            )
        unlisted = shades[strange]
        raise UserError(
            f"{path}: its palette shows {hex_color(int(unlisted[0]))}, which is no class's colour, though its numbers are"
            f" all class ids. {preset_hint(unlisted)}"
            "Correct the colours in data.labels, or say which counts with data.by=index or data.by=color."
        )
    return "index" if index_fits and not color_fits else "color"


def _nearest_color(shades: NDArray[np.int64], table: NDArray[np.uint16]) -> NDArray[np.int64]:
    """For each colour the nearest that a colour table lists."""
    return nearest_listed(shades, np.flatnonzero(table != UNLISTED))


def _name(labels: ClassTable, position: int) -> str:
    return "ignored" if position == IGNORE else labels.names[position]


def _palette(path: Path, pixels: Pixels) -> NDArray[np.int64] | None:
    """The colours of the numbers in a file that is read by colour; None where the pixels are colours themselves."""
    if pixels.kind == "numbers":
        raise UserError(f"{path}: holds numbers and no colours; read it with data.by=index.")
    if pixels.palette is not None and (largest := int(pixels.values.max())) >= len(pixels.palette):
        raise UserError(f"{path}: is damaged: number {largest} in a palette of {len(pixels.palette)} colours.")
    return pixels.palette


def _ids(path: Path, pixels: Pixels) -> NDArray[Any]:
    """[H, W] of ids, of any integer type, in a file that is read by index."""
    if pixels.lossy:
        raise UserError(f"{path}: is {pixels.lossy}, which changes numbers; use masks saved as PNG.")
    if pixels.kind != "colors":
        return pixels.values
    ids = pixels.values & 255
    if not np.array_equal(ids * 0x010101, pixels.values):  # a gray image saved as RGB still shows its number
        raise UserError(f"{path}: holds colours, not ids; read it with data.by=color.")
    return ids


@lru_cache(maxsize=2)
def _color_table(labels: ClassTable, rule: MaskRule) -> NDArray[np.uint16]:
    """uint16 [2**24]: from 0xRRGGBB to position, 255 or UNLISTED."""
    table = np.full(1 << 24, UNLISTED, dtype=np.uint16)
    for position, entry in enumerate(labels.classes):
        table[pack(entry.color)] = position
    for color in rule.ignore_colors:
        table[pack(parse_color(color))] = IGNORE
    for color, name in rule.map_colors.items():
        table[pack(parse_color(color))] = labels.index(name)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=4)
def _index_table(labels: ClassTable, rule: MaskRule) -> NDArray[np.uint16]:
    """uint16: at `id - LOWEST` the position, 255 or UNLISTED. Its first and last entry stand for all ids beyond."""
    table = np.full(HIGHEST - LOWEST + 1, UNLISTED, dtype=np.uint16)
    for position, entry in enumerate(labels.classes):
        table[entry.id - LOWEST] = position
    for number in rule.ignore_ids:
        table[number - LOWEST] = IGNORE
    for number, name in rule.map_ids.items():
        table[number - LOWEST] = labels.index(name)
    table.flags.writeable = False
    return table


def _look_up_ids(table: NDArray[np.uint16], ids: NDArray[np.integer[Any]]) -> NDArray[np.uint16]:
    """What an index table says of ids of any integer type."""
    limits = np.iinfo(ids.dtype)
    if limits.min == 0 and limits.max <= LARGEST_ID:
        return table[-LOWEST:][ids]
    if limits.max > HIGHEST:
        ids = np.minimum(ids, HIGHEST)
    if limits.min < LOWEST:
        ids = np.maximum(ids, LOWEST)
    return table[ids.astype(np.int64) - LOWEST]


def _histogram(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """int64 [256], how often each value occurs; by Pillow, since numpy widens what it counts eightfold."""
    return np.array(Image.fromarray(values).histogram(), dtype=np.int64)


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
        parts.append(f"{amount} {_text(value, mode)}{which} (nearest: {_nearest_class(value, mode, labels)})")
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


def _nearest_class(value: int, mode: Reading, labels: ClassTable) -> str:
    if mode == "index":
        entry = min(labels.classes, key=lambda entry: abs(entry.id - value))
        return f"{entry.name} {entry.id}"
    packed = [pack(entry.color) for entry in labels.classes]
    found = int(nearest_listed(np.array([value]), np.array(packed))[0])
    return f"{labels.names[packed.index(found)]} {hex_color(found)}"
