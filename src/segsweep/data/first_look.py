"""A first look at the masks of a folder without a class table: what they hold, and a table to fill in."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from segsweep.classes import ClassTable
from segsweep.classes.mask_files import Pixels, read_pixels
from segsweep.classes.masks import is_plain_gray
from segsweep.classes.presets import PRESETS
from segsweep.classes.rules import MaskRule, MaskSettings
from segsweep.classes.table import LARGEST_ID, hex_color, pack, parse_color, unpack
from segsweep.data.finding import require_pairs, scan
from segsweep.data.layouts import LayoutSettings
from segsweep.data.reading import room_for
from segsweep.errors import UserError

LOOKED_AT = 50
"""Most masks of a first look, spread evenly over the folder."""
MOST_PIXELS = 10**9
"""A first look ends when it has read this many."""
_SHOWN = 20  # most values on the terminal
_KEPT = 4096  # most values of one mask that are remembered, the most frequent ones
_BLURRED = 64  # more values than this in all masks come from compression or resizing
_NEAR = 64  # colours that differ by less in each channel are one blurred colour
_RARE = 0.005  # share of the pixels below which a blurred colour is no class
_BLACK, _WHITE, _VOID = 0x000000, 0xFFFFFF, 255
_CHUNK = 1 << 20  # values that are counted at a time


@dataclass(frozen=True)
class MaskValues:
    """The values of one mask file, with their numbers of pixels.

    Args:
        kind: see `Pixels`.
        ids: by id; None for a file of colours that are not all gray.
        colors: by colour 0xRRGGBB; None for a file without colours.
        color_of: the colour of each id in the file's palette; empty for other files, and for a palette of plain grays.
        lossy: see `Pixels`.
    """

    kind: str
    ids: Counter[int] | None
    colors: Counter[int] | None
    color_of: Mapping[int, int]
    lossy: str | None


@dataclass(frozen=True)
class MaskLook:
    """What a sample of a folder's masks holds.

    Args:
        root: the folder.
        masks: number of masks in it.
        sample: those that were read.
        refused: a line for each that could not be read.
        settings: what the user typed about masks; ignored and mapped values are no classes to name.
    """

    root: Path
    masks: int
    sample: tuple[MaskValues, ...]
    refused: tuple[str, ...]
    settings: MaskSettings

    @cached_property
    def color_of(self) -> dict[int, int] | None:
        """The colour of each id; {} if two ids share one, and None if an id has another colour in another file."""
        pairs = {pair for mask in self.sample for pair in mask.color_of.items()}
        of = dict(pairs)
        return None if len(of) < len(pairs) else of if len(set(of.values())) == len(of) else {}

    @cached_property
    def by_id(self) -> bool:
        """Whether ids mean the same in all masks, so that they can be read by index."""
        colored = any(mask.color_of for mask in self.sample)
        ids = sum((mask.ids or Counter() for mask in self.sample), Counter[int]())
        faded = len(ids) > _BLURRED and ids[0] + ids[_VOID] >= 0.9 * ids.total()  # a black and white mask, resized
        return (
            self.settings.by != "color"
            and self.color_of is not None
            and not faded
            and all(
                mask.ids is not None and not mask.lossy and bool(mask.color_of or not colored) for mask in self.sample
            )
        )

    @cached_property
    def values(self) -> Counter[int]:
        """Pixels by id, or by colour if the masks are not read by id; of all masks that were read."""
        found = (mask.ids if self.by_id else mask.colors for mask in self.sample)
        return sum((counts or Counter() for counts in found), Counter[int]())

    @property
    def blurred(self) -> bool:
        """Whether compression or resizing has mixed the colours."""
        return not self.by_id and (any(mask.lossy for mask in self.sample) or len(self.values) > _BLURRED)

    @property
    def two_spellings(self) -> bool:
        """Whether the masks are black and white, or of the ids 0 and 1, or some of them this and some that."""
        return self.by_id and all(
            mask.ids is not None
            and mask.ids.keys() <= {0, 1, _VOID}
            and not mask.ids.keys() >= {1, _VOID}
            and not mask.color_of
            and (_VOID if mask.kind == "numbers" else 1 if mask.kind == "colors" else -1) not in mask.ids
            for mask in self.sample
        )

    @property
    def ignored_ids(self) -> list[int]:
        """Ids that mean no class: those typed, 255 beside two and more small ids, and numbers below 0."""
        typed = list(self.settings.ignore_ids or ())
        if not self.by_id or self.two_spellings:
            return typed
        others = [value for value in self.values if 0 <= value != _VOID]
        void = [_VOID] if self.settings.ignore_ids is None and len(others) > 1 and max(others) < 200 else []
        return typed + [value for value in sorted(self.values) if value not in typed and (value < 0 or value in void)]

    @cached_property
    def classes(self) -> list[int]:
        """The values that a class table needs a name for: ids in order, or colours, black first and then the frequent."""
        if self.two_spellings:
            return [0, 1]
        if self.by_id:
            known = {*self.ignored_ids, *(self.settings.map_ids or ())}
            return [value for value in sorted(self.values) if value not in known]
        typed = (*(self.settings.ignore_colors or ()), *(self.settings.map_colors or ()))
        colors = {color: count for color, count in self.values.items() if color not in set(map(_packed, typed))}
        found: list[int] = []
        for color in sorted(colors, key=lambda color: (-colors[color], color)):
            apart = all(np.abs(np.subtract(unpack(color), unpack(other))).max() >= _NEAR for other in found)
            if not self.blurred or (apart and colors[color] >= _RARE * sum(colors.values())):
                found.append(color)
        return sorted(found, key=lambda color: color != _BLACK)

    @property
    def table(self) -> str | None:
        """A class table with made-up names, as CSV; None without a mask that can be read, or with too many values."""
        values, binary = self.classes, self.two_spellings
        if not self.sample or not 1 <= len(values) <= 255 or (self.by_id and values[-1] > LARGEST_ID):
            return None
        names = [f"class_{value if self.by_id else at}" for at, value in enumerate(values)]
        if len(values) == 2 and values[0] == 0:  # id 0, or black
            names = ["background", "object"]
        colors = {0: _BLACK, 1: _WHITE, _VOID: _WHITE} if binary else (self.color_of or {}) if self.by_id else {}
        if not self.by_id:
            rows = ["name,r,g,b", *(f"{name},{_rgb(value)}" for name, value in zip(names, values, strict=True))]
        elif all(value in colors for value in values):
            rows = [
                "id,name,r,g,b",
                *(f"{id_},{name},{_rgb(colors[id_])}" for id_, name in zip(values, names, strict=True)),
            ]
        else:
            rows = ["id,name", *(f"{id_},{name}" for id_, name in zip(values, names, strict=True))]
        return "\n".join([*rows, ""])

    @property
    def keys(self) -> dict[str, Any]:
        """The settings that the table needs beside data.labels."""
        ids = {"ignore_ids": self.ignored_ids} if self.ignored_ids else {}
        by = {"by": "index"} if self.by_id and self.color_of else {}
        if not self.by_id and any(mask.kind != "colors" for mask in self.sample):
            by = {"by": "color"}  # numbers that happen to be ids would give a second reading
        return {**ids, **by, **({"snap": True} if self.blurred else {})}

    @cached_property
    def presets_by_color(self) -> list[str]:
        """Presets that list every colour of the masks, two of them at least as classes."""
        if self.settings.by == "index" or any(mask.colors is None for mask in self.sample):
            return []
        found = {color for mask in self.sample for color in mask.colors or ()}
        found -= set(map(_packed, self.settings.ignore_colors or ()))
        return [
            name
            for name, (labels, rule) in _presets()
            for classes in [{pack(entry.color) for entry in labels.classes}]
            if rule.by != "index" and found <= classes | set(map(_packed, rule.ignore_colors))
            if len(found & classes) > 1
        ]

    @cached_property
    def presets_by_id(self) -> list[tuple[str, dict[str, Any], str]]:
        """Presets that list every id, of which there are three: name, further settings, and how much was found."""
        if not self.by_id or self.two_spellings or self.color_of or len(self.values) < 3:
            return []
        found, fitting = set(self.values) - set(self.settings.ignore_ids or ()), []
        for name, (labels, rule) in _presets():
            classes = {entry.id for entry in labels.classes}
            share = len(found & classes) / len(classes)
            distinct = share >= 0.5 or sorted(found) != list(range(len(found)))  # many sets have 0, 1 and 2
            if distinct and found <= classes | set(rule.ignore_ids) and len(found & classes) > 1:
                by = {} if rule.by == "index" else {"by": "index"}
                fitting.append((-share, name, by, f"{len(found & classes)} of its {len(classes)} classes"))
        return [(name, by, share) for _, name, by, share in sorted(fitting, key=lambda entry: entry[0])[:3]]

    def lines(self) -> list[str]:
        """The modes of the masks, and their ids or colours with counts and shares."""
        modes = Counter(f"{mask.kind}{f', {mask.lossy}' if mask.lossy else ''}" for mask in self.sample)
        listed = ", ".join(f"{mode} ({count})" for mode, count in modes.most_common(4))
        every = f"all {self.masks:,}" if len(self.sample) == self.masks else f"{len(self.sample):,} of {self.masks:,}"
        found = [f"masks: looked at {every}; kinds: {listed}"]
        if self.refused:
            found.append(f"{len(self.refused):,} of the masks cannot be read, such as {self.refused[0]}")
        total = max(self.values.total(), 1)
        most = self.values.most_common(_SHOWN)
        for value, count in sorted(most) if self.by_id else most:
            masks = sum(value in ((mask.ids if self.by_id else mask.colors) or ()) for mask in self.sample)
            share = f"{100 * count / total:.2f} %"
            found.append(f"  {self.text(value)}: {count:,} pixels, {share}, in {masks} mask{'s' * (masks != 1)}")
        if (more := len(self.values) - len(most)) > 0:
            found.append(f"  and {more:,} more")
        if added := [value for value in self.ignored_ids if value not in (self.settings.ignore_ids or ())]:
            found.append(f"taken for pixels without a class, as is usual: {', '.join(map(str, added))}")
        if self.blurred:
            found.append(
                "so many colours come from lossy compression or from resizing: better use the original masks. The table"
                " lists the frequent ones, and data.snap=true takes the nearest of these"
            )
        return found

    def text(self, value: int) -> str:
        color = (self.color_of or {}).get(value)
        shade = "" if color is None else f" ({hex_color(color)})"
        return f"id {value}{shade}" if self.by_id else f"colour {hex_color(value)}"

    def summary(self) -> str:
        """What the masks hold, in a few words."""
        if not self.sample:
            return f"its masks cannot be read, such as {self.refused[0]}"
        if self.presets_by_color:
            return f"its masks have the colours of {self.presets_by_color[0]}"
        values = [str(value) if self.by_id else hex_color(value) for value, _ in self.values.most_common(8)]
        more = f" and {len(self.values) - 8:,} more" if len(self.values) > 8 else ""
        return f"its masks hold the {'ids' if self.by_id else 'colours'} {', '.join(values)}{more}"


def look_at_masks(root: Path, wanted: LayoutSettings, settings: MaskSettings) -> MaskLook:
    """Reads at most `LOOKED_AT` of a folder's masks, spread evenly, and counts their ids and colours.

    Raises:
        UserError: the files do not pair.
    """
    found = scan(root, wanted)
    paths = [pair.mask for pair in found.pairs or require_pairs(found)]
    chosen = [paths[at * len(paths) // LOOKED_AT] for at in range(LOOKED_AT)] if len(paths) > LOOKED_AT else paths
    sample, refused, pixels = [], [], 0
    for path in chosen:
        if pixels > MOST_PIXELS:
            break
        try:
            with room_for(path):
                mask = read_pixels(path)
                sample.append(values_of(mask))
        except UserError as error:
            refused.append(str(error))
        else:
            pixels += mask.values.size
    return MaskLook(root, len(paths), tuple(sample), tuple(refused), settings)


def values_of(pixels: Pixels) -> MaskValues:
    """Counts the ids and the colours of a mask."""
    counts: Counter[int] = Counter()
    flat = pixels.values.reshape(-1)
    for start in range(0, flat.size, _CHUNK):  # sorting all values of a large mask would take a copy of it
        values, numbers = np.unique(flat[start : start + _CHUNK], return_counts=True)
        counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
    counts = Counter(dict(counts.most_common(_KEPT)))
    if pixels.kind == "colors":
        gray = all(color == (color & 255) * 0x010101 for color in counts)
        ids = Counter({color & 255: count for color, count in counts.items()}) if gray else None
        return MaskValues(pixels.kind, ids, counts, {}, pixels.lossy)
    if pixels.palette is None:
        return MaskValues(pixels.kind, counts, None, {}, pixels.lossy)
    palette = pixels.palette
    color_of = {value: int(palette[value]) for value in counts if value < len(palette)}
    colors: Counter[int] = Counter()
    for value, color in color_of.items():
        colors[color] += counts[value]
    plain = pixels.kind == "gray" or is_plain_gray(palette)
    return MaskValues(pixels.kind, counts, colors, {} if plain else color_of, pixels.lossy)


def _presets() -> list[tuple[str, tuple[ClassTable, MaskRule]]]:
    """All presets, those with two names once."""
    first = {id(preset): name for name, preset in reversed(PRESETS.items())}
    return [(name, preset) for name, preset in PRESETS.items() if first[id(preset)] == name]


def _packed(color: Any) -> int:
    return pack(parse_color(color))


def _rgb(color: int) -> str:
    return ",".join(map(str, unpack(color)))
