"""Runs a sweep in the process of its command: holds the directory and hands jobs to Hydra's launcher."""

import contextlib
import copy
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from segsweep.console import explain, hydra_argument, quoted
from segsweep.errors import Interrupted, UserError, shown
from segsweep.invocation import to_type
from segsweep.locks import held
from segsweep.resume import reopen_failed
from segsweep.sweeps import running
from segsweep.sweeps.launchers import batches, engine_of, jobs_at_once, runs_locally, settle_optuna
from segsweep.sweeps.plan import (
    UNSWEPT,
    SeveralProcessesError,
    add_jobs,
    broken_job,
    job_of,
    require_same_kind,
    sweeper_overrides,
)
from segsweep.sweeps.results import Results
from segsweep.sweeps.running import RunningSweep, watched
from segsweep.sweeps.scored import Scoring, scoring
from segsweep.sweeps.state import ENDED, Job, SweepDirectory, SweepRecord
from segsweep.trainer_settings import auto_precision


class SweepRunner:
    """Plans jobs, hands the unfinished ones to Hydra's launcher, and keeps sweep.json.

    Args:
        hydra_context: from Hydra.
        task_function: the function of the entry point; the launcher calls it for each job.
        config: the configuration of the sweep, with Hydra's own node.
        sweeper: the sweeper's name, for sweep.json.
    """

    def __init__(
        self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig, sweeper: str
    ) -> None:
        self.config = config
        self.context = hydra_context
        self.task = task_function
        self.sweeper = sweeper
        self.engine = engine_of(config.hydra)
        self.sweep = SweepDirectory(Path(str(config.hydra.sweep.dir)))
        self.stopped = False
        """Whether on_error=stop has ended the sweep."""
        self.planned = False
        """Whether there are jobs to report."""
        self._same_kind = (
            False  # checked at the first jobs only: unswept settings are the same for all jobs of a command
        )

    @contextlib.contextmanager
    def hold(self, typed: Sequence[str], axes: Sequence[str]) -> Iterator[None]:
        """Locks the sweep directory while jobs are planned and run; reads sweep.json, or makes a new record.

        Args:
            typed: the overrides of the command.
            axes: the swept keys.

        Raises:
            UserError: a key cannot be swept, another process runs the same sweep, or one is a race and the other is none.
        """
        refused = [f"{key}: cannot be swept, {reason}" for key, reason in UNSWEPT.items() if key in axes]
        if self.config.get("resume") is not None:
            refused.append(f"resume={self.config.resume}: {UNSWEPT['resume']}")
        if refused:
            raise UserError(refused[0])
        self.sweep.path.mkdir(parents=True, exist_ok=True)
        self.sweep.require_inside(())
        with self.sweep.locked() as self._lock:
            try:
                known = self.sweep.record.exists()
                self.record = self.sweep.read() if known else SweepRecord.new(self.config, self.sweeper)
                if self.record.jobs and (self.record.race is None) == (self.sweeper == "race"):
                    kind = "no race" if self.record.race is None else "a race, which only hydra/sweeper=race continues"
                    raise UserError(f"{self.sweep.path}: that sweep is {kind}; give another name")
                self.sweep.require_inside(job.directory for job in self.record.jobs if job.settings)
                self.record.program = to_type("train")
                self.record.overrides = [*sweeper_overrides(self.config.hydra.overrides.hydra), *typed]
                self.record.axes = list(dict.fromkeys([*self.record.axes, *axes]))
                # Drop jobs that could not be composed: if this command asks for them, they are planned again.
                self.record.jobs = [job for job in self.record.jobs if job.settings]
                yield
            finally:
                running.current = None

    def run(self, job_overrides: Sequence[Sequence[str]], stage: str | None = None) -> list[Job]:
        """Trains the jobs with these overrides that are not completed yet.

        Args:
            job_overrides: the overrides of each job.
            stage: `Job.stage` of all of them.

        Returns:
            All of the jobs, with their status now.

        Raises:
            UserError: an unswept setting differs from the sweep's, a job needs several processes, no job can be composed,
                or a job did not end.
        """
        wanted = self.composed(job_overrides)
        if wanted and not any(job.settings for job in wanted):
            raise UserError(wanted[0].error)
        for job in wanted:
            job.stage = stage
        if not self._same_kind:
            require_same_kind(self.sweep, self.record, wanted, job_overrides, self._compose)
            self._same_kind = True
        jobs = add_jobs(self.record, wanted)
        self.record.asked = [job.key for job in jobs]
        if running.current is None:
            running.current = RunningSweep(self.sweep, self.record)  # reads run.json of every job
        current = running.current
        for job in jobs:
            if current.job_at(job.directory) is None:
                current.refresh(job)
        self._print_plan(jobs)
        for job in jobs:
            if job.status == "failed" and job.settings:
                reopen_failed(self.sweep.run(job))
                job.error = None
                current.refresh(job)
        left = [job for job in jobs if job.status != "completed" and job.settings]
        if left:
            self.record.at_once = jobs_at_once(self.config, len(left))
        self.sweep.require_inside(job.directory for job in left)  # Hydra writes there before the job itself looks
        current.save_planned()
        self.planned = True
        OmegaConf.save(self.config, self.sweep.path / "multirun.yaml")
        stop = self.config.get("on_error") == "stop"
        # A job that cannot be composed counts as failed: with on_error=stop no job starts.
        self.stopped = (stop and not all(job.settings for job in jobs)) or self._train(left, stop, current)
        if self.stopped:
            print("stopped at the first job that failed (on_error=stop)", file=sys.stderr)
        return jobs

    @property
    def results(self) -> Results:
        """The results of the jobs so far."""
        assert running.current is not None
        return running.current.results

    def scoring(self, job_overrides: Sequence[Sequence[str]]) -> Scoring:
        """Groups the jobs with these overrides by the images that are scored. Skips jobs that cannot be composed."""
        jobs = [job for job in self.composed(job_overrides) if job.settings]
        for number, job in enumerate(jobs):
            job.directory = str(number)
        return scoring(self.record, jobs)

    def composed(self, job_overrides: Sequence[Sequence[str]]) -> list[Job]:
        """The jobs with these overrides; a `broken_job` for overrides that contain a mistake."""
        return [self._compose_or_break(overrides) for overrides in job_overrides]

    def _compose(self, overrides: Sequence[str]) -> Job:
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        return job_of(config, overrides, self.record.axes, self.record.precision)

    def _compose_or_break(self, overrides: Sequence[str]) -> Job:
        """The job with these overrides; a `broken_job` if they contain a mistake."""
        try:
            return self._compose(overrides)
        except SeveralProcessesError:
            raise
        except Exception as error:
            if (line := explain(error)) is None:
                raise
            return broken_job(overrides, self.record.axes, line)

    def _print_plan(self, jobs: Sequence[Job]) -> None:
        parts = [f"{len(jobs)} job{'s' if len(jobs) != 1 else ''}"]
        texts = {"completed": "completed before", "interrupted": "resumed", "failed": "failed before"}
        for status, text in texts.items():
            if number := sum(job.status == status and bool(job.settings) for job in jobs):
                parts.append(f"{number} {text}")
        print("Sweep: " + ", ".join(parts), flush=True)
        if OmegaConf.select(self.config, "trainer.precision") == "auto" and not self.planned:
            here, kept = auto_precision(self.config.trainer.accelerator), self.record.precision
            if here != kept:
                print(f"trainer.precision=auto: {kept}, as when the sweep began; a new sweep here would take {here}")
            elif here == "bf16-mixed":
                print("trainer.precision=auto: bf16-mixed, because this CPU has AMX")
        for job in jobs:
            if not job.settings:
                print(shown(f"failed: {job.name} ({job.error})"), file=sys.stderr, flush=True)

    def _train(self, jobs: Sequence[Job], stop: bool, current: RunningSweep) -> bool:
        """Hands jobs to the launcher, batch by batch. Returns whether `stop` ended the sweep at a failed job.

        Raises:
            UserError: the launcher returned, but a job has not ended.
        """
        if not jobs:
            return False
        config = self.config
        if self.engine == "joblib":
            # joblib gives each job cores / n_jobs threads, even if there are fewer jobs.
            config = copy.deepcopy(config)
            config.hydra.launcher.n_jobs = self.record.at_once
        launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self.task, config=config
        )
        with contextlib.nullcontext() if self.engine == "basic" else watched(current):
            for batch in batches(self.config, jobs):
                folder = quoted("hydra.sweep.dir", self.sweep.path)
                overrides = [[*job.overrides, folder, quoted("hydra.sweep.subdir", job.directory)] for job in batch]
                with self._signals_stop_jobs(batch):
                    for returned in launcher.launch(overrides, initial_job_idx=batch[0].number):
                        # Not `return_value`, which prints a line. Errors of the training are in its run.json.
                        if returned.status is JobStatus.FAILED:
                            raise returned._return_value
                if stop and any(self.sweep.refresh(job) is not None and job.status == "failed" for job in batch):
                    return True
        for job in jobs:
            if job.status not in ENDED:
                current.refresh(job)
        if left := [job.name for job in jobs if job.status not in ENDED]:
            raise UserError(
                f"{len(left)} job{'s' if len(left) > 1 else ''} did not end ({'; '.join(left[:3])}"
                f"{' ...' if len(left) > 3 else ''}); {self._how_to_continue}"
            )
        return False

    @property
    def _how_to_continue(self) -> str:
        added = "" if self.record.name else f" with {hydra_argument('hydra.sweep.dir', self.sweep.path)}"
        return f"the same command{added} trains the jobs that are left"

    @contextlib.contextmanager
    def _signals_stop_jobs(self, batch: Sequence[Job]) -> Iterator[None]:
        """Makes Ctrl-C and SIGTERM stop the jobs in other processes of this machine, and waits for them.

        A first signal releases the lock of the sweep; each job then saves a checkpoint and stops. A second signal does not
        wait. A job in this process handles signals itself; a signal between two such jobs stops the next one.

        Raises:
            Interrupted: a signal arrived.
            UserError: the process of a job has died.
        """
        main_thread = threading.current_thread() is threading.main_thread()  # Python allows handlers only there
        if self.engine == "basic":
            assert running.current is not None
            with running.current.stop as stop:
                yield
                stop.raise_if_told()
            return
        if not runs_locally(self.config.hydra) or not main_thread:
            yield
            return
        received: list[int] = []

        def release(signum: int, _: FrameType | None) -> None:
            received.append(signum)
            self._lock.release()
            if len(received) > 1:
                raise Interrupted(signum)
            print("each job saves a checkpoint and stops; a second signal stops at once", file=sys.stderr, flush=True)

        def wait_for_jobs() -> None:
            while any(held(self.sweep.run(job).lock) for job in batch):
                time.sleep(0.2)

        before = {signum: signal.signal(signum, release) for signum in (signal.SIGINT, signal.SIGTERM)}
        # The processes of submitit inherit this: Ctrl-C would end them, with a traceback, before their jobs have saved.
        # The thread of `watched` still receives Ctrl-C for this process.
        blocked = {signal.SIGINT} if self.engine == "submitit_local" else set()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        try:
            yield
        except SystemExit:  # raised by Ray's own SIGTERM handler
            received.append(signal.SIGTERM)
            self._lock.release()
            wait_for_jobs()
        except Exception as error:
            wait_for_jobs()  # submitit raises as soon as one job has died, while others still run
            if not received:
                why = f"perhaps for lack of memory ({type(error).__name__})"
                raise UserError(f"the process of a job has died, {why}; {self._how_to_continue}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for signum, handler in before.items():
                signal.signal(signum, handler)
        if received:
            raise Interrupted(received[0])


@contextlib.contextmanager
def hold_for_foreign_sweeper(config: DictConfig, folder: Path) -> Iterator[None]:
    """Holds the directory of a sweep by a foreign sweeper, such as Optuna's, and prints a line for each job that ends.

    Raises:
        UserError: another process runs the same sweep.
    """
    sweep = SweepDirectory(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settle_optuna(config)
    # The sweeper has not said yet which folders its jobs will have.
    sweep.require_inside(path.name for path in folder.iterdir() if path.is_dir())
    OmegaConf.save(config, folder / "multirun.yaml")  # some sweepers do not write it
    with sweep.locked():
        running.current = RunningSweep(sweep, sweep.read() if sweep.record.exists() else None)
        try:
            here = engine_of(config.hydra) == "basic"
            with running.current.stop if here else watched(running.current):
                yield
        finally:
            running.current = None
