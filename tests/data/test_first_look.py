"""A folder without a class table: the first message says what its masks hold, and what to type next."""

import json
import re
import shlex
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support import SMALL, Command
from tool_folders import TOOLS, save, scene

from segsweep.classes import PRESETS, MaskRule, load_class_table, read_mask
from segsweep.classes.rules import MaskSettings
from segsweep.data import FolderSource, first_look
from segsweep.data.check import check_folder
from segsweep.data.first_look import MaskLook, look_at_masks
from segsweep.data.folder_classes import NoClassTableError
from segsweep.data.layouts import LayoutSettings
from segsweep.errors import UserError

IDS = st.lists(st.integers(0, 255), min_size=1, max_size=9, unique=True)
COLORS = st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=9, unique=True)


def look(root: Path, **masks: Any) -> MaskLook:
    return look_at_masks(root, LayoutSettings(), MaskSettings(**masks))


def written(root: Path, masks: list[Any], names: str = "{}.png") -> None:
    """Writes masks [H, W] or [H, W, 3] beside images of noise."""
    for number, mask in enumerate(masks):
        save(
            root / f"images/{number}.png",
            np.random.default_rng(number).integers(0, 255, (*mask.shape[:2], 3), np.uint8),
        )
        if names.endswith(".npy"):
            (root / "masks").mkdir(exist_ok=True)
            np.save(root / "masks" / names.format(number), mask)
        else:
            save(root / "masks" / names.format(number), mask)


def require_read(found: MaskLook, root: Path) -> None:
    """The table and the keys of a look read every mask, and each class has the pixels that were counted."""
    assert found.table is not None
    table = root / "table.csv"
    table.write_text(found.table)
    labels, rule = load_class_table(table)
    rule = MaskSettings(**found.keys).applied(rule)
    readings = [read_mask(path, labels, rule) for path in sorted((root / "masks").iterdir())]
    pixels = sum(reading.counts for reading in readings)
    assert Counter(dict(zip(found.classes, pixels.tolist(), strict=True))) == Counter(
        {value: count for value, count in found.values.items() if value in found.classes}
    )
    assert sum(reading.ignored for reading in readings) == sum(found.values[value] for value in found.ignored_ids)


@settings(max_examples=40, deadline=None)
@given(ids=IDS, kind=st.sampled_from(["gray", "rgb", "npy"]), seed=st.integers(0, 99))
def test_the_table_for_ids_reads_all_masks_with_the_pixels_that_were_counted(ids, kind, seed):
    masks = list(np.random.default_rng(seed).choice(np.array(ids, dtype=np.uint8), (3, 6, 7)))
    with tempfile.TemporaryDirectory() as folder:
        shaped = [np.repeat(mask[..., None], 3, axis=2) if kind == "rgb" else mask for mask in masks]
        written(Path(folder), shaped, "{}.npy" if kind == "npy" else "{}.png")
        found = look(Path(folder))
        if not found.two_spellings:
            assert set(found.classes) | set(found.ignored_ids) == set(np.unique(masks).tolist())
            require_read(found, Path(folder))


