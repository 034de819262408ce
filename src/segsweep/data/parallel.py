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
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Iterator[Result]:
    """`map(function, items)` in threads, in order.

    At most four results a thread wait to be taken, so memory stays bounded however many items there are.

    Args:
        function: what to do with an item; its exception is raised when its result is due.
        items: what to work on.
        workers: threads; None means one per core.
    """
    workers = available_cores() if workers is None else workers
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(max_workers=max(workers, 1)) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 4 * max(workers, 1):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
