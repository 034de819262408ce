"""The class table, and mask files read and written by it."""

from segsweep.classes.mask_files import write_mask, written_rule
from segsweep.classes.masks import MaskReading, read_mask, resize_mask
from segsweep.classes.presets import PRESETS
from segsweep.classes.readers import find_class_table, load_class_table, read_table
from segsweep.classes.rules import MaskRule
from segsweep.classes.table import IGNORE, ClassTable, LabelClass

__all__ = [
    "IGNORE",
    "PRESETS",
    "ClassTable",
    "LabelClass",
    "MaskReading",
    "MaskRule",
    "find_class_table",
    "load_class_table",
    "read_mask",
    "read_table",
    "resize_mask",
    "write_mask",
    "written_rule",
]
