"""From the configuration to objects: checked against signatures, with errors that name the key.

This is the only place, beside the spines, that knows of Hydra.
"""

import inspect
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segsweep.arguments import check_arguments
from segsweep.errors import UserError
from segsweep.identity import NAME

ROOT_KEYS = ("lr", "momentum", "seed")
"""Keys at the root of the configuration that groups refer to; errors name them as the user types them."""


def to_plain(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as dicts, lists, strings, numbers, booleans and None.

    Raises:
        UserError: a value is missing, or an interpolation leads nowhere.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        reason = str(error).splitlines()[0]
        raise UserError(f"{key}: needs a value ({reason})" if key else reason) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def name_of(settings: Mapping[Any, Any]) -> str | None:
    """The `name=` of a configuration as it was typed: of digits alone, Hydra takes it for a number."""
    name = settings.get("name")
    return None if name is None else str(name)


def check_root(settings: dict[str, Any]) -> None:
    """Refuses a wrong key at the root of the configuration; a name that is a number becomes the text it was typed as.

    Args:
        settings: the configuration, as plain data.

    Raises:
        UserError: names the key, its value and what would be right.
    """
    settings["name"] = name_of(settings)
    check_arguments(_root, {name: settings.get(name) for name in inspect.signature(_root).parameters})
    if not 0 <= settings["seed"] < 1 << 32:
        raise UserError(f"seed={settings['seed']}: must be from 0 to {(1 << 32) - 1}")
    if settings["name"] is not None and not re.fullmatch(NAME, settings["name"]):
        raise UserError(f"name={settings['name']}: must be letters, digits, spaces and . , = + - _ only")


def _root(
    lr: float, momentum: float | None, seed: int, name: str | None, objective: str, code: str | list[str] | None
) -> None:
    """The signature that the keys at the root of the configuration are checked against."""


def build(node: Mapping[str, Any], where: str, **extra: Any) -> Any:
    """Calls a node's `_target_` with the node's other values.

    Args:
        node: plain values; `_partial_: true` gives a partial instead of calling.
        where: the node's key, for errors.
        extra: arguments that the program adds.

    Raises:
        UserError: the target cannot be found, or refuses a value; names the key.
    """
    target = node.get("_target_")
    if not isinstance(target, str):
        raise UserError(f"{where}: has no _target_ that says what to build")
    try:
        function = get_object(target)
    except Exception as error:  # whatever the import of a user's module raises
        own = f"; a class in a file of yours needs code=FILE, and is {target.split('.')[0]}.<class>"
        hint = "" if target.startswith("segsweep.") else own
        raise UserError(f"{where}._target_={target}: cannot be imported ({_cause(error)}){hint}") from error
    arguments = {name: value for name, value in node.items() if not name.startswith("_")}
    if twice := sorted(arguments.keys() & extra.keys()):
        raise UserError(f"{where}.{twice[0]}: follows from other settings; leave it out")
    with naming_keys(where):
        if node.get("_partial_"):
            return partial(function, **arguments, **extra)
        check_arguments(function, arguments, known=tuple(extra))
        return function(**arguments, **extra)


class naming_keys:  # noqa: N801  (reads as a statement)
    """Turns a ValueError that starts with `name=` into a UserError that starts with the name's key."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, ValueError):
            name = re.match(r"[a-z_0-9]+(?=[=:\[])", str(error))
            if name is None:
                message = str(error) if str(error).startswith(f"{self.where}.") else f"{self.where}: {error}"
            else:
                message = str(error) if name.group() in ROOT_KEYS else f"{self.where}.{error}"
            raise UserError(message) from error


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).splitlines()[0] if str(error) else type(error).__name__
