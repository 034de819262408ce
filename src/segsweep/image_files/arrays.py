"""Arrays of numbers as images: .npy files, of which nothing is unpickled or mapped, and values of more than 8 bits.

Shapes: C channels, N bands, H x W pixels.
"""

import math
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from segsweep.errors import UserError, shown
from segsweep.image_files import limits
from segsweep.image_files.limits import one_line, require_file, too_large


def is_npy(path: Path) -> bool:
    """Whether a file is a NumPy array by its first bytes, or by its name.

    Raises:
        UserError: there is no file that can be read.
    """
    require_file(path)
    with path.open("rb") as file:
        return file.read(6) == npy.MAGIC_PREFIX or path.suffix.lower() == ".npy"


def npy_header(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array, without reading its values.

    Raises:
        UserError: it is no whole array of numbers, has no value, or more than the limits allow.
    """
    with path.open("rb") as file:
        return _header(path, file)


def read_npy(path: Path) -> NDArray[Any]:
    """The array, in the machine's byte order.

    Raises:
        UserError: as `npy_header`.
    """
    with path.open("rb") as file:
        _, dtype = _header(path, file)
        file.seek(0)
        try:
            array = npy.read_array(file, allow_pickle=False)
        except (ValueError, OSError) as error:
            raise _not_whole(path, error) from error
    return array.astype(dtype.newbyteorder("="), copy=False)


def _header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = npy.read_magic(file)
        # Versions above 2.0 are for names of fields that are not Latin; an image has no fields.
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, _, dtype = read(file)
    except Exception as error:  # of a broken header, among others tokenize.TokenError and SyntaxError
        file.seek(0)
        raise _not_whole(path, "it is an archive of several arrays" if file.read(2) == b"PK" else error) from error
    if dtype.hasobject or dtype.kind not in "biuf":
        raise _not_whole(path, f"it holds values of type {dtype}")
    if 0 in shape:
        raise UserError(f"{path}: has the shape {list(shape)}, so no pixel; replace it or remove it")
    size = math.prod(shape) * dtype.itemsize
    if os.fstat(file.fileno()).st_size < file.tell() + size:
        raise _not_whole(path, "it is cut short")
    # A file with holes takes no room on disk, but would in memory.
    pixels = math.prod(shape) // (min(shape) if len(shape) == 3 else 1)
    if pixels > limits.MAX_PIXELS or size > limits.MAX_BYTES:
        raise too_large(path, f"the shape {list(shape)} of {dtype}")
    return tuple(shape), dtype


def _not_whole(path: Path, reason: BaseException | str) -> UserError:
    return UserError(f"{path}: is not a whole .npy array of numbers ({one_line(reason)}); save it again")


FULL = 65535
"""What becomes white in a 16-bit file where data.white is not given."""
_BLOCK = 1 << 20
"""Pixels that are scaled at a time: scaling takes several numbers of 8 bytes each."""


def to_uint8(
    path: Path, values: NDArray[Any], bands: Sequence[int], white: float | None, full: int | None = None
) -> tuple[NDArray[np.uint8], float | None]:
    """Bands of a file as uint8 channels; `white` becomes 255, and 0 stays 0.

    Args:
        path: of the file, for errors.
        values: [H, W, N]; uint8 values are taken as they are.
        bands: which of them, in order, C in all.
        white: the value that becomes 255; None where the user gave none.
        full: what `white` is then; None: 65535 for uint16, and an error for anything else.

    Returns:
        uint8 [C, H, W], and the largest value; None of a file of bytes.

    Raises:
        UserError: a value is NaN, infinite, negative or above `white`, or white is not given and must be.
    """
    height, width, _ = values.shape
    if values.dtype == np.uint8:
        return np.stack([values[..., band] for band in bands]), None
    if values.dtype.kind not in "iuf":
        raise UserError(f"{path}: holds values of type {values.dtype}; save it as uint8, uint16 or float32")
    low, high = _extremes(path, values, bands)
    if white is None:
        white = full or (FULL if values.dtype == np.uint16 else None)
    if white is None:
        raise UserError(
            f"{path}: holds values of type {values.dtype}, from {low:g} to {high:g}; say with data.white which of them is"
            f" white, as in data.white={_typed(high if high > 0 else 1)}"
        )
    if low < 0 or high > white:
        beyond = "set data.white to the largest value in all files" if low >= 0 else "save it without negative values"
        raise UserError(
            f"{path}: has values from {_typed(low)} to {_typed(high)}, but data.white={_typed(white)}; {beyond}"
        )
    pixels = np.empty((len(bands), height, width), dtype=np.uint8)
    rows = max(1, _BLOCK // width)
    for channel, band in enumerate(bands):
        for top in range(0, height, rows):
            block = values[top : top + rows, :, band]
            if values.dtype.kind == "f" or white != int(white):
                pixels[channel, top : top + rows] = np.floor(block.astype(np.float64) * (255 / white) + 0.5)
            else:
                whole = int(white)
                pixels[channel, top : top + rows] = (block.astype(np.uint64) * 255 + whole // 2) // whole
    return pixels, high


def _extremes(path: Path, values: NDArray[Any], bands: Sequence[int]) -> tuple[float, float]:
    chosen = [values[..., band] for band in sorted(set(bands))]
    # By NumPy, in which NaN is the smallest and the largest value; Python's min and max may pass over it.
    low, high = float(np.min([band.min() for band in chosen])), float(np.max([band.max() for band in chosen]))
    if not np.isfinite([low, high]).all():
        strange = sum(int(band.size - np.count_nonzero(np.isfinite(band))) for band in chosen)
        raise UserError(
            f"{path}: has {strange:,} values that are NaN or infinite; save it with a number there, and have its mask"
            " ignore these pixels"
        )
    return low, high


class Brightest:
    """The brightest value in all files of more than 8 bits that a command reads, and whether it says that white is wrong.

    Args:
        white: `data.white`; None where the user gave none.
    """

    def __init__(self, white: float | None) -> None:
        self._judges = white is None
        self._top, self._path, self._files = -1.0, Path(), 0
        self._reduced: Path | None = None
        self._lock = threading.Lock()

    def add(self, path: Path, top: float | None, mode: str) -> None:
        """Notes the largest value of a file, which is None for 8-bit files, and its mode. Safe to call from any thread."""
        if top is None:
            return
        with self._lock:
            self._files += 1
            # Pillow reduces 16-bit colour to 8 bits. With data.white a TIFF of plain RGB is read without Pillow.
            reduced = mode.endswith(";16") and not mode.startswith("I") and not (_is_tiff(path) and mode == "RGB;16")
            if reduced and (self._reduced is None or path < self._reduced):
                self._reduced = path
            # Of equally bright files the first by name, whichever thread is faster.
            if top > self._top or (top == self._top and path < self._path):
                self._top, self._path = top, path

    def doubt(self) -> str | None:
        """Once, why `data.white` is likely to be wrong; None where it is not, or was said before."""
        # Cameras of 8 to 14 bits store their numbers as they are in files of 16, and then no pixel of any file reaches the
        # upper three quarters. One dark image among others says nothing, and who has given data.white is not asked again.
        bits = next((bits for bits in (8, 10, 12, 14) if self._top < 1 << bits), None)
        if not self._judges or not self._files or bits is None:
            return None
        self._judges = False
        white = f"set data.white={(1 << bits) - 1}"
        if self._reduced is not None and _is_tiff(self._reduced):
            white += " and data.bands=[0,1,2]"  # its fourth band is transparency
        elif self._reduced is not None:
            white = f"save 16-bit colour such as {shown(self._reduced)} as TIFF and {white}"
        return (
            f"{shown(self._path)}: its brightest value of 16 bits becomes {self._top * 255 / FULL:.0f} of 255, and of"
            f" {self._files} such files none is brighter: {white} if the camera gives {bits} bits,"
            f" or data.white={FULL} if they are as dark as that"
        )


def _is_tiff(path: Path) -> bool:
    return path.suffix.lower() in (".tif", ".tiff")


def _typed(value: float) -> str:
    return f"{int(value)}" if value == int(value) else f"{value:.7g}"
