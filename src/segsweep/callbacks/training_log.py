"""Writes the metrics of a training to its loggers and to the terminal."""

import logging
import math
import sys
import time
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column
from torch import Tensor

from segsweep.callbacks.tensorboard import scalar_tag
from segsweep.console import LongWork, draw, erase, fitting, time_left, time_left_column
from segsweep.errors import os_error_behind
from segsweep.instantiate import AtLeast1, checked
from segsweep.loggers import track
from segsweep.tasks import SegmentationTask, TimeBudget

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Best:
    """The validation that the best checkpoint was saved after."""

    step: int
    metrics: dict[str, float]


@checked
class TrainingLog(Callback):
    """Writes metrics to the loggers: of train every `every_n_steps` and before each validation, of val and test after each.

    The step of a row is the number of optimizer steps done. Nothing is logged in between: calling Lightning's `log` in
    every step would cost as much as the rest of its loop. `gradient_norm` is of the logged step, before clipping, and
    missing in rows that only a validation asked for; `epoch_seconds` is what an epoch takes at the speed of the row,
    without validations.

    Args:
        every_n_steps: optimizer steps between rows of training metrics, which are means since the previous row.
        objective: the validation metric that decides which checkpoint is the best.
        mode: whether the smallest or the largest objective is the best.

    Raises:
        ValueError: `every_n_steps` is below 1.
    """

    def __init__(
        self, every_n_steps: AtLeast1 = 50, objective: str = "val/loss", mode: Literal["min", "max"] = "min"
    ) -> None:
        self.every_n_steps = every_n_steps
        self.objective = objective
        self.mode = mode
        self.best: Best | None = None
        self.recent: list[float] = []
        """The objective of the last three validations, the latest at the end."""
        self.latest: dict[str, float] = {}
        self.started = False
        """Whether training has begun; before that, a checkpoint is restored."""
        self.train_seconds = 0.0
        self.train_steps = 0
        self.seconds_before = 0.0
        """Seconds that earlier sessions of the run took, up to its last checkpoint."""
        self._created = time.perf_counter()
        self._steps_per_epoch = 1
        self._mark = 0.0
        self._window = (0.0, 0)
        self._gradient_norm: Tensor | None = None

    @property
    def steps_per_second(self) -> float | None:
        """Optimizer steps per second, without the time of validations; None before the first step."""
        return self.train_steps / self.train_seconds if self.train_seconds else None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.started = True
        self._mark = time.perf_counter()
        self._watch_next_step(trainer)

    def _watch_next_step(self, trainer: L.Trainer) -> None:
        """Measures the gradients of the next step if that is logged; Lightning skips a hook that is None."""
        due = (trainer.global_step + 1) % self.every_n_steps == 0
        self.on_before_optimizer_step = self._measure_gradients if due else None  # type: ignore[assignment, method-assign]

    def _measure_gradients(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        gradients = [weight.grad for weight in pl_module.parameters() if weight.grad is not None]
        self._gradient_norm = torch.nn.utils.get_total_norm(gradients)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, SegmentationTask)
        now = time.perf_counter()
        self.train_seconds += now - self._mark
        self.train_steps += 1
        self._mark = now
        if trainer.global_step % self.every_n_steps == 0:
            self._write_training(trainer, pl_module)
        self._watch_next_step(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Training metrics of the same step as the validation's.
        if trainer.state.fn == "fit" and self.train_steps > self._window[1]:
            assert isinstance(pl_module, SegmentationTask)
            self._write_training(trainer, pl_module)

    def _write_training(self, trainer: L.Trainer, task: SegmentationTask) -> None:
        metrics = task.training_metrics()
        metrics["lr"] = task.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
        seconds, steps = self.train_seconds - self._window[0], self.train_steps - self._window[1]
        metrics["steps_per_second"] = steps / seconds if seconds else math.nan
        metrics["epoch_seconds"] = int(trainer.num_training_batches) * seconds / steps
        if self._gradient_norm is not None:
            metrics["gradient_norm"] = float(self._gradient_norm)
            self._gradient_norm = None
        self._window = (self.train_seconds, self.train_steps)
        self._write(trainer, metrics)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = self._collected(trainer, "val/")
        self._write(trainer, metrics)
        if trainer.state.fn == "fit":
            self.recent = [*self.recent, metrics[self.objective]][-3:]
            if self._is_best(metrics[self.objective]):
                self.best = Best(trainer.global_step, metrics)
        self._mark = time.perf_counter()

    def _is_best(self, value: float) -> bool:
        """Decides as ModelCheckpoint does: strictly better, and any number is better than NaN."""
        before = math.nan if self.best is None else self.best.metrics[self.objective]
        if math.isnan(before):
            return self.best is None or not math.isnan(value)
        return value < before if self.mode == "min" else value > before

    def state_dict(self) -> dict[str, Any]:
        best = None if self.best is None else {"step": self.best.step, "metrics": self.best.metrics}
        return {
            "best": best,
            "recent": list(self.recent),
            "latest": dict(self.latest),
            "train_seconds": self.train_seconds,
            "train_steps": self.train_steps,
            "seconds": self.seconds_before + time.perf_counter() - self._created,
            "window": list(self._window),
            "steps_per_epoch": self._steps_per_epoch,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = None if state_dict["best"] is None else Best(**state_dict["best"])
        # Checkpoints of an early version lack the keys read by `get`.
        self.recent = list(state_dict.get("recent", []))
        self.latest = dict(state_dict.get("latest", {}))
        self.train_seconds, self.train_steps = state_dict["train_seconds"], state_dict["train_steps"]
        seconds, steps = state_dict.get("window", (self.train_seconds, self.train_steps))
        self._window = (seconds, steps)
        self._steps_per_epoch = state_dict.get("steps_per_epoch", 1)
        # run.json also counts the time after the checkpoint, but a killed session did not write it: take the larger.
        self.seconds_before = max(self.seconds_before, state_dict.get("seconds", 0.0))

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, self._collected(trainer, "test/"))

    @staticmethod
    def _collected(trainer: L.Trainer, prefix: str) -> dict[str, float]:
        return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(prefix)}

    def _write(self, trainer: L.Trainer, metrics: dict[str, float]) -> None:
        self.latest |= metrics
        # The epoch of the step: the trainer's own counter may be ahead.
        steps_per_epoch = int(trainer.num_training_batches) if trainer.state.fn == "fit" else 0
        self._steps_per_epoch = steps_per_epoch or self._steps_per_epoch
        epoch = max(trainer.global_step - 1, 0) // self._steps_per_epoch
        for logger in trainer.loggers:
            row: dict[str, float] = metrics | {"epoch": epoch}
            if isinstance(logger, WandbLogger | MLFlowLogger):
                track(logger, row, trainer.global_step)
                continue
            if isinstance(logger, TensorBoardLogger):
                row = {scalar_tag(name): value for name, value in metrics.items()}
            try:
                logger.log_metrics(row, step=trainer.global_step)
                logger.save()
            except ValueError as error:
                # Lightning raises a ValueError for every failure of TensorBoard's writer, even a full disk.
                if (cause := os_error_behind(error)) is not None:
                    raise cause from None  # `error` has this cause; `from error` would make a circle
                raise


