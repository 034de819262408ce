import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_support import assert_says

from segsweep.classes import PRESETS, ClassTable, LabelClass, MaskRule, find_class_table, load_class_table, read_table
from segsweep.errors import UserError

TABLE = ClassTable([LabelClass(0, "Building", (60, 16, 152)), LabelClass(1, "Land, bare", (132, 41, 246))])
names = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]).filter(str.isprintable), min_size=1, max_size=12
)
colors = st.tuples(*[st.integers(0, 255)] * 3)


@st.composite
def tables(draw):
    shades = draw(st.lists(colors, min_size=1, max_size=8, unique=True))
    size = len(shades)
    words = draw(st.lists(names.map(str.strip).filter(bool), min_size=size, max_size=size, unique=True))
    ids = draw(st.lists(st.integers(0, 65535), min_size=size, max_size=size, unique=True))
    return ClassTable([LabelClass(*row) for row in zip(ids, words, shades, strict=True)])


def quoted(cell: object) -> str:
    return '"{}"'.format(str(cell).replace('"', '""'))


@settings(max_examples=60, deadline=None)
@given(
    labels=tables(),
    delimiter=st.sampled_from([",", ";", "\t", ", ", " ; "]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    newline=st.sampled_from(["\n", "\r\n", "\n\n"]),
    order=st.permutations(["Name", " R ", "g", "BLUE", "Class ID", "remark"]),
)
def test_a_table_survives_csv(labels, delimiter, encoding, newline, order):
    rows = [order]
    for entry in labels.classes:
        cells = dict(
            zip(
                ["Name", " R ", "g", "BLUE", "Class ID", "remark"],
                [quoted(entry.name), *entry.color, entry.id, ""],
                strict=True,
            )
        )
        rows.append([str(cells[column]) for column in order])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "classes.csv"
        path.write_bytes(newline.join(delimiter.join(row) for row in rows).encode(encoding))
        assert read_table(path) == labels


@settings(max_examples=30, deadline=None)
@given(labels=tables(), bom=st.booleans())
def test_a_table_survives_json(labels, bom):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "classes.json"
        for content in (labels.to_dict(), labels.to_dict()["classes"]):
            path.write_text(json.dumps(content), encoding="utf-8-sig" if bom else "utf-8")
            assert read_table(path) == labels


@pytest.mark.parametrize(
    "text",
    [
        'name,r,g,b\nBuilding,60,16,152\n"Land, bare",132,41,246\n',
        'name, r, g, b\n Building , 60, 16, 152\n"Land, bare" , 132, 41, 246\n',
        "Name;R;G;B\nBuilding;60;16;152\nLand, bare;132;41;246\n",
        "sep=;\nclass;red;green;blue;;\nBuilding;60;16;152;;\nLand, bare;132;41;246;;\n",
        "name\tr\tg\tb\nBuilding\t60\t16\t152\nLand, bare\t132\t41\t246",
        "b;g;r;label\n152;16;60;Building\n246;41;132;Land, bare\n",
        "Building;60;16;152\nLand, bare;132;41;246\n",
        "60;16;152;Building\n132;41;246;Land, bare\n",
        "0;Building;60;16;152\n1;Land, bare;132;41;246\n",
        "# the classes of the set\n# name;r;g;b\nBuilding;60;16;152\n\nLand, bare;132;41;246\n",
        "name;color\nBuilding;#3C1098\nLand, bare;8429f6\n",
        "#3c1098;Building\n#8429f6;Land, bare\n",
        "name;r;g;b;11\nBuilding;60;16;152;1\nLand, bare;132.0;41.0;246;1\n".replace(";11", ";used"),
        "id;name;r;g;b;remark\n0;Building;60;16;152;\n1;Land, bare;132;41;246;mostly sand\n",
    ],
)
def test_a_csv_is_read_as_people_write_them(tmp_path, text):
    path = tmp_path / "classes.csv"
    path.write_text(text, encoding="utf-8")
    assert read_table(path) == TABLE


def test_the_json_of_annotation_tools_is_read(tmp_path):
    path = tmp_path / "classes.json"
    classes = [
        {"title": "Building", "shape": "polygon", "color": "#3C1098", "geometry_config": {}},
        {"title": "Land, bare", "shape": "polygon", "color": "#8429F6", "geometry_config": {}},
    ]
    path.write_text(json.dumps({"classes": classes, "tags": []}))
    assert load_class_table(path) == (TABLE, MaskRule())


def test_labels_come_from_a_preset_a_file_a_list_or_plain_data(tmp_path):
    entries = [{"name": "Building", "color": [60, 16, 152]}, {"name": "Land, bare", "color": "#8429F6"}]
    assert load_class_table(entries) == (TABLE, MaskRule())
    assert load_class_table(TABLE.to_dict()) == (TABLE, MaskRule())
    assert load_class_table("dubai") == PRESETS["dubai"]
    path = tmp_path / "classes.csv"
    path.write_text("Building,60,16,152\n")
    assert load_class_table(str(path))[0].names == ["Building"]


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.csv", "", ("no class", "name,r,g,b")),
        ("a.csv", "name,r,g,b\n", ("no class",)),
        ("a.csv", "name,r,g\nRoad,1,2\n", ("no column b", "name, r, g", "name,r,g,b")),
        ("a.csv", "title,name,r,g,b\na,b,1,2,3\n", ("'title' and 'name'", "rename")),
        ("a.csv", "name,r,g,b\nRoad,1,2,300\n", ("class 'Road'", "'300'")),
        ("a.csv", "name,r,g,b\nRoad,1,2\n", ("row 'Road,1,2'", "name,r,g,b")),
        ("a.csv", "name,r,g,b\nRoad,1,2,3\nRoad,4,5,6\n", ("'Road'", "rename")),
        ("a.csv", "name,r,g,b\nRoad,1,2,3\nWalk,1,2,3\n", ("'Road'", "'Walk'", "#010203")),
        ("a.csv", "name,r,g,b,id\nRoad,1,2,3,\nWalk,1,2,4,5\n", ("class 'Road'", "id ''")),
        ("a.csv", "Road,1,2,3,4\n", ("row 'Road,1,2,3,4'", "header name,r,g,b")),
        ("a.csv", b"name,r,g,b\nStra\xdfe,1,2,3\n", ("UTF-8",)),
        ("a.json", "[", ("JSON", "line 1:")),
        ("a.json", "[" * 100_000, ("nested",)),
        ("a.json", '{"images": []}', ("list of objects", '{"name": "Road", "color": "#6EC1E4"}')),
        ("a.json", '[{"name": "Road"}]', ("class 1 ", "color")),
        ("a.json", '[{"color": "#000000"}]', ("class 1 ", "name")),
        ("a.json", '[{"name": "a", "color": "#000000"}, {"name": "b", "color": "#000001", "id": 3}]', ("'a'", "no id")),
        ("a.json", '[{"name": "a", "title": "b", "color": "#000000"}]', ("class 1:", "'title'", "name", "remove")),
    ],
)
def test_an_invalid_class_table_file_is_refused_by_name_on_one_line(tmp_path, name, content, parts):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        load_class_table(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert_says(str(caught.value), *parts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("dubay", ("labels=dubay:", "did you mean dubai?", "dubai, isprs,")),
        ("none/classes.csv", ("none/classes.csv:", "no such file")),
        ([{"name": "a", "color": "#000000", "clor": 1}], ("labels: class 1:", "'clor'", "name, color and id")),
        ({"classes": [], "bakground": "a"}, ("labels:", "'bakground'", "classes and background")),
        ([], ("labels: ", "no class")),
        ([{"name": "a"}], ("labels: class 1", "color")),
        (["a"], ("labels: ", "list of objects", '{"name": "Road", "color": "#6EC1E4"}')),
        ([{"name": "a", "color": 0}], ("labels: class 'a':", "0", "'#RRGGBB' (in quotes) or [r, g, b]")),
    ],
)
def test_an_invalid_data_labels_is_refused_on_one_line(spec, parts):
    with pytest.raises(UserError) as caught:
        load_class_table(spec)
    assert_says(str(caught.value), *parts)
    assert "\n" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 300) | st.floats() | st.sampled_from(["a", "#000000", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "color", "id", "x"]), inner),
    max_leaves=6,
)


