"""A run, read back from its directory or from a checkpoint alone.

A checkpoint may come from a stranger: it is read as plain data, and the only classes it can ask for are the registered
nets, by look-up in a table. What it says is checked before memory is taken for it (docs/safety.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from segsweep.classes import ClassTable
from segsweep.errors import UserError
from segsweep.nets import NETS, TextureCNN, load_published
from segsweep.nets.registry import build_net_for, load_state, misfit
from segsweep.plots import curves
from segsweep.runs.checkpoint import read_checkpoint, require_plain, require_tensors
from segsweep.runs.directory import RunDirectory, RunRecord
from segsweep.runs.metrics_csv import read_metrics
from segsweep.tasks import TASKS, SegmentationTask, TaskKind

Content = TypeVar("Content")

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
    labels: ClassTable
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
        """metrics.csv: a row per logged step.

        Raises:
            UserError: there is none beside the checkpoint, or it is damaged.
        """
        return self._beside(read_metrics, RunDirectory(self.directory).metrics)

    @cached_property
    def summary(self) -> RunRecord:
        """run.json.

        Raises:
            UserError: there is none beside the checkpoint, or it is damaged.
        """
        return self._beside(RunRecord.read, RunDirectory(self.directory).record)

    def _beside(self, read: Callable[[Path], Content], path: Path) -> Content:
        try:
            return read(path)
        except FileNotFoundError as error:
            raise UserError(
                f"{path}: there is no such file; {self.checkpoint} has no run directory around it, so load it from there"
            ) from error
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error

    def curves(self) -> Figure:
        """The loss and the metric of the objective against steps, in training and in validation.

        Raises:
            UserError: as `history`, or neither was logged.
        """
        objective = str(self.config.get("objective", "val/iou")).partition("/")[2]
        logged = {}
        for split in ("train", "val"):
            names = {column: str(column).removeprefix(f"{split}/") for column in self.history}
            logged[split] = self.history.rename(columns=names)
        metrics = [
            name for name in dict.fromkeys(["loss", objective]) if any(name in table for table in logged.values())
        ]
        if not metrics:
            raise UserError(f"{self.directory}: there is nothing to draw, for neither loss nor {objective} was logged")
        return curves(logged, metrics, title=f"training and validation; the checkpoint is of step {self.step:,}")

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

    @torch.inference_mode()
    def activations(self, image: ArrayLike | Tensor, layer: str) -> NDArray[np.float32]:
        """What one layer of the net answers to one image, for `plots.feature_maps`.

        Args:
            image: as `probabilities` takes it.
            layer: its name, as `net.named_modules()` gives it. One that answers several times counts with its last answer.

        Returns:
            float32 [channels, height, width].

        Raises:
            ValueError: as `probabilities`; there is no such layer, or it gives no maps.
        """
        layers = dict(self.net.named_modules())
        if layer not in layers:
            names = ", ".join(name for name, module in layers.items() if isinstance(module, nn.Conv2d))
            raise ValueError(f"the net has no layer {layer!r}; its convolutions are {names}.")
        answers: list[Any] = []
        hook = layers[layer].register_forward_hook(lambda _module, _inputs, output: answers.append(output))
        try:
            self.net(self._image(image))
        finally:
            hook.remove()
        if not answers or not isinstance(answers[-1], Tensor) or answers[-1].ndim != 4:
            raise ValueError(f"layer {layer!r} gives no maps [1, channels, height, width] for an image.")
        return answers[-1][0].float().cpu().numpy()

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

    No code that came with the file runs, and no more memory is taken than the file is large plus 256 MiB.

    Raises:
        UserError: there is nothing there, or it is no checkpoint of this project; says what is wrong.
    """
    checkpoint = Path(path)
    if checkpoint.is_dir():
        run = RunDirectory(checkpoint)
        checkpoint = run.best
        if not run.best.exists() and run.last.exists():
            raise UserError(f"{path}: has no best.ckpt, for it was never validated; give {run.last} itself")
    if not checkpoint.exists():
        raise UserError(
            f"{path}: no checkpoint there; give a run directory with checkpoints/best.ckpt, or a .ckpt file"
        )
    content = read_checkpoint(checkpoint)
    own = content.get("segsweep")
    if not isinstance(own, dict) or "state_dict" not in content:
        raise UserError(f"{checkpoint}: not a checkpoint of segsweep; {_instead(content)}")
    form = own.get("format")
    if type(form) is not int or form != FORMAT:
        if type(form) is int and FORMAT < form < 1 << 31:
            raise UserError(
                f"{checkpoint}: written in format {form} by a newer segsweep, and this version reads {FORMAT}; update it"
            )
        raise UserError(
            f"{checkpoint}: written in a format that this version cannot read, which is {FORMAT}; train it anew"
        )
    try:
        require_plain(own)
        labels, kind, channels = ClassTable.from_dict(own["labels"]), own["kind"], own["channels"]
        node = dict(own["config"]["model"])
        target = node.pop("_target_")
        task = TASKS[kind]
        weights = {
            key.removeprefix("net."): value
            for key, value in require_tensors(content["state_dict"]).items()
            if key.startswith("net.")
        }
        step = content.get("global_step", 0)
        if type(step) is not int or not 0 <= step < 1 << 63:
            raise ValueError("global_step is no number of steps")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{checkpoint}: damaged, or not written by segsweep ({reason})") from error
    if not isinstance(target, str) or target not in NETS:
        raise UserError(
            f"{checkpoint}: its net {target!s:.200} is none of segsweep's own, and nobody's code is run unasked; "
            "where it is yours, name the file it is in: code=FILE, or segsweep.load_code(FILE)"
        )
    arguments = node | {"in_channels": channels, "out_channels": task.out_channels(labels)}
    try:
        net = build_net_for(target, arguments, weights, checkpoint.stat().st_size)
    except UserError as error:
        raise UserError(f"{checkpoint}: {error}") from error
    return Run(checkpoint, own["config"], labels, kind, channels, step, net.eval())


def load_weights(path: str | Path, net: nn.Module) -> bool:
    """Loads a file that `torch.save(module.state_dict(), path)` wrote into a net of the same layers.

    This is how weights of the published modules are used, whose names and shapes `TextureCNN` and `UNet` have:

        net = segsweep.nets.TextureCNN()
        segsweep.load_weights("best_model.pt", net)

    The file is read like a checkpoint from a stranger. Names, shapes and types must be the net's, all of them.

    Returns:
        Whether batch-norm statistics have to be estimated before the net is of use in eval mode, which is so for the
        published CNN; a UserWarning says so too. See `segsweep.nets.load_published`.

    Raises:
        UserError: there is no such file, it is no such state dict, or it is not this net's; names the file.
    """
    path = Path(path)
    content = read_checkpoint(path)
    if "segsweep" in content or "state_dict" in content:
        raise UserError(f"{path}: is a whole checkpoint and no plain state dict; read it with segsweep.load_run")
    try:
        weights = require_tensors(content)
    except ValueError as error:
        raise UserError(f"{path}: not a state dict; it holds {error}") from error
    try:
        if isinstance(net, TextureCNN) and misfit(net.state_dict(), weights) is None:
            return load_published(net, weights)
        load_state(net, weights)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return False


def _instead(content: dict[Any, Any]) -> str:
    """What a file holds that is no checkpoint of ours, and what to do with it."""
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return "it is a plain state dict: load it into a net with segsweep.load_weights(path, net)"
    keys = ", ".join(f"{key!s:.50}" for key in list(content)[:5])
    return f"it holds {keys or 'nothing'}; give a checkpoint that segsweep wrote"
