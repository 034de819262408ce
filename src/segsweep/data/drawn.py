"""Image-mask pairs that are decoded when they are drawn, in threads ahead of the training step.

Shapes: a decoded pair is uint8 [C + 1, H, W]: the image's channels, then the mask.
"""

import math
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from segsweep.console import counted
from segsweep.data.pairs import Pair
from segsweep.errors import UserError
from segsweep.file_facts import FileVersion, file_version
from segsweep.image_files.limits import available_cores, parallel_map

Pixels = NDArray[np.uint8]
Shape = tuple[int, int, int]

AHEAD_BYTES = 2 << 30
"""Limit per split for pairs that are decoded ahead and wait to be stored or drawn; one pair may be larger."""
RECENT_BYTES = 256 << 20
"""Limit per split for pairs that are kept after they were drawn, for the next samples; one may be larger."""
TRIED, TRIED_BYTES = 32, 256 << 20
"""Most pairs, and about how many decoded bytes, that are decoded before training if the others are decoded when drawn."""


@dataclass(frozen=True)
class Item:
    """A pair, the shape [C + 1, H, W] of its pixels, and its two files' versions when the folder was listed."""

    pair: Pair
    shape: Shape
    versions: tuple[FileVersion, FileVersion]

    @classmethod
    def of(cls, pair: Pair, shape: Shape) -> "Item":
        """Raises UserError if a file was removed."""
        return cls(pair, shape, (file_version(pair.image), file_version(pair.mask)))

    @property
    def paths(self) -> tuple[Path, Path]:
        return self.pair.image, self.pair.mask

    @property
    def bytes(self) -> int:
        return math.prod(self.shape)

    def decoded(self, decode: Callable[[Pair], Pixels]) -> Pixels:
        """Decodes the pair.

        Raises:
            UserError: `decode` refuses a file, or a file was removed or has changed.
        """
        pixels = decode(self.pair)
        if pixels.shape != self.shape:
            raise UserError(f"{self.pair.image}: has changed since its size was read; start again")
        for path, version in zip(self.paths, self.versions, strict=True):
            if file_version(path)[:2] != version[:2]:  # a hard link, or other rights, change the ctime alone
                raise UserError(f"{path}: has changed since the folder was listed; start again")
        return pixels


def pairs_ahead(items: Sequence[Item]) -> int:
    """How many pairs may be decoded ahead, so that together they stay within `AHEAD_BYTES`."""
    largest = max((item.bytes for item in items), default=1)
    return max(1, min(4 * available_cores(), AHEAD_BYTES // max(largest, 1)))


def decode_all(items: Sequence[Item], decode: Callable[[Pair], Pixels]) -> Generator[Pixels, None, None]:
    """Decodes pairs in threads, in order, and shows how far it is."""
    pixels = parallel_map(lambda item: item.decoded(decode), items, at_once=pairs_ahead(items))
    return counted(pixels, "decoding images", len(items), "pairs")


class DrawnPairs(Sequence[Pixels]):
    """Decodes each pair when it is asked for. What it gives does not depend on the calls before.

    Args:
        items: the pairs.
        decode: decodes one; called in several threads. Must be picklable for workers that are not forked.
        kept: so many first pairs are kept in memory once they are decoded.
    """

    def __init__(self, items: Sequence[Item], decode: Callable[[Pair], Pixels], kept: int) -> None:
        self.items, self._decode, self._keep = items, decode, kept
        self._kept: dict[int, Pixels] = {}
        self._recent: dict[int, Pixels] = {}
        self._recent_bytes = 0
        self._ahead: dict[int, Future[Pixels]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def describe(self) -> str:
        """How much is decoded when it is drawn, in words."""
        gib = sum(item.bytes for item in self.items) / 2**30
        kept = f"; {self._keep:,} of them stay in memory" if self._keep else ""
        return f"{len(self.items):,} pairs ({gib:.1f} GiB) are decoded when they are drawn{kept}"

    def __getstate__(self) -> dict[str, Any]:
        # Threads cannot be sent to a worker.
        return vars(self) | {"_recent": {}, "_recent_bytes": 0, "_ahead": {}, "_pool": None}

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, place: int) -> Pixels: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Pixels]: ...
    def __getitem__(self, place: int | slice) -> Pixels | Sequence[Pixels]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(place)
        if (pixels := self._kept.get(place)) is not None:
            return pixels
        pixels = self._recent.pop(place, None)
        if pixels is not None:
            self._recent_bytes -= pixels.nbytes
        else:
            future = self._ahead.pop(place, None)
            # A forked worker has no copy of the parent's threads, and would wait for ever.
            mine = future is not None and self._process == os.getpid()
            pixels = future.result() if future is not None and mine else self.items[place].decoded(self._decode)
        if place < self._keep:
            self._kept[place] = pixels
        else:
            self._recent[place] = pixels  # at the end, as the latest
            self._recent_bytes += pixels.nbytes
            while len(self._recent) > 1 and self._recent_bytes > RECENT_BYTES:
                self._recent_bytes -= self._recent.pop(next(iter(self._recent))).nbytes
        return pixels

    def try_some(self) -> None:
        """Decodes some pairs at equal distances: most mistakes are in every file, and should end a run before it trains.

        Raises:
            UserError: one of them cannot be read.
        """
        mean = sum(item.bytes for item in self.items) / len(self.items)
        count = min(max(int(TRIED_BYTES / mean), 1), TRIED, len(self.items))
        items = [self.items[place * len(self.items) // count] for place in range(count)]
        for _ in decode_all(items, self._decode):
            pass

    def expect(self, places: Iterable[int]) -> None:
        """Starts to decode pairs that will be drawn soon, in threads and in this order, as far as `AHEAD_BYTES` allows.

        What did not fit is not remembered: name it again when others have been drawn.
        """
        ahead = sum(self.items[place].bytes for place in self._ahead)
        for place in places:
            if place in self._kept or place in self._recent or place in self._ahead:
                continue
            ahead += self.items[place].bytes
            if self._ahead and ahead > AHEAD_BYTES:
                return
            if self._pool is None or self._process != os.getpid():
                self._pool, self._process = ThreadPoolExecutor(available_cores(), "decoding"), os.getpid()
            self._ahead[place] = self._pool.submit(self.items[place].decoded, self._decode)

    def cancel(self) -> None:
        """Forgets what was expected and is not drawn yet; it can still be drawn."""
        while self._ahead:
            self._ahead.popitem()[1].cancel()

    def fill(self) -> None:
        """Decodes now what is kept in memory, so that forked workers share it."""
        missing = [place for place in range(self._keep) if place not in self._kept]
        items = [self.items[place] for place in missing]
        self._kept.update(zip(missing, decode_all(items, self._decode), strict=True))
