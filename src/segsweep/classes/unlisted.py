"""Colours and ids in masks that are no class: the error, with what to type to map or ignore them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segsweep.classes.presets import preset_hint
from segsweep.classes.rules import MaskRule, Reading
from segsweep.classes.table import ClassTable, LabelClass, hex_color, unpack
from segsweep.console import hydra_argument
from segsweep.errors import UserError

SHOWN = 3
"""How many unlisted values an error names, the most frequent first."""

BLURRED = 16
"""More unlisted colours than this in one file come from compression or resizing, not from forgotten classes."""

KEPT = 256
"""How many unlisted values an error keeps, the most frequent ones."""


class UnlistedError(UserError):
    """A mask holds colours or ids that neither class table nor rule lists.

    `pixels` are the numbers of pixels by colour (`#RRGGBB`) or id, of the `KEPT` most frequent ones.
    """

    def __init__(
        self, message: str, mode: Reading = "color", values: Sequence[int] = (), counts: Sequence[int] = ()
    ) -> None:
        super().__init__(message)
        most = sorted(zip(counts, values, strict=True), key=lambda entry: -entry[0])[:KEPT]
        self.pixels = {hex_color(int(value)) if mode == "color" else str(value): int(count) for count, value in most}


def unlisted_message(
    where: str,
    mode: Reading,
    values: NDArray[Any],
    counts: NDArray[np.int64],
    pixels: int | None,
    labels: ClassTable,
    rule: MaskRule,
    blurred: bool | None = None,
) -> str:
    """The error about unlisted values: file, counts, nearest classes and what to do.

    Args:
        where: the mask file, or several.
        mode: whether `values` are colours or ids.
        values: integers [N], the unlisted colours as 0xRRGGBB or ids, each once.
        counts: integers [N], the pixels of each.
        pixels: the number of pixels of the file, listed or not; None if it is unknown.
        labels, rule: the class table, and what is mapped and ignored already.
        blurred: whether compression or resizing has made the values; None: if there are more than `BLURRED`.
    """
    number, order = len(values), np.argsort(-counts, kind="stable")
    shown = values[order[:SHOWN]].tolist()
    texts = [hex_color(value) if mode == "color" else str(value) for value in shown]
    parts: list[str] = []
    for value, text, count in zip(shown, texts, counts[order[:SHOWN]].tolist(), strict=True):
        kind = "colour" if mode == "color" else "id"
        amount = f"{count:,} of" if parts else f"{count:,} pixel{'s' if count > 1 else ''} of {kind}"
        which = ", which is no class" if number == 1 else ""
        nearest = nearest_class(value, mode, labels)
        known = nearest.id if mode == "index" else hex_color(nearest.color)
        parts.append(f"{amount} {text}{which} (nearest: {nearest.name} {known})")
    if rest := number - len(shown):
        parts.append(f"{int(counts[order[SHOWN:]].sum()):,} of {rest:,} other{'s' if rest > 1 else ''}")
    what = ", ".join(parts) + (", which are no classes" if number > 1 else "")

    doubt = ""
    # One unlisted colour on most of a mask is usually unlabelled background; several suggest another class table.
    if number > 1 and pixels is not None and 2 * counts.sum() > pixels:
        known = preset_hint(values) if mode == "color" else ""
        doubt = f"Most pixels are of no class: is data.labels the table of these masks? {known}Otherwise: "

    kinds = "colors" if mode == "color" else "ids"
    if number > BLURRED if blurred is None else blurred:
        way_out = (
            "So many colours come from lossy compression or from resizing with interpolation: use the original masks, or "
            "take the nearest class with data.snap=true."
            if mode == "color"
            else "So many ids are seldom classes: name the folder of masks that show classes in data.masks."
        )
        return f"{where}: {what}. {doubt}{way_out}"
    it = "it" if number == 1 else "them"
    # What the rule ignores already is repeated: a typed list replaces it.
    every = values[order].tolist()
    ignored = [*getattr(rule, f"ignore_{kinds}"), *(hex_color(value) if mode == "color" else value for value in every)]
    # Hydra's keys have no quotes, and a # would begin a comment.
    mapped = {f"0x{key[1:]}" if mode == "color" else key: name for key, name in getattr(rule, f"map_{kinds}").items()}
    for value in every:
        key = f"0x{value:06X}" if mode == "color" else value
        mapped[key] = nearest_class(value, mode, labels).name
    way_out = (
        f"Map {it} to the right class, as in {hydra_argument(f'data.map_{kinds}', mapped)}, or ignore {it} with"
        f" {hydra_argument(f'data.ignore_{kinds}', ignored)}."
    )
    return f"{where}: {what}. {doubt}{way_out}"


def nearest_class(value: int, mode: Reading, labels: ClassTable) -> LabelClass:
    """The class nearest to an unlisted id or colour."""
    if mode == "index":
        return min(labels.classes, key=lambda entry: abs(entry.id - value))
    distances = ((labels.colors.astype(int) - unpack(value)) ** 2).sum(axis=1)
    return labels.classes[int(distances.argmin())]
