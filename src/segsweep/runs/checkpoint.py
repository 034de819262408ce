"""Reads checkpoint files, which are untrusted: gives plain data, or an error of one line."""

import itertools
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segsweep.errors import UserError
from segsweep.runs.files import open_file

LARGEST_STRUCTURE = 4 << 20
"""Bytes of the pickle in a checkpoint, which is everything except the tensors; a net of 13,681 weights has 14 thousand."""

LARGEST_DIRECTORY = 16 << 20
"""Bytes of the list of parts in a checkpoint, which is a zip archive."""

# torch's weights_only reader allows more, and a small file could then ask for any amount of memory: bytearray(10**12).
_ALLOWED = {"collections OrderedDict", "torch Size", "torch device", "torch._utils _rebuild_tensor_v2"} | {
    f"torch._utils _rebuild_{kind}" for kind in ("parameter", "parameter_with_state")
}
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int8, torch.int16,
           torch.int32, torch.int64, torch.bool)  # fmt: skip
_ALLOWED |= {f"torch {str(dtype).removeprefix('torch.')}" for dtype in _DTYPES}
_ALLOWED |= {
    f"torch {name}Storage"
    for name in ("Float", "Double", "Half", "BFloat16", "Byte", "Char", "Short", "Int", "Long", "Bool")
}

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")


