"""Finds finished runs by their settings, in any folder or sweep."""

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from replication import ROOT
from segsweep import cli  # noqa: F401  (registers the resolvers that the configuration needs)
from segsweep.fingerprint import job_key, result_settings
from segsweep.instantiate import to_plain
from segsweep.runs import RunDirectory, RunRecord, read_metrics
from segsweep.runs.stored import read_plain
from segsweep.sweeps.state import is_diverged


@dataclass(frozen=True)
class FinishedRun:
    """A completed or diverged run."""

    directory: Path
    record: RunRecord

    @property
    def diverged(self) -> bool:
        return self.record.status == "failed"

    def history(self) -> pd.DataFrame:
        """metrics.csv; empty if the run diverged before it logged anything."""
        path = RunDirectory(self.directory).metrics
        return read_metrics(path) if path.exists() else pd.DataFrame({"step": []})


class FinishedRuns:
    """All completed and diverged runs below some folders, by their settings.

    Args:
        folders: searched to any depth; unreadable runs are skipped.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._found: dict[tuple[str, int, bool], FinishedRun] = {}
        for path in sorted(path for folder in folders for path in _run_records(folder)):
            try:
                record = RunRecord.read(path)
                settings = read_plain(path.parent / "config.yaml")
                key, tested = key_without_seed(settings), _is_tested(settings)
            except (OSError, ValueError, TypeError, AttributeError, KeyError):
                continue
            if record.status == "completed" or (record.status == "failed" and is_diverged(record.error)):
                # Equal settings and an equal seed mean the same run: keep the first.
                self._found.setdefault((key, record.seed, tested), FinishedRun(path.parent, record))

    def of(self, overrides: Sequence[str]) -> list[FinishedRun]:
        """The runs with these overrides of train.py, sorted by seed.

        trainer.test=false also finds tested runs: the test comes last and changes nothing before it.
        """
        settings = composed(overrides)
        wanted, needs_test = key_without_seed(settings), _is_tested(settings)
        found: dict[int, FinishedRun] = {}
        for (key, seed, tested), run in self._found.items():
            if key == wanted and (tested or not needs_test):
                found.setdefault(seed, run)
        return [found[seed] for seed in sorted(found)]


def _run_records(folder: Path) -> Iterable[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        if "run.json" in names:
            folders.clear()  # a run holds no runs
            yield Path(parent) / "run.json"


def composed(overrides: Sequence[str]) -> Mapping[str, Any]:
    """The configuration that train.py composes, as plain data; cached, so do not change it."""
    return _composed(tuple(overrides))


@functools.cache
def _composed(overrides: tuple[str, ...]) -> Mapping[str, Any]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return to_plain(compose("train", overrides=list(overrides)))


def key_without_seed(settings: Mapping[str, Any]) -> str:
    """The key of a setting: ignores the seed, and whether the run is tested."""
    others = ("seed", "data.seed", "trainer.test")
    return job_key({name: value for name, value in result_settings(settings).items() if name not in others})


def _is_tested(settings: Mapping[str, Any]) -> bool:
    return bool(settings["trainer"]["test"])
