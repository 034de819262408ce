"""The class table: ids, names and colours, and colours as people write them."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segsweep.errors import UserError

Color = tuple[int, int, int]
"""Red, green, blue, each 0..255."""

_HEX = re.compile(r"(?:#|0x)?([0-9a-fA-F]{6})")


def is_hex(text: str) -> bool:
    """Whether the text is `#RRGGBB`, `RRGGBB` or `0xRRGGBB`."""
    return _HEX.fullmatch(text.strip()) is not None


def whole_number(value: Any) -> int | None:
    """The value of an integer, or of a float or text that equals one (`60`, ` 60 `, `60.0`); None for anything else."""
    if isinstance(value, bool):  # True is an int to Python, and `yes` is True to YAML
        return None
    try:
        number = float(value)
        return int(number) if number == int(number) else None
    except (TypeError, ValueError, OverflowError):
        return None


def parse_color(value: Any) -> Color:
    """A colour from `[r, g, b]` or `'#RRGGBB'`, also without # or with 0x, as Hydra and YAML read it.

    Raises:
        UserError: another form, or a component that is not a whole number in 0..255.
    """
    if isinstance(value, int) and re.fullmatch("[0-9]{6}", str(value)):  # RRGGBB of digits alone
        value = str(value)
    if isinstance(value, float):  # 1E2040, or 112e33
        raise UserError(f"{value!r} is a number, no colour; write RRGGBB as 0xRRGGBB where it looks like a number.")
    if isinstance(value, str):
        if (match := _HEX.fullmatch(value.strip())) is None:
            raise UserError(f"{value!r} is not a colour; write it as '#RRGGBB' or [r, g, b].")
        red, green, blue = bytes.fromhex(match.group(1))
        return red, green, blue
    try:
        components = list(value)
    except TypeError:
        components = []
    if len(components) != 3:
        raise UserError(f"{value!r} is not a colour; write it as '#RRGGBB' (in quotes) or [r, g, b].")
    numbers = [whole_number(component) for component in components]
    for component, number in zip(components, numbers, strict=True):
        if number is None or not 0 <= number <= 255:
            raise UserError(f"{component!r} is not a colour value; red, green and blue are whole numbers in 0..255.")
    return numbers[0], numbers[1], numbers[2]  # type: ignore[return-value]  # None is refused above


def pack(color: Color) -> int:
    """The colour as one 24-bit number, 0xRRGGBB."""
    red, green, blue = color
    return red << 16 | green << 8 | blue


def unpack(packed: int) -> Color:
    """The inverse of `pack`."""
    return packed >> 16 & 255, packed >> 8 & 255, packed & 255


def hex_color(color: Color | int) -> str:
    """`#RRGGBB` for a colour or a packed colour."""
    return f"#{color if isinstance(color, int) else pack(color):06X}"


def pack_pixels(colors: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """uint8 [H, W, 3] to uint32 [H, W] of 0xRRGGBB."""
    packed = colors[..., 0].astype(np.uint32)
    for channel in (1, 2):
        packed <<= 8
        packed |= colors[..., channel]
    return packed


def voc_color(number: int) -> tuple[int, int, int]:
    """The colour of a PASCAL VOC class number: its bits in turn become the highest bits of red, green and blue (devkit)."""
    red = green = blue = 0
    for bit in range(8):
        red |= (number >> 3 * bit & 1) << 7 - bit
        green |= (number >> 3 * bit + 1 & 1) << 7 - bit
        blue |= (number >> 3 * bit + 2 & 1) << 7 - bit
    return red, green, blue


# fmt: off
_READABLE = [
    (230, 25, 75), (60, 180, 75), (0, 130, 200), (255, 225, 25), (245, 130, 48), (145, 30, 180), (70, 240, 240),
    (240, 50, 230), (210, 245, 60), (250, 190, 212), (0, 128, 128), (220, 190, 255), (170, 110, 40), (255, 250, 200),
    (128, 0, 0), (170, 255, 195), (128, 128, 0), (255, 215, 180), (0, 0, 128), (128, 128, 128),
]
# fmt: on
"""Colours that are easy to tell apart. Source: S. Trubetskoy, "List of 20 simple, distinct colors"."""


def is_background(name: str) -> bool:
    """Whether a labelling tool means unlabelled pixels by this class name: `background`, `_background_`, `BG`."""
    return name.strip(" _").lower() in ("background", "bg")


def readable_colors(names: Sequence[str]) -> list[Color]:
    """A colour for each class, no two alike: black for a background, easily told apart for the first 20 others."""
    further = (color for color in map(voc_color, range(1, 1 << 24)) if color not in _READABLE)
    free = itertools.chain(_READABLE, further)
    black = next((at for at, name in enumerate(names) if is_background(name)), None)
    return [(0, 0, 0) if at == black else next(free) for at in range(len(names))]


IGNORE = 255
"""The value of ignored pixels in a mask: losses and metrics skip them."""

LARGEST_ID = 65535
"""The largest id of a class, and the largest value of a 16-bit index image."""

LONGEST_NAME = 200
"""Characters in a class name, which becomes part of metric names, tables and figures."""


@dataclass(frozen=True)
class LabelClass:
    """A class: its id in mask files, its name and its colour.

    Args:
        id: the value of the class in index files. In memory a class is its position in the table, which is also its
            channel in a net's output, so the ids need not be 0..K-1.
        name: shown in tables, and used in metric names and settings.
        color: red, green and blue in pictures and colour files, each 0..255.

    Raises:
        UserError: the name is empty, too long or not printable, the id is not in 0..65535, or the colour is invalid.
    """

    id: int
    name: str
    color: Color

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise UserError(f"the class name {self.name!r} is not text; put it in quotes.")
        name = self.name.strip()
        if not name:
            raise UserError(f"the class with colour {self.color!r} has no name; give it one.")
        if len(name) > LONGEST_NAME:
            raise UserError(
                f"the class name {name[:40]!r}... has {len(name):,} characters; use {LONGEST_NAME} at most."
            )
        if not name.isprintable():
            raise UserError(f"the class name {name!r} holds line breaks or control characters; remove them.")
        number = whole_number(self.id)
        if number is None or not 0 <= number <= LARGEST_ID:
            raise UserError(f"class {name!r}: the id {self.id!r} is not a whole number in 0..{LARGEST_ID}.")
        try:
            color = parse_color(self.color)
        except UserError as error:
            raise UserError(f"class {name!r}: {error}") from None
        for field, value in (("id", number), ("name", name), ("color", color)):
            object.__setattr__(self, field, value)


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set, in the order of a net's output channels.

    Args:
        classes: 1 to 255 classes; no two share an id, name or colour.
        background: name of the class that `foreground_iou` leaves out and overlays leave clear; None without one.

    Raises:
        UserError: no class, too many, two that share an id, name or colour, or an unknown background.
    """

    classes: tuple[LabelClass, ...]
    background: str | None = None

    def __init__(self, classes: Sequence[LabelClass], background: str | None = None) -> None:
        object.__setattr__(self, "classes", tuple(classes))
        object.__setattr__(self, "background", background)
        if not self.classes:
            raise UserError("the class table has no class; list at least one with name and color.")
        # 255 is taken by IGNORE, so positions run to 254.
        if len(self.classes) > IGNORE:
            raise UserError(f"the class table has {len(self.classes)} classes; use {IGNORE} at most.")
        names: set[str] = set()
        ids: dict[int, str] = {}
        colors: dict[Color, str] = {}
        for entry in self.classes:
            if entry.name in names:
                raise UserError(f"two classes are named {entry.name!r}; rename one.")
            names.add(entry.name)
            if (other := ids.setdefault(entry.id, entry.name)) != entry.name:
                raise UserError(f"classes {other!r} and {entry.name!r} have the same id {entry.id}; change one.")
            if (other := colors.setdefault(entry.color, entry.name)) != entry.name:
                shared = hex_color(entry.color)
                raise UserError(f"classes {other!r} and {entry.name!r} have the same colour {shared}; change one.")
        if background is not None and background not in self.names:  # it may be of any type, also one without a hash
            raise UserError(f"the background {background!r} is no class; choose one of {', '.join(self.names)}.")

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self.classes]

    @property
    def colors(self) -> NDArray[np.uint8]:
        """uint8 [K, 3], one row for each class."""
        return np.array([entry.color for entry in self.classes], dtype=np.uint8)

    @property
    def ignore_color(self) -> Color:
        """The colour of ignored pixels: the first of white, black, magenta and all grays that no class has."""
        taken = {entry.color for entry in self.classes}
        grays = [(level, level, level) for level in range(256)]
        # There are at most 255 classes and more candidates, so one is always free.
        return next(color for color in [(255, 255, 255), (0, 0, 0), (255, 0, 255), *grays] if color not in taken)

    @property
    def background_index(self) -> int | None:
        """The position of the background class; None without one."""
        return None if self.background is None else self.index(self.background)

    def __len__(self) -> int:
        return len(self.classes)

    def index(self, name: str) -> int:
        """The position of a class in the table, which is also its channel and its value in masks.

        Raises:
            UserError: no class has that name.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise UserError(f"there is no class {name!r}; the classes are {', '.join(self.names)}.") from None

    def colorize(self, mask: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """A mask in the class colours: integer [H, W] of positions to uint8 [H, W, 3]; 255 becomes `ignore_color`.

        Raises:
            ValueError: a value that is neither a position in the table nor 255.
        """
        colors = np.zeros((256, 3), dtype=np.uint8)
        colors[: len(self)] = self.colors
        colors[IGNORE] = self.ignore_color
        return colors[self.checked(mask)]

    def checked(self, mask: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """The mask as uint8; raises ValueError if it holds anything but positions 0..K-1 and 255."""
        mask = np.asarray(mask)
        if mask.dtype.kind not in "iu":
            raise ValueError(f"a mask holds integers, not {mask.dtype}.")
        if mask.size and (mask.min() < 0 or mask.max() >= len(self)):  # else saves three arrays as large as the mask
            wrong = ((mask < 0) | (mask >= len(self))) & (mask != IGNORE)
            if wrong.any():
                raise ValueError(f"the mask holds {mask[wrong][0]}, but there are {len(self)} classes (and {IGNORE}).")
        return mask.astype(np.uint8, copy=False)

    def to_dict(self) -> dict[str, Any]:
        """The table as plain data, as a checkpoint stores it."""
        return {
            "classes": [{"id": c.id, "name": c.name, "color": list(c.color)} for c in self.classes],
            "background": self.background,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ClassTable":
        """The inverse of `to_dict`.

        Raises:
            UserError: the classes are not a valid table.
        """
        classes = [LabelClass(entry["id"], entry["name"], entry["color"]) for entry in data["classes"]]
        return cls(classes, data.get("background"))