@settings(max_examples=40, deadline=None)
@given(colors=COLORS, palette=st.booleans(), same=st.booleans(), seed=st.integers(0, 99))
def test_the_table_for_colours_reads_all_masks_also_where_palettes_number_them_anew(colors, palette, same, seed):
    generator = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shown: Counter[tuple[int, ...]] = Counter()
        for number in range(3):
            order = np.array(colors, dtype=np.uint8)[
                np.arange(len(colors)) if same else generator.permutation(len(colors))
            ]
            mask = generator.integers(0, len(colors), (6, 7), dtype=np.uint8)
            written_mask = mask if palette else order[mask]
            save(folder / f"images/{number}.png", generator.integers(0, 255, (6, 7, 3), np.uint8))
            save(folder / f"masks/{number}.png", written_mask, order.tolist() if palette else None)
            shown.update(map(tuple, order[mask].reshape(-1, 3).tolist()))
        table = folder / "table.csv"
        found = look(folder)
        table.write_text(found.table or "")
        labels, rule = load_class_table(table)
        rule = MaskSettings(**found.keys).applied(rule)
        pixels = sum(read_mask(path, labels, rule).counts for path in sorted((folder / "masks").iterdir()))
        if "r,g,b" in table.read_text() and not found.two_spellings:
            assert {entry.color: count for entry, count in zip(labels.classes, pixels, strict=True)} == shown
        assert sum(pixels) == sum(shown.values())


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (1, 255)])
def test_masks_of_0_and_1_and_of_0_and_255_have_one_table(tmp_path: Path, values: tuple[int, int]):
    masks = [scene(number, classes=2)[1] for number in range(6)]
    scaled = [mask * (values[number % 2] if 0 not in values else max(values)) for number, mask in enumerate(masks)]
    written(tmp_path, scaled)
    Image.fromarray(255 * masks[0]).convert("1").save(tmp_path / "masks/0.png")
    found = look(tmp_path)
    (tmp_path / "classes.csv").write_text(found.table or "")
    report = check_folder(FolderSource(tmp_path, cache_dir=str(tmp_path / "cache")), workers=1)
    assert report.errors == ()
    assert report.classes == ("background", "object")
    assert report.class_pixels()[1] == sum(map(np.count_nonzero, masks))


def test_255_beside_other_ids_and_numbers_below_0_are_no_classes(tmp_path: Path):
    mask = np.array([[0, 1, 2], [255, -1, 2]], dtype=np.int16)
    written(tmp_path, [mask, mask], "{}.npy")
    found = look(tmp_path)
    assert (found.classes, found.keys) == ([0, 1, 2], {"ignore_ids": [-1, 255]})
    require_read(found, tmp_path)
    typed = look(tmp_path, ignore_ids=[0, -1])
    assert (typed.classes, typed.keys) == ([1, 2, 255], {"ignore_ids": [0, -1]})


@pytest.mark.parametrize("name", PRESETS)
def test_masks_in_the_colours_or_ids_of_a_preset_lead_to_it(tmp_path: Path, name: str):
    labels, rule = PRESETS[name]
    positions = np.arange(len(labels), dtype=np.uint8).repeat(3).reshape(len(labels), 3)
    written(tmp_path, [np.array([entry.id for entry in labels.classes], dtype=np.uint8)[positions]] * 2)
    ids = look(tmp_path)
    fitting = {preset: keys for preset, keys, _ in ids.presets_by_id}
    known = next(preset for preset in fitting if PRESETS[preset] is PRESETS[name])
    settings_ = MaskSettings(**fitting[known]).applied(rule)
    assert np.array_equal(read_mask(tmp_path / "masks/0.png", labels, settings_).mask, positions)
    for number in range(2):
        Image.fromarray(labels.colors[positions]).save(tmp_path / f"masks/{number}.png")
    fitting_colors = look(tmp_path).presets_by_color
    assert any(PRESETS[preset] is PRESETS[name] for preset in fitting_colors) == (rule.by != "index")


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_ids_with_a_preset_that_is_read_by_colour_lead_to_data_by_index(tmp_path: Path, mode: str):
    """By colour, id 0 would be black, which ISPRS ignores."""
    labels, rule = PRESETS["isprs"]
    mask = np.arange(6, dtype=np.uint8).repeat(2).reshape(4, 3)
    image = Image.fromarray(mask)
    if mode == "P":
        image.putpalette(bytes(value for value in range(256) for _ in range(3)))
    image.convert(mode).save(tmp_path / "mask.png")
    with pytest.raises(UserError, match=r"ids 0, 1, 2, 3, 4, 5.*data\.by=index") as refused:
        read_mask(tmp_path / "mask.png", labels, rule)
    assert "map_colors" not in str(refused.value)
    assert read_mask(tmp_path / "mask.png", labels, MaskRule(by="index")).counts.tolist() == [2] * 6


def test_blurred_masks_have_a_table_of_their_frequent_colours(tmp_path: Path):
    colors = np.array([(0, 0, 0), (230, 25, 75), (60, 180, 75)], dtype=np.uint8)
    masks = [np.kron(scene(number)[1], np.ones((8, 8), dtype=np.uint8)) for number in range(4)]
    written(tmp_path, [colors[mask] for mask in masks], "{}.jpg")
    found = look(tmp_path)
    assert found.keys == {"snap": True}
    (tmp_path / "classes.csv").write_text(found.table or "")
    report = check_folder(FolderSource(tmp_path, snap=True, cache_dir=str(tmp_path / "cache")), workers=1)
    assert report.errors == ()
    assert len(report.classes) == 3


