"""sweep.json: what a sweep was asked for, and how far each of its jobs is."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import BaseFileLock, FileLock, Timeout

from segsweep.errors import UserError
from segsweep.fingerprint import Leaf, typed
from segsweep.runs.directory import RunDirectory, RunRecord
from segsweep.runs.files import write_json
from segsweep.runs.stored import require_resolved

FORMAT = 1
_SHARED = ("settings", "choices", "scored")
JobStatus = Literal["pending", "running", "completed", "failed", "interrupted"]


@dataclass
class Job:
    """A job of a sweep."""

    key: str
    """12 hexadecimal digits, equal for jobs that give the same result; see `segsweep.fingerprint`."""
    number: int
    overrides: list[str]
    directory: str
    """Its run directory, relative to the sweep directory."""
    values: dict[str, Leaf]
    """The swept settings by key: {"optim": "adam", "lr": 0.01}."""
    settings: dict[str, Leaf] = field(default_factory=dict)
    """Everything that its result depends on, flat."""
    choices: dict[str, Leaf] = field(default_factory=dict)
    """The choice of every configuration group."""
    scored: dict[str, Leaf] = field(default_factory=dict)
    """The settings that change what it is scored on; see `segsweep.sweeps.scored`."""
    status: JobStatus = "pending"
    stage: str | None = None
    """Which axis it was trained for, where axes are searched one after the other."""
    error: str | None = None

    @property
    def name(self) -> str:
        return ", ".join(f"{key}={typed(value)}" for key, value in self.values.items()) or self.directory


@dataclass
class SweepRecord:
    """The content of sweep.json."""

    overrides: list[str]
    """As typed, the last time that the sweep was started or continued."""
    objective: dict[str, str]
    """"name" and "mode", min or max."""
    jobs: list[Job] = field(default_factory=list)
    axes: list[str] = field(default_factory=list)
    """The swept keys, in the order in which they were typed."""
    name: str | None = None
    started: str | None = None
    sweeper: str = "grid"
    at_once: int = 1
    """How many jobs ran at the same time, the last time that jobs were started."""
    asked: list[str] = field(default_factory=list)
    """Keys of the jobs that were asked for the last time that jobs were started."""

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether the smallest or the largest objective is the best."""
        return "min" if self.objective["mode"] == "min" else "max"

    def job_at(self, directory: str) -> Job | None:
        return next((job for job in self.jobs if job.directory == directory), None)

    def value_of(self, job: Job, axis: str) -> Leaf:
        """A job's value on an axis, also on one that was added to the sweep after it."""
        for found in (job.values, job.settings, job.choices):
            if axis in found:
                return found[axis]
        return None

    def to_dict(self) -> dict[str, Any]:
        """Plain data. Settings that all jobs share are written once."""
        shared = {name: _shared([getattr(job, name) for job in self.jobs]) for name in _SHARED}
        jobs = []
        for job in self.jobs:
            own = {
                name: {key: value for key, value in getattr(job, name).items() if key not in common}
                for name, common in shared.items()
            }
            jobs.append({**vars(job), **own})
        return {"format": FORMAT, **{**vars(self), "jobs": jobs}, "shared": shared}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "SweepRecord":
        """Raises KeyError, TypeError or ValueError where `content` is not what `to_dict` gives."""
        content = dict(content)
        if (version := content.pop("format")) != FORMAT:
            raise ValueError(f"written in format {version}, and this version reads {FORMAT}")
        shared = content.pop("shared")
        jobs = [Job(**job) for job in content.pop("jobs")]
        for job in jobs:
            for name in _SHARED:  # a sweep of an early version has not said what it was scored on
                setattr(job, name, shared.get(name, {}) | getattr(job, name))
        return cls(jobs=jobs, **content)


def _shared(all_settings: list[dict[str, Leaf]]) -> dict[str, Leaf]:
    if not all_settings:
        return {}
    first, *others = all_settings
    return {key: value for key, value in first.items() if all(key in other and other[key] == value for other in others)}


@dataclass(frozen=True)
class SweepDirectory:
    """Paths inside a sweep directory. The names are a contract: tools outside this project read them."""

    path: Path

    @property
    def record(self) -> Path:
        return self.path / "sweep.json"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def summary_csv(self) -> Path:
        return self.path / "summary.csv"

    @property
    def summary_md(self) -> Path:
        return self.path / "summary.md"

    @property
    def curves(self) -> Path:
        return self.path / "curves.png"

    @property
    def heatmap(self) -> Path:
        return self.path / "heatmap.png"

    def run(self, job: Job) -> RunDirectory:
        return RunDirectory(self.path / job.directory)

    def read(self) -> SweepRecord:
        """sweep.json.

        Raises:
            UserError: there is none, or it is damaged.
        """
        if not self.record.is_file():
            raise UserError(f"{self.path}: no sweep there; give a sweep directory, one with a sweep.json")
        try:
            record = SweepRecord.from_dict(json.loads(self.record.read_text(encoding="utf-8")))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{self.record}: damaged, or no sweep.json ({error})") from error
        # These are handed to Hydra when the sweep goes on; a job that could not be composed is dropped then.
        for at, job in ((at, job) for at, job in enumerate(record.jobs) if job.settings):
            require_resolved(self.record, {"directory": job.directory, "overrides": job.overrides}, f"jobs.{at}")
        return record

    def update(self, change: Callable[[SweepRecord], None], first: SweepRecord | None = None) -> SweepRecord:
        """Changes sweep.json; one process at a time.

        Args:
            change: what to change.
            first: what to change where there is no sweep.json yet.
        """
        with FileLock(self.path / ".sweep.lock"):
            record = first if first is not None and not self.record.exists() else self.read()
            change(record)
            write_json(self.record, record.to_dict())
        return record

    def write(self, record: SweepRecord) -> None:
        """Writes sweep.json, whatever it is now."""
        with FileLock(self.path / ".sweep.lock"):
            write_json(self.record, record.to_dict())

    def enter(self, jobs: Iterable[Job]) -> None:
        """Writes into sweep.json how far some of its jobs are."""
        known = {job.directory: job for job in jobs}

        def change(record: SweepRecord) -> None:
            for job in record.jobs:
                if (now := known.get(job.directory)) is not None:
                    job.status, job.error = now.status, now.error

        self.update(change)

    def refresh(self, job: Job) -> RunRecord | None:
        """Reads what a job has come to into it; gives its run.json, where there is one."""
        run = self.run(job)
        try:
            found = RunRecord.read(run.record)
        except FileNotFoundError:
            job.status = "failed" if job.error is not None else "pending"
            return None
        except (OSError, UserError) as error:
            job.status, job.error = "failed", str(error)
            return None
        job.status, job.error = found.status, found.error
        if found.status == "running" and not held(run.path / ".lock"):
            job.status = "interrupted"  # its process is gone
        return found

    @contextlib.contextmanager
    def locked(self) -> Iterator[BaseFileLock]:
        """Nobody else runs this sweep meanwhile. Jobs in other processes of this machine stop when the lock is let go.

        Raises:
            UserError: another process does.
        """
        try:
            # A second: a job that looks whether the sweep goes on holds it for a moment.
            with FileLock(self.lock, timeout=1) as lock:
                yield lock
        except Timeout as error:
            raise UserError(f"{self.path}: this sweep is running already; wait for it, or stop it") from error


def held(lock: Path) -> bool:
    """Whether a process holds a lock."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except (Timeout, OSError):
        return True
