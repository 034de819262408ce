"""Colours as people write them, as tables hold them, and as one number a pixel."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segsweep.errors import UserError

Color = tuple[int, int, int]
"""Red, green, blue, each 0..255."""

_HEX = re.compile(r"#?([0-9a-fA-F]{6})")


def is_hex(text: str) -> bool:
    """Whether the text reads as `#RRGGBB`; the `#` may be missing."""
    return _HEX.fullmatch(text.strip()) is not None


def whole_number(value: Any) -> int | None:
    """The integer that a number or a text such as `60`, ` 60 ` or `60.0` stands for, or None."""
    if isinstance(value, bool):  # True is an int to Python, and `yes` is True to YAML
        return None
    try:
        number = float(value)
        return int(number) if number == int(number) else None
    except (TypeError, ValueError, OverflowError):
        return None


def parse_color(value: Any) -> Color:
    """A colour from `[r, g, b]` or `'#RRGGBB'`.

    Raises:
        UserError: neither of the two, or a component that is not a whole number in 0..255.
    """
    if isinstance(value, str):
        match = _HEX.fullmatch(value.strip())
        if match is None:
            raise UserError(f"{value!r} is no colour; write it as '#RRGGBB' or [r, g, b].")
        red, green, blue = bytes.fromhex(match.group(1))
        return red, green, blue
    try:
        components = list(value)
    except TypeError:
        components = []
    if len(components) != 3:
        raise UserError(f"{value!r} is no colour; write it as '#RRGGBB' (in quotes) or [r, g, b].")
    numbers = [whole_number(component) for component in components]
    for component, number in zip(components, numbers, strict=True):
        if number is None or not 0 <= number <= 255:
            raise UserError(f"{component!r} is no colour value; red, green and blue are whole numbers in 0..255.")
    return numbers[0], numbers[1], numbers[2]  # type: ignore[return-value]  # None was refused above


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
