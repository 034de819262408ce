import errno
import io
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segsweep import console, file_facts
from segsweep.data import Textures, drawn
from segsweep.data import cache as cache_module
from segsweep.data.cache import CacheRule, PixelCache
from segsweep.data.crops import RandomCrops
from segsweep.data.drawn import DrawnPairs, Item
from segsweep.data.pairs import Pair
from segsweep.datamodule import SegmentationDataModule
from segsweep.errors import UserError

SHAPES = [(4, 5, 6), (4, 7, 3), (4, 2, 2), (4, 9, 9)]
SIZES = [120, 84, 16, 324]


class Files:
    """Four pairs that decode to different noise, and a count of how often each was decoded."""

    def __init__(self, root: Path) -> None:
        self.decoded: Counter[str] = Counter()
        self.pairs = [Pair(name, root / f"{name}.jpg", root / f"{name}.png") for name in "abcd"]
        for pair in self.pairs:
            pair.image.write_bytes(b"image")
            pair.mask.write_bytes(b"mask")

    def decode(self, pair: Pair) -> NDArray[np.uint8]:
        self.decoded[pair.name] += 1
        return self.expected(pair)

    def expected(self, pair: Pair) -> NDArray[np.uint8]:
        place = "abcd".index(pair.name)
        return np.random.default_rng(place).integers(0, 256, SHAPES[place], dtype=np.uint8)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """Files that count as settled at once, so that tests need not wait."""
    monkeypatch.setattr(file_facts, "SETTLED_SECONDS", -1.0)
    return Files(tmp_path)


@pytest.fixture
def new_cache(tmp_path: Path) -> Callable[..., PixelCache]:
    return lambda cache, settings="rgb", budget=0: PixelCache(
        CacheRule(cache=cache, cache_gib=budget / 2**30, cache_dir=str(tmp_path / "cache")), settings
    )


@pytest.mark.parametrize(
    ("cache", "budget"), [("memory", 0), ("disk", 0), ("none", 0), *(("auto", sum(SIZES[:n])) for n in range(5))]
)
def test_arrays_are_the_same_however_they_are_kept(
    files: Files, new_cache: Callable[..., PixelCache], cache: str, budget: int
) -> None:
    arrays = new_cache(cache, budget=budget).load(files.pairs, SHAPES, files.decode)
    assert len(arrays) == 4
    for _ in range(2):
        for array, pair in zip(arrays, files.pairs, strict=True):
            assert np.array_equal(array, files.expected(pair))
            assert isinstance(array, np.memmap) == (cache == "disk")
    if cache in ("memory", "disk") or budget == sum(SIZES):
        assert isinstance(arrays, list)
        assert set(files.decoded.values()) == {1}


def test_the_budget_is_for_all_calls_together(files: Files, new_cache: Callable[..., PixelCache]) -> None:
    cache = new_cache("auto", budget=sum(SIZES[:2]) + 15)
    assert isinstance(cache.load(files.pairs[:2], SHAPES[:2], files.decode), list)
    assert isinstance(cache.load(files.pairs[2:], SHAPES[2:], files.decode), DrawnPairs)
    assert cache.bytes_left == 15


def test_what_is_on_disk_is_not_decoded_again(files: Files, new_cache: Callable[..., PixelCache]) -> None:
    for _ in range(3):
        new_cache("disk").load(files.pairs, SHAPES, files.decode)
    assert files.decoded == {"a": 1, "b": 1, "c": 1, "d": 1}


def test_a_changed_file_or_setting_is_decoded_again(files: Files, new_cache: Callable[..., PixelCache]) -> None:
    new_cache("disk").load(files.pairs, SHAPES, files.decode)
    os.utime(files.pairs[2].mask, (1, 1))
    new_cache("disk").load(files.pairs, SHAPES, files.decode)
    files.pairs[3].image.write_bytes(b"another image")
    new_cache("disk").load(files.pairs, SHAPES, files.decode)
    new_cache("disk", "gray").load(files.pairs, SHAPES, files.decode)
    assert set(files.decoded.values()) == {4}


def test_an_incomplete_file_is_written_anew(files: Files, new_cache: Callable[..., PixelCache], tmp_path: Path) -> None:
    new_cache("disk").load(files.pairs, SHAPES, files.decode)
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    arrays = new_cache("disk").load(files.pairs, SHAPES, files.decode)
    assert all(np.array_equal(array, files.expected(pair)) for pair, array in zip(files.pairs, arrays, strict=True))


