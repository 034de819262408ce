"""What the documents conclude, tested by the statistics that a sweep ranks its settings with (docs/statistics.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from segsweep.replication.paired import can_be_tested, holm, paired_p
from segsweep.sweeps.statistics import LEVEL, Comparison, compare

Answer = Literal["holds", "does not hold", "cannot be told"]


@dataclass(frozen=True)
class Claim:
    """A conclusion: that one of some settings is the best, or that several are better than all others.

    Args:
        text: the conclusion, in our words, with its section.
        study: of the settings.
        claimed: the setting that is said to be the best, or the settings that are said to be better than the others.
        metric: by which; a column of metrics.csv.
        mode: whether more or less of it is better.
        among: the settings it is compared with; all of the study where empty.
    """

    text: str
    study: str
    claimed: str | tuple[str, ...]
    metric: str
    mode: Literal["min", "max"]
    among: Sequence[str] = ()


@dataclass(frozen=True)
class Verdict:
    """What our runs say of a claim; `comparison` is there where it is of a single best setting."""

    answer: Answer
    seeds: int
    reason: str
    comparison: Comparison | None


MIDDLE = ("Adam 0.001", "Adam 0.01", "Adam 0.1")
ADAPTIVE = ("Adam", "RMSprop")

CLAIMS = (
    Claim("0.001 is the best learning rate (4.1, 4.3)", "texture_rates", "Adam 0.001", "train/loss_running", "min"),
    Claim("0.001 is the best learning rate (4.1, 4.3)", "texture_rates", "Adam 0.001", "val/iou", "max"),
    Claim("0.001 to 0.1 are better than all others (4.1)", "texture_rates", MIDDLE, "train/loss_running", "min"),
    Claim("0.001 to 0.1 are better than all others (4.1)", "texture_rates", MIDDLE, "val/iou", "max"),
    Claim("0.001 is SGD's best rate too (4.3)", "texture_sgd_rates", "SGD 0.001", "train/loss_running", "min"),
    Claim("0.001 is SGD's best rate too (4.3)", "texture_sgd_rates", "SGD 0.001", "val/iou", "max"),
    Claim("Adam is the best optimizer (4.3)", "texture_optimizers", "Adam", "train/confident_accuracy_running", "max"),
    Claim("Adam is the best optimizer (4.3)", "texture_optimizers", "Adam", "val/iou", "max"),
    Claim("SGD is worse, with momentum or not (4.3)", "texture_optimizers", ADAPTIVE, "val/iou", "max"),
    *(
        claim
        for data, name in (("demo", "demo scenes"), ("dubai", "aerial images"))
        for claim in (
            Claim(f"0.1 is the best learning rate (U-Net report; {name})", f"{data}_rates", "0.1", "val/loss", "min"),
            Claim(f"0.1 is the best momentum (U-Net report; {name})", f"{data}_momenta", "0.1", "val/loss", "min"),
            Claim(f"0.1 is the best momentum (U-Net report; {name})", f"{data}_momenta", "0.1", "val/iou", "max"),
        )
    ),
)


def judge_claim(claim: Claim, settings: Sequence[str], results: Mapping[str, Any]) -> Verdict:
    """Tests a claim on the runs that there are.

    It holds where the claimed setting has the best mean and all others are worse; it does not where the claimed one is
    worse than the best; and it cannot be told where what leads may lead by chance. Settings that diverged have no value,
    and are no rivals.

    Args:
        claim: the conclusion.
        settings: of the study.
        results: as `collect` leaves them.
    """
    names = claim.among or settings
    runs = {name: results["settings"].get(f"{claim.study}: {name}", {"runs": []})["runs"] for name in names}
    if missing := [name for name in names if not runs[name]]:
        return Verdict("cannot be told", 0, f"not trained yet: {_listed(missing)}", None)
    if isinstance(claim.claimed, tuple):
        return _judge_group(claim, claim.claimed, runs)
    rows = [
        {
            "setting": name, "seed": run["seed"], "objective": run["metrics"].get(claim.metric),
            "status": "diverged" if run["diverged"] else "completed",
        }
        for name in names for run in runs[name]
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    if (table["status"] != "completed").all():
        return Verdict("cannot be told", 0, "all diverged", None)
    compared = compare(table, ["setting"], mode=claim.mode, name=claim.metric)
    said = {row["setting"]: row["verdict"] for _, row in compared.table.iterrows()}
    best = compared.table["setting"].iloc[0]
    seeds = compared.replicates
    lost = {run_name for run_name in names if any(run["diverged"] for run in runs[run_name])}
    open_ = [
        name for name, verdict in said.items()
        if verdict in ("not distinguishable", "no statement") and name not in lost
    ]  # fmt: skip
    if claim.claimed in lost:
        return Verdict("does not hold", seeds, "it diverges", compared)
    if seeds < 2:
        return Verdict("cannot be told", seeds, f"{best} leads, in one run each", compared)
    if said[claim.claimed] == "best":
        if not open_:
            return Verdict("holds", seeds, f"all others are worse than {best}", compared)
        return Verdict("cannot be told", seeds, f"it leads, and {_listed(open_)} may be as good", compared)
    if said[claim.claimed] == "worse":
        return Verdict("does not hold", seeds, f"it is worse than {best}", compared)
    return Verdict("cannot be told", seeds, f"{best} leads, and {claim.claimed} may be as good", compared)


def _judge_group(claim: Claim, group: Sequence[str], runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Verdict:
    """Each of a group beside each of the others, by paired t-tests that are corrected for the number of these pairs."""
    if lost := [name for name in group if any(run["diverged"] for run in runs[name])]:
        return Verdict("does not hold", 0, f"{_listed(lost)} may diverge", None)
    scores = {
        name: {run["seed"]: run["metrics"][claim.metric] for run in each}
        for name, each in runs.items()
        if not any(run["diverged"] for run in each)
    }
    others = [name for name in scores if name not in group]
    sign = 1 if claim.mode == "max" else -1
    leads = {
        (one, other): np.array(
            [sign * (scores[one][seed] - scores[other][seed]) for seed in scores[one] if seed in scores[other]]
        )
        for one in group
        for other in others
    }
    seeds = min(map(len, leads.values()), default=0)
    if not all(map(can_be_tested, leads.values())):
        return Verdict("cannot be told", seeds, "fewer than two seeds in common, or the same difference in all", None)
    shown = holm(np.array([paired_p(lead) for lead in leads.values()])) <= LEVEL
    behind = [pair for (pair, lead), clear in zip(leads.items(), shown, strict=True) if clear and lead.mean() < 0]
    open_ = [pair for pair, clear in zip(leads, shown, strict=True) if not clear]
    if behind:
        return Verdict("does not hold", seeds, "; ".join(f"{one} is worse than {other}" for one, other in behind), None)
    if open_:
        said = "; ".join(f"{other} may be as good as {one}" for one, other in open_)
        return Verdict("cannot be told", seeds, said, None)
    return Verdict("holds", seeds, f"each is better than {_listed(others)}", None)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
