"""sweep.json: the jobs of a sweep and the status of each. If it differs from a job's run.json, run.json is right."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any, Literal

from filelock import BaseFileLock, FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from segsweep.errors import DivergedError, UserError
from segsweep.fingerprint import Leaf, typed
from segsweep.instantiate import AtLeast0, AtLeast1, check_arguments
from segsweep.invocation import to_type
from segsweep.locks import held
from segsweep.root_settings import name_of
from segsweep.runs.directory import Objective, RunDirectory, RunRecord, objective_mode, require_inside
from segsweep.runs.files import remove_litter, write_json
from segsweep.runs.stored import read_json, require_resolved
from segsweep.trainer_settings import auto_precision

FORMAT = 1
FINAL = "final"
"""The stage of a training with the best values after a search; it is not ranked with the jobs of the search."""
FOLD, FOLDS = "data.fold", "data.folds"
REPLICATES = ("seed", FOLD)
"""Swept keys that make replicates of a setting, not settings."""
_SHARED = ("settings", "choices", "scored")
_WRITTEN = (
    "sweep.json", ".lock", ".sweep.lock", "multirun.yaml", "summary.csv", "settings.csv", "summary.md", "curves.png",
    "heatmap.png", ".submitit",
)  # fmt: skip
"""The files and folders that a sweep writes beside its jobs."""
ENDED = ("completed", "failed")
"""Statuses of jobs that will not change by waiting."""
JobStatus = Literal["pending", "running", "completed", "failed", "interrupted"]


@dataclass
class Job:
    """One training of a sweep, as sweep.json stores it. Its run.json has the results."""

    key: str
    """12 hexadecimal digits. Jobs with the same result have the same key; see `segsweep.fingerprint`."""
    number: AtLeast0
    overrides: list[str]
    directory: str
    """The run directory, relative to the sweep directory."""
    values: dict[str, Leaf]
    """The swept settings: {"optim": "adam", "lr": 0.01}."""
    settings: dict[str, Leaf] = field(default_factory=dict)
    """All settings that the result depends on, flat; empty if the job cannot be composed."""
    choices: dict[str, Leaf] = field(default_factory=dict)
    """The choice in each configuration group."""
    scored: dict[str, Leaf] = field(default_factory=dict)
    """The settings that change the scored images; see `segsweep.sweeps.scored`."""
    status: JobStatus = "pending"
    stage: str | None = None
    """What asked for the job first: an axis of a coordinate search; "screening" or "look 1" of a race; FINAL; "other" for a
    foreign sweeper; else None."""
    error: str | None = None

    @property
    def name(self) -> str:
        return ", ".join(f"{key}={typed(value)}" for key, value in self.values.items()) or self.directory


def is_diverged(error: str | None) -> bool:
    """Whether a job's error says that its loss or a weight was not finite."""
    return bool(error) and str(error).startswith(DivergedError.__name__)


@dataclass
class Race:
    """The plan of a race and its cut; see `segsweep.sweeps.race`."""

    keep: int
    """How many settings race after the screening."""
    looks: list[int]
    """After how many racing seeds the settings are tested; rising."""
    margin: float | None = None
    """Settings that differ by up to this, in the objective's unit, are equivalent; None tests no equivalence."""
    kept: list[dict[str, Leaf]] = field(default_factory=list)
    """The values of each setting that races. Empty before the cut; after it they stay."""
    screened_out: list[dict[str, Leaf]] = field(default_factory=list)


def rising(looks: Any) -> bool:
    """Whether these can be the looks of a race: rising numbers of seeds, from 2 on."""
    counts = isinstance(looks, Sequence) and len(looks) > 0 and all(type(look) is int for look in looks)
    return counts and looks[0] > 1 and all(one < other for one, other in pairwise(looks))


