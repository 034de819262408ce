"""How long, on what and how precisely to train: settings, and the Lightning Trainer they make."""

import contextlib
import logging
import shutil
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.profilers import SimpleProfiler
from pydantic import Field

from segsweep.callbacks import WholeCheckpointIO
from segsweep.errors import UserError
from segsweep.instantiate import AtLeast1, checked

NO_GPU = "accelerator=gpu: torch sees no CUDA GPU on this machine"


@checked
@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """The `trainer` group of the configuration: the arguments of Lightning's Trainer that a run may set.

    `max_steps`, `max_epochs`, `devices`, `strategy`, `precision` and `gradient_clip_val` are Lightning's own. The others of
    its arguments are not offered, since a run depends on their values: `build_trainer` fixes logging, checkpoints,
    validation and samplers, so that a resumed run and a job of a sweep are the same as an uninterrupted run. A setting that
    is missing here is added here and, where it changes a result, to `fingerprint.TRAINER`.

    Args:
        max_steps: optimizer steps; -1 leaves the end to `max_epochs`.
        max_epochs: epochs; None leaves the end to `max_steps`.
        accelerator: "auto" takes a CUDA GPU where there is one.
        devices: how many; processes, on the CPU.
        strategy: "ddp" trains in one process a device.
        precision: of the net; losses and metrics are always computed in float32 or better.
        channels_last: memory format of images and convolutions; faster on most machines.
        compile: compile the net; needs a C++ compiler on the CPU, and takes up to a minute at the first step.
        gradient_clip_val: largest norm of the gradient; None does not clip.
        log_every_n_steps: optimizer steps between rows of training metrics.
        val_every_n_steps: optimizer steps between validations; None validates after every epoch.
        progress_bar: draw a bar on a terminal.
        test: score the best checkpoint on the test split at the end.
        profile: write Lightning's table of where the time went to profile.txt.
        threads: of the CPU; None is all of them, or a job's share where a sweep runs several jobs at once.

    Raises:
        ValueError: a value is outside its range, or the machine lacks what it asks for.
    """

    max_steps: AtLeast1 | Literal[-1] = 1000
    max_epochs: AtLeast1 | None = None
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: AtLeast1 | Literal["auto"] = 1
    strategy: Literal["auto", "ddp"] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    channels_last: bool = True
    compile: bool = False
    gradient_clip_val: Annotated[float, Field(gt=0)] | None = None
    log_every_n_steps: AtLeast1 = 50
    val_every_n_steps: AtLeast1 | None = None
    progress_bar: bool = True
    test: bool = True
    profile: bool = False
    threads: AtLeast1 | None = None

    def __post_init__(self) -> None:
        if self.max_steps == -1 and self.max_epochs is None:
            raise ValueError("max_steps=-1: without max_epochs the training would never end")
        self._check_machine()

    def _check_machine(self) -> None:
        gpus = torch.cuda.device_count()
        if self.accelerator == "gpu" and not gpus:
            raise ValueError(f"{NO_GPU}; use trainer=auto or trainer=cpu")
        if self.device_type == "cuda" and isinstance(self.devices, int) and self.devices > gpus:
            raise ValueError(f"devices={self.devices}: this machine has {gpus} GPU{'s' if gpus > 1 else ''}")
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
        """How many train together."""
        if self.devices == "auto":
            return torch.cuda.device_count() if self.device_type == "cuda" else 1
        return self.devices

    @property
    def device_type(self) -> Literal["cpu", "cuda"]:
        return device_of(self.accelerator)


@checked
def device_of(accelerator: Literal["auto", "cpu", "gpu"]) -> Literal["cpu", "cuda"]:
    """Where a run that is there is used.

    Args:
        accelerator: "auto" takes a CUDA GPU where there is one; "cpu", "gpu".

    Raises:
        UserError: there is no such accelerator, or none on this machine.
    """
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError(f"{NO_GPU}; use accelerator=auto or accelerator=cpu")
    return "cpu" if accelerator == "cpu" or not torch.cuda.is_available() else "cuda"


def build_trainer(
    settings: TrainerSettings, folder: Path, callbacks: Sequence[Callback], loggers: Sequence[Logger]
) -> L.Trainer:
    """A Lightning Trainer that logs, draws and saves only what our own callbacks do."""
    return L.Trainer(
        accelerator=settings.device_type,
        devices=settings.processes,
        strategy=settings.strategy,
        precision=settings.precision,
        max_steps=settings.max_steps,
        max_epochs=settings.max_epochs,
        val_check_interval=settings.val_every_n_steps,
        check_val_every_n_epoch=None if settings.val_every_n_steps else 1,
        gradient_clip_val=settings.gradient_clip_val,
        default_root_dir=folder,
        callbacks=list(callbacks),
        logger=list(loggers),
        # One process needs no cluster: on Slurm, Lightning would take over its signals, and warn where it only sees srun.
        plugins=[WholeCheckpointIO(), *([LightningEnvironment()] if settings.processes == 1 else [])],
        profiler=SimpleProfiler(dirpath=folder, filename="profile") if settings.profile else None,
        # Ours instead: the source's batches are the processes' own already; see TrainBatches.
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=settings.log_every_n_steps,
    )


@contextlib.contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """Computes with so many threads meanwhile; None leaves them as they are."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Without Lightning's advice that does not apply: a texture is made from its index, workers would only cost."""
    library = logging.getLogger("lightning.pytorch")
    level, thread_hook = library.level, threading.excepthook
    library.setLevel(logging.WARNING)
    # TensorBoard's writer is a thread: what it cannot write is raised again where it is handed the next number.
    threading.excepthook = lambda failure: None if isinstance(failure.exc_value, OSError) else thread_hook(failure)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
            # TrainBatches begins where the checkpoint ended.
            warnings.filterwarnings("ignore", ".*checkpoint that ended before the epoch ended.*")
            # Each process scores all of validation and test, and so has the same numbers.
            warnings.filterwarnings("ignore", ".*sync_dist=True.*")
            # On a machine with Slurm, of every training that was not started by it.
            warnings.filterwarnings("ignore", ".*`srun` command is available.*")
            warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
            warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
            yield
    finally:
        library.setLevel(level)
        threading.excepthook = thread_hook
