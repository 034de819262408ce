"""Read a class table: from a preset's name, the configuration, a CSV, JSON or text file."""

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
from segsweep.classes.table import ClassTable, LabelClass, is_background, is_hex, readable_colors, whole_number
from segsweep.classes.tool_tables import entries_of_json, entries_of_text, supervisely_entries
from segsweep.errors import UserError

COLUMNS = {
    "name": ("name", "class", "class_name", "classname", "label", "label_name", "title", "category"),
    "color": ("color", "colour", "hex", "rgb"),
    "red": ("r", "red"),
    "green": ("g", "green"),
    "blue": ("b", "blue"),
    "id": ("id", "index", "value", "class_id", "label_id", "class_index", "pixel_value"),
}
"""Accepted names of a table's columns and keys, by their meaning, in any capitalisation."""

_ROLES = {alias: role for role, aliases in COLUMNS.items() for alias in aliases}
_DELIMITERS = ",;\t|"
_SUGGESTIVE = re.compile(r"class|label|colou?r|palette|legend|categor", re.IGNORECASE)
_TABLES = (".csv", ".tsv", ".json", ".txt")
_TEXTS = ("labelmap.txt", "class_names.txt", "label_colors.txt")
"""Text files that are found by themselves: those of CVAT, labelme and CamVid. Others are mostly lists of files."""
_LARGEST_TABLE = 1 << 20  # bytes; a table of 255 classes takes about 10,000

Spec = str | PathLike[str] | Sequence[Mapping[str, Any]] | Mapping[str, Any]


