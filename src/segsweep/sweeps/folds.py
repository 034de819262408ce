"""Compares settings over the folds of a cross-validation.

Each fold is one value: the seeds within it are averaged first, because trainings on the same images say nothing new about
other images. Two folds train on mostly the same images, so their values vary together, and a plain t-test is too sure.
Nadeau and Bengio's correction makes the variance of the mean (1/n + r) s², with n folds and r scored images for each
training image. The objective is of val, one fold, and folds - 2 train, so r = 1 / (folds - 2).

Source: C. Nadeau and Y. Bengio, Inference for the generalization error, Machine Learning 52 (2003) 239-281.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from segsweep.sweeps.grouping import UNFINISHED, common_seeds, entry_key, group_jobs, setting_key
from segsweep.sweeps.ranking import Comparison, compare
from segsweep.sweeps.state import FOLD, FOLDS

TESTED = ("test/iou", "test/loss")
"""Metrics that are reported as mean and spread over the folds, and rank nothing."""


def shared_training(folds: int) -> float:
    """Scored images for each training image: the r of Nadeau and Bengio."""
    return 1 / (folds - 2)


def replicate_name(job: Mapping[Any, Any]) -> str:
    """A job's fold and seed: "data.fold=3,seed=1"; "data.fold=3" where the seed is not swept."""
    return ",".join(f"{key}={entry_key(job[key])[2]}" for key in (FOLD, "seed") if key in job)


def compare_folds(
    jobs: pd.DataFrame,
    settings: Sequence[str],
    value: str = "objective",
    *,
    status: str | None = "status",
    **options: Any,
) -> Comparison:
    """Compares settings fold by fold, with the columns "test/iou mean" and "test/iou std", over folds, in its table.

    All settings are compared over the same folds with the same seeds; a fold counts if it has all of them.

    Args:
        jobs: as for `compare`. The column `data.fold` has the fold of each job, `data.folds` the number of folds, and
            `seed`, which may be missing, the seed.
        settings, value, status, options: see `compare`.

    Raises:
        ValueError: see `compare`.
    """
    jobs = jobs.assign(**{FOLD: jobs[FOLD].astype(object).where(jobs[FOLD].notna(), "none")})  # a job without folds
    names = [replicate_name(job) for job in jobs.to_dict("records")]
    groups = group_jobs(jobs.assign(replicate=names), list(settings), value, "replicate", status)
    fold_of = {entry_key(name): fold for name, fold in zip(names, jobs[FOLD], strict=True)}
    common, completed = common_seeds(groups), {key for group in groups for key in group.scores}
    rows = []
    for group in groups:
        group.restrict(common)
        for fold in dict.fromkeys(fold_of[key] for key in (*group.scores, *group.missing)):
            reasons = [why for key, why in group.missing.items() if fold_of[key] == fold]
            reason = min(reasons, key=UNFINISHED.__contains__, default="completed")  # a lost replicate first
            scores = [score for key, score in group.scores.items() if fold_of[key] == fold]
            mean = math.nan if reasons else math.fsum(scores) / len(scores)
            rows.append({**group.settings, FOLD: fold, value: mean, "status": reason})
    averaged = pd.DataFrame(rows).astype({column: jobs[column].dtype for column in settings})
    known = jobs[FOLDS].dropna()  # empty if no job could be composed; then nothing is tested
    shared = shared_training(int(known.max()) if len(known) else 3)
    compared = compare(averaged, settings, value, seed=FOLD, shared=shared, **options)
    own = [(setting_key(job, settings), job) for job in jobs.to_dict("records")]
    for metric in (name for name in TESTED if name in jobs):
        tested = {(key, entry_key(replicate_name(job))): float(job[metric]) for key, job in own}
        spread = {}
        for group in groups:
            by_fold: dict[Any, list[float]] = {}
            for replicate in group.scores:
                by_fold.setdefault(fold_of[replicate], []).append(tested[group.key, replicate])
            means = np.array([math.fsum(values) / len(values) for values in by_fold.values()])
            spread[group.key] = (
                means.mean() if len(means) else math.nan,
                means.std(ddof=1) if len(means) > 1 else math.nan,
            )
        found = [spread[setting_key(row, settings)] for _, row in compared.table.iterrows()]
        compared.table[[f"{metric} mean", f"{metric} std"]] = np.array(found, dtype=np.float64)
    return replace(compared, left_out=tuple(key[2] for key in sorted(completed - common)))
