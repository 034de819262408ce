"""Patches as files, for the split that leaks."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from support import ROOT

from segsweep.data import FolderSource
from segsweep.data.demo import DEMO_LABELS, write_demo_folder


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("leaking_patches")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    write_demo_folder(tmp_path / "scenes", scenes=(3, 1, 2), size=50)
    return tmp_path / "scenes"


def decoded(source: FolderSource) -> dict[str, np.ndarray]:
    """Images with their masks behind them, by name."""
    parts = ("train", "val", "test")
    return {
        pair.name: pixels
        for part in parts
        for pair, pixels in zip(source.splits[part], source.arrays(part), strict=True)
    }


def test_patches_are_the_pixels_and_classes_that_were_there(script, scenes: Path, tmp_path: Path):
    assert script.cut_folder(scenes, tmp_path / "cut", size=16) == 6 * 3 * 3
    whole = decoded(FolderSource(str(scenes)))
    patches = decoded(FolderSource(str(tmp_path / "cut"), DEMO_LABELS, split="fraction", whole_groups=False))
    expected = {
        f"{name}_{top:04}_{left:04}": pixels[:, top : top + 16, left : left + 16]
        for name, pixels in whole.items()
        for top in (0, 16, 32)
        for left in (0, 16, 32)
    }
    assert patches.keys() == expected.keys()
    assert all(np.array_equal(patches[name], pixels) for name, pixels in expected.items())


def test_patches_are_not_written_into_a_folder_that_is_there(script, scenes: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["leaking_patches.py", str(scenes), str(tmp_path / "cut"), "--size", "32"])
    script.main()
    with pytest.raises(SystemExit, match="cut exists; name a new folder"):
        script.main()
