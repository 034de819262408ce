"""Constants and helpers of several tests."""

import dataclasses
import shlex
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent

# debug=fast, with smaller images and without the graph, which takes seconds to trace.
SMALL = [
    "debug=fast",
    "data.image_size=32",
    "callbacks.graph=null",
    "trainer.accelerator=cpu",
    "trainer.progress_bar=false",
]


@dataclasses.dataclass
class Outcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def error_lines(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.strip()]


Command = Callable[..., Outcome]

SENDERS = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM"}
"""How messages name a signal."""


def printed_arguments(stopped: Outcome) -> list[str]:
    """The arguments of the command that a stopped one printed last, as bash reads them."""
    before, _, typed = stopped.error_lines[-1].partition(f" with: python {ROOT / 'train.py'} ")
    assert before in ("continue", "start again"), stopped.err
    return shlex.split(typed)


def write_bmp(path: Path, values: np.ndarray, palette: list[tuple[int, int, int]], bits: int) -> None:
    """Writes a BMP whose palette has exactly these entries; Pillow writes only full palettes.

    Args:
        path: the file.
        values: palette indices, uint8 [H, W].
        palette: red, green and blue of each entry.
        bits: bits a pixel: 1, 4 or 8.
    """
    height, width = values.shape
    digits = np.unpackbits(values[::-1, :, None], axis=2)[..., 8 - bits :].reshape(height, -1)
    rows = np.pad(np.packbits(digits, axis=1), ((0, 0), (0, 3 * -(-width * bits // 8) % 4))).tobytes()
    colors = b"".join(bytes((blue, green, red, 0)) for red, green, blue in palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, len(rows), 0, 0, len(palette), 0)
    start = 14 + len(header) + len(colors)
    path.write_bytes(b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + colors + rows)
