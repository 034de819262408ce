"""The page's section on the ablation."""

import math
from collections.abc import Mapping
from typing import Any, get_args

from replication import prose
from replication.ablation import Beside, beside_published, scores_of
from replication.intervals import spread
from replication.page_parts import Pictures, table
from replication.published import PUBLISHED, VARIANTS
from replication.results import runs_of, values
from replication.verdicts import compared

ANSWERS: tuple[Beside, ...] = get_args(Beside)


def ablation_section(results: Mapping[str, Any], shown: Pictures) -> list[str]:
    parts = ["## Does each layer make sense?", "", prose.ABLATION, ""]
    scores = scores_of(results, "val/iou")
    if PUBLISHED not in scores:
        return [*parts, "Not trained yet.", ""]
    rows = []
    differences = beside_published(scores)
    for entry in differences:
        shift = "" if math.isnan(entry.mean) else f"{entry.mean:+.2g}"
        shift += "" if math.isnan(entry.half_width) else f" ± {entry.half_width:.2g}"
        tested = "" if math.isnan(entry.p) else f"{entry.p:.2g}"
        rows.append([*_net(results, entry.name), shift, tested, entry.said])
    by_answer = {answer: [entry.name for entry in differences if entry.said == answer] for answer in ANSWERS}
    answers = [f"{answer}: {', '.join(names)}" for answer, names in by_answer.items() if names]
    missing = [name for name in VARIANTS if name not in scores]
    ranked = [prose.ABLATION_RANKED, *compared(scores, "val/iou", "max").sentences()] if rows else []
    header = ["net", "what differs", "parameters", "val/iou", "test/iou", "val/iou less the published", "p", "answer"]
    return [
        *parts,
        *table(header, [[*_net(results, PUBLISHED), "", "", ""], *rows]),
        *shown("ablation.png", "Share of the union that each net gets wrong, by run"),
        *([f"Beside the published net: {'; '.join(answers)}.", ""] if answers else []),
        *([f"Not trained yet: {', '.join(missing)}.", ""] if missing else []),
        *([" ".join(ranked), ""] if ranked else []),
    ]  # fmt: skip


def _net(results: Mapping[str, Any], name: str) -> list[str]:
    runs = runs_of(results, f"ablation: {name}")
    scores = [spread(values(results, f"ablation: {name}", metric)) for metric in ("val/iou", "test/iou")]
    return [name, VARIANTS[name], f"{runs[0]['parameters']:,}", *scores]
