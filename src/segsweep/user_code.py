"""Files of a user's own: nets, sources, losses and whatever else a configuration may name.

What is in such a file runs when its user names the file, `code=mine.py` or `load_code("mine.py")`, and never because a
checkpoint or a run directory names it.
"""

import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from segsweep import callbacks, data, nets, tasks
from segsweep.data import SOURCES, Source
from segsweep.errors import UserError
from segsweep.nets import NETS
from segsweep.tasks import LOSSES, Loss

_OWN_MODULES: tuple[ModuleType, ...] = (data, nets, tasks, callbacks)
"""Where segsweep's own targets are: the classes in their `__all__`."""

_loaded: dict[str, Path] = {}
"""Files that were run, by the name of their module."""


def load_code(paths: str | Path | Sequence[str | Path] | None) -> None:
    """Runs a Python file, or several, so that their classes can be named as `<file's stem>.<class>`.

    Nets, sources and losses defined there are then known to checkpoints too. A file that was run before is not run again.

    Args:
        paths: relative ones from the working directory. None is none.

    Raises:
        UserError: a file cannot be run, its name is no module's, or another module has that name.
    """
    given = [paths] if isinstance(paths, str | Path) else [] if paths is None else paths
    if not isinstance(given, Sequence) or not all(isinstance(path, str | Path) for path in given):
        raise UserError(f"code={given}: must be a Python file, or a list of them")
    for path in given:
        _load(Path(path))


def _load(path: Path) -> None:
    name, file = path.stem, path.expanduser().resolve()
    if _loaded.get(name) == file:
        return
    if not file.is_file():
        raise UserError(f"code={path}: no such file")
    if file.suffix != ".py" or not name.isidentifier():
        raise UserError(f"code={path}: must be a Python file whose name could be a variable's, as in mine.py")
    if name in _loaded or name in sys.modules or name == "segsweep" or name in sys.stdlib_module_names:
        there = _loaded.get(name) or getattr(sys.modules.get(name), "__file__", None) or "Python's own"
        if not isinstance(there, str) or Path(there).resolve() != file:
            raise UserError(f"code={path}: there is a module {name} already ({there}); give the file another name")
        module = sys.modules[name]  # imported as usual, by a notebook that lies beside it
    else:
        module = _run(name, file, path)
    _loaded[name] = file
    for key, value in vars(module).items():
        if not isinstance(value, type) or value.__module__ != name:
            continue
        if issubclass(value, Source):
            SOURCES[f"{name}.{key}"] = value
        elif issubclass(value, Loss):
            LOSSES[f"{name}.{key}"] = value
        elif issubclass(value, nn.Module):
            NETS[f"{name}.{key}"] = value


def _run(name: str, file: Path, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # Behind everything else, so that a file of the user's hides no library: what lies beside it can be imported.
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        line = _line_of(error, file)
        raise UserError(f"code={path}: {line}{type(error).__name__}: {' '.join(str(error).split())}") from error
    return module


def _line_of(error: BaseException, file: Path) -> str:
    """Where in `file` an error arose: "line 3: "."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: "
    line, frame = None, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == str(file):
            line = frame.tb_lineno
        frame = frame.tb_next
    return f"line {line}: " if line is not None else ""


def is_known(target: str) -> bool:
    """Whether a target is one of segsweep's own classes, or in a file that the user named."""
    module, _, name = target.rpartition(".")
    if module in _loaded or target in (*NETS, *SOURCES, *LOSSES, "segsweep.trainer_settings.TrainerSettings"):
        return True
    return any(
        module == own.__name__ and name in own.__all__ and isinstance(getattr(own, name), type) for own in _OWN_MODULES
    )


def targets(settings: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every `_target_` in a configuration of plain data, with its key: ("model._target_", "segsweep.nets.UNet")."""
    for key, value in settings.items():
        if key == "_target_" and isinstance(value, str):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from targets(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield from targets(dict(enumerate(value)), f"{prefix}{key}.")
