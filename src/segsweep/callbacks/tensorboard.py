"""Pictures for TensorBoard: fixed samples as the net sees them now, and the net's graph.

Shapes: N samples, C channels, H x W pixels.
"""

import warnings
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from torch import Tensor

from segsweep.classes import IGNORE
from segsweep.data import Batch
from segsweep.data.seeds import Split
from segsweep.datamodule import SegmentationDataModule
from segsweep.instantiate import AtLeast1, checked
from segsweep.plots import ERROR_COLORS, class_colors, colorize, confusion, drawn_channels, error_map, overlay, to_image
from segsweep.tasks import SegmentationTask, Stage


def writers(trainer: L.Trainer) -> list[Any]:
    """The SummaryWriters of the run; none where nothing is written for TensorBoard."""
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


@checked
class SamplePanel(Callback):
    """After each validation, the same samples again: image, true mask, prediction, error and overlay, side by side.

    Args:
        samples: how many, from the beginning of the validation split.

    Raises:
        ValueError: `samples` is below 1.
    """

    def __init__(self, samples: AtLeast1 = 4) -> None:
        self.samples = samples
        self._batch: Batch | None = None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or not trainer.is_global_zero or not (found := writers(trainer)):
            return
        assert isinstance(pl_module, SegmentationTask)
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it, its class does not declare it
        assert isinstance(data, SegmentationDataModule)
        if self._batch is None:
            split: Split = "train" if data.overfit_samples else "val"
            size = data.overfit_samples or data.source.size("val")
            self._batch = data.first_batch(split, min(self.samples, size), pl_module.device)
        with trainer.precision_plugin.forward_context():
            prediction = pl_module.predict(pl_module(self._batch.image))
        labels = pl_module.labels
        for row in range(len(prediction)):
            panel = panel_row(
                self._batch.image[row], self._batch.mask[row], prediction[row], labels.colors, labels.background_index
            )
            for writer in found:
                tag = f"samples/{row}: image, mask, prediction, error, overlay"
                writer.add_image(tag, panel, trainer.global_step, dataformats="HWC")


class ConfusionPicture(Callback):
    """After each validation and test of more than two classes, the confusion matrix as a picture."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._write(trainer, pl_module, "val")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, pl_module, "test")

    @staticmethod
    def _write(trainer: L.Trainer, task: L.LightningModule, stage: Stage) -> None:
        assert isinstance(task, SegmentationTask)
        if task.kind == "binary" or not trainer.is_global_zero or not (found := writers(trainer)):
            return
        figure = confusion(task.confusions[stage].cpu().numpy(), task.labels.names, title=f"{stage}: true by predicted")
        pixels = to_image(figure)
        for writer in found:
            writer.add_image(f"confusion/{stage}", pixels, trainer.global_step, dataformats="HWC")


def panel_row(
    image: Tensor,
    mask: Tensor,
    prediction: Tensor,
    colors: NDArray[np.uint8] | None = None,
    background: int | None = None,
) -> NDArray[np.uint8]:
    """Image, true mask, prediction, error and the prediction laid over the image, in one row.

    Args:
        image: float [C, H, W] in [0, 1].
        mask: int [H, W], 255 ignored.
        prediction: int [H, W].
        colors: uint8 [K, 3]; by default a colour-blind-safe palette.
        background: the class that is clear in the overlay.

    Returns:
        uint8 [H, 5 W + gaps, 3].
    """
    picture = drawn_channels(image.detach().float().cpu().numpy())
    true, predicted = mask.cpu().numpy(), prediction.cpu().numpy()
    highest = int(max(true[true != IGNORE].max(initial=0), predicted.max()))
    palette = class_colors(highest + 1) if colors is None else colors
    pixels = np.broadcast_to(picture, (3, *picture.shape[1:])).transpose(1, 2, 0)
    tiles = [
        np.round(pixels * 255).astype(np.uint8),
        colorize(true, palette, IGNORE),
        colorize(predicted, palette, IGNORE),
        ERROR_COLORS[error_map(true, predicted)],
        np.round(overlay(picture, predicted, palette, background=background) * 255).astype(np.uint8),
    ]
    gap = np.full((len(pixels), max(2, pixels.shape[1] // 32), 3), 255, dtype=np.uint8)
    return np.hstack([part for tile in tiles for part in (tile, gap)][:-1])


class NetGraph(Callback):
    """Writes the net's graph for TensorBoard once, before training."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero or trainer.global_step > 0 or not (found := writers(trainer)):
            return
        assert isinstance(pl_module, SegmentationTask)
        data = trainer.datamodule  # type: ignore[attr-defined]
        image = data.first_batch("train", 1, pl_module.device).image
        training = pl_module.net.training
        # Tracing runs the net: in eval mode that leaves its running statistics alone. It cannot trace a compiled one, so
        # what `Module.compile` put in front of `forward` is set aside.
        net = pl_module.net
        compiled, net._compiled_call_impl = net._compiled_call_impl, None
        net.eval()
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # the tracer's, about shapes that are constant in the picture
                for writer in found:
                    writer.add_graph(net, image)
        finally:
            net.train(training)
            net._compiled_call_impl = compiled
