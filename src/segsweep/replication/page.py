"""docs/replication.md, from the collected numbers alone; the same numbers always give the same page."""

import math
import shlex
import statistics
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from segsweep import training
from segsweep.replication import texts
from segsweep.replication.ablation import Beside, Difference, beside_published, scores_of
from segsweep.replication.collect import last_values, runs_of, values, values_at
from segsweep.replication.intervals import as_printed, as_printed_iou, difference_of_two, number, spread, within
from segsweep.replication.mistakes import REPEATED
from segsweep.replication.published import (
    CONFIDENT,
    FIRST,
    FIRST_LOSSES,
    LOSS,
    MOMENTUM_SGD,
    ONE_BATCH,
    PLAIN_SGD,
    PRINTED_TIMES,
    PUBLISHED,
    SECOND_SGD,
    STOOD_STILL,
    STUDIES,
    VARIANTS,
    changed,
    named,
    tuning,
)
from segsweep.replication.sizes import exact, sizes
from segsweep.replication.verdicts import CLAIMS, compared, judge_claim

PAGE = Path(__file__).parents[3] / "docs/replication.md"
SEEDS = "seed=0,1,2,3,4"
SHOWN = (LOSS, "val/iou", "test/iou")
UNET_SHOWN = ("val/loss", "val/iou", "val/foreground_iou")
PLACES = ("the first", "the second", "the third")
ANSWERS: tuple[Beside, ...] = get_args(Beside)

Rows = list[list[str]]


def page(results: Mapping[str, Any], pictures: Path | None = None) -> str:
    """The whole page.

    Args:
        results: as `collect` leaves them.
        pictures: the folder in which figures are; those that are there are shown.
    """
    shown = _Pictures(pictures)
    parts = [
        texts.HEAD,
        *_sizes(),
        *_first(results, shown),
        *_rates(results, shown),
        *_optimizers(results, shown),
        *_stood_still(results),
        *_unet(results, shown),
        *_verdicts(results),
        *_mistakes(results),
        *_ablation(results, shown),
        *_figures(shown),
        *_commands(results),
    ]
    return "\n".join(line for part in parts for line in _wrapped(part)).rstrip() + "\n"


def _wrapped(part: str) -> list[str]:
    """Prose in lines of a readable length; tables, headings and pictures as they are."""
    if not part or part[0] in "|#!" or "\n" in part:
        return [part]
    return textwrap.wrap(part, 124, break_long_words=False, break_on_hyphens=False)


class _Pictures:
    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def __call__(self, name: str, what: str) -> list[str]:
        if self.folder is None or not (self.folder / name).exists():
            return []
        return [f"![{what}](images/replication/{name})", ""]

    def link(self, path: str) -> str:
        """Of a picture by its path below docs/images."""
        if self.folder is None or not (self.folder.parent / path).exists():
            return texts.NOT_DRAWN
        return f"[{path.rpartition('/')[2]}](images/{path})"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]] + [""]


def _sizes() -> list[str]:
    rows = sizes()
    said = "All are equal." if all(printed == found for _, printed, found in rows) else "They are not all equal."
    shown = [[name, exact(printed), exact(found)] for name, printed, found in rows]
    return ["## Sizes", "", said, "", *_table(["", "printed", "ours"], shown), texts.NOT_SHOWN, ""]


def _first(results: Mapping[str, Any], shown: _Pictures) -> list[str]:
    name = named("texture_first", FIRST)
    rows = []
    for step, printed in FIRST_LOSSES.items():
        ours = values_at(results, name, LOSS, step)
        rows.append([f"{step:,}", as_printed(printed), spread(ours), within(printed, ours, LOSS)])
    scores = values(results, name, "test/iou")
    one_batch = texts.ONE_BATCH.format(
        printed=as_printed(ONE_BATCH, 4),
        first=spread(values(results, name, "train/confident_accuracy")),
        momentum=spread(values(results, f"texture_optimizers: {MOMENTUM_SGD}", "train/confident_accuracy")),
    )
    return [
        "## The first training (texture notebook, 3.3)", "",
        texts.FIRST, "",
        *_table(["steps", "printed", "ours", "within"], rows),
        f"What it has learnt in the end, which the notebook does not measure: test/iou {spread(scores)}.", "",
        one_batch, "",
        *shown("first.png", "Running loss of the first training, printed and ours"),
        *shown("predictions.png", "What the first training predicts every 1,000 steps"),
    ]  # fmt: skip


