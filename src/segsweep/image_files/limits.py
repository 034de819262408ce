"""Limits on pixels and on what is decoded at once, and work on many files in threads."""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

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


Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Cores that this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None, at_once: int | None = None
) -> Iterator[Result]:
    """`map(function, items)` in threads, in order.

    Memory stays bounded however many items there are: at most `at_once` results are being made or wait to be taken.

    Args:
        function: what to do with an item; its exception is raised when its result is due.
        items: what to work on.
        workers: threads; None means one per core.
        at_once: None means four a thread.
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
