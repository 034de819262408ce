"""Training: from a configuration to a run directory."""

import contextlib
import logging
import math
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig
from torch import OutOfMemoryError

from segsweep.absent_classes import absence, objective_warning
from segsweep.callbacks import StopOnSignal
from segsweep.callbacks.tensorboard import write_texts
from segsweep.console import bars
from segsweep.data.source import Split
from segsweep.errors import Interrupted, UserError, first_line
from segsweep.initial_weights import contents_of
from segsweep.instantiate import to_plain
from segsweep.loggers import tracked
from segsweep.plots import loss_curve, save
from segsweep.resume import previous_run, reopen_failed, require_restorable
from segsweep.root_settings import check_root
from segsweep.runs import RunDirectory, RunRecord, read_metrics
from segsweep.runs.files import is_first_process
from segsweep.runs.stored import read_plain, require_resolved
from segsweep.trainer_settings import auto_precision, cpu_threads, quiet_libraries
from segsweep.training_pictures import draw_run
from segsweep.training_record import note_absent_classes, recorded, start_record
from segsweep.training_setup import Session, assemble, tests_in_own_file
from segsweep.user_code import load_code

log = logging.getLogger(__name__)

OVERFIT_IOU = 0.9
"""An overfit check passes above this iou on its samples."""


def train(
    config: DictConfig,
    directory: Path,
    overrides: Sequence[str] = (),
    *,
    resume: bool | None = False,
    wait: bool = False,
    stop: StopOnSignal | None = None,
    draw_after: float = 0.0,
) -> RunRecord:
    """Trains a configuration, tests its best checkpoint, and writes a run directory.

    Args:
        config: composed from conf/train.yaml.
        directory: the run directory; without `resume` it must not hold a run.
        overrides: what the user typed, for run.json.
        resume: True resumes from last.ckpt, bit for bit as if the run had never been interrupted, or starts from scratch if
            nothing was saved. A completed run is left as it is unless more steps are asked for. None decides once the
            directory is locked: it reopens a failed run (`reopen_failed`), and resumes if there is a run.
        wait: wait for another process that trains in `directory`, instead of refusing.
        stop: ends the training early; None stops at SIGINT and SIGTERM.
        draw_after: draws curves.png and samples.png only of a training that took at least so many seconds.

    Returns:
        The content of run.json.

    Raises:
        UserError: a setting is wrong: nothing was trained, and a run to resume is unchanged. Or the objective was NaN at
            every validation, or the directory was removed.
        DivergedError: the loss was not finite. Checkpoints saved before stay.
        Interrupted: a signal stopped the training. last.ckpt holds the state after the last finished step; after a second
            signal, that of the last save.
    """
    started, settings = time.perf_counter(), to_plain(config)
    check_root(settings)
    run = RunDirectory(directory)
    require_resolved(run.config, settings)
    alone = run.locked(wait) if is_first_process() else contextlib.nullcontext()
    with alone, bars(settings["trainer"].get("progress_bar") is not False):
        if resume is None:
            reopen_failed(run)
            resume = run.record.exists() and run.config.exists()
        if settings["trainer"].get("precision") == "auto":
            config = config.copy()
            config.trainer.precision = settings["trainer"]["precision"] = precision_of(
                settings, run if resume else None
            )
        previous = previous_run(settings, run) if resume else None
        if previous is not None and previous.complete:
            steps = f"{previous.record.steps:,} steps"
            also = "trainer.max_minutes=N or " if previous.record.limited_by_time else ""
            # Not logged: train.log is left as it is.
            print(
                f"{directory}: was complete already ({steps}); {also}trainer.max_steps=N trains it further", flush=True
            )
            return previous.record
        if previous is None and is_first_process() and run.record.exists():
            raise UserError(f"{directory}: already holds a run; resume={directory} continues it")
        record, step = start_record(settings, run, overrides, previous)
        stop, threads = stop or StopOnSignal(), settings["trainer"].get("threads")
        if not isinstance(threads, int) or threads < 1:
            threads = None  # `assemble` refuses a wrong value
        with stop, recorded(record, run, config, step is not None) as ready, quiet_libraries(), cpu_threads(threads):
            load_code(settings.get("code"))
            session = assemble(settings, run, stop, step)
            if step is not None:
                require_restorable(session.task, run, step, session.data.total_steps(session.trainer))
            stop.raise_if_told()
            cautions = inspect_inputs(record, session, settings)
            with tracked(session.trainer, run, settings):
                note_device(record, session)
                ready()
                announce(record, session, settings, cautions, step)
                fit(record, session, run, stop, step)
                if session.data.overfit_samples:
                    check_overfit(record, session, run)
                else:
                    note_absent_classes(record, session)
                    require_objective(record, session)
                score_test_split(record, session, run)
                if time.perf_counter() - started >= draw_after:
                    draw_run(record, session, run)
        return record


