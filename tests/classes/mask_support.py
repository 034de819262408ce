"""A class table, small mask files and refusals that the mask tests share."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segsweep.classes import ClassTable, LabelClass, MaskRule, read_mask
from segsweep.errors import UserError

LABELS = ClassTable(
    [
        LabelClass(0, "Building", (0x3C, 0x10, 0x98)),
        LabelClass(1, "Land", (0x84, 0x29, 0xF6)),
        LabelClass(2, "Road", (0x6E, 0xC1, 0xE4)),
    ]
)


def refusal(path: Path, rule: MaskRule | None = None, labels: ClassTable = LABELS) -> str:
    """The message with which `read_mask` refuses a file: one line that begins with the file, returned without it."""
    with pytest.raises(UserError) as caught:
        read_mask(path, labels, rule)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def assert_says(message: str, *parts: str) -> None:
    """All parts are in the message, in this order."""
    at = 0
    for part in parts:
        found = message.find(part, at)
        assert found >= 0, f"{part!r} is not in {message[at:]!r}"
        at = found + len(part)


def palette_image(values: list[int], palette: list[tuple[int, int, int]]) -> Image.Image:
    image = Image.fromarray(np.array([values], dtype=np.uint8))
    image.putpalette(np.array(palette, dtype=np.uint8).tobytes())
    return image


def png(width: int, height: int, depth: int, color_type: int, rows: bytes) -> bytes:
    """A PNG made by hand, for bit depths and sizes that Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
