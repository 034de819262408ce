"""Training: from a configuration to a run directory."""

import contextlib
import logging
import math
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from segsweep.absent_classes import absence, objective_warning, scored_classes
from segsweep.callbacks import Interrupted, StopOnSignal
from segsweep.data.source import Split
from segsweep.errors import UserError
from segsweep.fingerprint import data_contents
from segsweep.instantiate import to_plain
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
from segsweep.trainer_settings import cpu_threads, quiet_libraries
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
        record, step = _begun(settings, run, overrides, before)
        stop, threads = stop or StopOnSignal(), settings["trainer"].get("threads")
        if not isinstance(threads, int) or threads < 1:
            threads = None  # a wrong value is refused below, when the trainer is built
        with stop, _recorded(record, run, config, before is not None) as begin, quiet_libraries(), cpu_threads(threads):
            load_code(settings.get("code"))
            session = assemble(settings, run, stop, step)
            stop.raise_if_told()
            cautions = _inspect(record, session, settings)
            begin()
            _announce(record, session, cautions, step)
            _fit(record, session, run, stop, step)
            if session.data.overfit_samples:
                _check_overfit(record, session, run)
            else:
                _note_absent_classes(record, session)
                _require_objective(record, session)
            _test(record, session, run)
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


def _inspect(record: RunRecord, session: Session, settings: dict[str, Any]) -> list[str]:
    """Looks at device and data before the training, so that a file that cannot be read ends it now, and notes them.

    Returns:
        What a person should know before the val and test splits are scored, a line each.
    """
    device, world_size = session.trainer.strategy.root_device, session.trainer.world_size
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({torch.get_num_threads()} threads)"
    record.device = name if world_size == 1 else f"{world_size} x {name}"
    record.precision = session.settings.precision
    record.parameters = sum(parameter.numel() for parameter in session.task.net.parameters())
    # In this order: memory for decoded images goes to the split that asks first.
    splits: list[Split] = ["train"]
    splits += [] if session.data.overfit_samples else ["val"]
    splits += ["test"] if session.settings.test else []
    cautions = session.data.source.cautions(splits)
    for split in splits:
        session.data.source.dataset(split)
    _note_absent_classes(record, session)
    if record.contents is None and _first_process():
        with contextlib.suppress(UserError):  # something beside the images that cannot be read
            record.contents = data_contents(settings["data"])
    return cautions


def _announce(record: RunRecord, session: Session, cautions: list[str], step: int | None) -> None:
    """Logs what is trained, on which data, and what to know of it."""
    for line in session.data.source.describe():
        log.info(line)
    absent = [absence(split, names) for split, names in record.absent_classes.items() if names]
    warning = objective_warning(record.objective.name, record.absent_classes.get("val", []), session.data.source.kind)
    for line in [*cautions, *absent, *([] if warning is None else [warning])]:
        log.warning(line)
    log.info(
        "%s with %s parameters on %s, %s, seed %s", type(session.task.net).__name__, f"{record.parameters:,}",
        record.device, record.precision, record.seed,
    )  # fmt: skip
    if step is not None:
        log.info("continued at step %s", f"{step:,}")


def _fit(record: RunRecord, session: Session, run: RunDirectory, stop: StopOnSignal, step: int | None) -> None:
    """Trains from `step`, or from the beginning, and notes how far it came, however it ends."""
    try:
        session.training_log.seconds_before = record.seconds
        session.trainer.fit(session.task, session.data, ckpt_path=None if step is None else str(run.last))
        stop.raise_if_told()
    except SIGTERMException as error:
        raise Interrupted(signal.SIGTERM) from error  # Lightning saw it first
    finally:
        if session.trainer.global_step >= (step or 0):  # else it was not taken up
            _note_progress(record, session, run)


def _test(record: RunRecord, session: Session, run: RunDirectory) -> None:
    """Scores the best checkpoint on the test split, where the settings ask for it and there is one."""
    if not session.settings.test:
        return
    if not session.data.source.size("test"):
        log.info("no test: the test split is empty")
        return
    try:
        session.trainer.test(session.task, session.data, ckpt_path=str(run.best), verbose=False)
    except SIGTERMException as error:
        raise Interrupted(signal.SIGTERM) from error
    values = session.trainer.callback_metrics.items()
    record.metrics |= {name: float(value) for name, value in values if name.startswith("test/")}
    _note_absent_classes(record, session)


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


def _note_absent_classes(record: RunRecord, session: Session) -> None:
    """Notes the classes that scored splits do not show: as the source says, else as the masks scored so far tell."""
    source, task = session.data.source, session.task
    whole = session.data.limit_samples is None  # else the source's classes may be in samples beyond the limit
    if session.data.overfit_samples:
        return  # what is scored then are training samples
    splits: tuple[Literal["val", "test"], ...] = ("val", "test") if session.settings.test else ("val",)
    for split in (split for split in splits if split not in record.absent_classes and source.size(split)):
        names = source.absent_classes(split) if whole else None
        if names is None and split in task.confusions:
            pixels = task.confusions[split].sum(1).tolist()
            names = [name for name, count in zip(source.labels.names, pixels, strict=True) if not count]
        if names is not None:
            counted = scored_classes(source.labels.names, source.kind)
            record.absent_classes[split] = [name for name in names if name in counted]


def _require_objective(record: RunRecord, session: Session) -> None:
    """Fails a run whose objective never had a value: no checkpoint of it is better than another.

    Raises:
        UserError: says which checkpoints there are.
    """
    best = session.training_log.best
    if best is None or not math.isnan(best.metrics[record.objective.name]):
        return
    absent = record.absent_classes.get("val")
    because = f" ({', '.join(absent)} without a pixel in val)" if absent else ""
    raise UserError(
        f"objective={record.objective.name}: is NaN at every validation{because}, so no checkpoint is the best; best.ckpt "
        f"holds the first, of step {best.step}, last.ckpt that of step {record.steps}. Give a split that has every class, "
        "or another objective, as in objective=val/loss"
    )
