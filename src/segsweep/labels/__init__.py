"""The class table, and masks in and out of colours."""

from segsweep.labels.masks import MaskReading, read_mask, resize_mask, write_mask, written_rule
from segsweep.labels.presets import PRESETS
from segsweep.labels.readers import find_class_table, load_labels, read_table
from segsweep.labels.rules import MaskRule
from segsweep.labels.table import IGNORE, LabelClass, Labels

__all__ = [
    "IGNORE",
    "PRESETS",
    "LabelClass",
    "Labels",
    "MaskReading",
    "MaskRule",
    "find_class_table",
    "load_labels",
    "read_mask",
    "read_table",
    "resize_mask",
    "write_mask",
    "written_rule",
]