def _rates(results: Mapping[str, Any], shown: _Pictures) -> list[str]:
    rows = []
    for setting in STUDIES["texture_rates"].settings:
        name = named("texture_rates", setting)
        printed, ours = setting.printed[LOSS], values(results, name, LOSS)
        rows.append(
            [setting.name.removeprefix("Adam "), as_printed(printed), spread(ours), within(printed, ours, LOSS),
             spread(values(results, name, "test/iou"))]
        )  # fmt: skip
    return [
        "## Learning rates (texture notebook, 4.1)", "",
        texts.RATES, "",
        *_table(["learning rate", "printed", "ours", "within", "test/iou"], rows),
        *shown("rates.png", "Running loss by learning rate"),
        *shown("rate_curves.png", "Running loss against steps, by learning rate"),
    ]  # fmt: skip


def _optimizers(results: Mapping[str, Any], shown: _Pictures) -> list[str]:
    rows = []
    for setting in STUDIES["texture_optimizers"].settings:
        name = named("texture_optimizers", setting)
        row = [setting.name + (", the loss from 3.3" if setting.name == PLAIN_SGD else "")]
        for metric, digits in ((LOSS, 5), (CONFIDENT, 4)):
            printed, ours = setting.printed.get(metric), values(results, name, metric)
            row += ["" if printed is None else as_printed(printed, digits), spread(ours)]
            row.append("" if printed is None else within(printed, ours, metric))
        rows.append([*row, spread(values(results, name, "test/iou"))])
        if setting.name == MOMENTUM_SGD:
            again = ['"SGD", which has momentum 0.9 too']
            for metric, digits in ((LOSS, 5), (CONFIDENT, 4)):
                printed = SECOND_SGD[metric]
                found = values(results, name, metric)
                again += [as_printed(printed, digits), "the same", within(printed, found, metric)]
            rows.append([*again, ""])
    sgd = [
        [setting.name, *(spread(values(results, named("texture_sgd_rates", setting), metric)) for metric in SHOWN)]
        for setting in STUDIES["texture_sgd_rates"].settings
    ]
    header = ["", "loss, printed", "ours", "within", '"precision", printed', "ours", "within", "test/iou"]
    return [
        "## Optimizers (texture notebook, 4.3)", "",
        texts.OPTIMIZERS, "",
        *_table(header, rows),
        *shown("optimizers.png", "Running loss and confident accuracy by optimizer"),
        *shown("optimizer_predictions.png", "What each optimizer's net predicts after 1,000 steps"),
        texts.SGD_RATES, "",
        *_table(["learning rate", "running loss", "val/iou", "test/iou"], sgd),
    ]  # fmt: skip


def _stood_still(results: Mapping[str, Any]) -> list[str]:
    name = named("texture_exponential", STOOD_STILL)
    zero = results["mistakes"].get("cross-entropy of one channel")
    said = (
        f"{zero['loss'][0]:.1f}, with a largest gradient of {zero['largest gradient'][0]:g}" if zero else "not run yet"
    )
    rows = [
        ["cross-entropy over one channel, printed 99 times", "-0.0", said],
        [
            "the same training with BCE and a step for every batch: test/iou",
            "",
            spread(values(results, name, "test/iou")),
        ],
        ["its running loss (BCE)", "", spread(values(results, name, LOSS))],
    ]
    return [
        "## The training that stood still (texture notebook, 4.1)", "",
        texts.STOOD_STILL, "",
        *_table(["", "printed", "ours"], rows),
    ]  # fmt: skip


def _unet(results: Mapping[str, Any], shown: _Pictures) -> list[str]:
    parts = [texts.UNET]
    for data, title in (("demo", "On the demo scenes"), ("dubai", "On the aerial images")):
        rows = [
            *_printed_ious(results, f"{data}_overfit", "two samples, 50 steps, rate 0.1, momentum {}; of these two"),
            *_printed_ious(results, f"{data}_final", "last training, rate {}; of the test split"),
        ]
        tuned = [
            [
                shown_as,
                *(spread(values(results, name, metric)) for metric in UNET_SHOWN),
                spread(last_values(results, name, "val/loss")),
            ]
            for shown_as, name in tuning(data).items()
        ]
        parts += [
            f"### {title}", "",
            *_table(["", 'printed "IoU"', "foreground_iou", "iou", "loss"], rows),
            *_learnt_by_heart(results, f"{data}_overfit"),
            texts.TUNING, "",
            *_table(["", *UNET_SHOWN, "val/loss in the end"], tuned),
            *_own_tuning(results, f"{data}_own"),
            *shown(f"{data}_rates.png", "Validation loss by learning rate and momentum"),
            *shown(f"{data}_overfit.png", "Loss of the training on two samples"),
            *shown(f"{data}_overlay.png", "A test image, its mask, the prediction, and the prediction laid over it"),
        ]  # fmt: skip
    return parts


