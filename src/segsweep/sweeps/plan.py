"""Plans a sweep: makes jobs from overrides, adds the new ones, and refuses those that do not belong to the sweep."""

import contextlib
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segsweep.console import as_typed
from segsweep.data import SOURCES, Source
from segsweep.data.folds import test_and_val
from segsweep.data.splits import SplitRule
from segsweep.datamodule import LOADING_KEYS
from segsweep.errors import UserError, one_line, signal_behind
from segsweep.fingerprint import Leaf, differences, flatten, job_key, result_settings, typed
from segsweep.initial_weights import contents_of
from segsweep.instantiate import build, naming_keys, to_plain
from segsweep.keys import require_known
from segsweep.root_settings import check_root
from segsweep.runs.stored import is_unresolved, plain_overrides, require_plain_overrides
from segsweep.sweeps.grouping import Key
from segsweep.sweeps.ranking import values_key
from segsweep.sweeps.scored import scored_settings
from segsweep.sweeps.state import FINAL, Job, SweepDirectory, SweepRecord
from segsweep.training_setup import data_for_loss, require_known_settings
from segsweep.user_code import load_code

UNSWEPT = {
    "name": "a sweep has one name",
    "objective": "jobs with different objectives cannot be ranked together",
    "objective_at": "jobs that are ranked by different validations cannot be ranked together",
    "resume": "it continues a single run; a sweep is continued by the same command with the same name=",
    "on_error": "it applies to the whole sweep",
    "debug": "a sweep has one choice of it",
    "code": "it applies to the whole sweep; give several files as code=[a.py,b.py]",
}
_LONGEST_NAME = 120
"""Most bytes of a folder's name; file systems allow 255."""


