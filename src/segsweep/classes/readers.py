"""Class tables from where people keep them: a preset's name, the configuration, a CSV or a JSON file."""

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
"""What a table's columns and keys are called, by what they mean; in any capitalisation."""

_ROLES = {alias: role for role, aliases in COLUMNS.items() for alias in aliases}
_DELIMITERS = ",;\t|"
_SUGGESTIVE = re.compile(r"class|label|colou?r|palette|legend", re.IGNORECASE)
_LARGEST_TABLE = 1 << 20  # bytes; a table of 255 classes takes some 10 thousand

Spec = str | PathLike[str] | Sequence[Mapping[str, Any]] | Mapping[str, Any]


def load_class_table(spec: Spec) -> tuple[ClassTable, MaskRule]:
    """The class table that a configuration names, and the rule by which its masks are read.

    Args:
        spec: the name of a preset; the path of a .csv or .json file; a list of mappings with name, color (as [r, g, b]
            or '#RRGGBB') and optionally id; or a mapping as `ClassTable.to_dict` gives it.

    Returns:
        The table, and the preset's rule or else the default one.

    Raises:
        UserError: there is no such preset or file, or the table in it is not valid.
    """
    if isinstance(spec, str) and spec in PRESETS:
        return PRESETS[spec]
    if isinstance(spec, str | PathLike):
        path = Path(spec)
        if path.suffix.lower() not in (".csv", ".tsv", ".json"):
            presets = ", ".join(PRESETS)
            close = difflib.get_close_matches(str(spec), PRESETS, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UserError(
                f"{spec}: no class table has this name{hint}; there are {presets}, or a .csv or .json file."
            )
        return read_table(path), MaskRule()
    return _from_entries(spec, strict=True), MaskRule()


def read_table(path: str | PathLike[str]) -> ClassTable:
    """The class table in a .csv, .tsv or .json file.

    A CSV has the columns name and r, g, b (or color), and id if the ids are not 0..K-1, in any order under a header.
    Without one they are `name,r,g,b`, `r,g,b,name` or `id,name,r,g,b`, or with '#RRGGBB' for r,g,b. Commas, semicolons,
    tabs or bars separate them. Other columns are passed over. A JSON file is a list of objects with such keys, or an
    object that has it under "classes" and may name the "background".

    Raises:
        UserError: the file is missing, is no such table, or the table is not valid.
    """
    path = Path(path)
    try:
        text = _text(path)
        if path.suffix.lower() == ".json":
            return _from_entries(json.loads(text), strict=False)
        return _from_rows(_rows(text))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: is not valid JSON (line {error.lineno}: {error.msg}).") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply for a class table.") from None
    except (UserError, csv.Error) as error:
        raise UserError(f"{path}: {error}") from None
    except ValueError:  # a number of thousands of digits
        raise UserError(f"{path}: holds a number that is no id and no colour value.") from None


def find_class_table(folder: str | PathLike[str]) -> Path | None:
    """The class table that lies in a data folder itself, or None if none does.

    Every .csv, .tsv and .json file that reads as a class table counts, whatever its name. If none does but a single one
    is named like one (classes, labels, colors, ...), it is that one, and reading it says what is wrong with it.

    Raises:
        UserError: there is no such folder, or more than one class table lies in it.
    """
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: there is no such folder.")
    candidates = sorted(
        p for p in Path(folder).iterdir() if p.suffix.lower() in (".csv", ".tsv", ".json") and p.is_file()
    )
    tables = [path for path in candidates if _reads(path)]
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise UserError(f"{folder}: holds several class tables ({names}); name one in data.labels.")
    named = [path for path in candidates if _SUGGESTIVE.search(path.stem)]
    if not tables and len(named) == 1:
        return named[0]
    return tables[0] if tables else None


def _reads(path: Path) -> bool:
    try:
        read_table(path)
    except UserError:
        return False
    return True


def _text(path: Path) -> str:
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
        # Spreadsheets save "Unicode text" as UTF-16, with a mark that says so.
        utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text; save it again as UTF-8.") from None


