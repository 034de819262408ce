"""Decoded image-mask pairs, each decoded once: in memory up to a budget, the rest in a memory-mapped file.

Shapes: C channels, H x W pixels. A decoded pair is one uint8 array [C + 1, H, W]: the image's channels, then the mask.
One slice cuts both, so they always match.
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
FileVersion = tuple[int, int, int]
Item = tuple[Pair, Shape]

log = logging.getLogger(__name__)

KEPT_BYTES = 64 << 30
"""Limit for the cache files of earlier runs in one folder; the least recently used are removed first."""
SETTLED_SECONDS = 2.0
"""Files modified more recently than this are not cached for later runs: a coarse mtime could hide a second change."""
AHEAD_BYTES = 2 << 30
"""Limit for pairs that are decoded ahead and wait to be stored."""
_ABANDONED_SECONDS = 86400.0
_FORMAT = 2
"""Part of every cache key; raise it when the layout of a cache file changes."""


@checked
@dataclass(frozen=True, kw_only=True)
class CacheRule:
    """Where decoded images are kept.

    Args:
        cache_gib: GiB of decoded images to keep in memory; the rest is mapped from a file on disk.
        cache_dir: folder of that file and of up to 64 GiB from earlier runs; None: `~/.cache/segsweep`.

    Raises:
        UserError: a value is outside its range.
    """

    cache_gib: NotNegative = 4.0
    cache_dir: str | None = None


class PixelCache:
    """Decoded pairs, in memory until the budget is used up, then in memory-mapped files.

    Fill it before DataLoader workers are forked: they share its memory, and no file is decoded twice.

    A cache key covers path, size, mtime and ctime of every file, so a changed file is decoded again. A cache file is
    written under a temporary name and renamed: processes that write the same one at the same time end with one whole
    file. Old cache files are removed beyond `KEPT_BYTES`, or if the disk has no room for a new one; a process that has
    mapped one can still read it.

    Args:
        rule: the memory budget for all calls of `load` together, and the folder of cache files, created when needed.
        settings: all settings that decoding depends on, as text; part of the cache key.
    """

    def __init__(self, rule: CacheRule, settings: str) -> None:
        self.bytes_left = int(rule.cache_gib * 2**30)
        self.folder = Path.home() / ".cache/segsweep" if rule.cache_dir is None else Path(rule.cache_dir).expanduser()
        self.settings = settings

    def load(self, pairs: Sequence[Pair], shapes: Sequence[Shape], decode: Callable[[Pair], Pixels]) -> list[Pixels]:
        """Decodes pairs, or maps those that an earlier run left on disk.

        Args:
            pairs: the pairs to load.
            shapes: the shape [C + 1, H, W] of each.
            decode: decodes one pair; called in several threads.

        Returns:
            An array per pair, in order: the first ones in memory, the rest as read-only memory maps.

        Raises:
            UserError: `decode` refuses a file, a file was removed or changed meanwhile, or the disk is too full.
        """

        def decode_checked(item: Item) -> Pixels:
            pair, shape = item
            pixels = decode(pair)
            if pixels.shape != shape:
                raise UserError(f"{pair.image}: has changed since its size was read; start again")
            return pixels

        items = list(zip(pairs, shapes, strict=True))
        sizes = [math.prod(shape) for shape in shapes]
        count = int(np.searchsorted(np.cumsum(sizes), self.bytes_left, side="right"))
        self.bytes_left -= sum(sizes[:count])
        arrays = list(parallel_map(decode_checked, items[:count], at_once=pairs_ahead(items)))
        return arrays + self._load_from_disk(items[count:], decode_checked) if count < len(items) else arrays

    def _load_from_disk(self, items: Sequence[Item], decode: Callable[[Item], Pixels]) -> list[Pixels]:
        """Maps the cache file of these pairs, after writing it if there is none."""
        versions = {path: file_version(path) for pair, _ in items for path in (pair.image, pair.mask)}

        def decode_unchanged(item: Item) -> Pixels:
            pixels = decode(item)
            for path in (item[0].image, item[0].mask):
                if file_version(path) != versions[path]:
                    raise UserError(f"{path}: has changed since the folder was listed; start again")
            return pixels

        sizes = [math.prod(shape) for _, shape in items]
        path = self.folder / f"{self._key(items, versions)}.pixels"
        whole = map_file(path, sum(sizes))
        if whole is None:
            self._write(path, sum(sizes), items, decode_unchanged)
            whole = map_file(path, sum(sizes))
        if whole is None:
            raise UserError(
                f"{path}: was removed or changed by another program; start again, or set data.cache_dir to another folder"
            )
        with contextlib.suppress(OSError):  # the mtime is the time of last use, except in a read-only folder
            os.utime(path)
        ends = list(itertools.accumulate(sizes))
        return [whole[end - size : end].reshape(item[1]) for end, size, item in zip(ends, sizes, items, strict=True)]

    def _key(self, items: Sequence[Item], versions: Mapping[Path, FileVersion]) -> str:
        entries = [
            (shape, [(str(path.resolve()), versions[path]) for path in (pair.image, pair.mask)])
            for pair, shape in items
        ]
        # A file changed so recently may change again with the same mtime: with a random key no later run finds this entry.
        newest = max(max(mtime, ctime) for _, mtime, ctime in versions.values()) / 1e9
        settled = time.time() - newest > SETTLED_SECONDS
        text = json.dumps([_FORMAT, self.settings, entries, "" if settled else uuid.uuid4().hex])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _write(self, path: Path, size: int, items: Sequence[Item], decode: Callable[[Item], Pixels]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = self._make_room(size)
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be used for the cache ({error.strerror}); set data.cache_dir to a folder that"
                " you can write to"
            ) from error
        if free < size:
            raise UserError(
                f"{self.folder}: has {free / 2**30:.1f} GiB free, but the decoded images beyond data.cache_gib"
                f" take {size / 2**30:.1f}; raise data.cache_gib or set data.cache_dir to another disk"
            )
        log.info("Decoding %d pairs into %s (%.1f GiB), once.", len(items), shown(path), size / 2**30)

        # Processes of one sweep may write at the same time: each has its own temporary name, and the last rename wins
        # with the same bytes.
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file:
                for pixels in parallel_map(decode, items, at_once=pairs_ahead(items)):
                    file.write(np.ascontiguousarray(pixels).data)
                file.flush()
                os.fsync(file.fileno())  # before the rename: a crash must not leave the name without the pixels
            os.replace(temporary, path)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}); set data.cache_dir to another disk"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)

    def _make_room(self, size: int) -> int:
        """Removes abandoned temporary files and old cache files; returns the bytes that are then free."""
        files = []
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):  # another process may have removed it
                stat = path.stat()
                if path.name.endswith(".tmp") and time.time() - stat.st_mtime > _ABANDONED_SECONDS:
                    path.unlink()
                elif path.suffix == ".pixels":
                    files.append((stat.st_mtime, stat.st_size, path))
        kept = sum(file_size for _, file_size, _ in files)
        for _, file_size, path in sorted(files):
            if kept <= KEPT_BYTES and shutil.disk_usage(self.folder).free >= size:
                break
            log.info("Removing %s (%.1f GiB), the least recently used.", shown(path), file_size / 2**30)
            with contextlib.suppress(OSError):
                path.unlink()
            kept -= file_size
        return shutil.disk_usage(self.folder).free


def file_version(path: Path) -> FileVersion:
    """Size, mtime and ctime (ns) of a file. Any change alters them: a program can set the mtime, but not the ctime.

    Raises:
        UserError: the file was removed.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"{path}: has gone since the folder was listed ({error.strerror}); start again") from error
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def map_file(path: Path, size: int) -> NDArray[np.uint8] | None:
    """Maps a file of `size` bytes for reading; None if there is no such file."""
    try:
        if path.stat().st_size != size:
            return None
        return np.memmap(path, dtype=np.uint8, mode="r")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); set data.cache_dir to another folder") from error


def pairs_ahead(items: Sequence[Item]) -> int:
    """How many pairs may be decoded ahead, so that together they stay within `AHEAD_BYTES`."""
    largest = max((math.prod(shape) for _, shape in items), default=1)
    return max(1, min(4 * available_cores(), AHEAD_BYTES // max(largest, 1)))