def read_checkpoint(path: Path) -> dict[Any, Any]:
    """Reads a file that torch saved: dicts, lists, strings, numbers and tensors, which are mapped from the file.

    No code runs, nothing that the file names is imported, and memory does not depend on what the file declares: tensors
    must lie in the file itself, uncompressed, and are read when they are used.

    Raises:
        UserError: there is no such file, it is damaged, or it holds more than plain data; names the file.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder; give a checkpoint in it, such as checkpoints/best.ckpt")
        if not path.exists():
            raise UserError(f"{path}: there is no such file")
        _check_start(path)
        try:
            foreign = _foreign(_read_pickle(path))
        except UserError:
            raise
        except Exception as error:  # zipfile and pickletools raise anything for broken bytes
            raise _unreadable(path, "it is cut short or damaged", "copy it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if foreign is not None:
        raise _unreadable(
            path, f"it holds more than plain data, {foreign}", "if you trust it, save its state_dict() alone"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a strange file is either an error or harmless
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises anything for a file that only looks like a checkpoint
        raise _unreadable(path, "it is damaged", "copy it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a checkpoint of segsweep; it holds a {type(content).__name__}")
    return content


def _unreadable(path: Path, reason: str, remedy: str) -> UserError:
    return UserError(f"{path}: cannot be read as a checkpoint of plain data: {reason}; {remedy}")


def _check_start(path: Path) -> None:
    """Refuses files that are not zip archives, by their first bytes."""
    with open_file(path) as file:
        start = file.read(64)
    if not start:
        raise _unreadable(path, "it is empty (0 bytes)", "copy it again")
    if start.startswith(b"version https://git-lfs"):
        raise _unreadable(path, "it is a Git LFS pointer, not the checkpoint", "fetch it with git lfs pull")
    if start.startswith(b"\x80"):
        reason = "it is a pickle, or in the format of torch before 1.6, and neither is opened"
        raise _unreadable(path, reason, "if you trust it, load it with torch and save its state_dict() anew")
    if not start.startswith(b"PK\x03\x04"):
        raise _unreadable(path, "torch did not save it", "give a .ckpt file of a run")


def _read_pickle(path: Path) -> bytes:
    """The pickle in a checkpoint, after checking that its parts lie in the file, whole and uncompressed."""
    size = path.stat().st_size
    _check_directory(path, size)
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED or part.compress_size != part.file_size for part in parts):
            raise _unreadable(path, "its parts are compressed, which torch never does", "save it anew with torch")
        if sum(part.file_size for part in parts) > size:
            raise _unreadable(path, "its parts are larger than the file", "copy it again")
        pickles = [part for part in parts if part.filename.endswith(".pkl")]
        if len(pickles) != 1 or pickles[0].filename.rpartition("/")[2] != "data.pkl":
            raise _unreadable(path, "torch.save did not write it", "give a .ckpt file of a run")
        if pickles[0].file_size > LARGEST_STRUCTURE:
            reason = f"it has more than {LARGEST_STRUCTURE >> 20} MiB beside its tensors"
            raise _unreadable(path, reason, "give a .ckpt file of a run")
        return archive.read(pickles[0])


def _check_directory(path: Path, size: int) -> None:
    """Refuses a list of parts that takes much memory, or that two programs could read differently."""
    with path.open("rb") as file:
        file.seek(size - _END.size)
        signature, _, _, _, _, length, offset, comment = _END.unpack(file.read(_END.size))
        if signature != b"PK\x05\x06" or comment:
            raise ValueError("the end of the archive is not the end of the file")
        end = size - _END.size - _LOCATOR_64.size
        if end >= 0:
            file.seek(end)
            locator, _, at, _ = _LOCATOR_64.unpack(file.read(_LOCATOR_64.size))
            if locator == b"PK\x06\x07":
                file.seek(at)
                signature, *_, length, offset = _END_64.unpack(file.read(_END_64.size))
                if signature != b"PK\x06\x06":
                    raise ValueError("the end of the archive is damaged")
    if length > LARGEST_DIRECTORY or offset + length > size:
        raise ValueError("the list of parts is damaged")


def _foreign(structure: bytes) -> str | None:
    """A phrase on the first thing in a pickle that is neither a tensor nor plain data; None if there is nothing."""
    for opcode, argument, _ in pickletools.genops(structure):
        if opcode.name == "GLOBAL" and argument not in _ALLOWED:
            return f"it asks for {str(argument).replace(' ', '.')}"
        if opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX", "BUILD_BUFFER"):
            return "it builds objects"
    return None


def require_plain(value: Any, nodes: int = 100_000, depth: int = 50, characters: int = 1 << 20) -> None:
    """Refuses anything but dicts, lists, strings, 64-bit numbers, booleans and None, and data beyond the limits.

    A value counts once for every place it is in: in a pickle, one list can be in a thousand places.

    Raises:
        ValueError: says what was found.
    """
    waiting = [(value, 0)]
    for count in itertools.count():
        if not waiting:
            return
        entry, level = waiting.pop()
        if count > nodes or level > depth:
            raise ValueError(f"more than {nodes:,} values, or more than {depth} levels")
        if isinstance(entry, str):
            characters -= len(entry)
            if characters < 0:
                raise ValueError("too much text")
        elif type(entry) in (dict, list, tuple):
            parts = [*entry.keys(), *entry.values()] if isinstance(entry, dict) else entry
            if len(parts) > nodes:
                raise ValueError(f"more than {nodes:,} values")
            waiting += [(part, level + 1) for part in parts]
        elif type(entry) is int:
            if not -(1 << 63) <= entry < 1 << 63:
                raise ValueError("an integer beyond 64 bits")
        elif entry is not None and type(entry) not in (bool, float):
            raise ValueError(f"a {type(entry).__name__}, which is not plain data")


def require_tensors(entries: Any) -> dict[str, Tensor]:
    """Refuses anything but a dict of named tensors in the memory of the CPU.

    Raises:
        ValueError: says what was found.
    """
    if not isinstance(entries, Mapping) or not entries:
        raise ValueError("no table of weights")
    for name, value in entries.items():
        if not isinstance(name, str):
            raise ValueError(f"a weight with a {type(name).__name__} as its name")
        if not isinstance(value, Tensor) or value.layout is not torch.strided or value.device.type != "cpu":
            raise ValueError(f"{name} is not a tensor of weights")
    return dict(entries)


def require_finite(weights: Mapping[str, Tensor]) -> None:
    """Refuses weights that are NaN or infinite: of a diverged training, which predicts nothing.

    Raises:
        ValueError: names the first such weight.
    """
    for name, weight in weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise ValueError(f"{name} has values that are NaN or infinite")


def require_stored(value: Any) -> None:
    """Refuses tensors that would take more memory than they have in the file: a view of one number can have any shape.

    Raises:
        ValueError: there is such a tensor.
    """
    waiting, seen = [value], set()
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, Tensor):
            if entry.numel() * entry.element_size() > entry.untyped_storage().nbytes():
                raise ValueError(f"a tensor of the shape {list(entry.shape)} is larger than its data")
        elif isinstance(entry, dict | list | tuple) and id(entry) not in seen:  # one list can be in a thousand places
            seen.add(id(entry))
            waiting += entry.values() if isinstance(entry, dict) else entry
