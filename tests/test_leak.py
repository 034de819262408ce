"""Trainings in pairs, with neighbours of the test patches and without: stored as each ends, and put into a page."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folder_baselines
import leak
import numpy as np
import pytest
import yaml
from leaking_patches import divide
from scipy import stats
from support import SMALL
from tiles import write_tiles

from segsweep.data import FolderSource

PAGE = "before\n<!-- leak -->\n<!-- end of leak -->\nafter\n"
FAST = [
    *SMALL[2:], "data.image_size=16", "data.batch_size=2", "trainer.threads=1", "callbacks.panel=null",
    "callbacks.confusion=null", "logger=csv",
]  # fmt: skip


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs the benchmark on three made-up tiles with patches of 16 x 16 pixels, with more arguments."""
    monkeypatch.chdir(tmp_path)
    write_tiles(tmp_path / "tiles", tiles=3)
    (tmp_path / "page.md").write_text(PAGE)

    def run(*arguments: str) -> None:
        files = ["--json", "new/leak.json", "--page", "page.md"]
        typed = ["leak.py", "tiles", "out", "--size", "16", "--steps", "2", *files, *arguments, *FAST]
        monkeypatch.setattr(sys, "argv", typed)
        leak.main()

    return run


def stored(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "new/leak.json").read_text())


@pytest.mark.slow
def test_a_pair_differs_in_its_training_patches_alone_and_is_trained_once(measure, tmp_path: Path):
    measure("--models", "colour,unet", "--tiles", "Tile 2,Tile 3")
    content = stored(tmp_path)
    cases = [tuple(entry[key] for key in leak.CASE) for entry in content["trainings"]]
    assert cases == [
        (model, steps, tile, 0, neighbours)
        for model, steps in (("colour", 0), ("unet", 2))
        for tile in ("Tile 2", "Tile 3")
        for neighbours in (False, True)
    ]
    for tile in ("Tile 2", "Tile 3"):
        runs = [tmp_path / f"out/runs/unet, 2 steps, {tile}, seed 0, {arm}" for arm in ("without", "with")]
        configs = [yaml.safe_load((run / "config.yaml").read_text()) for run in runs]
        lists = [{part: config["data"].pop(part) for part in ("train", "val", "test")} for config in configs]
        assert configs[0] == configs[1]
        without, with_ = (
            {part: set(Path(path).read_text().split("\n")) for part, (path,) in each.items()} for each in lists
        )
        assert (without["val"], without["test"]) == (with_["val"], with_["test"])
        assert {name.startswith(tile) for name in with_["train"] - without["train"]} == {True}
        entries = [entry for entry in content["trainings"] if (entry["model"], entry["tile"]) == ("unet", tile)]
        for run, entry in zip(runs, entries, strict=True):
            record = json.loads((run / "run.json").read_text())
            assert record["best_step"] == record["steps"] == 2
            assert entry["test"] == {key[5:]: value for key, value in record["metrics"].items() if key[:5] == "test/"}
    sizes = {(entry["tile"], entry["train_patches"], entry["test_patches"]) for entry in content["trainings"]}
    assert len(sizes) == 2  # as many in both trainings of a tile
    page = (tmp_path / "page.md").read_text()
    assert page == leak.section(content).join(["before\n<!-- leak -->\n", "<!-- end of leak -->\nafter\n"])

    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/runs/*/run.json")}
    measure("--models", "unet", "--tiles", "Tile 2,Tile 3")
    assert stored(tmp_path) == content
    (tmp_path / "new/leak.json").unlink()  # as if stopped between a training and its file
    measure("--models", "colour,unet", "--tiles", "Tile 2,Tile 3")
    assert stored(tmp_path) == content
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/runs/*/run.json")} == times


