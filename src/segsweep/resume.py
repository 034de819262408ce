"""Resuming a run: whether its settings allow it, from which step, and with which configuration."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from segsweep.console import hydra_argument, relative, shell_word
from segsweep.errors import DivergedError, UserError, one_line, os_error_behind
from segsweep.fingerprint import ROOT, data_contents, differences, flatten, result_settings
from segsweep.initial_weights import contents_of
from segsweep.instantiate import to_plain
from segsweep.keys import GROUPS
from segsweep.loggers import TRACKERS
from segsweep.runs import RunDirectory, RunRecord
from segsweep.runs.checkpoint import read_checkpoint, require_finite, require_plain, require_stored, require_tensors
from segsweep.runs.stored import plain_overrides, read_plain, require_plain_overrides
from segsweep.tasks import SGD, Adam, RMSprop, SegmentationTask
from segsweep.user_code import is_known, load_code, targets

log = logging.getLogger(__name__)

LENGTH = ("max_steps", "max_epochs", "max_minutes")
"""Settings of the `trainer` group that may be raised on resume."""


@dataclass(frozen=True)
class PreviousRun:
    """A run that can be resumed."""

    record: RunRecord
    complete: bool
    """Whether it is completed and no more steps are asked for."""


def previous_run(settings: Mapping[str, Any], run: RunDirectory) -> PreviousRun | None:
    """Checks that a run can be resumed. If it has saved nothing yet, clears its directory and gives None.

    Args:
        settings: the configuration to resume with, as plain data.
        run: the run's directory.

    Raises:
        UserError: there is no run, or `settings` would change its result.
    """
    if not run.record.exists() or not run.config.exists():
        raise UserError(f"{run.path}: no run there to resume; give a run directory, one with a run.json")
    record, stored = _read_run(run)
    require_same_result(record, stored, settings, run)
    if not run.last.exists() and record.status != "completed":
        run.clear()
        return None
    same_length = all(stored["trainer"].get(name) == settings["trainer"].get(name) for name in LENGTH)
    return PreviousRun(record, record.status == "completed" and same_length)


def _read_run(run: RunDirectory) -> tuple[RunRecord, dict[str, Any]]:
    """run.json and config.yaml."""
    return RunRecord.read(run.record), _read_config(run.config)


def _read_config(path: Path) -> dict[str, Any]:
    """config.yaml of a run, with every key and group that a training reads before it checks their settings."""
    plain = read_plain(path)
    if not isinstance(plain, dict) or (missing := [key for key in (*ROOT, *GROUPS) if key not in plain]):
        lacks = f" (it lacks {', '.join(missing)})" if isinstance(plain, dict) else ""
        raise UserError(f"{path}: is cut short, or not the configuration of a run{lacks}")
    for group in GROUPS:
        if not isinstance(plain[group], dict):
            raise UserError(f"{path}: {group}: {plain[group]!s:.100}: is not the settings of a group")
    for name in LENGTH:
        length = plain["trainer"].get(name)
        if length is not None and type(length) is not int and (name, type(length)) != ("max_minutes", float):
            raise UserError(f"{path}: trainer.{name}: {length!s:.100}: must be a number of {name.removeprefix('max_')}")
    return plain


def reopen_failed(run: RunDirectory) -> None:
    """Reopens a failed run: from last.ckpt, or from scratch if it diverged or has none. Leaves other runs as they are."""
    if not run.record.exists():
        return
    try:
        record, stored = _read_run(run)
        if record.status != "failed":
            return
        last_step(stored, run)
    except (OSError, UserError) as error:
        failed = os_error_behind(error)
        if failed is None or isinstance(failed, FileNotFoundError):  # another OSError may be temporary: keep the run
            run.clear()
        return
    if (record.error or "").startswith(DivergedError.__name__):
        run.clear()
    else:
        record.status = "interrupted"
        record.write(run.record)


def require_same_result(
    record: RunRecord, stored: Mapping[str, Any], settings: Mapping[str, Any], run: RunDirectory
) -> None:
    """Refuses settings that would change a run's result. Its length may be raised, and its data may have moved.

    Args:
        record: the run's run.json.
        stored: its configuration.
        settings: the configuration to resume with.
        run: its directory.

    Raises:
        UserError: names the first setting that differs, with both values.
    """
    contents: Mapping[str, Any] | None = record.contents
    if contents is None:  # an early version kept no digests: assume that the data have not changed
        named = {key for key, value in flatten(stored["data"], "data").items() if Path(str(value)).suffix}
        found = data_contents(settings["data"])
        contents = {key: value for key, value in found.items() if key == "data.content" or key in named}
    same_init = stored.get("init") == settings.get("init")
    if same_init and (run.last.exists() or record.status == "completed"):
        contents = {key: value for key, value in contents.items() if key != "init"}
        now_contents = data_contents(settings["data"])  # the file of init= is no longer needed
    else:
        now_contents = contents_of(settings)
    # Without the user's own files: they are named anew on resume, and may have moved.
    before, now = (
        {key: value for key, value in side.items() if not key.startswith("code.")}
        for side in (result_settings(stored, contents), result_settings(settings, now_contents))
    )
    changed = differences(before, now)
    for name in LENGTH:
        key, old, new = f"trainer.{name}", stored["trainer"].get(name), settings["trainer"].get(name)
        if key in changed and old is not None and new is not None and (new > old > 0 or new == -1):
            del changed[key]
            if settings["scheduler"].get("_target_"):
                log.warning("%s: the schedule now spans the new length; a single training of it would differ", key)
    if changed:
        key, difference = next(iter(changed.items()))
        more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UserError(
            f"{key}: {difference}{more}; {run.path} can only be resumed with the settings that it was started with. "
            "trainer.max_steps, trainer.max_epochs and trainer.max_minutes may be raised; for any other change begin a new "
            f"run from its weights, with {hydra_argument('init', relative(run.path))} instead of resume="
        )


def last_step(settings: Mapping[str, Any], run: RunDirectory) -> int:
    """The number of optimizer steps done in last.ckpt.

    Raises:
        UserError: the checkpoint cannot be read, or belongs to a run with another net, optimizer, seed or loss.
    """
    checkpoint = read_checkpoint(run.last)
    try:
        require_plain(checkpoint["segsweep"])
        step, saved = checkpoint["global_step"], checkpoint["segsweep"]["config"]
        # Settings that weights and optimizer state must fit. Others may be computed from data, or have moved.
        there, here = (
            flatten(
                {name: side[name] for name in ("model", "optim", "seed")} | {"loss._target_": side["loss"]["_target_"]}
            )
            for side in (saved, settings)
        )
        if type(step) is not int or step < 0:
            raise ValueError("global_step is not a number of steps")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{run.last}: is not a checkpoint of segsweep, so the run cannot be resumed from it") from error
    if other := differences(there, here):
        key = next(iter(other))
        raise UserError(
            f"{run.last}: is of another run ({key}: {there.get(key)} there, {here.get(key)} here); "
            "put the run's own last.ckpt back, or remove this one to start from scratch"
        )
    return step


def require_restorable(task: SegmentationTask, run: RunDirectory, step: int, total: int | None) -> None:
    """Checks what Lightning and torch restore unchecked from last.ckpt: weights, the optimizer's state, the count of steps.

    Args:
        task: its net and optimizer are those to resume with.
        run: the run directory.
        step: from `last_step`.
        total: optimizer steps of the whole training; None if no number of steps ends it.

    Raises:
        UserError: weights are missing or not finite, the optimizer's state has other shapes, or the steps are wrong.
    """
    checkpoint = read_checkpoint(run.last)
    try:
        require_stored(checkpoint)
        if total is not None and step > total:
            raise ValueError(f"global_step is {step}, and the training has {total} steps")
        weights = require_tensors(checkpoint["state_dict"])
        for name, parameter in task.named_parameters():
            if weights[name].shape != parameter.shape:
                raise ValueError(f"{name} has the shape {list(weights[name].shape)}")
        require_finite({name: weights[name] for name, _ in task.named_parameters()})
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.automatic_optimization.optim_progress"]
        if (counted := progress["optimizer"]["step"]["total"]["completed"]) != step:
            raise ValueError(f"global_step is {step}, its optimizer has counted {counted}")
        (stored,) = checkpoint["optimizer_states"]
        if isinstance(task.optimizer, SGD | RMSprop | Adam):  # a user's own may have any state
            _require_state(task, stored["state"], step)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UserError(
            f"{run.last}: does not fit this run ({reason}); put the run's own last.ckpt back, or remove this one to start "
            "from scratch"
        ) from error


def _require_state(task: SegmentationTask, stored: Mapping[int, Mapping[str, Any]], step: int) -> None:
    """Compares an optimizer's state with that after one step of the same optimizer on a copy of the parameters."""
    copies = [nn.Parameter(torch.zeros(parameter.shape)) for parameter in task.net.parameters()]
    optimizer = task.optimizer(copies)
    for copy in copies:
        copy.grad = torch.zeros(copy.shape)
    optimizer.step()
    fresh = optimizer.state_dict()["state"]
    if step and fresh and not stored:
        raise ValueError("the optimizer has no state")
    for number, entries in stored.items():
        shapes, wanted = (
            {name: getattr(value, "shape", None) for name, value in side.items()} for side in (entries, fresh[number])
        )
        if shapes != wanted:
            raise ValueError(f"the optimizer's state of parameter {number} has other names or shapes")


