"""From finished runs to one small table of numbers, which is kept when the runs are gone."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from replication import ROOT
from replication.published import STUDIES, Setting, named
from replication.runs import FinishedRun, FinishedRuns, composed, key_without_seed
from segsweep.runs.files import write_json

RESULTS = ROOT / "docs/measured/replication.json"
ROUNDING = 1e-6
"""Collected metrics are of about 1 and have six digits, so differences that vary by less are one difference."""
CURVE_POINTS = 20
"""Of each run, about."""
CURVES = ("train/loss_running", "train/confident_accuracy_running", "train/loss", "val/loss", "val/iou")

Results = dict[str, dict[str, Any]]
"""{"settings": {name: {"overrides": [...], "key": ..., "runs": [...]}}, "mistakes": {name: {figure: [of each seed]}},
"seconds": {name of a mistake: of its experiment}}"""


def read_results(path: Path = RESULTS) -> Results:
    """What was collected so far; empty where nothing was."""
    if not path.exists():
        return {"settings": {}, "mistakes": {}}
    results: Results = json.loads(path.read_text(encoding="utf-8"))
    return results


def write_results(results: Results, path: Path = RESULTS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, results)


def collect(found: FinishedRuns, data_root: Path | None, results: Results) -> list[str]:
    """Adds finished runs to `results`; those that are there with the same seed are replaced.

    Runs of a setting that meant something else when they were collected, because a preset changed since, stay until a
    run of what it means now is found. They are never mixed.

    Args:
        found: the runs that there are.
        data_root: the folder of the settings that need one; None leaves these out.
        results: is changed.

    Returns:
        A line for each setting: how many runs were found.
    """
    lines = []
    settings = all_settings()
    for name in [name for name in results["settings"] if name not in settings]:
        dropped = results["settings"].pop(name)["runs"]
        lines.append(f"{name}: is no setting of any study now, {len(dropped)} dropped")
    for name, setting in settings.items():
        if setting.needs_folder and data_root is None:
            continue
        overrides = overrides_of(setting, data_root)
        runs, key = found.of(overrides), key_without_seed(composed(overrides))
        before = results["settings"].get(name, {"runs": [], "key": key})
        changed = before.get("key", key) != key
        kept = [] if changed and runs else before["runs"]
        by_seed = {run["seed"]: run for run in kept} | {run.record.seed: _summary(run) for run in runs}
        if runs:
            each = [by_seed[seed] for seed in sorted(by_seed)]
            results["settings"][name] = {"overrides": list(setting.overrides), "key": key, "runs": each}
        said = (
            "" if not changed else ", of other settings than now" if not runs else f", {len(before['runs'])} replaced"
        )
        lines.append(f"{name}: {len(runs)} found, {len(by_seed)} in all{said}")
    # In the order of the studies, so that new runs change the file where they belong and nowhere else.
    results["settings"] = {name: results["settings"][name] for name in settings if name in results["settings"]}
    return lines


def all_settings() -> dict[str, Setting]:
    """Every setting by its study and name; one that several studies train is there once for each."""
    return {named(study, setting): setting for study, each in STUDIES.items() for setting in each.settings}


def overrides_of(setting: Setting, data_root: Path | None) -> Sequence[str]:
    """Of train.py.

    Raises:
        ValueError: the setting needs a folder, and there is none.
    """
    if not setting.needs_folder:
        return setting.overrides
    if data_root is None:
        raise ValueError(f"{setting.name}: needs a folder")
    return (*setting.overrides, f"data.root={data_root}")


def _summary(run: FinishedRun) -> dict[str, Any]:
    record = run.record
    return {
        "seed": record.seed,
        # One that went on where it was stopped has taken longer than it would have.
        "seconds": None if record.continued_at else round(record.seconds, 1),
        "steps": record.steps,
        "diverged": run.diverged,
        "parameters": record.parameters,
        "best_step": record.best_step,
        "date": (record.started or "")[:10],
        "device": record.device,
        "versions": {name: record.versions.get(name) for name in ("torch", "segsweep")},
        "metrics": {} if run.diverged else _finite(record.metrics),
        "curve": _curve(run.history(), record.steps),
    }


def _curve(history: pd.DataFrame, steps: int) -> dict[str, list[Any]]:
    every = max(1, steps // CURVE_POINTS)
    thin = history.groupby(-(-history["step"] // every)).tail(1)  # the last row of each stretch of `every` steps
    return {"step": [int(step) for step in thin["step"]]} | {
        name: _numbers(thin[name]) for name in CURVES if name in thin
    }


def _finite(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Without what is not defined, such as the iou of a class that is nowhere."""
    return {name: _rounded(value) for name, value in metrics.items() if value is not None and math.isfinite(value)}


def _numbers(column: Iterable[float]) -> list[float | None]:
    return [_rounded(value) if math.isfinite(value) else None for value in column]


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def runs_of(results: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The collected runs of a setting; none where it is not trained yet."""
    runs: list[dict[str, Any]] = results["settings"].get(name, {"runs": []})["runs"]
    return runs


def values(results: Mapping[str, Any], name: str, metric: str) -> dict[int, float]:
    """A metric of every run of a setting, by seed; NaN where it diverged. Runs without this metric are left out."""
    return _by_seed(results, name, lambda run: run["metrics"].get(metric))


def values_at(results: Mapping[str, Any], name: str, column: str, step: int) -> dict[int, float]:
    """What a curve of every run of a setting is at a step, by seed; NaN where it diverged.

    Runs that logged nothing there are left out.
    """

    def at(run: Mapping[str, Any]) -> float | None:
        steps = run["curve"].get("step", [])
        return run["curve"][column][steps.index(step)] if step in steps and column in run["curve"] else None

    return _by_seed(results, name, at)


def last_values(results: Mapping[str, Any], name: str, column: str) -> dict[int, float]:
    """What a curve of every run of a setting ends with, by seed; NaN where it diverged."""

    def last(run: Mapping[str, Any]) -> float | None:
        logged = [value for value in run["curve"].get(column, []) if value is not None]
        return logged[-1] if logged else None

    return _by_seed(results, name, last)


def _by_seed(
    results: Mapping[str, Any], name: str, read: Callable[[Mapping[str, Any]], float | None]
) -> dict[int, float]:
    found = {}
    for run in runs_of(results, name):
        value = math.nan if run["diverged"] else read(run)
        if value is not None:
            found[run["seed"]] = value
    return found
