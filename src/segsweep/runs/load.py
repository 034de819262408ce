"""Loads a run from its directory or from a checkpoint alone.

A checkpoint is untrusted: it is read as plain data, and the classes that it names are looked up in tables, never imported.
Sizes are checked before memory is allocated for them (docs/safety.md).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from segsweep.errors import UserError
from segsweep.nets import NETS, TextureCNN, UNet, load_published
from segsweep.nets.registry import build_net_for, load_state, misfit
from segsweep.runs.checkpoint import read_checkpoint, require_finite, require_tensors
from segsweep.runs.directory import RunDirectory, RunRecord
from segsweep.runs.image_input import ImageInput, image_tensor
from segsweep.runs.metrics_csv import read_metrics
from segsweep.runs.run_card import run_card, run_curves
from segsweep.runs.run_checkpoint import RunContent, checkpoint_of, read_stored, registered
from segsweep.tasks import TASKS, SegmentationTask

if TYPE_CHECKING:
    import pandas as pd

Content = TypeVar("Content")


@dataclass(frozen=True, repr=False)
class Run(RunContent):
    """A trained run: what its checkpoint holds, as in `RunContent`, and its net.

    Shapes: C image channels, H x W pixels, K classes.

    Args:
        net: with the weights of the checkpoint, in eval mode, on the CPU; gives logits.
    """

    net: nn.Module

    @property
    def directory(self) -> Path:
        """The run directory, if the checkpoint is still in it."""
        return self.checkpoint.parent.parent

    def settings(self, group: str) -> dict[str, Any]:
        """A copy of a group of the configuration: "data", "loss", "trainer", ...

        Raises:
            UserError: the checkpoint has no such group.
        """
        node = self.config.get(group)
        if not isinstance(node, dict):
            raise UserError(f"{self.checkpoint}: damaged, or not written by segsweep (it has no settings for {group})")
        return dict(node)

    @cached_property
    def history(self) -> "pd.DataFrame":
        """metrics.csv: a row per logged step.

        Raises:
            UserError: the file is not in the run directory, or is damaged.
        """
        return self._read(read_metrics, RunDirectory(self.directory).metrics)

    @cached_property
    def summary(self) -> RunRecord:
        """run.json.

        Raises:
            UserError: the file is not in the run directory, or is damaged.
        """
        return self._read(RunRecord.read, RunDirectory(self.directory).record)

    def _read(self, read: Callable[[Path], Content], path: Path) -> Content:
        try:
            return read(path)
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file; load {self.checkpoint} from its run directory") from error
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error

    def curves(self) -> Figure:
        """The loss and the objective's metric against steps, in training and in validation.

        Raises:
            UserError: as `history`, or neither was logged.
        """
        objective = str(self.config.get("objective", "val/iou"))
        figure = run_curves(
            self.history, objective, f"training and validation; the checkpoint is of step {self.step:,}"
        )
        if figure is None:
            raise UserError(f"{self.directory}: nothing to draw, neither loss nor {objective} was logged")
        return figure

    @property
    def task(self) -> type[SegmentationTask]:
        """The class of the task that reads the net's logits."""
        return TASKS[self.kind]

    @torch.inference_mode()
    def probabilities(self, image: ImageInput) -> NDArray[np.float32]:
        """Class probabilities float32 [K, H, W] of one image.

        Args:
            image: a file, or an image opened with Pillow, read as the training read its own; or an array or tensor
                [C, H, W], or [H, W] where C is 1, of uint8 or of floats in [0, 1]. The net takes it whole;
                `segsweep.prediction.predict` cuts large ones into tiles.

        Those of the ignored classes of a binary run are 0.

        Raises:
            UserError: the file cannot be read.
            ValueError: an array of another shape, or with values outside the range.
        """
        found = self.task.probabilities(self.net(self._image(image)))[0].cpu().numpy()
        return np.pad(found, ((0, len(self.labels) - len(found)), (0, 0), (0, 0)))

    @torch.inference_mode()
    def predict(self, image: ImageInput) -> NDArray[np.uint8]:
        """Class positions uint8 [H, W] of one image, as `probabilities` takes it."""
        return self.task.predict(self.net(self._image(image)))[0].to(torch.uint8).cpu().numpy()

    @torch.inference_mode()
    def activations(self, image: ImageInput, layer: str) -> NDArray[np.float32]:
        """The output of one layer of the net for one image, for `plots.feature_maps`.

        Args:
            image: as `probabilities` takes it.
            layer: its name in `net.named_modules()`. If the net calls it several times, the last output counts.

        Returns:
            float32 [channels, height, width].

        Raises:
            ValueError: as `probabilities`; there is no such layer, or its output is not [1, channels, height, width].
        """
        layers = dict(self.net.named_modules())
        if layer not in layers:
            names = ", ".join(name for name, module in layers.items() if isinstance(module, nn.Conv2d))
            raise ValueError(f"the net has no layer {layer!r}; its convolutions are {names}.")
        outputs: list[Any] = []
        hook = layers[layer].register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        try:
            self.net(self._image(image))
        finally:
            hook.remove()
        if not outputs or not isinstance(outputs[-1], Tensor) or outputs[-1].ndim != 4:
            way_out = " With run.net.head = 'plain' it does." if isinstance(self.net, UNet) else ""
            raise ValueError(f"layer {layer!r} gives no maps [1, channels, height, width].{way_out}")
        return outputs[-1][0].float().cpu().numpy()

    def _image(self, image: ImageInput) -> Tensor:
        """An image as the net takes it: float32 [1, C, H, W] on the net's device."""
        data = self.config.get("data")
        node = data if isinstance(data, dict) else {}
        return image_tensor(image, node, self.channels).to(next(self.net.parameters()).device)

    def __repr__(self) -> str:
        return run_card(self).text()

    def _repr_html_(self) -> str:
        """The card that Jupyter shows: predictions, or curves if there are none."""
        samples = RunDirectory(self.directory).samples
        if samples.is_file():
            return run_card(self).html(samples)
        try:
            return run_card(self).html(self.curves())
        except ValueError:  # no metrics.csv beside the checkpoint, or nothing to draw in it
            return run_card(self).html()


