"""A process that trains one configuration, and stops after every turn until it is asked for another."""

import contextlib
import multiprocessing
import signal
import sys
import time
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint

from segsweep.callbacks import ConsoleProgress, EndOfTraining, TrainingLog
from segsweep.console import explain
from segsweep.errors import UserError, first_line
from segsweep.fingerprint import WATCHING
from segsweep.runs import RunDirectory
from segsweep.tasks import SegmentationTask
from segsweep.trainer_settings import cpu_threads, quiet_libraries
from segsweep.training_setup import assemble
from segsweep.user_code import load_code

FIRST_LOSSES = 20
"""Losses that are kept: those of the first steps."""
LONGEST_TURN = 600.0
"""Seconds after which a process is ended. Reading a large folder and compiling are part of the first turn."""
CACHE_SHARES = 8
"""Each process keeps this fraction of `data.cache_gib` in memory: about as many train by turns."""
_SECONDS_TO_END = 5.0


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What a process reports after a turn."""

    seconds: float
    """Of the timed steps of this turn, together."""
    first_step_seconds: float
    """From the start of the training to the end of its first step, compilation included."""
    losses: list[float]
    """Of the first steps of the training so far, at most `FIRST_LOSSES`."""
    peak_bytes: int | None
    """Largest memory so far: of the GPU's tensors, or of the process (resident set) on a CPU; None if not known."""


class Worker:
    """The other end of a process that trains one configuration in turns.

    Args:
        settings: the configuration as plain data.
        directory: the run directory; nothing is written there.
        threads: CPU threads.
    """

    def __init__(self, settings: dict[str, Any], directory: Path, threads: int) -> None:
        # Not a fork of this process, which has threads. The fork server imports torch once for all.
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            context.set_forkserver_preload([__name__])
        self._pipe, other = context.Pipe()
        # Not daemonic: its data loader may have workers.
        self._process = context.Process(  # type: ignore[attr-defined]  # each kind of context has one
            target=train_in_turns, args=(other, settings, directory, threads)
        )
        self._process.start()
        other.close()

    def ask(self, steps: int) -> None:
        """Starts a turn: one step to warm up, and then these timed ones. The first turn begins with the first step."""
        try:
            self._pipe.send(steps)
        except OSError:  # it has ended; `answer` says why
            return

    def answer(self) -> Turn:
        """Waits for the end of a turn.

        Raises:
            UserError: the training failed, or took longer than `LONGEST_TURN`; says why.
        """
        try:
            if not self._pipe.poll(LONGEST_TURN):
                raise UserError(f"its steps took longer than {LONGEST_TURN:g} s")
            answer = self._pipe.recv()
        except (EOFError, OSError):
            raise UserError("its process has died, perhaps for lack of memory") from None
        if isinstance(answer, Turn):
            return answer
        raise UserError(answer)

    def end(self, at_once: bool = False) -> None:
        """Ends the process after its turn, or at once."""
        self._pipe.close()
        if at_once:
            self._process.terminate()
        self._process.join(_SECONDS_TO_END)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def train_in_turns(pipe: Connection, settings: dict[str, Any], directory: Path, threads: int) -> None:
    """The job of the process: the training of `assemble`, without validation, checkpoints, logs and pictures."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which ends its processes
    signal.signal(signal.SIGTERM, _leave)
    warnings.simplefilter("ignore")
    data = settings["data"]
    if data.get("cache") == "memory":
        data["cache"] = "disk"  # all processes share one copy of the decoded images
    if isinstance(data.get("cache_gib"), int | float):  # `assemble` refuses anything else
        data["cache_gib"] /= CACHE_SHARES
    for name in settings["callbacks"].keys() & WATCHING - {"last_checkpoint"}:
        settings["callbacks"][name] = None
    try:
        with quiet_libraries(), cpu_threads(threads):
            load_code(settings.get("code"))
            session = assemble(settings, RunDirectory(directory))
            trainer, session.task.time_budget = session.trainer, None  # EndOfTraining, which starts it, is left out
            unwanted = (Checkpoint, TrainingLog, ConsoleProgress, EndOfTraining)
            kept = [callback for callback in trainer.callbacks if not isinstance(callback, unwanted)]  # type: ignore[attr-defined]
            trainer.callbacks = [*kept, _Turns(pipe)]  # type: ignore[attr-defined]  # the Trainer's own list
            trainer.loggers = []
            trainer.limit_val_batches = 0
            trainer.fit(session.task, session.data)
    except (EOFError, ConnectionError):  # the command has ended
        return
    except Exception as error:
        with contextlib.suppress(ConnectionError):
            pipe.send(explain(error) or f"{type(error).__name__}: {first_line(error)}")


class _Turns(Callback):
    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.losses: list[torch.Tensor] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # The schedule has been built for the configured length; the turns may take more steps than that.
        trainer.fit_loop.max_epochs = -1
        trainer.fit_loop.epoch_loop.max_steps = -1
        signal.signal(signal.SIGTERM, _leave)  # Lightning's own handler waits for the end of a step
        self.script = self._script(pl_module.device)
        next(self.script)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, SegmentationTask)
        assert pl_module.last_loss is not None
        if len(self.losses) < FIRST_LOSSES:
            self.losses.append(pl_module.last_loss)
        next(self.script)

    def _script(self, device: torch.device) -> Generator[None]:
        """Each `yield` is a training step."""
        begun = time.perf_counter()
        yield
        _synchronize(device)
        first_step_seconds = time.perf_counter() - begun
        while True:
            if device.type == "cuda":
                torch.cuda.empty_cache()  # for the processes whose turn it is now
            steps = self.pipe.recv()
            yield  # memory and caches were another's meanwhile
            _synchronize(device)
            begun = time.perf_counter()
            for _ in range(steps):
                yield
            _synchronize(device)
            seconds = time.perf_counter() - begun
            losses, peak = [float(loss) for loss in self.losses], _peak_bytes(device)
            turn = Turn(seconds=seconds, first_step_seconds=first_step_seconds, losses=losses, peak_bytes=peak)
            self.pipe.send(turn)


def _leave(*_: object) -> NoReturn:
    sys.exit()  # unlike a killed process, it removes its semaphores


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
