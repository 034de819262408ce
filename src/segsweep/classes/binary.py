"""Class tables of two classes: which class is the object, and which classes are ignored."""

import re
from typing import Literal

from segsweep.classes.rules import MaskRule
from segsweep.classes.table import ClassTable, hex_color
from segsweep.errors import UserError

BACKGROUND_NAMES = frozenset(
    {"background", "bg", "clutter", "negative", "none", "other", "unlabeled", "unlabelled", "void"}
)
"""Names of a background class, without capitals and without anything but letters."""


def for_task(
    task: Literal["auto", "binary", "multiclass"], labels: ClassTable, rule: MaskRule
) -> tuple[Literal["binary", "multiclass"], ClassTable, MaskRule]:
    """The task of a class table, with the table and the mask rule for it; see `binary_table`.

    Args:
        task: "auto" is binary if exactly two classes are not ignored.
        labels: the table as the user gave it.
        rule: how masks are read.

    Raises:
        UserError: "binary" was asked for, and other than two classes are not ignored.
    """
    if task != "multiclass" and (binary := binary_table(labels, rule)) is not None:
        return "binary", *binary
    if task == "binary":
        counted = [entry.name for entry in labels.classes if not rule.ignores(entry)]
        remedy = "leave data.task out" + (", or ignore the others with data.ignore_colors" if len(counted) > 2 else "")
        raise UserError(
            f"data.task=binary: needs two classes that are not ignored, and the class table has {len(counted)}"
            f" ({', '.join(counted)}); {remedy}"
        )
    return "multiclass", labels, rule


def binary_table(labels: ClassTable, rule: MaskRule) -> tuple[ClassTable, MaskRule] | None:
    """The class table and the mask rule of a binary task; None unless exactly two classes are not ignored.

    The table has the background first and the object second, so that 1 is the object in every mask. Ignored classes
    follow. The background is, of the two: the table's own `background`; else the only one with a name in
    `BACKGROUND_NAMES`; else the one with id 0; else the first. In the first two cases the table names it.

    The new rule ignores an ignored class by colour and by id. So no pixel has that class, however a mask is read.

    Args:
        labels: the table as the user gave it.
        rule: how masks are read.
    """
    ignored = [entry for entry in labels.classes if rule.ignores(entry)]
    counted = [entry for entry in labels.classes if entry not in ignored]
    if len(counted) != 2:
        return None
    names = [entry.name for entry in counted]
    alike = [name for name in names if re.sub("[^a-z]", "", name.lower()) in BACKGROUND_NAMES]
    named = labels.background if labels.background in names else alike[0] if len(alike) == 1 else None
    if named is not None:
        background = counted[names.index(named)]
    else:
        background = next((entry for entry in counted if entry.id == 0), counted[0])
    (positive,) = (entry for entry in counted if entry is not background)
    colors = dict.fromkeys([*rule.ignore_colors, *(hex_color(entry.color) for entry in ignored)])
    ids = dict.fromkeys([*rule.ignore_ids, *(entry.id for entry in ignored)])
    both = MaskRule(**{**vars(rule), "ignore_colors": tuple(colors), "ignore_ids": tuple(ids)})
    return ClassTable([background, positive, *ignored], named), both
