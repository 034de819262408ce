"""Damaged files of every kind are read correctly or refused in one line; run tests/fuzz.py for longer."""

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
def test_a_damaged_file_is_read_or_refused_in_one_line(name: str, seed: int) -> None:
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
        for seed in range(6):  # the reader draws its settings
            try:
                kind.read(path, fuzz.random.Random(seed))
                read += 1
                break
            except fuzz.UserError:
                continue
    assert read >= len(kind.seeds()) / 3
