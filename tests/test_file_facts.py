"""Facts about files are found once, and again exactly when a file has changed."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from segsweep import file_facts, fingerprint
from segsweep.errors import UserError
from segsweep.file_facts import FileFacts
from segsweep.fingerprint import folder_digest


class Finder:
    """Files, and a store of their content that counts how often each file was read."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.root, self.cache, self.read = root, cache, Counter[str]()
        root.mkdir()
        self.paths = [root / f"{name}.txt" for name in "abcd"]
        for path in self.paths:
            path.write_text(path.stem)

    def find(self, path: Path) -> str:
        self.read[path.stem] += 1
        return path.read_text()

    def facts(self, paths: list[Path] | None = None, kind: str = "content") -> list[str]:
        store = FileFacts(self.cache, self.root, kind, self.find, lambda value: isinstance(value, str))
        return list(store.each(self.paths if paths is None else paths, "reading"))

    @property
    def store(self) -> Path:
        (path,) = (self.cache / "facts").iterdir()
        return path


@pytest.fixture
def finder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Finder:
    """Its files count as settled at once, and its facts as worth keeping, so that tests need not wait."""
    monkeypatch.setattr(file_facts, "SETTLED_SECONDS", -1.0)
    monkeypatch.setattr(file_facts, "WORTH_SECONDS", 0.0)
    return Finder(tmp_path / "files", tmp_path / "cache")


def test_each_file_is_read_once_whatever_is_asked_for(finder: Finder):
    assert finder.facts(finder.paths[:2]) == ["a", "b"]
    assert finder.facts(finder.paths[::-1]) == ["d", "c", "b", "a"]
    assert finder.facts() == ["a", "b", "c", "d"]
    assert finder.facts([]) == []
    assert finder.read == Counter("abcd")
    finder.facts(kind="another fact")
    assert set(finder.read.values()) == {2}


def test_a_changed_file_is_read_again_even_if_its_own_time_and_size_are_the_same(finder: Finder):
    finder.facts()
    path, state = finder.paths[1], finder.paths[1].stat()
    path.write_text("B")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    assert finder.facts() == ["a", "B", "c", "d"]
    finder.paths[2].write_text("longer")
    assert finder.facts() == ["a", "B", "longer", "d"]
    os.utime(finder.paths[3], (1, 1))
    finder.facts()
    assert finder.read == {"a": 1, "b": 2, "c": 2, "d": 2}


def test_nothing_is_kept_about_a_file_changed_so_recently_that_a_coarse_mtime_could_hide_a_change(
    finder: Finder, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(file_facts, "SETTLED_SECONDS", 60.0)
    for _ in range(2):
        assert finder.facts() == ["a", "b", "c", "d"]
    assert set(finder.read.values()) == {2}
    assert not finder.cache.exists()


def test_a_file_that_changes_while_it_is_read_is_not_kept(finder: Finder, monkeypatch: pytest.MonkeyPatch):
    find = finder.find

    def changing(path: Path) -> str:
        text = find(path)
        if path.stem == "c":
            path.write_text("changed")
        return text

    monkeypatch.setattr(finder, "find", changing)
    finder.facts()
    monkeypatch.setattr(finder, "find", find)
    assert finder.facts() == ["a", "b", "changed", "d"]


def resigned(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode() + b"\n" + text


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-7],
        lambda content: content + b" ",
        lambda content: content.replace(b'"b"', b'"x"'),
        lambda content: b"\xff" + content,
        lambda content: resigned(b"[1]"),
        lambda content: resigned(b'{"a.txt":[1,2,3]}'),
        lambda content: resigned(b'{"a.txt":7}'),
        lambda content: resigned(content.partition(b"\n")[2].replace(b'"b"', b"7")),
        lambda content: resigned(b"[" * 100_000),
        lambda content: content + b" " * file_facts.STORE_BYTES,
    ],
)
def test_a_damaged_store_is_ignored_and_written_anew(finder: Finder, damage: Callable[[bytes], bytes]):
    finder.facts()
    whole = finder.store.read_bytes()
    finder.store.write_bytes(damage(whole))
    assert finder.facts() == ["a", "b", "c", "d"]
    assert set(finder.read.values()) == {2}
    assert finder.store.read_bytes() == whole


def test_a_pipe_in_place_of_a_store_is_not_waited_for(finder: Finder):
    finder.facts()
    path = finder.store
    path.unlink()
    os.mkfifo(path)
    assert finder.facts() == ["a", "b", "c", "d"]
    assert finder.store.is_file()


