"""A sweep from its start to its report, in the process that the command was typed in."""

import contextlib
import copy
import logging
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from segsweep.callbacks import Interrupted
from segsweep.console import evaluation, explain, hydra_argument, quoted, relative
from segsweep.errors import UserError
from segsweep.resume import reopen_failed
from segsweep.runs import objective_mode
from segsweep.sweeps import running
from segsweep.sweeps.launchers import batches, engine_of, jobs_at_once, runs_locally, settle_optuna
from segsweep.sweeps.plan import UNSWEPT, SeveralProcessesError, add, broken, describe, require_same_kind
from segsweep.sweeps.results import Results
from segsweep.sweeps.running import ENDED, RunningSweep, watched
from segsweep.sweeps.scored import Scoring, scoring
from segsweep.sweeps.state import Job, SweepDirectory, SweepRecord, held
from segsweep.training_setup import name_of

log = logging.getLogger(__name__)


class SweepRunner:
    """Plans jobs, hands those that are not done to Hydra's launcher, and keeps sweep.json.

    Args:
        hydra_context: Hydra's.
        task_function: the entry point's.
        config: as composed for the sweep, with Hydra's own node.
        sweeper: name of what searches.
    """

    def __init__(
        self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig, sweeper: str
    ) -> None:
        self.config = config
        self.context = hydra_context
        self.sweeper = sweeper
        self.sweep = SweepDirectory(Path(str(config.hydra.sweep.dir)))
        self.stopped = False
        """Whether on_error=stop has ended the sweep."""
        self.planned = False
        """Whether there are jobs to report."""
        self._task = task_function
        self._same_kind = False  # until the first jobs are asked for: what is not swept stays as it is in one command
        self.engine = engine_of(config.hydra)

    @contextlib.contextmanager
    def begun(self, typed: Sequence[str], axes: Sequence[str]) -> Iterator[None]:
        """Holds the sweep directory while jobs are planned and run.

        Raises:
            UserError: a key cannot be swept, or another process runs the same sweep.
        """
        new = not self.sweep.path.exists() or not any(self.sweep.path.iterdir())
        refused = [f"{key}: cannot be swept, {reason}" for key, reason in UNSWEPT.items() if key in axes]
        if self.config.get("resume") is not None:
            refused.append(f"resume={self.config.resume}: {UNSWEPT['resume']}")
        if refused:
            if new:
                _remove_if_empty(self.sweep.path)
            raise UserError(refused[0])
        self.sweep.path.mkdir(parents=True, exist_ok=True)
        with self.sweep.locked() as self._lock:
            try:
                record = self.sweep.read() if self.sweep.record.exists() else self._new()
                record.overrides = list(typed)
                record.axes = list(dict.fromkeys([*record.axes, *axes]))
                # What could not be composed before is there again if it is asked for again.
                record.jobs = [job for job in record.jobs if job.settings]
                self.record = record
                yield
            finally:
                running.current = None
                if new and not self.sweep.record.exists():
                    _remove_if_empty(self.sweep.path)

    def _new(self) -> SweepRecord:
        objective = str(self.config.objective)
        return SweepRecord(
            overrides=[], objective={"name": objective, "mode": objective_mode(objective)},
            name=name_of(self.config), started=datetime.now().astimezone().isoformat(timespec="seconds"),
            sweeper=self.sweeper,
        )  # fmt: skip

    def run(self, job_overrides: Sequence[Sequence[str]], stage: str | None = None) -> list[Job]:
        """Runs the jobs with these overrides that are not completed, and gives all of them as they then are.

        Raises:
            UserError: the jobs belong to a sweep of another kind, or train in several processes, or none can be composed.
        """
        wanted = [self._compose(overrides) for overrides in job_overrides]
        if wanted and not any(job.settings for job in wanted):
            raise UserError(wanted[0].error)
        for job in wanted:
            job.stage = stage
        if not self._same_kind:
            require_same_kind(self.sweep, self.record, wanted, job_overrides, self._describe)
            self._same_kind = True
        jobs = add(self.record, wanted)
        self.record.asked = [job.key for job in jobs]
        if running.current is None:
            running.current = RunningSweep(self.sweep, self.record)  # reads what every job has come to
        current = running.current
        for job in jobs:
            if current.job_at(job.directory) is None:
                current.refresh(job)
        self._announce(jobs)
        for job in jobs:
            if job.status == "failed" and job.settings:
                reopen_failed(self.sweep.run(job))
                job.error = None
                current.refresh(job)
        left = [job for job in jobs if job.status != "completed" and job.settings]
        if left:
            self.record.at_once = jobs_at_once(self.config, len(left))
        current.save_planned()
        self.planned = True
        OmegaConf.save(self.config, self.sweep.path / "multirun.yaml")
        stop = self.config.get("on_error") == "stop"
        if stop and not all(job.settings for job in jobs):
            self._say_stopped()
        else:
            self._start(left, stop, current)
        return jobs

    @property
    def results(self) -> Results:
        """What the jobs have come to so far."""
        assert running.current is not None
        return running.current.results

    def scoring(self, job_overrides: Sequence[Sequence[str]]) -> Scoring:
        """Which jobs with these overrides would be scored on the same images; what cannot be composed is left out."""
        jobs = [job for job in map(self._compose, job_overrides) if job.settings]
        for number, job in enumerate(jobs):
            job.directory = str(number)
        return scoring(self.record, jobs)

    def _compose(self, overrides: Sequence[str]) -> Job:
        try:
            return self._describe(overrides)
        except SeveralProcessesError:
            raise
        except Exception as error:
            if (line := explain(error)) is None:
                raise
            return broken(overrides, self.record.axes, line)

    def _describe(self, overrides: Sequence[str]) -> Job:
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        return describe(config, overrides, self.record.axes)

    def _announce(self, jobs: Sequence[Job]) -> None:
        parts = [f"{len(jobs)} job{'s' if len(jobs) != 1 else ''} in {self.sweep.path}"]
        for status, said in (
            ("completed", "completed before"),
            ("interrupted", "continued"),
            ("failed", "failed before"),
        ):
            if number := sum(job.status == status and bool(job.settings) for job in jobs):
                parts.append(f"{number} {said}")
        print("Sweep: " + ", ".join(parts), flush=True)
        for job in jobs:
            if not job.settings:
                print(f"failed: {job.name} ({job.error})", file=sys.stderr, flush=True)

    def _say_stopped(self) -> None:
        self.stopped = True
        print("stopped at the first job that failed (on_error=stop)", file=sys.stderr)

    def _start(self, jobs: Sequence[Job], stop: bool, current: RunningSweep) -> None:
        if not jobs:
            return
        config = self.config
        if self.engine == "joblib":
            # It divides the cores among n_jobs, however many jobs there are.
            config = copy.deepcopy(config)
            config.hydra.launcher.n_jobs = self.record.at_once
        launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self._task, config=config
        )
        with contextlib.nullcontext() if self.engine == "basic" else watched(current):
            for batch in batches(self.config, jobs):
                self._launch(launcher, batch)
                if stop and any(self.sweep.refresh(job) is not None and job.status == "failed" for job in batch):
                    self._say_stopped()
                    return
        for job in jobs:
            if job.status not in ENDED:
                current.refresh(job)
        if left := [job.name for job in jobs if job.status not in ENDED]:
            raise UserError(
                f"{len(left)} job{'s' if len(left) > 1 else ''} did not end ({'; '.join(left[:3])}"
                f"{' ...' if len(left) > 3 else ''}); {self._continued}"
            )

    def _launch(self, launcher: Launcher, batch: Sequence[Job]) -> None:
        with self._stopping(batch):
            returned = launcher.launch([self._overrides(job) for job in batch], initial_job_idx=batch[0].number)
            for result in returned:
                _ = result.return_value  # raises what a job raised: what a training raises, the job has recorded

    @property
    def _continued(self) -> str:
        added = "" if self.record.name else f" with {hydra_argument('hydra.sweep.dir', self.sweep.path)}"
        return f"the same command{added} goes on with what is left"

    @contextlib.contextmanager
    def _stopping(self, batch: Sequence[Job]) -> Iterator[None]:
        """Has jobs in other processes of this machine save their state at Ctrl-C or SIGTERM, and waits for them.

        They stop when the lock of the sweep is let go of; a second signal does not wait. A job in this process notes
        signals itself; between two such jobs SIGTERM, as Ctrl-C does, interrupts here.
        """
        main_thread = threading.current_thread() is threading.main_thread()
        if main_thread and self.engine == "basic":
            before_jobs = signal.signal(signal.SIGTERM, _interrupt)
            try:
                yield
            finally:
                signal.signal(signal.SIGTERM, before_jobs)
            return
        if not runs_locally(self.config.hydra) or not main_thread:
            yield
            return
        told: list[int] = []

        def note(signum: int, _: FrameType | None) -> None:
            told.append(signum)
            self._lock.release()
            if len(told) > 1:
                raise Interrupted(signum)
            print("stopping, when every job has saved its state; once more stops at once", file=sys.stderr, flush=True)

        before = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        except SystemExit:  # Ray's answer to SIGTERM
            told.append(signal.SIGTERM)
            self._lock.release()
            self._wait_for(batch)
        except Exception as error:
            self._wait_for(batch)  # one died; submitit then does not wait for the others
            if not told:
                raise UserError(
                    f"the process of a job has died, perhaps for lack of memory ({type(error).__name__}); {self._continued}"
                ) from error
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
        if told:
            raise Interrupted(told[0])

    def _wait_for(self, jobs: Sequence[Job]) -> None:
        while any(held(self.sweep.run(job).lock) for job in jobs):
            time.sleep(0.2)

    def _overrides(self, job: Job) -> list[str]:
        folder, below = (quoted(key, value) for key, value in (
            ("hydra.sweep.dir", self.sweep.path), ("hydra.sweep.subdir", job.directory),
        ))  # fmt: skip
        return [*job.overrides, folder, below]


