"""The ranked table of a sweep on a terminal."""

import re
import shutil

from rich.text import Text

from segsweep.sweeps import tables
from segsweep.sweeps.ranking import absences, settings_axes
from segsweep.sweeps.results import Results

_MOST_ROWS = 30
_DISPENSABLE = ("seconds", "test/loss", "test/iou", "n", "± std", "difference")
"""Columns that are left out where the terminal is too narrow, one after the other."""


def printed(results: Results, width: int | None = None) -> list[Text]:
    """What to print: the settings, or jobs where each setting has one, the failed jobs, and the verdict.

    Args:
        results: of the sweep.
        width: of the terminal, in letters; None asks it.
    """
    width = shutil.get_terminal_size((100, 24)).columns if width is None else width
    record, table, compared = results.record, results.table, results.compared
    if compared is not None and settings_axes(record) and compared.table["n"].max() > 1:
        parts = _laid_out(tables.settings_table(compared, details=False), width)
    else:
        parts = _laid_out(tables.jobs_table(record, table, details=False), width)
    parts += [Text(f"failed: {line}") for line in tables.failures(record, table)]
    parts += [Text(line) for line in absences(results.runs, record, table)]
    if compared is not None:
        parts += [Text(line) for line in compared.verdict.splitlines()]
    return parts + [Text(line) for line in tables.final_trainings(record, table)]


def _laid_out(table: tables.Table, width: int) -> list[Text]:
    """A line for each row: what tells settings apart is never cut or wrapped."""
    header, rows = table
    columns = {name: [row[place] for row in rows] for place, name in enumerate(header)}
    widths = {name: max(map(len, [name, *cells])) for name, cells in columns.items()}
    for name in _DISPENSABLE:
        if sum(widths.values()) + 2 * len(widths) - 2 > width and name in widths:
            del widths[name]
    right = {name for name in widths if name == "rank" or all(_is_number(cell) for cell in columns[name])}

    def line(cells: dict[str, str], style: str = "") -> Text:
        padded = (
            cells[name].rjust(wide) if name in right else cells[name].ljust(wide) for name, wide in widths.items()
        )
        return Text("  ".join(padded).rstrip(), style)

    lines = [line({name: name for name in widths}, "bold"), Text("─" * (sum(widths.values()) + 2 * len(widths) - 2))]
    lines += [line(dict(zip(header, row, strict=True))) for row in rows[:_MOST_ROWS]]
    more = [Text(f"and {len(rows) - _MOST_ROWS} more in summary.md")] if len(rows) > _MOST_ROWS else []
    return [*lines, *more, Text("")]


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"-?[\d.]*(e[+-]?\d+)?", cell) is not None
