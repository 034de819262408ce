"""Runs one job of a sweep, in any process: skips, resumes or trains it, and records how it ended."""

import contextlib
import logging
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime

import torch
from omegaconf import DictConfig

from segsweep.callbacks import StopOnSignal
from segsweep.errors import Interrupted, UserError
from segsweep.locks import held
from segsweep.root_settings import name_of
from segsweep.runs import Objective, RunDirectory, RunRecord, objective_mode
from segsweep.runs.stored import read_yaml, typed_overrides
from segsweep.sweeps import running
from segsweep.sweeps.callback import is_worker
from segsweep.sweeps.launchers import engine_of, jobs_at_once, lock_watcher, runs_locally, threads_of_job
from segsweep.sweeps.plan import UNSWEPT, job_of, key_of, sweeper_overrides
from segsweep.sweeps.state import Job, SweepDirectory, SweepRecord
from segsweep.trainer_settings import cpu_threads
from segsweep.training import train

log = logging.getLogger(__name__)

DRAWN_AFTER = 75.0
"""Seconds that a job must take for pictures of its own: they take 1.5 s, which is 2 % of that."""


def run_job(config: DictConfig, full: DictConfig, sweep: SweepDirectory, run: RunDirectory) -> float | None:
    """Trains the job of a run directory, unless it is completed.

    A failed job is recorded in its run.json with the traceback, and the next job runs. A worker process writes to the run
    directory alone, with two exceptions that go into sweep.json: a new job of a foreign sweeper, such as Optuna's, and a
    failure under on_error=stop.

    Args:
        config: the configuration of the job.
        full: the same, with Hydra's own node.
        sweep: the sweep directory.
        run: the run directory of the job.

    Returns:
        The objective, also of a job that was completed before; None if the job has none, failed, was skipped, or was
        interrupted in a worker.

    Raises:
        Interrupted: a signal asked to stop; last.ckpt holds the state.
        Exception: the job failed, and the foreign sweeper must be told.
    """
    if (current := running.current) is not None:
        current.stop.raise_if_told()
    in_worker = is_worker(full)
    engine, local = engine_of(full.hydra), runs_locally(full.hydra)
    if local and not held(sweep.lock):
        return None  # the sweep was stopped while this job waited
    job, record = _find_job(full, sweep, run)
    planned = job.stage != "other"
    stop_at_failure = planned and config.get("on_error") == "stop"
    asked = set(record.asked)
    if stop_at_failure and any(other.status == "failed" for other in record.jobs if other.key in asked):
        return None
    before = _read_record(run)
    if before is not None and before.status == "completed":
        return before.objective.value
    overrides = [override for override in job.overrides if not key_of(override).startswith("hydra")]
    at_once = record.at_once if planned else jobs_at_once(full, full.hydra.sweeper.get("n_jobs") or 1)
    if engine in ("joblib", "submitit_local") and at_once > 1:
        take_one_gpu(job.number)
    requeue = _signals_of_worker() if in_worker else {}
    signals = (signal.SIGTERM, *requeue) if in_worker else (signal.SIGINT, signal.SIGTERM)
    # A signal may also have come before the training sets its own handlers.
    asked_to_stop = (
        (lambda: current.stop.signum) if current is not None else lock_watcher(sweep.lock) if local else None
    )
    stop = StopOnSignal(signals, asked_to_stop)
    share = threads_of_job(engine, at_once)
    threads = None if share is None else min(share, torch.get_num_threads())
    interrupted: BaseException | None = None
    failure: BaseException | None = None
    with _quiet_console(None if current is None else current.warned):
        try:
            with cpu_threads(threads):
                if config.trainer.get("precision") == "auto":
                    config.trainer.precision = job.settings["trainer.precision"]
                train(config, run.path, overrides, resume=None, wait=True, stop=stop, draw_after=DRAWN_AFTER)
        except (Interrupted, KeyboardInterrupt) as error:
            interrupted = error
        except BaseException as error:  # also SystemExit and MemoryError: one job must not end the others
            failure = error
            log.debug("the job failed", exc_info=True)
            _record_failure(config, run, overrides, error)
        found = sweep.refresh(job) if current is None else current.ended(job)
    if interrupted is not None:
        if isinstance(interrupted, Interrupted) and (again := requeue.get(interrupted.signum)) is not None:
            again(interrupted.signum, None)  # submitit puts the job into the queue, and ends the process
        if not in_worker:
            raise interrupted
        return None
    if failure is not None and stop_at_failure and in_worker:
        sweep.write_statuses([job])  # now, so that no other process starts a job
    if stop.signum is not None and not in_worker:
        raise Interrupted(stop.signum)  # the signal came after the training had ended
    if isinstance(failure, Exception) and not planned:
        raise failure
    return found.objective.value if found is not None and found.status == "completed" else None


