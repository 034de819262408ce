"""Whatever the check prints to type can be pasted: bash and Hydra read it as it was meant."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import Folder
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_layouts import plain, typed_keys
from tool_folders import TOOLS

from segsweep.classes import ClassTable, LabelClass, MaskRule
from segsweep.classes.readers import read_table
from segsweep.classes.rules import MaskSettings
from segsweep.classes.table import hex_color, parse_color
from segsweep.classes.unlisted import unlisted_message
from segsweep.data import FolderSource
from segsweep.data.check import check_folder
from segsweep.data.folder_classes import NoClassTableError
from segsweep.errors import UserError

# An argument in quotes, or up to a space without the punctuation of the sentence.
ARGUMENT = re.compile(r"""(?<![\w.\["'])(?:"data\.\w+=[^"]*"|'data\.\w+=[^']*'|data\.\w+=\S*?(?=[.,;:)]*(?:\s|$)))""")


def words(script: str) -> list[str]:
    """What bash makes of some words."""
    found = subprocess.run(["bash", "-c", f"printf '%s\\0' {script}"], capture_output=True, check=True)
    return [os.fsdecode(word) for word in found.stdout.split(b"\0")[:-1]]


def advice(text: str) -> list[str]:
    """The arguments that a message says to type; without the one that it begins with, which was typed."""
    return [found.group() for found in ARGUMENT.finditer(text) if found.start() > 0]


def messages(root: Path, **options: Any) -> Iterator[str]:
    """Everything that a check of a folder prints to read."""
    try:
        report = check_folder(FolderSource(root, cache_dir=str(root.parent / "cache"), **options), workers=1)
    except UserError as error:
        yield str(error)
    else:
        yield from (*report.errors, *report.warnings, *report.mistakes, *report.doubts, *report.notes)


def deep(path: Path, bands: int = 0) -> None:
    values = np.arange(480 * max(bands, 1), dtype=np.uint16).reshape(20, 24, max(bands, 1))
    np.save(path.with_suffix(".npy"), values)
    path.unlink()


def masks_of(folder: Folder, values: Any) -> None:
    for path in folder.root.rglob("masks/*.png"):
        Image.fromarray(np.broadcast_to(np.array(values, dtype=np.uint8), (20, 24, *np.shape(values)))).save(path)


def exif(folder: Folder) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    folder.image("images/a.jpg", (24, 20), exif=tags)
    (folder.root / "images/a.png").unlink()


CASES: dict[str, tuple[Callable[[Folder], Any], dict[str, Any]]] = {
    "colours": (lambda f: masks_of(f, (1, 2, 3)), {}),
    "colours and some ignored": (lambda f: masks_of(f, (1, 2, 3)), {"ignore_colors": ["C8B45A"]}),
    "ids": (lambda f: masks_of(f, 9), {"by": "index"}),
    "lossy": (lambda f: f.image("masks/a.jpg") and (f.root / "masks/a.png").unlink(), {}),
    "ids with colours": (lambda f: masks_of(f, 1), {"by": "color"}),
    "no mask": (lambda f: (f.root / "masks/a.png").unlink(), {}),
    "other names": (lambda f: [p.rename(p.with_name(f"{p.stem} it's.png")) for p in f.root.rglob("masks/*.png")], {}),
    "exif": (exif, {"exif": "refuse"}),
    "exif of the mask": (exif, {"exif": "ignore"}),
    "bands": (lambda f: deep(f.root / "images/a.png", 4), {}),
    "fewer bands": (lambda f: None, {"channels": 5}),
    "dark": (lambda f: deep(f.root / "images/a.png"), {}),
    "bright": (lambda f: deep(f.root / "images/a.png"), {"white": 7}),
    "small": (lambda f: None, {"small": "refuse"}),
    "two pairs": (lambda f: [(f.root / k / f"{n}.png").unlink() for k in ("images", "masks") for n in "cdef"], {}),
    "no val": (lambda f: None, {"fractions": [0.9, 0.0, 0.1], "split": "fraction"}),
    "no groups": (lambda f: f.pair("x", folder="one/"), {"whole_groups": True}),
    "folds": (lambda f: None, {"folds": 9, "fold": 0}),
    "no fold": (lambda f: None, {"folds": 3}),
    "no table": (lambda f: (f.root / "classes.csv").unlink(), {}),
}  # fmt: skip


@pytest.fixture
def folder(folder: Folder) -> Folder:
    folder.root = folder.root.parent / "d"
    for name in "abcdef":
        folder.pair(name)
    folder.table()
    return folder


@pytest.mark.parametrize("case", CASES)
def test_what_the_check_says_to_type_is_one_word_to_bash_and_a_setting_to_hydra(folder: Folder, case: str):
    spoil, options = CASES[case]
    spoil(folder)
    found = [argument for text in messages(folder.root, **options) for argument in advice(text)]
    assert found
    for argument in found:
        (word,) = words(argument)
        (override,) = OverridesParser.create().parse_overrides([word])
        assert override.key_or_group.startswith("data."), argument


@pytest.mark.parametrize("case", ["colours", "colours and some ignored", "ids"])
def test_the_settings_that_map_or_ignore_are_right_at_once(folder: Folder, case: str):
    """A list that is typed replaces the one before, so it has that one's entries too."""
    spoil, options = CASES[case]
    for name in "ab":
        folder.mask(f"masks/{name}.png", values=np.arange(24) % 3)
    whole = {path: path.read_bytes() for path in folder.root.glob("masks/*.png")}
    spoil(folder)
    if options.get("by") != "index":
        (folder.root / "masks/a.png").write_bytes(whole[folder.root / "masks/a.png"])
    (line,) = check_folder(FolderSource(folder.root, **options)).mistakes
    for argument in advice(line):
        report = check_folder(FolderSource(folder.root, **{**options, **typed_keys(argument)}))
        if "map_" in argument:
            assert report.errors == ()
        else:  # all pixels of some masks
            assert all("every pixel is ignored" in error for error in report.errors)
            assert report.errors


@pytest.mark.parametrize("pattern", ["it's $HOME/*", "[a]", 'a "b"', "x\\", "a!b", "`a`"])
def test_the_command_for_a_folder_without_a_table_repeats_what_was_typed(folder: Folder, pattern: str):
    (folder.root / "classes.csv").unlink()
    with pytest.raises(NoClassTableError) as refused:
        FolderSource(folder.root, exclude=[pattern])
    (command,) = re.findall(r"segsweep check (.*) to get", str(refused.value))
    assert typed_keys(command) == {"root": str(folder.root), "exclude": [pattern]}


@pytest.mark.parametrize("tool", TOOLS)
def test_the_messages_about_a_tool_s_folder_can_be_pasted(tmp_path: Path, tool: str):
    TOOLS[tool](tmp_path / "d")
    for path in (tmp_path / "d").glob("*.csv"):
        path.unlink()
    for text in messages(tmp_path / "d"):
        for argument in advice(text):
            (word,) = words(argument)
            (override,) = OverridesParser.create().parse_overrides([word])
            assert override.key_or_group.startswith("data.")


@given(
    colors=st.lists(st.integers(0, 0xFFFFFF), min_size=1, max_size=16, unique=True),
    names=st.lists(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=9).map(str.strip),
        min_size=2,
        max_size=4,
        unique=True,
    ),
    ignored=st.integers(0, 0xFFFFFF),
)
def test_any_colours_and_class_names_come_back_from_bash_and_hydra(colors: list[int], names: list[str], ignored: int):
    """Among them colours that look like numbers, as 112233 and 1E2040, and names with quotes."""
    try:
        labels = ClassTable([LabelClass(at, name, (at, 0, 0)) for at, name in enumerate(names)])
    except UserError:  # a name that no class may have
        return
    rule = MaskRule(ignore_colors=[hex_color(ignored)])
    text = unlisted_message("a.png", "color", np.array(colors), np.array(colors) * 0 + 1, 99, labels, rule)
    mapping, ignoring = re.search(r", as in (.*), or ignore (?:it|them) with (.*)\.$", text).groups()
    (mapping,), (ignoring,) = words(mapping), words(ignoring)
    parsed = OverridesParser.create().parse_overrides([mapping, ignoring])
    mapped, left_out = (plain(override.value()) for override in parsed)
    read = MaskSettings(map_colors=mapped).applied(MaskRule()).map_colors
    assert set(read) == {hex_color(color) for color in colors}
    assert set(read.values()) <= set(names)
    read_list = MaskSettings(ignore_colors=left_out)
    assert set(read_list.applied(MaskRule()).ignore_colors) == {hex_color(color) for color in [ignored, *colors]}


@given(color=st.integers(0, 0xFFFFFF))
def test_a_colour_may_lack_its_mark_in_every_place(color: int, tmp_path_factory: pytest.TempPathFactory):
    text, other = f"{color:06X}", f"{color ^ 1:06x}"
    assert parse_color(text) == parse_color(f"0x{text}") == parse_color(f"#{text}")
    if re.fullmatch("[1-9][0-9]{5}", text):  # Hydra and YAML make it a number
        found = MaskSettings(ignore_colors=[int(text)], map_colors={int(other): "a"} if other.isdigit() else {})
        assert found.applied(MaskRule()).ignore_colors == (f"#{text}",)
    table = tmp_path_factory.getbasetemp() / "table.csv"
    for rows in (f"one,{text}\ntwo,{other}", f"name,color\none,{text}\ntwo,{other}", f"0,one,{text}\n1,two,{other}"):
        table.write_text(rows)
        assert [entry.color for entry in read_table(table).classes] == [parse_color(text), parse_color(other)], rows


@pytest.mark.parametrize(
    ("groups", "whole"), [([1], None), ([2], None), ([1, 1], True), ([3, 3], True), ([1, 5, 2], True)]
)
@pytest.mark.parametrize("fractions", [(0.7, 0.15, 0.15), (0.7, 0.3, 0.0), (0.9, 0.0, 0.1)])
def test_following_the_advice_about_a_split_leads_to_no_further_error(folder: Folder, groups, whole, fractions):
    for kind in ("images", "masks"):
        for path in (folder.root / kind).iterdir():
            path.unlink()
    for group, number in enumerate(groups):
        for at in range(number):
            folder.pair(f"{group}{at}", folder=f"group {group}/")
    options = {"fractions": list(fractions), "whole_groups": whole, "split": "fraction"}
    try:
        _ = FolderSource(folder.root, **options).splits
    except UserError as error:
        for argument in advice(str(error)):
            followed = FolderSource(folder.root, **{**options, **typed_keys(argument)}).splits
            assert followed.train