def load_class_table(spec: Spec) -> tuple[ClassTable, MaskRule]:
    """The class table for a value of data.labels, and the rule for reading its masks.

    Args:
        spec: the name of a preset; the path of a .csv, .tsv, .json or .txt file; a list of mappings with name, and color
            (as [r, g, b] or '#RRGGBB') or id or both; or a mapping from `ClassTable.to_dict`.

    Returns:
        The table, and the rule of the preset or of the tool that wrote the file; see `read_table_and_rule`.

    Raises:
        UserError: there is no such preset or file, or the table is invalid.
    """
    if isinstance(spec, str) and spec in PRESETS:
        return PRESETS[spec]
    if isinstance(spec, str | PathLike):
        path = Path(spec)
        if path.suffix.lower() not in _TABLES:
            close = difflib.get_close_matches(str(spec), PRESETS, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UserError(
                f"labels={spec}: no class table has this name{hint}; use {', '.join(PRESETS)}, or a .csv, .json or .txt"
                " file."
            )
        return read_table_and_rule(path)
    try:
        return table_from_entries(spec, strict=True)
    except UserError as error:
        raise UserError(f"labels: {error}") from None


def read_table(path: str | PathLike[str]) -> ClassTable:
    """The class table in a file; see `read_table_and_rule`."""
    return read_table_and_rule(path)[0]


def read_table_and_rule(path: str | PathLike[str]) -> tuple[ClassTable, MaskRule]:
    """The class table in a .csv, .tsv, .json or .txt file, and the rule for reading its masks.

    A CSV has the columns name and r, g, b (or color), and id if the ids are not 0..K-1, in any order under a header.
    Without a header the columns are `name,r,g,b`, `r,g,b,name`, `id,name,r,g,b` or `id,name`, with '#RRGGBB' allowed for
    r,g,b. Commas, semicolons, tabs or bars separate them. Other columns are ignored. JSON and text files: see
    `tool_tables`.

    Without colours, `readable_colors` gives some, and masks are read by index.

    Raises:
        UserError: the file is missing or too large, or holds no valid class table.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        text = _read_text(path)
        if suffix == ".json":
            data = json.loads(text)
            if path.name == "meta.json" and (entries := supervisely_entries(data)):
                return _with_background(*table_from_entries(entries, strict=False))
            return table_from_entries(entries_of_json(data), strict=False)
        if suffix == ".txt" and (found := entries_of_text(text)) is not None:
            by = MaskRule(by="color") if "color" in found[0] else MaskRule(by="index")
            return _with_background(table_from_entries(found, strict=False)[0], by)
        rows = csv_rows(text)
        has_header = not _holds_values(rows[0])
        roles = header_roles(rows[0]) if has_header else guessed_roles(rows)
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

    This is the only .csv, .tsv, .json or known text file that can be read as a class table, whatever its name; a table
    without colours must be named like one (classes, labels, colors, ...). If none can be read, but exactly one is named
    like a table, it is that one: reading it tells the mistake. Without any, it is the first of the `_classes.csv` that
    Roboflow writes into each split's folder.

    Raises:
        UserError: there is no such folder, or it holds more than one class table, or one outside the folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder.")
    candidates = sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and (path.suffix.lower() in _TABLES[:3] or path.name.lower() in _TEXTS)
    )
    tables = []
    for path in candidates:
        with contextlib.suppress(UserError):
            _, rule = read_table_and_rule(path)
            if rule.by != "index" or _SUGGESTIVE.search(path.stem):
                tables.append(path)
    named = [path for path in candidates if _SUGGESTIVE.search(path.stem)]
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise UserError(f"{folder}: holds several class tables ({names}); name one in data.labels.")
    if not tables and len(named) == 1:
        tables = named
    if not tables and (tables := sorted(path for path in folder.glob("*/_classes.csv") if path.is_file())):
        first = read_table(tables[0])
        for path in tables[1:]:
            if read_table(path) != first:
                raise UserError(f"{path}: lists other classes than {tables[0]}; name one of them in data.labels.")
    if tables and not tables[0].resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{tables[0]}: is a link that leaves the folder, to {tables[0].resolve()}; put the table itself here, or name"
            " it in data.labels."
        )
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
    by_id = "id" in roles and not {"red", "green", "blue"} & set(roles)
    needed = ["name"] if "color" in roles or by_id else ["name", "red", "green", "blue"]
    missing = [{"red": "r", "green": "g", "blue": "b"}.get(role, role) for role in needed if role not in roles]
    if missing:
        raise UserError(
            f"there is no column {' and no column '.join(missing)} (there are {', '.join(header)}); "
            "a class table has the columns name,r,g,b or, for masks of ids, id,name."
        )
    return roles


def guessed_roles(rows: list[list[str]]) -> list[str | None]:
    """The meaning of each column without a header, from all rows; raises UserError unless only one is possible."""
    row = rows[0]
    # RRGGBB may be digits alone, or a word such as facade: it is a colour in the only column of nothing else.
    only_colors = [at for at, column in enumerate(zip(*rows, strict=True)) if all(map(is_hex, column))]
    kinds = "".join(
        "x" if is_hex(cell) and ("#" in cell or only_colors == [at]) else "n" if whole_number(cell) is not None else "t"
        for at, cell in enumerate(row)
    )
    meanings: dict[str, list[str | None]] = {
        "tnnn": ["name", "red", "green", "blue"],
        "nnnt": ["red", "green", "blue", "name"],
        "ntnnn": ["id", "name", "red", "green", "blue"],
        "tx": ["name", "color"],
        "xt": ["color", "name"],
        "ntx": ["id", "name", "color"],
        "nt": ["id", "name"],
    }
    if kinds not in meanings:
        raise UserError(f"the row {','.join(row)!r} can be read in several ways; put the header name,r,g,b above it.")
    return meanings[kinds]


def table_from_entries(data: Any, strict: bool) -> tuple[ClassTable, MaskRule]:
    """The table from a list of mappings, or from a mapping with such "classes" and optionally a "background".

    Classes with ids and without colours get `readable_colors`, and the rule that masks are read by index.

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
        entries.append(entry)
    # Ids need no colours, but a colour that is missing in some classes only was forgotten.
    by_id = all("id" in entry and "color" not in entry for entry in entries)
    for number, entry in enumerate(entries, start=1):
        for needed in ("name",) if by_id else ("name", "color"):
            if needed not in entry:
                raise UserError(f"class {number} has no {needed}; give each class a name, and a color or an id.")
    with_id = ["id" in entry for entry in entries]
    if any(with_id) and not all(with_id):
        name = entries[with_id.index(False)]["name"]
        raise UserError(f"class {name!r} has no id, but others have; give an id to all or to none.")
    colors = readable_colors([str(entry["name"]) for entry in entries]) if by_id else [e["color"] for e in entries]
    ids = [entry.get("id", position) for position, entry in enumerate(entries)]
    rows = zip(ids, (entry["name"] for entry in entries), colors, strict=True)
    return ClassTable([LabelClass(*row) for row in rows], background), MaskRule(by="index" if by_id else "auto")


def _with_background(labels: ClassTable, rule: MaskRule) -> tuple[ClassTable, MaskRule]:
    """The table with its background, which labelling tools name so, and the unchanged rule."""
    return ClassTable(labels.classes, next((name for name in labels.names if is_background(name)), None)), rule
