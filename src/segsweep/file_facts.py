"""Facts about files that take long to find, such as digests: kept on disk and used until a file changes.

A store is one file of JSON with a checksum. It is written under another name and renamed, so several processes may write
it at the same time: the last one wins. A store that is damaged counts as missing.
"""

import contextlib
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from segsweep.console import counted
from segsweep.errors import UserError
from segsweep.image_files.limits import MAX_PIXELS, parallel_map

FileVersion = tuple[int, int, int]
Fact = TypeVar("Fact")

SETTLED_SECONDS = 2.0
"""Nothing is kept about files modified more recently than this: a coarse mtime could hide a second change."""
WORTH_SECONDS = 0.2
"""Facts that were found in less time are not kept, so a small folder leaves no file."""
KEPT_BYTES = 256 << 20
"""Limit for all stores in a folder; the least recently used are removed first."""
STORE_BYTES = 128 << 20
"""Largest store that is written or read, about a million digests; the facts that were found longest ago go first."""
_FORMAT = 1
"""Part of every store's name; raise it when the layout of a store changes."""


def cache_folder(setting: object) -> Path:
    """The folder that `data.cache_dir` names; None, or a value that is no text, means `~/.cache/segsweep`."""
    return Path(setting).expanduser() if isinstance(setting, str) else Path.home() / ".cache/segsweep"


def file_version(path: Path | str) -> FileVersion:
    """Size, mtime and ctime (ns) of a file. Any change alters them: a program can set the mtime, but not the ctime.

    On Windows the last is the time of creation: a change that keeps the size and sets the mtime back does not show there.

    Raises:
        UserError: the file was removed.
    """
    try:
        stat = os.stat(path)
    except OSError as error:
        raise UserError(f"{path}: has gone since the folder was listed ({error.strerror}); start again") from error
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def is_settled(version: tuple[int, ...], now: float) -> bool:
    """Whether a file was last changed so long before `now` (seconds of `time.time`) that a change shows in its version."""
    return now - max(version[1:]) / 1e9 > SETTLED_SECONDS


def numbers(count: int) -> Callable[[Any], bool]:
    """Tests whether a value is a list of so many whole numbers that can count pixels of one image."""
    return lambda value: (
        isinstance(value, list)
        and len(value) == count
        and all(type(number) is int and 0 <= number <= MAX_PIXELS for number in value)
    )


def is_shape(value: Any) -> bool:
    """Whether a value can be the height and width of an image."""
    return numbers(2)(value) and 0 < value[0] * value[1] <= MAX_PIXELS


class FileFacts(Generic[Fact]):
    """One fact about each file of a folder, kept on disk with the file's version.

    Args:
        folder: see `cache_folder`; stores are in its subfolder `facts`. Nothing is kept if it cannot be written.
        root: the folder of the files.
        kind: the fact, and all settings that it depends on, as text.
        find: finds the fact about a file; called in several threads.
        valid: whether a value from disk can be such a fact; a fact that is not valid is not kept.
        version: changes with everything that the fact about a file depends on.
    """

    def __init__(
        self,
        folder: Path,
        root: Path,
        kind: str,
        find: Callable[[Path], Fact],
        valid: Callable[[Any], bool],
        version: Callable[[Path | str], tuple[int, ...]] = file_version,
    ) -> None:
        name = hashlib.sha256(json.dumps([_FORMAT, str(root.resolve()), kind]).encode("utf-8", "surrogatepass"))
        self._store = folder / "facts" / f"{name.hexdigest()[:32]}.json"
        self._prefix, self._find, self._valid, self._version = f"{root}{os.sep}", find, valid, version
        self._kept: dict[str, list[Any]] | None = None

    def each(self, paths: Sequence[Path | str], what: str, workers: int | None = None) -> Generator[Fact, None, None]:
        """Yields the facts about some files, in order; finds those that are not kept, and keeps them at the end.

        Args:
            paths: files below the root.
            what: the work of finding them, in words.
            workers: threads; None: one per core.

        Raises:
            UserError: a file was removed, or `find` refuses one; what was found before that is kept.
        """
        kept = self._kept if self._kept is not None else self._read()
        began, now = time.perf_counter(), time.time()
        names = [str(path).removeprefix(self._prefix) for path in paths]
        versions = [self._version(path) for path in paths]
        known = [tuple(kept.get(name, ())[:-1]) == version for name, version in zip(names, versions, strict=True)]
        missing = [Path(path) for path, is_known in zip(paths, known, strict=True) if not is_known]
        entries: dict[str, list[Any]] = {}
        facts = counted(parallel_map(self._find, missing, workers), what, len(missing))
        try:
            for path, name, version, is_known in zip(paths, names, versions, known, strict=True):
                fact = kept[name][-1] if is_known else next(facts)
                if not is_known and is_settled(version, now) and self._version(path) == version and self._valid(fact):
                    entries[name] = [*version, fact]
                yield fact
        finally:
            facts.close()
            self._kept = {name: kept[name] for name in kept if name not in entries} | entries  # the latest at the end
            if entries and time.perf_counter() - began > WORTH_SECONDS:
                self._write(self._kept)

    def _read(self) -> dict[str, list[Any]]:
        """Version and fact by name; empty if there is no store, or a damaged one."""
        damage = OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, MemoryError
        with contextlib.suppress(*damage):
            if not self._store.is_file():  # a pipe would be waited for
                return {}
            with self._store.open("rb") as file:
                content = file.read(STORE_BYTES + 1)
            if len(content) > STORE_BYTES:
                return {}
            checksum, _, text = content.partition(b"\n")
            if checksum.decode() != hashlib.sha256(text).hexdigest():
                return {}
            kept = json.loads(text)
            if all(isinstance(entry, list) and self._valid(entry[-1]) for entry in kept.values()):
                with contextlib.suppress(OSError):  # the mtime is the time of last use, except in a read-only folder
                    os.utime(self._store)
                return dict(kept)
        return {}

    def _write(self, kept: dict[str, list[Any]]) -> None:
        text = json.dumps(kept, separators=(",", ":")).encode()
        while kept and len(text) + 65 > STORE_BYTES:  # 65: the checksum and its line break
            kept = dict(list(kept.items())[len(kept) // 10 + 1 :])
            text = json.dumps(kept, separators=(",", ":")).encode()
        temporary = self._store.with_suffix(f".{secrets.token_hex(4)}.tmp")
        with contextlib.suppress(OSError):  # without a store the facts are only found again
            self._store.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
                temporary.replace(self._store)
            finally:
                temporary.unlink(missing_ok=True)
            stores = sorted(self._store.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
            bytes_kept = 0
            for path in stores:
                size = path.stat().st_size
                if bytes_kept + size > KEPT_BYTES:
                    path.unlink(missing_ok=True)
                else:
                    bytes_kept += size
