"""Lists the runs and sweeps below a folder. Reads JSON alone and imports nothing heavy, so that it answers at once."""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segsweep.console import relative
from segsweep.errors import UserError, shown
from segsweep.locks import held
from segsweep.root_settings import VALIDATIONS

DEFAULT = ("outputs", "multirun")
"""The folders that runs and sweeps are written to."""
DEEPEST = 4
"""Levels below a folder that are looked at."""
LARGEST = 64 << 20
"""Largest JSON file that is read, in bytes; the sweep.json of 10,000 jobs has some 10 MiB."""


@dataclass(frozen=True)
class Entry:
    """A run or a sweep.

    Attributes:
        kind: a sweep stands for its jobs.
        started: date and time in ISO format; None if that is not known.
        name: as typed with `name=`.
        changed: the other overrides of the command.
        status: of a run, "interrupted"; of a sweep its jobs, "3 completed, 1 failed".
        objective: the name of the metric.
        value: of a run, or of the best completed job.
        path: the directory.
    """

    kind: Literal["run", "sweep"]
    started: str | None
    name: str | None
    changed: list[str]
    status: str
    objective: str | None
    value: float | None
    path: str


def find(folders: Sequence[Path]) -> list[Entry]:
    """The runs and sweeps in folders and below, the oldest first. Of a sweep that is named itself, its jobs.

    Raises:
        UserError: there is no such folder.
    """
    found: dict[Path, Entry] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give one with runs, as in outputs")
        for path, kind in directories(folder):
            found[path.resolve()] = read_sweep(path) if kind == "sweep" else read_run(path)
    return sorted(found.values(), key=lambda entry: (entry.started or "", entry.path))


def directories(folder: Path) -> Iterator[tuple[Path, Literal["run", "sweep"]]]:
    """Yields the run and sweep directories in a folder and below; not the jobs of a sweep below it."""
    for place, names, files in os.walk(folder):
        path = Path(place)
        if "sweep.json" in files and path != folder:
            yield path, "sweep"
            names.clear()
        elif "run.json" in files:
            yield path, "run"
            names.clear()
        deep = len(path.relative_to(folder).parts) >= DEEPEST
        names[:] = [] if deep else sorted(name for name in names if not name.startswith("."))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one if the file cannot be read, because one damaged run must not hide the others."""
    try:
        fits = path.is_file() and path.stat().st_size <= LARGEST  # reading a pipe would wait for ever
        content = json.loads(path.read_text(encoding="utf-8")) if fits else None
    except (OSError, ValueError, RecursionError):
        content = None
    return content if isinstance(content, dict) else {}


def entry_of(kind: Literal["run", "sweep"], path: Path, content: dict[str, Any], status: str, value: Any) -> Entry:
    """An entry from the content of its JSON, which may hold anything."""
    objective, overrides = content.get("objective"), content.get("overrides")
    label = None
    if isinstance(objective, dict) and "name" in objective:
        label = shown(objective["name"]) + VALIDATIONS.get(str(objective.get("at")), "")
    texts = {key: None if content.get(key) is None else shown(content[key]) for key in ("started", "name")}
    typed = [shown(each) for each in overrides] if isinstance(overrides, list) else []
    return Entry(
        kind=kind,
        started=texts["started"],
        name=texts["name"],
        changed=[each for each in typed if not each.startswith("name=")],
        status=status,
        objective=label,
        value=value if isinstance(value, float) else None,
        path=str(relative(path)),
    )


def status_of(path: Path, content: dict[str, Any]) -> str:
    """The status of a run; a run whose process is gone was interrupted."""
    status = shown(content.get("status", "unreadable"))
    return "interrupted" if status == "running" and not held(path / ".lock") else status


def value_of(content: dict[str, Any]) -> Any:
    """The objective of a run.json."""
    objective = content.get("objective")
    return objective.get("value") if isinstance(objective, dict) else None


def read_run(path: Path) -> Entry:
    """The entry of a run directory."""
    content = read_json(path / "run.json")
    return entry_of("run", path, content, status_of(path, content), value_of(content))


def read_sweep(path: Path) -> Entry:
    """The entry of a sweep directory. The run.json of each job is right where sweep.json is out of date."""
    content = read_json(path / "sweep.json")
    listed, statuses, values = content.get("jobs"), Counter[str](), []
    for job in listed if isinstance(listed, list) else []:
        directory = PurePath(str(job.get("directory")) if isinstance(job, dict) else ".")
        folder = path / directory
        outside = directory.is_absolute() or ".." in directory.parts  # in a stranger's sweep
        if outside or not os.path.isfile(folder / "run.json"):
            statuses["failed" if isinstance(job, dict) and job.get("error") else "pending"] += 1
            continue
        run = read_json(folder / "run.json")
        statuses[status := status_of(folder, run)] += 1
        if status == "completed" and isinstance(value := value_of(run), float):
            values.append(value)
    objective = content.get("objective")
    best = min if isinstance(objective, dict) and objective.get("mode") == "min" else max
    counts = ", ".join(f"{number} {status}" for status, number in statuses.most_common()) or "unreadable"
    now = "running: " if statuses.keys() - {"completed", "failed"} and held(path / ".lock") else ""
    return entry_of("sweep", path, content, now + counts, best(values, default=None))


def print_entries(entries: Sequence[Entry]) -> None:
    """Prints a table. On a terminal the changes stand below the path, so that it fits; elsewhere a row is a line."""
    folded = sys.stdout.isatty()
    values = ["" if entry.value is None else f"{entry.objective} {entry.value:.4f}" for entry in entries]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("started", width=10 if folded else 16)
    table.add_column("name", overflow="fold", max_width=16 if folded else None)
    table.add_column("status", max_width=11 if folded else None)
    longest = max([len("objective"), *(len(word) for value in values for word in value.split())])
    table.add_column("objective", width=longest if folded else None)
    table.add_column("path", overflow="fold")
    if not folded:
        table.add_column("changed")
    for entry, value in zip(entries, values, strict=True):
        started = (entry.started or "")[:16].replace("T", " ")
        changed = ("-m " if entry.kind == "sweep" else "") + " ".join(entry.changed)
        last = [Text(entry.path).append(f"\n{changed}", style="dim")] if folded else [entry.path, changed]
        table.add_row(started, entry.name or "", entry.status, value, *last)
    Console(width=None if folded else 100_000, markup=False, emoji=False, highlight=False).print(table)


def list_runs(folders: Sequence[Path], as_json: bool) -> None:
    """Prints the runs and sweeps below folders, by default `DEFAULT`, as a table or as JSON.

    Raises:
        UserError: there is no such folder.
    """
    entries = find(folders or [Path(name) for name in DEFAULT if Path(name).is_dir()])
    if as_json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2, ensure_ascii=False))
    elif entries:
        print_entries(entries)
    else:
        print(f"no runs in {' and '.join(map(str, folders or DEFAULT))}")