class ConsoleProgress(Callback):
    """Shows the progress: a bar on a terminal, else a line per validation. The lines also go to train.log.

    Args:
        training_log: gives the numbers.
        objective: the metric that decides which checkpoint is the best.
        bar: whether to draw the bar on a terminal.
        budget: the time that the training may take; None if only its steps end it.
    """

    def __init__(
        self, training_log: TrainingLog, objective: str, bar: bool = True, budget: TimeBudget | None = None
    ) -> None:
        self.training_log = training_log
        self.budget = budget
        self.objective = objective
        self.bar = bar and sys.stderr.isatty()
        self._progress: Progress | None = None
        self._drawn = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not (self.bar and trainer.is_global_zero):
            return
        self._progress = Progress(
            BarColumn(bar_width=None),  # the room that the numbers leave
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[numbers]}"),
            time_left_column(),
            console=Console(stderr=True),
            refresh_per_second=5,
        )
        self._progress.add_task("training", total=total_steps(trainer), completed=trainer.global_step, numbers="")
        draw(self._progress)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if self._progress is not None and time.monotonic() - self._drawn > 0.2:
            assert isinstance(pl_module, SegmentationTask)
            loss = math.nan if pl_module.last_loss is None else float(pl_module.last_loss)
            self._draw(trainer, loss)

    def _draw(self, trainer: L.Trainer, loss: float) -> None:
        assert self._progress is not None
        latest, speed = self.training_log.latest, self.training_log.steps_per_second
        bar = self._progress.tasks[0]
        counts = 2 * len(str(total_steps(trainer) or trainer.global_step)) + 1
        others = 4 + counts + len("0:00:00 left") + 3  # bar, count, time, spaces
        objective = f"{self.objective} {latest[self.objective]:.4f}" if self.objective in latest else ""
        parts = {
            f"loss {loss:.4f}": 1,
            f"train/iou {latest['train/iou']:.4f}" if "train/iou" in latest else "": 2,
            objective: 0,
            f"{speed:.1f} steps/s" if speed else "": 3,
        }
        numbers = fitting(parts, self._progress.console.width - others)
        within = None if self.budget is None else self.budget.left
        self._progress.update(bar.id, completed=trainer.global_step, numbers=numbers, within=within)
        self._drawn = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        latest, speed = self.training_log.latest, self.training_log.steps_per_second
        total, done = total_steps(trainer), trainer.global_step
        line = f"step {done}{'' if total is None else f'/{total}'}  loss {latest.get('train/loss', math.nan):.4f}"
        line += "".join(f"  {name} {latest[name]:.4f}" for name in ("train/iou", self.objective) if name in latest)
        if speed:
            left = [] if total is None else [(total - done) / speed]
            left += [] if self.budget is None else [self.budget.left]
            line += f"  {speed:.1f} steps/s  {time_left(min(left))}"
        log.log(logging.DEBUG if self._progress is not None else logging.INFO, line)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._progress is not None and pl_module.last_loss is not None:
            self._draw(trainer, float(pl_module.last_loss))  # type: ignore[arg-type]
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            erase(self._progress)
            self._progress = None


class ScoringProgress(Callback):
    """Shows how far a validation or a test is, if it takes long."""

    def __init__(self) -> None:
        self._work: LongWork | None = None

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start("validating", trainer, trainer.num_val_batches)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start("scoring", trainer, trainer.num_test_batches)

    def _start(self, what: str, trainer: L.Trainer, batches: list[int | float]) -> None:
        if trainer.is_global_zero:
            self._work = LongWork(what, int(sum(batches)), "batches")

    def _advance(self) -> None:
        if self._work is not None:
            self._work.advance()

    def _end(self) -> None:
        if self._work is not None:
            self._work.close()
            self._work = None

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self._advance()

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self._advance()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._end()


def total_steps(trainer: L.Trainer) -> int | None:
    """Optimizer steps of the whole training; None if only time ends it."""
    total = trainer.estimated_stepping_batches
    return int(total) if math.isfinite(total) else None