def resumed_config(
    directory: Path, overrides: Sequence[str], config_name: str = "train"
) -> tuple[DictConfig, list[str]]:
    """The stored configuration of a run, changed by `overrides`, and all overrides that lead to it.

    A run keeps its stored settings even if a default has changed since. Composing with and without `overrides` shows what
    these change, so that a group such as trainer=gpu has its usual effect. Only interpolations typed now are resolved:
    the directory is untrusted.

    Raises:
        UserError: the stored configuration cannot be read, or its groups no longer exist.
    """
    config_path, stored_path = directory / "config.yaml", directory / ".hydra" / "overrides.yaml"
    try:
        plain, before = _read_config(config_path), read_plain(stored_path) or []
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise UserError(f"{error.filename}: cannot be read, so the run's settings are not known ({reason})") from error
    if not isinstance(before, list):
        raise UserError(f"{stored_path}: is not a list of overrides")
    before = [str(override) for override in before]
    require_plain_overrides(stored_path, before)
    try:
        config = OmegaConf.create(plain)
    except OmegaConfBaseException as error:
        raise UserError(f"{config_path}: is not the configuration of a run ({error})") from error
    try:
        old = compose(config_name, before)
    except (HydraException, OmegaConfBaseException) as error:
        reason = one_line(error)
        raise UserError(f"{stored_path}: cannot be composed any more ({reason})") from error
    also = [override for override in overrides if not override.lstrip("+").startswith("resume=")]
    new = compose(config_name, [*before, *also], return_hydra_config=True)
    settled = plain_overrides(also, new)
    new = OmegaConf.masked_copy(new, [str(key) for key in new if key != "hydra"])
    for key in differences(flatten(to_plain(old)), flatten(to_plain(new))):
        OmegaConf.update(config, key, OmegaConf.select(new, key), force_add=True)
    require_known_targets(config, directory, also, config_name)
    if any(config.logger.get(name) is not None for name in TRACKERS):
        config.logger = typed_loggers(before, also, directory, config_name)
    return config, [*before, *settled]