def _rows(text: str) -> list[list[str]]:
    """The rows of a CSV text, all equally wide: without blank lines, comments, empty last columns or a `sep=` line."""
    lines = text.splitlines()
    if lines and lines[0].lower().startswith("sep="):
        lines = lines[1:]
    readings = [_split(lines, delimiter) for delimiter in _DELIMITERS]
    if not any(readings):
        raise UserError("holds no class; write a row name,r,g,b for each.")
    # The separator is the one that cuts every row into the same number of cells, and into the most.
    even = [trimmed for rows in readings if (trimmed := _trimmed(rows)) is not None and len(trimmed[0]) > 1]
    if even:
        return max(even, key=lambda rows: len(rows[0]))
    rows = max(readings, key=lambda rows: sum(map(len, rows)))
    strange = next((row for row in rows if len(row) != len(rows[0])), rows[0])
    raise UserError(f"the row {','.join(strange)!r} does not have the columns of a class table: name,r,g,b.")


def _split(lines: list[str], delimiter: str) -> list[list[str]]:
    rows = []
    for line in lines:
        row = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])]
        # A row of the table holds a colour, whatever its class is called, so this is a comment; or else the header.
        if line.lstrip().startswith("#") and not _holds_values(row):
            row[0] = row[0].lstrip("# ")
            if _role(row[0]) is None:
                continue
        if any(row):
            rows.append(row)
    return rows


def _holds_values(row: list[str]) -> bool:
    return any(is_hex(cell) or whole_number(cell) is not None for cell in row)


def _trimmed(rows: list[list[str]]) -> list[list[str]] | None:
    """The rows cut to the last column in use, or None where a row does not reach it."""
    width = max((position + 1 for row in rows for position, cell in enumerate(row) if cell), default=0)
    return [row[:width] for row in rows] if rows and min(map(len, rows)) >= width else None


def _role(cell: str) -> str | None:
    return _ROLES.get(re.sub(r"[\s_-]+", "_", cell.strip().lower()))


def _from_rows(rows: list[list[str]]) -> ClassTable:
    has_header = not _holds_values(rows[0])
    roles = _header(rows[0]) if has_header else _guessed(rows[0])
    body = rows[1:] if has_header else rows
    entries = []
    for row in body:
        entry: dict[str, Any] = {role: cell for role, cell in zip(roles, row, strict=True) if role is not None}
        if "color" not in entry:
            entry["color"] = [entry.pop(role) for role in ("red", "green", "blue")]
        entries.append(entry)
    return _labels(entries, background=None)


def _header(header: list[str]) -> list[str | None]:
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


def _guessed(row: list[str]) -> list[str | None]:
    """The meaning of the columns without a header, only where there is one meaning."""
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


def _from_entries(data: Any, strict: bool) -> ClassTable:
    """The table from a list of mappings; `strict` refuses keys that mean nothing: in a configuration they are typos."""
    background = None
    if isinstance(data, Mapping):
        background = data.get("background")
        if unknown := [key for key in data if strict and key not in ("classes", "background")]:
            raise UserError(f"labels: the key {unknown[0]!r} means nothing here; there are classes and background.")
        data = data.get("classes")
    if isinstance(data, str) or not isinstance(data, Sequence) or not all(isinstance(entry, Mapping) for entry in data):
        raise UserError('a class table is a list of objects such as {"name": "Road", "color": "#6EC1E4"}.')
    entries = []
    for number, given in enumerate(data, start=1):
        entry: dict[str, Any] = {}
        for key, value in given.items():
            role = _role(str(key))
            if role is None and strict:
                raise UserError(f"class {number}: the key {key!r} means nothing here; there are name, color and id.")
            if role in entry:
                raise UserError(f"class {number}: the key {key!r} gives its {role} a second time; remove one.")
            if role is not None:
                entry[role] = value
        if "color" not in entry and all(role in entry for role in ("red", "green", "blue")):
            entry["color"] = [entry.pop(role) for role in ("red", "green", "blue")]
        for needed in ("name", "color"):
            if needed not in entry:
                raise UserError(f"class {number} has no {needed}; give each class a name and a color.")
        entries.append(entry)
    return _labels(entries, background)


def _labels(entries: list[dict[str, Any]], background: str | None) -> ClassTable:
    """Entries with name, color and, in all or none of them, id."""
    with_id = ["id" in entry for entry in entries]
    if any(with_id) and not all(with_id):
        raise UserError(
            f"class {entries[with_id.index(False)]['name']!r} has no id, but others have; give all or none one."
        )
    classes = [LabelClass(entry.get("id", at), entry["name"], entry["color"]) for at, entry in enumerate(entries)]
    return ClassTable(classes, background)
