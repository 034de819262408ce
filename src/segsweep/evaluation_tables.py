"""The tables that evaluate prints: the metrics of a run and of its classes, or several runs side by side."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from segsweep.absent_classes import MARK, absence, rests_on, scored_classes

if TYPE_CHECKING:
    from segsweep.evaluation import Evaluation, ScoredRun

SIDE_BY_SIDE = 6
"""Up to so many runs have a column each in the printed table. More have a row each, with the metrics in `ROW_METRICS`."""

ROW_METRICS = ("loss", "iou", "iou_image", "accuracy", "precision", "recall", "f1")


def print_scores(runs: Sequence["ScoredRun"]) -> None:
    """Prints the scores of one run; of several, a table for those of each task and set of classes.

    The iou of a binary task is that of one class, and of others a mean over classes: one table would compare them.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[ScoredRun]] = {}
    for scored in runs:
        groups.setdefault((scored.evaluation.kind, tuple(scored.evaluation.names)), []).append(scored)
    for (kind, names), members in groups.items():
        if len(groups) > 1:
            iou = f"iou is that of {scored_classes(names, kind)[0]}" if kind == "binary" else "iou is their mean"
            print(f"{members[0].evaluation.task} ({', '.join(names)}); {iou}:")
        print_group(members, alone=len(runs) == 1)
    if len(groups) > 1:
        print("The tables are of different tasks: do not compare a metric of one with that of another.")


def print_group(runs: Sequence["ScoredRun"], alone: bool) -> None:
    """Prints the metrics of runs: up to `SIDE_BY_SIDE` as columns, more as rows; for one `alone` also its classes."""
    split = runs[0].evaluator.data.name
    evaluations = [scored.evaluation for scored in runs]
    if alone:
        run, evaluation = runs[0].evaluator.run, evaluations[0]
        print(f"{run.checkpoint}, step {run.step}")
        table = Table("metric", split)
        for metric in evaluation.metrics:
            if "/" not in metric:  # metrics of one class are in the table of classes
                table.add_row(metric, metric_text(evaluation, metric, 6))
        print_table(table)
        columns = ("iou", "precision", "recall", "f1")
        table = Table("class", "true pixels", *columns)
        total = max(int(evaluation.confusion.sum()), 1)
        for name, scores in evaluation.per_class.items():
            numbers = ("absent" if math.isnan(scores[column]) else f"{scores[column]:.6f}" for column in columns)
            table.add_row(name, f"{100 * scores['pixels'] / total:.2f} %", *numbers)
    elif len(runs) <= SIDE_BY_SIDE:
        table = Table(f"metric ({split})", *(scored.name for scored in runs))
        for metric in dict.fromkeys(metric for evaluation in evaluations for metric in evaluation.metrics):
            table.add_row(metric, *(metric_text(evaluation, metric, 4) for evaluation in evaluations))
    else:
        table = Table(f"run ({split})", *ROW_METRICS)
        for scored in runs:
            table.add_row(scored.name, *(metric_text(scored.evaluation, metric, 4) for metric in ROW_METRICS))
    print_table(table)
    for absent in dict.fromkeys(evaluation.absent for evaluation in evaluations):
        if absent:
            print(f"{MARK.strip()} {absence(split, absent)}")


def metric_text(evaluation: "Evaluation", metric: str, digits: int) -> str:
    """A metric as a table shows it: marked if it leaves out absent classes, "" if the run does not have the metric."""
    if (value := evaluation.metrics.get(metric)) is None:
        return ""
    missing = "absent" if "/" in metric else "undefined"
    number = missing if math.isnan(value) else f"{value:.{digits}f}"
    return number + (MARK if rests_on(metric, evaluation.absent) else "")


def print_table(table: Table) -> None:
    """Prints a table in its full width, even if that is wider than the terminal: no number is cut short."""
    console = Console(markup=False, emoji=False)  # a class may be called [red]
    wanted = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    Console(width=max(console.width, wanted), soft_wrap=True, markup=False, emoji=False).print(table)
