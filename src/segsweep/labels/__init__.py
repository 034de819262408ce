"""The class table, and masks in and out of colours."""

from segsweep.labels.table import IGNORE, LabelClass, Labels

__all__ = ["IGNORE", "LabelClass", "Labels"]
