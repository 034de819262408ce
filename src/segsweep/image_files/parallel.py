"""Work on many files at once, in threads: image decoders let go of Python's lock."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

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
