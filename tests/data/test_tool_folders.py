"""Folders as labelling tools leave them: the check passes at the first try, or with what it says to add."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from support import ROOT, SMALL
from test_layouts import typed_keys, words_to_add
from tool_folders import TOOLS, label_studio, save, scene

from segsweep.classes import read_mask
from segsweep.data import FolderSource
from segsweep.data.check import check_folder
from segsweep.data.check_report import CheckReport
from segsweep.data.finding import scan
from segsweep.errors import UserError
from segsweep.runs.load import load_run

PAGE = (ROOT / "docs/your_folder.md").read_text(encoding="utf-8")
# What is typed at the first try, beside data.root.
KEYS = {
    "PASCAL VOC": {"labels": "voc"},
    "Cityscapes": {"labels": "cityscapes", "exclude": ["*/test/*"]},
    "ISPRS Potsdam": {"labels": "isprs"},
    "LoveDA": {"ignore_ids": [0]},
}
EXPECTED = {  # pairs of train, val and test, classes, and whether advice is needed
    "CVAT": (8, ["Cat", "Dog", "background"], False),
    "Roboflow": ((6, 2, 2), ["background", "crack", "spall"], False),
    "labelme": (6, ["_background_", "cat", "dog"], False),
    "Supervisely": (6, ["background", "kiwi", "lemon"], True),
    "PASCAL VOC": ((5, 3, 0), None, False),
    "Cityscapes": ((4, 2, 0), None, True),
    "CamVid": ((4, 2, 2), ["sky", "road", "car"], False),
    "DRIVE": (6, ["background", "vessel"], True),
    "Carvana": (6, ["background", "car"], True),
    "ISPRS Potsdam": (6, None, False),
    "LoveDA": (12, None, False),
}


def checked(root: Path, **settings: object) -> CheckReport:
    return check_folder(FolderSource(root, cache_dir=str(root.parent / "cache"), **settings), workers=1)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_s_folder_passes_at_the_first_or_second_try(tmp_path: Path, tool: str):
    root = tmp_path / "d"
    TOOLS[tool](root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    sizes, classes, asks = EXPECTED[tool]
    settings = KEYS.get(tool, {})
    try:
        report = checked(root, **settings)
        assert not asks
    except UserError as error:
        assert asks
        (way, *_) = [way for way in words_to_add(str(error)) if "color" not in way]
        report = checked(root, **settings, **typed_keys(way))
    assert report.errors == ()
    assert sum(report.split_sizes.values()) == (sizes if isinstance(sizes, int) else sum(sizes))
    if not isinstance(sizes, int):
        assert tuple(report.split_sizes.values()) == sizes
    if classes is not None:
        assert list(report.classes) == classes
        assert all(report.class_pixels())  # every class has pixels: none became another
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("tool", [tool for tool, (_, _, asks) in EXPECTED.items() if not asks])
def test_what_a_folder_said_of_its_masks_is_kept_with_the_run(tmp_path: Path, tool: str):
    TOOLS[tool](tmp_path / "d")
    settings = {"task": "multiclass", **KEYS.get(tool, {})}
    source = FolderSource(tmp_path / "d", **settings)
    # What is read later has the classes of the run, and nothing else of the folder's table.
    later = FolderSource(tmp_path / "d", **{**settings, **source.found_settings(), "labels": source.labels.to_dict()})
    if "labels" in settings:  # the preset is named in the run
        later = FolderSource(tmp_path / "d", **{**settings, **source.found_settings()})
    for pair in source.found.pairs:
        expected, found = (read_mask(pair.mask, each.labels, each.mask_rule).mask for each in (source, later))
        assert np.array_equal(expected, found)


def test_every_class_of_cvat_has_the_pixels_that_were_drawn(tmp_path: Path):
    TOOLS["CVAT"](tmp_path / "d")
    drawn = sum(np.bincount(scene(number)[1].ravel(), minlength=3) for number in range(8))
    report = checked(tmp_path / "d")
    assert report.class_pixels().tolist() == [drawn[1], drawn[2], drawn[0]]


def test_both_kinds_of_supervisely_s_masks_say_the_same(tmp_path: Path):
    TOOLS["Supervisely"](tmp_path / "d")
    human = checked(tmp_path / "d", images="img", masks="masks_human", mask_suffix=".jpeg")
    machine = checked(tmp_path / "d", images="img", masks="masks_machine", mask_suffix=".jpeg", by="index")
    assert [pair.mask_hash for pair in human.pairs] == [pair.mask_hash for pair in machine.pairs]


def test_label_studio_s_files_are_refused_by_their_name(tmp_path: Path):
    label_studio(tmp_path / "d")
    with pytest.raises(UserError, match=r"Label Studio.*docs/your_folder\.md"):
        scan(tmp_path / "d")


@pytest.mark.parametrize("tool", TOOLS)
def test_what_the_page_says_to_type_passes_at_once(tmp_path: Path, tool: str):
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {tool}"))
    words = re.findall("`([^`]*)`", row.split(" | ")[2])[0]
    TOOLS[tool](tmp_path / "d")
    keys = typed_keys(words)
    assert str(keys.pop("root")).startswith("PATH")
    report = checked(tmp_path / "d", **keys)
    assert report.errors == ()
    assert report.pairs


def test_the_page_s_program_joins_label_studio_s_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    label_studio(tmp_path / "d")
    monkeypatch.chdir(tmp_path / "d")
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(program, {})
    report = checked(tmp_path / "d/joined")
    drawn = sum(np.bincount(scene(number)[1].ravel(), minlength=3) for number in range(6))
    assert (report.errors, report.classes) == ((), ("background", "Cat", "Dog"))
    assert report.class_pixels().tolist() == drawn.tolist()


def test_the_command_prints_what_it_found_and_a_run_keeps_it(command, tmp_path: Path):
    """What was found stands in the checkpoint: files that are added later do not change what is scored."""
    TOOLS["CVAT"](tmp_path / "d")
    outcome = command("check_data.py", "data.root=d", "hydra.run.dir=check")
    assert outcome.code == 0, outcome.err
    assert "data.images=JPEGImages data.masks=SegmentationClass" in outcome.out
    small = ["data=folder", "data.root=d", "data.batch_size=2", "trainer.max_steps=1", "hydra.run.dir=run"]
    outcome = command("train.py", *SMALL, *small)
    assert outcome.code == 0, outcome.err
    data = load_run(tmp_path / "run").settings("data")
    assert (data["images"], data["masks"]) == ("JPEGImages", "SegmentationClass")
    before = evaluated(command, "first")
    for number in range(3):
        image, mask = scene(70 + number)
        save(tmp_path / f"d/images/{number}.png", image)
        save(tmp_path / f"d/masks/{number}.png", mask)
    assert len(scan(tmp_path / "d").pairs) == 3
    assert evaluated(command, "second") == before


def evaluated(command, folder: str) -> str:
    outcome = command("evaluate.py", "run=run", f"output={folder}", "split=val", "accelerator=cpu")
    assert outcome.code == 0, outcome.err
    return json.dumps(json.loads(Path(folder, "evaluation.json").read_text())["metrics"])
