"""What the documents conclude, tested by the statistics that a sweep ranks its settings with (docs/statistics.md)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from segsweep.replication.collect import ROUNDING, values
from segsweep.replication.published import CONFIDENT, LOSS
from segsweep.sweeps.statistics import LEVEL, Comparison, compare, holm, paired_p

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

    It holds where the claimed settings are better than all others; it does not where one of them is worse; and it
    cannot be told where chance may explain the order. A setting of which some runs diverge is compared by the others,
    which flatters it: so it may be worse all the same, but it is not called better.

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
    scores = {name: {seed: found[seed] for seed in seeds} for name, found in scores.items()}
    claimed = (claim.claimed,) if isinstance(claim.claimed, str) else claim.claimed
    lost = {name: number for name, found in scores.items() if (number := sum(map(math.isnan, found.values())))}
    if lost or not isinstance(claim.claimed, str):
        answer, reason = _judge_pairs(claimed, scores, claim.mode)
    else:
        answer, reason = _judge_best(claim.claimed, scores, claim.mode)
    diverged = [f"{name} in {number} of {len(seeds)}" for name, number in lost.items()]
    return Verdict(answer, len(seeds), f"{reason} (diverged: {_listed(diverged)})" if diverged else reason)


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


def _judge_best(claimed: str, scores: Scores, mode: Mode) -> tuple[Answer, str]:
    """One setting beside the others, all pairs being compared."""
    table = compared(scores, "score", mode).table
    said = dict(zip(table["setting"], table["verdict"], strict=True))
    best = table["setting"].iloc[0]
    level = [other for other, verdict in said.items() if verdict == "not distinguishable"]
    same = [other for other, verdict in said.items() if verdict == "no statement"]
    if best != claimed:
        if said[claimed] == "worse":
            return "does not hold", f"it is worse than {best}"
        if said[claimed] == "no statement":
            return "cannot be told", f"it differs from {best} by the same in every seed"
        return "cannot be told", f"{best} leads, and {claimed} may be as good"
    if level:
        return "cannot be told", f"it leads, and {_listed(level)} may be as good"
    if same:
        return "cannot be told", f"it differs from {_listed(same)} by the same in every seed"
    return "holds", f"all others are worse than {claimed}"


def _judge_pairs(claimed: Sequence[str], scores: Scores, mode: Mode) -> tuple[Answer, str]:
    """Each of the claimed beside each of the others, by paired t-tests that are corrected for the number of these pairs."""
    sign = 1 if mode == "max" else -1
    alive = [name for name, found in scores.items() if not all(map(math.isnan, found.values()))]
    lost = {name for name, found in scores.items() if any(map(math.isnan, found.values()))}
    others = [name for name in alive if name not in claimed]
    if gone := [name for name in claimed if name not in alive]:
        return ("does not hold", f"{_listed(gone)} never learns") if others else ("cannot be told", "all diverge")
    if not others:
        return ("cannot be told", "all diverge") if lost & set(claimed) else ("holds", "all others diverge")
    pairs = [(one, other) for one in claimed for other in others]
    leads = [sign * (_array(scores[one]) - _array(scores[other])) for one, other in pairs]
    leads = [lead[~np.isnan(lead)] for lead in leads]
    p = np.array([float(paired_p(lead, ROUNDING)) for lead in leads])
    shown = holm(np.nan_to_num(p, nan=1.0)) <= LEVEL
    behind = [pair for pair, lead, clear in zip(pairs, leads, shown, strict=True) if clear and lead.mean() < 0]
    open_ = [pair for pair, clear in zip(pairs, shown, strict=True) if not clear]
    if firm := [(one, other) for one, other in behind if other not in lost]:
        return "does not hold", "; ".join(f"{one} is worse than {other}" for one, other in firm)
    if behind:
        return "cannot be told", "; ".join(
            f"{other} is ahead of {one} where it does not diverge" for one, other in behind
        )
    means = dict(zip(pairs, map(np.mean, leads), strict=True))
    if ahead := [other for other in others if any(name == other and means[one, name] < 0 for one, name in open_)]:
        trailing = [one for one in claimed if any(name == one and means[name, other] < 0 for name, other in open_)]
        return (
            "cannot be told",
            f"{_listed(ahead)} {'lead' if len(ahead) > 1 else 'leads'}, and {_listed(trailing)} may be as good",
        )
    if open_:
        as_good = [other for other in others if any(other == name for _, name in open_)]
        than = [one for one in claimed if any(one == name for name, _ in open_)]
        some = "" if len(open_) == len(as_good) * len(than) else "some of "
        return "cannot be told", f"{_listed(as_good)} may be as good as {some}{_listed(than)}"
    if lost & set(claimed):
        return "cannot be told", f"better than {_listed(others)} where it does not diverge"
    better = f"{claimed[0]} is" if len(claimed) == 1 else "each is"
    return "holds", f"{better} better than {_listed(others)}"


def _array(found: Mapping[int, float]) -> np.ndarray:
    return np.array([found[seed] for seed in sorted(found)])


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
