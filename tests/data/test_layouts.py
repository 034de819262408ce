"""Layouts that are found in the names of files, and files that are left out."""

import fnmatch
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from segsweep.data.finding import require_pairs, scan
from segsweep.data.layouts import LayoutSettings, arguments, layout_settings
from segsweep.data.pairs import Layout
from segsweep.errors import UserError

STEMS = st.sets(
    st.text("abxyz01 -", min_size=1, max_size=5).filter(lambda text: text.strip() == text), min_size=1, max_size=6
)
AFFIXES = [
    ("", "", "", ""), ("", "", "", "_mask"), ("image_", "", "mask_", ""), ("", "_leftImg8bit", "", "_gtFine_labelIds"),
    ("", "", "", ".jpeg"), ("", "_training", "", "_manual1"), ("img-", "", "gt-", ""),
]  # fmt: skip
FOLDERS = [
    ("images", "masks"), ("imgs", "labels"), ("JPEGImages", "SegmentationClass"), ("train", "trainannot"), ("", "masks"),
    ("2_Ortho_RGB", "5_Labels_all"), ("top", "gts_for_participants"), ("img", "masks_human"), ("a", "1st_manual"), ("", ""),
]  # fmt: skip


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def typed_keys(words: str) -> dict[str, Any]:
    """The settings that some words say after bash and Hydra have read them."""
    script = f"printf '%s\\0' {words}"
    found = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout.split(b"\0")[:-1]
    overrides = OverridesParser.create().parse_overrides([os.fsdecode(word) for word in found])
    return {override.get_key_element().removeprefix("data."): plain(override.value()) for override in overrides}


def typed(words: str) -> LayoutSettings:
    return LayoutSettings(**typed_keys(words))


def plain(value: object) -> Any:
    """The value without Hydra's marks of quotes."""
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    if isinstance(value, dict):
        return {plain(key): plain(entry) for key, entry in value.items()}
    return value if isinstance(value, int | float) else str(getattr(value, "text", value))


def words_to_add(message: str) -> list[str]:
    """The settings that an error says to add, in its order."""
    parts = message.partition("say how they are named: ")[2].split("; or ")
    return [part.removeprefix("add ").rpartition(" (")[0] for part in parts if part]


@settings(max_examples=100, deadline=None)
@given(
    stems=STEMS,
    affixes=st.sampled_from(AFFIXES),
    folders=st.sampled_from(FOLDERS),
    depth=st.sampled_from(["", "a/", "a/b/"]),
)
def test_files_named_by_any_usual_rule_pair_as_they_belong_together_and_never_otherwise(stems, affixes, folders, depth):
    before, after, mask_before, mask_after = affixes
    images, masks = (f"{folder}/" if folder else "" for folder in folders)
    truth = {
        f"{depth}{images}{before}{stem}{after}.jpg": f"{depth}{masks}{mask_before}{stem}{mask_after}.png"
        for stem in stems
    }
    with tempfile.TemporaryDirectory() as folder:
        touch(Path(folder), *truth, *truth.values())
        ways: list[str] = []
        try:
            found = scan(folder)
        except UserError as error:
            ways = words_to_add(str(error))
            found = scan(folder, typed(ways[0])) if ways else None
        for pair in found.pairs if found else ():
            image, mask = (path.relative_to(folder).as_posix() for path in (pair.image, pair.mask))
            assert truth.get(image) == mask or truth.get(mask) == image
        if found and not found.problems and not ways:  # what is shown as an advice may leave files out, and says so
            assert len(found.pairs) == len(truth)