@given(st.lists(json_values, max_size=2), json_values)
def test_any_json_is_a_class_table_or_refused_on_one_line(classes, background):
    good = [{"name": "a", "color": "#000000"}]
    for spec in ({"classes": classes, "background": background}, {"classes": good, "background": background}, classes):
        try:
            found = str(load_class_table(spec)[0].names)
        except UserError as error:
            found = str(error)
        assert "\n" not in found


def test_the_one_class_table_in_a_folder_is_found_among_other_files(tmp_path):
    (tmp_path / "train.csv").write_text("image,mask\na.jpg,a.png\n")
    (tmp_path / "export.json").write_text('{"classes": [{"name": "a", "color": "#000000"}], "background": [0, 0, 0]}')
    (tmp_path / "run.json").write_text('{"status": "completed"}')
    (tmp_path / "broken.json").write_text("{")
    assert find_class_table(tmp_path) is None
    (tmp_path / "legend.CSV").write_text("name,r,g,b\nRoad,1,2,3\n")
    assert find_class_table(tmp_path) == tmp_path / "legend.CSV"
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "classes.csv").write_text("name,r,g,b\nRoad,1,2,3\n")
    assert find_class_table(tmp_path) == tmp_path / "legend.CSV"
    (tmp_path / "classes.json").write_text('[{"name": "Road", "color": "#010203"}]')
    with pytest.raises(UserError, match=r"classes\.json, legend\.CSV.* data\.labels"):
        find_class_table(tmp_path)


def test_a_file_named_like_a_class_table_is_found_although_it_has_a_mistake(tmp_path):
    (tmp_path / "classes.csv").write_text("name,r,g\nRoad,1,2\n")
    found = find_class_table(tmp_path)
    assert found == tmp_path / "classes.csv"
    with pytest.raises(UserError, match="there is no column b"):
        load_class_table(found)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no such folder"):
        find_class_table(tmp_path / "none")


def test_a_pipe_a_device_and_a_huge_file_are_refused_at_once(tmp_path):
    path = tmp_path / "classes.csv"
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"classes\.csv: is a folder or device"):
        read_table(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"classes\.csv: is a folder or device"):
        read_table(path)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a sparse file takes no space on disk
    with pytest.raises(UserError, match="too large"):
        read_table(path)


def test_a_number_of_thousands_of_digits_is_refused_with_the_file(tmp_path):
    path = tmp_path / "classes.json"
    path.write_text('[{"name": "a", "color": [0, 0, ' + "9" * 5000 + "]}]")
    with pytest.raises(UserError, match=r"classes\.json: holds a number"):
        read_table(path)


def test_a_class_name_as_long_as_a_page_is_refused():
    with pytest.raises(UserError, match=r"201 characters.* 200 "):
        LabelClass(0, "a" * 201, (0, 0, 0))
    assert LabelClass(0, "a" * 200, (0, 0, 0)).name == "a" * 200
