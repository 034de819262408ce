"""The LightningModule of a segmentation: a net with its loss, metrics, optimizer and schedule.

Shapes: B images, C channels, K channels of logits, H x W pixels.
"""

import inspect
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from segsweep.classes import ClassTable
from segsweep.data.source import Batch
from segsweep.datamodule import SegmentationDataModule
from segsweep.errors import DivergedError
from segsweep.tasks.held_steps import NEVER, HeldSteps, first_bad_step
from segsweep.tasks.losses import Loss, TaskKind, misfit_line
from segsweep.tasks.metrics import RunningMean, SegmentationMetrics, SplitLoss
from segsweep.tasks.optimizers import LengthSchedule, OptimizerFactory, Schedule
from segsweep.tasks.time_budget import TimeBudget

Stage = Literal["train", "val", "test"]
STAGES: tuple[Stage, ...] = ("train", "val", "test")


class Counts(nn.Module):
    """Metrics and loss of one stage."""

    def __init__(self, metrics: SegmentationMetrics, loss: RunningMean | SplitLoss) -> None:
        super().__init__()
        self.metrics = metrics
        self.loss = loss


class SegmentationTask(L.LightningModule):
    """Net, loss, metrics, optimizer and schedule as one LightningModule. Subclasses turn logits into predictions.

    Two surprises for a Lightning user:

    - A step logs nothing. One call of `self.log` costs about as much as the rest of Lightning's loop, and reading a number
      back makes a GPU wait. Small steps are held and counted together, on the device; `callbacks.TrainingLog` reads the
      metrics by `training_metrics()` and writes them to the loggers. Validation and test values are in
      `trainer.callback_metrics`.
    - `load_from_checkpoint` does not work: a checkpoint holds the configuration as plain data, without pickled objects.
      `segsweep.load_run(path)` builds the net from it and loads the weights: `run.net`, and `run.task`, the class.

    Args:
        net: from images float [B, C, H, W] to logits float [B, K, H, W].
        loss: a loss that fits the task.
        labels: the class table.
        optimizer: makes an optimizer from parameters.
        schedule: learning-rate schedule; None keeps the rate constant.
        channels_last: memory format of net and images; faster convolutions on most machines, the same numbers up to
            rounding.
        accumulate: batches in an optimizer step, which are loaded as one.
        time_budget: the time that the training may take; None if only its steps end it.

    Raises:
        ValueError: the loss does not fit the task.
    """

    kind: ClassVar[TaskKind]

    def __init__(
        self,
        net: nn.Module,
        loss: Loss,
        labels: ClassTable,
        optimizer: OptimizerFactory,
        schedule: Schedule | None = None,
        channels_last: bool = True,
        accumulate: int = 1,
        time_budget: TimeBudget | None = None,
    ) -> None:
        super().__init__()
        if wrong := misfit_line(loss, self.kind):
            raise ValueError(wrong)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        # The stubs of `Module.to` lack it.
        self.net = net.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.loss = loss
        self.labels = labels
        self.optimizer = optimizer
        self.schedule = schedule
        self.accumulate = accumulate
        self.time_budget = time_budget
        self._part = 0
        binary = self.kind == "binary"
        # Processes share each training batch, but each scores all of val and test.
        self.metrics = nn.ModuleDict(
            {
                f"{stage}_counts": Counts(
                    SegmentationMetrics(labels.names, binary, labels.background_index, stage == "train"),
                    RunningMean() if stage == "train" else SplitLoss(loss.terms, sync_on_compute=False),
                )
                for stage in STAGES
            }
        )
        # Means over all steps of the training: loss and, for binary tasks, confident accuracy, as in the published figures.
        self.running = nn.ModuleDict({name: RunningMean() for name in ("loss", "confident_accuracy")[: 1 + binary]})
        # Rows are true classes, columns predicted ones. "train": the steps of the last row; "val": the last validation.
        self.confusions: dict[Stage, Tensor] = {}
        self._first_bad_step: Tensor | None = None
        self._held = HeldSteps()
        self._first_held = 1, 0

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the running hook some 60 times a step. `nn.Module` takes a microsecond to see that a name is no
        # parameter, which would be a twentieth of a small step.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def last_loss(self) -> Tensor | None:
        """The loss of the last training step, on the device."""
        return self._held.last_loss

    @property
    def metric_names(self) -> list[str]:
        """The metrics that can be the objective."""
        return ["val/loss", *(f"val/{name}" for name in self.counts("val").metrics.names())]

    @staticmethod
    @abstractmethod
    def out_channels(labels: ClassTable) -> int:
        """Number of channels of logits that the net must have."""

    @staticmethod
    @abstractmethod
    def probabilities(logits: Tensor) -> Tensor:
        """Probabilities float32 [B, classes, H, W] from logits [B, K, H, W]."""

    @staticmethod
    @abstractmethod
    def predict(logits: Tensor) -> Tensor:
        """Class positions int64 [B, H, W] from logits [B, K, H, W]."""

    @abstractmethod
    def count(self, stage: Stage, logits: Tensor, mask: Tensor, batches: int = 1) -> None:
        """Adds a batch, or several joined, to the metrics of a stage."""

    def forward(self, image: Tensor) -> Tensor:
        """Logits float32 [B, K, H, W] from images [B, C, H, W]."""
        return self.net(image.to(memory_format=self.memory_format)).float()

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        assert optimizer_closure is not None
        training_step = optimizer_closure

        def every_part() -> Any:
            losses = []
            for part in range(self.accumulate):
                self._part = part
                losses.append(training_step())  # its gradients add up
            return losses[-1]

        # Not Lightning's accumulate_grad_batches: every hook of a batch would come several times in a step.
        optimizer.step(closure=training_step if self.accumulate == 1 else every_part)
        if self.time_budget is not None:  # before Lightning asks the schedule for the rate of the next step
            self.time_budget.look(self.trainer)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        if self._part == 0:
            optimizer.zero_grad()

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        image, mask = batch.image, batch.mask
        if self.accumulate > 1:
            size = len(image) // self.accumulate
            part = slice(self._part * size, (self._part + 1) * size)
            image, mask = image[part], mask[part]
        logits = self(image)
        loss = self.loss(logits, mask)
        # Reading a loss makes a GPU wait: there `count_held` looks for the first bad one.
        if loss.device.type == "cpu" and not math.isfinite(loss.item()):
            self._diverged(self.global_step + 1)
        if not self._held.fits(logits):
            self.count_held()
        if not self._held:
            self._first_held = self.global_step + 1, self._part
        if self._held.add(logits, mask, loss):
            self.count_held()
        return loss / self.accumulate if self.accumulate > 1 else loss

    # Lightning inspects the signature in every step; a stored one saves a fiftieth of a small step.
    training_step.__signature__ = inspect.signature(training_step)  # type: ignore[attr-defined]

    @torch.no_grad()
    def count_held(self) -> None:
        """Adds the training steps held so far to the metrics."""
        if not self._held:
            return
        steps = self._held.take()
        if steps.losses.device.type != "cpu":
            first = first_bad_step(steps.losses, *self._first_held, self.accumulate)
            self._first_bad_step = first if self._first_bad_step is None else torch.minimum(self._first_bad_step, first)
        self.count("train", steps.logits, steps.mask, len(steps.losses))
        for mean in (self.counts("train").loss, self.running_mean("loss")):
            mean.update(steps.losses)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self.count_held()
        return super().state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._held.clear()
        return super().load_state_dict(*args, **kwargs)

    def validation_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Returns the logits, for the callbacks."""
        return self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Returns the logits, for the callbacks."""
        return self._evaluate("test", batch)

    def _evaluate(self, stage: Stage, batch: Batch) -> Tensor:
        logits = self(batch.image)
        self.counts(stage).loss.update(self.loss.totals(logits, batch.mask))
        self.count(stage, logits, batch.mask)
        return logits

    def on_validation_start(self) -> None:
        self.raise_if_diverged()

    def on_validation_epoch_end(self) -> None:
        # For callbacks only: TrainingLog writes the values to the loggers, with the right step.
        values = self._collect("val")
        if self.trainer.state.fn == "fit" and not torch.isfinite(values["val/loss"]):
            self._diverged(self.global_step)
        self.log_dict(values, logger=False)

    def on_test_epoch_end(self) -> None:
        self.log_dict(self._collect("test"), logger=False)

    def counts(self, stage: Stage) -> Counts:
        """Metrics and loss of a stage."""
        counts = self.metrics[f"{stage}_counts"]
        assert isinstance(counts, Counts)
        return counts

    def running_mean(self, name: str) -> RunningMean:
        """A mean over all steps of the training, by name."""
        mean = self.running[name]
        assert isinstance(mean, RunningMean)
        return mean

    def _collect(self, stage: Stage) -> dict[str, Tensor]:
        """Computes and resets the metrics of a stage."""
        counts = self.counts(stage)
        values = {f"{stage}/loss": counts.loss.compute()}
        values |= {f"{stage}/{name}": value for name, value in counts.metrics.compute().items()}
        self.confusions[stage] = counts.metrics.confusion.clone()
        counts.loss.reset()
        counts.metrics.reset()
        return values

    def training_metrics(self) -> dict[str, float]:
        """Means since the last call, and running means since the first step of the training."""
        self.raise_if_diverged()  # counts the steps held
        values = self._collect("train")
        values |= {f"train/{name}_running": self.running_mean(name).compute() for name in self.running}
        return {name: float(value) for name, value in values.items()}

    def raise_if_diverged(self) -> None:
        """Raises DivergedError if a weight, or the loss of a step so far, is not finite. Makes a GPU wait."""
        self.count_held()
        if self._first_bad_step is not None and (step := int(self._first_bad_step)) < NEVER:
            self._diverged(step)
        if not all(bool(torch.isfinite(weight).all()) for weight in self.net.parameters()):
            self._diverged(self.global_step)

    def _diverged(self, step: int) -> None:
        rate = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
        raise DivergedError(
            f"loss or weights became NaN or infinite at step {step} (learning rate {rate:g}): try a lower lr, "
            "trainer.gradient_clip_val=1.0, or trainer.precision=32-true",
            step,
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.net.parameters())
        if self.schedule is None:
            return optimizer
        trainer = self.trainer
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it, its class does not declare it
        if isinstance(data, SegmentationDataModule):
            # Not Lightning's estimate: that starts the loader's workers before a checkpoint has set the step to resume at.
            per_epoch, total = data.steps_per_epoch, data.total_steps(trainer)
        else:
            trainer.fit_loop.setup_data()
            total, per_epoch = int(trainer.estimated_stepping_batches), int(trainer.num_training_batches)
        if self.time_budget is not None and isinstance(self.schedule, LengthSchedule):
            scheduler = self.schedule(optimizer, total, per_epoch, self.time_budget.share)
        else:
            scheduler = self.schedule(optimizer, total, per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