@pytest.mark.parametrize("folders", FOLDERS)
@pytest.mark.parametrize("affixes", AFFIXES)
def test_each_usual_rule_is_found_without_a_key_and_says_the_same_when_typed(tmp_path: Path, affixes, folders):
    before, after, mask_before, mask_after = affixes
    if folders == ("", "") and not (mask_before or mask_after.startswith("_")):
        pytest.skip("nothing tells an image from its mask")
    images, masks = (f"{folder}/" if folder else "" for folder in folders)
    for stem in ("tile_01", "tile_02", "tile_10"):
        touch(tmp_path, f"{images}{before}{stem}{after}.jpg", f"{masks}{mask_before}{stem}{mask_after}.png")
    found = scan(tmp_path)
    assert len(found.pairs) == 3
    assert not found.problems
    assert found.inferred == (found.layout != Layout())
    again = scan(tmp_path, typed(arguments(found.layout)))
    assert (again.pairs, again.layout, again.inferred) == (found.pairs, found.layout, False)
    assert LayoutSettings(**layout_settings(found.layout)).layout() == found.layout
    if found.inferred:
        assert arguments(found.layout) in found.notes[0]


def test_folders_that_change_with_the_split_stay_in_the_names(tmp_path: Path):
    for part in ("train", "val"):
        touch(tmp_path, f"{part}_images/1.png", f"{part}_segmentations/1.png")
    found = scan(tmp_path)
    assert [pair.name for pair in found.pairs] == ["train_images/1", "val_images/1"]
    assert (found.layout.images, found.layout.masks) == (
        ("train_images", "val_images"), ("train_segmentations", "val_segmentations"),
    )  # fmt: skip
    for pair in found.pairs:
        assert pair.image.parent.name.split("_")[0] == pair.mask.parent.name.split("_")[0]


def test_several_rules_that_pair_everything_are_a_question_with_the_number_of_pairs_of_each(tmp_path: Path):
    for stem in ("a", "b"):
        touch(tmp_path, f"img/{stem}.jpg", f"masks_human/{stem}.png", f"masks_machine/{stem}.png")
    with pytest.raises(UserError, match=r"\(2 pairs\).*\(2 pairs\)") as caught:
        scan(tmp_path)
    ways = words_to_add(str(caught.value))
    assert ways == ["data.images=img data.masks=masks_human", "data.images=img data.masks=masks_machine"]
    for way, folder in zip(ways, ("masks_human", "masks_machine"), strict=True):
        assert {pair.mask.parent.name for pair in require_pairs(scan(tmp_path, typed(way)))} == {folder}


def test_a_rule_that_leaves_files_out_is_shown_with_their_number_and_not_used(tmp_path: Path):
    touch(tmp_path, "img/a.jpg", "img/b.jpg", "labels/a.png")
    with pytest.raises(UserError, match=r"1 pair, 1 files without partner are left out\)") as caught:
        scan(tmp_path)
    (way,) = words_to_add(str(caught.value))
    assert "data.unpaired=skip" in way
    found = scan(tmp_path, typed(way))
    assert ([pair.name for pair in found.pairs], found.problems) == (["a"], ())
    assert "1 images without mask" in found.notes[0]


def test_typed_keys_win_and_the_others_are_found(tmp_path: Path):
    for stem in ("a", "b"):
        touch(tmp_path, f"img/{stem}.jpg", f"masks_human/{stem}_gt.png", f"masks_machine/{stem}_gt.png")
    found = scan(tmp_path, LayoutSettings(masks="masks_machine"))
    assert found.layout == Layout(images="img", masks="masks_machine", mask_suffix="_gt")
    assert found.inferred
    touch(tmp_path, "images/a.png", "masks/a.png", "masks/a_x.png")
    assert [pair.mask.name for pair in require_pairs(scan(tmp_path, LayoutSettings(mask_suffix="_x")))] == ["a_x.png"]


def test_a_typed_key_that_fits_no_file_is_named_with_what_pairs_without_it(tmp_path: Path):
    touch(tmp_path, *(f"{folder}/{stem}.png" for folder in ("images", "masks") for stem in "ab"))
    with pytest.raises(UserError, match=r"leave out data\.mask_suffix, and say how they are named") as caught:
        scan(tmp_path, LayoutSettings(mask_suffix="_mask"))
    assert len(require_pairs(scan(tmp_path, typed(words_to_add(str(caught.value))[0])))) == 2


def test_images_and_masks_pair_as_always_whatever_else_there_is(tmp_path: Path):
    touch(tmp_path, "images/a.png", "masks/a.png", "img/a.jpg", "labels/a.png", "preview.png")
    found = scan(tmp_path)
    assert (found.layout, found.inferred, found.notes) == (Layout(), False, ())


