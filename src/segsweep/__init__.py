"""segsweep trains small image-segmentation networks and compares them honestly."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segsweep.runs.load import Run, load_run

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "load_run"]


def __getattr__(name: str) -> object:
    # Importing torch takes seconds: only who loads a run waits for it, not who asks for --help.
    if name in ("Run", "load_run"):
        from segsweep.runs import load

        return getattr(load, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
