"""segsweep trains small image-segmentation networks and compares them honestly."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segsweep.runs.load import Run, load_run, load_weights
    from segsweep.sweeps.load import Sweep, load_sweep
    from segsweep.user_code import load_code

__version__ = "0.1.0"
__all__ = ["Run", "Sweep", "__version__", "load_code", "load_run", "load_sweep", "load_weights"]

_HOMES = {
    "load_code": "segsweep.user_code",
    "Run": "segsweep.runs.load", "load_run": "segsweep.runs.load", "load_weights": "segsweep.runs.load",
    "Sweep": "segsweep.sweeps.load", "load_sweep": "segsweep.sweeps.load",
}  # fmt: skip
_MODULES = (
    "data", "datamodule", "evaluation", "evaluation_data", "exporting", "nets", "plots", "prediction", "sweeps",
)  # fmt: skip
"""Modules for use from Python (docs/api.md)."""


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])  # for tab completion; the others are imported when they are first used


def __getattr__(name: str) -> object:
    # Importing torch takes seconds; --help and a mistyped key need not wait for it.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
