"""Runs one job of a sweep, in whatever process: skips, resumes or trains it, and records how it ended."""

import contextlib
import logging
import os
import re
import signal
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime

import torch
import yaml
from omegaconf import DictConfig

from segsweep.callbacks import Interrupted, StopOnSignal
from segsweep.errors import UserError
from segsweep.runs import Objective, RunDirectory, RunRecord, objective_mode
from segsweep.runs.stored import typed_overrides
from segsweep.sweeps import running
from segsweep.sweeps.callback import is_worker
from segsweep.sweeps.launchers import abandoned, engine_of, jobs_at_once, runs_locally, threads_of_job
from segsweep.sweeps.plan import UNSWEPT, describe, key_of
from segsweep.sweeps.state import Job, SweepDirectory, SweepRecord, held
from segsweep.trainer_settings import cpu_threads
from segsweep.training import train
from segsweep.training_setup import name_of

log = logging.getLogger(__name__)


def run_job(config: DictConfig, full: DictConfig, sweep: SweepDirectory, run: RunDirectory) -> float | None:
    """Trains the job of a run directory, unless it is completed.

    In another process than the runner's it writes to that directory alone. Two things also go into sweep.json: a job of a
    foreign sweeper, and a failure that on_error=stop acts on.

    A failed job is recorded in its run.json with the traceback, and the next job runs.

    Args:
        config: the job's configuration.
        full: the same, with Hydra's own node.
        sweep: the sweep directory. It has a sweep.json; a job of a foreign sweeper, such as Optuna's, is entered there.
        run: the job's run directory.

    Returns:
        The objective; None if there is none, and for a job that was interrupted in a process of its own.

    Raises:
        Interrupted: a signal asked to stop; last.ckpt holds the state.
        Exception: the job failed, and a foreign sweeper has to know.
    """
    elsewhere = is_worker(full)
    engine, local, parent = engine_of(full.hydra), runs_locally(full.hydra), os.getppid()
    if local and not held(sweep.lock):
        return None  # the sweep was stopped while this job waited
    job, record = _find_job(full, sweep, run)
    planned = job.stage != "other"
    stops = planned and config.get("on_error") == "stop"
    asked = set(record.asked)
    if stops and any(other.status == "failed" for other in record.jobs if other.key in asked):
        return None
    before = _record_of(run)
    if before is not None and before.status == "completed":
        return before.objective.value
    overrides = [override for override in job.overrides if not key_of(override).startswith("hydra")]
    failure: BaseException | None = None
    at_once = record.at_once if planned else jobs_at_once(full, full.hydra.sweeper.get("n_jobs") or 1)
    share_gpus = engine in ("joblib", "submitit_local") and at_once > 1
    if share_gpus and (gpus := torch.cuda.device_count()) > 1 and not torch.cuda.is_initialized():
        # One GPU for each process. CUDA reads the variable once, so a worker that has used a GPU keeps that one.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[job.number % gpus]
    requeue: dict[int, Callable[[int, None], object]] = {}
    if elsewhere:
        # submitit's handlers put a job into the queue again when its time is nearly over or it is preempted.
        handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGUSR1, signal.SIGUSR2)}
        requeue = {signum: handler for signum, handler in handlers.items() if callable(handler)}
        # A terminal sends Ctrl-C to all its processes. Workers ignore it; they stop when the runner releases the lock.
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    signals = (signal.SIGTERM, *requeue) if elsewhere else (signal.SIGINT, signal.SIGTERM)
    stop = StopOnSignal(signals, abandoned(sweep.lock) if local else None)
    share = threads_of_job(engine, at_once)
    threads = None if share is None else min(share, torch.get_num_threads())
    current = running.current
    with _quiet_console(None if current is None else current.warned):
        try:
            with cpu_threads(threads):
                train(config, run.path, overrides, resume=None, wait=True, stop=stop)
        except (Interrupted, KeyboardInterrupt) as error:
            _finish(sweep, job, run)
            if isinstance(error, Interrupted) and (again := requeue.get(error.signum)) is not None:
                again(error.signum, None)  # puts the job into the queue, and ends the process
            if elsewhere:
                if engine == "joblib" and os.getppid() != parent:
                    os._exit(1)  # the runner is gone, and a worker of joblib would wait for work for ever
                return None
            raise
        except BaseException as error:  # also SystemExit and MemoryError: one job must not end the others
            failure = error
            log.debug("the job failed", exc_info=True)
            _record_failure(config, run, overrides, error)
    value = _finish(sweep, job, run)
    if failure is not None and stops and elsewhere:
        sweep.enter([job])  # at once, so that no process begins another job
    if stop.signum is not None and not elsewhere:
        raise Interrupted(stop.signum)  # the signal came after the training had ended
    if isinstance(failure, Exception) and not planned:
        raise failure
    return value


