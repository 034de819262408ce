"""best.ckpt and last.ckpt: plain data, written atomically."""

import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from segsweep.callbacks.control import validation_due
from segsweep.errors import first_line
from segsweep.instantiate import AtLeast1, Positive, checked
from segsweep.runs.files import write_whole
from segsweep.runs.metrics_csv import MetricsCSV
from segsweep.runs.run_checkpoint import FORMAT
from segsweep.tasks import SegmentationTask


class WholeCheckpointIO(TorchCheckpointIO):
    """Saves under a temporary name, then renames, so a full disk or a crash leaves the earlier checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        path = Path(path)
        path.parent.mkdir(exist_ok=True)  # not the run directory: it was renamed or removed if it is gone
        try:
            write_whole(path, lambda temporary: super(WholeCheckpointIO, self).save_checkpoint(checkpoint, temporary))
        except RuntimeError as error:
            # torch's zip writer raises a RuntimeError without the reason if it cannot write.
            raise OSError(f"{path}: could not be written ({first_line(error)}); is the disk full?") from error


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint with the best objective so far, as best.ckpt."""

    def __init__(self, folder: Path, objective: str, mode: str) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor=objective,
            mode=mode,
            save_top_k=1,
            # Save right after the validation: at the end of the epoch, LastCheckpoint would already have saved.
            save_on_train_epoch_end=False,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        # It saves nothing in a step, and takes long to see that. Lightning skips a hook that is None.
        self.on_train_batch_end = None  # type: ignore[assignment]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning's version forgets the best score if the run directory was moved. The next validation would then
        # overwrite a better checkpoint.
        score = state_dict["best_model_score"]
        self.best_model_score = self.current_score = self.kth_value = score
        if score is not None:
            path = str(Path(str(self.dirpath)) / "best.ckpt")
            self.best_model_path = self.kth_best_model_path = path
            self.best_k_models = {path: score}


@checked
class LastCheckpoint(Checkpoint):
    """Saves last.ckpt after every validation, at intervals, and when a run is interrupted.

    Lightning's `save_last` goes stale while the best checkpoint does not improve. Must come after BestCheckpoint in the
    list of callbacks, because it saves the state of that one.

    Args:
        path: last.ckpt of the run.
        every_n_steps: optimizer steps between saves; None saves by time and validation only.
        every_n_minutes: minutes between saves; None saves by steps and validation only.

    Raises:
        ValueError: an interval is not positive.
    """

    def __init__(
        self, path: Path, every_n_steps: AtLeast1 | None = None, every_n_minutes: Positive | None = 5.0
    ) -> None:
        self.path = path
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self._saved_at = time.monotonic()
        self._saved_step = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved_at = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        due = self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        if not due and self.every_n_minutes is not None:
            # All processes take part in saving, and their clocks differ: the clock of the first decides.
            overdue = time.monotonic() - self._saved_at >= 60 * self.every_n_minutes
            due = trainer.strategy.broadcast(overdue) if trainer.world_size > 1 else overdue
        # Else saved after the validation, which a run resumed from here would skip.
        if due and not validation_due(trainer):
            self.save(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self.save(trainer, force=True)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        # Within a step, weights and counters do not agree, so keep the earlier checkpoint.
        between_steps = isinstance(exception, SIGTERMException) or getattr(exception, "between_steps", False)
        if trainer.state.fn != "fit" or trainer.global_step == 0 or not between_steps:
            return
        # A run resumed from a checkpoint saved now would skip the validation that is due.
        if not validation_due(trainer):
            self.save(trainer)

    def save(self, trainer: L.Trainer, force: bool = False) -> None:
        if trainer.global_step == self._saved_step and not force:
            return
        task = trainer.lightning_module
        assert isinstance(task, SegmentationTask)
        task.raise_if_diverged()
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV):
                logger.flush()
        trainer.save_checkpoint(self.path)
        self._saved_at = time.monotonic()
        self._saved_step = trainer.global_step


class RunConfiguration(Callback):
    """Adds to every checkpoint the plain data that rebuilds the run.

    Args:
        content: dicts, lists, strings and numbers.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["segsweep"] = {"format": FORMAT, **self.content}
