"""Collects the numbers of finished runs in one small file, which outlives the runs."""

import json
from collections.abc import Callable, Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any

import pandas as pd

from replication import ROOT
from replication.published import STUDIES, Setting, named
from replication.runs import FinishedRun, FinishedRuns, composed, key_without_seed
from segsweep.runs.files import write_json

RESULTS = ROOT / "docs/measured/replication.json"
ROUNDING = 1e-6
"""Collected metrics are about 1 and rounded to six digits: differences that vary by less are equal."""
CURVE_POINTS = 20
"""Approximate number of points kept from each curve."""
CURVES = ("train/loss_running", "train/confident_accuracy_running", "train/loss", "val/loss", "val/iou")

Results = dict[str, dict[str, Any]]
"""{"settings": {name: {"overrides": [...], "key": ..., "runs": [...]}}, "mistakes": {name: {figure: [a number a seed]}},
"seconds": {mistake: seconds of its experiment}, "widths": {"pair: measure": [a number an image]}}"""


def read_results(path: Path = RESULTS) -> Results:
    """The numbers collected so far; empty if there are none."""
    if not path.exists():
        return {"settings": {}, "mistakes": {}}
    results: Results = json.loads(path.read_text(encoding="utf-8"))
    return results


def write_results(results: Results, path: Path = RESULTS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, results)


def collect(found: FinishedRuns, data_root: Path | None, results: Results) -> list[str]:
    """Adds finished runs to `results`; a run replaces an earlier one with the same seed.

    If a preset has changed, a setting's earlier runs are kept until a run of the new setting is found, and then dropped:
    runs of different settings are never mixed.

    Args:
        found: finished runs.
        data_root: folder of the aerial images; None skips the settings that need it.
        results: changed in place.

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
    # Sorted like the studies, so that new runs change only their own lines of the file.
    results["settings"] = {name: results["settings"][name] for name in settings if name in results["settings"]}
    return lines


def all_settings() -> dict[str, Setting]:
    """Every setting by study and name; a setting of several studies occurs once for each."""
    return {named(study, setting): setting for study, each in STUDIES.items() for setting in each.settings}


def overrides_of(setting: Setting, data_root: Path | None) -> Sequence[str]:
    """A setting's overrides for train.py, with its data folder.

    Raises:
        ValueError: the setting needs a folder and `data_root` is None.
    """
    if not setting.needs_folder:
        return setting.overrides
    if data_root is None:
        raise ValueError(f"{setting.name}: needs a folder")
    return (*setting.overrides, f"data.root={data_root}")


def _summary(run: FinishedRun) -> dict[str, Any]:
    record = run.record
    # An undefined metric, such as the iou of an absent class, is None or NaN.
    metrics = {name: rounded(value) for name, value in record.metrics.items() if value is not None and isfinite(value)}
    return {
        "seed": record.seed,
        # A resumed run takes longer than an uninterrupted one.
        "seconds": None if record.continued_at else round(record.seconds, 1),
        "steps": record.steps,
        "diverged": run.diverged,
        "parameters": record.parameters,
        "best_step": record.best_step,
        "date": (record.started or "")[:10],
        "device": record.device,
        "versions": {name: record.versions.get(name) for name in ("torch", "segsweep")},
        "metrics": {} if run.diverged else metrics,
        "curve": _curve(run.history(), record.steps),
    }


def _curve(history: pd.DataFrame, steps: int) -> dict[str, list[Any]]:
    every = max(1, steps // CURVE_POINTS)
    thin = history.groupby(-(-history["step"] // every)).tail(1)  # the last row of each stretch of `every` steps
    return {"step": [int(step) for step in thin["step"]]} | {
        name: [rounded(value) if isfinite(value) else None for value in thin[name]] for name in CURVES if name in thin
    }


def rounded(value: float) -> float:
    """Six significant digits, as every collected metric has."""
    return float(f"{value:.6g}")


def runs_of(results: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The collected runs of a setting; none if it is not trained yet."""
    runs: list[dict[str, Any]] = results["settings"].get(name, {"runs": []})["runs"]
    return runs


def values(results: Mapping[str, Any], name: str, metric: str) -> dict[int, float]:
    """A metric of a setting's runs by seed; NaN for a diverged run. Runs without this metric are left out."""
    return _by_seed(results, name, lambda run: run["metrics"].get(metric))


def values_at(results: Mapping[str, Any], name: str, column: str, step: int) -> dict[int, float]:
    """The value of a curve at a step, by seed; NaN for a diverged run. Runs without that step are left out."""

    def at(run: Mapping[str, Any]) -> float | None:
        steps = run["curve"].get("step", [])
        return run["curve"][column][steps.index(step)] if step in steps and column in run["curve"] else None

    return _by_seed(results, name, at)


def last_values(results: Mapping[str, Any], name: str, column: str) -> dict[int, float]:
    """The last value of a curve, by seed; NaN for a diverged run."""

    def last(run: Mapping[str, Any]) -> float | None:
        logged = [value for value in run["curve"].get(column, []) if value is not None]
        return logged[-1] if logged else None

    return _by_seed(results, name, last)


def _by_seed(
    results: Mapping[str, Any], name: str, read: Callable[[Mapping[str, Any]], float | None]
) -> dict[int, float]:
    found = {}
    for run in runs_of(results, name):
        value = nan if run["diverged"] else read(run)
        if value is not None:
            found[run["seed"]] = value
    return found
