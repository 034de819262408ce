"""Reads regular files only, writes them completely or not at all, and tells which process writes them."""

import contextlib
import errno
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8,32}\.tmp")
"""Names of files that `write_whole` and `plots.save` have not renamed yet."""


def is_first_process() -> bool:
    """Whether this process writes the files of a run: ddp starts its other processes with a rank above 0."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path beside `path`, then renames the file.

    A reader finds the old file or the complete new one, even after a crash.

    Raises:
        OSError: the file could not be written; names `path`, which is unchanged.
    """
    # Only the first 50 letters: a name may have 255 bytes, and a letter takes up to four.
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            # The error names no file or the temporary one.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def remove_litter(folder: Path) -> None:
    """Removes the temporary files of killed processes; whoever calls it holds the lock of the directory."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if _TEMPORARY.fullmatch(path.name):
                path.unlink()


def open_file(path: Path) -> BinaryIO:
    """Opens a file of a run or sweep for reading.

    Raises:
        OSError: it cannot be opened, or is a pipe, socket or device: these would block or never end.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # `open` itself refuses a folder
        raise OSError(errno.EINVAL, "is a pipe, socket or device, not a file", str(path))
    return path.open("rb")


def read_text(path: Path, largest: int) -> str:
    """Reads a text file in UTF-8.

    Raises:
        OSError: it cannot be read.
        ValueError: it has more than `largest` bytes, or is not text; the message does not name the file.
    """
    with open_file(path) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it has more than {largest >> 20} MiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is not text") from None


def write_text(path: Path, text: str) -> None:
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes plain data as JSON. A number that is not finite becomes null, since JSON has no NaN.

    Bytes of file names that are no text, which Python keeps as surrogates, are escaped; reading gives them back.
    """
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
