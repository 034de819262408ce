"""Resuming a run: whether it can go on as asked, from which step, and with which configuration."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segsweep.errors import DivergedError, UserError, os_error_behind
from segsweep.fingerprint import ROOT, Leaf, data_contents, differences, flatten, result_settings
from segsweep.instantiate import to_plain
from segsweep.keys import GROUPS
from segsweep.runs import RunDirectory, RunRecord
from segsweep.runs.checkpoint import read_checkpoint
from segsweep.runs.stored import plain_overrides, read_plain, require_plain_overrides
from segsweep.user_code import is_known, load_code, targets

log = logging.getLogger(__name__)

LENGTH = ("trainer.max_steps", "trainer.max_epochs")
"""What may be more than a run was begun with."""


@dataclass(frozen=True)
class Continued:
    """What is known of a run that is to go on."""

    record: RunRecord
    as_long: bool
    """Whether no more steps are asked for than it was begun with."""

    @property
    def complete(self) -> bool:
        return self.record.status == "completed" and self.as_long


def continued(settings: Mapping[str, Any], run: RunDirectory) -> Continued | None:
    """A run that can be continued; None, with what it left taken away, where nothing was saved yet.

    Args:
        settings: the configuration, as plain data, with which it is to go on.
        run: its directory.

    Raises:
        UserError: there is no run, or `settings` would give another result than those it was begun with.
    """
    if not run.record.exists() or not run.config.exists():
        raise UserError(f"{run.path}: no run there to continue; give a run directory, one with a run.json")
    record, begun = _read(run)
    _require_same_result(begun, settings, run, _contents(record, begun, settings))
    if not run.last.exists() and record.status != "completed":
        run.clear()
        return None
    as_long = all(_value(begun, key) == _value(settings, key) for key in LENGTH)
    return Continued(record, as_long)


def _read(run: RunDirectory) -> tuple[RunRecord, dict[str, Any]]:
    """run.json and config.yaml."""
    record, begun = RunRecord.read(run.record), read_plain(run.config)
    if not isinstance(begun, dict):
        raise UserError(f"{run.config}: is cut short, or no configuration of a run")
    return record, begun


def reopen_failed(run: RunDirectory) -> None:
    """Has a run that failed go on from its last checkpoint; where it diverged, or has none, from its beginning.

    Nothing is done to a run that did not fail.
    """
    if not run.record.exists():
        return
    try:
        record, begun = _read(run)
        if record.status != "failed":
            return
        last_step(begun, run)
    except (OSError, UserError) as error:
        failed = os_error_behind(error)
        if failed is None or isinstance(failed, FileNotFoundError):  # else it may be read another time
            run.clear()
        return
    if (record.error or "").startswith(DivergedError.__name__):
        run.clear()
    else:
        record.status = "interrupted"
        record.write(run.record)


def _contents(record: RunRecord, begun: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Leaf]:
    """What the data was when the run was begun, which may lie elsewhere by now, or not be as it was."""
    if record.contents is not None:
        return record.contents
    # Written before contents were kept: what is there now is taken for what was there.
    named = {key for key, value in flatten(begun["data"], "data").items() if Path(str(value)).suffix}
    now = data_contents(settings["data"])
    return {key: value for key, value in now.items() if key == "data.content" or key in named}


def _require_same_result(
    begun: Mapping[str, Any], settings: Mapping[str, Any], run: RunDirectory, contents: Mapping[str, Leaf]
) -> None:
    # The code that is run is what its user names now, and may lie elsewhere.
    before, now = result_settings(begun, contents), result_settings(settings)
    changed = differences(_without_code(before), _without_code(now))
    for key in LENGTH:
        old, new = _value(begun, key), _value(settings, key)
        if key in changed and old is not None and new is not None and (new > old > 0 or new == -1):
            del changed[key]
            if settings["scheduler"].get("_target_"):
                log.warning("%s: the schedule is laid out anew; one training of that length would differ", key)
    if changed:
        key, difference = next(iter(changed.items()))
        more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UserError(
            f"{key}: {difference}{more}; {run.path} can only be continued as it was begun. "
            "More trainer.max_steps are allowed; for anything else start a new run"
        )


def _without_code(settings: Mapping[str, Leaf]) -> dict[str, Leaf]:
    return {key: value for key, value in settings.items() if not key.startswith("code.")}


def _value(settings: Mapping[str, Any], key: str) -> Any:
    group, name = key.split(".")
    return settings[group][name]


def last_step(settings: Mapping[str, Any], run: RunDirectory) -> int:
    """Optimizer steps behind last.ckpt.

    Raises:
        UserError: it cannot be read, or is of another run.
    """
    checkpoint = read_checkpoint(run.last)
    try:
        step, saved = checkpoint["global_step"], checkpoint["segsweep"]["config"]
        there, here = (_of_the_weights(each) for each in (saved, settings))
        if not isinstance(step, int):
            raise TypeError("global_step is no number")
    except (KeyError, TypeError) as error:
        raise UserError(f"{run.last}: is no checkpoint of segsweep, so the run cannot be continued from it") from error
    if other := differences(there, here):
        key = next(iter(other))
        raise UserError(
            f"{run.last}: is of another run ({key}: {there.get(key)} there, {here.get(key)} here); "
            "put back its own, or take it away to begin anew"
        )
    return step


def _of_the_weights(settings: Mapping[str, Any]) -> dict[str, Leaf]:
    """The settings that weights and optimizer state must fit, and nothing that is computed from data or may have moved."""
    chosen = {name: settings[name] for name in ("model", "optim", "seed")}
    return flatten(chosen | {"loss._target_": settings["loss"]["_target_"]})


def resumed(directory: Path, overrides: Sequence[str], config_name: str = "train") -> tuple[DictConfig, list[str]]:
    """The configuration of the run in `directory`, changed by `overrides`, and all overrides that make it.

    A run keeps what it was begun with, also where a default has changed since. What the overrides change is found by
    composing with and without them, so that a group, such as trainer=gpu, does what it does when a run is begun.
    Interpolations are resolved where they were typed now, never where they are stored: the directory may be a stranger's.

    Raises:
        UserError: the directory's configuration cannot be read, or what it was begun with is no longer there.
    """
    stored = directory / ".hydra" / "overrides.yaml"
    plain, before = _read_yaml(directory / "config.yaml"), _read_yaml(stored) or []
    if not isinstance(plain, dict) or (missing := [key for key in (*ROOT, *GROUPS) if key not in plain]):
        lacks = f" (it lacks {', '.join(missing)})" if isinstance(plain, dict) else ""
        raise UserError(f"{directory / 'config.yaml'}: is cut short, or no configuration of a run{lacks}")
    if not isinstance(before, list):
        raise UserError(f"{stored}: is no list of overrides")
    before = [str(override) for override in before]
    require_plain_overrides(stored, before)
    try:
        begun = OmegaConf.create(plain)
    except OmegaConfBaseException as error:
        raise UserError(f"{directory / 'config.yaml'}: is no configuration of a run ({error})") from error
    try:
        old = compose(config_name, before)
    except (HydraException, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{stored}: cannot be composed any more ({reason})") from error
    also = [override for override in overrides if not override.lstrip("+").startswith("resume=")]
    new = compose(config_name, [*before, *also], return_hydra_config=True)
    settled = plain_overrides(also, new)
    new = OmegaConf.masked_copy(new, [str(key) for key in new if key != "hydra"])
    for key in differences(flatten(to_plain(old)), flatten(to_plain(new))):
        OmegaConf.update(begun, key, OmegaConf.select(new, key), force_add=True)
    _require_known_targets(begun, directory, also, config_name)
    return begun, [*before, *settled]


def _require_known_targets(begun: DictConfig, directory: Path, typed: Sequence[str], config_name: str) -> None:
    """Has only code run that is segsweep's, or that the user asks for now: the directory may be a stranger's.

    Raises:
        UserError: the run was begun with something else.
    """
    named = begun.get("code")
    begun.code = compose(config_name, [override for override in typed if override.startswith("code=")]).code
    load_code(to_plain(begun)["code"])
    for key, target in targets(to_plain(begun)):
        if not is_known(target) and not any(target in override for override in typed):
            file = named if isinstance(named, str) else f"{target.split('.')[0]}.py"
            raise UserError(
                f"{directory}: its {key} is {target}, which is none of segsweep's own and is not run unasked; "
                f"where it is yours, name the file it is in, as in code={file}"
            )


def _read_yaml(path: Path) -> Any:
    try:
        return read_plain(path)
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read, so what the run was begun with is not known ({reason})") from error
