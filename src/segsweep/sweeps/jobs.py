"""One job of a sweep, in whatever process it runs: done before, continued, or trained, and always recorded."""

import contextlib
import logging
import os
import re
import signal
import traceback
from collections.abc import Callable
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
    """Trains the job whose run directory is `run`, unless it is completed; its own run.json is all that it writes.

    A job that fails, whatever the way, is recorded with its traceback, and the next one runs.

    Args:
        config: the job's configuration.
        full: the same with Hydra's own node.
        sweep: the sweep; has a sweep.json, or gets one where another sweeper than ours asked for the job.
        run: the job's run directory.

    Returns:
        The objective; None where there is none, and where a job in a process of its own was interrupted: the others end
        by themselves.

    Raises:
        Interrupted: a signal asked to stop; last.ckpt holds the state.
        Exception: the job failed, and another sweeper than ours has to know.
    """
    elsewhere = is_worker(full)
    engine, local, parent = engine_of(full.hydra), runs_locally(full.hydra), os.getppid()
    if local and not held(sweep.lock):
        return None  # the sweep was stopped while this job waited
    job, record = _find(full, sweep, run)
    planned = job.stage != "other"
    stops = planned and config.get("on_error") == "stop"
    if stops and _one_failed(record):
        return None
    before = _record_of(run)
    if before is not None and before.status == "completed":
        return before.objective.value
    overrides = [override for override in job.overrides if not key_of(override).startswith("hydra")]
    failure: BaseException | None = None
    at_once = record.at_once if planned else jobs_at_once(full, full.hydra.sweeper.get("n_jobs") or 1)
    if engine in ("joblib", "submitit_local") and at_once > 1:
        _take_a_gpu(job.number)
    requeue = _requeue_handlers() if elsewhere else {}
    if elsewhere:
        # Ctrl-C goes to all processes of a terminal; the one that it is meant for lets go of the sweep's lock.
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop = StopOnSignal(
        (signal.SIGTERM, *requeue) if elsewhere else (signal.SIGINT, signal.SIGTERM),
        abandoned(sweep.lock) if local else None,
    )
    share = threads_of_job(engine, at_once)
    quiet = _quiet_console()
    try:
        with cpu_threads(None if share is None else min(share, torch.get_num_threads())):
            train(config, run.path, overrides, resume=None, wait=True, stop=stop)
    except (Interrupted, KeyboardInterrupt) as error:
        _finish(sweep, job, run)
        if isinstance(error, Interrupted) and (again := requeue.get(error.signum)) is not None:
            again(error.signum, None)  # has the job started again, and ends the process
        if elsewhere:
            if engine == "joblib" and os.getppid() != parent:
                os._exit(1)  # nobody waits for this worker any more, and it would not notice
            return None
        raise
    except BaseException as error:  # SystemExit and MemoryError too: one job must not end the others
        failure = error
        log.debug("the job failed", exc_info=True)
        _record_failure(config, run, overrides, error)
    finally:
        quiet()
    value = _finish(sweep, job, run)
    if failure is not None and stops and elsewhere:
        sweep.enter([job])  # now, so that no process begins another one
    if stop.signum is not None and not elsewhere:
        raise Interrupted(stop.signum)  # it came when there was nothing left to stop
    if isinstance(failure, Exception) and not planned:
        raise failure
    return value


def _record_of(run: RunDirectory) -> RunRecord | None:
    """run.json; None where there is none that can be read."""
    try:
        return RunRecord.read(run.record)
    except (OSError, UserError):
        return None


def _find(full: DictConfig, sweep: SweepDirectory, run: RunDirectory) -> tuple[Job, SweepRecord]:
    """The job of this directory, and sweep.json; a job that another sweeper than ours asks for is entered there."""
    directory = run.path.resolve().relative_to(sweep.path.resolve()).as_posix()
    current = running.current
    if current is not None and current.record is not None:
        # Without reading sweep.json, which is the longer the more jobs there are.
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
        if record.job_at(directory) is None:  # else another process was faster with the same trial
            job.number = len(record.jobs)
            record.jobs.append(job)
        typed = [key_of(override) for each in record.jobs for override in each.overrides]
        new = [key for key in dict.fromkeys(typed) if key not in record.axes and key not in UNSWEPT]
        record.axes += [key for key in new if _varies(record, key)]

    objective = str(full.objective)
    begun = sweep.path / "multirun.yaml"  # by Hydra
    # As text: an interpolation in it was resolved where it was typed.
    typed = yaml.safe_load(begun.read_text(encoding="utf-8"))["hydra"]["overrides"] if begun.exists() else None
    # Without the sweeper the command would be another one.
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


def _varies(record: SweepRecord, key: str) -> bool:
    # What no result depends on is only known of jobs that it was typed for.
    counts = any(key in job.settings or key in job.choices for job in record.jobs)
    return len({str(record.value_of(job, key)) for job in record.jobs if counts or key in job.values}) > 1


def _one_failed(record: SweepRecord) -> bool:
    asked = set(record.asked)
    return any(job.status == "failed" for job in record.jobs if job.key in asked)


def _record_failure(config: DictConfig, run: RunDirectory, overrides: list[str], error: BaseException) -> None:
    """Says in run.json that the job failed, where its training did not come so far as to say it."""
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
    """Gives the objective of a job that has ended, and tells the process that runs the sweep, unless it looks itself."""
    found = sweep.refresh(job) if running.current is None else running.current.ended(job)
    return found.objective.value if found is not None and found.status == "completed" else None


def _requeue_handlers() -> dict[int, Callable[[int, None], object]]:
    """What submitit does at the signal that announces the end of a job's time, or preemption, by that signal."""
    found = {signum: signal.getsignal(signum) for signum in (signal.SIGUSR1, signal.SIGUSR2)}
    return {signum: handler for signum, handler in found.items() if callable(handler)}


def _take_a_gpu(number: int) -> None:
    """Leaves this process one GPU of several, by the job's number; nothing where it has begun to use one."""
    if (there := torch.cuda.device_count()) > 1 and not torch.cuda.is_initialized():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(there)))
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[number % there]


def _quiet_console() -> Callable[[], None]:
    """Keeps the lines of single runs to their logs: a sweep has one line a job."""
    handlers = [h for h in logging.getLogger().handlers if type(h) is logging.StreamHandler]
    levels = [handler.level for handler in handlers]
    for handler in handlers:
        handler.setLevel(logging.ERROR)

    def restore() -> None:
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)

    return restore
