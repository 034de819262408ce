"""After an interrupted write, a file is the old one or the new one, never a part."""

import errno
import json
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segsweep.runs import RunDirectory
from segsweep.runs.files import remove_litter, write_json, write_text, write_whole
from segsweep.sweeps.state import SweepDirectory

finite = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    finite | st.text() | st.binary().map(os.fsdecode),  # as names of files
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("old", [None, "the old content"])
@pytest.mark.parametrize("error", [ValueError("in the middle"), OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_interrupted_write_leaves_the_old_file_and_no_other(tmp_path: Path, old: str | None, error: BaseException):
    path = tmp_path / "run.json"
    if old is not None:
        path.write_text(old)

    def write(temporary: Path) -> None:
        temporary.write_text("a part of the new")
        raise error

    with pytest.raises(type(error)):
        write_whole(path, write)
    if old is None:
        assert list(tmp_path.iterdir()) == []
    else:
        assert list(tmp_path.iterdir()) == [path]
        assert path.read_text() == old


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127, "a" * 200, "名" * 60])
def test_a_name_as_long_as_the_disk_takes_is_written(tmp_path: Path, name: str):
    write_text(tmp_path / name, "whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "whole"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failure_after_the_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    path = tmp_path / "run.json"
    path.write_text("old")

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_write_that_the_file_system_cuts_off_leaves_the_old_file_and_no_other(tmp_path: Path):
    # A limit on file sizes cuts a write off like a full disk. It applies to a whole process, so a new one is started, which
    # imports only the one module to be quick.
    script = textwrap.dedent("""
        import importlib.util, resource, signal, sys
        from pathlib import Path
        spec = importlib.util.spec_from_file_location("files", sys.argv[1])
        files = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(files)
        path = Path(sys.argv[2])
        files.write_json(path, {"old": True})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            files.write_json(path, {"new": "x" * 100_000})
        except OSError as error:
            print(type(error).__name__)
    """)
    source = sys.modules[write_json.__module__].__file__
    arguments = [sys.executable, "-I", "-c", script, str(source), str(tmp_path / "run.json")]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "OSError"
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]
    assert json.loads((tmp_path / "run.json").read_text()) == {"old": True}


def test_reader_during_the_write_sees_the_old_file(tmp_path: Path):
    path = tmp_path / "run.json"
    write_text(path, "old")

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent  # a rename across file systems is not atomic

    write_whole(path, write)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_at_once_use_different_temporary_files(tmp_path: Path):
    path = tmp_path / "run.json"

    def outer(temporary: Path) -> None:
        temporary.write_text("outer")
        write_text(path, "inner")
        assert path.read_text() == "inner"

    write_whole(path, outer)
    assert path.read_text() == "outer"
    assert list(tmp_path.iterdir()) == [path]


@given(plain)
@settings(max_examples=60, deadline=None)
def test_plain_data_comes_back_as_it_went(tmp_path_factory: pytest.TempPathFactory, value: Any):
    path = tmp_path_factory.getbasetemp() / "plain.json"
    write_json(path, value)
    assert json.loads(path.read_text(encoding="utf-8")) == value


@given(st.lists(st.floats() | st.lists(st.floats(), max_size=3), max_size=5))
@settings(max_examples=60, deadline=None)
def test_number_that_is_not_finite_becomes_null_and_no_other_changes(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any]
):
    def expected(value: Any) -> Any:
        if isinstance(value, list):
            return [expected(entry) for entry in value]
        return value if math.isfinite(value) else None

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    path = tmp_path_factory.getbasetemp() / "floats.json"
    write_json(path, {"list": values, "tuple": tuple(values), "nested": {"inner": values}})
    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert content == dict.fromkeys(("list", "tuple"), expected(values)) | {"nested": {"inner": expected(values)}}


@pytest.mark.parametrize("name", ["run.json", "a" * 255, ".hidden", "x.tmp", "é" * 100])
def test_what_a_killed_write_left_is_removed_and_nothing_else(tmp_path: Path, name: str):
    (tmp_path / "kept.tmp").touch()
    (tmp_path / name).touch()
    before = sorted(tmp_path.iterdir())

    def killed(temporary: Path) -> None:
        temporary.touch()
        os.link(temporary, tmp_path / "litter")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / name, killed)
    temporary = []
    write_whole(tmp_path / name, lambda path: (temporary.append(path), path.touch()))
    (tmp_path / "litter").rename(temporary[0])
    assert sorted(tmp_path.iterdir()) != before
    remove_litter(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_litter_goes_when_the_lock_is_taken(tmp_path: Path):
    run, sweep = RunDirectory(tmp_path / "run"), SweepDirectory(tmp_path / "sweep")
    for folder in (run.path, run.checkpoints, run.path / ".hydra", sweep.path):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".last.ckpt.0123abcd.tmp").touch()
        (folder / f".curves.png.{'0' * 32}.tmp").touch()
        (folder / ".mine.tmp").touch()
    with run.locked(), sweep.locked():
        pass
    names = [path.name for path in tmp_path.rglob("*.tmp")]
    assert names == [".mine.tmp"] * 4
