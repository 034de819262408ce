"""Groups jobs by the images that they were scored on. Only jobs of one group are ranked together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import pandas as pd

from segsweep.data import SOURCES, Source
from segsweep.data.splits import SplitRule
from segsweep.fingerprint import Leaf
from segsweep.sweeps.folds import compare_folds
from segsweep.sweeps.grouping import Key, entry_key, setting_key
from segsweep.sweeps.ranking import Comparison, compare, values_key
from segsweep.sweeps.report_text import entry_text
from segsweep.sweeps.state import FOLD, FOLDS, REPLICATES, Job, SweepRecord

DIVIDING = {f"data.{entry.name}" for entry in fields(SplitRule)} - {FOLD, FOLDS}
"""Settings that say which images are in which split, without those of a cross-validation."""


def scored_settings(settings: Mapping[str, Leaf], objective: str) -> dict[str, Leaf]:
    """The settings that change the images or masks of val, or the definition of val/loss.

    A source declares which of its settings change neither (`Source.unscored`); all its other settings count.

    Args:
        settings: from `result_settings`: those that the result depends on.
        objective: the metric that ranks the jobs.
    """
    source = SOURCES.get(str(settings.get("data._target_")), Source)
    # An overfit check scores the training samples, so the settings that change those count too.
    own = Source.unscored if settings.get("data.overfit_samples") else source.unscored
    unscored = {f"data.{name}" for name in (*own, "batch_size")}
    groups = ("data.", "loss.") if objective == "val/loss" else ("data.",)
    return {key: value for key, value in settings.items() if key.startswith(groups) and key not in unscored}


@dataclass(frozen=True)
class Scoring:
    """Which jobs of a sweep may be ranked together.

    Args:
        group: the name of each job's group, by the job's directory: "data.split_seed=0"; "" if there is only one group.
        axes: the swept keys that make the groups.
        why: one line for a person that names these keys, and then the way to compare; "" if there is only one group.
    """

    group: dict[str, str]
    axes: tuple[str, ...] = ()
    why: str = ""


def scoring(record: SweepRecord, jobs: Sequence[Job]) -> Scoring:
    """Groups jobs that were scored on the same images.

    A setting that follows the seed, as in `data.split_seed=${seed}`, makes no groups: settings are compared seed by seed,
    and for each seed all of them are scored on the same images. A swept `data.fold` makes none either: they are compared
    fold by fold.

    Args:
        record: the sweep of the jobs.
        jobs: the jobs to group.
    """

    def value(job: Job, key: str) -> Leaf:
        return job.scored[key] if key in job.scored else record.value_of(job, key)

    def grouped_by(axes: Sequence[str]) -> list[list[Job]]:
        found: dict[tuple[Key, ...], list[Job]] = {}
        for job in composed:
            found.setdefault(values_key(record, job, axes), []).append(job)
        return list(found.values())

    composed = [job for job in jobs if job.settings]
    keys = dict.fromkeys(key for job in composed for key in job.scored)
    # Most keys are equal in all jobs. `!=` finds those fast; entry_key takes longer.
    differing = [key for key in keys if any(job.scored.get(key) != composed[0].scored.get(key) for job in composed)]
    replicates = grouped_by([axis for axis in REPLICATES if axis == "seed" or axis in record.axes]) if differing else []
    varying = [
        key for key in differing if any(len({entry_key(value(job, key)) for job in same}) > 1 for same in replicates)
    ]
    if not varying:
        return Scoring(dict.fromkeys((job.directory for job in jobs), ""))
    scored_on = {job.directory: tuple(entry_key(value(job, key)) for key in varying) for job in jobs}

    def makes_groups(axis: str) -> bool:
        """Whether two jobs that differ on this axis alone are scored on different images."""
        others = grouped_by([other for other in record.axes if other != axis])
        return any(len({scored_on[job.directory] for job in same}) > 1 for same in others)

    def names(axes: Sequence[str]) -> dict[tuple[Key, ...], str]:
        """A name for each group, by its jobs' values on these axes: "data.root=a,b"."""
        texts: dict[tuple[Key, ...], dict[str, dict[str, None]]] = {}
        for job in jobs:
            own = texts.setdefault(scored_on[job.directory], {axis: {} for axis in axes})
            for axis in axes:
                own[axis][entry_text(value(job, axis))] = None
        return {group: ", ".join(f"{axis}={','.join(own[axis])}" for axis in axes) for group, own in texts.items()}

    axes = [axis for axis in record.axes if axis not in REPLICATES and makes_groups(axis)] or varying
    named = names(axes)
    if len(set(named.values())) < len(named):
        # Two groups have the same name: the jobs form no grid, and differ on several axes.
        named, axes = names(varying), varying
    losses = [axis for axis in axes if axis.partition(".")[0] == "loss"]
    tasks = [axis for axis in axes if axis in (*losses, "data.task")] if "data.task" in varying else []
    losses = [axis for axis in losses if axis not in tasks]
    images = [axis for axis in axes if axis not in (*losses, *tasks)]
    reasons = [f"{', '.join(images)} may change the images that are scored"] if images else []
    reasons += [f"{', '.join(losses)} changes the definition of val/loss"] if losses else []
    reasons += [f"{', '.join(tasks)} changes the task, and so what the metrics are of"] if tasks else []
    group = {directory: named[scored] for directory, scored in scored_on.items()}
    way = f". To compare over several splits, sweep {FOLDS}=5 {FOLD}=0,1,2,3,4 instead" if DIVIDING & {*images} else ""
    return Scoring(group, tuple(axes), f"{', and '.join(reasons)}: each group is ranked alone{way}")


def compare_apart(
    jobs: pd.DataFrame,
    settings: Sequence[str],
    value: str = "objective",
    *,
    scored: str,
    why: str,
    apart: Sequence[str] = (),
    **options: Any,
) -> Comparison:
    """Compares the settings within each group of jobs that were scored on the same images, never between groups.

    Args:
        jobs, settings, value, options: see `compare`; with a column `data.folds`, see `compare_folds`.
        scored: the column with the name of each job's group. With one group, the result is that of `compare`.
        why: one line that names the settings that make the groups.
        apart: these settings. If one has a single value in a group, sentences about the group leave it out.

    Raises:
        ValueError: see `compare`.
    """
    compare_one = compare_folds if FOLDS in jobs and FOLD in jobs else compare
    by_name = dict(tuple(jobs.groupby(scored, sort=False))) if scored in jobs else {}
    if len(by_name) < 2:
        return compare_one(jobs, settings, value, **options)

    def first_setting(name: Any) -> tuple[Key, ...]:
        return min(setting_key(row, settings) for _, row in by_name[name].iterrows())

    parts: dict[str, Comparison] = {}
    for name in sorted(by_name, key=first_setting):
        part = compare_one(by_name[name], settings, value, **options)
        shown = [c for c in settings if c not in apart or len({entry_key(entry) for entry in part.table[c]}) > 1]
        parts[str(name)] = replace(part, settings=tuple(shown))
    first = next(iter(parts.values()))
    table = pd.concat([part.table for part in parts.values()], ignore_index=True)
    replicates = max(part.replicates for part in parts.values())
    return Comparison(
        table, None, first.name, first.mode, replicates, 0, tuple(settings), (), (), parts, why,
        level=first.level, scale=first.scale, tested=first.tested, shared=first.shared,
    )  # fmt: skip
