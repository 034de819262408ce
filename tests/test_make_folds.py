"""The page's tables of nets over folds: what is averaged, over which tiles, and what is left out."""

import json
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support import ROOT

from segsweep.errors import UserError

CLASSES = ["Road", "Water", "Other"]


@pytest.fixture
def make_folds(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import make_folds

    return make_folds


def job(net: str, fold: int, ious: list[float | None], seed: int = 0) -> dict[str, Any]:
    """A completed job with an iou for each class, None for one without a pixel on its tile."""
    known = [iou for iou in ious if iou is not None]
    test = {"iou": sum(known) / len(known), **{f"iou/{name}": iou for name, iou in zip(CLASSES, ious, strict=True)}}
    return {
        "net": net,
        "fold": fold,
        "seed": seed,
        "parameters": 1234,
        "steps": 1500,
        "val": {"iou": 0.25},
        "test": test,
    }


def content(*jobs: dict[str, Any]) -> dict[str, Any]:
    return {"classes": CLASSES, "background": "Other", "tiles": ["Tile 2", "Tile 1", "Tile 3"], "jobs": list(jobs)}


def rows(text: str) -> list[list[str]]:
    """The cells of all rows of the tables, without headers."""
    lines = [
        line.removeprefix("| ").removesuffix(" |").split(" | ") for line in text.splitlines() if line.startswith("|")
    ]
    dividers = [at for at, line in enumerate(lines) if line[0] == "---"]
    return [line for at, line in enumerate(lines) if at not in dividers and at + 1 not in dividers]


def test_means_are_over_tiles_and_leave_out_the_background_and_what_a_tile_lacks(make_folds):
    ious = [[0.2, 0.4, 0.6], [0.4, 0.8, None], [0.6, None, 0.0]]
    text = make_folds.section(content(*(job("unet", fold, each) for fold, each in enumerate(ious))))
    net, *tiles = rows(text)
    iou, without = [0.4, 0.6, 0.3], [0.3, 0.6, 0.6]
    road, water, other = [0.2, 0.4, 0.6], [0.4, 0.8], [0.6, 0.0]
    spreads = [f"{np.mean(each):.3f} ± {np.std(each, ddof=1):.3f}" for each in (iou, without, road, water, other)]
    assert net == ["unet", "1,234", "1,500", "0.250 ± 0.000", *spreads]
    assert tiles == [["unet", "0.600", "0.300", "0.600", "", ""]]  # by the names of tiles
    assert "3 of 3 tiles" in text


def test_nets_are_compared_over_the_tiles_that_all_of_them_have(make_folds):
    jobs = [job("a", 0, [0.1, 0.1, 0.1]), job("a", 2, [0.9, 0.9, 0.9]), job("b", 0, [0.3, 0.3, 0.3])]
    text = make_folds.section(content(*jobs))
    assert text == make_folds.section(content(jobs[0], jobs[2]))
    assert rows(text)[-2:] == [["a", "0.100", "", ""], ["b", "0.300", "+0.200", ""]]
    with pytest.raises(UserError, match="no tile"):
        make_folds.section(content(jobs[1], jobs[2]))


def test_interval_of_a_difference_allows_for_shared_training_images(make_folds):
    first, second = [0.1, 0.2, 0.3], [0.2, 0.4, 0.4]
    jobs = [job(net, fold, [iou] * 3) for net, ious in (("a", first), ("b", second)) for fold, iou in enumerate(ious)]
    shared = 1  # one tile is test, one trains
    half = 4.302653 * np.std([0.1, 0.2, 0.1], ddof=1) * np.sqrt(1 / 3 + shared)  # t with 2 degrees of freedom
    expected = ["+0.133", f"{0.4 / 3 - half:+.3f} to {0.4 / 3 + half:+.3f}"]
    assert rows(make_folds.section(content(*jobs)))[-1][-2:] == expected


def test_each_tile_by_the_row_that_its_val_tile_prefers(make_folds):
    """The test tile has no part in the choice."""
    ious, vals = {"a": [0.1, 0.2], "b": [0.8, 0.4]}, {"a": [0.9, 0.2], "b": [0.1, 0.3]}
    jobs = [
        job(net, fold, [ious[net][fold]] * 3) | {"val": {"iou": vals[net][fold]}} for net in "ab" for fold in (0, 1)
    ]
    mean = f"0.250 ± {np.std([0.1, 0.4], ddof=1):.3f}"
    assert f"best on its own val tile: iou {mean}, without Other\n{mean}." in make_folds.section(content(*jobs))


def test_seeds_of_a_tile_are_averaged_before_the_spread_over_tiles(make_folds):
    jobs = [job("a", fold, [value] * 3, seed) for fold, seed, value in ((0, 0, 0.1), (0, 1, 0.3), (1, 0, 0.6))]
    text = make_folds.section(content(*jobs))
    assert rows(text)[0][4] == f"0.400 ± {np.std([0.2, 0.6], ddof=1):.3f}"
    assert "the mean of 2 seeds" in text


def test_sweeps_are_joined_if_they_have_the_same_classes_and_tiles(make_folds):
    one, other = (content(job(net, 0, [0.1, 0.2, 0.3])) | {"commands": [[net]]} for net in ("a", "b"))
    joined = make_folds.joined([one, other])
    assert joined == one | {"commands": [["a"], ["b"]], "jobs": [*one["jobs"], *other["jobs"]]}
    with pytest.raises(UserError, match="b: has other classes or tiles"):
        make_folds.joined([one, other | {"tiles": ["Tile 1"]}])


def test_the_pages_have_the_measured_figures(make_folds):
    found = json.loads((ROOT / "docs/measured/dubai_folds.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    section = page.partition("<!-- sweep dubai_folds -->\n")[2].partition("<!-- end of sweep dubai_folds -->")[0]
    assert section == make_folds.section(found)
    preset = make_folds.per_fold(found).loc["experiment=dubai"].mean()
    assert (
        f"an iou of {preset['iou']:.2f} from `experiment=dubai`, or {preset['without']:.2f} without Unlabeled" in page
    )
    assert f"**{preset['iou']:.2f}** on unseen aerial scenes" in (ROOT / "README.md").read_text(encoding="utf-8")