def test_the_colour_classifier_learns_from_the_training_patches_and_is_scored_on_the_test_patches(
    measure, tmp_path: Path
):
    measure("--models", "colour", "--seeds", "0,1")
    content = stored(tmp_path)
    assert len(content["trainings"]) == 3 * 2 * 2
    source = FolderSource("out/patches_16", "dubai", split="fraction", whole_groups=False)
    pixels = {
        pair.name: array
        for part in ("train", "val", "test")
        for pair, array in zip(source.splits[part], source.arrays(part), strict=True)
    }
    for entry in content["trainings"]:
        division = divide(list(pixels), entry["tile"], 16, entry["seed"])
        train = [pixels[name] for name in division.train[entry["neighbours"]]]
        predict = folder_baselines.colour_classifier(train, len(source.labels), 3, leak.BINS)
        scores = folder_baselines.score(predict, [pixels[name] for name in sorted(division.test)], source.labels)
        assert entry["test"] == {name: None if math.isnan(value) else value for name, value in scores.items()}


def test_other_patches_or_settings_are_not_mixed_with_stored_ones(measure, tmp_path: Path):
    measure("--models", "colour", "--tiles", "Tile 1")
    before = (tmp_path / "new/leak.json").read_text()
    for other in (["--size", "24"], ["data.flips=false"]):
        with pytest.raises(SystemExit, match="--size 16 "):
            measure("--models", "colour", "--tiles", "Tile 1", *other)
    with pytest.raises(SystemExit, match="Tile 9: there are Tile 1, Tile 2, Tile 3"):
        measure("--models", "colour", "--tiles", "Tile 1,Tile 9")
    assert (tmp_path / "new/leak.json").read_text() == before


def training(tile: str, seed: int, neighbours: bool, iou: float) -> dict[str, Any]:
    """A stored training of which all numbers but the iou are equal."""
    case = {"model": "unet", "steps": 300, "tile": tile, "seed": seed, "neighbours": neighbours}
    sizes = {"train_patches": 100, "val_patches": 5, "test_patches": 20}
    return case | sizes | {"test": {"iou": iou, "accuracy": 0.5}, "train_iou": 0.25}


def pair(tile: str, seed: int, without: float, with_: float) -> list[dict[str, Any]]:
    return [training(tile, seed, False, without), training(tile, seed, True, with_)]


def rows(*trainings: dict[str, Any]) -> list[list[str]]:
    """The cells of both tables, without headers."""
    lines = [
        line.strip("|").split("|") for line in leak.section({"trainings": list(trainings)}).splitlines() if "|" in line
    ]
    cells = [[cell.strip() for cell in line] for line in lines]
    dividers = [at for at, line in enumerate(cells) if "---" in line]
    return [line for at, line in enumerate(cells) if at not in dividers and at + 1 not in dividers]


def test_the_interval_is_of_the_differences_of_tiles_with_their_seeds_averaged():
    seeds = [*pair("a", 0, 0.2, 0.3), *pair("a", 1, 0.3, 0.6), *pair("b", 0, 0.4, 0.5), *pair("c", 0, 0.6, 0.9)]
    net, *tiles = rows(*seeds)
    difference = np.array([0.2, 0.1, 0.3])
    error = np.sqrt((1 / 3 + 20 / 100) * difference.var(ddof=1))
    half = stats.t.ppf(0.975, 2) * error
    means = [f"{np.mean([0.25, 0.4, 0.6]):.3f}", f"{np.mean([0.45, 0.5, 0.9]):.3f}"]
    interval = f"{difference.mean() - half:+.3f} to {difference.mean() + half:+.3f}"
    assert net == ["unet, 300 steps", "3", "4", *means, "+0.200", interval, "0.500", "0.500", "0.250", "0.250"]
    assert [row[-1] for row in tiles] == ["0.250, 0.450", "0.400, 0.500", "0.600, 0.900"]


def test_a_training_without_its_partner_counts_nowhere():
    whole = [*pair("a", 0, 0.2, 0.3), *pair("b", 0, 0.4, 0.5)]
    alone = [training("b", 1, True, 0.9), training("c", 0, False, 0.1)]
    assert rows(*whole, *alone) == rows(*whole)
    assert "|" not in leak.section({"trainings": alone})


def test_one_tile_has_no_interval():
    ((name, *_, difference, interval, _, _, _, _), _) = rows(*pair("a", 0, 0.2, 0.3), *pair("a", 1, 0.2, 0.5))
    assert (name, difference, interval) == ("unet, 300 steps", "+0.200", "")
