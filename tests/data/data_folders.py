"""A data folder for tests, file by file."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from segsweep.classes import ClassTable, LabelClass
from segsweep.data.source import Split, sample_seed

LABELS = ClassTable(
    [LabelClass(0, "sand", (200, 180, 90)), LabelClass(1, "sea", (0, 80, 200)), LabelClass(2, "wood", (20, 120, 40))]
)


class Folder:
    """A data folder under construction."""

    labels = LABELS

    def __init__(self, root: Path) -> None:
        self.root = root

    def image(self, name: str, size: tuple[int, int] = (20, 24), seed: int | None = None, **options: Any) -> Path:
        """An RGB image of noise, different for each name."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = sum(name.encode()) * 1009 + len(name) if seed is None else seed
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, **options)
        return path

    def mask(self, name: str, size: tuple[int, int] = (20, 24), values: np.ndarray | int | None = None) -> Path:
        """A mask in the classes' colours, from class positions; None: stripes of all classes."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if values is None:
            values = np.add.outer(np.arange(size[0]), np.arange(size[1])) // 4 % len(LABELS)
        Image.fromarray(LABELS.colors[np.broadcast_to(values, size)]).save(path)
        return path

    def pair(self, name: str, size: tuple[int, int] = (20, 24), folder: str = "") -> None:
        self.image(f"{folder}images/{name}.png", size)
        self.mask(f"{folder}masks/{name}.png", size)

    def table(self) -> Path:
        path = self.root / "classes.csv"
        rows = [f"{entry.name},{','.join(map(str, entry.color))}" for entry in LABELS.classes]
        path.write_text("\n".join(["name,r,g,b", *rows]))
        return path


def generator(seed: int, split: Split, index: int) -> torch.Generator:
    """The generator of a sample's noise, on the CPU."""
    return torch.Generator().manual_seed(sample_seed(seed, split, index))


def png(path: Path, width: int, height: int, depth: int, colour: int, rows: bytes) -> Path:
    """A PNG of any colour type and depth, including those that Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path
