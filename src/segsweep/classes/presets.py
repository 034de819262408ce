"""Class tables of known data sets, each with the rule for reading its masks."""

from typing import Any

from numpy.typing import NDArray

from segsweep.classes.rules import MaskRule
from segsweep.classes.table import ClassTable, LabelClass, pack, parse_color, voc_color

# Semantic segmentation of aerial imagery, Mohammed Bin Rashid Space Centre and Humans in the Loop. The masks use these
# published colours; the classes.json distributed with the set lists others. The palette masks number their colours in
# different orders, so all masks are read by colour. A few pixels at edges are black, which is no class's colour.
_DUBAI = (
    ClassTable(
        [
            LabelClass(0, "Building", (0x3C, 0x10, 0x98)),
            LabelClass(1, "Land", (0x84, 0x29, 0xF6)),
            LabelClass(2, "Road", (0x6E, 0xC1, 0xE4)),
            LabelClass(3, "Vegetation", (0xFE, 0xDD, 0x3A)),
            LabelClass(4, "Water", (0xE2, 0xA9, 0x29)),
            LabelClass(5, "Unlabeled", (0x9B, 0x9B, 0x9B)),
        ],
        background="Unlabeled",
    ),
    MaskRule(by="color", ignore_colors=("#000000",)),
)

# ISPRS 2D semantic labeling, Potsdam and Vaihingen. Black marks class boundaries in the eroded reference: not evaluated.
_ISPRS = (
    ClassTable(
        [
            LabelClass(0, "Impervious surfaces", (255, 255, 255)),
            LabelClass(1, "Building", (0, 0, 255)),
            LabelClass(2, "Low vegetation", (0, 255, 255)),
            LabelClass(3, "Tree", (0, 255, 0)),
            LabelClass(4, "Car", (255, 255, 0)),
            LabelClass(5, "Clutter", (255, 0, 0)),
        ],
        background="Clutter",
    ),
    MaskRule(by="color", ignore_colors=("#000000",)),
)

# The 19 evaluated classes with their ids in *_labelIds.png (cityscapesscripts/helpers/labels.py).
_CITYSCAPES_CLASSES = [
    LabelClass(7, "road", (128, 64, 128)),
    LabelClass(8, "sidewalk", (244, 35, 232)),
    LabelClass(11, "building", (70, 70, 70)),
    LabelClass(12, "wall", (102, 102, 156)),
    LabelClass(13, "fence", (190, 153, 153)),
    LabelClass(17, "pole", (153, 153, 153)),
    LabelClass(19, "traffic light", (250, 170, 30)),
    LabelClass(20, "traffic sign", (220, 220, 0)),
    LabelClass(21, "vegetation", (107, 142, 35)),
    LabelClass(22, "terrain", (152, 251, 152)),
    LabelClass(23, "sky", (70, 130, 180)),
    LabelClass(24, "person", (220, 20, 60)),
    LabelClass(25, "rider", (255, 0, 0)),
    LabelClass(26, "car", (0, 0, 142)),
    LabelClass(27, "truck", (0, 0, 70)),
    LabelClass(28, "bus", (0, 60, 100)),
    LabelClass(31, "train", (0, 80, 100)),
    LabelClass(32, "motorcycle", (0, 0, 230)),
    LabelClass(33, "bicycle", (119, 11, 32)),
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
"""Cityscapes labels that the benchmark does not evaluate, by id."""

# By index alone: in the colour files an ignored polegroup looks like a pole, and a license plate like a car.
_CITYSCAPES = (ClassTable(_CITYSCAPES_CLASSES), MaskRule(by="index", ignore_ids=tuple(CITYSCAPES_IGNORED)))

# The same classes as *_labelTrainIds.png numbers them.
_CITYSCAPES_TRAIN_IDS = (
    ClassTable([LabelClass(position, entry.name, entry.color) for position, entry in enumerate(_CITYSCAPES_CLASSES)]),
    MaskRule(by="index", ignore_ids=(255,)),
)


# fmt: off
_VOC_NAMES = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]
# fmt: on

# 255 is the void border around objects; #E0E0C0 is its colour in the palette.
_VOC = (
    ClassTable([LabelClass(at, name, voc_color(at)) for at, name in enumerate(_VOC_NAMES)], background="background"),
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
    """A sentence that names the preset with these unlisted colours, followed by a space; "" if there is none.

    The preset must list all of them, and at least two as classes: many tables list black or white alone.

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
