"""The benchmark that cuts a folder into patches cuts every pixel correctly, and never into an existing folder."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from support import ROOT

from segsweep.data import FolderSource
from segsweep.data.demo import DEMO_LABELS, write_demo_folder


def decoded(source: FolderSource) -> dict[str, np.ndarray]:
    """Image and mask by name."""
    return {
        pair.name: pixels
        for part in ("train", "val", "test")
        for pair, pixels in zip(source.splits[part], source.arrays(part), strict=True)
    }


def test_patches_hold_the_pixels_and_classes_of_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    cut_folder = importlib.import_module("leaking_patches").cut_folder
    scenes, cut = tmp_path / "scenes", tmp_path / "cut"
    write_demo_folder(scenes, scenes=(3, 1, 2), size=50)
    assert cut_folder(scenes, cut, size=16) == 6 * 3 * 3
    patches = decoded(FolderSource(str(cut), DEMO_LABELS, split="fraction", whole_groups=False))
    expected = {
        f"{name}_{top:04}_{left:04}": pixels[:, top : top + 16, left : left + 16]
        for name, pixels in decoded(FolderSource(str(scenes))).items()
        for top in (0, 16, 32)
        for left in (0, 16, 32)
    }
    assert patches.keys() == expected.keys()
    assert all(np.array_equal(patches[name], pixels) for name, pixels in expected.items())
    with pytest.raises(FileExistsError):
        cut_folder(scenes, cut, size=32)
