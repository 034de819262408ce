"""A sweep while its jobs run, in the process that runs it: what each job came to, and files that keep up with it."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator

from segsweep.errors import UserError
from segsweep.runs import RunRecord
from segsweep.sweeps.lines import Tally, job_line
from segsweep.sweeps.record import Job, SweepDirectory, SweepRecord
from segsweep.sweeps.report import write_tables
from segsweep.sweeps.results import Results

SHARE = 0.02
"""Of the time, at most, goes into sweep.json and the tables while jobs run, and as much into looking at jobs elsewhere."""

ENDED = ("completed", "failed")


class RunningSweep:
    """Keeps in memory what run.json of each job says, so that the end of a job costs the same however many there are.

    run.json is the truth. sweep.json, summary.csv and summary.md follow it as often as `SHARE` allows, and a process that
    is killed leaves them behind it: whoever opens the sweep then reads every run.json.

    Args:
        sweep: the directory.
        record: sweep.json; None where it is not begun yet.
    """

    def __init__(self, sweep: SweepDirectory, record: SweepRecord | None) -> None:
        self.sweep = sweep
        self.record = record
        self._runs: dict[str, RunRecord] = {}
        self._jobs: dict[str, Job] = {}
        self._open: dict[str, Job] = {}
        """Jobs that have not ended."""
        self._read: dict[str, int | None] = {}
        """When each run.json that was read had been written."""
        self._before: dict[str, int | None] = {}
        """The same when the job was heard of: what is not written since was not reached again."""
        self._counted: dict[str, tuple[str, float]] = {}
        self._statuses: Counter[str] = Counter()
        self._seconds = 0.0
        self._heard: int | None = None
        self._changed = False
        self._next_save = 0.0
        for job in record.jobs if record is not None else ():
            self.refresh(job)

    @property
    def results(self) -> Results:
        """What is known of the jobs now."""
        assert self.record is not None
        return Results(self.sweep, self.record, dict(self._runs))

    def job_at(self, directory: str) -> Job | None:
        """The job of a run directory, relative to the sweep's."""
        return self._jobs.get(directory)

    def adopt(self, record: SweepRecord) -> None:
        """Takes over jobs that another process, or another sweeper than ours, has entered into sweep.json."""
        if self.record is None:
            self.record = record
        new = [job for job in record.jobs if job.directory not in self._jobs]
        if record is not self.record:
            self.record.jobs += new
            self.record.axes = record.axes
        for job in new:
            self.refresh(job)

    def refresh(self, job: Job) -> RunRecord | None:
        """Reads run.json of one job; gives it where there is one."""
        name = job.directory
        written = _written(self.sweep, job)
        found = self.sweep.refresh(job)
        if name not in self._jobs:
            self._jobs[name], self._before[name] = job, written
        self._read[name] = written
        self._runs.pop(name, None)
        if found is not None:
            self._runs[name] = found
        status, seconds = self._counted.get(name, ("", 0.0))
        self._statuses[status] -= 1
        self._seconds -= seconds
        self._counted[name] = job.status, found.seconds if found is not None and job.status == "completed" else 0.0
        self._statuses[job.status] += 1
        self._seconds += self._counted[name][1]
        if job.status in ENDED:
            self._open.pop(name, None)
        else:
            self._open[name] = job
        self._changed = True
        return found

    def ended(self, job: Job) -> None:
        """A job of this process has ended: says so in one line, and brings the files up to date where that is due."""
        self.refresh(job)
        self._say(job)
        self.save_if_due()

    def look(self, over: bool = False) -> None:
        """Finds out which jobs in other processes have ended, prints their lines, and saves where that is due.

        Args:
            over: none of them runs any more, so that those which have not ended were interrupted.

        Raises:
            OSError: a file of the sweep cannot be read or written.
            UserError: sweep.json is damaged.
        """
        if self.sweep.record.exists() and (over or self._heard != self.sweep.record.stat().st_mtime_ns):
            self._heard = self.sweep.record.stat().st_mtime_ns
            self.adopt(self.sweep.read())
        changed = []
        for name, job in self._open.items():
            written = _written(self.sweep, job)
            if written != self._read[name] or (over and written != self._before[name]):
                changed.append((written or 0, job))
        for _, job in sorted(changed, key=lambda entry: entry[0]):
            self.refresh(job)
            if job.status in ENDED or (over and job.status == "interrupted"):
                self._say(job)
        self.save_if_due()

    def _say(self, job: Job) -> None:
        found, record = self._runs.get(job.directory), self.record
        if found is None or record is None:
            return  # stopped before it began
        completed = self._statuses["completed"]
        tally = Tally(
            done=completed + self._statuses["failed"],
            left=sum(self._statuses[status] for status in ("pending", "interrupted", "running")),
            seconds=self._seconds / completed if completed else None,
        )
        print(job_line(record, job, found, tally), flush=True)

    def save_if_due(self) -> None:
        """Brings sweep.json and the tables up to date, unless that would take more than `SHARE` of the time."""
        if self.record is not None and self._changed and time.monotonic() >= self._next_save:
            with self._timed():
                self.adopt(self.sweep.enter(self.record.jobs))
                self._heard = self.sweep.record.stat().st_mtime_ns
                write_tables(self.results)

    def save_planned(self) -> None:
        """Writes sweep.json as jobs were planned, and the tables."""
        assert self.record is not None
        with self._timed():
            self.sweep.write(self.record)
            write_tables(self.results)

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._changed = False
        ended = time.monotonic()
        self._next_save = ended + (ended - started) / SHARE


def _written(sweep: SweepDirectory, job: Job) -> int | None:
    """When run.json of a job was written, in nanoseconds; None where there is none."""
    try:
        return sweep.run(job).record.stat().st_mtime_ns
    except OSError:
        return None


here: RunningSweep | None = None
"""The sweep that this process runs; None in the processes of its jobs."""


@contextlib.contextmanager
def watched(running: RunningSweep, every: float = 1.0) -> Iterator[None]:
    """Keeps up with jobs in other processes meanwhile, whose own output goes elsewhere or comes in between.

    Args:
        running: the sweep.
        every: seconds between looks at its jobs; more where a look takes long.
    """
    over = threading.Event()

    def watch() -> None:
        wait = every
        while not over.wait(wait):
            started = time.monotonic()
            look()
            wait = max(every, (time.monotonic() - started) / SHARE)
        look()

    def look() -> None:
        with contextlib.suppress(OSError, UserError):  # not begun yet, or taken away
            running.look(over.is_set())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
