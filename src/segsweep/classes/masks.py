"""Read masks as positions in the class table; refuse unlisted colours and ids."""

from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segsweep.classes.mask_files import Pixels, read_pixels
from segsweep.classes.presets import preset_hint
from segsweep.classes.rules import SMALLEST_ID, MaskRule, Reading
from segsweep.classes.table import IGNORE, LARGEST_ID, ClassTable, hex_color, pack, parse_color
from segsweep.classes.unlisted import BLURRED, UnlistedError, unlisted_message
from segsweep.errors import UserError

UNLISTED = 256
"""In lookup tables: a colour or id that neither class table nor rule lists. Larger than any value in a mask."""

LOWEST, HIGHEST = SMALLEST_ID - 1, LARGEST_ID + 1
"""The ids just outside the range that a table or a rule can list."""


@dataclass(frozen=True)
class MaskReading:
    """A decoded mask with its pixel counts.

    Args:
        mask: uint8 [H, W] of positions in the class table; 255 is ignored.
        counts: int64 [K], pixels by class.
        ignored: number of pixels that are 255.
        snapped: number of pixels whose unlisted colour was replaced by the nearest listed one.
        mode: whether the file was read by colour or by index.
    """

    mask: NDArray[np.uint8]
    counts: NDArray[np.int64]
    ignored: int
    snapped: int
    mode: Reading


def read_mask(path: str | PathLike[str], labels: ClassTable, rule: MaskRule | None = None) -> MaskReading:
    """Read a mask file: each pixel becomes the class that table and rule give it, or the file is refused.

    Args:
        path: PNG, TIFF or BMP in RGB, RGBA, palette, 1- to 16-bit gray; .npy of integers [H, W] or uint8 [H, W, 3];
            with snap also JPEG, WebP and TIFF compressed as JPEG.
        labels: the class table.
        rule: how to read the file, and what to do with unlisted colours and ids; None: `MaskRule()`.

    Raises:
        UserError: the file cannot be read exactly, has two possible readings, or holds a colour or id that neither table
            nor rule lists.
    """
    path, rule = Path(path), rule or MaskRule()
    rule.check(labels)
    pixels = read_pixels(path)
    if pixels.lossy and not rule.snap:
        raise UserError(
            f"{path}: is {pixels.lossy}, which blurs colours at the edges of classes, so pixels would change class; "
            "use masks saved as PNG, or take the nearest colour with data.snap=true."
        )
    mode = choose_reading(path, pixels, labels, rule)
    values, palette = pixels.values, pixels.palette
    if mode == "color":
        if pixels.kind == "numbers":
            raise UserError(f"{path}: holds numbers and no colours; read it with data.by=index.")
        if palette is not None and (largest := int(values.max())) >= len(palette):
            raise UserError(f"{path}: is damaged: number {largest} in a palette of {len(palette)} colours.")
        table = color_table(labels, rule)
        positions = table[values] if palette is None else table[palette][values]
    else:
        if pixels.lossy:
            raise UserError(f"{path}: is {pixels.lossy}, which changes numbers; use masks saved as PNG.")
        if pixels.kind == "colors":
            if (gray := ids_of_gray(pixels)) is None:
                raise UserError(f"{path}: holds colours, not ids; read it with data.by=color.")
            values = gray
        positions = look_up_ids(values, labels, rule)

    snapped = 0
    wrong = positions == UNLISTED
    if wrong.any():
        found = palette[values[wrong]] if mode == "color" and palette is not None else values[wrong]
        unlisted, counts = np.unique(found, return_counts=True)
        if mode == "index" or not rule.snap:
            if mode == "color" and (ids := ids_of_gray(pixels)) is not None:
                used = np.unique(ids)
                if (look_up_ids(used, labels, rule) != UNLISTED).all():
                    listed = ", ".join(map(str, used[:BLURRED].tolist())) + (", ..." if len(used) > BLURRED else "")
                    raise UserError(
                        f"{path}: holds the ids {listed}, which the classes have, and no colours of classes; read it by its"
                        " ids with data.by=index."
                    )
            message = unlisted_message(str(path), mode, unlisted, counts, wrong.size, labels, rule)
            raise UnlistedError(message, mode, unlisted.tolist(), counts.tolist())
        table = table.copy()
        table[unlisted] = table[nearest_listed(unlisted, np.flatnonzero(table != UNLISTED))]
        positions = table[values] if palette is None else table[palette][values]
        snapped = int(counts.sum())
    mask = positions.astype(np.uint8)
    counts = histogram(mask)
    return MaskReading(mask, counts[: len(labels)], int(counts[IGNORE]), snapped, mode)


def ids_of_gray(pixels: Pixels) -> NDArray[Any] | None:
    """The ids [H, W] in a mask whose colours are all gray, also if it was saved as RGB: r == g == b; None for any other."""
    if pixels.kind == "colors":
        ids = pixels.values & 255
        return ids if np.array_equal(ids * 0x010101, pixels.values) else None
    if pixels.palette is None or not is_plain_gray(pixels.palette):
        return None
    return pixels.values


