"""What the objective of a job was measured on: jobs that were scored on other images are not ranked together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from segsweep.data import SOURCES, Source
from segsweep.fingerprint import Leaf
from segsweep.sweeps.replicates import Key, entry_key
from segsweep.sweeps.state import Job, SweepRecord
from segsweep.sweeps.statistics import Comparison, compare
from segsweep.sweeps.verdict import entry_text


def scored_settings(settings: Mapping[str, Leaf], objective: str) -> dict[str, Leaf]:
    """Those of the settings that a result depends on that change the images, masks or loss that val is scored by.

    A source says which settings of its own change nothing there (`Source.unscored`); any other setting of it counts.

    Args:
        settings: as `result_settings` gives them.
        objective: the metric that is ranked.
    """
    source = SOURCES.get(str(settings.get("data._target_")), Source)
    # Of an overfit check the training samples are scored, and with them whatever changes these.
    own = Source.unscored if settings.get("data.overfit_samples") else source.unscored
    unscored = {f"data.{name}" for name in (*own, "batch_size")}
    groups = ("data.", "loss.") if objective == "val/loss" else ("data.",)
    return {key: value for key, value in settings.items() if key.startswith(groups) and key not in unscored}


@dataclass(frozen=True)
class Scoring:
    """Which jobs of a sweep may be ranked together.

    Args:
        group: of each job, by its directory: "data.split_seed=0"; "" where all may be.
        axes: the swept keys that part the groups.
        why: one line for a person; "" where there is one group.
    """

    group: dict[str, str]
    axes: tuple[str, ...] = ()
    why: str = ""


def scoring(record: SweepRecord, jobs: Sequence[Job]) -> Scoring:
    """Groups jobs by what they were scored on.

    What follows the seed, as `data.split_seed=${seed}` does, parts nothing: settings are compared seed by seed, and for
    each seed all are scored on the same images.

    Args:
        record: their sweep.
        jobs: those to look at.
    """
    composed = [job for job in jobs if job.settings]
    # Most keys are the same in all jobs, and comparing entries takes a while.
    differing = [
        key
        for key in dict.fromkeys(key for job in composed for key in job.scored)
        if any(job.scored.get(key) != composed[0].scored.get(key) for job in composed)
    ]
    varying = [
        key
        for key in differing
        if any(len({_value(record, job, key) for job in same}) > 1 for same in _by(record, composed, ["seed"]))
    ]
    if not varying:
        return Scoring(dict.fromkeys((job.directory for job in jobs), ""))
    scored_on = {job.directory: tuple(_value(record, job, key) for key in varying) for job in jobs}
    axes = [axis for axis in record.axes if axis != "seed" and _parts(record, composed, axis, scored_on)] or varying
    names = _names(record, jobs, scored_on, axes)
    if len(set(names.values())) < len(names):  # jobs of no grid may differ on several axes at once
        names, axes = _names(record, jobs, scored_on, varying), varying
    what = "the images that are scored" if any(key.startswith("data.") for key in varying) else "what val/loss is"
    change = "changes" if len(axes) == 1 else "change"
    return Scoring(
        {directory: names[group] for directory, group in scored_on.items()},
        tuple(axes),
        f"{', '.join(axes)} {change} {what}: each group is ranked alone",
    )


def _names(
    record: SweepRecord, jobs: Sequence[Job], scored_on: Mapping[str, tuple[Key, ...]], axes: Sequence[str]
) -> dict[tuple[Key, ...], str]:
    """A name for each group of jobs, by the values that these have on some axes: "data.root=a,b"."""
    texts: dict[tuple[Key, ...], dict[str, dict[str, None]]] = {}
    for job in jobs:
        own = texts.setdefault(scored_on[job.directory], {axis: {} for axis in axes})
        for axis in axes:
            own[axis][entry_text(_raw(record, job, axis))] = None
    return {group: ", ".join(f"{axis}={','.join(own[axis])}" for axis in axes) for group, own in texts.items()}


def _raw(record: SweepRecord, job: Job, key: str) -> Leaf:
    return job.scored[key] if key in job.scored else record.value_of(job, key)


def _value(record: SweepRecord, job: Job, key: str) -> Key:
    return entry_key(_raw(record, job, key))


def _by(record: SweepRecord, jobs: Sequence[Job], axes: Sequence[str]) -> list[list[Job]]:
    """Jobs that agree on some axes, together."""
    found: dict[tuple[Key, ...], list[Job]] = {}
    for job in jobs:
        found.setdefault(tuple(entry_key(record.value_of(job, axis)) for axis in axes), []).append(job)
    return list(found.values())


def _parts(record: SweepRecord, jobs: Sequence[Job], axis: str, scored_on: Mapping[str, tuple[Key, ...]]) -> bool:
    """Whether jobs that differ on this axis alone are scored on other images."""
    others = [other for other in record.axes if other != axis]
    return any(len({scored_on[job.directory] for job in same}) > 1 for same in _by(record, jobs, others))


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
    """Compares each group of jobs alone that was scored on the same images; between groups nothing is said.

    Args:
        jobs, settings, value, options: as `compare` takes them.
        scored: the column that names what a job was scored on; where it has one entry, the jobs are simply compared.
        why: what parts the groups, as one line.
        apart: the settings that do; sentences about a group do not repeat them where they have one value in it.

    Raises:
        ValueError: as `compare`.
    """
    by_name = dict(tuple(jobs.groupby(scored, sort=False))) if scored in jobs else {}
    if len(by_name) < 2:
        return compare(jobs, settings, value, **options)
    order = sorted(by_name, key=lambda name: min(_place(row, settings) for _, row in by_name[name].iterrows()))
    parts: dict[str, Comparison] = {}
    for name in order:
        part = compare(by_name[name], settings, value, **options)
        told = [c for c in settings if c not in apart or len({entry_key(entry) for entry in part.table[c]}) > 1]
        parts[str(name)] = replace(part, settings=tuple(told))
    first = next(iter(parts.values()))
    table = pd.concat([part.table for part in parts.values()], ignore_index=True)
    replicates = max(part.replicates for part in parts.values())
    return Comparison(
        table, None, first.name, first.mode, replicates, 0, tuple(settings), (), (), parts, why
    )  # fmt: skip


def _place(row: "pd.Series[Any]", settings: Sequence[str]) -> tuple[Key, ...]:
    return tuple(entry_key(row[column]) for column in settings)
