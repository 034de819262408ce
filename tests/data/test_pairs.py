import os
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segsweep.data.finding import require_pairs, scan
from segsweep.data.layouts import LayoutSettings
from segsweep.data.pairs import Layout
from segsweep.errors import UserError

NAMES = st.text("abcxyz019 _-é", min_size=1, max_size=6).filter(lambda text: text.strip() == text)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def refused(root: Path, layout: LayoutSettings | None = None) -> str:
    with pytest.raises(UserError) as caught:
        require_pairs(scan(root, layout or LayoutSettings()))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(max_examples=40, deadline=None)
@given(
    names=st.sets(st.lists(NAMES, min_size=1, max_size=3).map(tuple), min_size=1, max_size=6), depth=st.integers(0, 3)
)
def test_every_image_finds_the_mask_of_its_own_path(names: set[tuple[str, ...]], depth: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for parts in names:
            at = min(depth, len(parts) - 1)
            for kind, suffix in (("images", "jpg"), ("masks", "png")):
                path = Path(folder, *parts[:at], kind, *parts[at:])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_name(f"{path.name}.{suffix}").write_bytes(b"x")
        pairs = require_pairs(scan(folder))
        assert [pair.name for pair in pairs] == sorted("/".join(parts) for parts in names)
        for pair in pairs:
            assert pair.image.relative_to(folder).as_posix().replace("images/", "") == f"{pair.name}.jpg"
            assert pair.mask.relative_to(folder).as_posix().replace("masks/", "") == f"{pair.name}.png"


def test_pairing_does_not_depend_on_the_order_of_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tile in "ab":
        touch(tmp_path, *(f"{tile}/{kind}/{part}.png" for kind in ("images", "masks") for part in "31425"))
    expected = scan(tmp_path)
    real = os.scandir

    class Shuffled:
        def __init__(self, path: Path) -> None:
            self.listing = real(path)
            self.entries = sorted(self.listing, key=lambda entry: entry.name[::-1], reverse=True)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            self.listing.close()

    monkeypatch.setattr("segsweep.data.finding.os.scandir", Shuffled)
    assert scan(tmp_path) == expected
    assert [pair.name for pair in expected.pairs] == [f"{tile}/{part}" for tile in "ab" for part in "12345"]


@pytest.mark.parametrize(
    ("files", "layout", "name", "group"),
    [
        (("images/x.jpg", "masks/x.png"), LayoutSettings(), "x", ""),
        (("Tile 3/images/x.jpg", "Tile 3/masks/x.png"), LayoutSettings(), "Tile 3/x", "Tile 3"),
        (("images/Tile 3/x.jpg", "masks/Tile 3/x.png"), LayoutSettings(), "Tile 3/x", "Tile 3"),
        (("a/b/images/c/x.jpg", "a/b/masks/c/x.png"), LayoutSettings(), "a/b/c/x", "a"),
        (
            ("images/x_image.png", "masks/x_mask.png"),
            LayoutSettings(image_suffix="_image", mask_suffix="_mask"),
            "x",
            "",
        ),
        (
            ("all/x_image.png", "all/x_mask.png"),
            LayoutSettings(images="", masks="", image_suffix="_image", mask_suffix="_mask"),
            "all/x",
            "all",
        ),
        (("all/x.jpg", "all/x_mask.png"), LayoutSettings(images="", masks="", mask_suffix="_mask"), "all/x", "all"),
        (("x.jpg", "masks/x.npy"), LayoutSettings(images=""), "x", ""),
        (
            ("leftImg8bit/val/ulm/u_1_leftImg8bit.png", "gtFine/val/ulm/u_1_gtFine_labelIds.png"),
            LayoutSettings(
                images="leftImg8bit", masks="gtFine", image_suffix="_leftImg8bit", mask_suffix="_gtFine_labelIds"
            ),
            "val/ulm/u_1",
            "val",
        ),
    ],
)
def test_layouts_that_data_sets_come_in(
    tmp_path: Path, files: tuple[str, str], layout: LayoutSettings, name: str, group: str
) -> None:
    touch(tmp_path, *files)
    (pair,) = require_pairs(scan(tmp_path, layout))
    assert (pair.name, pair.group) == (name, group)
    assert (pair.image, pair.mask) == tuple(tmp_path / file for file in files)


def test_names_of_one_character_or_two_are_one_name(tmp_path: Path) -> None:
    touch(tmp_path, unicodedata.normalize("NFC", "images/café.png"), unicodedata.normalize("NFD", "masks/café.png"))
    assert len(require_pairs(scan(tmp_path))) == 1


def test_hidden_and_foreign_files_are_no_images(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "images/x.png",
        "masks/x.png",
        "images/.x.png",
        "__MACOSX/images/x.png",
        "images/Thumbs.db",
        "readme.md",
    )
    pairing = scan(tmp_path)
    assert [pair.name for pair in pairing.pairs] == ["x"]
    assert not pairing.problems
    assert len(pairing.skipped) == 1
    assert "Thumbs.db" in pairing.skipped[0]


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    assert "none" in refused(tmp_path / "none")
    touch(tmp_path, "file.png")
    assert "is a file" in refused(tmp_path / "file.png")


def test_an_empty_folder_is_refused_and_says_which_folders_there_are(tmp_path: Path) -> None:
    assert str(tmp_path) in refused(tmp_path)
    touch(tmp_path, "pictures/x.png", "paper/y.png")
    message = refused(tmp_path)
    assert "'images'" in message
    assert "paper, pictures" in message


@pytest.mark.parametrize(
    ("files", "keys", "said"),
    [
        (
            ("masks/a.png", "masks/b.png"),
            {"mask_suffix": "_mask"},
            "2 files in 'masks', whose names do not end in '_mask'",
        ),
        (("masks/a.xcf", "masks/b.xcf"), {}, "2 files in 'masks', .xcf is no supported mask type"),
        (
            ("masks/a.png", "masks/b.txt"),
            {"mask_prefix": "m_"},
            "2 files in 'masks', whose names do not start with 'm_'",
        ),
        (("masks/a",), {}, "1 file in 'masks', no extension is no supported mask type"),
        (("other/a.png",), {}, "no folder named 'masks'"),
    ],
)
def test_a_folder_without_masks_is_not_called_missing(tmp_path: Path, files: tuple[str, ...], keys, said: str) -> None:
    touch(tmp_path, "images/a.png", "images/b.png", *files)
    assert said in refused(tmp_path, LayoutSettings(**keys))


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (("images/a.png", "images/b.png", "masks/a.png"), "images/b.png: has no mask"),
        (("images/a.png", "masks/a.png", "masks/b.png"), "masks/b.png: has no image"),
        (("images/a.png", "images/a.jpg", "masks/a.png"), "images/a.png: a second image"),
        (("images/a.png", "masks/a.bmp", "masks/a.png"), "masks/a.png: a second mask"),
        (("t/images/a.png", "images/t/a.png", "masks/t/a.png"), "a second image"),
    ],
)
def test_what_does_not_pair_is_refused_by_name(tmp_path: Path, files: tuple[str, ...], named: str) -> None:
    touch(tmp_path, *files)
    assert named in refused(tmp_path)


