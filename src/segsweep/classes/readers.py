"""Read a class table: from a preset's name, the configuration, a CSV or a JSON file."""

import contextlib
import csv
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from segsweep.classes.presets import PRESETS
from segsweep.classes.rules import MaskRule
from segsweep.classes.table import ClassTable, LabelClass, is_hex, whole_number
from segsweep.errors import UserError

COLUMNS = {
    "name": ("name", "class", "class_name", "classname", "label", "label_name", "title", "category"),
    "color": ("color", "colour", "hex", "rgb"),
    "red": ("r", "red"),
    "green": ("g", "green"),
    "blue": ("b", "blue"),
    "id": ("id", "index", "value", "class_id", "label_id", "class_index"),
}
"""Accepted names of a table's columns and keys, by their meaning, in any capitalisation."""

_ROLES = {alias: role for role, aliases in COLUMNS.items() for alias in aliases}
_DELIMITERS = ",;\t|"
_SUGGESTIVE = re.compile(r"class|label|colou?r|palette|legend", re.IGNORECASE)
_LARGEST_TABLE = 1 << 20  # bytes; a table of 255 classes takes about 10,000

Spec = str | PathLike[str] | Sequence[Mapping[str, Any]] | Mapping[str, Any]


def load_class_table(spec: Spec) -> tuple[ClassTable, MaskRule]:
    """The class table for a value of data.labels, and the rule for reading its masks.

    Args:
        spec: the name of a preset; the path of a .csv, .tsv or .json file; a list of mappings with name, color (as
            [r, g, b] or '#RRGGBB') and optionally id; or a mapping from `ClassTable.to_dict`.

    Returns:
        The table, and the preset's rule, or else the default rule.

    Raises:
        UserError: there is no such preset or file, or the table is invalid.
    """
    if isinstance(spec, str) and spec in PRESETS:
        return PRESETS[spec]
    if isinstance(spec, str | PathLike):
        path = Path(spec)
        if path.suffix.lower() not in (".csv", ".tsv", ".json"):
            close = difflib.get_close_matches(str(spec), PRESETS, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UserError(
                f"labels={spec}: no class table has this name{hint}; use {', '.join(PRESETS)}, or a .csv or .json file."
            )
        return read_table(path), MaskRule()
    try:
        return table_from_entries(spec, strict=True), MaskRule()
    except UserError as error:
        raise UserError(f"labels: {error}") from None


def read_table(path: str | PathLike[str]) -> ClassTable:
    """The class table in a .csv, .tsv or .json file.

    A CSV has the columns name and r, g, b (or color), and id if the ids are not 0..K-1, in any order under a header.
    Without a header the columns are `name,r,g,b`, `r,g,b,name` or `id,name,r,g,b`, with '#RRGGBB' allowed for r,g,b.
    Commas, semicolons, tabs or bars separate them. Other columns are ignored. A JSON file is a list of objects with
    such keys, or an object with that list under "classes" and optionally the name of the "background".

    Raises:
        UserError: the file is missing or too large, or holds no valid class table.
    """
    path = Path(path)
    try:
        text = _read_text(path)
        if path.suffix.lower() == ".json":
            return table_from_entries(json.loads(text), strict=False)
        rows = csv_rows(text)
        has_header = not _holds_values(rows[0])
        roles = header_roles(rows[0]) if has_header else guessed_roles(rows[0])
        entries = [{role: cell for role, cell in zip(roles, row, strict=True) if role} for row in rows[has_header:]]
        return table_from_entries(entries, strict=False)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: is not valid JSON (line {error.lineno}: {error.msg}).") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply for a class table.") from None
    except (UserError, csv.Error) as error:
        raise UserError(f"{path}: {error}") from None
    except ValueError:  # Python refuses integers of more than 4,300 digits
        raise UserError(f"{path}: holds a number that is too large for an id or a colour value.") from None


def find_class_table(folder: str | PathLike[str]) -> Path | None:
    """The class table directly in a data folder, or None.

    This is the only .csv, .tsv or .json file that can be read as a class table, whatever its name. If none can be read,
    but exactly one is named like a table (classes, labels, colors, ...), it is that one: reading it tells the mistake.

    Raises:
        UserError: there is no such folder, or it holds more than one class table.
    """
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: there is no such folder.")
    candidates = sorted(
        p for p in Path(folder).iterdir() if p.suffix.lower() in (".csv", ".tsv", ".json") and p.is_file()
    )
    tables = []
    for path in candidates:
        with contextlib.suppress(UserError):
            read_table(path)
            tables.append(path)
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise UserError(f"{folder}: holds several class tables ({names}); name one in data.labels.")
    named = [path for path in candidates if _SUGGESTIVE.search(path.stem)]
    if not tables and len(named) == 1:
        return named[0]
    return tables[0] if tables else None


def _read_text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise UserError("is a folder or device, not a class table.")
        with path.open("rb") as file:
            content = file.read(_LARGEST_TABLE + 1)
        if len(content) > _LARGEST_TABLE:
            raise UserError("is too large for a class table.")
    except FileNotFoundError:
        raise UserError("there is no such file.") from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror}).") from None
    try:
        # Spreadsheets save "Unicode text" as UTF-16 with a byte order mark.
        utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text; save it again as UTF-8.") from None


