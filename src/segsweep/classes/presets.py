"""Class tables of known data sets, each with the rule its masks are read by."""

from typing import Any

from numpy.typing import NDArray

from segsweep.classes.rules import MaskRule
from segsweep.classes.table import ClassTable, LabelClass, pack, parse_color


def _table(rows: list[tuple[int, str, tuple[int, int, int]]], background: str | None = None) -> ClassTable:
    return ClassTable([LabelClass(*row) for row in rows], background)


# Semantic segmentation of aerial imagery, Mohammed Bin Rashid Space Centre and Humans in the Loop. These are the
# published colours and those in the masks; the classes.json distributed with the set holds others. Each palette mask
# numbers its colours in an order of its own, so all are read by colour. A few pixels at edges are black, no class's
# colour.
_DUBAI = (
    _table(
        [
            (0, "Building", (0x3C, 0x10, 0x98)),
            (1, "Land", (0x84, 0x29, 0xF6)),
            (2, "Road", (0x6E, 0xC1, 0xE4)),
            (3, "Vegetation", (0xFE, 0xDD, 0x3A)),
            (4, "Water", (0xE2, 0xA9, 0x29)),
            (5, "Unlabeled", (0x9B, 0x9B, 0x9B)),
        ],
        background="Unlabeled",
    ),
    MaskRule(by="color", ignore_colors=("#000000",)),
)

# ISPRS 2D semantic labeling, Potsdam and Vaihingen. Black is the class boundary in the eroded reference, not evaluated.
_ISPRS = (
    _table(
        [
            (0, "Impervious surfaces", (255, 255, 255)),
            (1, "Building", (0, 0, 255)),
            (2, "Low vegetation", (0, 255, 255)),
            (3, "Tree", (0, 255, 0)),
            (4, "Car", (255, 255, 0)),
            (5, "Clutter", (255, 0, 0)),
        ],
        background="Clutter",
    ),
    MaskRule(by="color", ignore_colors=("#000000",)),
)

# The 19 evaluated classes with their ids in *_labelIds.png (cityscapesscripts/helpers/labels.py).
_CITYSCAPES_CLASSES: list[tuple[int, str, tuple[int, int, int]]] = [
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
]

CITYSCAPES_IGNORED = {
    0: "unlabeled",
    1: "ego vehicle",
    2: "rectification border",
    3: "out of roi",
    4: "static",
    5: "dynamic",
    6: "ground",
    9: "parking",
    10: "rail track",
    14: "guard rail",
    15: "bridge",
    16: "tunnel",
    18: "polegroup",
    29: "caravan",
    30: "trailer",
}
"""Cityscapes labels that its benchmark does not evaluate, by id."""

# By index alone: in the colour files an ignored polegroup looks like a pole and a license plate like a car.
_CITYSCAPES = (
    _table(_CITYSCAPES_CLASSES),
    MaskRule(by="index", ignore_ids=tuple(CITYSCAPES_IGNORED)),
)

# The same classes as *_labelTrainIds.png numbers them.
_CITYSCAPES_TRAIN_IDS = (
    _table([(position, name, color) for position, (_, name, color) in enumerate(_CITYSCAPES_CLASSES)]),
    MaskRule(by="index", ignore_ids=(255,)),
)


def _voc_color(number: int) -> tuple[int, int, int]:
    """PASCAL VOC spreads the bits of the class number over the highest bits of red, green and blue (VOC devkit)."""
    red = green = blue = 0
    for bit in range(8):
        red |= (number >> 3 * bit & 1) << 7 - bit
        green |= (number >> 3 * bit + 1 & 1) << 7 - bit
        blue |= (number >> 3 * bit + 2 & 1) << 7 - bit
    return red, green, blue


# fmt: off
_VOC_NAMES = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]
# fmt: on

# 255 is the void border around objects, #E0E0C0 its colour in the palette.
_VOC = (
    _table([(number, name, _voc_color(number)) for number, name in enumerate(_VOC_NAMES)], background="background"),
    MaskRule(by="auto", ignore_ids=(255,), ignore_colors=("#E0E0C0",)),
)

PRESETS: dict[str, tuple[ClassTable, MaskRule]] = {
    "dubai": _DUBAI,
    "isprs": _ISPRS,
    "potsdam": _ISPRS,
    "vaihingen": _ISPRS,
    "cityscapes": _CITYSCAPES,
    "cityscapes_train_ids": _CITYSCAPES_TRAIN_IDS,
    "voc": _VOC,
}
"""Class table and mask rule by data set."""


def preset_hint(colors: NDArray[Any]) -> str:
    """A sentence that names the preset to which unlisted colours belong, and a space; else nothing.

    All must be in the preset, two of them as classes: a single black or white is in many tables.

    Args:
        colors: integers [N] of 0xRRGGBB.
    """
    found = set(colors.tolist())
    for name, (labels, rule) in PRESETS.items():
        classes = {pack(entry.color) for entry in labels.classes}
        ignored = {pack(parse_color(color)) for color in rule.ignore_colors}
        if rule.by != "index" and found <= classes | ignored and len(found & classes) > 1:
            return f"These are colours of data.labels={name}. "
    return ""
