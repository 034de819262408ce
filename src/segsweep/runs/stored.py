"""Configurations and overrides that a run or a sweep stores: anybody's, so plain values in which nothing is resolved again.

What OmegaConf reads as an interpolation can read the environment and make folders: `${oc.env:HOME}`, `${new_folder:/x}`.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from segsweep.console import quoted
from segsweep.errors import UserError
from segsweep.runs.checkpoint import require_plain
from segsweep.runs.files import read_text, write_text

LARGEST = 4 << 20
"""Bytes of a stored configuration; one has some 3 KiB."""
_DEEPEST = 50
_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_plain(path: Path) -> Any:
    """A YAML file of dicts, lists, strings, numbers, booleans and None, without aliases and interpolations.

    Raises:
        OSError: there is none, or it cannot be read.
        UserError: it is damaged, or holds something else; names the file and the key.
    """
    try:
        text = read_text(path, LARGEST)
        _require_tree(text)
        value = yaml.load(text, Loader=_Loader)
        require_plain(value, depth=_DEEPEST)
    except (ValueError, OverflowError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    require_resolved(path, value)
    return value


def require_resolved(path: Path, value: Any, key: str = "") -> None:
    """Refuses text that OmegaConf would take for an interpolation or a missing value.

    Args:
        path: where `value` is stored, for the error.
        value: plain data.
        key: of `value` in the file.

    Raises:
        UserError: names the file and the key.
    """
    if isinstance(value, str) and is_unresolved(value):
        raise UserError(
            f"{path}: {key or 'its text'} is {value:.200}, and what is stored is not resolved again; write the value itself"
        )
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        pairs = value.items()
        for name in value:
            require_resolved(path, name, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        pairs = enumerate(value)
    for name, entry in pairs:
        require_resolved(path, entry, f"{key}.{name}" if key else str(name))


def is_unresolved(text: str) -> bool:
    """Whether OmegaConf takes a text for something else than itself."""
    return "${" in text or text == "???"


def _require_tree(text: str) -> None:
    """Refuses aliases, with which a small file holds any number of values, and levels that end the reader's stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"line {event.start_mark.line + 1}: *{event.anchor} is an alias; write the value itself")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"more than {_DEEPEST} levels")


def require_plain_overrides(path: Path, overrides: Sequence[str]) -> None:
    """Refuses stored overrides that would do more than set plain values and choose from groups.

    Raises:
        UserError: names the file and the override.
    """
    loader = GlobalHydra.instance().config_loader()
    for text in overrides:
        try:
            (override,) = OverridesParser.create().parse_overrides([text])
        except HydraException as error:
            raise UserError(f"{path}: {text} cannot be read ({' '.join(str(error).split())})") from error
        key, value = override.key_or_group, override.value()
        # The parser takes backslashes away: $\{a} is an interpolation too.
        require_resolved(path, text, key)
        require_resolved(path, value if isinstance(value, dict | list) else str(value), key)
        if key.partition("/")[0].partition(".")[0] == "hydra":
            raise UserError(f"{path}: {text} is a setting of Hydra's, and only what is typed may change these")
        if override.is_sweep_override():
            raise UserError(f"{path}: {text} is several values")
        chosen = value if isinstance(value, list) else [value]
        if loader.get_group_options(key) and any(".." in str(choice).split("/") for choice in chosen):
            raise UserError(f"{path}: {text} is no choice of {key}, but a file elsewhere")


def plain_overrides(overrides: Sequence[str], config: DictConfig) -> list[str]:
    """Overrides with the values that their interpolations had: `lr='${base}'` becomes lr=0.1.

    What is stored is not resolved again, so it has to be stored like this.

    Args:
        overrides: as typed, without sweeps.
        config: composed of them, with Hydra's node.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [_settled(override, config) for override in parsed]


def _settled(override: Override, config: DictConfig) -> str:
    """The override as typed; where it holds an interpolation, with the value that `config` has for it."""
    if not is_unresolved(str(override.input_line)) and not is_unresolved(str(override.value())):
        return str(override.input_line)
    key = override.get_key_element()
    if override.is_delete():
        return key
    choices = config.hydra.runtime.choices
    if override.key_or_group in choices:
        return quoted(key, choices[override.key_or_group])
    node = OmegaConf.select(config, override.key_or_group)
    return quoted(key, OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node)


def store_plain(directory: Path, config: DictConfig) -> list[str]:
    """The overrides of a run that begins, with plain values: those that Hydra has stored become these.

    Args:
        directory: of the run.
        config: the run's, with Hydra's node.
    """
    typed = typed_overrides(config)
    plain, stored = plain_overrides(typed, config), directory / ".hydra/overrides.yaml"
    if plain != typed and stored.is_file() and int(os.environ.get("LOCAL_RANK", 0)) == 0:
        write_text(stored, yaml.safe_dump(plain, allow_unicode=True))
    return plain


def typed_overrides(config: DictConfig) -> list[str]:
    """The overrides that a configuration was composed of, with interpolations as they were typed; it has Hydra's node."""
    # Read one by one, OmegaConf would resolve them.
    typed = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    assert isinstance(typed, list)
    return [str(override) for override in typed]