def test_a_file_that_cannot_be_decoded_leaves_nothing_behind(
    files: Files, new_cache: Callable[..., PixelCache], tmp_path: Path
) -> None:
    def decode(pair: Pair) -> NDArray[np.uint8]:
        if pair.name == "c":
            raise UserError("c: is damaged")
        return files.decode(pair)

    with pytest.raises(UserError, match="c: is damaged"):
        new_cache("disk").load(files.pairs, SHAPES, decode)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_full_disk_and_a_file_in_the_way_are_refused_with_the_way_out(
    files: Files, new_cache: Callable[..., PixelCache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(UserError, match=r"data\.cache=auto"):
        new_cache("disk").load(files.pairs, SHAPES, files.decode)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_bytes(b"a file")
    with pytest.raises(UserError, match=r"data\.cache_dir"):
        new_cache("disk").load(files.pairs, SHAPES, files.decode)


def test_the_bar_is_gone_where_the_disk_is_full(
    files: Files, new_cache: Callable[..., PixelCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(console, "SHOWN_AFTER", -1.0)
    written: list[object] = []

    def write(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        written.append(console._Terminal.live)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pixels

    monkeypatch.setattr(np, "ascontiguousarray", write)
    with pytest.raises(UserError, match="No space left") as raised:
        new_cache("disk").load(files.pairs, SHAPES, files.decode)
    assert raised.tb is not None  # it keeps what is open in its frames
    assert written[2] is not None
    assert console._Terminal.live is None


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_a_file_whose_size_has_changed_is_refused(
    files: Files, new_cache: Callable[..., PixelCache], cache: str
) -> None:
    with pytest.raises(UserError, match=r"a\.jpg: has changed"):
        new_cache(cache).load(files.pairs, [(4, 6, 5), *SHAPES[1:]], files.decode)


def test_a_file_changed_behind_its_own_time_is_decoded_again(
    files: Files, new_cache: Callable[..., PixelCache]
) -> None:
    path = files.pairs[0].image
    state = path.stat()
    new_cache("disk").load(files.pairs, SHAPES, files.decode)
    path.write_bytes(b"egami")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_mtime_ns == state.st_mtime_ns
    assert path.stat().st_size == state.st_size
    new_cache("disk").load(files.pairs, SHAPES, files.decode)
    assert files.decoded["a"] == 2


def test_what_was_decoded_from_a_file_just_changed_is_not_found_again(
    files: Files, new_cache: Callable[..., PixelCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    # It may change again with the same mtime.
    monkeypatch.setattr(file_facts, "SETTLED_SECONDS", 2.0)
    for _ in range(2):
        new_cache("disk").load(files.pairs, SHAPES, files.decode)
    assert files.decoded["a"] == 2


@pytest.mark.parametrize("change", ["rewritten", "removed"])
def test_a_file_that_changes_while_it_is_read_is_refused_by_name_and_not_kept(
    files: Files, new_cache: Callable[..., PixelCache], tmp_path: Path, change: str
) -> None:
    def decode(pair: Pair) -> NDArray[np.uint8]:
        if pair.name == "b":
            pair.mask.unlink()
            if change == "rewritten":
                pair.mask.write_bytes(b"ksam")
        return files.decode(pair)

    word = "has changed since" if change == "rewritten" else "has gone since"
    with pytest.raises(UserError, match=rf"b\.png: {word}"):
        new_cache("disk").load(files.pairs, SHAPES, decode)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_file_that_went_before_it_is_read_is_refused_by_name(
    files: Files, new_cache: Callable[..., PixelCache]
) -> None:
    files.pairs[2].image.unlink()
    with pytest.raises(UserError, match=r"c\.jpg: has gone since the folder was listed"):
        new_cache("disk").load(files.pairs, SHAPES, files.decode)


def test_files_not_used_for_longest_go_where_there_are_too_many_bytes(
    files: Files, new_cache: Callable[..., PixelCache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names() -> set[str]:
        return {path.name for path in (tmp_path / "cache").iterdir()}

    monkeypatch.setattr(cache_module, "KEPT_BYTES", 2 * sum(SIZES))
    made = []
    for number, setting in enumerate("rst"):
        before = names() if made else set()
        new_cache("disk", setting).load(files.pairs, SHAPES, files.decode)
        (new,) = names() - before
        made.append(new)
        os.utime(tmp_path / "cache" / new, (1000 + number, 1000 + number))
    new_cache("disk", "r").load(files.pairs, SHAPES, files.decode)  # used again
    new_cache("disk", "u").load(files.pairs, SHAPES, files.decode)
    assert made[0] in names()
    assert made[1] not in names()
    assert len(names()) == 3  # two kept, and the new one


def test_files_go_where_the_disk_has_no_room_for_a_new_one(
    files: Files, new_cache: Callable[..., PixelCache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    folder = tmp_path / "cache"

    def disk_usage(_: Path) -> object:
        return usage._replace(free=700 - sum(path.stat().st_size for path in folder.iterdir()))

    kept = new_cache("disk", "r").load(files.pairs, SHAPES, files.decode)
    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    new_cache("disk", "s").load(files.pairs, SHAPES, files.decode)
    assert len(list(folder.iterdir())) == 1
    # The removed file is still readable where it is mapped.
    assert all(np.array_equal(array, files.expected(pair)) for pair, array in zip(files.pairs, kept, strict=True))


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(
    files: Files, new_cache: Callable[..., PixelCache], tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    for name in ("old.pixels.0.tmp", "new.pixels.1.tmp", "notes.txt"):
        (folder / name).write_bytes(b"x")
    os.utime(folder / "old.pixels.0.tmp", (1, 1))
    os.utime(folder / "notes.txt", (1, 1))
    new_cache("disk").load(files.pairs, SHAPES, files.decode)
    left = {path.name for path in folder.iterdir() if path.suffix != ".pixels"}
    assert left == {"new.pixels.1.tmp", "notes.txt"}


WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from segsweep import file_facts
from segsweep.data import cache
from segsweep.data.pairs import Pair
file_facts.SETTLED_SECONDS = -1.0
root = Path(sys.argv[1])
pairs = [Pair(str(n), root / f"{n}.jpg", root / f"{n}.png") for n in range(8)]
shapes = [(4, 40, 50)] * 8
def decode(pair):
    time.sleep(0.01)
    return np.full((4, 40, 50), int(pair.name), np.uint8)
print("ready", flush=True)
sys.stdin.readline()
arrays = cache.PixelCache(cache.CacheRule(cache="disk", cache_dir=str(root / "cache")), "rgb").load(pairs, shapes, decode)
assert all((array == number).all() for number, array in enumerate(arrays))
"""


@pytest.mark.slow
def test_processes_that_fill_the_same_cache_at_the_same_time_end_with_one_whole_file(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.jpg").write_bytes(b"image")
        (tmp_path / f"{number}.png").write_bytes(b"mask")
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.communicate("go\n", timeout=60)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    (path,) = (tmp_path / "cache").iterdir()
    assert re.fullmatch(r"[0-9a-f]{32}\.pixels", path.name)
    assert path.read_bytes() == b"".join(bytes([number]) * 8000 for number in range(8))


def test_large_pairs_are_not_read_far_ahead(
    files: Files, new_cache: Callable[..., PixelCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    working: Counter[str] = Counter()

    def decode(pair: Pair) -> NDArray[np.uint8]:
        working["now"] += 1
        working["most"] = max(working["most"], working["now"])
        time.sleep(0.01)
        working["now"] -= 1
        return files.decode(pair)

    monkeypatch.setattr(drawn, "AHEAD_BYTES", max(SIZES))
    monkeypatch.setattr(drawn, "available_cores", lambda: 4)
    for cache in ("memory", "disk", "none"):
        new_cache(cache).load(files.pairs, SHAPES, decode)
    assert working["most"] == 1


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_a_hard_link_or_other_rights_while_a_file_is_read_end_no_run(
    files: Files, new_cache: Callable[..., PixelCache], cache: str
) -> None:
    def decode(pair: Pair) -> NDArray[np.uint8]:
        before = pair.image.stat().st_ctime_ns
        while pair.image.stat().st_ctime_ns == before:
            pair.image.chmod(0o600)
        return files.decode(pair)

    arrays = new_cache(cache).load(files.pairs, SHAPES, decode)
    assert all(np.array_equal(array, files.expected(pair)) for pair, array in zip(files.pairs, arrays, strict=True))


@pytest.fixture
def loader(files: Files, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Iterable[Any]]:
    """Loads a crop of each of 20 pairs that a function decodes; no more than the largest may be decoded ahead."""
    monkeypatch.setattr(drawn, "AHEAD_BYTES", max(SIZES))

    def made(decode: Callable[[Pair], NDArray[np.uint8]]) -> Iterable[Any]:
        items = [Item.of(pair, shape) for pair, shape in zip(files.pairs, SHAPES, strict=True)] * 5
        crops = RandomCrops(DrawnPairs(items, decode, 0), 2, 0, "train")
        source = Textures()
        monkeypatch.setattr(source, "dataset", lambda split: crops)
        return SegmentationDataModule(source)._loader("train", [[index] for index in range(20)])

    return made


def test_pairs_that_did_not_fit_ahead_are_decoded_in_threads_later(
    files: Files, loader: Callable[..., Iterable[Any]]
) -> None:
    threads: set[str] = set()

    def decode(pair: Pair) -> NDArray[np.uint8]:
        threads.add(threading.current_thread().name.partition("_")[0])
        return files.decode(pair)

    assert len(list(loader(decode))) == 20
    assert files.decoded.total() == 20
    assert threads == {"decoding"}


def test_what_waits_to_be_decoded_is_given_up_where_loading_ends(
    files: Files, loader: Callable[..., Iterable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawn, "AHEAD_BYTES", sum(SIZES))
    monkeypatch.setattr(drawn, "available_cores", lambda: 1)
    first_is_used, others = threading.Event(), threading.Event()

    def decode(pair: Pair) -> NDArray[np.uint8]:
        if files.decoded.total():
            first_is_used.set()
            others.wait(60)
        return files.decode(pair)

    batches = loader(decode)
    batch = iter(batches)
    next(batch)
    assert first_is_used.wait(60)
    del batch
    others.set()
    batches.dataset.dataset.arrays._pool.shutdown()  # type: ignore[attr-defined]
    assert files.decoded.total() == 2