def typed_loggers(before: Sequence[str], typed: Sequence[str], directory: Path, config_name: str) -> DictConfig:
    """The `logger` group as it is typed now. Stored settings do not count: they say which server gets the user's token.

    Args:
        before: the stored overrides.
        typed: those typed now.
        directory: the run directory.
        config_name: as in `resumed_config`.

    Raises:
        UserError: no logger is typed; names what to type.
    """
    stored, now = ([word for word in side if re.match(r"\+*logger[.=]", word)] for side in (before, typed))
    if not any(word.startswith("logger=") for word in now):
        words = " ".join(map(shell_word, stored)) or "logger=wandb or logger=mlflow"
        raise UserError(
            f"{directory}: logged to W&B or MLflow too, and where to is not taken from a stored run; add {words} to go on "
            "there, or logger=default to leave it out"
        )
    group: DictConfig = compose(config_name, now).logger
    return group


def require_known_targets(config: DictConfig, directory: Path, typed: Sequence[str], config_name: str) -> None:
    """Loads the files of a `code=` typed now, and refuses targets that are neither in them, nor typed, nor segsweep's own.

    A stored `code` is ignored: the directory is untrusted.

    Raises:
        UserError: names the target and what to type.
    """
    named = config.get("code")
    config.code = compose(config_name, [override for override in typed if override.startswith("code=")]).code
    load_code(to_plain(config)["code"])
    for key, target in targets(to_plain(config)):
        if not is_known(target) and not any(target in override for override in typed):
            file = named if isinstance(named, str) else f"{target.split('.')[0]}.py"
            raise UserError(
                f"{directory}: its {key} is {target}, which is not part of segsweep; pass code={file} to allow it"
            )
