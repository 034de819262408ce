"""Which jobs a command asks for, which of them are there already, and whether they belong to the same sweep."""

import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from segsweep.config import to_plain
from segsweep.errors import UserError
from segsweep.identity import Leaf, differences, flatten, job_key, result_settings, typed
from segsweep.sweeps.record import Job, SweepRecord

UNSWEPT = {
    "name": "a sweep has one name",
    "objective": "jobs with different objectives cannot be ranked",
    "resume": "it continues a single run; a sweep is continued by the same command with the same name=",
    "on_error": "it is the whole sweep's",
    "code": "it is the whole sweep's; several files are code=[a.py,b.py]",
}
_LONGEST_NAME = 120
"""Bytes of a folder's name; file systems take 255."""
FINAL = "final"
"""The stage of a training that follows a search: it is not compared with the jobs of the search."""


def describe(config: DictConfig, overrides: Sequence[str], axes: Sequence[str]) -> Job:
    """A job, from its composed configuration; number and directory are given by `add`.

    Args:
        config: as composed for the job, with Hydra's own node.
        overrides: of the job: ["optim=adam", "lr=0.01"].
        axes: the swept keys.

    Raises:
        UserError: a setting is missing, or the job would not train in one process.
    """
    choices = {str(group): choice for group, choice in config.hydra.runtime.choices.items()}
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    settings = to_plain(own)
    trainer = settings.get("trainer") or {}
    if trainer.get("strategy") == "ddp" or trainer.get("devices") not in (1, None):
        raise SeveralProcessesError(
            "trainer=ddp: not in a sweep (-m): each further process would repeat the whole sweep. Train single runs with "
            "it, or give each job one device"
        )
    flat = flatten(settings)
    values = {axis: choices.get(axis, flat.get(axis)) for axis in axes}
    result = result_settings(settings)
    return Job(
        job_key(result), -1, list(overrides), "", values, result,
        {group: choice for group, choice in choices.items() if not group.startswith("hydra/")},
    )  # fmt: skip


class SeveralProcessesError(UserError):
    """A sweep whose jobs would each start processes that repeat the sweep."""


def broken(overrides: Sequence[str], axes: Sequence[str], error: str) -> Job:
    """A job that cannot be composed: it counts as failed, and the others run."""
    given = {
        found.get_key_element().lstrip("+"): found.value()
        for found in OverridesParser.create().parse_overrides(list(overrides))
    }
    values: dict[str, Leaf] = {axis: flatten(given.get(axis), axis)[axis] for axis in axes}
    return Job(job_key({"broken": " ".join(overrides)}), -1, list(overrides), "", values, status="failed", error=error)


def add(record: SweepRecord, wanted: Sequence[Job]) -> list[Job]:
    """Puts jobs into a sweep, and gives them as they are there, each once, those that it had already among them.

    Raises:
        UserError: the sweep is of another kind; says what is different.
    """
    _check_kind([job.settings for job in record.jobs if job.settings and job.stage != FINAL], wanted, record.name)
    _tell_apart(wanted)
    there = {job.key: job for job in record.jobs}
    directories = {job.directory for job in record.jobs}
    found: dict[str, Job] = {}
    for job in wanted:
        if (known := there.get(job.key)) is not None:
            known.overrides, known.values, known.error = job.overrides, known.values | job.values, job.error
            found[job.key] = known
            continue
        job.number = 1 + max((other.number for other in record.jobs), default=-1)
        job.directory = _directory(job, directories)
        directories.add(job.directory)
        record.jobs.append(job)
        there[job.key] = found[job.key] = job
    for job in record.jobs:
        job.values = {axis: record.value_of(job, axis) for axis in record.axes}
    return list(found.values())


def _directory(job: Job, taken: set[str]) -> str:
    """A folder name that says what the job is: "optim=adam,lr=0.01"."""
    parts = [f"{key}={typed(value)}" for key, value in job.values.items()] or job.overrides or ["job"]
    parts = [FINAL, *parts] if job.stage == FINAL else parts
    # Letters that a file system, TensorBoard or a person in a shell could stumble over.
    name = ",".join(re.sub(r"[^\w.,=+-]+", "-", part) for part in parts).lstrip(".")
    if len(name.encode()) > _LONGEST_NAME or name in taken:
        name = f"{name.encode()[:_LONGEST_NAME].decode(errors='ignore')}-{job.key}"
    return name


def _tell_apart(jobs: Sequence[Job]) -> None:
    """What changes no result, such as the number of workers, was swept to be seen side by side all the same."""
    seen: dict[str, set[str]] = {}
    for job in jobs:
        seen.setdefault(job.key, set()).add(str([typed(value) for value in job.values.values()]))
    for job in jobs:
        if len(seen.get(job.key, ())) > 1:
            job.key = job_key(job.settings | {f"swept {axis}": value for axis, value in job.values.items()})


def _check_kind(old: Sequence[dict[str, Leaf]], wanted: Sequence[Job], name: str | None) -> None:
    """That the jobs differ from those of the sweep only in what is swept, then or now."""
    new = [job.settings for job in wanted if job.settings and job.stage != FINAL]
    if not old or not new:
        return
    for key in {key: None for settings in new for key in settings if key.startswith("code.")}:
        before, now = ({settings[key] for settings in side if key in settings} for side in (old, new))
        if before and before != now:
            raise UserError(
                f"name={name}: {key.removeprefix('code.')}.py has changed since the sweep was begun, and jobs of two nets "
                "cannot be told apart by their settings; give another name, or the file as it was"
            )
    free = {
        key.partition(".")[0]
        for key in (key for settings in [*old, *new] for key in settings if key.endswith("._target_"))
        if len({settings.get(key) for settings in old}) > 1 or len({settings.get(key) for settings in new}) > 1
    }
    same: list[dict[str, Any]] = []
    for group in (old, new):
        first, *others = group
        same.append({
            key: value
            for key, value in first.items()
            if key.partition(".")[0] not in free and all(key in s and s[key] == value for s in others)
        })  # fmt: skip
    swept = {key for key in same[0].keys() ^ same[1].keys() if _varies(key, old) or _varies(key, new)}
    first, then = ({key: value for key, value in side.items() if key not in swept} for side in same)
    if found := differences(first, then):
        listed = "; ".join(f"{key}: {difference}" for key, difference in list(found.items())[:5])
        more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
        raise UserError(
            f"name={name}: belongs to a sweep of another kind ({listed}{more}); give another name, or the same settings"
        )


def _varies(key: str, all_settings: Sequence[dict[str, Leaf]]) -> bool:
    return len({str(settings.get(key, "absent")) for settings in all_settings}) > 1
