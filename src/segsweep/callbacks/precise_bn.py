"""Batch-norm statistics that belong to the weights they are used with."""

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from segsweep.datamodule import SegmentationDataModule
from segsweep.instantiate import AtLeast1, checked
from segsweep.nets import batch_norms, estimate_norm_statistics
from segsweep.tasks import SegmentationTask


@checked
class PreciseBN(Callback):
    """Estimates the running statistics of every batch norm anew before each validation.

    Running averages trail weights that still move: the published network loses several points of IoU in eval mode to
    that. Here the statistics are a function of the weights alone, being the average over the same images every time, and
    training is not touched, since it never reads them.

    Args:
        batches: how many batches are averaged over, of the training's batch size.

    Raises:
        ValueError: `batches` is below 1.

    Source: Wu and Johnson 2021, Rethinking "Batch" in BatchNorm, section 3.
    """

    def __init__(self, batches: AtLeast1 = 16) -> None:
        self.batches = batches

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return  # a checkpoint's statistics are its own
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it, its class does not declare it
        assert isinstance(data, SegmentationDataModule)
        assert isinstance(pl_module, SegmentationTask)
        if batch_norms(pl_module.net):
            images = data.calibration_images(self.batches, pl_module.device)
            # Estimating counts batches in a way that a compiled net would break its graph at.
            with trainer.precision_plugin.forward_context(), torch.compiler.set_stance("force_eager"):
                estimate_norm_statistics(
                    pl_module.net, [image.to(memory_format=pl_module.memory_format) for image in images]
                )
