"""The real masks, found through the environment variable SEGSWEEP_DUBAI."""

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


def test_every_pixel_of_every_real_mask_is_counted_once_and_in_its_own_color(masks):
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


def test_the_black_pixels_are_refused_where_the_rule_does_not_name_them(masks):
    labels, _ = load_class_table("dubai")
    refused = []
    for path in masks:
        try:
            read_mask(path, labels, MaskRule(by="color"))
        except UserError as error:
            refused.append(f"{path.parts[-3]}/{path.name}: {str(error).removeprefix(f'{path}: ').split(',')[0]}")
    assert refused == [
        "Tile 3/image_part_006.png: 302 pixels of colour #000000",
        "Tile 3/image_part_007.png: 4 pixels of colour #000000",
        "Tile 5/image_part_002.png: 506 pixels of colour #000000",
        "Tile 6/image_part_005.png: 678 pixels of colour #000000",
        "Tile 6/image_part_006.png: 185 pixels of colour #000000",
    ]


def test_the_class_table_that_lies_beside_the_masks_misreads_none_of_them(root, masks):
    labels, rule = load_class_table(find_class_table(root))
    for path in masks:
        with pytest.raises(UserError, match=r"is data.labels the table of these masks\?|which is no class's colour"):
            read_mask(path, labels, rule)
