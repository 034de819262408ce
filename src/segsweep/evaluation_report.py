"""What an evaluation leaves: tables on the terminal, evaluation.json and pictures; for one run or several."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from segsweep.absence import MARK, absence, rests_on
from segsweep.evaluation import Evaluation, Evaluator, Sample
from segsweep.evaluation_data import ScoredSplit, data_of
from segsweep.instantiate import AtLeast0, checked
from segsweep.plots import confusion, overlay_panels, save, scored_samples
from segsweep.runs.files import write_json, write_text
from segsweep.runs.find import find_runs, short_names
from segsweep.runs.load import Run, load_run

SIDE_BY_SIDE = 6
"""Runs that have a column each. Of more, a row each says the metrics in short; evaluation.csv has them all."""

_IN_SHORT = ("loss", "iou", "iou_image", "accuracy", "precision", "recall", "f1")


@checked
def evaluate_runs(
    folder: Callable[[], Path],
    run: str | list[str],
    split: ScoredSplit = "test",
    index: int | list[int] | None = None,
    pictures: AtLeast0 = 4,
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    data: Mapping[str, Any] | None = None,
) -> None:
    """Scores runs, prints what they reach and writes it to a folder; or, given `index`, draws those images alone.

    Args:
        folder: makes the folder and gives it; called when there is something to write.
        run: as `find_runs` takes it.
        split: "val", "test" or, of a folder, "all".
        index: positions in the split.
        pictures: how many of the best and of the worst images are drawn; 0 draws none.
        accelerator: "auto" takes a CUDA GPU where there is one.
        data: settings of the `data` group that differ from those the run was trained with.

    Raises:
        UserError: a run cannot be loaded, the data cannot be found or does not fit, or a setting is wrong; nothing was
            written.
    """
    paths = find_runs(run)
    names = short_names(paths)
    evaluators = _evaluators([load_run(path) for path in paths], data or {}, split, accelerator)
    for line in dict.fromkeys(line for evaluator in evaluators for line in evaluator.data.notes):
        print(line)
    if index is not None:
        indices = [index] if isinstance(index, int) else index
        samples = [[(at, evaluator.sample(at)) for at in indices] for evaluator in evaluators]
        _write_samples(folder(), evaluators, samples, names)
        return
    evaluations = [evaluator.score() for evaluator in evaluators]
    where = folder()
    for name, evaluator, evaluation in zip(names, evaluators, evaluations, strict=True):
        own = where if len(names) == 1 else where / name
        own.mkdir(parents=True, exist_ok=True)
        _draw(own, evaluator, evaluation, pictures)
    _write_numbers(where, paths, names, evaluators, evaluations)
    _print(names, evaluators, evaluations)
    print(f"Everything is in {where}")


def _evaluators(
    runs: Sequence[Run], changes: Mapping[str, Any], split: ScoredSplit, accelerator: Literal["auto", "cpu", "gpu"]
) -> list[Evaluator]:
    evaluators: list[Evaluator] = []
    for run in runs:
        data = data_of(run, changes, split)
        # Runs of one sweep share their data, which then is read once.
        same = next((one.data for one in evaluators if one.data.settings == data.settings), data)
        evaluators.append(Evaluator(run, replace(data, source=same.source), accelerator))
    return evaluators


def _write_samples(
    folder: Path, evaluators: Sequence[Evaluator], samples: Sequence[list[tuple[int, Sample]]], names: Sequence[str]
) -> None:
    for name, evaluator, own in zip(names, evaluators, samples, strict=True):
        where = folder if len(names) == 1 else folder / name
        where.mkdir(parents=True, exist_ok=True)
        for index, sample in own:
            figure = overlay_panels(
                sample.image, sample.mask, sample.prediction, **_look(evaluator.run),
                title=f"{sample.name}: iou {sample.iou:.4f}",
            )  # fmt: skip
            path = save(figure, where / f"sample_{index}.png")
            print(f"{sample.name}: iou {sample.iou:.6f}; {path}")


def _draw(folder: Path, evaluator: Evaluator, evaluation: Evaluation, pictures: int) -> None:
    split, run = evaluator.data.name, evaluator.run
    save(
        confusion(
            evaluation.confusion,
            evaluation.names,
            title=f"{split}: shares of each true class's pixels, and their number",
        ),
        folder / "confusion.png",
    )
    ranked = evaluation.ranked()
    for which, chosen in (("best", ranked[:pictures]), ("worst", ranked[::-1][:pictures])):
        if not chosen:
            continue
        samples = [evaluator.sample(image.index) for image in chosen]
        figure = scored_samples(
            [sample.image for sample in samples], [sample.mask for sample in samples],
            [sample.prediction for sample in samples], [image.iou for image in chosen], **_look(run),
            names=[sample.name for sample in samples],
            title=f"the {which} {len(chosen)} of {len(evaluation.images)} images ({split})",
        )  # fmt: skip
        save(figure, folder / f"{which}.png")


def _look(run: Run) -> dict[str, Any]:
    """How the run's classes are drawn."""
    return {"colors": run.labels.colors, "class_names": run.labels.names, "background": run.labels.background_index}