def _signals_of_worker() -> dict[int, Callable[[int, None], object]]:
    """Ignores Ctrl-C, and gives the handlers of the signals that put a job back into a cluster's queue."""
    # A terminal sends Ctrl-C to all its processes. Workers stop when the runner releases the lock of the sweep.
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return requeue_handlers()


def take_one_gpu(number: int) -> None:
    """Gives this process one of several GPUs, by the number of its job.

    CUDA reads CUDA_VISIBLE_DEVICES once, so a worker that has used a GPU keeps it.
    """
    gpus = torch.cuda.device_count()
    if gpus > 1 and not torch.cuda.is_initialized():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[number % gpus]


def requeue_handlers() -> dict[int, Callable[[int, None], object]]:
    """The handlers of submitit, by signal. They put a job that is preempted or nearly out of time into the queue again."""
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGUSR1, signal.SIGUSR2)}
    return {signum: handler for signum, handler in handlers.items() if callable(handler)}


def _read_record(run: RunDirectory) -> RunRecord | None:
    """run.json; None if it is missing or damaged."""
    try:
        return RunRecord.read(run.record)
    except (OSError, UserError):
        return None


def _find_job(full: DictConfig, sweep: SweepDirectory, run: RunDirectory) -> tuple[Job, SweepRecord]:
    """The job of this directory, and sweep.json. Adds the job to sweep.json if a foreign sweeper asks for it."""
    directory = run.path.resolve().relative_to(sweep.path.resolve()).as_posix()
    current = running.current
    if current is not None and current.record is not None:
        # The runner's process has sweep.json in memory; reading it takes longer the more jobs there are.
        there, known = current.record, current.job_at(directory)
    elif sweep.record.exists():
        there = sweep.read()
        known = there.job_at(directory)
    else:
        there, known = None, None
    if known is not None and there is not None:
        return known, there
    first = SweepRecord.new(full, "other")
    overrides = typed_overrides(full)
    job = job_of(full, overrides, [key_of(override) for override in overrides], (there or first).precision)
    job.directory, job.stage = directory, "other"

    def add(record: SweepRecord) -> None:
        if record.job_at(directory) is None:  # else another process has entered the same trial
            job.number = len(record.jobs)
            record.jobs.append(job)
        typed = [key_of(override) for each in record.jobs for override in each.overrides]
        for key in dict.fromkeys(typed):
            if key in record.axes or key in UNSWEPT:
                continue
            # A setting that changes no result is not in `settings`: only jobs that it was typed for have its value.
            counts = any(key in each.settings or key in each.choices for each in record.jobs)
            if len({str(record.value_of(each, key)) for each in record.jobs if counts or key in each.values}) > 1:
                record.axes.append(key)

    multirun = sweep.path / "multirun.yaml"  # written by `runner.hold_for_foreign_sweeper`
    # Read as plain YAML, so that nothing in it is resolved again.
    typed = read_yaml(multirun)["hydra"]["overrides"] if multirun.exists() else None
    if typed:
        first.overrides = [*sweeper_overrides(typed["hydra"]), *typed["task"]]
    record = sweep.update(add, first)
    if current is not None:
        current.adopt(record)
    added = record.job_at(directory) if current is None else current.job_at(directory)
    assert added is not None
    return added, record


def _record_failure(config: DictConfig, run: RunDirectory, overrides: list[str], error: BaseException) -> None:
    """Records the failure in run.json, unless the training has done so."""
    if held(run.lock):
        return  # another process trains in this directory
    record = _read_record(run)
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


@contextlib.contextmanager
def _quiet_console(warned: set[str] | None) -> Iterator[None]:
    """Hides the log lines of single runs: a sweep prints one line per job. train.log has them.

    Args:
        warned: warnings that the sweep has shown already; a new one is shown and added. None shows no warning.
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
