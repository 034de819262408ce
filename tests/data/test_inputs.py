"""The files that a prediction takes, and their names."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segsweep.data.images import ImageRule
from segsweep.data.pairs import Layout
from segsweep.data.reading import find_inputs, read_input
from segsweep.errors import UserError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_images_are_found_at_any_depth_and_named_by_their_place(tmp_path: Path):
    touch(
        tmp_path, "b.PNG", "a.jpg", "Tile 1/images/x.tif", "deep/er/y.webp", "notes.txt", ".hidden.png", ".cache/z.png"
    )
    found = find_inputs(tmp_path)
    assert [image.name for image in found.images] == ["Tile 1/images/x", "a", "b", "deep/er/y"]
    assert [image.path.relative_to(tmp_path).as_posix() for image in found.images] == [
        "Tile 1/images/x.tif", "a.jpg", "b.PNG", "deep/er/y.webp",
    ]  # fmt: skip


def test_masks_beside_images_are_left_out_and_a_folder_that_is_only_called_masks_is_not(tmp_path: Path):
    touch(tmp_path, "one/images/a.png", "one/masks/a.png", "one/masks/sub/b.png", "two/masks/c.png")
    found = find_inputs(tmp_path)
    assert [image.name for image in found.images] == ["one/images/a", "two/masks/c"]
    assert [mask.relative_to(tmp_path).as_posix() for mask in found.masks] == ["one/masks/a.png", "one/masks/sub/b.png"]
    assert [image.name for image in find_inputs(tmp_path / "one/masks").images] == ["a", "sub/b"]


def test_a_single_file_is_taken_whatever_its_name_ends_in(tmp_path: Path):
    touch(tmp_path, "scan.dat")
    (image,) = find_inputs(tmp_path / "scan.dat").images
    assert image.name == "scan"


@pytest.mark.parametrize(
    ("files", "path", "message"),
    [
        ([], "nowhere", "no such file or folder"),
        (["notes.txt"], ".", "holds no image"),
        (["images/notes.txt", "masks/a.png"], ".", "passed over: 1 mask"),
        (["a.png", "a.jpg"], ".", "both would get one mask"),
        (["x/a.png", "x/a.PNG"], "x", "both would get one mask"),
    ],
)
def test_what_cannot_be_predicted_on_is_refused(tmp_path: Path, files: list[str], path: str, message: str):
    touch(tmp_path, *files)
    with pytest.raises(UserError, match=message):
        find_inputs(tmp_path / path)


def test_files_that_are_no_images_are_counted_by_type(tmp_path: Path):
    touch(tmp_path, "images/a.png", "images/b.HEIC", "c.heic", "notes.txt", "LICENSE", "masks/a.png", ".hidden.txt")
    assert find_inputs(tmp_path).passed_over == "1 mask, 2 .heic, 1 .txt, 1 without extension"
    touch(tmp_path / "only", "a.heic", "b.heic")
    with pytest.raises(UserError, match=r"holds no image .*passed over: 2 \.heic"):
        find_inputs(tmp_path / "only")


def test_masks_are_left_out_beside_each_of_several_folders(tmp_path: Path):
    touch(tmp_path, "train/a.png", "trainannot/a.png", "val/b.png", "valannot/b.png", "masks/c.png")
    found = find_inputs(tmp_path, Layout(images=["train", "val"], masks=["trainannot", "valannot"]))
    assert [image.name for image in found.images] == ["masks/c", "train/a", "val/b"]


@pytest.mark.parametrize(
    ("layout", "files", "images"),
    [
        (Layout(images="", masks="", mask_suffix="_mask"), ["a.jpg", "a_mask.png", "sub/b.jpg", "b_mask.png"],
         ["a", "b_mask", "sub/b"]),
        (Layout(images="x", masks="x", mask_prefix="m_"), ["a.png", "m_a.png"], ["a"]),
        (Layout(images="", masks="labels"), ["a.png", "labels/a.png", "labels/b.png"], ["a", "labels/b"]),
    ],
)  # fmt: skip
def test_a_mask_that_pairs_with_an_image_is_left_out_wherever_it_lies(tmp_path: Path, layout, files, images):
    touch(tmp_path, *files)
    assert [image.name for image in find_inputs(tmp_path, layout).images] == images


def test_a_net_that_knows_gray_alone_takes_gray_in_any_mode_and_no_colour(tmp_path: Path):
    gray = np.random.default_rng(0).integers(256, size=(5, 7), dtype=np.uint8)
    Image.fromarray(gray).save(tmp_path / "l.png")
    Image.fromarray(np.repeat(gray[..., None], 3, axis=2)).save(tmp_path / "rgb.png")
    for name in ("l.png", "rgb.png"):
        np.testing.assert_array_equal(
            read_input(tmp_path / name, ImageRule(channels=1), gray_only=True).pixels[0], gray
        )
    Image.new("RGB", (7, 5), (10, 20, 30)).save(tmp_path / "colour.png")
    with pytest.raises(UserError, match=r"colour\.png: is a colour image"):
        read_input(tmp_path / "colour.png", ImageRule(channels=1), gray_only=True)
    assert read_input(tmp_path / "colour.png", ImageRule(channels=1)).pixels.shape == (1, 5, 7)