def load_run(path: str | Path) -> Run:
    """Loads a run from its directory (the best checkpoint) or from one checkpoint file.

    No code in the file runs, and it takes no more memory than its size plus 256 MiB.

    Raises:
        UserError: there is no checkpoint, or it is damaged or not one of segsweep.
    """
    stored = read_stored(checkpoint_of(path))
    checkpoint, node = stored.checkpoint, dict(stored.config["model"])
    target = node.pop("_target_")
    registered(NETS, target, "net", checkpoint)  # refuses other nets
    out_channels = TASKS[stored.kind].out_channels(stored.labels)
    arguments = node | {"in_channels": stored.channels, "out_channels": out_channels}
    try:
        net = build_net_for(target, arguments, stored.weights, checkpoint.stat().st_size)
        require_finite(dict(net.named_parameters()))
    except ValueError as error:
        raise UserError(f"{checkpoint}: {error}") from error
    content = {entry.name: getattr(stored, entry.name) for entry in fields(RunContent)}
    return Run(**content, net=net.eval())


def load_weights(path: str | Path, net: nn.Module) -> bool:
    """Loads a file that `torch.save(module.state_dict(), path)` wrote into a net of the same layers.

    `TextureCNN` and `UNet` have the names and shapes of the published modules, so published weights load like this:

        net = segsweep.nets.TextureCNN()
        segsweep.load_weights("best_model.pt", net)

    The file is untrusted, like a checkpoint. All names, shapes and types must be the net's.

    Returns:
        Whether batch-norm statistics must be estimated before the net is of use in eval mode. The published CNN needs that;
        a UserWarning says so too. See `segsweep.nets.load_published`.

    Raises:
        UserError: there is no such file, or it is not a state dict of this net.
    """
    path = Path(path)
    content = read_checkpoint(path)
    if "segsweep" in content or "state_dict" in content:
        raise UserError(f"{path}: is a whole checkpoint, not a plain state dict; read it with segsweep.load_run")
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