def test_of_two_suffixes_the_one_that_fits_counts_and_numbers_are_no_suffix(tmp_path: Path):
    touch(tmp_path, "training/images/21_training.tif", "training/1st_manual/21_manual1.gif")
    touch(tmp_path, "test/images/01_test.tif", "test/1st_manual/01_manual1.gif")
    found = scan(tmp_path)
    assert found.layout.image_suffix == ("_test", "_training")
    assert [pair.name for pair in found.pairs] == ["test/01", "training/21"]


@pytest.mark.parametrize(
    "names",
    [
        ("images/a_1.png", "masks/a_2.png"),
        ("images/frame 7.png", "masks/frame 8.png"),
        ("images/7.png", "masks/7a.png"),
    ],
)
def test_files_of_different_numbers_or_letters_never_pair(tmp_path: Path, names: tuple[str, str]):
    touch(tmp_path, *names)
    assert not scan(tmp_path).pairs


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"images": ["a", "b"], "masks": "c"}, "names 2 folders and data.masks 1"),
        ({"images": ["a", "a"], "masks": ["b", "c"]}, "names 'a' twice"),
        ({"images": [], "masks": "b"}, "names nothing"),
        ({"images": "", "masks": ""}, "give data.mask_suffix"),
    ],
)
def test_keys_that_cannot_be_are_refused(keys, message: str):
    with pytest.raises(UserError, match=message):
        LayoutSettings(**keys).layout()


@settings(max_examples=40, deadline=None)
@given(stems=STEMS, left_out=st.sampled_from(["*x*", "a*", "sub/*", "*.png", "images/b*"]))
def test_excluded_files_are_as_if_they_were_not_there(stems: set[str], left_out: str):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        for stem in stems:
            for name in (f"sub/images/{stem}.jpg", f"sub/masks/{stem}.png", f"images/{stem}.jpg", f"masks/{stem}.jpg"):
                touch(Path(one), name)
                if not any(fnmatch.fnmatchcase(text, left_out) for text in (name, name.rpartition("/")[2])):
                    touch(Path(other), name)
        there, gone = sum(len(files) for *_, files in os.walk(one)), sum(len(files) for *_, files in os.walk(other))
        try:
            found = scan(one, LayoutSettings(exclude=[left_out], unpaired="skip"))
        except UserError:
            with pytest.raises(UserError):
                scan(other, LayoutSettings(unpaired="skip"))
            return
        expected = scan(other, LayoutSettings(unpaired="skip"))
        assert [pair.name for pair in found.pairs] == [pair.name for pair in expected.pairs]
        assert f"{there - gone:,} files like {left_out}" in found.notes[0]


@settings(max_examples=40, deadline=None)
@given(images=STEMS, masks=STEMS)
def test_skipping_the_unpaired_leaves_out_these_alone_and_counts_them(images: set[str], masks: set[str]):
    with tempfile.TemporaryDirectory() as folder:
        touch(Path(folder), *(f"images/{stem}.jpg" for stem in images), *(f"masks/{stem}.png" for stem in masks))
        equal = {f"{role}_{place}": "" for role in ("image", "mask") for place in ("prefix", "suffix")}
        typed = LayoutSettings(images="images", masks="masks", **equal)
        strict, lenient = scan(folder, typed), scan(folder, replace(typed, unpaired="skip"))
        assert [pair.name for pair in lenient.pairs] == sorted(images & masks)
        assert (lenient.pairs, lenient.problems) == (strict.pairs, ())
        assert len(strict.problems) == len(images ^ masks)
        counts = [int(note.split(": ")[1].split()[0]) for note in lenient.notes]
        assert counts == [number for number in (len(images - masks), len(masks - images)) if number]


def test_two_images_of_one_name_are_an_error_also_where_the_unpaired_are_skipped(tmp_path: Path):
    touch(tmp_path, "images/a.png", "images/a.jpg", "masks/a.png")
    assert "a second image" in scan(tmp_path, LayoutSettings(unpaired="skip")).problems[0]
