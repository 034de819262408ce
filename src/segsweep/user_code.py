"""The user's own Python files, with nets, sources, losses and other classes for the configuration.

A file runs only if the user names it, with `code=mine.py` or `load_code("mine.py")`. A checkpoint or a run directory that
names it never runs it.
"""

import importlib.util
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from segsweep import callbacks, data, nets, tasks
from segsweep.data import SOURCES, Source
from segsweep.errors import UserError, one_line
from segsweep.nets import NETS
from segsweep.tasks import LOSSES, Loss

_OWN_MODULES: tuple[ModuleType, ...] = (data, nets, tasks, callbacks)
"""Modules of segsweep's own targets: the classes in their `__all__`."""

_loaded: dict[str, Path] = {}
"""Files that have been run, by module name."""


def load_code(paths: str | Path | Sequence[str | Path] | None) -> None:
    """Runs Python files, so that a configuration can name their classes as `<file's stem>.<class>`.

    Also registers the nets, sources and losses that they define, for checkpoints. A file runs only once in a process.

    Args:
        paths: one file or several, relative to the working directory; None does nothing.

    Raises:
        UserError: a file cannot be run, its name cannot be a module's, or another module has its name.
    """
    given = [paths] if isinstance(paths, str | Path) else [] if paths is None else paths
    if not isinstance(given, Sequence) or not all(isinstance(path, str | Path) for path in given):
        raise UserError(f"code={given}: must be a Python file, or a list of Python files")
    for path in map(Path, given):
        name, file = path.stem, path.expanduser().resolve()
        if _loaded.get(name) == file:
            continue
        module = _import(path, name, file)
        _loaded[name] = file
        for key, value in vars(module).items():
            if not isinstance(value, type) or value.__module__ != name:  # imported by the file, not defined in it
                continue
            if issubclass(value, Source):
                SOURCES[f"{name}.{key}"] = value
            elif issubclass(value, Loss):
                LOSSES[f"{name}.{key}"] = value
            elif issubclass(value, nn.Module):
                NETS[f"{name}.{key}"] = value


def _import(path: Path, name: str, file: Path) -> ModuleType:
    """Imports `file` as module `name`; errors show `path`, as typed."""
    if not file.is_file():
        raise UserError(f"code={path}: no such file")
    if file.suffix != ".py" or not name.isidentifier():
        raise UserError(f"code={path}: must be a .py file with the name of a Python module, as in mine.py")
    if name in _loaded or name in sys.modules or name == "segsweep" or name in sys.stdlib_module_names:
        there = _loaded.get(name) or getattr(sys.modules.get(name), "__file__", None) or "Python's own"
        if not isinstance(there, str) or Path(there).resolve() != file:
            raise UserError(f"code={path}: there is a module {name} already ({there}); give the file another name")
        return sys.modules[name]  # a notebook next to the file has imported it
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # The file can import its neighbours. Last on the path, they cannot hide a library.
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        line = error.lineno if isinstance(error, SyntaxError) else None
        for frame, number in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename == str(file):
                line = number
        where = "" if line is None else f"line {line}: "
        raise UserError(f"code={path}: {where}{type(error).__name__}: {one_line(error)}") from error
    return module


def is_known(target: str) -> bool:
    """Whether a target is a class of segsweep, or in a file that the user named."""
    module, _, name = target.rpartition(".")
    if module in _loaded or target in (*NETS, *SOURCES, *LOSSES, "segsweep.trainer_settings.TrainerSettings"):
        return True
    return any(
        module == own.__name__ and name in own.__all__ and isinstance(getattr(own, name), type) for own in _OWN_MODULES
    )


def targets(settings: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields the key and value of every `_target_` in plain data: ("model._target_", "segsweep.nets.UNet")."""
    for key, value in settings.items():
        if key == "_target_" and isinstance(value, str):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from targets(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield from targets(dict(enumerate(value)), f"{prefix}{key}.")
