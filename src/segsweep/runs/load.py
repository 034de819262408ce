"""A run, read back from its directory or from a checkpoint alone.

A checkpoint may come from a stranger: it is read as plain data, and the only classes it can ask for are the registered
nets, by look-up in a table.
"""

import pickle
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from segsweep.errors import UserError
from segsweep.labels import Labels
from segsweep.nets import NETS, build_net
from segsweep.runs.directory import RunDirectory
from segsweep.runs.metrics_csv import read_metrics
from segsweep.runs.record import RunRecord
from segsweep.tasks import TASKS, SegmentationTask, TaskKind

FORMAT = 1
"""Of the `segsweep` entry in a checkpoint that this version writes, and the newest it reads."""


@dataclass(frozen=True)
class Run:
    """A trained run.

    Shapes: C image channels, H x W pixels, K classes.
    """

    checkpoint: Path
    config: dict[str, Any]
    """The configuration it was trained with, resolved, as plain data."""
    labels: Labels
    kind: TaskKind
    channels: int
    """C."""
    step: int
    """Optimizer steps behind the weights."""
    net: nn.Module
    """With the checkpoint's weights, in eval mode, on the CPU; gives logits."""

    @property
    def directory(self) -> Path:
        """The run directory; for a checkpoint that was moved elsewhere, wherever that would be."""
        return self.checkpoint.parent.parent

    @cached_property
    def history(self) -> pd.DataFrame:
        """metrics.csv: a row per logged step."""
        return read_metrics(RunDirectory(self.directory).metrics)

    @cached_property
    def summary(self) -> RunRecord:
        """run.json."""
        return RunRecord.read(RunDirectory(self.directory).record)

    @property
    def task(self) -> type[SegmentationTask]:
        """What reads the net's logits."""
        return TASKS[self.kind]

    @torch.inference_mode()
    def probabilities(self, image: ArrayLike | Tensor) -> NDArray[np.float32]:
        """Class probabilities float32 [K, H, W] of one image: [C, H, W], or [H, W] where C is 1; uint8, or float in [0, 1].

        Raises:
            ValueError: another shape, or values outside the range.
        """
        logits = self.net(self._image(image))
        return self.task.probabilities(logits)[0].cpu().numpy()

    @torch.inference_mode()
    def predict(self, image: ArrayLike | Tensor) -> NDArray[np.uint8]:
        """Class positions uint8 [H, W] of one image, as `probabilities` takes it."""
        return self.task.predict(self.net(self._image(image)))[0].to(torch.uint8).cpu().numpy()

    def _image(self, image: ArrayLike | Tensor) -> Tensor:
        array = image if isinstance(image, Tensor) else torch.from_numpy(np.ascontiguousarray(image))
        if array.dtype == torch.uint8:
            array = array.float() / 255
        array = array[None] if array.ndim == 2 else array
        if array.ndim != 3 or len(array) != self.channels:
            raise ValueError(f"image has shape {list(array.shape)}: give [{self.channels}, height, width]")
        if not (array.numel() and float(array.min()) >= 0 and float(array.max()) <= 1):
            raise ValueError("image has values outside [0, 1]: give uint8, or floats in [0, 1]")
        return array.float()[None].to(next(self.net.parameters()).device)


def load_run(path: str | Path) -> Run:
    """A run from its directory (its best checkpoint) or from one checkpoint file.

    Raises:
        UserError: there is nothing there, or it is no checkpoint of this project; says what is wrong.
    """
    checkpoint = Path(path)
    if checkpoint.is_dir():
        run = RunDirectory(checkpoint)
        checkpoint = run.best
        if not run.best.exists() and run.last.exists():
            raise UserError(f"{path}: has no best.ckpt, for it was never validated; give {run.last} itself")
    if not checkpoint.is_file():
        raise UserError(
            f"{path}: no checkpoint there; give a run directory with checkpoints/best.ckpt, or a .ckpt file"
        )
    content = _read(checkpoint)
    own = content.get("segsweep")
    if not isinstance(own, dict) or "state_dict" not in content:
        raise UserError(
            f"{checkpoint}: not a checkpoint of segsweep; it holds {', '.join(map(str, list(content)[:5]))}"
        )
    if own.get("format") != FORMAT:
        raise UserError(f"{checkpoint}: written in format {own.get('format')}, and this version reads {FORMAT}")
    try:
        labels, kind, channels = Labels.from_dict(own["labels"]), own["kind"], own["channels"]
        node = dict(own["config"]["model"])
        target = node.pop("_target_")
        task = TASKS[kind]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{checkpoint}: damaged, or not written by segsweep ({error!r})") from error
    if target not in NETS:
        raise UserError(
            f"{checkpoint}: its net {target} is not registered here; import the file that registers it first"
        )
    net = build_net(target, node | {"in_channels": channels, "out_channels": task.out_channels(labels)})
    weights = {
        key.removeprefix("net."): value for key, value in content["state_dict"].items() if key.startswith("net.")
    }
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{checkpoint}: its weights do not fit its net: {' '.join(str(error).split())}") from error
    return Run(checkpoint, own["config"], labels, kind, channels, int(content.get("global_step", 0)), net.eval())


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever the unpickler makes of bytes that are no checkpoint
        reason = (
            "it holds more than plain data, or is damaged" if isinstance(error, pickle.UnpicklingError) else "damaged"
        )
        raise UserError(f"{path}: cannot be read as a checkpoint of plain data ({reason})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a checkpoint of segsweep; it holds a {type(content).__name__}")
    return content
