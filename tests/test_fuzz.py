"""Spoilt files of every kind are read as what they are, or refused in one line; tests/fuzz.py does this for longer."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import fuzz
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(autouse=True, scope="module")
def limit() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(fuzz.limits, "MAX_PIXELS", fuzz.PIXELS)
        monkeypatch.setattr(fuzz.limits, "MAX_BYTES", 8 * fuzz.PIXELS)
        yield


@pytest.mark.parametrize("name", fuzz.KINDS)
@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**62))
def test_a_spoilt_file_is_read_or_refused_in_one_line(name: str, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert fuzz.attempt(name, seed, Path(folder)) in ("read", "refused")


@pytest.mark.parametrize("name", fuzz.KINDS)
def test_whole_files_are_read(name: str, tmp_path: Path) -> None:
    kind = fuzz.KINDS[name]
    read = 0
    for number, (suffix, content) in enumerate(kind.seeds()):
        path = tmp_path / f"{number}" / f"whole{suffix}"
        path.parent.mkdir()
        path.write_bytes(content)
        for seed in range(6):  # the reader draws its rules
            try:
                kind.read(path, fuzz.random.Random(seed))
                read += 1
                break
            except fuzz.UserError:
                continue
    assert read >= len(kind.seeds()) / 3


def test_a_reader_that_fails_is_found_and_its_file_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(path: Path, choose: object) -> None:
        raise IndexError("out of range")

    def mumble(path: Path, choose: object) -> None:
        raise fuzz.UserError("something is wrong")

    for read, word in ((stumble, "IndexError"), (mumble, "no line that names the file")):
        monkeypatch.setitem(fuzz.KINDS, "table", fuzz.Kind(fuzz.table_seeds, fuzz.spoil_text, read))
        with pytest.raises(fuzz.Failure, match=word):
            fuzz.attempt("table", 3, tmp_path)
        (kept,) = tmp_path.glob("table-3.*")
        kept.unlink()
