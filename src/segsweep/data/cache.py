"""Decoded image-mask pairs: in memory, in a memory-mapped file, or decoded when they are drawn.

Shapes: C channels, H x W pixels. A decoded pair is one uint8 array [C + 1, H, W]: the image's channels, then the mask.
One slice cuts both, so they always match.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segsweep.data.drawn import DrawnPairs, Item, Pixels, Shape, decode_all
from segsweep.data.pairs import Pair
from segsweep.errors import UserError, shown
from segsweep.file_facts import cache_folder, is_settled
from segsweep.instantiate import NotNegative, checked

log = logging.getLogger(__name__)

KEPT_BYTES = 64 << 30
"""Limit for the cache files of earlier runs in one folder; the least recently used are removed first."""
_ABANDONED_SECONDS = 86400.0
_FORMAT = 2
"""Part of every cache key; raise it when the layout of a cache file changes."""


@checked
@dataclass(frozen=True, kw_only=True)
class CacheRule:
    """Where decoded images are kept. It changes no result.

    Args:
        cache: "memory": all are decoded into memory before training. "disk": into a file in `cache_dir`, which is mapped
            into memory and found again by later runs. "none": each is decoded whenever a sample is cut from it. "auto":
            what fits into `cache_gib` is kept in memory, training images first; the others are as for "none".
        cache_gib: GiB of decoded images that "auto" keeps in memory.
        cache_dir: folder of the files of "disk", up to 64 GiB from earlier runs, and of what is known of files: digests,
            sizes, class counts. None: `~/.cache/segsweep`.

    Raises:
        UserError: a value is outside its range.
    """

    cache: Literal["auto", "memory", "disk", "none"] = "auto"
    cache_gib: NotNegative = 4.0
    cache_dir: str | None = None


class PixelCache:
    """Decoded pairs, kept as a `CacheRule` says.

    What is kept in memory is decoded before DataLoader workers are forked: they share it. What is not kept is decoded when
    it is drawn: in the workers, or in threads ahead of the step.

    A cache key covers path, size, mtime and ctime of every file, so a changed file is decoded again. A cache file is
    written under a temporary name and renamed: processes that write the same one at the same time end with one whole
    file. Old cache files are removed beyond `KEPT_BYTES`, or if the disk has no room for a new one; a process that has
    mapped one can still read it.

    Args:
        rule: where to keep pairs; the memory budget is for all calls of `load` together.
        settings: all settings that decoding depends on, as text; part of the cache key.
    """

    def __init__(self, rule: CacheRule, settings: str) -> None:
        self.rule = rule
        self.bytes_left = int(rule.cache_gib * 2**30)
        self.folder = cache_folder(rule.cache_dir)
        self.settings = settings

    def load(
        self, pairs: Sequence[Pair], shapes: Sequence[Shape], decode: Callable[[Pair], Pixels]
    ) -> Sequence[Pixels]:
        """Decodes pairs, maps those that an earlier run left on disk, or prepares to decode them when they are drawn.

        Args:
            pairs: the pairs to load.
            shapes: the shape [C + 1, H, W] of each.
            decode: decodes one pair; called in several threads.

        Returns:
            An array per pair, in order: a list if all are in memory or mapped, else `DrawnPairs`.

        Raises:
            UserError: `decode` refuses a file, a file was removed or changed meanwhile, or the disk is too full.
        """
        items = [Item.of(pair, shape) for pair, shape in zip(pairs, shapes, strict=True)]
        if self.rule.cache == "disk":
            return self._load_from_disk(items, decode)
        kept = {"memory": len(items), "none": 0}.get(self.rule.cache)
        if kept is None:
            sizes = [item.bytes for item in items]
            kept = int(np.searchsorted(np.cumsum(sizes), self.bytes_left, side="right"))
            self.bytes_left -= sum(sizes[:kept])
        if kept == len(items):
            return list(decode_all(items, decode))
        drawn = DrawnPairs(items, decode, kept)
        log.info(drawn.describe())
        drawn.try_some()
        return drawn

    def _load_from_disk(self, items: Sequence[Item], decode: Callable[[Pair], Pixels]) -> list[Pixels]:
        """Maps the cache file of these pairs, after writing it if there is none."""
        size = sum(item.bytes for item in items)
        if not size:
            return []
        path = self.folder / f"{self._key(items)}.pixels"
        whole = map_file(path, size)
        if whole is None:
            self._write(path, size, items, decode)
            whole = map_file(path, size)
        if whole is None:
            raise UserError(
                f"{path}: was removed or changed by another program; start again, or set data.cache_dir to another folder"
            )
        with contextlib.suppress(OSError):  # the mtime is the time of last use, except in a read-only folder
            os.utime(path)
        ends = list(itertools.accumulate(item.bytes for item in items))
        return [whole[end - item.bytes : end].reshape(item.shape) for end, item in zip(ends, items, strict=True)]

    def _key(self, items: Sequence[Item]) -> str:
        entries = [
            (
                item.shape,
                [(os.path.abspath(path), version) for path, version in zip(item.paths, item.versions, strict=True)],
            )
            for item in items
        ]
        # A file changed so recently may change again with the same mtime: with a random key no later run finds this entry.
        now = time.time()
        settled = all(is_settled(version, now) for item in items for version in item.versions)
        text = json.dumps([_FORMAT, self.settings, entries, "" if settled else uuid.uuid4().hex])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _write(self, path: Path, size: int, items: Sequence[Item], decode: Callable[[Pair], Pixels]) -> None:
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
                f"{self.folder}: has {free / 2**30:.1f} GiB free, but the decoded images take"
                f" {size / 2**30:.1f}; set data.cache_dir to another disk, or data.cache=auto"
            )
        log.info("Decoding %d pairs into %s (%.1f GiB), once.", len(items), shown(path), size / 2**30)

        # Processes of one sweep may write at the same time: each has its own temporary name, and the last rename wins
        # with the same bytes.
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file, contextlib.closing(decode_all(items, decode)) as decoded:
                for pixels in decoded:
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
