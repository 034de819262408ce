"""Class tables as labelling tools and data sets write them, as lists of mappings with name, id and color.

Text files: CVAT's `labelmap.txt` (`Cat:48,112,32::`), labelme's `class_names.txt` (a name a line, numbered from 0),
CamVid's `label_colors.txt` (`64 128 64 Animal`), and lines such as `1 cat`, `1: cat` and `cat 1`.

JSON files: a list of objects or names; such a list under "classes", "categories" (COCO) or "labels"; an object that maps
ids to names or names to ids; and Supervisely's `meta.json`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from segsweep.classes.table import is_background, whole_number
from segsweep.errors import UserError

Entries = list[dict[str, Any]]

_CVAT = re.compile(r"(?P<name>.+?):(?P<color>\d+,\d+,\d+)?:[^:]*:[^:]*")
_CAMVID = re.compile(r"(?P<color>\d+\s+\d+\s+\d+)\s+(?P<name>\S.*)")
_NUMBERED = (
    re.compile(r"(?P<id>\d+)\s*[\s:=]\s*(?P<name>\S.*)"),
    re.compile(r"(?P<name>.*\S)\s*[\s:=]\s*(?P<id>\d+)"),
)
_IGNORED = "__ignore__"
"""The first line of labelme's list of labels; it stands for pixels without a class."""


def entries_of_text(text: str) -> Entries | None:
    """The classes in a text file; None if it has the columns of a CSV file.

    Raises:
        UserError: the file holds no class, or a class of a colour table has no colour.
    """
    rows = [line.strip() for line in text.splitlines()]
    rows = [row for row in rows if row and not row.startswith("#")]
    if set(rows) <= {_IGNORED}:
        raise UserError("holds no class; write a name a line, for the ids 0, 1, 2, ...")
    lines = [" ".join(row.split()) for row in rows]  # the patterns' time would be quadratic in a run of spaces
    for pattern, separator in ((_CVAT, ","), (_CAMVID, None)):
        found = [pattern.fullmatch(line) for line in lines]
        if all(found):
            groups = [match.groupdict() for match in found if match is not None]
            if missing := [group["name"] for group in groups if not group["color"]]:
                raise UserError(f"class {missing[0]!r} has no colour; write it as {missing[0]}:r,g,b::")
            return [{"name": group["name"], "color": group["color"].split(separator)} for group in groups]
    for pattern in _NUMBERED:
        found = [pattern.fullmatch(line) for line in lines]
        if all(found):
            return [match.groupdict() for match in found if match is not None]
    if re.search("[,;\t|]", text):
        return None
    names = [row for row in rows if row != _IGNORED]
    return [{"id": position, "name": name} for position, name in enumerate(names)]


def entries_of_json(data: Any) -> Any:
    """The content of a JSON file in the form that `table_from_entries` reads; unchanged if it is no known form."""
    if isinstance(data, Mapping):
        key = next((key for key in ("classes", "categories", "labels") if isinstance(data.get(key), list)), None)
        if key is not None:
            return {"classes": entries_of_json(data[key]), "background": data.get("background")}
        pairs = [(id_, name) for id_, name in data.items() if isinstance(name, str) and whole_number(id_) is not None]
        pairs = pairs or [(id_, name) for name, id_ in data.items() if whole_number(id_) is not None]
        return [{"id": id_, "name": name} for id_, name in pairs] if len(pairs) == len(data) > 1 else data
    if isinstance(data, list) and data and all(isinstance(name, str) for name in data):
        return [{"id": position, "name": name} for position, name in enumerate(data)]
    return data


def supervisely_entries(data: Any) -> Entries | None:
    """The classes of Supervisely's `meta.json`; None if it is another file.

    Its "id" is a number in their database. Machine masks number the classes from 1 in this order; pixels without a class
    are 0 and black in both kinds of masks. Source: readme of supervisely-ecosystem/export-as-masks.
    """
    classes = data.get("classes") if isinstance(data, Mapping) else None
    if not isinstance(classes, Sequence) or not all(
        isinstance(entry, Mapping) and "title" in entry for entry in classes
    ):
        return None
    entries = [
        {"id": number, "name": entry["title"], "color": entry.get("color")}
        for number, entry in enumerate(classes, start=1)
    ]
    taken = any(is_background(str(entry["name"])) or entry["color"] == "#000000" for entry in entries)
    return entries if taken or not entries else [{"id": 0, "name": "background", "color": "#000000"}, *entries]
