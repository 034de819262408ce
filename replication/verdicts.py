"""Tests the documents' conclusions with the statistics of a sweep's ranking (docs/statistics.md)."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from replication import ROOT
from replication.published import CONFIDENT, LOSS, STUDIES
from replication.results import ROUNDING, rounded, values
from segsweep.sweeps.ranking import Comparison, compare
from segsweep.sweeps.scale import Scale, scale_of
from segsweep.sweeps.statistics import LEVEL, holm, paired_p

Mode = Literal["min", "max"]
Answer = Literal["holds", "does not hold", "cannot be told"]

LEAST_SEEDS = 5
"""A conclusion is tested only if every setting has this many seeds."""


@dataclass(frozen=True)
class Claim:
    """A conclusion of a document: one setting is the best, or several are better than all others.

    Args:
        text: the conclusion in our words, with its section.
        study: the study with the settings.
        claimed: the best setting, or the settings that are better than the others.
        metric: column of metrics.csv to compare by.
        mode: whether a higher or a lower metric is better.
        beside: what else is compared, by name: the name that a setting of another study has in the collected results, or a
            number.
    """

    text: str
    study: str
    claimed: str | tuple[str, ...]
    metric: str
    mode: Mode
    beside: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The answer to a claim, the number of seeds that all settings have, and the reason."""

    answer: Answer
    seeds: int
    reason: str


Scores = Mapping[str, Mapping[int, float]]
"""A value by setting and seed; NaN for a diverged run."""

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
DATA = (("demo", "demo scenes"), ("dubai", "aerial images"))
_REPORT = (
    ("0.1 is the best learning rate", "rates"),
    ("0.1 is the best momentum", "momenta"),
    ("0.1 is the best momentum, at the rate that is best here", "own"),
)


def _by(theirs: str, mode: Mode) -> tuple[tuple[str, Mode], tuple[str, Mode]]:
    """The document's measure, then ours."""
    return (theirs, mode), ("val/iou", "max")


def _majority() -> dict[str, float]:
    """Metrics of predicting the most frequent class of the training everywhere in the aerial images' test split."""
    measured = json.loads((ROOT / "docs/measured/folder_baselines.json").read_text(encoding="utf-8"))
    (found,) = (each for name, each in measured["results"].items() if name.startswith("majority class"))
    return {f"test/{name}": rounded(value) for name, value in found.items()}


MAJORITY = _majority()
ADAM, BAR, ONE_CLASS = "Adam 0.001 in 1,000 steps", "the 85 %", "one class everywhere"

CLAIMS = (
    *(
        Claim("the first training does not predict so well (3.3)", "texture_first", ADAM, metric, "max",
              {ADAM: "texture_rates: Adam 0.001"})
        for metric in ("test/confident_accuracy", "test/iou")
    ),
    *(
        Claim(text, study, claimed, metric, direction)
        for text, study, claimed, theirs, mode in _NOTEBOOK
        for metric, direction in _by(theirs, mode)
    ),
    *(
        Claim(f"{text} (U-Net report; {name})", f"{data}_{study}", "0.1", metric, mode)
        for data, name in DATA
        for text, study in _REPORT
        if f"{data}_{study}" in STUDIES  # no second tuning if our best rate is the report's
        for metric, mode in _by("val/loss", "min")
    ),
    *(
        Claim(f"over 85 % for the two samples (U-Net report; {name})", f"{data}_overfit", ("0.9", "0.1"),
              metric, "max", {BAR: 0.85})
        for data, name in DATA
        for metric in ("val/foreground_iou", "val/iou")
    ),
    *(
        Claim("the model works: better than one class everywhere (U-Net report; aerial images)", "dubai_final",
              "0.1, momentum 0.1", metric, "max", {ONE_CLASS: MAJORITY[metric]})
        for metric in ("test/foreground_iou", "test/iou")
    ),
)  # fmt: skip
"""Each claim by the document's measure, and by an iou that counts the classes."""


def judge_claim(
    claim: Claim, settings: Sequence[str], results: Mapping[str, Any], *, logarithms: bool = True
) -> Verdict:
    """Tests a claim on the collected runs, over the seeds that all settings have.

    Paired t-tests compare each claimed setting with each of the others, corrected for these pairs alone: the claim was made
    before our runs, so no pair was picked by their results. The claim holds if every claimed setting is better than all
    others, and does not hold if one of them is worse. It cannot be told if chance may explain the order. A setting with
    diverged runs is compared by its other runs, which favours it: it can be called worse, but not better. Losses are
    compared by their logarithms, as in the page's intervals.

    Args:
        claim: the conclusion.
        settings: names of the study's settings.
        results: collected by `collect`.
        logarithms: False compares losses as they are.
    """
    collected = {name: f"{claim.study}: {name}" for name in settings}
    collected |= {name: other for name, other in claim.beside.items() if isinstance(other, str)}
    scores: Scores = {name: values(results, other, claim.metric) for name, other in collected.items()}
    if missing := [name for name, found in scores.items() if not found]:
        return Verdict("cannot be told", 0, f"not trained yet: {enumerated(missing)}")
    seeds = sorted(set.intersection(*(set(found) for found in scores.values())))
    if len(seeds) < LEAST_SEEDS:
        return Verdict("cannot be told", len(seeds), f"{len(seeds)} of {LEAST_SEEDS} seeds so far")
    sign = 1 if claim.mode == "max" else -1
    found = {name: np.array([each[seed] for seed in seeds]) for name, each in scores.items()}
    found |= {name: np.full(len(seeds), other) for name, other in claim.beside.items() if not isinstance(other, str)}
    losses = scale_of(claim.metric, np.concatenate(list(found.values()))) == "log"
    scale = Scale("log" if losses and logarithms else "raw")
    runs = {name: sign * scale.forward(each) for name, each in found.items()}
    claimed = (claim.claimed,) if isinstance(claim.claimed, str) else claim.claimed
    answer, reason = _judge(claimed, runs)
    diverged = [f"{name} in {lost} of {len(seeds)}" for name, each in runs.items() if (lost := _lost(each))]
    return Verdict(answer, len(seeds), f"{reason}; diverged: {enumerated(diverged)}" if diverged else reason)


