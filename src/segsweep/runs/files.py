"""Files that are written whole or not at all."""

import json
import math
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Has `write` make a file under a temporary name beside `path`, then renames it.

    A reader, and whoever comes after a crash, finds the old file or the new one, never a part.

    Raises:
        OSError: it could not be written; names `path`, which is as it was.
    """
    # Of a long name a part, so that what is added still fits: names end at 255 bytes, of which a letter may take four.
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            # A failed write does not say of which file, and nobody knows the temporary name.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def read_text(path: Path, largest: int) -> str:
    """A text file in UTF-8.

    Raises:
        OSError: it cannot be read.
        ValueError: it has more than `largest` bytes, or is no text; says so without naming it.
    """
    with path.open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it has more than {largest >> 20} MiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is no text") from None


def write_text(path: Path, text: str) -> None:
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes plain data as JSON. A number that is not finite becomes null: JSON has no NaN, and readers choke on it."""
    write_text(path, json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
