"""Which runs are meant by what somebody typed: directories, checkpoints, patterns; or why none is."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from segsweep.errors import UserError
from segsweep.runs.directory import RunDirectory, RunRecord


def find_runs(given: str | Sequence[str]) -> list[Path]:
    """The run directories and checkpoints that `given` names, each with a checkpoint to load.

    Args:
        given: a run directory or .ckpt file, a pattern such as `outputs/2026-01-31/*`, or several of either. Of what a
            pattern matches, only finished runs and .ckpt files are taken.

    Raises:
        UserError: nothing there, a run that has no checkpoint, or a sweep where a run is wanted; says what to give.
    """
    entries = [given] if isinstance(given, str) else [str(entry) for entry in given]
    if not entries:
        raise UserError("run=[]: names no run; give a run directory or a checkpoint")
    found: list[Path] = []
    for entry in entries:
        path = Path(entry)
        if path.exists() or not glob.has_magic(entry):
            found.append(_with_checkpoint(path))
            continue
        matches = [Path(match) for match in sorted(glob.glob(entry, recursive=True))]
        runs = [match for match in matches if match.suffix == ".ckpt" or RunDirectory(match).best.is_file()]
        if not runs:
            what = (
                f"matches {len(matches)} paths, none of them a run with a best.ckpt" if matches else "matches nothing"
            )
            raise UserError(f"{entry}: {what}")
        found += runs
    # One run named twice, by a path and by a pattern, is one.
    once: dict[Path, Path] = {}
    for path in found:
        once.setdefault(path.resolve(), path)
    return list(once.values())


def short_names(paths: Sequence[Path]) -> list[str]:
    """A name for each path, without what all have in common: `lr=0.1`, `lr=0.01`; for one path its last part."""
    parts = [path.resolve().parts for path in paths]
    if len(parts) == 1:
        return [parts[0][-1]]
    common = os.path.commonpath([Path(*part) for part in parts])
    names = [path.resolve().relative_to(common) for path in paths]
    return [str(name) if name.parts else Path(common).name for name in names]


def _with_checkpoint(path: Path) -> Path:
    """The path itself; an error for a directory without a best.ckpt. What is no directory, `load_run` judges."""
    run = RunDirectory(path)
    if not path.is_dir() or run.best.is_file() or run.last.is_file():
        return path
    if run.record.is_file():
        raise UserError(
            f"{path}: this run has no checkpoint ({_state(run)}); give one that was validated at least once"
        )
    inside = sorted(record.parent for pattern in ("*/run.json", "*/*/run.json") for record in path.glob(pattern))
    if (path / "sweep.json").is_file() or (path / "multirun.yaml").is_file():
        raise UserError(f"{path}: is a sweep of {_counted(inside)}; give one of its runs{_such_as(inside, path)}")
    if inside:
        raise UserError(f"{path}: is no run, but a folder with {_counted(inside)}; give one{_such_as(inside, path)}")
    return path


def _state(run: RunDirectory) -> str:
    try:
        record = RunRecord.read(run.record)
    except (OSError, ValueError):
        return "its run.json cannot be read"
    return f"status {record.status}" + (f": {record.error.splitlines()[0]}" if record.error else "")


def _counted(runs: Sequence[Path]) -> str:
    return f"{len(runs)} run{'' if len(runs) == 1 else 's'}"


def _such_as(runs: Sequence[Path], folder: Path) -> str:
    """An example as it can be typed: names of jobs hold '=' and ',', which Hydra wants in quotes."""
    finished = [run for run in runs if RunDirectory(run).best.is_file()]
    return f", as in \"run='{finished[0]}'\", or all with \"run='{folder}/*'\"" if finished else ""
