"""What Hydra's launchers differ in: how many jobs they run at once, what each of these gets, and how they end."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig, OmegaConf, read_write

from segsweep.runs import objective_mode
from segsweep.sweeps.plan import key_of
from segsweep.sweeps.state import Job, held

Engine = Literal["basic", "joblib", "submitit_local", "submitit_slurm", "ray", "other"]

_TARGETS: dict[str, Engine] = {
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher": "basic",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher": "joblib",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher": "submitit_local",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher": "submitit_slurm",
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher": "ray",
}
_LOOK_EVERY = 1.0
"""Seconds between looks at a lock."""


def engine_of(hydra: DictConfig) -> Engine:
    """Which launcher Hydra's node has chosen."""
    return _TARGETS.get(str(hydra.launcher.get("_target_")), "other")


def runs_locally(hydra: DictConfig) -> bool:
    """Whether jobs are other processes of this machine: they see the lock of the sweep, and end when it is let go of."""
    engine = engine_of(hydra)
    if engine == "ray":
        return not ((hydra.launcher.get("ray") or {}).get("init") or {}).get("address")
    return engine in ("joblib", "submitit_local")


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def jobs_at_once(config: DictConfig, jobs: int) -> int:
    """How many of `jobs` jobs run at the same time; at least 1.

    Args:
        config: as composed for the sweep, with Hydra's own node.
        jobs: how many there are.
    """
    launcher, engine = config.hydra.launcher, engine_of(config.hydra)
    if engine == "joblib":
        from joblib import effective_n_jobs

        asked = launcher.get("n_jobs") or -1
        # Unless a number is given: a GPU may not have memory for as many jobs as there are cores.
        most = (_gpus(config) if asked == -1 else 0) or effective_n_jobs(asked)
    elif engine == "submitit_local":
        most = cores()  # it has no queue of its own; see `batches`
    elif engine == "submitit_slurm":
        most = int(launcher.get("array_parallelism") or jobs)
    elif engine == "ray":
        settings = launcher.get("ray") or {}
        there = (settings.get("init") or {}).get("num_cpus") or cores()
        most = int(there / ((settings.get("remote") or {}).get("num_cpus") or 1))
    else:
        most = 1
    return max(1, min(most, jobs))


def _gpus(config: DictConfig) -> int:
    if OmegaConf.select(config, "trainer.accelerator") == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


def batches(config: DictConfig, jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs as they are handed to the launcher; the next batch when all of one have ended."""
    # submitit_local would start all of them at once.
    size = {"basic": 1, "submitit_local": jobs_at_once(config, len(jobs))}.get(engine_of(config.hydra), len(jobs))
    return [list(jobs[start : start + size]) for start in range(0, len(jobs), size)]


def threads_of_job(engine: Engine, at_once: int) -> int | None:
    """CPU threads that a job should take, as one of so many; None where the engine has seen to it.

    joblib and Ray set them for each of their workers. Slurm's `--cpus-per-task` binds a job where the cluster binds jobs
    at all; elsewhere each would take the whole node.
    """
    if engine == "submitit_local":
        return max(1, cores() // at_once)
    if engine == "submitit_slurm":
        given = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE")
        return int(given) if given else None
    return None


def settle_optuna(config: DictConfig) -> None:
    """Has Hydra's Optuna sweeper follow the objective, go on after a trial that failed, and draw the same trials again.

    By itself it minimises, also an IoU, and ends at the first failure. What was typed stays, and so does what is not the
    plugin's own default. Changes `config`.
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
                there = getattr(node[name], "name", node[name])  # an Enum's
                if there == default:
                    OmegaConf.update(sweeper, key, value)


def abandoned(lock: Path) -> Callable[[], bool]:
    """Asks whether the process that holds a sweep is gone, or lets its jobs stop; looks once a second."""
    looked, gone = 0.0, False

    def ask() -> bool:
        nonlocal looked, gone
        now = time.monotonic()
        if not gone and now - looked >= _LOOK_EVERY:
            looked, gone = now, not held(lock)
        return gone

    return ask