def job_of(config: DictConfig, overrides: Sequence[str], axes: Sequence[str], precision: str) -> Job:
    """The job with this configuration. `add_jobs` gives it a number and a directory.

    Args:
        config: the configuration of the job, with Hydra's own node.
        overrides: the overrides of the job, ["optim=adam", "lr=0.01"].
        axes: the swept keys.
        precision: what trainer.precision=auto means.

    Raises:
        UserError: a setting is missing, unknown or of the wrong type, or the job would not train in one process.
    """
    require_known(config, "train")
    choices = {str(group): choice for group, choice in config.hydra.runtime.choices.items()}
    settings = to_plain(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
    check_root(settings)
    require_known_settings(settings)
    require_chosen_fold(settings.get("data") or {})
    trainer = settings.get("trainer") or {}
    if trainer.get("strategy") == "ddp" or trainer.get("devices") not in (1, None):
        raise SeveralProcessesError(
            "trainer=ddp: not possible in a sweep (-m), because each process would repeat the whole sweep; "
            "train single runs with it, or give each job one device with trainer=auto"
        )
    if trainer.get("precision") == "auto":
        trainer["precision"] = precision
    flat = flatten(settings)
    values = {axis: choices[axis] if axis in choices else flat.get(axis) for axis in axes}
    for axis in axes:  # if the values of an axis are whole nodes, its value is the node as JSON
        if axis not in choices and (node := {key: flat[key] for key in flat if key.startswith(f"{axis}.")}):
            values[axis] = json.dumps(node, sort_keys=True)
    result = result_settings(settings, contents_of(settings))
    if result.get("data._target_") not in SOURCES:
        # `scored_settings` needs the user's source, for its `unscored`. The job itself reports a mistake in the code.
        with contextlib.suppress(UserError):
            load_code(settings.get("code"))
    scored = scored_settings(result, str(settings["objective"]))
    scored.pop("data.task", None)
    if "task" in settings["data"]:
        data = json.dumps(data_for_loss(settings["data"], settings["loss"]))
        if is_binary(data, (result.get("data.content"), result.get("data.labels"))):
            scored["data.task"] = "binary"
    return Job(
        job_key(result), -1, plain_overrides(overrides, config), "", values, result,
        {group: choice for group, choice in choices.items() if not group.startswith("hydra/")}, scored,
    )  # fmt: skip


def require_chosen_fold(data: Mapping[str, Any]) -> None:
    """Refuses a cross-validation that cannot be before any job starts, in one line instead of one for each job.

    Raises:
        UserError: see `require_fold` and `test_and_val`.
    """
    if data.get("_target_") != "segsweep.data.FolderSource":
        return
    with naming_keys("data"):
        rule = SplitRule(folds=data.get("folds"), fold=data.get("fold"))
    if rule.folds is not None:
        test_and_val(rule.folds, rule.fold)


@functools.cache  # the jobs of a sweep mostly share their data
def is_binary(data: str, contents: tuple[Leaf, Leaf]) -> bool:
    """Whether a training is a binary task.

    Args:
        data: its `data` settings, as JSON. A mistake in them is left to the job.
        contents: digests of the folder and the class table that they name.
    """
    node = {key: value for key, value in json.loads(data).items() if key not in LOADING_KEYS}
    with contextlib.suppress(UserError):
        source: Source = build(node, "data")
        return source.kind == "binary"
    return False


class SeveralProcessesError(UserError):
    """A job would start several processes, and each of them would repeat the whole sweep."""


def broken_job(overrides: Sequence[str], axes: Sequence[str], error: str) -> Job:
    """A job that cannot be composed. It counts as failed, and the other jobs run."""
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
    """Checks that a command that adds jobs to a sweep changes swept settings only.

    Composes stored jobs again with the unswept settings of this command, and compares the result with the stored settings.

    Args:
        sweep: the sweep directory.
        record: sweep.json, with the axes of this command added.
        wanted: the jobs that the command asks for.
        typed: the overrides of each of these jobs, with interpolations: an unswept setting may follow a swept one.
        compose: makes a job from overrides, or raises.

    Raises:
        UserError: a setting that is not swept differs; the message names it.
    """
    new = [
        (job, overrides) for job, overrides in zip(wanted, typed, strict=True) if job.settings and job.stage != FINAL
    ]
    if not new:
        return
    unswept = [override for override in new[0][1] if key_of(override) not in record.axes]
    asked = {job_key(job.settings) for job, _ in new}
    # One replicate of each setting is enough: replicates were compared with each other when they were added.
    settings: dict[tuple[Key, ...], list[Job]] = {}
    for job in record.compared_jobs:
        settings.setdefault(values_key(record, job, record.settings_axes), []).append(job)
    for replicates in settings.values():
        if any(job_key(job.settings) in asked for job in replicates):
            continue
        old = replicates[0]
        require_plain_overrides(sweep.record, old.overrides)
        try:
            again = compose([*(override for override in old.overrides if key_of(override) in record.axes), *unswept])
        except UserError:
            continue  # its data is gone; this command is not wrong
        except (HydraException, OmegaConfBaseException) as error:
            if signal_behind(error) is not None:
                raise
            reason = one_line(error)
            raise UserError(
                f"name={record.name}: that sweep has other settings (not possible with {old.name}: {reason}); "
                "give another name, or the same settings"
            ) from error
        found = differences(old.settings, again.settings)
        if code := next((key for key in found if key.startswith("code.") and key in old.settings), None):
            raise UserError(
                f"name={record.name}: {code.removeprefix('code.')}.py has changed since the sweep started, so its jobs are "
                "not comparable with new ones; give another name, or restore the file"
            )
        if found:
            raise UserError(
                f"name={record.name}: that sweep has other settings ({_first_differences(found)}); give another name, "
                "or the same settings"
            )


def add_jobs(record: SweepRecord, wanted: Sequence[Job]) -> list[Job]:
    """Adds jobs to a sweep, except those that it has already.

    Returns:
        The wanted jobs as the sweep has them, each once.

    Raises:
        UserError: two jobs differ only in settings that are not swept, so no column of the tables would show it.
    """
    _give_own_keys(record, wanted)
    there = {job.key: job for job in record.jobs}
    directories = {job.directory for job in record.jobs}
    numbers = itertools.count(1 + max((job.number for job in record.jobs), default=-1))
    planned: dict[str, Job] = {}
    for job in wanted:
        if (known := there.get(job.key)) is not None:
            known.overrides, known.error, known.scored = job.overrides, job.error, job.scored
            # A job keeps its values, even if this command types the same settings in another way.
            known.values = job.values | known.values
            if known.stage == FINAL and job.stage != FINAL:
                known.stage = job.stage  # a search asks for it now, so it is ranked like any other job
            planned[job.key] = known
            continue
        job.number = next(numbers)
        job.directory = folder_name(job, directories)
        directories.add(job.directory)
        record.jobs.append(job)
        there[job.key] = planned[job.key] = job
    for job in record.jobs:
        job.values = {axis: record.value_of(job, axis) for axis in record.axes}
    seen: dict[tuple[Key, ...], Job] = {}
    for job in record.compared_jobs:
        other = seen.setdefault(values_key(record, job, record.axes), job)
        if other is not job:
            found = _first_differences(differences(other.settings, job.settings))
            raise UserError(
                f"name={record.name}: two jobs with {job.name} would differ in settings that are not swept ({found}); "
                "give another name, or the same settings"
            )
    return list(planned.values())


def folder_name(job: Job, taken: set[str]) -> str:
    """A folder name from the job's values: "optim=adam,lr=0.01". If it is too long or taken, it ends in the job's key."""
    parts = [f"{key}={typed(value)}" for key, value in job.values.items()] or job.overrides or ["job"]
    parts = [FINAL, *parts] if job.stage == FINAL else parts
    # Replace characters that are awkward in a file system, TensorBoard or a shell.
    name = ",".join(re.sub(r"[^\w.,=+-]+", "-", part) for part in parts).lstrip(".")
    if len(name.encode()) > _LONGEST_NAME or name in taken:
        name = f"{name.encode()[:_LONGEST_NAME].decode(errors='ignore')}-{job.key}"
    return name


def _give_own_keys(record: SweepRecord, wanted: Sequence[Job]) -> None:
    """Gives jobs different keys if they differ only in swept settings that change no result, such as data.num_workers.

    A person who sweeps such a setting wants to see the jobs side by side.
    """
    asked: dict[str, set[tuple[Key, ...]]] = {}
    there: dict[str, dict[tuple[Key, ...], str]] = {}
    for job in wanted:
        asked.setdefault(job_key(job.settings), set()).add(values_key(record, job, record.axes))
    for job in record.jobs:
        there.setdefault(job_key(job.settings), {})[values_key(record, job, record.axes)] = job.key
    for job in wanted:
        if not job.settings:
            continue
        plain, values = job_key(job.settings), values_key(record, job, record.axes)
        known = there.get(plain, {})
        if values in known:
            job.key = known[values]
        elif len(asked[plain]) > 1 or any(key != plain for key in known.values()):
            job.key = job_key(job.settings | {f"swept {axis}": value for axis, value in job.values.items()})


def sweeper_overrides(overrides: Iterable[str]) -> list[str]:
    """Those that choose and set the sweeper, as typed. They are part of the command, but Hydra gives them no sweeper."""
    words = [as_typed(each) for each in overrides if re.match(r"(\+\+)?hydra[./]sweeper", each)]
    if any(word.startswith("settings_of=") for word in words):  # `Taken.typed` adds these two
        words = [word for word in words if not word.startswith(("settings_of=", "keep="))]
    return words


def key_of(override: str) -> str:
    """The key that an override sets: "lr" of "lr=0.1", and of "+lr=0.1"."""
    return override.lstrip("+").split("=", 1)[0]


def with_interpolations(record: SweepRecord) -> list[str]:
    """The unswept overrides of a sweep's command that refer to other settings, as in `data.split_seed=${seed}`."""
    unswept = (override for override in record.overrides if key_of(override) not in record.axes)
    return [override for override in unswept if is_unresolved(override)]


def _first_differences(found: Mapping[str, str]) -> str:
    """The first five entries of `differences` as text."""
    text = "; ".join(f"{key}: {difference}" for key, difference in list(found.items())[:5])
    return text + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