@dataclass
class SweepRecord:
    """The content of sweep.json."""

    overrides: list[str]
    """The overrides of the command that started or continued the sweep last."""
    objective: dict[str, str]
    """"name", "mode", min or max, and "at" if that is not best; see `Objective`."""
    jobs: list[Job] = field(default_factory=list)
    axes: list[str] = field(default_factory=list)
    """The swept keys, in the order in which they were typed."""
    name: str | None = None
    started: str | None = None
    sweeper: str = "grid"
    at_once: AtLeast1 = 1
    """How many jobs run at the same time, under the last command."""
    precision: str = "32-true"
    """What trainer.precision=auto means in all of its jobs, on any machine. Earlier versions had no auto."""
    asked: list[str] = field(default_factory=list)
    """Keys of the jobs that the last command asked for."""
    looks: list[dict[str, Any]] = field(default_factory=list)
    """The verdicts so far; see `segsweep.sweeps.looks`. A race has none here: its plan fixes its looks."""
    settings_of: dict[str, Any] | None = None
    """The settings taken from another sweep; see `segsweep.sweeps.settings_of`."""
    race: Race | None = None
    program: str = "python train.py"
    """How the last command was called: `segsweep train` without a clone."""

    @classmethod
    def new(cls, config: DictConfig, sweeper: str) -> "SweepRecord":
        """The record of a sweep that starts now, without jobs."""
        objective, at = str(config.objective), str(config.get("objective_at", "best"))
        ranking = {"name": objective, "mode": objective_mode(objective)}
        return cls(
            [], ranking | ({} if at == "best" else {"at": at}), name=name_of(config),
            started=datetime.now().astimezone().isoformat(timespec="seconds"), sweeper=sweeper,
            precision=auto_precision(OmegaConf.select(config, "trainer.accelerator")), program=to_type("train"),
        )  # fmt: skip

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether the smallest or the largest objective is the best."""
        return "min" if self.objective["mode"] == "min" else "max"

    @property
    def label(self) -> str:
        """The objective in tables and sentences; see `Objective`."""
        return Objective(**self.objective).label  # type: ignore[arg-type]

    @property
    def compared_jobs(self) -> list[Job]:
        """All jobs except final trainings and those that could not be composed."""
        return [job for job in self.jobs if job.settings and job.stage != FINAL]

    @property
    def settings_axes(self) -> list[str]:
        """The swept keys that make a setting: all except seed and fold, which make replicates."""
        return [axis for axis in self.axes if axis not in REPLICATES]

    def job_at(self, directory: str) -> Job | None:
        return next((job for job in self.jobs if job.directory == directory), None)

    def value_of(self, job: Job, axis: str) -> Leaf:
        """A job's value on an axis; the axis may be newer than the job."""
        for found in (job.values, job.settings, job.choices):
            if axis in found:
                return found[axis]
        return None

    def to_dict(self) -> dict[str, Any]:
        """Plain data. Settings that all jobs share are written once."""
        shared: dict[str, dict[str, Leaf]] = {}
        for name in _SHARED:
            first, *others = [getattr(job, name) for job in self.jobs] or [{}]
            shared[name] = {
                key: value
                for key, value in first.items()
                if all(key in other and other[key] == value for other in others)
            }
        jobs = []
        for job in self.jobs:
            own = {
                name: {key: value for key, value in getattr(job, name).items() if key not in common}
                for name, common in shared.items()
            }
            jobs.append({**vars(job), **own})
        race = None if self.race is None else vars(self.race)
        return {"format": FORMAT, **{**vars(self), "jobs": jobs, "race": race}, "shared": shared}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "SweepRecord":
        """The inverse of `to_dict`; raises AttributeError, KeyError, TypeError or ValueError on other content."""
        content = dict(content)
        if (version := content.pop("format")) != FORMAT:
            raise ValueError(f"has format {version}, and this version of segsweep reads format {FORMAT}")
        shared = content.pop("shared")
        jobs = []
        for at, own in enumerate(content.pop("jobs")):
            # An early version wrote no "scored".
            entry = own | {name: shared.get(name, {}) | own.get(name, {}) for name in _SHARED}
            check_arguments(Job, entry, prefix=f"jobs.{at}.")
            jobs.append(Job(**entry))
        race = content.pop("race", None)  # an earlier version wrote none
        if race is not None:
            check_arguments(Race, race, prefix="race.")
            settings = set(content["axes"]) - {*REPLICATES}
            unfit = any(set(each) != settings for each in race["kept"])
            if not rising(race["looks"]) or len(race["kept"]) == 1 or unfit:
                raise ValueError("race: its looks do not rise, or its settings do not fit the axes")
        check_arguments(cls, content)
        check_arguments(Objective, content["objective"], prefix="objective.")
        return cls(jobs=jobs, race=None if race is None else Race(**race), **content)


