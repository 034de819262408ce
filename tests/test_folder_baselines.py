"""The two baselines without a net, on folders with a known right answer."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from support import ROOT

from segsweep.classes import IGNORE
from segsweep.data import FolderSource
from segsweep.data.demo import DEMO_LABELS, write_demo_folder

CLASSES = len(DEMO_LABELS)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("folder_baselines")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    write_demo_folder(tmp_path / "scenes", scenes=(3, 1, 2), size=48)
    return tmp_path / "scenes"


def mask_counts(scenes: Path, part: str) -> np.ndarray:
    """Pixels of each class, counted in the colours of the mask files."""
    masks = [np.asarray(Image.open(path).convert("RGB")) for path in sorted((scenes / part / "masks").iterdir())]
    return np.array([sum((mask == entry.color).all(-1).sum() for mask in masks) for entry in DEMO_LABELS.classes])


def decoded(mask: np.ndarray, colours: np.ndarray, noise: int = 0, seed: int = 0) -> np.ndarray:
    """A decoded pair; each pixel has its class's colour, with noise of up to `noise`."""
    drawn = np.random.default_rng(seed).integers(-noise, noise + 1, (*mask.shape, 3))
    image = (colours[mask % len(colours)] + drawn).clip(0, 255)
    return np.concatenate([image.transpose(2, 0, 1), mask[None]]).astype(np.uint8)


def test_majority_has_its_class_s_share_of_the_test_pixels_right(benchmark, scenes: Path):
    source = FolderSource(str(scenes))
    results = benchmark.baselines(source.arrays("train"), benchmark.scored_samples(source), source.labels, bins=32)
    name = next(name for name in results if name.startswith("majority"))
    winner = mask_counts(scenes, "train").argmax()
    test = mask_counts(scenes, "test")
    assert results[name]["accuracy"] == test[winner] / test.sum()
    assert DEMO_LABELS.names[winner] in name
    assert results[name][f"iou/{DEMO_LABELS.names[winner]}"] == test[winner] / test.sum()
    others = [results[name][f"iou/{other}"] for other in DEMO_LABELS.names if other != DEMO_LABELS.names[winner]]
    assert all(value == 0 or np.isnan(value) for value in others)


def test_colour_is_always_right_if_each_class_has_its_own_colour(benchmark):
    colours = DEMO_LABELS.colors.astype(int)
    masks = np.random.default_rng(0).integers(0, CLASSES, (3, 20, 24))
    train = [decoded(mask, colours, noise=2, seed=seed) for seed, mask in enumerate(masks[:2])]
    # Colours that training lacks, but still nearest to the colour of their class.
    test = [decoded(masks[2], colours, noise=14, seed=9)]
    met = benchmark.colour_cells(np.concatenate([pair[:3] for pair in train], axis=1), 32)
    assert not np.isin(benchmark.colour_cells(test[0][:3], 32), met).all()
    results = benchmark.baselines(train, test, DEMO_LABELS, bins=32)
    metrics = next(found for name, found in results.items() if "colour" in name)
    assert metrics["accuracy"] == metrics["iou"] == metrics["iou_image"] == metrics["foreground_iou"] == 1.0


def test_ignored_pixels_are_neither_learnt_nor_scored(benchmark):
    colours = DEMO_LABELS.colors.astype(int)
    mask = np.random.default_rng(0).integers(0, CLASSES, (20, 24))
    pair = decoded(mask, colours)
    half = pair.copy()
    half[:3, :, 12:] = colours[0][:, None, None]
    half[3, :, 12:] = IGNORE
    whole, left = (benchmark.baselines([one], [one], DEMO_LABELS, bins=32) for one in (pair[:, :, :12], half))
    assert [*left.values()] == [*whole.values()]


def test_the_command_prints_a_table_and_writes_every_metric(
    benchmark, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], scenes: Path, tmp_path: Path
):
    file = tmp_path / "new" / "baselines.json"
    monkeypatch.setattr(sys, "argv", ["x", str(scenes), "data=folder", "--bins", "8", "--json", str(file)])
    benchmark.main()
    out = capsys.readouterr().out
    assert "| iou/Water |" in out
    for metrics in json.loads(file.read_text())["results"].values():
        assert {"iou", "iou_micro", "iou_image", "accuracy", "precision", "iou/Water"} <= set(metrics)
