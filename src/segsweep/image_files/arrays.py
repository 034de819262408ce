"""Arrays in .npy files: their header, and their values. Nothing in them is unpickled or mapped."""

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from segsweep import opening
from segsweep.errors import UserError


def is_npy(path: Path) -> bool:
    """Whether a file is a NumPy array by its first bytes, or by its name."""
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
            raise UserError(
                f"{path}: is damaged or cut short ({_one_line(error)}); copy it again or remove it"
            ) from error
    return array.astype(dtype.newbyteorder("="), copy=False)


def _header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = npy.read_magic(file)
        # Versions above 2.0 are for names of fields that are not Latin; an image has no fields.
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, _, dtype = read(file)
    except Exception as error:  # of a broken header, among others tokenize.TokenError and SyntaxError
        raise UserError(f"{path}: is not a whole .npy array of numbers ({_one_line(error)}); save it again") from error
    if dtype.hasobject or dtype.kind not in "biuf":
        raise UserError(f"{path}: holds values of type {dtype}; save an array of numbers")
    if 0 in shape:
        raise UserError(f"{path}: has the shape {list(shape)}, so no pixel; replace it or remove it")
    # In Python's integers: a product of declared sizes may not fit into others.
    values = 1
    for size in shape:
        values *= size
    # A file with holes takes no room on disk, but would in memory.
    if values * dtype.itemsize > opening.MAX_BYTES:
        raise UserError(
            f"{path}: is too large, it declares the shape {list(shape)} of {dtype}, more than"
            f" {opening.MAX_BYTES / 1e9:g} GB; cut it into tiles"
        )
    if os.fstat(file.fileno()).st_size < file.tell() + values * dtype.itemsize:
        raise UserError(f"{path}: is damaged or cut short (it is not a whole array); copy it again or remove it")
    return tuple(shape), dtype


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