def precision_of(settings: dict[str, Any], resumed: RunDirectory | None) -> str:
    """What precision=auto means: the precision of the run to resume, else the best of this machine."""
    stored = read_plain(resumed.config) if resumed is not None and resumed.config.exists() else None
    if isinstance(stored, dict) and isinstance(stored.get("trainer"), dict) and "precision" in stored["trainer"]:
        return str(stored["trainer"]["precision"])
    precision = auto_precision(settings["trainer"].get("accelerator"))
    if precision == "bf16-mixed":
        log.info("trainer.precision=auto: bf16-mixed, because this CPU has AMX")
    return precision


def inspect_inputs(record: RunRecord, session: Session, settings: dict[str, Any]) -> list[str]:
    """Opens every split: an unreadable file ends the run before training. Then notes the data in the record.

    Returns:
        What the user should know about the data before training, one line each.
    """
    # Training first: memory for decoded images goes to the split that asks first.
    splits: list[Split] = ["train"]
    splits += [] if session.data.overfit_samples else ["val"]
    splits += ["test"] if session.settings.test else []
    cautions = session.data.source.cautions(splits)
    for split in splits:
        session.data.source.dataset(split)
    note_absent_classes(record, session)
    if record.contents is None and is_first_process():
        with contextlib.suppress(UserError):  # hashes every file, also unreadable ones that training does not use
            record.contents = contents_of(settings)
    return cautions


def note_device(record: RunRecord, session: Session) -> None:
    """Notes device, precision and size of the net in the record: the run begins."""
    device, world_size = session.trainer.strategy.root_device, session.trainer.world_size
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({torch.get_num_threads()} threads)"
    record.device = name if world_size == 1 else f"{world_size} x {name}"
    record.precision = session.settings.precision
    record.parameters = sum(parameter.numel() for parameter in session.task.net.parameters())


def announce(
    record: RunRecord, session: Session, settings: dict[str, Any], cautions: list[str], step: int | None
) -> None:
    """Logs what is trained, on which data, and all warnings about these; writes the settings to TensorBoard."""
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
    if record.limited_by_time:
        minutes = session.settings.max_minutes
        log.info(
            "trainer.max_minutes=%g: the number of steps depends on the load, so weights are not reproducible", minutes
        )
    if step is not None:
        log.info("resumed at step %s", f"{step:,}")
        return
    configuration = yaml.safe_dump(settings, sort_keys=False)
    write_texts(session.trainer, {"typed": " ".join(record.overrides) or "nothing", "configuration": configuration})