def _write_numbers(
    folder: Path, paths: Sequence[Path], names: Sequence[str], evaluators: Sequence[Evaluator],
    evaluations: Sequence[Evaluation],
) -> None:  # fmt: skip
    contents = [
        {
            "run": str(path),
            "checkpoint": str(evaluator.run.checkpoint),
            "step": evaluator.run.step,
            "split": evaluator.data.name,
            "metrics": evaluation.metrics,
            "classes": evaluation.per_class,
            "confusion": evaluation.confusion.tolist(),
            "images": [
                {"name": evaluator.data.sample_name(image.index), **asdict(image)} for image in evaluation.images
            ],
        }
        for path, evaluator, evaluation in zip(paths, evaluators, evaluations, strict=True)
    ]
    if len(contents) == 1:
        write_json(folder / "evaluation.json", contents[0])
        return
    write_json(folder / "evaluation.json", {"split": evaluators[0].data.name, "runs": contents})
    rows = [
        {"run": name, "checkpoint": content["checkpoint"], "step": content["step"]} | evaluation.metrics
        for name, content, evaluation in zip(names, contents, evaluations, strict=True)
    ]
    write_text(folder / "evaluation.csv", pd.DataFrame(rows).to_csv(index=False))


def _print(names: Sequence[str], evaluators: Sequence[Evaluator], evaluations: Sequence[Evaluation]) -> None:
    split = evaluators[0].data.name
    if len(names) == 1:
        print(f"{evaluators[0].run.checkpoint}, step {evaluators[0].run.step}")
        table = Table("metric", split)
        for metric in _overall(evaluations[0]):
            table.add_row(metric, _cell(evaluations[0], metric, 6))
        _show(table)
        _show(_class_table(evaluations[0]))
    elif len(names) <= SIDE_BY_SIDE:
        table = Table(f"metric ({split})", *names)
        for metric in dict.fromkeys(metric for evaluation in evaluations for metric in evaluation.metrics):
            table.add_row(metric, *(_cell(evaluation, metric, 4) for evaluation in evaluations))
        _show(table)
    else:
        table = Table(f"run ({split})", *_IN_SHORT)
        for name, evaluation in zip(names, evaluations, strict=True):
            table.add_row(name, *(_cell(evaluation, metric, 4) for metric in _IN_SHORT))
        _show(table)
    for absent in dict.fromkeys(evaluation.absent for evaluation in evaluations):
        if absent:
            print(f"{MARK.strip()} {absence(split, absent)}")


def _cell(evaluation: Evaluation, metric: str, digits: int) -> str:
    """A metric, marked where it is not of all classes; "" where the run has none of that name."""
    if (value := evaluation.metrics.get(metric)) is None:
        return ""
    number = _number(value, "absent" if "/" in metric else "undefined", digits)
    return number + (MARK if rests_on(metric, evaluation.absent) else "")


def _show(table: Table) -> None:
    """Prints a table in its full width: a number that is cut short is none."""
    console = Console(markup=False, emoji=False)  # names of classes are no markup
    wanted = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    Console(width=max(console.width, wanted), soft_wrap=True, markup=False, emoji=False).print(table)


def _class_table(evaluation: Evaluation) -> Table:
    columns = ("iou", "precision", "recall", "f1")
    table = Table("class", "true pixels", *columns)
    total = max(int(evaluation.confusion.sum()), 1)
    for name, scores in evaluation.per_class.items():
        share = f"{100 * scores['pixels'] / total:.2f} %"
        table.add_row(name, share, *(_number(scores[column], "absent") for column in columns))
    return table


def _overall(evaluation: Evaluation) -> list[str]:
    """The metrics that are not of one class."""
    return [name for name in evaluation.metrics if "/" not in name]


def _number(value: float, missing: str, digits: int = 6) -> str:
    return missing if math.isnan(value) else f"{value:.{digits}f}"
