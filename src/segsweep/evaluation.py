"""Evaluation: every metric of a trained run on a split, by class and by image; as tables, files and pictures.

Shapes: C image channels, K classes, H x W pixels.
"""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from segsweep.absent_classes import MARK, absence, rests_on, scored_classes
from segsweep.callbacks.image_scores import ImageScore, ImageScores, score_images
from segsweep.errors import UserError
from segsweep.evaluation_data import ScoredData, ScoredSplit, data_of, loss_of, settings_of
from segsweep.instantiate import AtLeast0, check_arguments, checked, naming_keys
from segsweep.plots import confusion, overlay_panels, save, scored_samples
from segsweep.runs.files import write_json, write_text
from segsweep.runs.find import find_runs, short_names
from segsweep.runs.load import Run, load_run
from segsweep.tasks import SGD, SegmentationTask
from segsweep.tasks.losses import TaskKind
from segsweep.tasks.metrics import class_scores
from segsweep.trainer_settings import TrainerSettings, build_trainer, device_of, quiet_libraries

SIDE_BY_SIDE = 6
"""Runs that get a column each. More runs get a row each, with a few metrics; evaluation.csv has them all."""

_IN_SHORT = ("loss", "iou", "iou_image", "accuracy", "precision", "recall", "f1")


@dataclass(frozen=True)
class Evaluation:
    """What a run reaches on a split.

    Args:
        metrics: by name, without the split: "iou", "loss", ...; NaN where one is undefined.
        confusion: int64 [K, K]; row i, column j: pixels of class i predicted as j.
        images: every image of the split, or tile of a large one, in order.
        names: of the classes.
        kind: of the task.
    """

    metrics: dict[str, float]
    confusion: NDArray[np.int64]
    images: list[ImageScore]
    names: list[str]
    kind: TaskKind

    @property
    def absent(self) -> tuple[str, ...]:
        """The classes that iou is of and that have no pixel in the split."""
        pixels = dict(zip(self.names, self.confusion.sum(1).tolist(), strict=True))
        return tuple(name for name in scored_classes(self.names, self.kind) if not pixels[name])

    @cached_property
    def per_class(self) -> dict[str, dict[str, float]]:
        """iou, precision, recall and f1 of every class, and its true and predicted pixels; NaN for an absent one."""
        scores = {name: values.tolist() for name, values in class_scores(torch.from_numpy(self.confusion)).items()}
        scores |= {"pixels": self.confusion.sum(1).tolist(), "predicted_pixels": self.confusion.sum(0).tolist()}
        return {name: {score: values[at] for score, values in scores.items()} for at, name in enumerate(self.names)}

    def ranked(self) -> list[ImageScore]:
        """The images from the best to the worst, without those whose iou is undefined."""
        return sorted((image for image in self.images if image.iou == image.iou), key=lambda image: -image.iou)


@dataclass(frozen=True)
class Sample:
    """One image of a split as the run sees it."""

    name: str
    image: NDArray[np.float32]
    """[C, H, W] in [0, 1]."""
    mask: NDArray[np.int64]
    """[H, W] of positions in the class table; 255 is ignored."""
    prediction: NDArray[np.int64]
    """[H, W]"""
    iou: float


class Evaluator:
    """A run and what it is scored on.

    Args:
        run: from `load_run`.
        data: from `data_of`; by default the test split of the data that the run was trained with.
        accelerator: "auto" takes a CUDA GPU where there is one.

    Raises:
        UserError: the data cannot be found, its classes are not the run's, or a setting is wrong.
    """

    def __init__(
        self, run: Run, data: ScoredData | None = None, accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    ) -> None:
        self.run = run
        data = data or data_of(run)
        source = data.source.for_net(run.net)
        self.data = replace(data, source=source, notes=[*data.notes, *source.cautions([data.split])])
        self.module = self.data.module()
        trained = settings_of(run, "trainer")
        precision = trained.get("precision", "32-true")
        if device_of(accelerator) == "cpu" and precision == "16-mixed":
            precision = "32-true"  # what a GPU trained in half precision, a CPU can still score
        chosen = {
            "accelerator": accelerator, "precision": precision, "channels_last": trained.get("channels_last", True),
        }  # fmt: skip
        with naming_keys("trainer"):
            check_arguments(TrainerSettings, chosen)
            self._settings = TrainerSettings(**chosen, progress_bar=False)
        # An optimizer is part of a task, and is not used here.
        self.task: SegmentationTask = run.task(
            run.net, loss_of(run), run.labels, SGD(lr=1.0), channels_last=self._settings.channels_last
        )

    def score(self) -> Evaluation:
        """Scores the whole split, in the batches and the precision in which the run's own training tests itself."""
        scores = ImageScores()
        with tempfile.TemporaryDirectory() as folder, quiet_libraries():
            trainer = build_trainer(self._settings, Path(folder), [scores], [])
            trainer.test(self.task, self.module, verbose=False)
        metrics = {name.removeprefix("test/"): float(value) for name, value in trainer.callback_metrics.items()}
        confusion = self.task.confusions["test"].cpu().numpy()
        return Evaluation(metrics, confusion, scores.scores(), self.run.labels.names, self.task.kind)

    def sample(self, index: int) -> Sample:
        """One image of the split with its prediction.

        Raises:
            UserError: there is no such image.
        """
        size = self.module.size(self.data.split)
        if not 0 <= index < size:
            raise UserError(f"index={index}: {self.data.name} has {size} images, 0 to {size - 1}")
        device = torch.device(self._settings.device_type)
        batch = self.module.samples(self.data.split, [index], device)
        self.task.to(device).eval()
        with quiet_libraries():
            precision = build_trainer(self._settings, Path(tempfile.gettempdir()), [], []).precision_plugin
        with torch.inference_mode(), precision.forward_context():
            logits = self.task(batch.image)
        (iou,), _ = score_images(self.task, logits, batch.mask)
        return Sample(
            self.data.sample_name(index),
            batch.image[0].cpu().numpy(),
            batch.mask[0].cpu().numpy(),
            self.task.predict(logits)[0].cpu().numpy(),
            float(iou),
        )


def evaluate(
    run: Run, data: ScoredData | None = None, accelerator: Literal["auto", "cpu", "gpu"] = "auto"
) -> Evaluation:
    """The metrics of a run's checkpoint, as its own training computes them; arguments as `Evaluator` takes them."""
    return Evaluator(run, data, accelerator).score()


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
        _draw(where if len(names) == 1 else where / name, evaluator, evaluation, pictures)
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
    folder.mkdir(parents=True, exist_ok=True)
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
        for metric in evaluations[0].metrics:
            if "/" not in metric:  # the table of classes has the others
                table.add_row(metric, _cell(evaluations[0], metric, 6))
        _show(table)
        columns = ("iou", "precision", "recall", "f1")
        table = Table("class", "true pixels", *columns)
        total = max(int(evaluations[0].confusion.sum()), 1)
        for name, scores in evaluations[0].per_class.items():
            share = f"{100 * scores['pixels'] / total:.2f} %"
            table.add_row(name, share, *(_number(scores[column], "absent") for column in columns))
        _show(table)
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


def _number(value: float, missing: str, digits: int = 6) -> str:
    return missing if math.isnan(value) else f"{value:.{digits}f}"
