"""The class table: id, name and colour of every class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

IGNORE = 255
"""The id of pixels that neither the loss nor any metric looks at."""


@dataclass(frozen=True)
class LabelClass:
    """One class: its id in masks, its name in tables, its colour in pictures."""

    id: int
    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Labels:
    """The classes of a data set, in the order of their channels in a net's output."""

    classes: tuple[LabelClass, ...]

    def __init__(self, classes: Sequence[LabelClass]) -> None:
        object.__setattr__(self, "classes", tuple(classes))

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self.classes]

    def __len__(self) -> int:
        return len(self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as checkpoints hold it."""
        return {"classes": [{"id": c.id, "name": c.name, "color": list(c.color)} for c in self.classes]}
