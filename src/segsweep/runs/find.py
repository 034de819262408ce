"""Finds the runs that a user names: directories, checkpoints and patterns."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from segsweep.errors import UserError
from segsweep.runs.directory import RunDirectory, RunRecord


def find_runs(given: str | Sequence[str]) -> list[Path]:
    """The run directories and checkpoints that `given` names.

    Args:
        given: a run directory or .ckpt file, a pattern such as `outputs/2026-01-31/*`, or a list of these. A pattern
            stands for the .ckpt files and the runs with a best.ckpt that it matches.

    Raises:
        UserError: a pattern matches nothing, a run has no checkpoint, or a path is a sweep; says what to give.
    """
    entries = [given] if isinstance(given, str) else [str(entry) for entry in given]
    if not entries:
        raise UserError("run=[]: names no run; give a run directory or a checkpoint")
    found: list[Path] = []
    for entry in entries:
        path = Path(entry)
        if path.exists() or not glob.has_magic(entry):
            require_checkpoint(path)
            found.append(path)
            continue
        matches = [Path(match) for match in sorted(glob.glob(entry, recursive=True))]
        runs = [match for match in matches if match.suffix == ".ckpt" or RunDirectory(match).best.is_file()]
        if not runs:
            what = f"{len(matches)} paths, but no run with a best.ckpt" if matches else "nothing"
            below = next(
                (run for match in matches for run in _runs_below(match) if RunDirectory(run).best.is_file()), None
            )
            match = next((match for match in matches if below is not None and match in below.parents), None)
            deeper = "" if below is None or match is None else "/*" * len(below.relative_to(match).parts)
            raise UserError(f"{entry}: matches {what}" + (f"; give \"run='{entry}{deeper}'\"" if deeper else ""))
        found += runs
    # A run that is named twice, by a path and by a pattern, counts once.
    once: dict[Path, Path] = {}
    for path in found:
        once.setdefault(path.resolve(), path)
    return list(once.values())


def left_out(given: str | Sequence[str]) -> list[str]:
    """The runs and sweeps that patterns match but `find_runs` leaves out, each with the reason."""
    lines: dict[str, None] = {}
    for entry in [given] if isinstance(given, str) else [str(entry) for entry in given]:
        if Path(entry).exists() or not glob.has_magic(entry):
            continue
        for match in map(Path, sorted(glob.glob(entry, recursive=True))):
            run = RunDirectory(match)
            if (match / "sweep.json").is_file():
                lines[f"{match} (a sweep; its runs are \"run='{match}/*'\")"] = None
            elif run.record.is_file() and not run.best.is_file():
                lines[f"{match} ({_state(run)}, so far without a best.ckpt)"] = None
    return list(lines)


def _state(run: RunDirectory) -> str:
    """What run.json says of a run without a checkpoint: "status failed: ..."."""
    try:
        record = RunRecord.read(run.record)
    except (OSError, ValueError):
        return "its run.json cannot be read"
    return f"status {record.status}" + (f": {record.error.splitlines()[0]}" if record.error else "")


def _runs_below(path: Path) -> list[Path]:
    """The run directories one and two folders below."""
    return sorted(record.parent for pattern in ("*/run.json", "*/*/run.json") for record in path.glob(pattern))


def short_names(paths: Sequence[Path]) -> list[str]:
    """A name for each path, without the folders that all share: `lr=0.1`, `lr=0.01`; for a single path its last part."""
    parts = [path.resolve().parts for path in paths]
    if len(parts) == 1:
        return [parts[0][-1]]
    common = os.path.commonpath([Path(*part) for part in parts])
    names = [path.resolve().relative_to(common) for path in paths]
    return [str(name) if name.parts else Path(common).name for name in names]


def require_checkpoint(path: Path) -> None:
    """Refuses a directory that is a run without a checkpoint, a sweep or a folder of runs; `load_run` checks the rest.

    Raises:
        UserError: says what the directory is, and what to give instead.
    """
    run = RunDirectory(path)
    if not path.is_dir() or run.best.is_file() or run.last.is_file():
        return
    if run.record.is_file():
        raise UserError(
            f"{path}: this run has no checkpoint ({_state(run)}); give a run that was validated at least once"
        )
    runs = _runs_below(path)
    count = f"{len(runs)} run{'' if len(runs) == 1 else 's'}"
    # Names of jobs hold '=' and ',', so Hydra needs quotes around the path.
    finished = [run for run in runs if RunDirectory(run).best.is_file()]
    every = "/".join("*" for _ in finished[0].relative_to(path).parts) if finished else "*"
    example = f", as in \"run='{finished[0]}'\", or all with \"run='{path}/{every}'\"" if finished else ""
    if (path / "sweep.json").is_file() or (path / "multirun.yaml").is_file():
        raise UserError(f"{path}: is a sweep of {count}; give one of its runs{example}")
    if runs:
        raise UserError(f"{path}: is not a run, but a folder with {count}; give one{example}")