def _record_of(run: RunDirectory) -> RunRecord | None:
    """run.json; None if there is none that can be read."""
    try:
        return RunRecord.read(run.record)
    except (OSError, UserError):
        return None


def _find_job(full: DictConfig, sweep: SweepDirectory, run: RunDirectory) -> tuple[Job, SweepRecord]:
    """The job of this directory, and sweep.json. Enters a job of a foreign sweeper into sweep.json."""
    directory = run.path.resolve().relative_to(sweep.path.resolve()).as_posix()
    current = running.current
    if current is not None and current.record is not None:
        # In the process of the runner sweep.json need not be read, which takes longer the more jobs there are.
        if (known := current.job_at(directory)) is not None:
            return known, current.record
    elif sweep.record.exists():
        there = sweep.read()
        if (known := there.job_at(directory)) is not None:
            return known, there
    overrides = typed_overrides(full)
    job = describe(full, overrides, [key_of(override) for override in overrides])
    job.directory, job.stage = directory, "other"

    def enter(record: SweepRecord) -> None:
        if record.job_at(directory) is None:  # else another process has entered the same trial
            job.number = len(record.jobs)
            record.jobs.append(job)
        typed = [key_of(override) for each in record.jobs for override in each.overrides]
        new = [key for key in dict.fromkeys(typed) if key not in record.axes and key not in UNSWEPT]
        for key in new:
            # A setting that changes no result is not in `settings`: only jobs that it was typed for tell its value.
            counts = any(key in each.settings or key in each.choices for each in record.jobs)
            if len({str(record.value_of(each, key)) for each in record.jobs if counts or key in each.values}) > 1:
                record.axes.append(key)

    objective = str(full.objective)
    begun = sweep.path / "multirun.yaml"  # written by Hydra
    # Read as plain YAML: nothing in it is to be resolved again.
    typed = yaml.safe_load(begun.read_text(encoding="utf-8"))["hydra"]["overrides"] if begun.exists() else None
    # Keep the choice of the sweeper: without it the command would be another one.
    command = [*(o for o in typed["hydra"] if re.match(r"hydra[./]sweeper", o)), *typed["task"]] if typed else []
    first = SweepRecord(
        command, {"name": objective, "mode": objective_mode(objective)},
        name=name_of(full),
        started=datetime.now().astimezone().isoformat(timespec="seconds"), sweeper="other",
    )  # fmt: skip
    record = sweep.update(enter, first)
    if current is not None:
        current.adopt(record)
    entered = record.job_at(directory) if current is None else current.job_at(directory)
    assert entered is not None
    return entered, record


def _record_failure(config: DictConfig, run: RunDirectory, overrides: list[str], error: BaseException) -> None:
    """Records the failure in run.json, if the training did not come far enough to do so."""
    if held(run.lock):
        return  # another process trains there
    record = _record_of(run)
    if record is not None and record.status in ("completed", "failed"):
        return
    if record is None:
        objective, seed = str(config.get("objective")), config.get("seed")
        record = RunRecord(
            status="failed", name=name_of(config), seed=seed if isinstance(seed, int) else 0,
            overrides=overrides, objective=Objective(objective, objective_mode(objective)),
            started=datetime.now().astimezone().isoformat(timespec="seconds"),
        )  # fmt: skip
    record.status = "failed"
    record.error = f"{type(error).__name__}: {error}"
    record.traceback = "".join(traceback.format_exception(error))
    run.path.mkdir(parents=True, exist_ok=True)
    record.write(run.record)


def _finish(sweep: SweepDirectory, job: Job, run: RunDirectory) -> float | None:
    """Reads how the job ended, and returns its objective; in the process of the runner, also prints the job's line."""
    found = sweep.refresh(job) if running.current is None else running.current.ended(job)
    return found.objective.value if found is not None and found.status == "completed" else None


@contextlib.contextmanager
def _quiet_console(warned: set[str] | None) -> Iterator[None]:
    """Keeps the lines of single runs off the console, where a sweep has one line a job; they are in train.log.

    Args:
        warned: warnings that the sweep has shown; each is shown once. None shows no warning.
    """

    def passes(record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING or warned is None:
            return record.levelno > logging.WARNING
        message = record.getMessage()
        new = message not in warned
        warned.add(message)
        return new

    handlers = [h for h in logging.getLogger().handlers if type(h) is logging.StreamHandler]
    for handler in handlers:
        handler.addFilter(passes)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(passes)