@dataclass(frozen=True)
class SweepDirectory:
    """Paths inside a sweep directory. Tools outside this project read them, so the names must not change."""

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
    def settings_csv(self) -> Path:
        return self.path / "settings.csv"

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
            UserError: there is none, it is damaged, or it names a folder outside of the sweep.
        """
        if not self.record.is_file():
            raise UserError(f"{self.path}: no sweep there; give a folder with a sweep.json")
        try:
            record = SweepRecord.from_dict(read_json(self.record))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{self.record}: damaged, or not a sweep.json of segsweep ({error})") from error
        names = [record.name or "", record.objective["name"], *record.axes, *(job.directory for job in record.jobs)]
        if wrong := next((name for name in names if not name.isprintable()), None):
            raise UserError(f"{self.record}: {wrong}: is no name of a sweep, an objective, a key or a folder")
        for at, job in enumerate(record.jobs):
            # segsweep writes into jobs' folders and clears failed ones, so an untrusted sweep.json must not lead elsewhere.
            place = PurePath(job.directory)
            if place.is_absolute() or ".." in place.parts or (job.settings and not place.parts):
                raise UserError(f"{self.record}: jobs.{at}.directory={job.directory}: must be a folder in {self.path}")
            if job.settings:  # a job that could not be composed is dropped when the sweep continues
                # Hydra composes stored overrides again, so they must hold nothing that it would resolve.
                require_resolved(self.record, {"directory": job.directory, "overrides": job.overrides}, f"jobs.{at}")
        return record

    def require_inside(self, directories: Iterable[str]) -> None:
        """Refuses links that lead out of the sweep, pipes, sockets and devices, in it and in these run directories of it.

        Raises:
            UserError: names the path, and says what to type.
        """
        require_inside(self.path, _WRITTEN)
        for directory in directories:
            place = PurePath(directory)
            require_inside(self.path, map(str, [*reversed(place.parents), place]))
            RunDirectory(self.path / directory).require_inside()

    def update(self, change: Callable[[SweepRecord], None], first: SweepRecord | None = None) -> SweepRecord:
        """Changes sweep.json, one process at a time, and returns its new content.

        Args:
            change: changes the record it is given.
            first: the record to start from if there is no sweep.json yet.
        """
        with FileLock(self.path / ".sweep.lock"):
            record = first if first is not None and not self.record.exists() else self.read()
            change(record)
            write_json(self.record, record.to_dict())
        return record

    def write(self, record: SweepRecord) -> None:
        """Replaces sweep.json."""
        with FileLock(self.path / ".sweep.lock"):
            write_json(self.record, record.to_dict())

    def write_statuses(self, jobs: Iterable[Job], look: dict[str, Any] | None = None) -> None:
        """Writes status and error of these jobs into sweep.json, and adds a look."""
        known = {job.directory: job for job in jobs}

        def change(record: SweepRecord) -> None:
            if look is not None and look not in record.looks:
                record.looks.append(look)
            for job in record.jobs:
                if (now := known.get(job.directory)) is not None:
                    job.status, job.error = now.status, now.error

        self.update(change)

    def refresh(self, job: Job) -> RunRecord | None:
        """Sets a job's status and error from its run.json. Returns run.json; None if it is missing or damaged."""
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
        """Holds the lock of the sweep, so that no other process runs it.

        When the lock is released, jobs in other processes of this machine save a checkpoint and stop.

        Raises:
            UserError: another process runs the sweep.
        """
        try:
            # Wait a second: a job that checks whether the sweep still runs holds the lock for a moment.
            with FileLock(self.lock, timeout=1) as lock:
                with FileLock(self.path / ".sweep.lock"):
                    remove_litter(self.path)
                yield lock
        except Timeout as error:
            raise UserError(f"{self.path}: another process runs this sweep; wait for it, or stop it") from error
