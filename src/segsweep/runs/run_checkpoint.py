"""Reads a checkpoint of a run without building its net.

A checkpoint is untrusted: it is read as plain data, and the classes that it names are looked up in tables, never imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from segsweep.classes import ClassTable
from segsweep.errors import UserError
from segsweep.instantiate import check_arguments, naming_keys
from segsweep.runs.checkpoint import read_checkpoint, require_plain, require_tensors
from segsweep.runs.directory import RunDirectory
from segsweep.tasks import TASKS, TaskKind

Content = TypeVar("Content")

FORMAT = 1
"""Format of the `segsweep` entry in a checkpoint: what this version writes, and the newest that it reads."""


def checkpoint_of(path: str | Path) -> Path:
    """The checkpoint file that a run directory (its best.ckpt) or a .ckpt file stands for.

    Raises:
        UserError: there is none.
    """
    checkpoint = Path(path)
    if checkpoint.is_dir():
        run = RunDirectory(checkpoint)
        checkpoint = run.best
        if not run.best.exists() and run.last.exists():
            raise UserError(f"{path}: has no best.ckpt, since it was never validated; give {run.last}")
    if not checkpoint.exists():
        raise UserError(
            f"{path}: no checkpoint there; give a run directory with checkpoints/best.ckpt, or a .ckpt file"
        )
    return checkpoint


@dataclass(frozen=True)
class RunContent:
    """What a checkpoint holds of a run, without the weights.

    Args:
        checkpoint: the file.
        config: the resolved configuration of the training, as plain data.
        labels: the class table.
        kind: "binary" or "multiclass".
        channels: number of image channels, C.
        step: optimizer steps that the weights were trained for.
    """

    checkpoint: Path
    config: dict[str, Any]
    labels: ClassTable
    kind: TaskKind
    channels: int
    step: int


@dataclass(frozen=True)
class StoredRun(RunContent):
    """All that a checkpoint holds of a run."""

    weights: dict[str, Tensor]
    """By name in the net; mapped from the file. The shapes are untrusted: a view of a single number can have any."""


def read_stored(checkpoint: Path) -> StoredRun:
    """Reads a checkpoint without building its net.

    Raises:
        UserError: it is damaged, or not one of segsweep.
    """
    content = read_run_checkpoint(checkpoint)
    own = content["segsweep"]
    try:
        require_plain(own)
        labels, kind, channels = ClassTable.from_dict(own["labels"]), own["kind"], own["channels"]
        _ = TASKS[kind], own["config"]["model"]["_target_"]
        weights = {
            key.removeprefix("net."): value
            for key, value in require_tensors(content["state_dict"]).items()
            if key.startswith("net.")
        }
        step = content.get("global_step", 0)
        if type(step) is not int or not 0 <= step < 1 << 63:
            raise ValueError("global_step is not a number of steps")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{checkpoint}: damaged, or not written by segsweep ({reason})") from error
    return StoredRun(checkpoint, own["config"], labels, kind, channels, step, weights)


def read_run_checkpoint(path: Path) -> dict[Any, Any]:
    """Reads a checkpoint with a `segsweep` entry, a dict of the format `FORMAT`, and a `state_dict`.

    Raises:
        UserError: as `read_checkpoint`, or it lacks these entries, or has another format.
    """
    content = read_checkpoint(path)
    own = content.get("segsweep")
    if not isinstance(own, dict) or "state_dict" not in content:
        found = "holds " + (", ".join(f"{key!s:.50}" for key in list(content)[:5]) or "nothing")
        instead = "give a checkpoint that segsweep wrote"
        if content and all(isinstance(value, Tensor) for value in content.values()):
            found, instead = "is a plain state dict", "load it into a net with segsweep.load_weights(path, net)"
        raise UserError(f"{path}: not a checkpoint of segsweep; it {found}; {instead}")
    form = own.get("format")
    if type(form) is not int or form != FORMAT:
        if type(form) is int and FORMAT < form < 1 << 31:
            raise UserError(f"{path}: format {form} of a newer segsweep, this version reads {FORMAT}; update segsweep")
        raise UserError(f"{path}: unknown format, this version reads {FORMAT}; train the run again")
    return content


def registered(table: Mapping[str, Content], target: Any, what: str, checkpoint: Path) -> Content:
    """The class that a checkpoint names as its `what`, looked up in `table`; nothing is imported.

    Raises:
        UserError: it is not in the table; says how to allow it.
    """
    if isinstance(target, str) and target in table:
        return table[target]
    raise UserError(
        f"{checkpoint}: its {what} {target!s:.200} is not part of segsweep; if it is yours, name its file:"
        " code=FILE, or segsweep.load_code(FILE)"
    )


def build_registered(table: Mapping[str, Any], node: Mapping[str, Any], what: str, checkpoint: Path) -> Any:
    """Builds the object that `node` describes, plain values of the group `what` in a checkpoint; see `registered`.

    Raises:
        UserError: the `_target_` is not in the table, or refuses an argument; names the key.
    """
    arguments = dict(node)
    built = registered(table, arguments.pop("_target_", None), what, checkpoint)
    with naming_keys(what):
        check_arguments(built, arguments)
        return built(**arguments)
