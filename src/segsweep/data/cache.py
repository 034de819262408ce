"""Every file decoded once: in memory up to a budget, beyond it in one file on disk that is mapped into memory.

Shapes: C channels, H x W pixels. A decoded pair is one uint8 array [C + 1, H, W], the mask behind the image's channels,
so one copy cuts both and nothing can part them.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segsweep.data.pairs import Pair
from segsweep.errors import UserError, shown
from segsweep.image_files.limits import available_cores, parallel_map
from segsweep.instantiate import NotNegative, checked

Pixels = NDArray[np.uint8]
Shape = tuple[int, int, int]
_Item = tuple[Pair, Shape]

log = logging.getLogger(__name__)

KEPT_BYTES = 64 << 30
"""What files of earlier runs may take in one folder; those that were not used for longest go first."""
SETTLED_SECONDS = 2.0
"""A file that was changed a shorter time ago may change again without its time telling: some disks count in seconds."""
AHEAD_BYTES = 2 << 30
"""What decoded pairs may take that were read ahead and wait to be put away."""
_ABANDONED_SECONDS = 86400.0
_FORMAT = 2
"""Part of every key: raise it when the layout of a cache file changes."""


@checked
@dataclass(frozen=True, kw_only=True)
class CacheRule:
    """Where decoded images are kept.

    Args:
        cache_gib: GiB of them that may lie in memory; the others are mapped from a file on disk.
        cache_dir: where that file is kept, with those of other runs up to 64 GiB; None: `~/.cache/segsweep`.

    Raises:
        UserError: a value is outside its range.
    """

    cache_gib: NotNegative = 4.0
    cache_dir: str | None = None


class PixelCache:
    """Decoded pairs, in memory while the budget lasts and on disk from there on.

    To be filled before DataLoader workers are forked: they then share its memory, and no file is decoded twice.

    A file on disk is found again by the paths, sizes and times of change of all files in it, so it is never
    used for others. It is written under a name of its own and renamed: processes that fill the same cache at the same time
    end with the same whole file. Earlier files are removed as `KEPT_BYTES` says, or where the disk has no room for a new
    one; who has them mapped keeps them.

    Args:
        rule: how many bytes may lie in memory, over all calls of `load`, and the folder of the files, which is made when
            first needed.
        settings: everything beside the files that decoding depends on, as text; another text, another file on disk.
    """

    def __init__(self, rule: CacheRule, settings: str) -> None:
        self.left = int(rule.cache_gib * 2**30)
        self.folder = Path.home() / ".cache/segsweep" if rule.cache_dir is None else Path(rule.cache_dir).expanduser()
        self.settings = settings

    def load(self, pairs: Sequence[Pair], shapes: Sequence[Shape], decode: Callable[[Pair], Pixels]) -> list[Pixels]:
        """The decoded pairs, in order: arrays in memory for the first of them, read-only maps of a file for the rest.

        Args:
            pairs: what to decode.
            shapes: the shape [C + 1, H, W] that each will have.
            decode: gives the array of a pair; called in several threads, and not for what an earlier run left on disk.

        Raises:
            UserError: what `decode` raises, a file has gone or changed meanwhile, or the disk cannot take what memory may
                not.
        """

        def checked(item: _Item) -> Pixels:
            pair, shape = item
            pixels = decode(pair)
            if pixels.shape != shape:
                raise UserError(f"{pair.image}: has changed since its size was read; start again")
            return pixels

        items = list(zip(pairs, shapes, strict=True))
        count = int(np.searchsorted(np.cumsum([_size(item) for item in items]), self.left, side="right"))
        self.left -= sum(_size(item) for item in items[:count])
        arrays = list(parallel_map(checked, items[:count], at_once=_at_once(items)))
        return arrays + self._mapped(items[count:], checked) if count < len(items) else arrays

    def _mapped(self, items: Sequence[_Item], decode: Callable[[_Item], Pixels]) -> list[Pixels]:
        size = sum(_size(item) for item in items)
        states = {path: _state(path) for pair, _ in items for path in (pair.image, pair.mask)}
        path = self.folder / f"{self._key(items, states)}.pixels"
        whole = _map(path, size)
        if whole is None:
            self._write(path, size, items, _guarded(decode, states))
            whole = _map(path, size)
        if whole is None:
            raise UserError(f"{path}: was removed or changed by another program; start again, or set data.cache_dir")
        with contextlib.suppress(OSError):  # a folder that may only be read keeps its times
            os.utime(path)
        ends = itertools.accumulate(_size(item) for item in items)
        return [whole[end - _size(item) : end].reshape(item[1]) for end, item in zip(ends, items, strict=True)]

    def _key(self, items: Sequence[_Item], states: Mapping[Path, os.stat_result]) -> str:
        entries = [
            (shape, [(str(path.resolve()), _identity(states[path])) for path in (pair.image, pair.mask)])
            for pair, shape in items
        ]
        # Nobody finds what was decoded from files that may be changed again within the same tick.
        newest = max(max(state.st_mtime, state.st_ctime) for state in states.values())
        settled = time.time() - newest > SETTLED_SECONDS
        text = json.dumps([_FORMAT, self.settings, entries, "" if settled else uuid.uuid4().hex])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _write(self, path: Path, size: int, items: Sequence[_Item], decode: Callable[[_Item], Pixels]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = self._make_room(size)
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be used for the cache ({error.strerror}); set data.cache_dir"
            ) from error
        if free < size:
            raise UserError(
                f"{self.folder}: has {free / 2**30:.1f} GiB free, but the decoded images beyond data.cache_gib"
                f" take {size / 2**30:.1f}; raise data.cache_gib or set data.cache_dir to another disk"
            )
        log.info("Decoding %d pairs into %s (%.1f GiB), once.", len(items), shown(path), size / 2**30)

        # Its own name for every writer: processes of one sweep may write at the same time, and the last one to end wins
        # with the same bytes.
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file:
                for pixels in parallel_map(decode, items, at_once=_at_once(items)):
                    file.write(np.ascontiguousarray(pixels).data)
                file.flush()
                os.fsync(file.fileno())  # else a crash of the machine could leave the name and not the pixels
            os.replace(temporary, path)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}); set data.cache_dir to another disk"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)

    def _make_room(self, size: int) -> int:
        """Removes what is abandoned or too much, and what a new file needs the place of; gives the bytes then free."""
        files = []
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):  # another process may be faster
                state = path.stat()
                if path.name.endswith(".tmp") and time.time() - state.st_mtime > _ABANDONED_SECONDS:
                    path.unlink()
                elif path.suffix == ".pixels":
                    files.append((state.st_mtime, state.st_size, path))
        kept = sum(entry[1] for entry in files)
        for _, bytes_, path in sorted(files):
            if kept <= KEPT_BYTES and shutil.disk_usage(self.folder).free >= size:
                break
            log.info("Removing %s (%.1f GiB), which was not used for longest.", shown(path), bytes_ / 2**30)
            with contextlib.suppress(OSError):
                path.unlink()
            kept -= bytes_
        return shutil.disk_usage(self.folder).free


def _map(path: Path, size: int) -> NDArray[np.uint8] | None:
    """The file mapped to be read; None where there is none of this size."""
    try:
        if path.stat().st_size != size:
            return None
        return np.memmap(path, dtype=np.uint8, mode="r")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); set data.cache_dir") from error


def _guarded(decode: Callable[[_Item], Pixels], states: Mapping[Path, os.stat_result]) -> Callable[[_Item], Pixels]:
    """`decode`, which refuses files that are not what they were: the cache would be found by what they were."""

    def guarded(item: _Item) -> Pixels:
        pixels = decode(item)
        for path in (item[0].image, item[0].mask):
            if _identity(_state(path)) != _identity(states[path]):
                raise UserError(f"{path}: has changed since the folder was listed; start again")
        return pixels

    return guarded


def _state(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise UserError(f"{path}: has gone since the folder was listed ({error.strerror}); start again") from error


def _identity(state: os.stat_result) -> tuple[int, ...]:
    """What differs after any change: a program can set the time of the last change, but not the second of the two."""
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _at_once(items: Sequence[_Item]) -> int:
    """How many pairs may be in work or waiting at the same time, so that together they stay within `AHEAD_BYTES`."""
    largest = max((_size(item) for item in items), default=1)
    return max(1, min(4 * available_cores(), AHEAD_BYTES // max(largest, 1)))


def _size(item: _Item) -> int:
    """Bytes of a decoded pair."""
    return math.prod(item[1])
