"""Settings of the Lightning Trainer: length, device and precision of a training."""

import contextlib
import logging
import shutil
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.profilers import SimpleProfiler
from pydantic import Field

from segsweep.callbacks import WholeCheckpointIO
from segsweep.errors import UserError
from segsweep.instantiate import AtLeast1, Positive, checked

NO_GPU = "accelerator=gpu: torch sees no CUDA GPU on this machine"


@checked
@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """The `trainer` group of the configuration.

    `max_steps`, `max_epochs`, `devices`, `strategy`, `precision` and `gradient_clip_val` are arguments of Lightning's
    Trainer. `build_trainer` fixes its other arguments (logging, checkpoints, validation, samplers), because resume and
    sweeps rely on their values. To offer one more setting, add it here and, if it changes a result, to
    `fingerprint.TRAINER`.

    Args:
        max_steps: optimizer steps; -1 trains for `max_epochs` or `max_minutes`.
        max_epochs: epochs; None trains for `max_steps` or `max_minutes`.
        max_minutes: wall time of steps and the validations between them; see `TimeBudget`. None sets no limit.
        accelerator: "auto" takes a CUDA GPU if there is one, else the CPU.
        devices: number of GPUs; on the CPU, number of processes. "auto": all GPUs, or one process on the CPU.
        strategy: "ddp" trains in one process per device.
        precision: precision of the net; losses and metrics are always computed in float32 or better. "auto": see
            `auto_precision`.
        channels_last: memory format of images and convolutions; faster on most machines.
        compile: compile the net; needs a C++ compiler on the CPU, and takes up to a minute at the first step.
        accumulate: batches in an optimizer step, which averages their gradients: a step of data.batch_size times as many
            samples, in the memory of one batch.
        gradient_clip_val: largest norm of the gradient; None does not clip.
        log_every_n_steps: optimizer steps between rows of training metrics.
        val_every_n_steps: optimizer steps between validations; None validates after every epoch.
        progress_bar: draw a bar on a terminal.
        test: score the best checkpoint on the test split at the end.
        profile: write Lightning's table of where the time went to profile.txt.
        threads: CPU threads; None takes all, or a job's share if a sweep runs several jobs at once.

    Raises:
        ValueError: a value is outside its range, or the machine lacks what it asks for.
    """

    max_steps: AtLeast1 | Literal[-1] = 1000
    max_epochs: AtLeast1 | None = None
    max_minutes: Positive | None = None
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: AtLeast1 | Literal["auto"] = 1
    strategy: Literal["auto", "ddp"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    channels_last: bool = True
    compile: bool = False
    accumulate: AtLeast1 = 1
    gradient_clip_val: Annotated[float, Field(gt=0)] | None = None
    log_every_n_steps: AtLeast1 = 50
    val_every_n_steps: AtLeast1 | None = None
    progress_bar: bool = True
    test: bool = True
    profile: bool = False
    threads: AtLeast1 | None = None

    def __post_init__(self) -> None:
        if self.precision == "auto":
            object.__setattr__(self, "precision", auto_precision(self.accelerator))
        if self.max_steps == -1 and self.max_epochs is None and self.max_minutes is None:
            raise ValueError(
                "max_steps=-1: needs a number of epochs or minutes, as in trainer.max_epochs=10 or trainer.max_minutes=5"
            )
        gpus = torch.cuda.device_count()
        if self.accelerator == "gpu" and not gpus:
            raise ValueError(f"{NO_GPU}; use trainer=auto or trainer=cpu")
        if self.device_type == "cuda" and isinstance(self.devices, int) and self.devices > gpus:
            raise ValueError(
                f"devices={self.devices}: this machine has {gpus} GPU{'s' if gpus > 1 else ''}; set trainer.devices={gpus}"
            )
        if self.device_type == "cpu" and self.precision == "16-mixed":
            raise ValueError("precision=16-mixed: needs a GPU; bf16-mixed works on the CPU as well")
        if (
            self.compile
            and self.device_type == "cpu"
            and not any(shutil.which(name) for name in ("g++", "clang++", "cl"))
        ):
            raise ValueError("compile=true: needs a C++ compiler (g++ or clang++), and none is on the PATH")

    @property
    def processes(self) -> int:
        """Number of processes that train together, one per device."""
        if self.devices == "auto":
            return torch.cuda.device_count() if self.device_type == "cuda" else 1
        return self.devices

    @property
    def device_type(self) -> Literal["cpu", "cuda"]:
        return device_of(self.accelerator)


@checked
def device_of(accelerator: Literal["auto", "cpu", "gpu"]) -> Literal["cpu", "cuda"]:
    """The device for an accelerator: "auto" takes a CUDA GPU if there is one, else the CPU.

    Raises:
        UserError: there is no such accelerator, or this machine has no GPU.
    """
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError(f"{NO_GPU}; use accelerator=auto or accelerator=cpu")
    return "cpu" if accelerator == "cpu" or not torch.cuda.is_available() else "cuda"


def auto_precision(accelerator: str | None = "auto") -> Literal["32-true", "bf16-mixed"]:
    """What `precision=auto` means on this machine: bf16-mixed on a CPU with AMX, else 32-true.

    bfloat16 is slower than float32 on a CPU without AMX. On a GPU it has not been measured.

    Args:
        accelerator: as in `TrainerSettings`.
    """
    # Private, but no public function of torch knows of AMX.
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    on_cpu = accelerator == "cpu" or not torch.cuda.is_available()
    return "bf16-mixed" if on_cpu and has_amx is not None and has_amx() else "32-true"


def trained_precision(trained: Mapping[str, Any], device_type: str) -> Any:
    """The precision in which a run is scored and predicts: that of its training.

    16-mixed becomes 32-true on a CPU, which cannot compute it. "auto" is left for `auto_precision`.

    Args:
        trained: the run's stored trainer settings.
        device_type: "cpu" or "cuda".
    """
    precision = trained.get("precision", "32-true")
    return "32-true" if precision == "16-mixed" and device_type == "cpu" else precision


def build_trainer(
    settings: TrainerSettings, folder: Path, callbacks: Sequence[Callback], loggers: Sequence[Logger]
) -> L.Trainer:
    """A Lightning Trainer that logs, draws and saves through our own callbacks only."""
    return L.Trainer(
        accelerator=settings.device_type,
        devices=settings.processes,
        strategy=settings.strategy,
        precision=cast(Any, settings.precision),  # never "auto" here, which Lightning's type lacks
        max_steps=settings.max_steps,
        max_epochs=-1 if settings.max_epochs is None else settings.max_epochs,  # Lightning would set 1000 without steps
        val_check_interval=settings.val_every_n_steps,
        check_val_every_n_epoch=None if settings.val_every_n_steps else 1,
        gradient_clip_val=settings.gradient_clip_val,
        default_root_dir=folder,
        callbacks=list(callbacks),
        logger=list(loggers),
        # Not Lightning's Slurm environment: it takes over the signals, and warns wherever srun is installed.
        plugins=[WholeCheckpointIO(), *([LightningEnvironment()] if settings.processes == 1 else [])],
        profiler=SimpleProfiler(dirpath=folder, filename="profile") if settings.profile else None,
        # TrainBatches already gives each process its own share of a batch.
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=settings.log_every_n_steps,
    )


@contextlib.contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """Sets torch's number of CPU threads inside the block; None changes nothing."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silences advice of Lightning and torch that does not apply here, such as to add loader workers."""
    library = logging.getLogger("lightning.pytorch")
    level, thread_hook = library.level, threading.excepthook
    library.setLevel(logging.WARNING)
    # TensorBoard writes in a thread, and raises its OSError again at the next number that it gets.
    threading.excepthook = lambda failure: None if isinstance(failure.exc_value, OSError) else thread_hook(failure)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
            # On resume, TrainBatches starts at the checkpoint's step.
            warnings.filterwarnings("ignore", ".*checkpoint that ended before the epoch ended.*")
            # Each process scores the whole of val and test, so all have the same numbers.
            warnings.filterwarnings("ignore", ".*sync_dist=True.*")
            # Any training on a machine with Slurm that Slurm did not start.
            warnings.filterwarnings("ignore", ".*`srun` command is available.*")
            warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
            warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
            yield
    finally:
        library.setLevel(level)
        threading.excepthook = thread_hook
