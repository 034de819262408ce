"""What a training leaves to look at: curves.png and samples.png in the run directory."""

import logging
import math

import torch

from segsweep.plots import drawn_channels, samples, save
from segsweep.runs import RunDirectory, RunRecord, read_metrics
from segsweep.runs.run_card import run_curves
from segsweep.training_setup import Session

log = logging.getLogger(__name__)

SAMPLES = 4
"""Rows of samples.png."""
_LARGEST = 2**22
"""Most pixels of the drawn samples together: larger ones would take as long as a validation, or the memory."""


def draw_run(record: RunRecord, session: Session, run: RunDirectory) -> None:
    """Draws both pictures, at the end of a training. A picture that cannot be drawn or written fails no run."""
    if not session.trainer.is_global_zero:
        return
    for draw in (draw_curves, draw_samples):
        try:
            draw(record, session, run)
        except Exception as error:  # a user's net or source may raise anything, and the training is done
            log.warning("%s: not drawn (%s)", draw.__name__.removeprefix("draw_"), error)


def draw_curves(record: RunRecord, session: Session, run: RunDirectory) -> None:
    """Draws loss and objective against steps, if they were logged."""
    name = f"{record.name}: " if record.name else ""
    figure = run_curves(read_metrics(run.metrics), record.objective.name, f"{name}training and validation")
    if figure is not None:
        save(figure, run.curves, dpi=100)


def draw_samples(record: RunRecord, session: Session, run: RunDirectory) -> None:
    """Draws validation samples with the predictions of the weights at hand: after a test those of best.ckpt."""
    task, data, device = session.task, session.data, session.trainer.strategy.root_device
    batch = data.shown_batch(SAMPLES, device)
    shown = min(len(batch.mask), _LARGEST // math.prod(batch.mask.shape[1:]))
    if not shown:
        return
    image, mask = batch.image[:shown], batch.mask[:shown]
    was_training, home = task.training, task.device
    # A compiled net would be compiled anew for this batch.
    eager, precision = torch.compiler.set_stance("force_eager"), session.trainer.precision_plugin.forward_context()
    try:
        task.to(device).eval()
        with torch.inference_mode(), eager, precision:
            prediction = task.predict(task(image))
    finally:
        task.to(home).train(was_training)
    split = "training" if data.overfit_samples else "validation"
    tested = any(name.startswith("test/") for name in record.metrics)
    figure = samples(
        [drawn_channels(each.cpu().numpy()) for each in image], mask.cpu().numpy(), prediction.cpu().numpy(),
        colors=task.labels.colors, class_names=task.labels.names,
        title=f"{split} samples, step {record.best_step if tested else record.steps:,}",
    )  # fmt: skip
    save(figure, run.samples, dpi=100)