def _interrupt(signum: int, _: FrameType | None) -> None:
    raise Interrupted(signum)


@contextlib.contextmanager
def hold_for_foreign_sweeper(config: DictConfig, folder: Path) -> Iterator[None]:
    """Holds the directory of a sweep whose jobs another sweeper than ours asks for, and prints their lines meanwhile.

    Raises:
        UserError: another process runs the same sweep.
    """
    sweep = SweepDirectory(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settle_optuna(config)
    OmegaConf.save(config, folder / "multirun.yaml")  # not every sweeper does
    with sweep.locked():
        running.current = RunningSweep(sweep, sweep.read() if sweep.record.exists() else None)
        try:
            with contextlib.nullcontext() if engine_of(config.hydra) == "basic" else watched(running.current):
                yield
        finally:
            running.current = None


def _remove_if_empty(folder: Path) -> None:
    """Takes back a folder in which nothing was begun, and the folder of the day above it."""
    for name in (".lock", ".sweep.lock"):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
        folder.parent.rmdir()


def finish(sweep: SweepDirectory) -> bool:
    """Writes the report of a sweep that has ended, however, prints its table, and says whether all of it is well."""
    from rich.console import Console

    from segsweep.sweeps.printed import printed
    from segsweep.sweeps.report import report

    results = report(sweep)
    console = Console(soft_wrap=True)
    for part in printed(results):
        console.print(part, highlight=False)
    shown = relative(sweep.path)
    files = (sweep.summary_md, sweep.summary_csv, sweep.curves, sweep.heatmap)
    print(f"Everything is in {shown}: {', '.join(path.name for path in files if path.exists())}")
    print("Next:")
    print(f"  tensorboard --host localhost --logdir {shlex.quote(str(shown))}")
    if (best := results.best) is not None:
        job = results.record.job_at(best)
        tests = job is not None and bool(job.settings.get("trainer.test"))
        print(f"  {evaluation(shown / best, results.runs[best].metrics, tests)}")
    return not any(job.status == "failed" for job in results.record.jobs)