def fit(record: RunRecord, session: Session, run: RunDirectory, stop: StopOnSignal, step: int | None) -> None:
    """Trains from `step`, or from scratch. Notes in the record how far the training came, however it ends."""
    trainer, training_log = session.trainer, session.training_log
    training_log.seconds_before = record.seconds
    try:
        trainer.fit(session.task, session.data, ckpt_path=None if step is None else str(run.last))
        stop.raise_if_told()
    except SIGTERMException as error:  # Lightning's handler came before ours
        raise Interrupted(signal.SIGTERM) from error
    except Exception as error:
        if (
            step is None
            or training_log.started
            or isinstance(error, UserError | OSError | MemoryError | OutOfMemoryError)
        ):
            raise
        raise UserError(  # Lightning raises anything for a state that it cannot restore
            f"{run.last}: does not fit this run ({first_line(error)}); put the run's own last.ckpt back, or remove "
            "this one to start from scratch"
        ) from error
    finally:
        if trainer.global_step >= (step or 0):  # else the checkpoint was not loaded
            record.steps, record.steps_per_second = trainer.global_step, training_log.steps_per_second
            record.seconds = training_log.seconds_before  # a killed session left its seconds in last.ckpt alone
            record.metrics |= {name: value for name, value in training_log.latest.items() if name.startswith("train/")}
            if "val" in session.task.confusions:
                record.scored_pixels["val"] = int(session.task.confusions["val"].sum())
            if (best := training_log.best) is not None:
                record.metrics |= best.metrics
                objective, recent = record.objective, training_log.recent
                record.best_step, objective.best = best.step, best.metrics[objective.name]
                if recent:  # else resumed from a checkpoint of an early version
                    objective.last, objective.mean_last_3 = recent[-1], math.fsum(recent) / len(recent)
                objective.value = getattr(objective, objective.at)
            if run.best.exists():
                record.best_checkpoint = str(run.best.relative_to(run.path))


def check_overfit(record: RunRecord, session: Session, run: RunDirectory) -> None:
    """Records whether the net memorised its few samples (iou above OVERFIT_IOU), and draws the loss."""
    if not session.trainer.is_global_zero:
        return
    save(loss_curve(read_metrics(run.metrics)), run.path / "loss_curve.png")
    iou = record.metrics["val/iou"]
    record.overfit_check = "passed" if iou > OVERFIT_IOU else "failed"
    foreground = record.metrics.get("val/foreground_iou")
    task = session.task
    scored = f"of {task.labels.names[1]}" if task.kind == "binary" else "over the classes present"
    log.info(
        "overfit check %s: iou %.4f %s (above %s passes)%s on %s samples, step %s of %s, %s; see %s",
        record.overfit_check, iou, scored, OVERFIT_IOU,
        "" if foreground is None else f", foreground_iou {foreground:.4f}", session.data.overfit_samples,
        record.best_step, record.steps, type(session.trainer.optimizers[0]).__name__, run.path / "loss_curve.png",
    )  # fmt: skip


def require_objective(record: RunRecord, session: Session) -> None:
    """Fails a run whose objective was NaN at every validation, so that no checkpoint is better than another.

    Raises:
        UserError: names the checkpoints that exist.
    """
    best = session.training_log.best
    if best is None or not math.isnan(best.metrics[record.objective.name]):
        return
    absent = record.absent_classes.get("val")
    because = f" ({', '.join(absent)} without a pixel in val)" if absent else ""
    raise UserError(
        f"objective={record.objective.name}: is NaN at every validation{because}, so there is no best checkpoint; "
        f"best.ckpt is of step {best.step}, last.ckpt of step {record.steps}. Give a val split that has every class, or "
        "another objective, as in objective=val/loss"
    )


def score_test_split(record: RunRecord, session: Session, run: RunDirectory) -> None:
    """Scores the best checkpoint on the test split, unless `trainer.test` is off or the split is empty."""
    if not session.settings.test:
        return
    if not session.data.source.size("test"):
        log.info("no test: the test split is empty")
        return
    tests_in_own_file(session.trainer, run)
    try:
        session.trainer.test(session.task, session.data, ckpt_path=str(run.best), verbose=False)
    except SIGTERMException as error:
        raise Interrupted(signal.SIGTERM) from error
    values = session.trainer.callback_metrics.items()
    record.metrics |= {name: float(value) for name, value in values if name.startswith("test/")}
    note_absent_classes(record, session)
