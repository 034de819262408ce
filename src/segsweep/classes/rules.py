"""Rules for reading a mask file: by colour or by index, and which values are ignored, mapped or snapped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from segsweep.classes.table import LARGEST_ID, ClassTable, LabelClass, hex_color, parse_color, whole_number
from segsweep.console import hydra_argument
from segsweep.errors import UserError
from segsweep.instantiate import checked

Reading = Literal["color", "index"]
SMALLEST_ID = -32768
"""The smallest id that a rule can list: .npy files may hold -1 for unlabelled pixels."""


@dataclass(frozen=True)
class MaskRule:
    """How to read mask files. If rule and class table list the same colour or id, the rule wins.

    Args:
        by: 'color': the colour of a pixel decides its class. 'index': its number does; the palette of a palette file is
            ignored. 'auto': by colour for RGB and RGBA, by index for 16-bit gray and number arrays. Palette files and
            8-bit gray images can be read both ways; 'auto' takes the way in which table or rule lists every pixel. If
            both ways do and differ, the file is refused. A palette file that fits only by index is refused too, because
            a palette in unknown colours may number the classes differently in each file. A plain gray palette says
            nothing about colours, so its file is read by index.
        ignore_colors, ignore_ids: become 255. An id is ignored only if it is listed, even 255: in many two-class masks
            255 is the foreground.
        map_colors, map_ids: further colours and ids of a class, by its name: `{"#000000": "Unlabeled"}`.
        snap: replace an unlisted colour by the nearest listed one, by squared distance in RGB; needed for lossy masks. A
            gray image whose numbers are all ids then has both readings, so it is refused if they differ.

    Raises:
        UserError: a value of the wrong kind, or a colour or id both ignored and mapped.
    """

    by: Literal["auto", "color", "index"] = "auto"
    ignore_colors: tuple[str, ...] = ()
    ignore_ids: tuple[int, ...] = ()
    # Dictionaries have no hash; equality still compares them.
    map_colors: dict[str, str] = field(default_factory=dict, hash=False)
    map_ids: dict[int, str] = field(default_factory=dict, hash=False)
    snap: bool = False

    def __post_init__(self) -> None:
        readings = ("auto", *get_args(Reading))
        if self.by not in readings:
            raise UserError(f"by={self.by!r}: is no way to read masks; choose one of {', '.join(readings)}.")
        if not isinstance(self.snap, bool):
            raise UserError(f"snap={self.snap!r}: must be true or false.")
        for key in ("ignore_colors", "ignore_ids"):
            value = getattr(self, key)
            if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
                typed = hydra_argument(f"data.{key}", [value])
                raise UserError(f"{key}={value!r}: is not a list; put brackets around it: {typed}.")
        for key in ("map_colors", "map_ids"):
            if not isinstance(value := getattr(self, key), Mapping):
                example = hydra_argument(f"data.{key}", {"0x000000" if key == "map_colors" else "9": "Road"})
                raise UserError(f"{key}={value!r}: is not a mapping to class names; write it as {example}.")
        plain: dict[str, Any] = {
            "ignore_colors": tuple(hex_color(parse_color(color)) for color in self.ignore_colors),
            "ignore_ids": tuple(parse_id(number) for number in self.ignore_ids),
            "map_colors": {hex_color(parse_color(color)): name for color, name in self.map_colors.items()},
            "map_ids": {parse_id(number): name for number, name in self.map_ids.items()},
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        for kind in ("colors", "ids"):
            for value in plain[f"ignore_{kind}"]:
                if value in plain[f"map_{kind}"]:
                    raise UserError(f"ignore_{kind}: {value} is in map_{kind} too; remove it from one of them.")

    def check(self, labels: ClassTable) -> None:
        """Raise UserError if a colour or id is mapped to an unknown class."""
        for key in ("map_colors", "map_ids"):
            for value, name in getattr(self, key).items():
                if name not in labels.names:
                    known = ", ".join(labels.names)
                    raise UserError(f"{key}: {value} is mapped to {name!r}, which is no class; choose one of {known}.")

    def ignores(self, entry: LabelClass) -> bool:
        """Whether a class is ignored: its colour or its id is, and nothing is mapped to it."""
        color = hex_color(entry.color)
        mapped = color in self.map_colors or entry.id in self.map_ids
        mapped = mapped or entry.name in (*self.map_colors.values(), *self.map_ids.values())
        return not mapped and (color in self.ignore_colors or entry.id in self.ignore_ids)

    def to_dict(self) -> dict[str, Any]:
        """The rule as plain data, as a checkpoint stores it."""
        return {
            "by": self.by,
            "ignore_colors": list(self.ignore_colors),
            "ignore_ids": list(self.ignore_ids),
            "map_colors": dict(self.map_colors),
            "map_ids": dict(self.map_ids),
            "snap": self.snap,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "MaskRule":
        """The inverse of `to_dict`, also after JSON made the ids strings; missing keys keep their defaults.

        Raises:
            UserError: an unknown key, or a value that `MaskRule` refuses.
        """
        known = [entry.name for entry in fields(cls)]
        for key in data:
            if key not in known:
                raise UserError(f"{key!r} is not a mask setting; there are {', '.join(known)}.")
        return cls(**data)


@checked
@dataclass(frozen=True, kw_only=True)
class MaskSettings:
    """The user's changes to a `MaskRule`. None keeps the value of the preset, or else the default.

    Raises:
        UserError: a value of the wrong kind.
    """

    by: Literal["auto", "color", "index"] | None = None
    ignore_colors: Sequence[str | float] | None = None
    ignore_ids: Sequence[int] | None = None
    map_colors: Mapping[str | float, str] | None = None
    map_ids: Mapping[int, str] | None = None
    snap: bool | None = None

    def applied(self, rule: MaskRule) -> MaskRule:
        """The rule with these changes; raises UserError as `MaskRule` does."""
        return MaskRule(**{**vars(rule), **{name: value for name, value in vars(self).items() if value is not None}})


def parse_id(value: Any) -> int:
    """An id from an integer, float or text; raises UserError if it is not a whole number in SMALLEST_ID..LARGEST_ID."""
    number = whole_number(value)
    if number is None or not SMALLEST_ID <= number <= LARGEST_ID:
        raise UserError(f"{value!r} is not an id; ids are whole numbers in {SMALLEST_ID}..{LARGEST_ID}.")
    return number
