"""One line on the terminal for a job that has ended, wherever it ran."""

import contextlib
import threading
from collections.abc import Iterator

from segsweep.errors import UserError
from segsweep.identity import typed
from segsweep.runs import RunRecord
from segsweep.sweeps.record import Job, SweepDirectory, SweepRecord

_ENDED = ("completed", "failed", "interrupted")


def job_line(sweep: SweepDirectory, record: SweepRecord, job: Job, done: int | None = None) -> str:
    """How a job ended, and how long the others will take: "[2/4] lr=0.1 · val/iou 0.97 · 12 s · about 24 s left".

    Args:
        sweep: the sweep.
        record: its sweep.json.
        job: one of its jobs; has ended.
        done: how many jobs are done; None counts them in `record`.
    """
    found = RunRecord.read(sweep.run(job).record)
    if done is None:
        done = len(_done(record))
    left = [one for one in record.jobs if one.status in ("pending", "interrupted", "running")]
    value = found.objective.value
    if found.status == "completed":
        name = found.objective.name
        # A class that no image of the split shows has no IoU; run.json has null for what is no number.
        outcome = f"{name} is not defined on this validation split" if value is None else f"{name} {value:.4f}"
    else:
        reason = " ".join((found.error or "its process has died").split())
        outcome = reason if job.status == "interrupted" else f"failed: {reason[:160]}"
    # Another sweeper than ours does not say how many jobs there will be, and repeats what it does not vary.
    other = job.stage == "other"
    of = "" if other else f"/{len(record.jobs)}"
    axes = [f"{axis}={typed(record.value_of(job, axis))}" for axis in record.axes] if other else []
    parts = [f"[{done}{of}] {', '.join(axes) or job.name}", outcome, clock(found.seconds)]
    seconds = [RunRecord.read(sweep.run(one).record).seconds for one in record.jobs if one.status == "completed"]
    if left and seconds and not other:
        parts.append(f"about {clock(sum(seconds) / len(seconds) * len(left) / min(record.at_once, len(left)))} left")
    return " · ".join(parts)


def clock(seconds: float) -> str:
    """A duration to read: "42 s", "12 min", "3 h 05 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


@contextlib.contextmanager
def job_lines(sweep: SweepDirectory, every: float = 1.0) -> Iterator[None]:
    """Prints the lines of jobs in other processes meanwhile, whose own output goes elsewhere or comes in between.

    Args:
        sweep: has a sweep.json, which jobs bring up to date when they end.
        every: seconds between looks at it.
    """
    before = sweep.read().jobs if sweep.record.exists() else []
    known = {job.directory for job in before if job.status in ("completed", "failed")}
    cut_off = {job.directory: _end(sweep, job) for job in before if job.status == "interrupted"}
    over = threading.Event()

    def look() -> None:
        try:
            record = sweep.read()
        except (OSError, UserError):  # not begun yet, or taken away
            return
        ended = [job for job in record.jobs if job.status in _ENDED and job.directory not in known]
        for job in sorted(ended, key=lambda job: _end(sweep, job)):
            if job.status == "interrupted" and (not over.is_set() or cut_off.get(job.directory) == _end(sweep, job)):
                continue  # it may be going on yet, or has not been reached again
            known.add(job.directory)
            if sweep.run(job).record.exists():
                done = len({other.directory for other in _done(record)} & known)
                print(job_line(sweep, record, job, done), flush=True)

    def watch() -> None:
        while not over.wait(every):
            look()
        look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _done(record: SweepRecord) -> list[Job]:
    return [job for job in record.jobs if job.status in ("completed", "failed")]


def _end(sweep: SweepDirectory, job: Job) -> float:
    try:
        return sweep.run(job).record.stat().st_mtime
    except OSError:
        return 0.0
