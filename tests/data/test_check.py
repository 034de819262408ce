import hashlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import Folder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from support import Command

import segsweep
from segsweep import file_facts
from segsweep.check_data import print_report
from segsweep.data import check as check_module
from segsweep.data.check import check_folder
from segsweep.data.check_report import CheckReport, balanced_weights
from segsweep.data.folder import FolderSource
from segsweep.errors import UserError


@pytest.fixture
def folder(folder: Folder) -> Folder:
    """A folder without errors: two pairs in train, one in val and one in test."""
    for part, names in (("train", "ab"), ("val", "c"), ("test", "d")):
        for name in names:
            folder.pair(name, folder=f"{part}/")
    folder.table()
    return folder


def check(folder: Folder, workers: int | None = None, **options: Any) -> CheckReport:
    report = check_folder(FolderSource(str(folder.root), **options), workers)
    assert not any("\n" in line for line in (*report.errors, *report.warnings))
    assert report.ok == (not report.errors)
    return report


def only(lines: tuple[str, ...]) -> str:
    (line,) = lines
    return line


def test_a_sound_folder_is_ok_and_counted_right(folder: Folder) -> None:
    report = check(folder)
    assert report.ok
    assert report.warnings == ()
    assert report.sizes == {(20, 24): 4}
    assert report.modes == {"RGB": 4}
    assert report.split_sizes == {"train": 2, "val": 1, "test": 1}
    stripes = np.bincount((np.add.outer(np.arange(20), np.arange(24)) // 4 % 3).ravel())
    assert np.array_equal(report.class_pixels(), 4 * stripes)
    assert np.array_equal(report.class_pixels("train"), 2 * stripes)
    assert sum(report.class_fractions().values()) == pytest.approx(1)
    assert set(report.images_without.values()) == {()}


def test_the_report_does_not_depend_on_the_number_of_threads(folder: Folder) -> None:
    folder.image("train/images/b.png", (9, 9))
    reports = [check(folder, workers).to_dict() for workers in (1, 4)]
    for report in reports:
        del report["seconds"]
    assert reports[0] == reports[1]
    json.dumps(reports)


def test_a_second_check_says_the_same_and_reads_only_what_has_changed_or_was_wrong(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_facts, "SETTLED_SECONDS", -1.0)
    monkeypatch.setattr(file_facts, "WORTH_SECONDS", 0.0)
    read: list[str] = []
    read_image = check_module.read_image
    monkeypatch.setattr(
        check_module, "read_image", lambda path, rule: (read.append(path.stem), read_image(path, rule))[1]
    )

    def checked(**options: Any) -> dict[str, Any]:
        read.clear()
        report = check(folder, cache_dir=str(tmp_path / "cache"), **options).to_dict()
        return {name: value for name, value in report.items() if name != "seconds"}

    folder.image("train/images/b.png", (9, 9))
    first = checked()
    assert sorted(read) == ["a", "b", "c", "d"]
    assert checked() == first
    assert read == ["b"]  # its error is found again
    folder.pair("b", folder="train/")
    sound = checked()
    assert read == ["b"]
    assert sound["ok"]
    assert not checked(image_size=500, small="refuse")["ok"]  # which depends on no file
    assert read == []
    assert checked() == sound
    mask = folder.root / "val/masks/c.png"
    Image.open(folder.root / "train/masks/a.png").point(lambda value: 0).convert("RGB").save(mask)
    assert checked() == {name: value for name, value in check(folder).to_dict().items() if name != "seconds"}
    checked(exif="ignore")
    assert sorted(read) == ["a", "b", "c", "d"]


BAD_VALUES: list[tuple[str, Any]] = [
    *(("pixels", value) for value in ([], [1, 2], [1, 2, "3"], [1, 2, -3], [1, 2, 3.0], [1, 2, 10**400], None, 5)),
    *((name, value) for name in ("height", "width") for value in ("x", 0, 10**9, True, None, [])),
    *((name, value) for name in ("ignored", "snapped") for value in ("x", -1, 1.5, 10**400)),
    *((name, value) for name in ("errors", "warnings") for value in (5, 0, None, "text", [1], {})),
    *((name, value) for name in ("name", "image", "mode", "mask_hash") for value in (None, 1, ["a"])),
    *(("unlisted", value) for value in (5, [], None, {"#000000": 1})),
    *(("top", value) for value in ("x", [], float("nan"), float("inf"), 10**400)),
]


def test_stored_values_that_cannot_be_right_are_found_again(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_facts, "SETTLED_SECONDS", -1.0)
    monkeypatch.setattr(file_facts, "WORTH_SECONDS", 0.0)
    cache = tmp_path / "cache"
    first = replace(check(folder, cache_dir=str(cache)), seconds=0)
    (store,) = (cache / "facts").iterdir()
    whole = store.read_bytes()
    for name, value in [*BAD_VALUES, ("unknown", 1)]:
        facts = json.loads(whole.partition(b"\n")[2])
        next(iter(facts.values()))[-1][name] = value
        text = json.dumps(facts).encode()
        store.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
        assert replace(check(folder, cache_dir=str(cache)), seconds=0) == first, (name, value)
        assert store.read_bytes() == whole, (name, value)


def test_a_later_version_of_the_program_checks_and_counts_again(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_facts, "SETTLED_SECONDS", -1.0)
    monkeypatch.setattr(file_facts, "WORTH_SECONDS", 0.0)
    for stores, version in ((2, "1"), (2, "1"), (4, "2")):
        monkeypatch.setattr(segsweep, "__version__", version)
        check(folder, cache_dir=str(tmp_path / "cache"))
        FolderSource(str(folder.root), cache_dir=str(tmp_path / "cache")).shapes("train")
        assert len(list((tmp_path / "cache/facts").iterdir())) == stores


@pytest.fixture
def crowd(folder: Folder) -> Folder:
    """The folder with ten more pairs in train."""
    for number in range(10):
        folder.pair(f"more {number}", folder="train/")
    return folder


def _spoilt(folder: Folder, kind: str, change: Any) -> None:
    for number in range(10):
        change(folder.root / f"train/{kind}/more {number}.png")


CROWDS: dict[str, Any] = {
    "the file is empty": ("images", lambda path: path.write_bytes(b"")),
    "every pixel is 7": ("images", lambda path: Image.new("RGB", (24, 20), (7, 7, 7)).save(path)),
    "is 9 x 9 pixels": ("images", lambda path: Image.fromarray(np.arange(81, dtype=np.uint8).reshape(9, 9)).save(path)),
    "has a single class (sea)": ("masks", lambda path: Image.new("RGB", (24, 20), (0, 80, 200)).save(path)),
    "has no mask": ("masks", lambda path: path.unlink()),
    "4,800 pixels of colour #010203": ("masks", lambda path: Image.new("RGB", (24, 20), (1, 2, 3)).save(path)),
}


@pytest.mark.parametrize("said", CROWDS)
def test_files_with_the_same_fault_share_a_line_with_their_number_and_three_names(crowd: Folder, said: str) -> None:
    kind, change = CROWDS[said]
    _spoilt(crowd, kind, change)
    if said == "is 9 x 9 pixels":  # images alike would be another fault
        for number in range(10):
            noise = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(noise).save(crowd.root / f"train/images/more {number}.png")
    report = check(crowd)
    full, short = (report.errors, report.mistakes) if report.errors else (report.warnings, report.doubts)
    lines = [line for line in short if said in line]
    assert len(lines) == 1
    assert re.search(r"\b10 (files|masks|images)\b", lines[0])
    assert sum(f"more {number}.png" in lines[0].partition(": ")[0] for number in range(10)) == 3
    assert sum(any(f"more {number}.png" in line for line in full) for number in range(10)) == 10


def test_a_fault_has_no_line_about_what_follows_from_it(folder: Folder) -> None:
    """A class has no pixels where the masks that show it cannot be read, and no split can be made of no pairs."""
    for name in ("train/masks/a", "train/masks/b", "val/masks/c", "test/masks/d"):
        Image.new("RGB", (24, 20), (1, 2, 3)).save(folder.root / f"{name}.png")
    report = check(folder)
    assert (len(report.mistakes), report.doubts) == (1, ())
    for path in [*folder.root.rglob("masks/*.png")]:
        path.rename(path.with_name(f"other{path.name}"))
    found = check(folder, split="fraction")
    assert len(found.mistakes) == 2  # images without masks, masks without images
    assert all("4 files" in line for line in found.mistakes)


def test_different_faults_keep_their_own_lines(folder: Folder) -> None:
    for name, color in (("train/masks/a", (1, 2, 3)), ("val/masks/c", (4, 5, 6))):
        Image.new("RGB", (24, 20), color).save(folder.root / f"{name}.png")
    (folder.root / "train/images/b.png").write_bytes(b"")
    report = check(folder)
    empty, colors = report.mistakes
    assert "b.png: the file is empty" in empty
    assert all(word in colors for word in ("2 masks", "480 pixels", "#010203", "#040506"))


def test_a_report_names_what_is_passed_over_and_how_much_is_ignored_in_a_line_each(
    crowd: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(30):
        (crowd.root / f"train/images/notes {number}.txt").write_text("x")
    half = np.full((20, 24), 1)
    half[:10] = 0
    crowd.mask("train/masks/more 3.png", values=half)
    report = check(crowd, ignore_colors=["0050C8"])
    assert len(report.passed_over) == 30
    assert report.ignored["train/more 3"] == 0.5
    print_report(report, Console(soft_wrap=True))
    lines = capsys.readouterr().out.splitlines()
    (passed,) = [line for line in lines if "passed over" in line]
    assert "30 files" in passed
    assert ".txt" in passed
    (ignored,) = [line for line in lines if line.startswith("ignored: ")]
    assert "train/more 3 50.0 %" in ignored


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


SPOILERS: dict[str, Any] = {
    "train/images/a.png: empty": lambda f: (f.root / "train/images/a.png").write_bytes(b""),
    "train/masks/a.png: empty": lambda f: (f.root / "train/masks/a.png").write_bytes(b""),
    "train/images/b.png: damaged": lambda f: _cut(f.root / "train/images/b.png"),
    "train/masks/b.png: damaged": lambda f: _cut(f.root / "train/masks/b.png"),
    "train/images/a.png: text file": lambda f: (f.root / "train/images/a.png").write_text("hello"),
    "train/masks/a.png: text file": lambda f: (f.root / "train/masks/a.png").write_text("hello"),
    "val/images/c.png: 9 x 9": lambda f: f.image("val/images/c.png", (9, 9)),
    "test/masks/d.png: #010203": lambda f: Image.new("RGB", (24, 20), (1, 2, 3)).save(f.root / "test/masks/d.png"),
    "train/images/e.png: mask": lambda f: f.image("train/images/e.png"),
    "val/masks/e.png: image": lambda f: f.mask("val/masks/e.png"),
    "train/images/a.png: second image": lambda f: f.image("train/images/a.jpg"),
    "val/images/c.png: the pixels of": lambda f: f.image(
        "val/images/c.png", seed=sum(b"train/images/a.png") * 1009 + 18
    ),
}


def says(line: str, expected: str) -> bool:
    """Whether a line of a report has both the file and the word of "file: word"."""
    file, _, word = expected.partition(": ")
    return file in line and word in line


@pytest.mark.parametrize("expected", SPOILERS)
def test_an_error_names_its_file(folder: Folder, expected: str) -> None:
    SPOILERS[expected](folder)
    assert says(only(check(folder).errors), expected)


def test_all_bad_files_are_reported_and_not_only_the_first(folder: Folder) -> None:
    # Each file is spoilt in one way: a second image of a name, or one with the same pixels, would hide another error.
    others = ("text file", "second image", "the pixels of")
    chosen = [line for line in SPOILERS if not any(other in line for other in others)]
    for line in chosen:
        SPOILERS[line](folder)
    errors = check(folder).errors
    assert len(errors) == len(chosen)
    assert all(any(says(error, line) for error in errors) for line in chosen)


def test_a_mask_of_one_ignored_class_is_an_error(folder: Folder) -> None:
    folder.mask("train/masks/a.png", values=1)
    assert "train/masks/a.png: every pixel is ignored" in only(check(folder, ignore_colors=["#0050C8"]).errors)


def test_a_split_without_validation_is_an_error(folder: Folder) -> None:
    for kind in ("images", "masks"):
        (folder.root / f"val/{kind}/c.png").unlink()
    assert "leaves val empty" in only(check(folder, split="folders").errors)


def test_a_small_training_image_is_an_error_where_it_is_refused(folder: Folder) -> None:
    assert len(check(folder, small="refuse", image_size=21).errors) == 2
    assert check(folder, image_size=21).ok


def _same_image_in_train(folder: Folder) -> None:
    (folder.root / "train/images/b.png").write_bytes((folder.root / "train/images/a.png").read_bytes())


def _exif(folder: Folder) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    folder.image("train/images/a.png", exif=exif)


DOUBTS: dict[str, Any] = {
    "train/masks/a.png: wood": lambda f: f.mask("train/masks/a.png", values=2),
    "train/images/a.png: every pixel is 7": lambda f: Image.new("RGB", (24, 20), (7, 7, 7)).save(
        f.root / "train/images/a.png"
    ),
    "train/images/b.png: the pixels of": _same_image_in_train,
    "train/images/a.png: EXIF orientation 3": _exif,
    "data: 1 pairs": lambda f: f.pair("e", folder="more/"),
    "train/images/a.png: data.white=": lambda f: Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24)).save(
        f.root / "train/images/a.png"
    ),
}


@pytest.mark.parametrize("expected", DOUBTS)
def test_a_warning_names_its_file_and_the_folder_stays_ok(folder: Folder, expected: str) -> None:
    DOUBTS[expected](folder)
    report = check(folder)
    assert report.ok
    assert says(only(report.warnings), expected)


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_a_camera_of_fewer_bits_than_its_files_is_pointed_to_data_white(folder: Folder, bits: int) -> None:
    values = np.linspace(0, 2**bits - 1, 480).astype(np.uint16).reshape(20, 24)
    Image.fromarray(values).save(folder.root / "train/images/a.png")
    assert says(only(check(folder).warnings), f"train/images/a.png: data.white={2**bits - 1} ")
    Image.fromarray(values << (16 - bits)).save(folder.root / "train/images/a.png")
    assert check(folder).warnings == ()


def test_a_class_without_pixels_is_a_warning(folder: Folder) -> None:
    for name in ("train/masks/a", "train/masks/b"):
        folder.mask(f"{name}.png", values=np.arange(24) % 2)
    assert "class wood has no pixels in train" in only(check(folder).warnings)
    for name in ("val/masks/c", "test/masks/d"):
        folder.mask(f"{name}.png", values=np.arange(24) % 2)
    report = check(folder)
    assert report.ok
    assert "class wood has no pixels in any mask" in only(report.warnings)
    assert report.images_without["wood"] == ("test/d", "train/a", "train/b", "val/c")
    assert report.class_weights["wood"] == 1


@pytest.mark.parametrize("task", ["auto", "multiclass"])
def test_an_ignored_class_is_missed_in_no_split(folder: Folder, task: str) -> None:
    settings: dict[str, Any] = {"ignore_colors": ["147828"], "task": task}
    report = check(folder, **settings)
    assert report.ok
    assert (report.warnings, report.doubts) == ((), ())
    assert sum(pair.ignored for pair in report.pairs) > 0
    source = FolderSource(str(folder.root), **settings)
    assert (source.absent_classes("val"), source.absent_classes("test")) == ([], [])
    assert "; ignored: wood" in source.describe()[0]


def test_classes_without_pixels_in_a_scored_split_share_a_line(folder: Folder) -> None:
    folder.mask("val/masks/c.png", values=0)
    line, single = check(folder).warnings  # what concerns the whole folder comes first
    assert "val/masks/c.png" in single
    assert all(word in line for word in ("sea", "wood", "val/iou"))
    source = FolderSource(str(folder.root))
    assert source.absent_classes("val") == ["sea", "wood"]
    assert source.absent_classes("test") == []


def test_snapped_pixels_are_counted_in_a_warning(folder: Folder) -> None:
    mask = np.full((20, 24, 3), (0, 80, 200), dtype=np.uint8)
    mask[0, :7] = (1, 80, 200)
    mask[5:] = (20, 120, 40)
    Image.fromarray(mask).save(folder.root / "train/masks/a.png")
    assert not check(folder).ok
    report = check(folder, snap=True)
    assert "train/masks/a.png: 7 pixels (1.46%)" in only(report.warnings)
    assert sum(pair.snapped for pair in report.pairs) == 7


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text("name,r,g,b\nsea,0,0,255\n")
    with pytest.raises(UserError, match="images"):
        check_folder(FolderSource(str(tmp_path)))


@given(pixels=st.lists(st.integers(0, 10**9), min_size=1, max_size=8))
def test_balanced_weights_give_each_class_present_an_equal_part_of_a_mean_of_one(pixels: list[int]) -> None:
    weights = np.array(balanced_weights(pixels))
    counts = np.array(pixels)
    assert (weights > 0).all()
    assert (weights[counts == 0] == 1).all()
    if counts.sum():
        parts = (weights * counts)[counts > 0]
        assert np.allclose(parts, parts[0])
        assert parts.sum() == pytest.approx(counts.sum())


def test_the_real_folder_is_sound_by_its_published_colours_and_not_by_the_table_in_it(dubai: Path) -> None:
    parts = {"train": [f"Tile {n}" for n in range(1, 5)], "val": ["Tile 5"], "test": ["Tile 6"]}
    report = check_folder(FolderSource(str(dubai), labels="dubai", **parts))  # type: ignore[arg-type]
    assert report.ok
    assert report.split_sizes == {"train": 36, "val": 9, "test": 9}
    assert report.class_pixels().sum() + sum(pair.ignored for pair in report.pairs) == sum(
        height * width * count for (height, width), count in report.sizes.items()
    )
    assert sum(pair.ignored for pair in report.pairs) == 1675
    ignoring = {"ignore_colors": ["9B9B9B", "000000"], **parts}
    assert check_folder(FolderSource(str(dubai), labels="dubai", **ignoring)).warnings == ()  # type: ignore[arg-type]
    wrong = check_folder(FolderSource(str(dubai)))
    assert len(wrong.errors) == 54
    assert len(wrong.mistakes) == 2  # masks of colours, and palettes that have the numbers of classes
    assert wrong.warnings == ()  # that the classes have no pixels follows from the mistakes
    assert all(word in wrong.errors[0] for word in ("Tile 1/masks/image_part_001.png", "388,530", "#8429F6"))


def test_names_of_classes_and_files_are_printed_as_they_are(folder: Folder, tmp_path: Path, command: Command) -> None:
    # To rich the first is markup, and an error.
    names = ["[/a]", ":bee:", "$\\frac{"]
    rows = [
        f"{name},{','.join(map(str, entry.color))}" for name, entry in zip(names, folder.labels.classes, strict=True)
    ]
    (folder.root / "classes.csv").write_text("\n".join(["name,r,g,b", *rows]))
    (folder.root / "train/images/[x]\n-.png").write_bytes(b"")
    outcome = command("check_data.py", f"data.root={folder.root}", "hydra.run.dir=check")
    assert outcome.code == 1
    assert all(name in outcome.out for name in names)
    assert "[x]\\n-.png: " in outcome.out
    assert len(outcome.error_lines) == 1


@pytest.mark.quick
@pytest.mark.parametrize("table", [True, False])
def test_names_that_are_no_text_or_hold_control_characters_are_escaped_and_kept(
    folder: Folder, tmp_path: Path, command: Command, table: bool, recwarn: pytest.WarningsRecorder
) -> None:
    names = [b"caf\xe9\xff", b"a\x1b[31m\n\x07", "日本 😀".encode()]  # the last has letters that no font here has
    for old, name in zip("ab", names, strict=False):
        for kind in (b"images", b"masks"):
            path = os.fsencode(folder.root) + b"/train/" + kind + b"/"
            os.rename(path + old.encode() + b".png", path + name + b".png")
    folder.pair(os.fsdecode(names[2]), folder="train/")
    if not table:
        (folder.root / "classes.csv").unlink()
        (folder.root / "train/masks" / os.fsdecode(names[0] + b".png")).write_bytes(b"")
    outcome = command("check_data.py", f"data.root={folder.root}", "hydra.run.dir=check")
    assert outcome.code == (0 if table else 1), outcome.err
    assert all(line.isprintable() for line in outcome.out.splitlines())
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
    if table:
        pairs = json.loads((tmp_path / "check/check.json").read_text())["pairs"]
        assert {f"train/{os.fsdecode(name)}" for name in names} <= {pair["name"] for pair in pairs}
        assert all(Path(pair["image"]).is_file() for pair in pairs)
    else:
        assert "caf\\udce9\\udcff" in outcome.out


@pytest.mark.quick
@pytest.mark.parametrize("digits", [300, 4000, 5000])
@pytest.mark.parametrize("key", ["data.split_seed", "data.image_size", "data.ignore_ids", "data.root", "table"])
def test_a_long_number_does_not_fill_the_terminal(folder: Folder, command: Command, key: str, digits: int) -> None:
    typed = [f"{key}={'7' * digits}"]
    if key == "table":
        (folder.root / "classes.csv").write_text(f"id,name\n0,sand\n{'7' * digits},sea\n")
        typed = []
    if key != "data.root":
        typed.append(f"data.root={folder.root}")
    outcome = command("check_data.py", *typed, "hydra.run.dir=check")
    # Any seed is right, and images may be smaller than a crop.
    assert outcome.code == (0 if key in ("data.split_seed", "data.image_size") and digits < 5000 else 1)
    assert "7" * 256 not in outcome.out + outcome.err
    assert max(map(len, [*outcome.out.splitlines(), *outcome.err.splitlines()])) < 500
    if outcome.code:
        assert ("classes.csv" if key == "table" else key) in "".join(outcome.error_lines)


def test_many_forgotten_classes_in_many_masks_are_no_compression(folder: Folder):
    folder.table()
    for number in range(20):
        folder.pair(f"{number}")
        pixels = np.array(Image.open(folder.root / f"masks/{number}.png"))
        pixels[0, :4] = (10 * number, 7, 7)
        Image.fromarray(pixels).save(folder.root / f"masks/{number}.png")
    (line,) = check(folder).mistakes
    assert "20 masks" in line
    assert "data.map_colors=" in line
    assert "compression" not in line
