"""Limits on the size of files and on pixels decoded at once, errors for bad files, and a map over files in threads."""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from segsweep.errors import UserError, one_line

MAX_PIXELS = 500_000_000
"""Height times width of the largest image or mask that is read; 20,000 x 20,000 pixels fit."""
MAX_BYTES = 8 * MAX_PIXELS
"""Largest size of an image's values, in bytes: MAX_PIXELS in four bands of 16 bits."""


def require_file(path: Path) -> None:
    """Check that a path is a file that can be read.

    Raises:
        UserError: the file is missing, a folder or device, empty, or not readable.
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
        raise UserError(f"{path}: cannot be opened ({one_line(error).rstrip('.')})") from error


def too_large(path: Path, declared: str = "") -> UserError:
    """The error for a file above the limits; `declared` is the size in its header, if known."""
    return UserError(
        f"{path}: is too large, it declares {f'{declared}, ' if declared else ''}more than {MAX_PIXELS:,} pixels or"
        f" {MAX_BYTES / 1e9:g} GB; cut it into tiles, or remove it if it is not what you expect"
    )


def damaged(path: Path, reason: BaseException | str) -> UserError:
    """The error for a file that its decoder cannot read."""
    return UserError(f"{path}: is damaged or cut short ({one_line(reason).rstrip('.')}); copy it again or remove it")


class DecodeBudget:
    """Limits how many pixels several threads decode at the same time.

    Args:
        size: total pixels. A larger image is decoded alone.
    """

    def __init__(self, size: int) -> None:
        self._free = self._size = size
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Wait until so many pixels are free, and reserve them until the end of the block."""
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
"""Shared by all decoding threads, so several large images never take more memory than one of the largest size."""


Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Cores that this process may use; the machine may have more."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None, at_once: int | None = None
) -> Iterator[Result]:
    """`map(function, items)` in threads, in order, for any number of items in bounded memory.

    Args:
        function: called with each item; its exception is raised in place of the result.
        items: read only as far as needed.
        workers: threads; None: one per core.
        at_once: most results that are computed or wait to be taken at any time; None: four per thread.
    """
    workers = max(available_cores() if workers is None else workers, 1)
    at_once = max(4 * workers if at_once is None else at_once, 1)
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(max_workers=min(workers, at_once)) as pool:
        try:
            for item in items:
                if len(waiting) >= at_once:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(function, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
