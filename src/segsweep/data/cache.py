"""Every file decoded once: in memory up to a budget, beyond it in one file on disk that is mapped into memory.

Shapes: C channels, H x W pixels. A decoded pair is one uint8 array [C + 1, H, W], the mask behind the image's channels,
so one copy cuts both and nothing can part them.
"""

import hashlib
import itertools
import json
import logging
import math
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segsweep.data.pairs import Pair, shown
from segsweep.data.parallel import parallel_map
from segsweep.errors import UserError

Pixels = NDArray[np.uint8]
Shape = tuple[int, int, int]
_Item = tuple[Pair, Shape]

log = logging.getLogger(__name__)

_FORMAT = 1
"""Part of every key: raise it when the layout of a cache file changes."""


class PixelCache:
    """Decoded pairs, in memory while the budget lasts and on disk from there on.

    To be filled before DataLoader workers are forked: they then share its memory, and no file is decoded twice.

    Args:
        budget: bytes that may lie in memory, over all calls of `load`.
        folder: where files of decoded pixels are kept, for later runs too; made when first needed.
        settings: everything beside the files that decoding depends on, as text; another text, another file on disk.
    """

    def __init__(self, budget: int, folder: Path, settings: str) -> None:
        self.left = budget
        self.folder = folder
        self.settings = settings

    def load(self, pairs: Sequence[Pair], shapes: Sequence[Shape], decode: Callable[[Pair], Pixels]) -> list[Pixels]:
        """The decoded pairs, in order: arrays in memory for the first of them, read-only maps of a file for the rest.

        Args:
            pairs: what to decode.
            shapes: the shape [C + 1, H, W] that each will have.
            decode: gives the array of a pair; called in several threads, and not for what an earlier run left on disk.

        Raises:
            UserError: what `decode` raises, or the disk cannot take what memory may not.
        """

        def checked(item: _Item) -> Pixels:
            pair, shape = item
            pixels = decode(pair)
            if pixels.shape != shape:
                raise UserError(f"{shown(pair.image)}: has changed since its size was read; start again")
            return pixels

        items = list(zip(pairs, shapes, strict=True))
        count = int(np.searchsorted(np.cumsum([_size(item) for item in items]), self.left, side="right"))
        self.left -= sum(_size(item) for item in items[:count])
        arrays = list(parallel_map(checked, items[:count]))
        return arrays + self._mapped(items[count:], checked) if count < len(items) else arrays

    def _mapped(self, items: Sequence[_Item], decode: Callable[[_Item], Pixels]) -> list[Pixels]:
        size = sum(_size(item) for item in items)
        path = self.folder / f"{self._key(items)}.pixels"
        if not (path.is_file() and path.stat().st_size == size):
            self._write(path, size, items, decode)
        whole = np.memmap(path, dtype=np.uint8, mode="r")
        ends = itertools.accumulate(_size(item) for item in items)
        return [whole[end - _size(item) : end].reshape(item[1]) for end, item in zip(ends, items, strict=True)]

    def _key(self, items: Sequence[_Item]) -> str:
        entries = []
        for pair, shape in items:
            states = [(path, path.stat()) for path in (pair.image.resolve(), pair.mask.resolve())]
            entries.append((shape, [(str(path), state.st_size, state.st_mtime_ns) for path, state in states]))
        text = json.dumps([_FORMAT, self.settings, entries])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _write(self, path: Path, size: int, items: Sequence[_Item], decode: Callable[[_Item], Pixels]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise UserError(
                f"{shown(self.folder)}: cannot be used for the cache ({error.strerror}); set data.cache_dir"
            ) from error
        if free < size:
            raise UserError(
                f"{shown(self.folder)}: has {free / 2**30:.1f} GiB free, but the decoded images beyond data.cache_gib"
                f" take {size / 2**30:.1f}; raise data.cache_gib or set data.cache_dir to another disk"
            )
        log.info("Decoding %d pairs into %s (%.1f GiB), once.", len(items), path, size / 2**30)
        # Its own name for every writer: processes of one sweep may write at the same time, and the last one to end wins
        # with the same bytes.
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file:
                for pixels in parallel_map(decode, items):
                    file.write(np.ascontiguousarray(pixels).data)
            os.replace(temporary, path)
        except OSError as error:
            raise UserError(
                f"{shown(path)}: cannot be written ({error.strerror}); set data.cache_dir to another disk"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)


def _size(item: _Item) -> int:
    """Bytes of a decoded pair."""
    return math.prod(item[1])