def test_a_store_that_would_be_too_large_loses_the_facts_found_longest_ago_and_no_other_store(
    finder: Finder, monkeypatch: pytest.MonkeyPatch
):
    finder.facts(finder.paths[:3])
    size = finder.store.stat().st_size
    finder.facts(kind="another fact", paths=finder.paths[:1])
    finder.read.clear()
    monkeypatch.setattr(file_facts, "STORE_BYTES", size)
    finder.paths[0].write_text("A")
    finder.facts(finder.paths[:1])  # now b and c are the oldest
    finder.facts(finder.paths[3:])
    finder.facts([finder.paths[0], *finder.paths[2:]])
    finder.facts(kind="another fact", paths=finder.paths[1:2])
    assert finder.read == {"a": 1, "b": 1, "d": 1}
    finder.facts(finder.paths[1:2])
    assert finder.read == {"a": 1, "b": 2, "d": 1}
    stores = [*(finder.cache / "facts").iterdir()]
    assert len(stores) == 2
    assert all(store.stat().st_size <= size for store in stores)


def test_a_folder_that_cannot_be_written_only_costs_time(finder: Finder):
    finder.cache.write_text("a file in the way")
    for _ in range(2):
        assert finder.facts() == ["a", "b", "c", "d"]
    assert set(finder.read.values()) == {2}


def test_what_was_found_before_a_refused_file_is_kept(finder: Finder, monkeypatch: pytest.MonkeyPatch):
    find = finder.find

    def refusing(path: Path) -> str:
        if path.stem == "c":
            raise UserError("c.txt: is damaged")
        return find(path)

    monkeypatch.setattr(finder, "find", refusing)
    with pytest.raises(UserError, match=r"c\.txt: is damaged"):
        finder.facts()
    finder.paths[3].unlink()
    with pytest.raises(UserError, match=r"d\.txt: has gone"):
        finder.facts()
    assert finder.facts(finder.paths[:2]) == ["a", "b"]
    assert (finder.read["a"], finder.read["b"]) == (1, 1)


def test_the_least_recently_used_stores_go_where_there_are_too_many_bytes(
    finder: Finder, monkeypatch: pytest.MonkeyPatch
):
    made: list[Path] = []
    for number, kind in enumerate("rst"):
        finder.facts(kind=kind)
        (new,) = {*(finder.cache / "facts").iterdir()} - {*made}
        os.utime(new, (1000 + number, 1000 + number))
        made.append(new)
    monkeypatch.setattr(file_facts, "KEPT_BYTES", 3 * made[0].stat().st_size)
    finder.facts(kind="r")  # used again
    finder.facts(kind="u")
    left = {*(finder.cache / "facts").iterdir()}
    assert (made[0] in left, made[1] in left, made[2] in left, len(left)) == (True, False, True, 3)


WRITER = """
import sys, time
from pathlib import Path
from segsweep import file_facts
file_facts.SETTLED_SECONDS, file_facts.WORTH_SECONDS = -1.0, 0.0
root, mine = Path(sys.argv[1]), int(sys.argv[2])
paths = [root / f"{n}.txt" for n in range(40)]
print("ready", flush=True)
sys.stdin.readline()
for turn in range(30):
    store = file_facts.FileFacts(root / "cache", root, "content", Path.read_text, lambda value: isinstance(value, str))
    some = paths[(turn + mine) % 3 :: 3]
    assert list(store.each(some, "reading")) == [path.stem for path in some]
"""


@pytest.mark.slow
def test_processes_may_write_one_store_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text(str(number))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(3)
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    (store,) = (tmp_path / "cache/facts").iterdir()  # no temporary file is left
    checksum, _, text = store.read_bytes().partition(b"\n")
    assert hashlib.sha256(text).hexdigest().encode() == checksum
    assert all(entry[3] == Path(name).stem for name, entry in json.loads(text).items())


def test_a_second_start_hashes_only_what_has_changed_and_digests_stay_as_they_were(
    finder: Finder, monkeypatch: pytest.MonkeyPatch
):
    (finder.root / "below").mkdir()
    (finder.root / "below/e.txt").write_text("e")
    hashed: list[str] = []
    file_digest = hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, kind: (hashed.append(file.name), file_digest(file, kind))[1]
    )

    def started() -> str:
        fingerprint._digest.cache_clear()  # as in a new process
        hashed.clear()
        return folder_digest(finder.root, str(finder.cache))

    def expected() -> str:
        """As sweeps store it."""
        digest = hashlib.sha256()
        for name in ("a.txt", "b.txt", "c.txt", "d.txt", "below/e.txt"):
            content = hashlib.sha256((finder.root / name).read_bytes()).hexdigest()[:16]
            digest.update(json.dumps([name, content]).encode())
        return digest.hexdigest()[:16]

    assert started() == expected()
    assert len(hashed) == 5
    assert started() == expected()
    assert hashed == []
    finder.paths[1].write_text("changed")
    assert started() == expected()
    assert hashed == [str(finder.paths[1])]
    monkeypatch.chdir(finder.root)
    assert folder_digest(Path("."), str(finder.cache)) == folder_digest(finder.root) == expected()
