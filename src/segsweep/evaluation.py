"""Evaluation: every metric of a trained run on a split, by class and by image.

Shapes: C image channels, K classes, H x W pixels.
"""

import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray

from segsweep.absence import scored_classes
from segsweep.callbacks.image_scores import ImageScore, ImageScores, score_images
from segsweep.errors import UserError
from segsweep.evaluation_data import ScoredData, data_of, loss_of, settings_of
from segsweep.instantiate import check_arguments, naming_keys
from segsweep.runs.load import Run
from segsweep.tasks import SGD, SegmentationTask
from segsweep.tasks.losses import TaskKind
from segsweep.tasks.metrics import class_scores
from segsweep.trainer_settings import TrainerSettings, build_trainer, device_of
from segsweep.training import quiet_libraries


@dataclass(frozen=True)
class Evaluation:
    """What a run reaches on a split.

    Args:
        metrics: by name, without the split: "iou", "loss", ...; NaN where one is undefined.
        confusion: int64 [K, K]; row i, column j: pixels of class i predicted as j.
        images: every image of the split, or tile of a large one, in order.
        names: of the classes.
        kind: of the task.
    """

    metrics: dict[str, float]
    confusion: NDArray[np.int64]
    images: list[ImageScore]
    names: list[str]
    kind: TaskKind

    @property
    def absent(self) -> tuple[str, ...]:
        """The classes that iou is of and that have no pixel in the split."""
        pixels = dict(zip(self.names, self.confusion.sum(1).tolist(), strict=True))
        return tuple(name for name in scored_classes(self.names, self.kind) if not pixels[name])

    @cached_property
    def per_class(self) -> dict[str, dict[str, float]]:
        """iou, precision, recall and f1 of every class, and its true and predicted pixels; NaN for an absent one."""
        scores = {name: values.tolist() for name, values in class_scores(torch.from_numpy(self.confusion)).items()}
        scores |= {"pixels": self.confusion.sum(1).tolist(), "predicted_pixels": self.confusion.sum(0).tolist()}
        return {name: {score: values[at] for score, values in scores.items()} for at, name in enumerate(self.names)}

    def ranked(self) -> list[ImageScore]:
        """The images from the best to the worst, without those whose iou is undefined."""
        return sorted((image for image in self.images if image.iou == image.iou), key=lambda image: -image.iou)


@dataclass(frozen=True)
class Sample:
    """One image of a split as the run sees it."""

    name: str
    image: NDArray[np.float32]
    """[C, H, W] in [0, 1]."""
    mask: NDArray[np.int64]
    """[H, W] of positions in the class table; 255 is ignored."""
    prediction: NDArray[np.int64]
    """[H, W]"""
    iou: float


class Evaluator:
    """A run and what it is scored on.

    Args:
        run: from `load_run`.
        data: from `data_of`; by default the test split of the data that the run was trained with.
        accelerator: "auto" takes a CUDA GPU where there is one.

    Raises:
        UserError: the data cannot be found, its classes are not the run's, or a setting is wrong.
    """

    def __init__(
        self, run: Run, data: ScoredData | None = None, accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    ) -> None:
        self.run = run
        data = data or data_of(run)
        source = data.source.for_net(run.net)
        self.data = replace(data, source=source, notes=[*data.notes, *source.cautions([data.split])])
        self.module = self.data.module()
        trained = settings_of(run, "trainer")
        precision = trained.get("precision", "32-true")
        if device_of(accelerator) == "cpu" and precision == "16-mixed":
            precision = "32-true"  # what a GPU trained in half precision, a CPU can still score
        chosen = {
            "accelerator": accelerator, "precision": precision, "channels_last": trained.get("channels_last", True),
        }  # fmt: skip
        with naming_keys("trainer"):
            check_arguments(TrainerSettings, chosen)
            self._settings = TrainerSettings(**chosen, progress_bar=False)
        # An optimizer is part of a task, and is not used here.
        self.task: SegmentationTask = run.task(
            run.net, loss_of(run), run.labels, SGD(lr=1.0), channels_last=self._settings.channels_last
        )

    def score(self) -> Evaluation:
        """Scores the whole split, in the batches and the precision in which the run's own training tests itself."""
        scores = ImageScores()
        with tempfile.TemporaryDirectory() as folder, quiet_libraries():
            trainer = build_trainer(self._settings, Path(folder), [scores], [])
            trainer.test(self.task, self.module, verbose=False)
        metrics = {name.removeprefix("test/"): float(value) for name, value in trainer.callback_metrics.items()}
        confusion = self.task.confusions["test"].cpu().numpy()
        return Evaluation(metrics, confusion, scores.scores(), self.run.labels.names, self.task.kind)

    def sample(self, index: int) -> Sample:
        """One image of the split with its prediction.

        Raises:
            UserError: there is no such image.
        """
        size = self.data.source.size(self.data.split)
        if not 0 <= index < size:
            raise UserError(f"index={index}: {self.data.name} has {size} images, 0 to {size - 1}")
        device = torch.device(self._settings.device_type)
        batch = self.module.samples(self.data.split, [index], device)
        self.task.to(device).eval()
        with torch.inference_mode(), self._precision().forward_context():
            logits = self.task(batch.image)
        (iou,), _ = score_images(self.task, logits, batch.mask)
        return Sample(
            self.data.sample_name(index),
            batch.image[0].cpu().numpy(),
            batch.mask[0].cpu().numpy(),
            self.task.predict(logits)[0].cpu().numpy(),
            float(iou),
        )

    def _precision(self) -> L.pytorch.plugins.Precision:
        with quiet_libraries():
            return build_trainer(self._settings, Path(tempfile.gettempdir()), [], []).precision_plugin


def evaluate(
    run: Run, data: ScoredData | None = None, accelerator: Literal["auto", "cpu", "gpu"] = "auto"
) -> Evaluation:
    """The metrics of a run's checkpoint, as its own training computes them; arguments as `Evaluator` takes them."""
    return Evaluator(run, data, accelerator).score()
