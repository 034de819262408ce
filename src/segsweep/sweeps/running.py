"""Follows the jobs of a sweep while they run: prints a line for each that ended, and keeps the tables up to date."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from segsweep.callbacks import StopOnSignal
from segsweep.errors import UserError
from segsweep.runs import RunRecord
from segsweep.sweeps.report import write_tables
from segsweep.sweeps.report_text import Tally, job_line
from segsweep.sweeps.results import Results
from segsweep.sweeps.state import ENDED, Job, SweepDirectory, SweepRecord

SHARE = 0.02
"""Largest share of the time for writing sweep.json and the tables, and for checking jobs in other processes."""


@dataclass
class KnownJob:
    """A job, as it was when its run.json was last read. Times are modification times of that file, in nanoseconds.

    Attributes:
        before: the time when the job became known; None if there was no file. If it is the same at the end, the job did not
            run.
        written: the time when the file was last read.
        run: run.json; None if it is missing or damaged.
        status: as counted in the totals.
        seconds: as counted in the totals; 0 unless completed.
        printed: whether the job's line was printed.
    """

    job: Job
    before: int | None
    written: int | None = None
    run: RunRecord | None = None
    status: str = ""
    seconds: float = 0.0
    printed: bool = False


class RunningSweep:
    """Keeps run.json of each job in memory, so that the end of a job costs the same with ten jobs and with ten thousand.

    sweep.json and the tables are written as often as `SHARE` allows. If this process is killed they are out of
    date, so whoever opens the sweep later reads every run.json.

    Args:
        sweep: the sweep directory.
        record: sweep.json; None if there is none yet.
    """

    def __init__(self, sweep: SweepDirectory, record: SweepRecord | None) -> None:
        self.warned: set[str] = set()
        """Warnings of jobs that the console has shown; each is shown once."""
        self.stop = StopOnSignal()
        """Notes a signal that comes between jobs of this process."""
        self.sweep, self.record = sweep, record
        self._known: dict[str, KnownJob] = {}
        self._open: dict[str, KnownJob] = {}  # jobs that have not ended
        self._statuses: Counter[str] = Counter()
        self._seconds = 0.0
        self._record_written: int | None = None  # modification time of the sweep.json that was read last
        self._changed = False
        self._next_save = 0.0
        # With n_jobs=1 joblib runs jobs in this process, beside the thread of `watched`.
        self._one_at_a_time = threading.RLock()
        for job in record.jobs if record is not None else ():
            self.refresh(job)

    @property
    def results(self) -> Results:
        """The results so far."""
        assert self.record is not None
        runs = {name: known.run for name, known in self._known.items() if known.run is not None}
        return Results(self.sweep, self.record, runs)

    def job_at(self, directory: str) -> Job | None:
        """The job with this run directory, which is relative to the sweep directory."""
        known = self._known.get(directory)
        return None if known is None else known.job

    def adopt(self, record: SweepRecord) -> list[Job]:
        """Takes over jobs that another process or a foreign sweeper added to sweep.json; returns the new ones."""
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
        """Reads run.json of a job again and returns it; None if it is missing or damaged."""
        written = self._time_written(job)
        known = self._known.setdefault(job.directory, KnownJob(job, written))
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
            known.printed = False  # a job that is tried again gets another line
        self._changed = True
        return known.run

    def _time_written(self, job: Job) -> int | None:
        """Modification time of a job's run.json, in nanoseconds; None if there is none."""
        try:
            return self.sweep.run(job).record.stat().st_mtime_ns
        except OSError:
            return None

    def ended(self, job: Job) -> RunRecord | None:
        """Reads and returns run.json of a job that ended in this process, prints its line, and saves if that is due."""
        with self._one_at_a_time:
            found = self.refresh(job)
            self._print_line(job)
            self.save_if_due()
            return found

    def check_workers(self, over: bool = False) -> None:
        """Finds the jobs in other processes that have ended, and prints their lines in the order of their ends.

        Args:
            over: no job runs any more, so jobs that have not ended were interrupted.

        Raises:
            OSError: a file of the sweep cannot be read.
            UserError: sweep.json is damaged.
        """
        with self._one_at_a_time:
            changed: list[tuple[int, KnownJob]] = []
            if self.sweep.record.exists() and (over or self._record_written != self.sweep.record.stat().st_mtime_ns):
                self._record_written = self.sweep.record.stat().st_mtime_ns
                new = [self._known[job.directory] for job in self.adopt(self.sweep.read())]
                changed += [(known.written or 0, known) for known in new if known.status in ENDED]
            for known in self._open.values():
                written = self._time_written(known.job)
                if written != known.written or (over and written != known.before):
                    changed.append((written or 0, known))
            for _, known in sorted(changed, key=lambda entry: entry[0]):
                self.refresh(known.job)
                if known.status in ENDED or (over and known.status == "interrupted"):
                    self._print_line(known.job)

    def _print_line(self, job: Job) -> None:
        known, record = self._known[job.directory], self.record
        if known.run is None or record is None or known.printed:
            return  # a job without run.json never started
        known.printed = True
        completed = self._statuses["completed"]
        tally = Tally(
            done=completed + self._statuses["failed"],
            left=sum(self._statuses[status] for status in ("pending", "interrupted", "running")),
            seconds=self._seconds / completed if completed else None,
        )
        print(job_line(record, job, known.run, tally), flush=True)

    def save_if_due(self) -> None:
        """Brings sweep.json and the tables up to date, unless writing would take more than `SHARE` of the time."""
        with self._one_at_a_time:
            if self.record is not None and self._changed and time.monotonic() >= self._next_save:
                with self._save_timed():
                    self.sweep.write_statuses(self.record.jobs)

    def save_planned(self) -> None:
        """Writes sweep.json with the planned jobs, and the tables."""
        assert self.record is not None
        with self._save_timed():
            self.sweep.write(self.record)

    @contextlib.contextmanager
    def _save_timed(self) -> Iterator[None]:
        """Writes the tables after the block, and sets the time of the next save by how long all of it took."""
        started = time.monotonic()
        try:
            yield
            write_tables(self.results)
            self._changed = False
        finally:
            ended = time.monotonic()
            self._next_save = ended + (ended - started) / SHARE


current: RunningSweep | None = None
"""The sweep that this process runs; None in a worker."""


@contextlib.contextmanager
def watched(running: RunningSweep, every: float = 1.0) -> Iterator[None]:
    """Checks jobs in other processes while they run, prints their lines and keeps the tables up to date; in a thread.

    Args:
        running: the sweep.
        every: seconds between two checks; more if a check takes long.
    """
    over = threading.Event()

    def watch() -> None:
        wait = every
        while not over.wait(wait):
            started = time.monotonic()
            check()
            wait = max(every, (time.monotonic() - started) / SHARE)
            with contextlib.suppress(OSError, UserError):
                running.save_if_due()
        check()

    def check() -> None:
        with contextlib.suppress(OSError, UserError):  # the sweep has not started, or was deleted
            running.check_workers(over.is_set())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
