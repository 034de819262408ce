"""Read .npy files without pickles or memory mapping, and scale values of more than 8 bits to uint8.

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

from segsweep.errors import UserError, one_line, shown
from segsweep.image_files import limits
from segsweep.image_files.limits import require_file, too_large


def is_npy(path: Path) -> bool:
    """Whether the first bytes or the suffix of a file are those of a .npy file.

    Raises:
        UserError: the file is missing, a folder or device, empty, or not readable.
    """
    require_file(path)
    with path.open("rb") as file:
        return file.read(6) == npy.MAGIC_PREFIX or path.suffix.lower() == ".npy"


def npy_header(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array, without reading its values.

    Raises:
        UserError: the file is no complete array of numbers, or has no values or more than the limits allow.
    """
    with path.open("rb") as file:
        return _checked_header(path, file)


def read_npy(path: Path) -> NDArray[Any]:
    """The array, in the machine's byte order.

    Raises:
        UserError: as `npy_header`.
    """
    with path.open("rb") as file:
        _, dtype = _checked_header(path, file)
        file.seek(0)
        try:
            array = npy.read_array(file, allow_pickle=False)
        except (ValueError, OSError) as error:
            raise _not_whole(path, error) from error
    return array.astype(dtype.newbyteorder("="), copy=False)


def _checked_header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = npy.read_magic(file)
        # Later versions are for non-Latin field names, and an image has no fields.
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, _, dtype = read(file)
    except Exception as error:  # a broken header raises anything, such as tokenize.TokenError or SyntaxError
        file.seek(0)
        raise _not_whole(path, "it is an archive of several arrays" if file.read(2) == b"PK" else error) from error
    if dtype.hasobject or dtype.kind not in "biuf":
        raise _not_whole(path, f"it holds values of type {dtype}")
    if 0 in shape:
        raise UserError(f"{path}: has the shape {list(shape)} and so no pixel; replace it or remove it")
    size = math.prod(shape) * dtype.itemsize
    if os.fstat(file.fileno()).st_size < file.tell() + size:
        raise _not_whole(path, "it is cut short")
    # A sparse file takes no space on disk, but would in memory.
    pixels = math.prod(shape) // (min(shape) if len(shape) == 3 else 1)
    if pixels > limits.MAX_PIXELS or size > limits.MAX_BYTES:
        raise too_large(path, f"the shape {list(shape)} of {dtype}")
    return tuple(shape), dtype


def _not_whole(path: Path, reason: BaseException | str) -> UserError:
    return UserError(f"{path}: is not a whole .npy array of numbers ({one_line(reason).rstrip('.')}); save it again")


FULL = 65535
"""The value that becomes white in 16-bit files without data.white."""
_BLOCK = 1 << 20
"""Pixels scaled at a time: scaling takes several times 8 bytes per pixel."""


def to_uint8(
    path: Path, values: NDArray[Any], bands: Sequence[int], white: float | None, full: int | None = None
) -> tuple[NDArray[np.uint8], float | None]:
    """Bands of a file as uint8 channels, scaled so that 0 stays 0 and `white` becomes 255.

    Args:
        path: the file, for errors.
        values: [H, W, N]; uint8 values are not scaled.
        bands: the indices of C bands, in order.
        white: the value that becomes 255; None if the user gave none.
        full: the default of `white`; None: 65535 for uint16, and an error for other types.

    Returns:
        uint8 [C, H, W], and the largest value; None instead of the value if the file is uint8.

    Raises:
        UserError: a value is NaN, infinite, negative or above `white`, or `white` is needed but missing.
    """
    height, width, _ = values.shape
    if values.dtype == np.uint8:
        return np.stack([values[..., band] for band in bands]), None
    if values.dtype.kind not in "iuf":
        raise UserError(f"{path}: holds values of type {values.dtype}; save it as uint8, uint16 or float32")
    low, high = value_range(path, values, bands)
    if white is None:
        white = full or (FULL if values.dtype == np.uint16 else None)
    if white is None:
        raise UserError(
            f"{path}: holds values of type {values.dtype}, from {low:g} to {high:g}; give the value of white, as in"
            f" data.white={_format(high if high > 0 else 1)}"
        )
    if low < 0 or high > white:
        beyond = "set data.white to the largest value in all files" if low >= 0 else "save it without negative values"
        raise UserError(
            f"{path}: has values from {_format(low)} to {_format(high)}, but data.white={_format(white)}; {beyond}"
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


def value_range(path: Path, values: NDArray[Any], bands: Sequence[int]) -> tuple[float, float]:
    """Smallest and largest value of some bands of [H, W, N]; raises UserError if one is NaN or infinite."""
    chosen = [values[..., band] for band in sorted(set(bands))]
    # NumPy's min and max return NaN if there is one; Python's may not.
    low, high = float(np.min([band.min() for band in chosen])), float(np.max([band.max() for band in chosen]))
    if not np.isfinite([low, high]).all():
        strange = sum(int(band.size - np.count_nonzero(np.isfinite(band))) for band in chosen)
        raise UserError(
            f"{path}: has {strange:,} values that are NaN or infinite; replace them by numbers, and mark these pixels as"
            " ignored in the mask"
        )
    return low, high


class Brightest:
    """Finds the brightest value in all files of more than 8 bits, and warns if `data.white` is probably wrong.

    Args:
        white: `data.white`; None if the user gave none.
    """

    def __init__(self, white: float | None) -> None:
        self._may_warn = white is None
        self._top, self._path, self._files = -1.0, Path(), 0
        self._reduced: Path | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def add(self, path: Path, top: float | None, mode: str) -> None:
        """Add a file with its largest value, None for 8-bit files, and its mode. Thread-safe."""
        if top is None:
            return
        with self._lock:
            self._files += 1
            # Pillow reduces 16-bit colour to 8 bits, except that plain RGB TIFF is read without Pillow if white is set.
            reduced = mode.endswith(";16") and not mode.startswith("I") and not (_is_tiff(path) and mode == "RGB;16")
            if reduced and (self._reduced is None or path < self._reduced):
                self._reduced = path
            # Among equally bright files take the first by name, so that the threads' order does not matter.
            if top > self._top or (top == self._top and path < self._path):
                self._top, self._path = top, path

    def doubt(self) -> str | None:
        """A warning if `data.white` is probably wrong; None if it is not, or if the warning was given before."""
        # Cameras of 8 to 14 bits store their values unscaled in 16-bit files, so no pixel of any file reaches the upper
        # three quarters. A single dark image proves nothing, and a data.white that the user set is not questioned.
        bits = next((bits for bits in (8, 10, 12, 14) if self._top < 1 << bits), None)
        if not self._may_warn or not self._files or bits is None:
            return None
        self._may_warn = False
        white = f"set data.white={(1 << bits) - 1}"
        if self._reduced is not None and _is_tiff(self._reduced):
            white += " and 'data.bands=[0,1,2]'"  # its fourth band is transparency
        elif self._reduced is not None:
            white = f"save 16-bit colour such as {shown(self._reduced)} as TIFF and {white}"
        return (
            f"{shown(self._path)}: its brightest value of 16 bits becomes {self._top * 255 / FULL:.0f} of 255, and of"
            f" {self._files} such files none is brighter: {white} if the camera has {bits} bits,"
            f" or data.white={FULL} if the images really are that dark"
        )


def _is_tiff(path: Path) -> bool:
    return path.suffix.lower() in (".tif", ".tiff")


def _format(value: float) -> str:
    return f"{int(value)}" if value == int(value) else f"{value:.7g}"
