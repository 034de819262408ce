"""Callbacks that write to TensorBoard: sample predictions, confusion matrix, precision-recall curves, the net's graph.

Shapes: N samples, B images, C channels, H x W pixels, T thresholds.
"""

import textwrap
import warnings
from collections.abc import Mapping
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
from segsweep.datamodule import SegmentationDataModule
from segsweep.instantiate import AtLeast1, checked
from segsweep.plots import (
    ERROR_COLORS,
    class_colors,
    confusion_thumbnail,
    drawn_channels,
    error_map,
    mask_to_rgb,
    overlay,
    to_image,
)
from segsweep.tasks import SegmentationTask, Stage


def writers(trainer: L.Trainer) -> list[Any]:
    """The SummaryWriters of the run; empty without TensorBoard."""
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def write_texts(trainer: L.Trainer, texts: Mapping[str, str]) -> None:
    """Writes texts by tag for TensorBoard's TEXT tab, in a fixed-width font."""
    for writer in writers(trainer):
        for tag, text in texts.items():
            writer.add_text(tag, textwrap.indent(text, "    "))


GROUPS = {"train": "1: train", "val": "2: val", "test": "3: test"}
"""TensorBoard sorts groups of tags by the alphabet, which would show the single points of test first."""


def scalar_tag(name: str) -> str:
    """The tag of a metric in TensorBoard: "val/iou" is "2: val/iou". A name without a group goes to train."""
    group, slash, rest = name.partition("/")
    return f"{GROUPS.get(group, group)}/{rest}" if slash else f"{GROUPS['train']}/{name}"


@checked
class SamplePanel(Callback):
    """Draws the same validation samples after each validation: image, true mask, prediction, error and overlay.

    Args:
        samples: most samples to draw; see `SegmentationDataModule.shown_batch`.

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
            self._batch = data.shown_batch(self.samples, pl_module.device)
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
    """Draws the confusion matrix of a multiclass task after each validation and test."""

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
        # TensorBoard shows a picture some 300 pixels wide until it is clicked.
        figure = confusion_thumbnail(
            task.confusions[stage].cpu().numpy(), task.labels.names, title=f"{stage}, per cent"
        )
        pixels = to_image(figure)
        tag = f"confusion/{'1: val' if stage == 'val' else '2: test'}"
        for writer in found:
            writer.add_image(tag, pixels, trainer.global_step, dataformats="HWC")


def panel_row(
    image: Tensor,
    mask: Tensor,
    prediction: Tensor,
    colors: NDArray[np.uint8] | None = None,
    background: int | None = None,
) -> NDArray[np.uint8]:
    """A picture of image, true mask, prediction, error and overlay, side by side.

    Args:
        image: float [C, H, W] in [0, 1].
        mask: int [H, W], 255 ignored.
        prediction: int [H, W].
        colors: uint8 [K, 3]; by default a colour-blind-safe palette.
        background: the class that is transparent in the overlay.

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
        mask_to_rgb(true, palette, IGNORE),
        mask_to_rgb(predicted, palette, IGNORE),
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
        # Tracing runs the net: eval mode protects its running statistics. A compiled net cannot be traced, so the compiled
        # call is set aside.
        net = pl_module.net
        compiled, net._compiled_call_impl = net._compiled_call_impl, None
        net.eval()
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # the tracer's, about shapes that become constants
                for writer in found:
                    writer.add_graph(net, image)
        finally:
            net.train(training)
            net._compiled_call_impl = compiled
            forget_traced_classes()


def forget_traced_classes() -> None:
    """Frees what torch.jit keeps of each traced net for the life of the process: 2 MB a job in a long sweep."""
    torch._C._jit_clear_class_registry()
    torch.jit._recursive.concrete_type_store = torch.jit._recursive.ConcreteTypeStore()


STEPS = 64
"""Thresholds are 0/64, 1/64, ..., 64/64: TensorBoard expects them evenly spaced in [0, 1]. They include 0.5, the threshold
of the other metrics. Multiplying by a power of two does not round, so no pixel lands on the wrong side of a threshold."""

TAGS: dict[Stage, str] = {"val": "precision_recall/1: val", "test": "precision_recall/2: test"}
"""TensorBoard's slider takes its steps from the tag that is first in the alphabet: val has many, test has one."""


class PrecisionRecall(Callback):
    """Writes the precision-recall curve of the positive class of a binary task, after each validation and test.

    Counts pixels batch by batch in 2 x 65 numbers on the device, from the logits that the step returns. So memory does not
    grow with the split, and the net does not run again.
    """

    def __init__(self) -> None:
        self._counts: Tensor | None = None

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SegmentationTask)
        # Each process scores the whole split, so the first writes the curve.
        wanted = trainer.state.fn in ("fit", "test") and pl_module.kind == "binary"
        wanted = wanted and trainer.is_global_zero and bool(writers(trainer))
        self._counts = torch.zeros(2, STEPS + 1, dtype=torch.int64, device=pl_module.device) if wanted else None

    on_test_start = on_validation_start

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._counts is not None:
            assert isinstance(pl_module, SegmentationTask)
            self._counts += count_levels(pl_module.probabilities(outputs)[:, 1], batch.mask)

    on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, "val")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, "test")

    def _write(self, trainer: L.Trainer, stage: Stage) -> None:
        if self._counts is None:
            return
        rows = curve(self._counts.cpu().numpy())
        self._counts = None
        for writer in writers(trainer):
            writer.add_pr_curve_raw(TAGS[stage], *rows, trainer.global_step, num_thresholds=STEPS + 1)


def count_levels(probability: Tensor, mask: Tensor) -> Tensor:
    """Histograms of the positive class's probability over the pixels of each class; the bins begin at the thresholds.

    torchmetrics' BinaryPrecisionRecallCurve gives the same counts, but passes over all pixels for each threshold. That
    takes two thirds of the time of the texture net's forward pass.

    Args:
        probability: float [B, H, W] of the positive class, in [0, 1]; NaN counts as 0, as in a prediction.
        mask: int64 [B, H, W] of 0, 1, or 255 for ignored pixels.

    Returns:
        int64 [2, T]: pixels of the negative and of the positive class.
    """
    thresholds = STEPS + 1
    level = (probability.nan_to_num(nan=0.0) * STEPS).long()
    # Ignored pixels go into one more cell at the end: selecting pixels would make a GPU wait.
    cell = torch.where(mask == IGNORE, 2 * thresholds, mask * thresholds + level).flatten()
    counts = torch.zeros(2 * thresholds + 1, dtype=torch.int64, device=cell.device)
    counts.scatter_add_(0, cell, torch.ones_like(cell))
    return counts[:-1].view(2, thresholds)


def curve(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The rows from which TensorBoard draws a precision-recall curve.

    Args:
        counts: int64 [2, T], from `count_levels`.

    Returns:
        float64 [6, T]: true positives, false positives, true negatives, false negatives, precision and recall, for
        predicting positive from each threshold upwards. 0 / 0 gives 0, as in TensorBoard's own curves; TensorBoard leaves
        out thresholds that no pixel reaches.
    """
    false, true = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    missed, rejected = true[0] - true, false[0] - false
    precision, recall = true / np.maximum(true + false, 1), true / np.maximum(true + missed, 1)
    return np.stack([true, false, rejected, missed, precision, recall])
