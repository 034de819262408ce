"""The differences between Hydra's launchers: how many jobs run at once, with how many threads, and how a job is stopped."""

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig, OmegaConf, read_write

from segsweep.image_files.limits import available_cores
from segsweep.locks import held
from segsweep.runs import objective_mode
from segsweep.sweeps.plan import key_of
from segsweep.sweeps.state import Job

Engine = Literal["basic", "joblib", "submitit_local", "submitit_slurm", "ray", "other"]

_TARGETS: dict[str, Engine] = {
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher": "basic",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher": "joblib",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher": "submitit_local",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher": "submitit_slurm",
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher": "ray",
}
_SECONDS_BETWEEN_CHECKS = 1.0


def engine_of(hydra: DictConfig) -> Engine:
    """The launcher that Hydra's node of a configuration names."""
    return _TARGETS.get(str(hydra.launcher.get("_target_")), "other")


def runs_locally(hydra: DictConfig) -> bool:
    """Whether jobs run in other processes of this machine, where they see the sweep's lock."""
    engine = engine_of(hydra)
    if engine == "ray":
        return not ((hydra.launcher.get("ray") or {}).get("init") or {}).get("address")
    return engine in ("joblib", "submitit_local")


def jobs_at_once(config: DictConfig, jobs: int) -> int:
    """How many jobs run at the same time; at least 1.

    Args:
        config: of the sweep, with Hydra's own node.
        jobs: how many jobs there are.
    """
    launcher, engine = config.hydra.launcher, engine_of(config.hydra)
    if engine == "joblib":
        from joblib import effective_n_jobs

        asked = launcher.get("n_jobs") or -1
        gpus = 0
        if asked == -1 and OmegaConf.select(config, "trainer.accelerator") != "cpu":
            import torch

            gpus = torch.cuda.device_count()
        # By default one job for each GPU: a GPU may lack the memory for a job per core.
        most = gpus or effective_n_jobs(asked)
    elif engine == "submitit_local":
        most = available_cores()  # see `batches`
    elif engine == "submitit_slurm":
        most = int(launcher.get("array_parallelism") or jobs)
    elif engine == "ray":
        settings = launcher.get("ray") or {}
        there = (settings.get("init") or {}).get("num_cpus") or available_cores()
        most = int(there / ((settings.get("remote") or {}).get("num_cpus") or 1))
    else:
        most = 1
    return max(1, min(most, jobs))


def batches(config: DictConfig, jobs: Sequence[Job]) -> list[list[Job]]:
    """Divides jobs into batches for the launcher. A batch starts when all jobs of the one before have ended."""
    # submitit_local has no queue: it starts all jobs of a batch at once.
    size = {"basic": 1, "submitit_local": jobs_at_once(config, len(jobs))}.get(engine_of(config.hydra), len(jobs))
    return [list(jobs[start : start + size]) for start in range(0, len(jobs), size)]


def threads_of_job(engine: Engine, at_once: int) -> int | None:
    """How many CPU threads a job should use; None leaves it alone: joblib and Ray set it, others run one job at a time.

    Under Slurm it is the number of cores that Slurm gave the job: not every cluster binds jobs to their cores, and an
    unbound job would use the whole node.

    Args:
        engine: the launcher.
        at_once: how many jobs run at the same time.
    """
    if engine == "submitit_local":
        return max(1, available_cores() // at_once)
    if engine == "submitit_slurm":
        given = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE")
        return int(given) if given else None
    return None


def settle_optuna(config: DictConfig) -> None:
    """Changes three defaults of Hydra's Optuna sweeper in `config`: direction, failure rate and seed.

    By default the plugin minimises, even an IoU, ends at the first failed trial, and draws other trials each time. Here it
    follows the objective, continues after a failed trial, and draws the same trials again. Values that are typed, or differ
    from the plugin's default, stay.
    """
    sweeper = config.hydra.sweeper
    if not str(sweeper.get("_target_")).startswith("hydra_plugins.hydra_optuna_sweeper"):
        return
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    typed = {key_of(override) for override in config.hydra.overrides.hydra}
    direction = {"min": "minimize", "max": "maximize"}[objective_mode(str(config.objective))]
    wanted = {"direction": ("minimize", direction), "max_failure_rate": (0.0, 1.0), "sampler.seed": (None, 0)}
    with read_write(config):
        for key, (default, value) in wanted.items():
            parent, _, name = key.rpartition(".")
            node = sweeper[parent] if parent else sweeper
            if name in node and f"hydra.sweeper.{key}" not in typed:
                there = getattr(node[name], "name", node[name])  # an Enum has a name
                if there == default:
                    OmegaConf.update(sweeper, key, value)


@functools.cache
def end_with_runner(runner: int) -> threading.Lock:
    """Ends this worker of joblib once the process that started it is gone; it would wait five minutes for work.

    Args:
        runner: the process of the sweep.

    Returns:
        A lock for jobs to hold: the worker does not end before the job has.
    """
    busy = threading.Lock()

    def watch() -> None:
        while os.getppid() == runner:
            time.sleep(_SECONDS_BETWEEN_CHECKS)
        with busy:
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    return busy


def lock_watcher(lock: Path) -> Callable[[], int | None]:
    """Returns a function that gives SIGTERM once the lock of a sweep was released. It checks at most once a second.

    The process of the sweep releases the lock to stop its jobs; if it dies, the system does.
    """
    checked, released = 0.0, False

    def signal_to_stop() -> int | None:
        nonlocal checked, released
        now = time.monotonic()
        if not released and now - checked >= _SECONDS_BETWEEN_CHECKS:
            checked, released = now, not held(lock)
        return signal.SIGTERM if released else None

    return signal_to_stop