def csv_rows(text: str) -> list[list[str]]:
    """The rows of a CSV text, all equally wide: without blank lines, comments, empty last columns or a `sep=` line.

    Raises:
        UserError: there is no row, or no separator cuts all rows into the same number of cells.
    """
    lines = text.splitlines()
    if lines and lines[0].lower().startswith("sep="):
        lines = lines[1:]
    readings = [_split_lines(lines, delimiter) for delimiter in _DELIMITERS]
    if not any(readings):
        raise UserError("holds no class; write a row name,r,g,b for each.")
    even = []
    for rows in readings:
        width = max((at for row in rows for at, cell in enumerate(row, start=1) if cell), default=0)
        if 1 < width <= min(map(len, rows)):
            even.append([row[:width] for row in rows])
    if even:  # the right separator gives the most columns
        return max(even, key=lambda rows: len(rows[0]))
    rows = max(readings, key=lambda rows: sum(map(len, rows)))
    strange = next((row for row in rows if len(row) != len(rows[0])), rows[0])
    raise UserError(f"the row {','.join(strange)!r} does not have the columns of a class table: name,r,g,b.")


def _split_lines(lines: list[str], delimiter: str) -> list[list[str]]:
    rows = []
    for line in lines:
        row = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])]
        # A line with # but no colour or number is the header if its first cell names a column, otherwise a comment.
        if line.lstrip().startswith("#") and not _holds_values(row):
            row[0] = row[0].lstrip("# ")
            if _role(row[0]) is None:
                continue
        if any(row):
            rows.append(row)
    return rows


def _holds_values(row: list[str]) -> bool:
    return any(is_hex(cell) or whole_number(cell) is not None for cell in row)


def _role(cell: str) -> str | None:
    return _ROLES.get(re.sub(r"[\s_-]+", "_", cell.strip().lower()))


def header_roles(header: list[str]) -> list[str | None]:
    """The meaning of each column, a key of COLUMNS or None; raises UserError if one is missing or ambiguous."""
    roles = [_role(cell) for cell in header]
    for role in COLUMNS:
        if roles.count(role) > 1:
            both = " and ".join(repr(cell) for cell, found in zip(header, roles, strict=True) if found == role)
            raise UserError(f"the columns {both} could each be the {role}; rename one.")
    needed = ["name"] if "color" in roles else ["name", "red", "green", "blue"]
    missing = [{"red": "r", "green": "g", "blue": "b"}.get(role, role) for role in needed if role not in roles]
    if missing:
        raise UserError(
            f"there is no column {' and no column '.join(missing)} (there are {', '.join(header)}); "
            "a class table has the columns name,r,g,b."
        )
    return roles


def guessed_roles(row: list[str]) -> list[str | None]:
    """The meaning of each column without a header, from the first row; raises UserError unless only one is possible."""
    kinds = "".join(
        "x" if is_hex(cell) and "#" in cell else "n" if whole_number(cell) is not None else "t" for cell in row
    )
    meanings: dict[str, list[str | None]] = {
        "tnnn": ["name", "red", "green", "blue"],
        "nnnt": ["red", "green", "blue", "name"],
        "ntnnn": ["id", "name", "red", "green", "blue"],
        "tx": ["name", "color"],
        "xt": ["color", "name"],
        "ntx": ["id", "name", "color"],
    }
    if kinds not in meanings:
        raise UserError(f"the row {','.join(row)!r} can be read in several ways; put the header name,r,g,b above it.")
    return meanings[kinds]


def table_from_entries(data: Any, strict: bool) -> ClassTable:
    """The table from a list of mappings, or from a mapping with such "classes" and optionally a "background".

    Args:
        data: see above; keys as in COLUMNS.
        strict: refuse unknown keys, which are typos in a configuration.

    Raises:
        UserError: another form, or the table is invalid.
    """
    background = None
    if isinstance(data, Mapping):
        background = data.get("background")
        if unknown := [key for key in data if strict and key not in ("classes", "background")]:
            raise UserError(f"unknown key {unknown[0]!r}; use classes and background.")
        data = data.get("classes")
    if isinstance(data, str) or not isinstance(data, Sequence) or not all(isinstance(entry, Mapping) for entry in data):
        raise UserError('a class table is a list of objects such as {"name": "Road", "color": "#6EC1E4"}.')
    entries = []
    for number, given in enumerate(data, start=1):
        entry: dict[str, Any] = {}
        for key, value in given.items():
            role = _role(str(key))
            if role is None and strict:
                raise UserError(f"class {number}: unknown key {key!r}; use name, color and id.")
            if role in entry:
                raise UserError(f"class {number}: the key {key!r} gives the {role} a second time; remove one.")
            if role is not None:
                entry[role] = value
        if "color" not in entry and all(role in entry for role in ("red", "green", "blue")):
            entry["color"] = [entry.pop(role) for role in ("red", "green", "blue")]
        for needed in ("name", "color"):
            if needed not in entry:
                raise UserError(f"class {number} has no {needed}; give each class a name and a color.")
        entries.append(entry)
    with_id = ["id" in entry for entry in entries]
    if any(with_id) and not all(with_id):
        name = entries[with_id.index(False)]["name"]
        raise UserError(f"class {name!r} has no id, but others have; give an id to all or to none.")
    classes = [LabelClass(entry.get("id", at), entry["name"], entry["color"]) for at, entry in enumerate(entries)]
    return ClassTable(classes, background)
