"""How large a file's image may be, how much is decoded at once, and whether there is a file at all."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from segsweep.errors import UserError

MAX_PIXELS = 500_000_000
"""Height times width of the largest image or mask that is read; an orthophoto of 20,000 x 20,000 fits."""
MAX_BYTES = 8 * MAX_PIXELS
"""What the values of all bands of an image may take; such an orthophoto of four bands of 16 bits fits."""


def require_file(path: Path) -> None:
    """Refuses what cannot be opened and read.

    Raises:
        UserError: there is no file, it is a folder or device, it is empty, or it may not be read.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such file")
    if not path.is_file():
        raise UserError(f"{path}: is a folder or device, not a file")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty (0 bytes); copy it again or remove it")
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({one_line(error)})") from error


def too_large(path: Path, declared: str = "") -> UserError:
    """The error for a file that declares more than the limits; `declared` says what, where that helps."""
    return UserError(
        f"{path}: is too large, it declares {f'{declared}, ' if declared else ''}more than {MAX_PIXELS:,} pixels or"
        f" {MAX_BYTES / 1e9:g} GB; cut it into tiles, or remove it if it is not what you expect"
    )


def damaged(path: Path, reason: BaseException | str) -> UserError:
    """The error for a file that broke its decoder."""
    return UserError(f"{path}: is damaged or cut short ({one_line(reason)}); copy it again or remove it")


def one_line(error: BaseException | str) -> str:
    """The error's text without line breaks, or its type where it has none."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


class DecodeBudget:
    """A number of pixels that threads may decode at the same time.

    Args:
        size: pixels in all. One image may be larger, and is then alone.
    """

    def __init__(self, size: int) -> None:
        self._free = self._size = size
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Waits until there is room for so many pixels, and keeps it until the end of the block."""
        pixels = min(pixels, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()


budget = DecodeBudget(MAX_PIXELS)
"""For whoever decodes images in several threads: many large ones then take the memory of the largest, not of all."""
