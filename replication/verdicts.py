"""What the documents conclude, tested by the statistics that a sweep ranks its settings with (docs/statistics.md)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from replication.published import CONFIDENT, LOSS, STUDIES
from replication.results import ROUNDING, values
from segsweep.sweeps.ranking import Comparison, compare
from segsweep.sweeps.statistics import LEVEL, holm, paired_p

Mode = Literal["min", "max"]
Answer = Literal["holds", "does not hold", "cannot be told"]

LEAST_SEEDS = 5
"""Of every setting; with fewer nothing is said of a conclusion."""


@dataclass(frozen=True)
class Claim:
    """A conclusion: that one of some settings is the best, or that several are better than all others.

    Args:
        text: the conclusion, in our words, with its section.
        study: of the settings.
        claimed: the setting that is said to be the best, or the settings that are said to be better than the others.
        metric: by which; a column of metrics.csv.
        mode: whether more or less of it is better.
    """

    text: str
    study: str
    claimed: str | tuple[str, ...]
    metric: str
    mode: Mode


@dataclass(frozen=True)
class Verdict:
    """What our runs say of a claim, and over how many seeds all settings were compared."""

    answer: Answer
    seeds: int
    reason: str


Scores = Mapping[str, Mapping[int, float]]
"""Of each setting a value for each seed; NaN where the run diverged."""

MIDDLE = ("Adam 0.001", "Adam 0.01", "Adam 0.1")
ADAPTIVE = ("Adam", "RMSprop")
_NOTEBOOK: tuple[tuple[str, str, str | tuple[str, ...], str, Mode], ...] = (
    ("0.001 is Adam's best rate (4.3)", "texture_rates", "Adam 0.001", LOSS, "min"),
    ("0.001 to 0.1 are better than all others (4.1)", "texture_rates", MIDDLE, LOSS, "min"),
    ("0.001 and 0.01 are better than all others (4.1, by its colours)", "texture_rates", MIDDLE[:2], LOSS, "min"),
    ("0.001 is plain SGD's best rate too (4.3)", "texture_sgd_rates", "0.001", LOSS, "min"),
    ("Adam is the best optimizer at 0.001 (4.3)", "texture_optimizers", "Adam", CONFIDENT, "max"),
    ("SGD is worse at 0.001, with momentum or not (4.3)", "texture_optimizers", ADAPTIVE, CONFIDENT, "max"),
)
_REPORT = (
    ("0.1 is the best learning rate", "rates"),
    ("0.1 is the best momentum", "momenta"),
    ("0.1 is the best momentum, at the rate that is best here", "own"),
)


def _by(theirs: str, mode: Mode) -> tuple[tuple[str, Mode], tuple[str, Mode]]:
    """The measure that a document uses, then ours."""
    return (theirs, mode), ("val/iou", "max")


CLAIMS = (
    *(
        Claim(text, study, claimed, metric, direction)
        for text, study, claimed, theirs, mode in _NOTEBOOK
        for metric, direction in _by(theirs, mode)
    ),
    *(
        Claim(f"{text} (U-Net report; {name})", f"{data}_{study}", "0.1", metric, mode)
        for data, name in (("demo", "demo scenes"), ("dubai", "aerial images"))
        for text, study in _REPORT
        if f"{data}_{study}" in STUDIES  # where the best rate is the report's, nothing is tuned twice
        for metric, mode in _by("val/loss", "min")
    ),
)
"""Each by the measure that the document uses, and by the iou on validation."""


def judge_claim(claim: Claim, settings: Sequence[str], results: Mapping[str, Any]) -> Verdict:
    """Tests a claim on the runs that there are, over the seeds that all settings have.

    Each claimed setting beside each of the others, by paired t-tests corrected for these pairs alone: a claim was made
    before our runs were, so that no pairs were picked by them. It holds where every claimed setting is better than all
    others; it does not where one of them is worse; and it cannot be told where chance may explain the order. A setting
    of which some runs diverge is compared by the others, which flatters it: so it may be worse all the same, but it is
    not called better.

    Args:
        claim: the conclusion.
        settings: of the study.
        results: as `collect` leaves them.
    """
    scores: Scores = {name: values(results, f"{claim.study}: {name}", claim.metric) for name in settings}
    if missing := [name for name, found in scores.items() if not found]:
        return Verdict("cannot be told", 0, f"not trained yet: {_listed(missing)}")
    seeds = sorted(set.intersection(*(set(found) for found in scores.values())))
    if len(seeds) < LEAST_SEEDS:
        return Verdict("cannot be told", len(seeds), f"{len(seeds)} of {LEAST_SEEDS} seeds so far")
    sign = 1 if claim.mode == "max" else -1
    runs = {name: sign * np.array([found[seed] for seed in seeds]) for name, found in scores.items()}
    claimed = (claim.claimed,) if isinstance(claim.claimed, str) else claim.claimed
    answer, reason = _judge(claimed, runs)
    diverged = [f"{name} in {lost} of {len(seeds)}" for name, each in runs.items() if (lost := _lost(each))]
    return Verdict(answer, len(seeds), f"{reason}; diverged: {_listed(diverged)}" if diverged else reason)


def compared(scores: Scores, metric: str, mode: Mode) -> Comparison:
    """The ranking of a sweep, of settings by their scores; those that diverged are listed behind."""
    rows = [
        {
            "setting": name, "seed": seed, "objective": None if math.isnan(value) else value,
            "status": "diverged" if math.isnan(value) else "completed",
        }
        for name, found in scores.items() for seed, value in found.items()
    ]  # fmt: skip
    return compare(pd.DataFrame(rows), ["setting"], mode=mode, name=metric)


@dataclass(frozen=True)
class _Pair:
    """A claimed setting beside another.

    Args:
        claimed: its name.
        other: the other's name.
        mean: lead of the claimed one, over the seeds in which neither diverged.
        ahead: in how many seeds it is better; a run that diverged is behind one that did not.
        shown: whether the mean differs from 0 at 5 %.
    """

    claimed: str
    other: str
    mean: float
    ahead: int
    shown: bool


def _judge(claimed: Sequence[str], runs: Mapping[str, NDArray[np.float64]]) -> tuple[Answer, str]:
    """By the runs of each setting, more being better, NaN where one diverged, in the same order of seeds."""
    never = [name for name, each in runs.items() if np.isnan(each).all()]
    others = [name for name in runs if name not in claimed and name not in never]
    unsteady = [name for name in claimed if _lost(runs[name])]
    if gone := [name for name in claimed if name in never]:
        return ("does not hold", f"{_listed(gone)} never learns") if others else ("cannot be told", "all diverge")
    if not others:
        return ("cannot be told", "all diverge") if unsteady else ("holds", "all others diverge")
    pairs = _pairs([(one, other) for one in claimed for other in others], runs)
    behind = [pair for pair in pairs if pair.shown and pair.mean < 0]
    if firm := [pair for pair in behind if not _lost(runs[pair.other])]:
        worse = {one: [pair.other for pair in firm if pair.claimed == one] for one in claimed}
        return "does not hold", "; ".join(
            f"{one} is worse than {_listed(better)}" for one, better in worse.items() if better
        )
    open_ = [pair for pair in pairs if not pair.shown]
    reasons = [f"{pair.other} is ahead of {pair.claimed} where it does not diverge" for pair in behind]
    reasons += _not_shown(claimed, open_, runs)
    if reasons:
        return "cannot be told", "; ".join(reasons)
    if unsteady:
        return "cannot be told", f"better than {_listed(others)} where it does not diverge"
    return "holds", f"{_each_is(claimed)} better than {_listed(others)}"


def _pairs(names: Sequence[tuple[str, str]], runs: Mapping[str, NDArray[np.float64]]) -> list[_Pair]:
    leads = [runs[one] - runs[other] for one, other in names]
    kept = [lead[~np.isnan(lead)] for lead in leads]
    p = np.array([float(paired_p(lead, ROUNDING)) for lead in kept])
    shown = holm(np.nan_to_num(p, nan=1.0)) <= LEVEL
    better = [np.nan_to_num(runs[one], nan=-np.inf) > np.nan_to_num(runs[other], nan=-np.inf) for one, other in names]
    return [
        _Pair(one, other, float(lead.mean()) if len(lead) else math.nan, int(ahead.sum()), bool(clear))
        for (one, other), lead, ahead, clear in zip(names, kept, better, shown, strict=True)
    ]


def _not_shown(claimed: Sequence[str], pairs: Sequence[_Pair], runs: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """Of the pairs that chance may explain, a sentence for the claimed settings of which the same is to be said."""
    named: dict[str, list[str]] = {}
    for one in claimed:
        others = [(pair.other, pair.ahead) for pair in pairs if pair.claimed == one]
        said = [f"{other} (it is in {ahead} of {len(runs[other])} seeds)" for other, ahead in others[:1]]
        said += [f"{other} (in {ahead})" for other, ahead in others[1:]]
        if said:
            named.setdefault(_listed(said), []).append(one)
    return [f"{_each_is(names)} not shown to be better than {others}" for others, names in named.items()]


def _each_is(names: Sequence[str]) -> str:
    return f"{_listed(names)} {'are each' if len(names) > 1 else 'is'}"


def _lost(runs: NDArray[np.float64]) -> int:
    return int(np.isnan(runs).sum())


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
