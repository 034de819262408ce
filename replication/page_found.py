"""The page's first section: what was found, from the numbers of the sections below it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from replication import prose
from replication.ablation import beside_published, scores_of
from replication.intervals import number, spread
from replication.published import PUBLISHED, STUDIES
from replication.results import values
from replication.sizes import sizes
from replication.verdicts import CLAIMS, judge_claim
from replication.widths import widths_verdicts


def found_section(results: Mapping[str, Any], sections: Iterable[str]) -> list[str]:
    """One line for each finding; findings without numbers are left out.

    Args:
        results: collected by `collect`.
        sections: the lines of the sections that compare printed figures with ours.
    """
    lines = [_sizes(), _figures(sections), *_conclusions(results), *_mistakes(results), *_nets(results)]
    return ["## What was found", "", *(f"- {line}" for line in lines if line), ""]


def _sizes() -> str:
    rows = sizes()
    ours = sum(printed == found for _, printed, found in rows)
    return f"**Sizes.** {ours} of {len(rows)} printed sizes and settings equal ours."


def _figures(sections: Iterable[str]) -> str:
    """Counts the answers in the columns called within; a figure that is printed once and shown twice counts once."""
    rows = [line.strip("| ").split(" | ") for line in sections if line.startswith("|")]
    shown = {
        (row[at - 2], cell.split(" (")[0].split(":")[0])
        for row in rows
        for at, cell in enumerate(row)
        if cell.startswith(("yes (", "no (", "not said:"))
    }
    said = Counter(answer for _, answer in shown)
    if not shown:
        return ""
    return prose.FOUND_FIGURES.format(all=len(shown), yes=said["yes"], no=said["no"], unsaid=said["not said"])


def _conclusions(results: Mapping[str, Any]) -> list[str]:
    said: dict[str, list[str]] = {"holds": [], "does not hold": [], "cannot be told": []}
    for text, _, verdict in widths_verdicts(results):
        said[verdict.answer].append(text)
    for claim in CLAIMS:
        names = [setting.name for setting in STUDIES[claim.study].settings]
        said[judge_claim(claim, names, results).answer].append(claim.text)
    counts = [len(said[answer]) for answer in ("holds", "does not hold", "cannot be told")]
    lines = [prose.FOUND_CONCLUSIONS.format(all=sum(counts), holds=counts[0], fails=counts[1], open=counts[2])]
    for title, answer in (("Holds", "holds"), ("Does not hold", "does not hold")):
        if claims := list(dict.fromkeys(said[answer])):
            lines.append(f"**{title}** by one measure or by both: {'; '.join(claims)}.")
    return lines


def _mistakes(results: Mapping[str, Any]) -> list[str]:
    found, lines = results["mistakes"], []
    if norm := found.get("one norm for three layers"):
        each = {key: spread(dict(enumerate(norm[key]))) for key in ("in eval mode", "statistics for each place")}
        lines.append(prose.FOUND_NORM.format(shared=each["in eval mode"], separate=each["statistics for each place"]))
    if zero := found.get("cross-entropy of one channel"):
        lines.append(prose.FOUND_ZERO.format(gradient=number(zero["largest gradient"][0])))
    if iou := found.get("IoU that ignores classes"):
        lines.append(prose.FOUND_IOU.format(score=number(iou["every pixel wrong: published"][0])))
    return lines


def _nets(results: Mapping[str, Any]) -> list[str]:
    best = values(results, "texture_rates: Adam 0.001", "test/iou")
    lines = [prose.FOUND_BEST.format(iou=spread(best))] if best else []
    scores = scores_of(results, "val/iou")
    if PUBLISHED in scores:
        differences = beside_published(scores)
        better, worse = ([each.name for each in differences if each.said == said] for said in ("better", "worse"))
        lines.append(
            prose.FOUND_ABLATION.format(
                all=len(differences), better=", ".join(better) or "none", worse=", ".join(worse) or "none"
            )
        )
    return lines
