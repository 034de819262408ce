"""What the documents conclude, tested by the statistics that a sweep ranks its settings with (docs/statistics.md)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from segsweep.replication.collect import values
from segsweep.replication.paired import can_be_tested, holm, paired_p
from segsweep.replication.published import CONFIDENT, LOSS
from segsweep.sweeps.statistics import LEVEL, Comparison, compare

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
    ("0.001 and 0.01 are (4.1, by its colours)", "texture_rates", MIDDLE[:2], LOSS, "min"),
    ("0.001 is plain SGD's best rate too (4.3)", "texture_sgd_rates", "SGD 0.001", LOSS, "min"),
    ("Adam is the best optimizer at 0.001 (4.3)", "texture_optimizers", "Adam", CONFIDENT, "max"),
    ("SGD is worse at 0.001, with momentum or not (4.3)", "texture_optimizers", ADAPTIVE, CONFIDENT, "max"),
)
_REPORT = (("0.1 is the best learning rate", "rates"), ("0.1 is the best momentum", "momenta"))


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
        for metric, mode in _by("val/loss", "min")
    ),
)
"""Each by the measure that the document uses, and by the iou on validation."""


def judge_claim(claim: Claim, settings: Sequence[str], results: Mapping[str, Any]) -> Verdict:
    """Tests a claim on the runs that there are, over the seeds that all settings have.

    It holds where the claimed settings are better than all others, or than those that do not diverge; it does not where
    one of them is worse, or diverges while others do not; and it cannot be told where chance may explain the order.

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
    claimed = (claim.claimed,) if isinstance(claim.claimed, str) else claim.claimed
    lost = {name: text for name, found in scores.items() if (text := _diverged(found))}
    if unsteady := [name for name in claimed if name in lost]:
        answer: Answer = "cannot be told" if len(lost) == len(scores) else "does not hold"
        return Verdict(answer, len(seeds), _listed([f"{name} diverged in {lost[name]}" for name in unsteady]))
    sign = 1 if claim.mode == "max" else -1
    for name, text in lost.items():
        ahead = [one for one in claimed if _lead(scores[one], scores[name], sign) < 0]
        if ahead:
            said = f"{name} is ahead of {_listed(ahead)} where it does not diverge, in {text} it does"
            return Verdict("cannot be told", len(seeds), said)
    whole = {name: {seed: found[seed] for seed in seeds} for name, found in scores.items() if name not in lost}
    judge = _judge_best if isinstance(claim.claimed, str) else _judge_group
    answer, reason = judge(claimed, whole, claim.mode)
    diverging = _listed([f"{name} in {text}" for name, text in lost.items()]) if lost else ""
    if answer == "holds" and lost:
        reason = (
            f"{reason}, or diverge: {diverging}" if len(whole) > len(claimed) else f"all others diverge: {diverging}"
        )
    return Verdict(answer, len(seeds), reason)


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


def _judge_best(claimed: Sequence[str], scores: Scores, mode: Mode) -> tuple[Answer, str]:
    (name,) = claimed
    table = compared(scores, "score", mode).table
    said = dict(zip(table["setting"], table["verdict"], strict=True))
    best = table["setting"].iloc[0]
    level = [other for other, verdict in said.items() if verdict == "not distinguishable"]
    same = [other for other, verdict in said.items() if verdict == "no statement"]
    if best != name:
        if said[name] == "worse":
            return "does not hold", f"it is worse than {best}"
        if said[name] == "no statement":
            return "cannot be told", f"it differs from {best} by the same in every seed"
        return "cannot be told", f"{best} leads, and {name} may be as good"
    if level:
        return "cannot be told", f"it leads, and {_listed(level)} may be as good"
    if same:
        return "cannot be told", f"it differs from {_listed(same)} by the same in every seed"
    return "holds", f"all others are worse than {name}"


def _judge_group(claimed: Sequence[str], scores: Scores, mode: Mode) -> tuple[Answer, str]:
    """Each of a group beside each of the others, by paired t-tests that are corrected for the number of these pairs."""
    sign = 1 if mode == "max" else -1
    others = [name for name in scores if name not in claimed]
    pairs = [(one, other) for one in claimed for other in others]
    if not pairs:
        return "holds", ""
    leads = [sign * (_array(scores[one]) - _array(scores[other])) for one, other in pairs]
    p = np.array([paired_p(lead) if can_be_tested(lead) else 1.0 for lead in leads])
    shown = holm(p) <= LEVEL
    behind = [pair for pair, lead, clear in zip(pairs, leads, shown, strict=True) if clear and lead.mean() < 0]
    open_ = [pair for pair, clear in zip(pairs, shown, strict=True) if not clear]
    if behind:
        return "does not hold", "; ".join(f"{one} is worse than {other}" for one, other in behind)
    if open_:
        as_good = [other for other in others if any(other == name for _, name in open_)]
        than = [one for one in claimed if any(one == name for name, _ in open_)]
        some = "" if len(open_) == len(as_good) * len(than) else "some of "
        return "cannot be told", f"{_listed(as_good)} may be as good as {some}{_listed(than)}"
    return "holds", f"each is better than {_listed(others)}"


def _diverged(found: Mapping[int, float]) -> str:
    """In how many runs, as in "2 of 5"; "" where in none."""
    number = sum(map(math.isnan, found.values()))
    return f"{number} of {len(found)}" if number else ""


def _lead(one: Mapping[int, float], other: Mapping[int, float], sign: int) -> float:
    """Mean of one over other, over the seeds in which neither diverged; NaN where there are none."""
    each = [sign * (one[seed] - other[seed]) for seed in one if seed in other]
    finite = [value for value in each if not math.isnan(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _array(found: Mapping[int, float]) -> np.ndarray:
    return np.array([found[seed] for seed in sorted(found)])


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
