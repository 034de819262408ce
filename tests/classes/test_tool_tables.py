"""Class tables as labelling tools write them."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_support import assert_says

from segsweep.classes import ClassTable, LabelClass, MaskRule, find_class_table, load_class_table, read_table
from segsweep.classes.table import hex_color, readable_colors
from segsweep.errors import UserError

NAME = st.text("abcxyzäß -", min_size=1, max_size=8).map(lambda text: " ".join(text.split()))
NAMES = st.lists(NAME.filter(lambda name: name[:1].isalpha()), min_size=2, max_size=8, unique=True)
FORMS = {
    "classes.csv": lambda names: "id,name\n" + "".join(f"{at},{name}\n" for at, name in enumerate(names)),
    "labels.csv": lambda names: "".join(f"{at};{name}\n" for at, name in enumerate(names)),
    "_classes.csv": lambda names: "Pixel Value, Class\n" + "".join(f"{at}, {n}\n" for at, n in enumerate(names)),
    "class_names.txt": lambda names: "\n".join(names),
    "labels.txt": lambda names: "\n".join(["__ignore__", *names]) + "\n",
    "numbered.txt": lambda names: "".join(f"{at}: {name}\n" for at, name in enumerate(names)),
    "classes.json": lambda names: json.dumps(names),
    "coco.json": lambda names: json.dumps(
        {"images": [], "categories": [{"id": at, "name": name, "supercategory": ""} for at, name in enumerate(names)]}
    ),
    "id2label.json": lambda names: json.dumps(dict(enumerate(names))),
    "label2id.json": lambda names: json.dumps({name: at for at, name in enumerate(names)}),
}


@settings(max_examples=15, deadline=None)
@given(names=NAMES)
@pytest.mark.parametrize("file", FORMS)
def test_names_with_ids_are_a_table_read_by_index(file: str, names: list[str]):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, file)
        path.write_text(FORMS[file](names), encoding="utf-8")
        table, rule = load_class_table(path)
        assert [(entry.id, entry.name) for entry in table.classes] == list(enumerate(names))
        assert rule == MaskRule(by="index")
        assert find_class_table(folder) in (path, None)


def test_assigned_colours_are_all_different_for_the_largest_table():
    names = [f"class {at}" for at in range(254)]
    colors = readable_colors(["background", *names])
    assert len(set(colors)) == 255
    assert colors[0] == (0, 0, 0)
    first = np.array(readable_colors(names)[:12], dtype=int)
    between = np.abs(first[:, None] - first[None]).sum(2)[~np.eye(12, dtype=bool)]
    assert between.min() > 50


@settings(max_examples=15, deadline=None)
@given(names=NAMES, seed=st.integers(0, 1000))
@pytest.mark.parametrize("form", ["cvat", "camvid"])
def test_a_colour_table_of_text_is_read_by_colour(form: str, names: list[str], seed: int):
    colors = np.random.default_rng(seed).permutation(256)[: 3 * len(names)].reshape(-1, 3).tolist()
    rows = [(name, *color) for name, color in zip(names, colors, strict=True)]
    lines = {
        "cvat": ["# label:color_rgb:parts:actions", *(f"{name}:{r},{g},{b}::" for name, r, g, b in rows)],
        "camvid": [f"{r} {g} {b}\t\t{name}" for name, r, g, b in rows],
    }[form]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / {"cvat": "labelmap.txt", "camvid": "label_colors.txt"}[form]
        path.write_text("\n".join(lines), encoding="utf-8")
        table, rule = load_class_table(path)
        assert table == ClassTable([LabelClass(at, *row) for at, row in enumerate(zip(names, colors, strict=True))])
        assert rule == MaskRule(by="color")
        assert find_class_table(folder) == path


def test_cvat_s_background_is_the_background_wherever_it_stands(tmp_path: Path):
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nCat:48,112,32::\nbackground:0,0,0::\n")
    table = read_table(tmp_path / "labelmap.txt")
    assert (table.names, table.background) == (["Cat", "background"], "background")


def test_supervisely_s_classes_are_numbered_from_1_beside_a_black_background(tmp_path: Path):
    classes = [{"title": name, "shape": "bitmap", "color": color, "id": 8231424 + at}
               for at, (name, color) in enumerate([("kiwi", "#FF0000"), ("lemon", "#51C6AA")])]  # fmt: skip
    (tmp_path / "meta.json").write_text(json.dumps({"classes": classes, "tags": [], "projectType": "images"}))
    table, rule = load_class_table(find_class_table(tmp_path))
    found = [(entry.id, entry.name, hex_color(entry.color)) for entry in table.classes]
    assert found == [(0, "background", "#000000"), (1, "kiwi", "#FF0000"), (2, "lemon", "#51C6AA")]
    assert (table.background, rule) == ("background", MaskRule())


def test_roboflow_s_table_is_found_in_the_folders_of_the_splits(tmp_path: Path):
    for part in ("train", "valid"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, crack\n")
    assert find_class_table(tmp_path) == tmp_path / "train/_classes.csv"
    (tmp_path / "valid/_classes.csv").write_text("Pixel Value, Class\n0, background\n2, crack\n")
    with pytest.raises(UserError, match=r"valid/_classes\.csv: lists other classes .*data\.labels"):
        find_class_table(tmp_path)


def test_a_table_without_colours_is_found_only_under_the_name_of_one(tmp_path: Path):
    (tmp_path / "patients.csv").write_text("id,name\n1,Ada\n2,Bob\n")
    (tmp_path / "train.txt").write_text("a\nb\n")
    (tmp_path / "settings.json").write_text('{"epochs": 3, "size": 4}')
    assert find_class_table(tmp_path) is None


@pytest.mark.parametrize("to", ["../outside.csv", "../out/_classes.csv"])
def test_a_table_linked_from_outside_the_folder_is_refused(tmp_path: Path, to: str):
    (tmp_path / "data/train").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    for name in ("outside.csv", "out/_classes.csv"):
        (tmp_path / name).write_text("id,name\n0,a\n1,b\n")
    link = "classes.csv" if "outside" in to else "train/_classes.csv"
    (tmp_path / "data" / link).symlink_to(tmp_path / to.removeprefix("../"))
    with pytest.raises(UserError, match=rf"{link}: is a link that leaves the folder"):
        find_class_table(tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("labelmap.txt", "", ("no class",)),
        ("class_names.txt", "__ignore__\n", ("no class",)),
        ("labelmap.txt", "Cat:1,2,3::\nDog:::\n", ("'Dog'", "no colour", "Dog:r,g,b::")),
        ("labelmap.txt", "Cat:1,2,300::\n", ("'Cat'", "'300'")),
        ("class_names.txt", "a\nb\na\n", ("'a'", "rename")),
        ("classes.json", '[{"name": "a", "id": 0}, {"name": "b", "id": 1, "color": "#010203"}]', ("class 1 ", "color")),
        ("classes.csv", "id,name\n0,a\nx,b\n", ("'b'", "'x'")),
    ],
)
def test_a_damaged_table_is_refused_by_name_and_what_is_wrong(tmp_path: Path, name: str, content: str, parts):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as caught:
        load_class_table(find_class_table(tmp_path) or tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert_says(str(caught.value), *parts)


def test_a_line_of_a_million_spaces_takes_no_time(tmp_path: Path):
    path = tmp_path / "class_names.txt"
    path.write_text("a" + 1_000_000 * " " + "b\nc\n")
    with pytest.raises(UserError, match=r"1,000,002 characters"):
        read_table(path)
