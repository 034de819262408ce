"""Hydra's hook for sweeps: tells jobs which process started the sweep, and writes the report when the command ends."""

import contextlib
import os
import platform
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segsweep.console import mistakes_in_one_line, quoted

_PARENT = "hydra.callbacks.sweep.parent"
_EXCLUDED = "hydra.job.config.override_dirname.exclude_keys"
_at_end = contextlib.ExitStack()
"""Holds the directory for a foreign sweeper. `on_multirun_end` cannot release it: Hydra skips that if a job failed."""
_to_report: list[Path] = []
"""The sweep directory of this command, once it has jobs to report."""


class SweepReport(Callback):
    """Locks the directory of a foreign sweeper's sweep, such as Optuna's, and registers it for the report.

    Args:
        parent: the process that started the sweep; set for its jobs.
    """

    def __init__(self, parent: str | None = None) -> None:
        self.parent = parent

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        try:
            folder = Path(str(config.hydra.sweep.dir))
        except OmegaConfBaseException:  # the sweeper reports this mistake
            return
        # Hydra composes the configuration of each job from the job's overrides and these.
        config.hydra.overrides.hydra.append(quoted(_PARENT, _this_process()))
        if not str(config.hydra.sweeper.get("_target_")).startswith("hydra_plugins.segsweep_sweepers"):
            from segsweep.sweeps.runner import hold_for_foreign_sweeper

            config.hydra.overrides.hydra.append(quoted(_EXCLUDED, _unvaried(config)))
            with mistakes_in_one_line():  # Hydra would log the error and continue
                _at_end.enter_context(hold_for_foreign_sweeper(config, folder))
            report_at_end(folder)


def _unvaried(config: DictConfig) -> list[str]:
    """The keys that the names of a foreign sweeper's job folders leave out: those that have one value in all jobs.

    A sweeper such as Optuna gives them to every job, and the name is cut at 120 characters.
    """
    from segsweep.runs.stored import typed_overrides

    searched = OmegaConf.select(config, "hydra.sweeper.params")
    varied = {str(key).lstrip("+") for key in searched} if OmegaConf.is_dict(searched) else set()
    typed = OverridesParser.create().parse_overrides(typed_overrides(config))
    fixed = [each.key_or_group for each in typed if not each.is_sweep_override()]
    return [*OmegaConf.select(config, _EXCLUDED), *(key for key in fixed if key not in varied)]


def is_worker(config: DictConfig) -> bool:
    """Whether a job runs in a worker: in another process than its sweep.

    Args:
        config: of the job, with Hydra's node.
    """
    return OmegaConf.select(config, _PARENT) != _this_process()


def runner_of(config: DictConfig) -> int:
    """The pid of the process that started the sweep of a job."""
    return int(str(OmegaConf.select(config, _PARENT)).rpartition(":")[2])


def _this_process() -> str:
    return f"{platform.node()}:{os.getpid()}"


def report_at_end(folder: Path) -> None:
    """Asks for the report of a sweep when the command ends, however it ends."""
    _to_report.append(folder)


def finish_sweep() -> bool:
    """Writes and prints the report of the command's sweep, if there is one. Returns whether no job failed."""
    _at_end.close()
    folders = [folder for folder in _to_report if (folder / "sweep.json").exists()]
    _to_report.clear()
    if not folders:
        return True
    from segsweep.sweeps.report import print_report, write_report
    from segsweep.sweeps.state import SweepDirectory

    results = write_report(SweepDirectory(folders[0]))
    print_report(results)
    return not any(job.status == "failed" for job in results.record.jobs)
