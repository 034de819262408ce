"""The class table of a folder: typed, found in it, or missing."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from segsweep.classes import ClassTable, MaskRule
from segsweep.classes.readers import find_class_table, load_class_table
from segsweep.classes.rules import MaskSettings
from segsweep.console import hydra_argument
from segsweep.data.first_look import MaskLook, look_at_masks
from segsweep.data.layouts import LayoutSettings
from segsweep.errors import UserError, shown
from segsweep.invocation import to_type

LabelSpec = str | Sequence[Mapping[str, Any]] | Mapping[str, Any] | ClassTable


class NoClassTableError(UserError):
    """A folder holds no class table; `look` is what its masks hold."""

    look: MaskLook


def load_labels(
    root: Path, spec: LabelSpec | None, wanted: LayoutSettings, masks: MaskSettings
) -> tuple[ClassTable, MaskRule, str]:
    """The class table, the mask rule of its preset or file, and where the table is from, in words.

    Args:
        root: the folder.
        spec: `data.labels`; None finds the table in the folder.
        wanted, masks: how files are named and how masks are read, for the first look at a folder without a table.

    Raises:
        NoClassTableError: there is none; has what the masks hold.
        UserError: the table is invalid, or there is none and the files do not pair either.
    """
    if isinstance(spec, ClassTable):
        return spec, MaskRule(), "as given"
    if spec is not None:
        return *load_class_table(spec), f"from {spec}" if isinstance(spec, str) else "as configured"
    if not root.is_dir():
        raise UserError(f"{shown(root)}: no such folder; set data.root to the folder with images and masks")
    if (table := find_class_table(root)) is not None:
        return *load_class_table(str(table)), f"from {shown(table)}"
    look = look_at_masks(root, wanted, masks)
    typed = [
        hydra_argument(f"data.{entry.name}", getattr(wanted, entry.name))
        for entry in fields(wanted)
        if getattr(wanted, entry.name) not in (entry.default, [])
    ]
    command = " ".join([to_type("check_data"), hydra_argument("data.root", root), *typed])
    known = f"add data.labels={look.presets_by_color[0]}, or " if look.presets_by_color else ""
    error = NoClassTableError(
        f"{shown(root)}: holds no class table; {look.summary()}; {known}type {command} to get a table to fill in, for"
        " data.labels"
    )
    error.look = look
    raise error
