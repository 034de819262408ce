"""Which jobs a command asks for, which of them are there already, and whether they belong to the same sweep."""

import contextlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segsweep.data import SOURCES
from segsweep.errors import UserError
from segsweep.fingerprint import Leaf, differences, flatten, job_key, result_settings, typed
from segsweep.instantiate import to_plain
from segsweep.keys import require_known
from segsweep.runs.stored import plain_overrides, require_plain_overrides
from segsweep.sweeps.replicates import Key, entry_key
from segsweep.sweeps.scored import scored_settings
from segsweep.sweeps.state import Job, SweepDirectory, SweepRecord
from segsweep.training_setup import check_root, require_known_settings
from segsweep.user_code import load_code

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
        UserError: a setting is missing, unknown or of the wrong type, or the job would not train in one process.
    """
    require_known(config, "train")
    choices = {str(group): choice for group, choice in config.hydra.runtime.choices.items()}
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    settings = to_plain(own)
    check_root(settings)
    require_known_settings(settings)
    trainer = settings.get("trainer") or {}
    if trainer.get("strategy") == "ddp" or trainer.get("devices") not in (1, None):
        raise SeveralProcessesError(
            "trainer=ddp: not in a sweep (-m): each further process would repeat the whole sweep. Train single runs with "
            "it, or give each job one device"
        )
    flat = flatten(settings)
    values = {axis: choices[axis] if axis in choices else _value(flat, axis) for axis in axes}
    result = result_settings(settings)
    if result.get("data._target_") not in SOURCES:
        with contextlib.suppress(UserError):  # the job will say what is wrong with it
            load_code(settings.get("code"))  # where a source of the user's is, which says what it is scored on
    return Job(
        job_key(result), -1, plain_overrides(overrides, config), "", values, result,
        {group: choice for group, choice in choices.items() if not group.startswith("hydra/")},
        scored_settings(result, str(settings["objective"])),
    )  # fmt: skip


def _value(flat: Mapping[str, Leaf], axis: str) -> Leaf:
    """The value of an axis; of one whose values are whole nodes, as JSON."""
    below = {key: value for key, value in flat.items() if key.startswith(f"{axis}.")}
    return flat.get(axis) if not below else json.dumps(below, sort_keys=True)


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


def require_same_kind(
    sweep: SweepDirectory,
    record: SweepRecord,
    wanted: Sequence[Job],
    typed: Sequence[Sequence[str]],
    compose: Callable[[list[str]], Job],
) -> None:
    """That the command which asks for more would train what the sweep has as it was trained, so only axes differ.

    Args:
        sweep: its directory.
        record: its content, with the axes of this command too.
        wanted: the jobs that the command asks for.
        typed: the overrides of each, with interpolations: what is not swept may follow from what is.
        compose: gives the job of overrides, or raises.

    Raises:
        UserError: something is different that is not swept; says what.
    """
    new = [
        (job, overrides) for job, overrides in zip(wanted, typed, strict=True) if job.settings and job.stage != FINAL
    ]
    if not new:
        return
    unswept = [override for override in new[0][1] if key_of(override) not in record.axes]
    asked = {job_key(job.settings) for job, _ in new}
    # The replicates of a setting were compared when they were added: one of them answers for all.
    settings: dict[tuple[Key, ...], list[Job]] = {}
    for job in _compared(record):
        settings.setdefault(_labels(record, job, but="seed"), []).append(job)
    for replicates in settings.values():
        if any(job_key(job.settings) in asked for job in replicates):
            continue
        old = replicates[0]
        require_plain_overrides(sweep.record, old.overrides)
        try:
            again = compose([*(override for override in old.overrides if key_of(override) in record.axes), *unswept])
        except UserError:
            continue  # its data has gone, which says nothing about this command
        except (HydraException, OmegaConfBaseException) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"name={record.name}: belongs to a sweep of another kind (not possible for {old.name}: {reason}); "
                "give another name, or the same settings"
            ) from error
        _require_same(old, again, record.name)


def _require_same(old: Job, again: Job, name: str | None) -> None:
    found = differences(old.settings, again.settings)
    if code := next((key for key in found if key.startswith("code.") and key in old.settings), None):
        raise UserError(
            f"name={name}: {code.removeprefix('code.')}.py has changed since the sweep was begun, and jobs of two nets "
            "cannot be told apart by their settings; give another name, or the file as it was"
        )
    if found:
        raise UserError(
            f"name={name}: belongs to a sweep of another kind ({_listed(found)}); give another name, or the same settings"
        )


def add(record: SweepRecord, wanted: Sequence[Job]) -> list[Job]:
    """Puts jobs into a sweep, and gives them as they are there, each once, those that it had already among them.

    Raises:
        UserError: two jobs differ in something that no column shows.
    """
    _tell_apart(record, wanted)
    there = {job.key: job for job in record.jobs}
    directories = {job.directory for job in record.jobs}
    numbers = itertools.count(1 + max((job.number for job in record.jobs), default=-1))
    found: dict[str, Job] = {}
    for job in wanted:
        if (known := there.get(job.key)) is not None:
            known.overrides, known.error, known.scored = job.overrides, job.error, job.scored
            # What a job was swept as it stays, though another name may stand for the same settings.
            known.values = job.values | known.values
            if known.stage == FINAL and job.stage != FINAL:
                known.stage = job.stage  # a search that asks for it compares it
            found[job.key] = known
            continue
        job.number = next(numbers)
        job.directory = _directory(job, directories)
        directories.add(job.directory)
        record.jobs.append(job)
        there[job.key] = found[job.key] = job
    for job in record.jobs:
        job.values = {axis: record.value_of(job, axis) for axis in record.axes}
    _require_told_apart(record)
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


def _tell_apart(record: SweepRecord, wanted: Sequence[Job]) -> None:
    """What changes no result, such as the number of workers, was swept to be seen side by side all the same."""
    asked: dict[str, set[tuple[Key, ...]]] = {}
    there: dict[str, dict[tuple[Key, ...], str]] = {}
    for job in wanted:
        asked.setdefault(job_key(job.settings), set()).add(_labels(record, job))
    for job in record.jobs:
        there.setdefault(job_key(job.settings), {})[_labels(record, job)] = job.key
    for job in wanted:
        if not job.settings:
            continue
        plain, labels = job_key(job.settings), _labels(record, job)
        known = there.get(plain, {})
        if labels in known:
            job.key = known[labels]
        elif len(asked[plain]) > 1 or any(key != plain for key in known.values()):
            job.key = job_key(job.settings | {f"swept {axis}": value for axis, value in job.values.items()})


def _require_told_apart(record: SweepRecord) -> None:
    seen: dict[tuple[Key, ...], Job] = {}
    for job in _compared(record):
        other = seen.setdefault(_labels(record, job), job)
        if other is not job:
            found = differences(other.settings, job.settings)
            raise UserError(
                f"name={record.name}: two jobs with {job.name} would differ in what is not swept ({_listed(found)}); "
                "give another name, or the same settings"
            )


def _compared(record: SweepRecord) -> list[Job]:
    return [job for job in record.jobs if job.settings and job.stage != FINAL]


def _labels(record: SweepRecord, job: Job, but: str | None = None) -> tuple[Key, ...]:
    """What the columns of the tables say of a job."""
    return tuple(entry_key(record.value_of(job, axis)) for axis in record.axes if axis != but)


def key_of(override: str) -> str:
    """The key that an override sets: "lr" of "lr=0.1", and of "+lr=0.1"."""
    return override.lstrip("+").split("=", 1)[0]


def _listed(found: Mapping[str, str]) -> str:
    listed = "; ".join(f"{key}: {difference}" for key, difference in list(found.items())[:5])
    return listed + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
