"""What becomes of the values in a mask file: which reading, what is ignored, mapped or snapped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from segsweep.classes.table import LARGEST_ID, ClassTable, hex_color, parse_color, whole_number
from segsweep.errors import UserError
from segsweep.instantiate import checked

Reading = Literal["color", "index"]
SMALLEST_ID = -32768
"""The smallest number that a rule can name: .npy files may hold -1 for unlabelled."""


@dataclass(frozen=True)
class MaskRule:
    """How mask files are read. Where it names a colour or an id, it has the last word, over the class table too.

    Args:
        by: 'color': the colour of a pixel says the class. 'index': its number does, and the palette of a palette file
            is not looked at. 'auto': RGB and RGBA by colour, 16-bit gray and number arrays by index. A palette file or
            an 8-bit gray image has both readings. The one in which every pixel is a class (or named by this rule) is
            taken; where both are possible and differ, the file is refused. So is a palette file that is possible by
            index alone, since a palette in strange colours may number them in an order of that file's own; but a plain
            gray palette says nothing of colours and is read by index.
        ignore_colors, ignore_ids: what becomes 255. No id is ignored unless it is listed, 255 included: in many
            two-class masks 255 is the foreground.
        map_colors, map_ids: colours and ids that stand for a class, by name: `{"#000000": "Unlabeled"}`.
        snap: an unlisted colour becomes the nearest listed one, by the squared distance in RGB; needed for lossy masks. A
            gray image whose numbers are all ids has both readings then, so it is refused where these differ.

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
            raise UserError(f"by={self.by!r} is no way to read masks; choose one of {', '.join(readings)}.")
        if not isinstance(self.snap, bool):
            raise UserError(f"snap={self.snap!r} is neither true nor false.")
        plain: dict[str, Any] = {
            "ignore_colors": tuple(_color(entry) for entry in _sequence("ignore_colors", self.ignore_colors)),
            "ignore_ids": tuple(_id(entry) for entry in _sequence("ignore_ids", self.ignore_ids)),
            "map_colors": {_color(key): name for key, name in _mapping("map_colors", self.map_colors).items()},
            "map_ids": {_id(key): name for key, name in _mapping("map_ids", self.map_ids).items()},
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        for kind in ("colors", "ids"):
            for value in plain[f"ignore_{kind}"]:
                if value in plain[f"map_{kind}"]:
                    raise UserError(f"{value} is both in ignore_{kind} and in map_{kind}; take it out of one.")

    def check(self, labels: ClassTable) -> None:
        """Raise UserError if something is mapped to a name that is no class."""
        for key in ("map_colors", "map_ids"):
            for value, name in getattr(self, key).items():
                if name not in labels.names:
                    known = ", ".join(labels.names)
                    raise UserError(f"{key} maps {value} to {name!r}, which is no class; choose one of {known}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain data: strings, numbers, lists and dicts."""
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
        """The inverse of `to_dict`, also after a way through JSON; keys that are missing keep their defaults.

        Raises:
            UserError: an unknown key, or a value that `MaskRule` refuses.
        """
        known = [entry.name for entry in fields(cls)]
        for key in data:
            if key not in known:
                raise UserError(f"{key!r} is no setting for masks; there are {', '.join(known)}.")
        return cls(**data)


@checked
@dataclass(frozen=True, kw_only=True)
class MaskSettings:
    """What a user says of a `MaskRule`; None leaves what is there: the preset's, else the rule's own default.

    Raises:
        UserError: a value of the wrong kind.
    """

    by: Literal["auto", "color", "index"] | None = None
    ignore_colors: Sequence[str] | None = None
    ignore_ids: Sequence[int] | None = None
    map_colors: Mapping[str, str] | None = None
    map_ids: Mapping[int, str] | None = None
    snap: bool | None = None

    def applied(self, rule: MaskRule) -> MaskRule:
        """A rule with what is said here.

        Raises:
            UserError: as `MaskRule`.
        """
        return MaskRule(**{**vars(rule), **{name: value for name, value in vars(self).items() if value is not None}})


def _sequence(name: str, value: Any) -> Sequence[Any]:
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        raise UserError(f"{name}={value!r} is not a list; put brackets around it.")
    return value


def _mapping(name: str, value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{name}={value!r} is not a mapping to class names.")
    return value


def _color(value: Any) -> str:
    return hex_color(parse_color(value))


def _id(value: Any) -> int:
    number = whole_number(value)
    if number is None or not SMALLEST_ID <= number <= LARGEST_ID:
        raise UserError(f"{value!r} is no id; ids are whole numbers in {SMALLEST_ID}..{LARGEST_ID}.")
    return number
