"""Configurations that a run or a sweep has stored: anybody's, so plain values in which nothing is resolved again.

What OmegaConf reads as an interpolation can read the environment and make folders: `${oc.env:HOME}`, `${new_folder:/x}`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from segsweep.errors import UserError
from segsweep.runs.checkpoint import require_plain
from segsweep.runs.files import read_text

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