def _printed_ious(results: Mapping[str, Any], study: str, what: str) -> Rows:
    rows = []
    for setting in STUDIES[study].settings:
        ((metric, printed),) = setting.printed.items()
        split = metric.partition("/")[0]
        each = (values(results, named(study, setting), name) for name in (metric, f"{split}/iou", f"{split}/loss"))
        rows.append([what.format(setting.name), as_printed_iou(printed), *map(spread, each)])
    return rows


def _learnt_by_heart(results: Mapping[str, Any], study: str) -> list[str]:
    runs = [run["metrics"] for setting in STUDIES[study].settings for run in runs_of(results, named(study, setting))]
    if not runs:
        return []
    learnt = [metrics for metrics in runs if metrics.get("val/iou", 0.0) >= training.OVERFIT_IOU]
    trivial = sum(sum(name.startswith("val/iou/") for name in metrics) == 1 for metrics in learnt)
    aside = f", {trivial} of them because their two crops hold one class" if trivial else ""
    return [texts.OVERFIT.format(learnt=len(learnt), all=len(runs), goal=training.OVERFIT_IOU, trivial=aside), ""]


def _own_tuning(results: Mapping[str, Any], study: str) -> list[str]:
    """The momenta at the rate that our own tuning chooses, where that is not the report's."""
    if study not in STUDIES:
        return []
    settings = STUDIES[study].settings
    shown = ("val/loss", "test/foreground_iou", "test/iou")
    rows = [
        [f"momentum {setting.name}", *(spread(values(results, named(study, setting), name)) for name in shown)]
        for setting in settings
    ]
    (rate,) = (word.removeprefix("lr=") for word in settings[0].overrides if word.startswith("lr="))
    return [texts.OWN.format(rate=rate), "", *_table(["", *shown], rows)]


def _verdicts(results: Mapping[str, Any]) -> list[str]:
    rows = []
    for claim in CLAIMS:
        names = [setting.name for setting in STUDIES[claim.study].settings]
        verdict = judge_claim(claim, names, results)
        rows.append([claim.text, claim.metric, f"**{verdict.answer}**", str(verdict.seeds), verdict.reason])
    return [
        "## What they conclude", "",
        texts.VERDICTS, "",
        *_table(["conclusion", "by", "answer", "seeds", "why"], rows),
    ]  # fmt: skip


def _mistakes(results: Mapping[str, Any]) -> list[str]:
    found = results["mistakes"]
    parts = [
        "## What they got wrong", "",
        texts.EXPERIMENTS, "",
    ]  # fmt: skip
    for name, (title, text, header) in texts.MISTAKES.items():
        parts += [f"### {title}", "", text, ""]
        if name == "momentum":
            parts += _table(header, _momentum(results))
        elif name not in found:
            parts += ["Not run yet.", ""]
        elif name == "not reset between rates":
            parts += _table(header, _protocols(found[name]))
        elif name in REPEATED:
            parts += _table(header, _each(found[name]))
        else:
            parts += _table(header, _pivoted(found[name]) if len(header) > 2 else _listed(found[name]))
    return parts


def _listed(found: Mapping[str, Sequence[float]]) -> Rows:
    return [[key, _figure(values)] for key, values in found.items()]


def _each(found: Mapping[str, Sequence[float]]) -> Rows:
    """A row for each figure of an experiment that depends on the seed, with the spread and every one."""
    return [[key, spread(dict(enumerate(values))), ", ".join(map(number, values))] for key, values in found.items()]


def _pivoted(found: Mapping[str, Sequence[float]]) -> Rows:
    """Of names such as "case: measure" a row for each case."""
    rows: dict[str, list[str]] = {}
    for key, measured in found.items():
        rows.setdefault(key.rpartition(": ")[0], []).append(_figure(measured))
    return [[case, *measured] for case, measured in rows.items()]


