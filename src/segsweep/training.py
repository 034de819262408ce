"""Training: from a configuration to a run directory."""

import contextlib
import logging
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from segsweep.callbacks import Interrupted, StopOnSignal
from segsweep.data.seeds import Split
from segsweep.errors import UserError
from segsweep.fingerprint import data_contents
from segsweep.instantiate import to_plain
from segsweep.objective import absence_lines, note_absent_classes, require_objective
from segsweep.plots import loss_curve, save
from segsweep.resume import Continued, continued, last_step, reopen_failed
from segsweep.runs import (
    Objective,
    RunDirectory,
    RunRecord,
    git_state,
    objective_mode,
    read_metrics,
    versions,
)
from segsweep.runs.files import write_text
from segsweep.runs.stored import require_resolved
from segsweep.trainer_settings import cpu_threads
from segsweep.training_setup import Session, assemble, check_root
from segsweep.user_code import load_code

log = logging.getLogger(__name__)

OVERFIT_IOU = 0.9
"""What a net must exceed on the samples that it is to learn by heart."""


def train(
    config: DictConfig,
    directory: Path,
    overrides: Sequence[str] = (),
    *,
    resume: bool | None = False,
    wait: bool = False,
    stop: StopOnSignal | None = None,
) -> RunRecord:
    """Trains what the configuration says, validates, tests the best checkpoint and leaves a run directory.

    Args:
        config: as composed from conf/train.yaml.
        directory: the run directory; exists, and holds no run yet, unless `resume`.
        overrides: what the user typed, for run.json.
        resume: go on from last.ckpt in `directory`, bit for bit as if it had never been cut off; from the beginning where
            nothing was saved. A run that is completed, and is asked for no more steps, is left as it is. None: go on where
            there is a run by the time that nobody else trains there, with one that failed as `reopen_failed` says.
        wait: until another process that trains in `directory` has ended, instead of refusing.
        stop: what ends the training early; None is SIGINT and SIGTERM.

    Returns:
        The content of run.json.

    Raises:
        UserError: a setting is wrong; nothing was trained, and a run that was to go on is as it was.
        DivergedError: the loss was not finite; what was saved before stays.
        Interrupted: SIGINT or SIGTERM; last.ckpt holds the state after the last finished step.
    """
    settings = to_plain(config)
    check_root(settings)
    run = RunDirectory(directory)
    require_resolved(run.config, settings)
    with run.locked(wait) if _first_process() else contextlib.nullcontext():
        if resume is None:
            reopen_failed(run)
            resume = run.record.exists() and run.config.exists()
        before = continued(settings, run) if resume else None
        if before is not None and before.complete:
            return before.record
        if before is None and _first_process() and run.record.exists():
            raise UserError(f"{directory}: already holds a run; resume={directory} continues it")
        return _train(config, settings, run, overrides, before, stop or StopOnSignal())


def _train(
    config: DictConfig,
    settings: dict[str, Any],
    run: RunDirectory,
    overrides: Sequence[str],
    before: Continued | None,
    stop: StopOnSignal,
) -> RunRecord:
    record, step = _begun(settings, run, overrides, before)
    with stop, _recorded(record, run, config, before is not None) as begin, quiet_libraries(), _threads(settings):
        load_code(settings.get("code"))
        session = assemble(settings, run, stop, step)
        stop.raise_if_told()
        record.parameters = sum(parameter.numel() for parameter in session.task.net.parameters())
        record.device = _device_name(session.trainer)
        record.precision = session.settings.precision
        cautions = _read_splits(session)
        note_absent_classes(record, session)
        if record.contents is None and _first_process():
            with contextlib.suppress(UserError):  # something beside the images that cannot be read
                record.contents = data_contents(settings["data"])
        begin()
        for line in session.data.source.describe():
            log.info(line)
        for line in [*cautions, *absence_lines(record, session)]:
            log.warning(line)
        log.info(
            "%s with %s parameters on %s, %s, seed %s", type(session.task.net).__name__, f"{record.parameters:,}",
            record.device, record.precision, record.seed,
        )  # fmt: skip
        if step is not None:
            log.info("continued at step %s", f"{step:,}")
        try:
            session.training_log.seconds_before = record.seconds
            session.trainer.fit(session.task, session.data, ckpt_path=None if step is None else str(run.last))
            stop.raise_if_told()
        except SIGTERMException as error:
            raise Interrupted(signal.SIGTERM) from error  # Lightning saw it first
        finally:
            if session.trainer.global_step >= (step or 0):  # else it was not taken up
                _note_progress(record, session, run)
        if session.data.overfit_samples:
            _check_overfit(record, session, run)
        else:
            note_absent_classes(record, session)
            require_objective(record, session)
        if session.settings.test and not session.data.source.size("test"):
            log.info("no test: the test split is empty")
        elif session.settings.test:
            try:
                session.trainer.test(session.task, session.data, ckpt_path=str(run.best), verbose=False)
            except SIGTERMException as error:
                raise Interrupted(signal.SIGTERM) from error
            record.metrics |= _metrics(session.trainer, "test/")
            note_absent_classes(record, session)
    return record


