"""The real Dubai masks; the environment variable SEGSWEEP_DUBAI names their folder."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segsweep.classes import MaskRule, find_class_table, load_class_table, read_mask
from segsweep.errors import UserError


@pytest.fixture(scope="module")
def root() -> Path:
    folder = os.environ.get("SEGSWEEP_DUBAI")
    if not folder:
        pytest.skip("SEGSWEEP_DUBAI is not set; point it at the folder of the Dubai tiles to run this.")
    return Path(folder)


@pytest.fixture(scope="module")
def masks(root) -> list[Path]:
    return sorted(root.glob("Tile */masks/*.png"))


def test_every_pixel_of_every_real_mask_is_counted_once_and_keeps_its_color(masks):
    labels, rule = load_class_table("dubai")
    assert len(masks) == 54
    counts, ignored, pixels = np.zeros(6, dtype=np.int64), 0, 0
    for path in masks:
        reading = read_mask(path, labels, rule)
        assert reading.counts.sum() + reading.ignored == reading.mask.size
        assert (reading.mode, reading.snapped) == ("color", 0)
        counts += reading.counts
        ignored += reading.ignored
        pixels += reading.mask.size
        with Image.open(path) as image:
            stored = np.asarray(image.convert("RGB"))
        drawn = labels.colorize(reading.mask)
        drawn[reading.mask == 255] = 0
        assert np.array_equal(drawn, stored)
    assert counts.tolist() == [4366211, 14351827, 2819345, 3516601, 11413607, 248391]
    assert (ignored, pixels) == (1675, 36717657)


def test_black_pixels_are_refused_if_the_rule_does_not_list_them(masks):
    labels, _ = load_class_table("dubai")
    refused = []
    for path in masks:
        try:
            read_mask(path, labels, MaskRule(by="color"))
        except UserError as error:
            message = str(error).removeprefix(f"{path}: ")
            assert "data.ignore_colors=['#000000']" in message
            refused.append((f"{path.parts[-3]}/{path.name}", message.split()[0]))
    assert refused == [
        ("Tile 3/image_part_006.png", "302"),
        ("Tile 3/image_part_007.png", "4"),
        ("Tile 5/image_part_002.png", "506"),
        ("Tile 6/image_part_005.png", "678"),
        ("Tile 6/image_part_006.png", "185"),
    ]


def test_every_mask_is_refused_with_the_class_table_in_its_folder(root, masks):
    labels, rule = load_class_table(find_class_table(root))
    for path in masks:
        with pytest.raises(UserError, match=r"data\.labels"):
            read_mask(path, labels, rule)