def test_masks_of_instances_have_no_table(tmp_path: Path):
    written(tmp_path, [np.arange(600, dtype=np.uint16).reshape(20, 30)] * 2)
    assert look(tmp_path).table is None
    with pytest.raises(NoClassTableError):
        FolderSource(tmp_path)


def test_a_first_look_reads_a_bounded_sample_that_is_spread_over_the_folder(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(first_look, "LOOKED_AT", 5)
    written(tmp_path, [np.full((2, 3), number, dtype=np.uint8) for number in range(20)])
    found = look(tmp_path)
    assert len(found.values) == 5
    assert "5 of 20" in found.lines()[0]
    monkeypatch.setattr(first_look, "MOST_PIXELS", 11)
    assert len(look(tmp_path).values) == 2


def test_masks_that_cannot_be_read_are_counted_and_named(tmp_path: Path):
    written(tmp_path, [np.zeros((2, 3), dtype=np.uint8)] * 3)
    for name in "01":
        (tmp_path / f"masks/{name}.png").write_bytes(b"")
    assert any("2 of the masks" in line and "masks/0.png" in line for line in look(tmp_path).lines())
    (tmp_path / "masks/2.png").write_bytes(b"")
    with pytest.raises(NoClassTableError, match=r"masks/0\.png: the file is empty"):
        FolderSource(tmp_path)


@pytest.mark.quick
@pytest.mark.parametrize(
    "tool", ["CamVid", *(tool for tool in TOOLS if tool not in ("CamVid", "Supervisely", "Cityscapes"))]
)
def test_the_command_that_is_printed_passes_and_writes_nothing_into_the_folder(
    command: Command, tmp_path: Path, tool: str
):
    root = tmp_path / "a folder"
    TOOLS[tool](root)
    for path in [*root.glob("*.csv"), *root.glob("*.txt"), *root.glob("*/_classes.csv")]:
        path.unlink()
    typed = ["data.root=a folder", "data.unpaired=skip"]
    if tool in ("DRIVE", "Carvana"):
        masks = "1st_manual" if tool == "DRIVE" else "train_masks"
        keys = (
            ["data.mask_suffix=_manual1", "data.image_suffix=[_training,_test]"]
            if tool == "DRIVE"
            else ["data.mask_suffix=_mask"]
        )
        typed += [f"data.images={'images' if tool == 'DRIVE' else 'train'}", f"data.masks={masks}", *keys]
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    outcome = command("check_data.py", *typed, "hydra.run.dir=first")
    assert outcome.code == 1
    assert "no class table" in outcome.error_lines[0]
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    printed = re.findall(r"python (\S*check_data\.py .*)", outcome.out)
    assert printed
    for line in printed:
        if "by=index" in line and tool == "ISPRS Potsdam":
            continue
        outcome = command(*shlex.split(line), "hydra.run.dir=second")
        assert outcome.code == 0, (line, outcome.err)
    report = json.loads((tmp_path / "second/check.json").read_text())
    assert report["classes"][0] in ("background", "class_0")


@pytest.mark.quick
def test_a_training_is_refused_with_the_finding_and_the_check_to_run(command: Command, tmp_path: Path):
    TOOLS["CamVid"](tmp_path / "d")
    (tmp_path / "d/classes.csv").unlink()
    keys = ["data=folder", "data.root=d", "data.images=[train,val,test]", "data.masks=[trainannot,valannot,testannot]"]
    outcome = command("train.py", *SMALL, *keys)
    assert (outcome.code, len(outcome.error_lines)) == (1, 1)
    assert "ids 0, 1, 2" in outcome.err
    (line,) = re.findall(r"python (\S*check_data\.py .*?) to get", outcome.err)
    outcome = command(*shlex.split(line), "hydra.run.dir=check")
    assert (tmp_path / "check/classes.csv").is_file()
