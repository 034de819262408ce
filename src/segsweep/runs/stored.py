"""Reads the stored YAML and JSON of runs and sweeps. They are untrusted: plain values only, and limits on size and depth.

An interpolation could read the environment or make folders: `${oc.env:HOME}`, `${new_folder:/x}`.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from segsweep.console import quoted
from segsweep.errors import UserError, one_line
from segsweep.runs.checkpoint import require_plain
from segsweep.runs.files import is_first_process, read_text, write_text

LARGEST = 4 << 20
"""Largest YAML file that is read, in bytes; a stored configuration has some 3 KiB."""
LARGEST_JSON = 64 << 20
"""Largest JSON file that is read, in bytes; the sweep.json of ten thousand jobs has some 10 MiB."""
MOST_VALUES = 4_000_000
"""Most values in a JSON file."""
_DEEPEST = 50
_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_plain(path: Path) -> Any:
    """Reads a YAML file as `read_yaml`, and refuses interpolations.

    Raises:
        OSError: there is no such file, or it cannot be read.
        UserError: as `read_yaml`, or it has an interpolation; names the file and the key.
    """
    value = read_yaml(path)
    require_resolved(path, value)
    return value


def read_yaml(path: Path) -> Any:
    """Reads a YAML file of dicts, lists, strings, numbers, booleans and None, without aliases.

    Raises:
        OSError: there is no such file, or it cannot be read.
        UserError: it is damaged, or holds something else; names the file.
    """
    try:
        text = read_text(path, LARGEST)
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent):  # with aliases a small file holds any number of values
                line = event.start_mark.line + 1
                raise ValueError(f"line {line}: *{event.anchor} is an alias; write the value itself")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:  # more would overflow the stack of yaml.load
                raise ValueError(f"more than {_DEEPEST} levels")
        value = yaml.load(text, Loader=_Loader)
        require_plain(value, depth=_DEEPEST)
    except (ValueError, OverflowError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)})") from error
    return value


def read_json(path: Path) -> Any:
    """Reads a JSON file of a run or sweep.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is damaged or beyond the limits; the message does not name the file.
    """
    text = read_text(path, LARGEST_JSON)
    # Counted before anything is built: an empty list has two letters, and takes 56 bytes in memory.
    if sum(map(text.count, ",[{")) > MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES:,} values")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"more than {_DEEPEST} levels") from None
    require_plain(value, nodes=2 * MOST_VALUES, depth=_DEEPEST, characters=len(text))
    if re.search(r"\\u[dD][89a-fA-F]", text):  # half of a character, which no file and no terminal takes
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it holds text that is not Unicode") from None
    return value


def require_resolved(path: Path, value: Any, key: str = "") -> None:
    """Refuses text that OmegaConf reads as an interpolation or a missing value.

    Args:
        path: the file of `value`, for the error.
        value: plain data.
        key: the key of `value` in the file, for the error.

    Raises:
        UserError: names the file and the key.
    """
    if isinstance(value, str) and is_unresolved(value):
        raise UserError(
            f"{path}: {key or 'its text'} is {value:.200}, and stored text is not resolved; write the value itself"
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
    """Whether OmegaConf reads a text as an interpolation or a missing value."""
    return "${" in text or text == "???"


def require_plain_overrides(path: Path, overrides: Sequence[str]) -> None:
    """Refuses stored overrides that do more than set plain values and choose from groups.

    Raises:
        UserError: names the file and the override.
    """
    loader = GlobalHydra.instance().config_loader()
    for text in overrides:
        try:
            (override,) = OverridesParser.create().parse_overrides([text])
        except HydraException as error:
            raise UserError(f"{path}: {text} cannot be read ({one_line(error)})") from error
        key, value = override.key_or_group, override.value()
        # Both: the parser removes backslashes, so $\{a} is an interpolation too.
        require_resolved(path, text, key)
        require_resolved(path, value if isinstance(value, dict | list) else str(value), key)
        if key.partition("/")[0].partition(".")[0] == "hydra":
            raise UserError(f"{path}: {text} changes a setting of Hydra; only the command line may do that")
        if override.is_sweep_override():
            raise UserError(f"{path}: {text} gives several values")
        chosen = value if isinstance(value, list) else [value]
        if loader.get_group_options(key) and any(".." in str(choice).split("/") for choice in chosen):
            raise UserError(f"{path}: {text} names a file outside of the group {key}")


def plain_overrides(overrides: Sequence[str], config: DictConfig) -> list[str]:
    """Overrides to store, with interpolations replaced by their values: `lr='${base}'` becomes lr=0.1.

    Args:
        overrides: as typed, without sweeps.
        config: composed from them, with Hydra's node.
    """
    plain: list[str] = []
    choices = config.hydra.runtime.choices
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        typed, key, group = str(override.input_line), override.get_key_element(), override.key_or_group
        if not is_unresolved(typed) and not is_unresolved(str(override.value())):
            plain.append(typed)
        elif override.is_delete():
            plain.append(key)
        elif group in choices:
            plain.append(quoted(key, choices[group]))
        else:
            node = OmegaConf.select(config, group)
            plain.append(quoted(key, OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node))
    return plain


def store_plain(directory: Path, config: DictConfig) -> list[str]:
    """Replaces interpolations in .hydra/overrides.yaml of a new run by their values; returns the overrides.

    Args:
        directory: the run directory.
        config: the run's configuration, with Hydra's node.
    """
    typed = typed_overrides(config)
    plain, stored = plain_overrides(typed, config), directory / ".hydra/overrides.yaml"
    if plain != typed and stored.is_file() and is_first_process():
        write_text(stored, yaml.safe_dump(plain, allow_unicode=True))
    return plain


def typed_overrides(config: DictConfig) -> list[str]:
    """The overrides of a configuration with Hydra's node, with interpolations as typed."""
    # Reading the entries of the list would resolve them.
    typed = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    assert isinstance(typed, list)
    return [str(override) for override in typed]
