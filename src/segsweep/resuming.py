"""The configuration with which a run is continued: its own, with what the command line changes."""

from collections.abc import Sequence
from pathlib import Path

from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from segsweep.config import to_plain
from segsweep.errors import UserError
from segsweep.identity import ROOT, differences, flatten
from segsweep.keys import GROUPS
from segsweep.own_code import is_known, load_code, targets


def resumed(directory: Path, overrides: Sequence[str], config_name: str = "train") -> tuple[DictConfig, list[str]]:
    """The configuration of the run in `directory`, changed by `overrides`, and all overrides that make it.

    A run keeps what it was begun with, also where a default has changed since. What the overrides change is found by
    composing with and without them, so that a group, such as trainer=gpu, does what it does when a run is begun.

    Raises:
        UserError: the directory's configuration cannot be read, or what it was begun with is no longer there.
    """
    begun, typed = _read(directory / "config.yaml"), _read(directory / ".hydra" / "overrides.yaml")
    if not isinstance(begun, DictConfig) or (missing := [key for key in (*ROOT, *GROUPS) if key not in begun]):
        lacks = f" (it lacks {', '.join(missing)})" if isinstance(begun, DictConfig) else ""
        raise UserError(f"{directory / 'config.yaml'}: is cut short, or no configuration of a run{lacks}")
    before = [str(override) for override in typed] if isinstance(typed, ListConfig) else []
    try:
        old = compose(config_name, before)
    except (HydraException, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{directory / '.hydra' / 'overrides.yaml'}: cannot be composed any more ({reason})") from error
    also = [override for override in overrides if not override.lstrip("+").startswith("resume=")]
    new = compose(config_name, [*before, *also])
    for key in differences(flatten(to_plain(old)), flatten(to_plain(new))):
        OmegaConf.update(begun, key, OmegaConf.select(new, key), force_add=True)
    _require_known_targets(begun, directory, also, config_name)
    return begun, [*before, *also]


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


def _read(path: Path) -> DictConfig | ListConfig:
    try:
        return OmegaConf.load(path)
    except (OSError, ValueError, YAMLError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read, so what the run was begun with is not known ({reason})") from error
