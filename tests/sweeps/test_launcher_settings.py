"""How many jobs run at once under each launcher, with how many threads, on which GPU, and what a signal does."""

import os
import signal
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from sweep_support import installed

from segsweep.sweeps import jobs, launchers
from segsweep.sweeps.state import Job


def sweep_config(launcher: dict[str, Any], accelerator: str = "cpu") -> DictConfig:
    return OmegaConf.create({"hydra": {"launcher": launcher}, "trainer": {"accelerator": accelerator}})


LOCAL_NODE = {"_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"}
SLURM_NODE = {
    "_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "array_parallelism": 3,
}
JOBLIB_NODE = {"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", "n_jobs": 2}


def test_submitit_local_starts_no_more_jobs_than_there_are_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launchers, "available_cores", lambda: 4)
    wanted = [Job(str(number), number, [], "", {}) for number in range(10)]
    assert [len(batch) for batch in launchers.batches(sweep_config(LOCAL_NODE), wanted)] == [4, 4, 2]
    assert [len(batch) for batch in launchers.batches(sweep_config(SLURM_NODE), wanted)] == [10]
    assert launchers.jobs_at_once(sweep_config(SLURM_NODE), 10) == 3
    assert [launchers.threads_of_job("submitit_local", at_once) for at_once in (1, 2, 3, 4)] == [4, 2, 1, 1]


@installed("joblib")
def test_joblib_starts_no_more_workers_than_there_are_jobs():
    assert launchers.jobs_at_once(sweep_config(JOBLIB_NODE), 10) == 2
    assert launchers.jobs_at_once(sweep_config(JOBLIB_NODE), 1) == 1


@installed("joblib")
def test_joblib_starts_a_job_a_gpu_unless_a_number_is_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    free = {**JOBLIB_NODE, "n_jobs": -1}
    assert launchers.jobs_at_once(sweep_config(free, "auto"), 10) == 3
    assert launchers.jobs_at_once(sweep_config(JOBLIB_NODE, "auto"), 10) == 2
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    assert launchers.jobs_at_once(sweep_config(free, "cpu"), 10) <= 2


def test_a_slurm_job_takes_the_cores_it_was_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "6")
    assert launchers.threads_of_job("submitit_slurm", 100) == 6
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    assert launchers.threads_of_job("submitit_slurm", 100) == 4


@pytest.mark.parametrize(("visible", "expected"), [(None, "1"), ("2,5", "5")])
def test_jobs_in_processes_are_spread_over_the_gpus(monkeypatch: pytest.MonkeyPatch, visible, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    jobs.take_one_gpu(3)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == expected
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    jobs.take_one_gpu(4)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


def test_submitits_signal_is_answered_when_the_state_is_saved():
    def requeue(signum: int, _: object) -> None:
        pass

    before = signal.signal(signal.SIGUSR2, requeue)
    try:
        assert jobs.requeue_handlers()[signal.SIGUSR2] is requeue
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert signal.SIGUSR2 not in jobs.requeue_handlers()