def is_plain_gray(palette: NDArray[np.int64]) -> bool:
    """Whether each number in a palette has the gray of its value."""
    return np.array_equal(palette, np.arange(len(palette)) * 0x010101)


def resize_mask(mask: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize by nearest neighbour, so every new pixel is a pixel of the mask, never a mixture.

    Takes the pixel under the new pixel's centre (torch's 'nearest-exact'); of two equally near, the lower right one.

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
    # floor((i + 1/2) * old / new) in integers. Pillow's NEAREST sums floats, so its choice between two pixels varies.
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, mask.shape, strict=True))
    return np.ascontiguousarray(mask[rows][:, columns])


def choose_reading(path: Path, pixels: Pixels, labels: ClassTable, rule: MaskRule) -> Reading:
    """The reading that the rule names; for 'auto', the only one that is possible (see `MaskRule.by`).

    Raises:
        UserError: both readings are possible and differ, or the colours of a palette contradict its class ids.
    """
    palette = pixels.palette
    if rule.by != "auto":
        return rule.by
    if palette is None:
        return "color" if pixels.kind == "colors" else "index"
    if pixels.lossy:
        return "color"
    used = np.flatnonzero(histogram(pixels.values))
    by_index = look_up_ids(used, labels, rule)
    index_fits = bool((by_index != UNLISTED).all())
    plain_gray = is_plain_gray(palette)
    if used[-1] >= len(palette):  # a number without a colour has no reading by colour
        by_color = np.full_like(by_index, UNLISTED)
    else:
        shades, table = palette[used], color_table(labels, rule)
        by_color = table[shades]
        strange = by_color == UNLISTED
        if rule.snap and index_fits and strange.any() and (pixels.kind == "gray" or plain_gray):
            # Without this, noise that happens to hit ids would make one of many similar files an index file.
            by_color[strange] = table[nearest_listed(shades[strange], np.flatnonzero(table != UNLISTED))]
    color_fits = bool((by_color != UNLISTED).all())

    if index_fits and color_fits and not np.array_equal(by_index, by_color):
        at = int(np.flatnonzero(by_index != by_color)[0])
        names = {**dict(enumerate(labels.names)), IGNORE: "ignored"}
        raise UserError(
            f"{path}: can be read in two ways that differ: {used[at]} is {names[by_index[at]]} by index and "
            f"{names[by_color[at]]} by its colour {hex_color(int(palette[used[at]]))}. "
            "Choose one with data.by=color or data.by=index."
        )
    if pixels.kind == "gray":
        return "index" if index_fits or not (color_fits or rule.snap) else "color"
    if index_fits and not color_fits and not plain_gray:
        if (largest := int(used[-1])) >= len(palette):
            raise UserError(
                f"{path}: number {largest} has no colour in a palette of {len(palette)}, though all numbers are class ids. "
                "Read them as ids with data.by=index, or save the mask again."
            )
        raise UserError(
            f"{path}: its palette shows {hex_color(int(shades[strange][0]))}, which is no class's colour, though its "
            f"numbers are all class ids. {preset_hint(shades[strange])}"
            "Correct the colours in data.labels, or choose one reading with data.by=index or data.by=color."
        )
    return "index" if index_fits and not color_fits else "color"


@lru_cache(maxsize=2)
def color_table(labels: ClassTable, rule: MaskRule) -> NDArray[np.uint16]:
    """Read-only uint16 [2**24]: the position of each colour 0xRRGGBB, 255 or UNLISTED."""
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
def index_table(labels: ClassTable, rule: MaskRule) -> NDArray[np.uint16]:
    """Read-only uint16: at `id - LOWEST` the position, 255 or UNLISTED. Both ends stand for all ids beyond them."""
    table = np.full(HIGHEST - LOWEST + 1, UNLISTED, dtype=np.uint16)
    for position, entry in enumerate(labels.classes):
        table[entry.id - LOWEST] = position
    for number in rule.ignore_ids:
        table[number - LOWEST] = IGNORE
    for number, name in rule.map_ids.items():
        table[number - LOWEST] = labels.index(name)
    table.flags.writeable = False
    return table


def look_up_ids(ids: NDArray[np.integer[Any]], labels: ClassTable, rule: MaskRule) -> NDArray[np.uint16]:
    """The position, 255 or UNLISTED for each id; ids may have any integer type and value."""
    table = index_table(labels, rule)
    limits = np.iinfo(ids.dtype)
    if limits.min == 0 and limits.max <= LARGEST_ID:
        return table[-LOWEST:][ids]
    if limits.max > HIGHEST:
        ids = np.minimum(ids, HIGHEST)
    if limits.min < LOWEST:
        ids = np.maximum(ids, LOWEST)
    return table[ids.astype(np.int64) - LOWEST]


def histogram(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """int64 [256]: how often each value occurs in [H, W]. Pillow counts; np.bincount would need eight times the memory."""
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