def judge_pairs(names: Sequence[tuple[str, str]], runs: Mapping[str, NDArray[np.float64]], word: str) -> Verdict:
    """Tests the claim that in each pair the first is more so than the second; paired and corrected as `judge_claim` does.

    Args:
        names: the pairs.
        runs: numbers by name, in the same order for all.
        word: the claim as a comparative, such as "harder".
    """
    pairs = _pairs(names, runs)
    count = len(next(iter(runs.values())))
    if reverse := [f"{pair.other} is {word} than {pair.claimed}" for pair in pairs if pair.shown and pair.mean < 0]:
        return Verdict("does not hold", count, enumerated(reverse))
    if hidden := [f"{pair.claimed} than {pair.other} (it is in {pair.ahead})" for pair in pairs if not pair.shown]:
        return Verdict("cannot be told", count, f"not shown to be {word}: {enumerated(hidden)}")
    return Verdict("holds", count, enumerated([f"{one} is {word} than {other}" for one, other in names]))


def compared(scores: Scores, metric: str, mode: Mode) -> Comparison:
    """Ranks settings by their scores as a sweep does; diverged runs come last."""
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
    """Comparison of a claimed setting with another one.

    Args:
        claimed: name of the claimed setting.
        other: name of the other setting.
        mean: mean lead of the claimed setting on the scale of the test, over the seeds in which neither diverged.
        ahead: in how many seeds it is better; a diverged run is worse than one that did not diverge.
        shown: whether the mean differs from 0 at 5 %.
    """

    claimed: str
    other: str
    mean: float
    ahead: int
    shown: bool


def _judge(claimed: Sequence[str], runs: Mapping[str, NDArray[np.float64]]) -> tuple[Answer, str]:
    """Answer and reason, from scores by setting: one for each seed in the same order, higher is better, NaN if diverged."""
    never = [name for name, each in runs.items() if np.isnan(each).all()]
    others = [name for name in runs if name not in claimed and name not in never]
    unsteady = [name for name in claimed if _lost(runs[name])]
    if gone := [name for name in claimed if name in never]:
        return ("does not hold", f"{enumerated(gone)} never learns") if others else ("cannot be told", "all diverge")
    if not others:
        return ("cannot be told", "all diverge") if unsteady else ("holds", "all others diverge")
    pairs = _pairs([(one, other) for one in claimed for other in others], runs)
    behind = [pair for pair in pairs if pair.shown and pair.mean < 0]
    if firm := [pair for pair in behind if not _lost(runs[pair.other])]:
        worse = {one: [pair.other for pair in firm if pair.claimed == one] for one in claimed}
        return "does not hold", "; ".join(
            f"{one} is worse than {enumerated(better)}" for one, better in worse.items() if better
        )
    open_ = [pair for pair in pairs if not pair.shown]
    reasons = [f"{pair.other} is ahead of {pair.claimed} in the runs that did not diverge" for pair in behind]
    reasons += _not_shown(claimed, open_, runs)
    if reasons:
        return "cannot be told", "; ".join(reasons)
    if unsteady:
        return "cannot be told", f"better than {enumerated(others)} in the runs that did not diverge"
    return "holds", f"{_each_is(claimed)} better than {enumerated(others)}"


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
    """Sentences about the pairs that chance may explain; one sentence for claimed settings with the same reasons."""
    named: dict[str, list[str]] = {}
    for one in claimed:
        others = [(pair.other, pair.ahead) for pair in pairs if pair.claimed == one]
        said = [f"{other} (it is in {ahead} of {len(runs[other])} seeds)" for other, ahead in others[:1]]
        said += [f"{other} (in {ahead})" for other, ahead in others[1:]]
        if said:
            named.setdefault(enumerated(said), []).append(one)
    return [f"{_each_is(names)} not shown to be better than {others}" for others, names in named.items()]


def _each_is(names: Sequence[str]) -> str:
    return f"{enumerated(names)} {'are each' if len(names) > 1 else 'is'}"


def _lost(runs: NDArray[np.float64]) -> int:
    return int(np.isnan(runs).sum())


def enumerated(names: Sequence[str]) -> str:
    """Names as text: "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
