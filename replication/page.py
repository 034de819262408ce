"""Writes docs/replication.md from the collected numbers alone: the same numbers give the same page."""

import shlex
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from replication import ROOT, page_trainings, prose
from replication.intervals import number
from replication.page_ablation import ablation_section
from replication.page_found import found_section
from replication.page_mistakes import mistakes_section
from replication.page_parts import Pictures, table
from replication.published import PRINTED_TIMES, STUDIES, named
from replication.results import runs_of
from replication.sizes import exact, sizes
from replication.verdicts import CLAIMS, judge_claim
from replication.widths import widths_table, widths_verdicts

PAGE = ROOT / "docs/replication.md"
SEEDS = "seed=0,1,2,3,4"


def page(results: Mapping[str, Any], pictures: Path | None = None) -> str:
    """The whole page.

    Args:
        results: collected by `collect`.
        pictures: folder of the figures; missing figures are left out.
    """
    shown = Pictures(pictures)
    printed = [
        *page_trainings.first(results, shown),
        *page_trainings.rates(results, shown),
        *page_trainings.optimizers(results, shown),
    ]
    parts = [
        prose.HEAD,
        *found_section(results, printed),
        prose.READ,
        *_sizes(),
        "## The widths of the textures (texture notebook, 3.2)", "",
        prose.WIDTHS, "",
        *(widths_table(results) or ["Not measured yet.", ""]),
        *printed,
        *page_trainings.stood_still(results),
        *page_trainings.unet(results, shown),
        *_verdicts(results),
        *mistakes_section(results),
        *ablation_section(results, shown),
        *_figures(shown),
        *_commands(results),
    ]  # fmt: skip
    return "\n".join(line for part in parts for line in _wrapped(part)).rstrip() + "\n"


def _wrapped(part: str) -> list[str]:
    """Wraps prose; tables, headings and pictures stay unchanged."""
    if not part or part[0] in "|#!" or "\n" in part:
        return [part]
    indent = "  " if part.startswith("- ") else ""
    return textwrap.wrap(part, 124, break_long_words=False, break_on_hyphens=False, subsequent_indent=indent)


def _sizes() -> list[str]:
    rows = sizes()
    said = "All are equal." if all(printed == found for _, printed, found in rows) else "They are not all equal."
    shown = [[name, exact(printed), exact(found)] for name, printed, found in rows]
    return ["## Sizes", "", said, "", *table(["", "printed", "ours"], shown), prose.NOT_SHOWN, ""]


def _verdicts(results: Mapping[str, Any]) -> list[str]:
    rows, otherwise = [], []
    for text, measure, verdict in widths_verdicts(results):
        rows.append([text, measure, f"**{verdict.answer}**", f"{verdict.seeds} images", verdict.reason])
    for claim in CLAIMS:
        names = [setting.name for setting in STUDIES[claim.study].settings]
        verdict = judge_claim(claim, names, results)
        rows.append([claim.text, claim.metric, f"**{verdict.answer}**", str(verdict.seeds), verdict.reason])
        if (raw := judge_claim(claim, names, results, logarithms=False).answer) != verdict.answer:
            otherwise.append(f"{claim.text} by {claim.metric}: {raw}")
    return [
        "## What they conclude", "",
        prose.VERDICTS, "",
        *prose.OTHER_VERDICTS, "",
        *table(["conclusion", "by", "answer", "seeds", "why"], rows),
        *([prose.RAW_LOSSES.format(lines="; ".join(otherwise)), ""] if otherwise else []),
    ]  # fmt: skip


def _figures(shown: Pictures) -> list[str]:
    rows = []
    for where, what, picture in prose.FIGURES:
        rows.append([where, what, shown.link(picture) if picture else prose.NO_PICTURE])
    missing = any(row[-1] == prose.NOT_DRAWN for row in rows)
    text = f"{prose.ALL_FIGURES} {prose.WAITING}" if missing else prose.ALL_FIGURES
    return ["## Their figures", "", text, "", *table(["where", "what it shows", "ours"], rows)]


def _commands(results: Mapping[str, Any]) -> list[str]:
    rows, taken = [], results.get("seconds", {})
    for name, study in STUDIES.items():
        runs = [run for setting in study.settings for run in runs_of(results, named(name, setting))]
        root = ("data.root=PATH",) if study.needs_folder else ()
        typed = f"python train.py -m {shlex.join((*study.command, *root, SEEDS))}"
        rows.append([name, f"`{typed}`", str(len(runs)), PRINTED_TIMES.get(name, ""), *_times(runs)])
    return [
        "## Commands and times", "",
        prose.COMMANDS, "",
        *table(["study", "command", "runs", "a run, printed", "ours", "steps/s", "on"], rows),
        *([prose.EXPERIMENT_TIMES.format(minutes=f"{sum(taken.values()) / 60:.0f}"), ""] if taken else []),
    ]  # fmt: skip


def _times(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    if not runs:
        return ["", "", ""]
    dates = sorted({run["date"] for run in runs})
    where = [*sorted({run["device"] for run in runs}), *sorted({f"torch {run['versions']['torch']}" for run in runs})]
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    timed = [run for run in runs if run["seconds"] is not None and not run["diverged"]]
    if not timed:
        return ["", "", ", ".join([*where, when])]
    seconds = sorted(run["seconds"] for run in timed)
    took = f"{statistics.median(seconds) / 60:.1f} min"
    if seconds[-1] > 1.5 * seconds[0]:
        took += f" ({seconds[0] / 60:.1f} to {seconds[-1] / 60:.1f})"
    speed = statistics.median(run["steps"] / run["seconds"] for run in timed)
    return [took, number(speed) if speed < 1 else f"{speed:.1f}", ", ".join([*where, when])]
