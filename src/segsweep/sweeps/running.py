"""A sweep while its jobs run, in the process that runs it: what each job came to, and files that keep up with it."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from segsweep.errors import UserError
from segsweep.runs import RunRecord
from segsweep.sweeps.lines import Tally, job_line
from segsweep.sweeps.report import write_tables
from segsweep.sweeps.results import Results
from segsweep.sweeps.state import Job, SweepDirectory, SweepRecord

SHARE = 0.02
"""Of the time, at most, goes into sweep.json and the tables while jobs run, and as much into looking at jobs elsewhere."""

ENDED = ("completed", "failed")


@dataclass
class _Known:
    """What is known of a job.

    Attributes:
        before: when its run.json had been written when the job was heard of, in nanoseconds; None where there was none.
            A job whose run.json was not written since was not reached again.
        written: the same of the run.json that was read last.
        run: that run.json; None where there is none that can be read.
        status, seconds: as they are counted; seconds of completed jobs alone.
        said: whether its line was printed.
    """

    job: Job
    before: int | None
    written: int | None = None
    run: RunRecord | None = None
    status: str = ""
    seconds: float = 0.0
    said: bool = False


class RunningSweep:
    """Keeps in memory what run.json of each job says, so that the end of a job costs the same however many there are.

    run.json is the truth. sweep.json, summary.csv and summary.md follow it as often as `SHARE` allows, and a process that
    is killed leaves them behind it: whoever opens the sweep then reads every run.json.

    Args:
        sweep: the directory.
        record: sweep.json; None where it is not begun yet.
    """

    def __init__(self, sweep: SweepDirectory, record: SweepRecord | None) -> None:
        self.sweep, self.record = sweep, record
        self._known: dict[str, _Known] = {}
        self._open: dict[str, _Known] = {}  # those that have not ended
        self._statuses: Counter[str] = Counter()
        self._seconds = 0.0
        self._heard: int | None = None  # when the sweep.json that is known here was written
        self._changed = False
        self._next_save = 0.0
        self._one_at_a_time = threading.RLock()  # joblib with one process runs jobs in this one, watched all the same
        for job in record.jobs if record is not None else ():
            self.refresh(job)

    @property
    def results(self) -> Results:
        """What is known of the jobs now."""
        assert self.record is not None
        runs = {name: known.run for name, known in self._known.items() if known.run is not None}
        return Results(self.sweep, self.record, runs)

    def job_at(self, directory: str) -> Job | None:
        """The job of a run directory, relative to the sweep's."""
        known = self._known.get(directory)
        return None if known is None else known.job

    def adopt(self, record: SweepRecord) -> list[Job]:
        """Takes over jobs that another process, or another sweeper than ours, has entered into sweep.json; gives these."""
        if self.record is None:
            self.record = record
        new = [job for job in record.jobs if job.directory not in self._known]
        if record is not self.record:
            self.record.jobs += new
            self.record.axes = record.axes
        for job in new:
            self.refresh(job)
        return new

    def refresh(self, job: Job) -> RunRecord | None:
        """Reads run.json of one job; gives it where there is one."""
        written = _written(self.sweep, job)
        known = self._known.setdefault(job.directory, _Known(job, written))
        self._statuses[known.status] -= 1
        self._seconds -= known.seconds
        known.written, known.run, known.status = written, self.sweep.refresh(job), job.status
        known.seconds = known.run.seconds if known.run is not None and job.status == "completed" else 0.0
        self._statuses[known.status] += 1
        self._seconds += known.seconds
        if job.status in ENDED:
            self._open.pop(job.directory, None)
        else:
            self._open[job.directory] = known
        self._changed = True
        return known.run

    def ended(self, job: Job) -> RunRecord | None:
        """Says in one line how a job of this process ended, and saves where that is due; gives its run.json."""
        with self._one_at_a_time:
            found = self.refresh(job)
            self._say(job)
            self.save_if_due()
            return found

    def look(self, over: bool = False) -> None:
        """Finds out which jobs in other processes have ended, and prints their lines.

        Args:
            over: none of them runs any more, so that those which have not ended were interrupted.

        Raises:
            OSError: a file of the sweep cannot be read.
            UserError: sweep.json is damaged.
        """
        with self._one_at_a_time:
            for job in self._written_since(over):
                self.refresh(job)
                if job.status in ENDED or (over and job.status == "interrupted"):
                    self._say(job)

    def _written_since(self, over: bool) -> list[Job]:
        """The jobs whose run.json is another than the one that was read, in the order in which they were written."""
        changed = []
        if self.sweep.record.exists() and (over or self._heard != self.sweep.record.stat().st_mtime_ns):
            self._heard = self.sweep.record.stat().st_mtime_ns
            new = [self._known[job.directory] for job in self.adopt(self.sweep.read())]
            changed += [(known.written or 0, known.job) for known in new if known.status in ENDED]
        for known in self._open.values():
            written = _written(self.sweep, known.job)
            if written != known.written or (over and written != known.before):
                changed.append((written or 0, known.job))
        return [job for _, job in sorted(changed, key=lambda entry: entry[0])]

    def _say(self, job: Job) -> None:
        known, record = self._known[job.directory], self.record
        if known.run is None or record is None or known.said:
            return  # without run.json it was stopped before it began
        known.said = True
        completed = self._statuses["completed"]
        tally = Tally(
            done=completed + self._statuses["failed"],
            left=sum(self._statuses[status] for status in ("pending", "interrupted", "running")),
            seconds=self._seconds / completed if completed else None,
        )
        print(job_line(record, job, known.run, tally), flush=True)

    def save_if_due(self) -> None:
        """Brings sweep.json and the tables up to date, unless that would take more than `SHARE` of the time."""
        with self._one_at_a_time:
            if self.record is not None and self._changed and time.monotonic() >= self._next_save:
                with self._timed():
                    self.sweep.enter(self.record.jobs)
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
        try:
            yield
            self._changed = False
        finally:
            ended = time.monotonic()
            self._next_save = ended + (ended - started) / SHARE


def _written(sweep: SweepDirectory, job: Job) -> int | None:
    """When run.json of a job was written, in nanoseconds; None where there is none."""
    try:
        return sweep.run(job).record.stat().st_mtime_ns
    except OSError:
        return None


current: RunningSweep | None = None
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
            with contextlib.suppress(OSError, UserError):
                running.save_if_due()
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