def _begun(
    settings: dict[str, Any], run: RunDirectory, overrides: Sequence[str], before: Continued | None
) -> tuple[RunRecord, int | None]:
    """The record to start with, and the step that an earlier session of the run came to."""
    record = RunRecord(
        status="running",
        name=settings["name"],
        seed=settings["seed"],
        overrides=list(overrides),
        objective=Objective(settings["objective"], objective_mode(str(settings["objective"]))),
        started=datetime.now().astimezone().isoformat(timespec="seconds"),
        versions=versions(),
        git=git_state(Path(__file__).parent),
    )
    if before is None:
        return record, None
    step, earlier = last_step(settings, run), before.record
    record.started, record.seconds, record.metrics = earlier.started, earlier.seconds, earlier.metrics
    record.objective.value, record.steps = earlier.objective.value, earlier.steps
    record.best_checkpoint, record.best_step = earlier.best_checkpoint, earlier.best_step
    record.continued_at = [*earlier.continued_at, step]
    record.contents, record.absent_classes = earlier.contents, earlier.absent_classes
    return record, step


def _read_splits(session: Session) -> list[str]:
    """Finds a file that cannot be read before the training; gives what a person should know of the scored splits."""
    # In this order, because memory for decoded images goes to who comes first.
    wanted: dict[Split, bool] = {
        "train": True, "val": not session.data.overfit_samples, "test": session.settings.test
    }  # fmt: skip
    splits = [split for split, is_wanted in wanted.items() if is_wanted]
    cautions = session.data.source.cautions(splits)
    for split in splits:
        session.data.source.dataset(split)
    return cautions


def _threads(settings: dict[str, Any]) -> contextlib.AbstractContextManager[None]:
    number = settings["trainer"].get("threads")
    # Anything else is refused in a moment.
    return cpu_threads(number if isinstance(number, int) and number > 0 else None)


@contextlib.contextmanager
def _recorded(
    record: RunRecord, run: RunDirectory, config: DictConfig, continued: bool
) -> Iterator[Callable[[], None]]:
    """Keeps run.json true: running from the start, and at the end how it ended.

    Gives what notes that all is ready: before that, a run that is continued keeps what its files say of it.
    """
    if not _first_process():
        yield lambda: None
        return
    started, begun = time.perf_counter(), False

    def begin() -> None:
        nonlocal begun
        begun = True
        run.path.mkdir(parents=True, exist_ok=True)
        write_text(run.config, OmegaConf.to_yaml(config, resolve=True))
        record.write(run.record)

    try:
        if not continued:
            begin()
        yield begin
        record.status = "completed"
    except Interrupted as interruption:
        record.status, record.error = "interrupted", str(interruption)
        raise
    except BaseException as error:
        record.status, record.error = "failed", f"{type(error).__name__}: {error}"
        record.traceback = traceback.format_exc()
        log.debug("the run failed", exc_info=True)
        if not run.path.exists():
            raise UserError(f"{run.path}: was removed while the training wrote there; start it again") from error
        raise
    finally:
        record.seconds += time.perf_counter() - started
        if begun and run.path.exists():
            try:
                record.write(run.record)
            except OSError as error:
                log.error("%s could not be written: %s", run.record, error)


def _note_progress(record: RunRecord, session: Session, run: RunDirectory) -> None:
    """What is known of a training that ended, however it did."""
    training_log = session.training_log
    record.steps = session.trainer.global_step
    record.steps_per_second = training_log.steps_per_second
    record.seconds = training_log.seconds_before  # a session that was killed has not written its own
    record.metrics |= {name: value for name, value in training_log.latest.items() if name.startswith("train/")}
    if training_log.best is not None:
        record.metrics |= training_log.best.metrics
        record.best_step = training_log.best.step
        record.objective.value = training_log.best.metrics[record.objective.name]
    if run.best.exists():
        record.best_checkpoint = str(run.best.relative_to(run.path))


def _first_process() -> bool:
    """Whether this process is the one that writes; the others of a ddp training are started with a rank."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0


def _check_overfit(record: RunRecord, session: Session, run: RunDirectory) -> None:
    """Whether a few samples were learnt by heart, by the mean IoU over the classes present in them; draws the loss."""
    if not session.trainer.is_global_zero:
        return
    save(loss_curve(read_metrics(run.metrics)), run.path / "loss_curve.png")
    iou = record.metrics["val/iou"]
    record.overfit_check = "passed" if iou > OVERFIT_IOU else "failed"
    foreground = record.metrics.get("val/foreground_iou")
    log.info(
        "overfit check %s: iou %.4f over the classes present (above %s passes)%s on %s samples, step %s of %s, %s; see %s",
        record.overfit_check, iou, OVERFIT_IOU,
        "" if foreground is None else f", foreground_iou {foreground:.4f}", session.data.overfit_samples,
        record.best_step, record.steps, type(session.trainer.optimizers[0]).__name__, run.path / "loss_curve.png",
    )  # fmt: skip


def _metrics(trainer: L.Trainer, prefix: str) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(prefix)}


def _device_name(trainer: L.Trainer) -> str:
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({torch.get_num_threads()} threads)"
    return name if trainer.world_size == 1 else f"{trainer.world_size} x {name}"


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
