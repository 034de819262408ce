"""CPU time of a training step that computes next to nothing: train.py's Trainer against Lightning's plain Trainer.

    python benchmarks/host_work.py --device cpu

All train one 3 x 3 convolution on the same textures of 16 x 16 pixels, 8 at a time, with the same loss and optimizer:

- a bare PyTorch loop;
- Lightning's plain Trainer, without logger, checkpoints, bar or metrics;
- a Lightning template's way: two torchmetrics logged in every step, rich progress bar, TensorBoard, checkpoints;
- train.py's own, with every default callback, all metrics, metrics.csv, TensorBoard and the progress bar.

Bars are drawn on a pseudo-terminal. With so small a net a step is nearly all Python, which a GPU would wait for.

The clock is the CPU time of all threads of the process; torch has one thread. It runs from the batch of one step to that of
a later step in the same epoch, so it excludes setup, validation and checkpoints. The number of steps is a multiple of the
logging interval, so that rows of metrics count with their true share. All take turns.
"""

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from measure import Row, arguments, interleave, pick_device, report, synchronize, trainer_group
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryJaccardIndex
from trainer_overhead import WARM_UP, bare_loop, settings, terminal

from segsweep.callbacks import StopOnSignal
from segsweep.data import Batch, Source
from segsweep.instantiate import build
from segsweep.runs import RunDirectory
from segsweep.tasks import SegmentationTask
from segsweep.trainer_settings import quiet_libraries
from segsweep.training_setup import assemble, build_data, build_task

NET = {"_target_": "torch.nn.Conv2d", "kernel_size": 3, "padding": 1}
TARGET = 1.12


class Clock:
    """Notes the CPU time at two of the batches that a source makes.

    Args:
        source: gets a `to_batch` that looks at the clock.
        steps: batches between the two.
    """

    def __init__(self, source: Source, steps: int) -> None:
        self.to_batch, self.steps = source.to_batch, steps
        self.batches = 0
        self.moments: list[float] = []
        source.to_batch = self.next  # type: ignore[method-assign]

    def next(self, collated: Any, split: Any, device: torch.device) -> Batch:
        if self.batches in (WARM_UP, WARM_UP + self.steps):
            synchronize(device)
            self.moments.append(time.process_time())
        self.batches += 1
        return self.to_batch(collated, split, device)

    @property
    def seconds(self) -> float:
        """CPU seconds of a step."""
        first, last = self.moments
        return (last - first) / self.steps


class Plain(L.LightningModule):
    """The net, loss and optimizer of a task, without metrics."""

    def __init__(self, task: SegmentationTask, source: Source) -> None:
        super().__init__()
        self.net, self.loss, self.optimizer = task.net, task.loss, task.optimizer
        self.memory_format, self.source = task.memory_format, source

    def step(self, indices: Tensor) -> tuple[Batch, Tensor, Tensor]:
        batch = self.source.to_batch(indices, "train", self.device)
        logits = self.net(batch.image.to(memory_format=self.memory_format))
        return batch, logits, self.loss(logits, batch.mask)

    def training_step(self, indices: Tensor, batch_index: int) -> Tensor:
        return self.step(indices)[2]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.net.parameters())


class Template(Plain):
    """Logs a loss and an IoU in every step, as the modules of Lightning templates do."""

    def __init__(self, task: SegmentationTask, source: Source) -> None:
        super().__init__(task, source)
        self.train_loss, self.train_iou = MeanMetric(), BinaryJaccardIndex()

    def training_step(self, indices: Tensor, batch_index: int) -> Tensor:
        batch, logits, loss = self.step(indices)
        self.train_loss(loss)
        self.train_iou(logits[:, 0], batch.mask)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/iou", self.train_iou, on_step=False, on_epoch=True, prog_bar=True)
        return loss


def fit_lightning(
    node: dict[str, Any], steps: int, device: torch.device, module: type[Plain], **trainer_arguments: Any
) -> float:
    """CPU seconds of a step of one of the modules above."""
    data = build_data(node["data"])
    task = build_task(node, data.source, build(node["trainer"], "trainer"))
    clock = Clock(data.source, steps)
    trainer = L.Trainer(
        accelerator=device.type, devices=1, max_steps=node["trainer"]["max_steps"], enable_model_summary=False,
        **trainer_arguments,
    )  # fmt: skip
    trainer.fit(module(task, data.source), DataLoader(data.source.dataset("train"), batch_size=data.batch_size))
    return clock.seconds


def plain(node: dict[str, Any], steps: int, device: torch.device) -> float:
    with quiet_libraries():
        return fit_lightning(
            node, steps, device, Plain, logger=False, enable_checkpointing=False, enable_progress_bar=False
        )


def template(node: dict[str, Any], steps: int, device: torch.device) -> float:
    with tempfile.TemporaryDirectory() as folder, terminal(), quiet_libraries():
        callbacks = [RichProgressBar(console_kwargs={"stderr": True}), ModelCheckpoint(folder)]
        return fit_lightning(node, steps, device, Template, logger=TensorBoardLogger(folder), callbacks=callbacks)


def ours(node: dict[str, Any], steps: int, device: torch.device) -> float:
    with tempfile.TemporaryDirectory() as folder, terminal(), StopOnSignal() as stop, quiet_libraries():
        session = assemble(node, RunDirectory(Path(folder)), stop)
        clock = Clock(session.data.source, steps)
        session.trainer.fit(session.task, session.data)
    return clock.seconds


def bare(node: dict[str, Any], steps: int, device: torch.device) -> float:
    loop = bare_loop(node, device)
    loop(WARM_UP)
    synchronize(device)
    start = time.process_time()
    loop(steps)
    synchronize(device)
    return (time.process_time() - start) / steps


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=500, help="timed steps of a fit, a multiple of 50 (default 500)")
    parser.add_argument("overrides", nargs="*", help="settings as for train.py")
    options = parser.parse_args()
    device = pick_device(options.device)
    torch.set_num_threads(1)
    node = settings([trainer_group(device), "data.image_size=16", *options.overrides], options.steps)
    node["model"] = NET
    if options.steps < 1 or options.steps % node["trainer"]["log_every_n_steps"]:
        parser.error(f"--steps {options.steps}: must be a multiple of {node['trainer']['log_every_n_steps']}")
    ways: dict[str, Callable[[dict[str, Any], int, torch.device], float]] = {
        "plain": plain, "bare": bare, "template": template, "ours": ours,
    }  # fmt: skip
    measures = {name: functools.partial(way, node, options.steps, device) for name, way in ways.items()}
    times = interleave(measures, options.repeats)
    baseline = "Lightning's plain Trainer"
    rows = [
        Row(what, baseline, times[name], times["plain"], "cost", target, unit="step")
        for name, what, target in (
            ("bare", "a bare PyTorch loop", None),
            ("template", "a template's module, logging two metrics a step", None),
            ("ours", " ".join(["train.py's Trainer, everything on", *options.overrides]), TARGET),
        )
    ]
    report("host_work", rows, device, options.json)


if __name__ == "__main__":
    main()
