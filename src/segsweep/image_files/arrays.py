"""Arrays in .npy files: their header, and their values. Nothing in them is unpickled or mapped."""

import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from segsweep.errors import UserError
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