def test_every_problem_is_found_and_the_first_is_raised_with_their_number(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png", *(f"images/{name}.png" for name in "bcd"))
    assert len(scan(tmp_path).problems) == 3
    assert "2 more" in refused(tmp_path)


@pytest.mark.parametrize(
    ("link", "target", "word"),
    [
        ("images/b.png", "../../outside/b.png", "leaves the folder"),
        ("images/b.png", "b.png", "leads back to itself"),
        ("images/b.png", "nowhere.png", "does not exist"),
        ("more", "../outside", "leaves the folder"),
        ("loop", "loop", "leads back to itself"),
    ],
)
def test_links_that_leave_loop_or_dangle_are_refused_by_name(tmp_path: Path, link: str, target: str, word: str) -> None:
    touch(tmp_path, "outside/b.png", "data/images/a.png", "data/masks/a.png")
    (tmp_path / "data" / link).symlink_to(target)
    problems = scan(tmp_path / "data").problems
    assert any(link in problem and word in problem for problem in problems)


def test_links_inside_the_folder_are_followed_to_files_and_not_to_folders(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png", "raw/b.png", "masks/b.png")
    (tmp_path / "images/b.png").symlink_to("../raw/b.png")
    (tmp_path / "again").symlink_to("images")
    (tmp_path / "images/up").symlink_to("..")
    pairing = scan(tmp_path)
    assert [pair.name for pair in pairing.pairs] == ["a", "b"]
    assert not pairing.problems
    assert len(pairing.skipped) == 2


def test_a_name_with_a_line_break_is_shown_on_one_line(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png", "images/two\nlines.png")
    assert "two\\nlines" in refused(tmp_path)


def test_folders_deeper_than_python_s_calls_are_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png")
    monkeypatch.chdir(tmp_path)  # and back at the end
    for _ in range(1200):
        os.mkdir("d")
        os.chdir("d")
    try:
        assert [pair.name for pair in scan(tmp_path).pairs] == ["a"]
    finally:
        for _ in range(1200):
            os.chdir("..")
            os.rmdir("d")


def test_pipes_and_links_to_devices_are_no_files(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png")
    os.mkfifo(tmp_path / "images/b.png")
    pairing = scan(tmp_path)
    assert [pair.name for pair in pairing.pairs] == ["a"]
    (tmp_path / "images/c.png").symlink_to("/dev/zero")
    assert "leaves the folder" in refused(tmp_path)


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31mred", "-rf", " ", "\u2028", os.fsdecode(b"\xff\xfe")])
def test_any_name_is_shown_on_one_printable_line(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png", f"images/{name}.png")
    assert refused(tmp_path).isprintable()


@pytest.mark.parametrize("arguments", [("same", "same"), ("a/b", "masks"), ("..", "masks")])
def test_a_layout_that_cannot_tell_images_from_masks_is_refused(arguments: tuple[str, str]) -> None:
    with pytest.raises(UserError, match=r"data\.images"):
        Layout(images=arguments[0], masks=arguments[1])


def test_the_real_folder_pairs_by_tile(dubai: Path) -> None:
    pairs = require_pairs(scan(dubai))
    assert len(pairs) == 54
    assert {pair.group for pair in pairs} == {f"Tile {number}" for number in range(1, 7)}