def _protocols(found: Mapping[str, Sequence[float]]) -> Rows:
    """Of names such as "protocol: rate, place" a row for each protocol, and which place has the lowest loss how often."""
    cells: dict[str, dict[str, Sequence[float]]] = {}
    for key, losses in found.items():
        name, _, rate_and_place = key.partition(": ")
        cells.setdefault(name, {})[rate_and_place] = losses
    rows = []
    for name, losses_of in cells.items():
        rates = [key.rpartition(", ")[0] for key in losses_of]
        leading = Counter(np.argmin(np.array(list(losses_of.values())), axis=0).tolist())
        leads = [
            f"{rates[place] if len(set(rates)) > 1 else PLACES[place]} in {times} of {leading.total()}"
            for place, times in sorted(leading.items())
        ]
        each = [f"{rate}: {_figure(losses)}" for rate, losses in zip(rates, losses_of.values(), strict=True)]
        rows.append([name, *each, ", ".join(leads)])
    return rows


def _figure(values: Sequence[float]) -> str:
    if len(values) > 1:
        return spread(dict(enumerate(values)))
    (value,) = values
    if value == 0:
        return "-0.0" if math.copysign(1, value) < 0 else "0"
    return f"{value:,.0f}" if value == int(value) and value > 1 else number(value)


def _momentum(results: Mapping[str, Any]) -> Rows:
    rows = []
    name = f"texture_optimizers: {MOMENTUM_SGD}"
    printed = {setting.name: setting.printed for setting in STUDIES["texture_optimizers"].settings}[MOMENTUM_SGD]
    for title, metric in (("running loss", LOSS), ("confident accuracy", CONFIDENT)):
        found = np.array(list(values(results, name, metric).values()))
        ours = ["not trained yet", ""]
        if len(found) > 1:
            ours = [f"{number(difference_of_two(found))} (n = {len(found)})", number(float(np.ptp(found)))]
        meant = spread(values(results, f"texture_optimizers: {PLAIN_SGD}", metric))
        rows.append([title, number(abs(printed[metric] - SECOND_SGD[metric])), *ours, meant])
    return rows


def _ablation(results: Mapping[str, Any], shown: _Pictures) -> list[str]:
    parts = ["## Does each layer make sense?", "", texts.ABLATION, ""]
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
    missing = [name for name in VARIANTS if name not in scores]
    ranked = [texts.ABLATION_RANKED, *compared(scores, "val/iou", "max").sentences()] if rows else []
    header = ["net", "what differs", "parameters", "val/iou", "test/iou", "val/iou less the published", "p", "answer"]
    return [
        *parts,
        *_table(header, [[*_net(results, PUBLISHED), "", "", ""], *rows]),
        *shown("ablation.png", "Share of the union that each net gets wrong, by run"),
        *_answer(differences),
        *([f"Not trained yet: {', '.join(missing)}.", ""] if missing else []),
        *([" ".join(ranked), ""] if ranked else []),
    ]  # fmt: skip


def _net(results: Mapping[str, Any], name: str) -> list[str]:
    runs = runs_of(results, f"ablation: {name}")
    scores = [spread(values(results, f"ablation: {name}", metric)) for metric in ("val/iou", "test/iou")]
    return [name, changed(name), f"{runs[0]['parameters']:,}", *scores]


def _answer(differences: Sequence[Difference]) -> list[str]:
    said: dict[str, list[str]] = {}
    for entry in differences:
        said.setdefault(entry.said, []).append(entry.name)
    known = [f"{verdict}: {', '.join(said[verdict])}" for verdict in ANSWERS if verdict in said]
    return [f"Beside the published net: {'; '.join(known)}.", ""] if known else []


def _figures(shown: _Pictures) -> list[str]:
    rows = []
    for where, what, picture in texts.FIGURES:
        rows.append([where, what, shown.link(picture) if picture else texts.NO_PICTURE])
    missing = any(row[-1] == texts.NOT_DRAWN for row in rows)
    text = f"{texts.ALL_FIGURES} {texts.WAITING}" if missing else texts.ALL_FIGURES
    return ["## Their figures", "", text, "", *_table(["where", "what it shows", "ours"], rows)]


def _commands(results: Mapping[str, Any]) -> list[str]:
    rows, taken = [], results.get("seconds", {})
    for name, study in STUDIES.items():
        runs = [run for setting in study.settings for run in runs_of(results, named(name, setting))]
        root = ("data.root=PATH",) if study.needs_folder else ()
        typed = f"python train.py -m {shlex.join((*study.command, *root, SEEDS))}"
        rows.append([name, f"`{typed}`", str(len(runs)), PRINTED_TIMES.get(name, ""), *_times(runs)])
    return [
        "## Commands and times", "",
        texts.COMMANDS, "",
        *_table(["study", "command", "runs", "a run, printed", "ours", "steps/s", "on"], rows),
        *([texts.EXPERIMENT_TIMES.format(minutes=f"{sum(taken.values()) / 60:.0f}"), ""] if taken else []),
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
