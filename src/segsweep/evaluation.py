"""Evaluation: every metric of a trained run on a split, by class and by image, as tables, files and pictures.

Shapes: C image channels, K classes, H x W pixels.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from segsweep.absent_classes import scored_classes
from segsweep.callbacks import ScoringProgress
from segsweep.callbacks.image_scores import ImageScore, ImageScores, score_images
from segsweep.errors import UserError
from segsweep.evaluation_data import ScoredData, ScoredSplit, data_of
from segsweep.evaluation_tables import print_scores
from segsweep.instantiate import AtLeast0, checked, naming_keys
from segsweep.plots import confusion, overlay_panels, save, scored_samples
from segsweep.runs.files import write_json, write_text
from segsweep.runs.find import find_runs, left_out, short_names
from segsweep.runs.load import Run, load_run
from segsweep.runs.run_checkpoint import build_registered
from segsweep.tasks import LOSSES, SGD, SegmentationTask
from segsweep.tasks.losses import TaskKind
from segsweep.tasks.metrics import class_scores
from segsweep.trainer_settings import TrainerSettings, build_trainer, device_of, quiet_libraries, trained_precision


@dataclass(frozen=True)
class Evaluation:
    """The scores of a run on a split.

    Args:
        metrics: by name, without the split: "iou", "loss", ...; an undefined one is NaN.
        confusion: int64 [K, K]; row i, column j: pixels of class i predicted as j.
        images: every image of the split, or tile of a large one, in order.
        names: the names of the classes.
        kind: "binary" or "multiclass".
        ignored: the classes whose pixels are ignored.
    """

    metrics: dict[str, float]
    confusion: NDArray[np.int64]
    images: list[ImageScore]
    names: list[str]
    kind: TaskKind
    ignored: Sequence[str] = ()

    @property
    def absent(self) -> tuple[str, ...]:
        """The classes without a pixel in the split, of those that iou averages."""
        pixels = dict(zip(self.names, self.confusion.sum(1).tolist(), strict=True))
        return tuple(name for name in scored_classes(self.names, self.kind, self.ignored) if not pixels[name])

    @property
    def task(self) -> str:
        """What the net decides, in words: "binary", "6 classes"."""
        return "binary" if self.kind == "binary" else f"{len(self.names)} classes"

    @cached_property
    def per_class(self) -> dict[str, dict[str, float]]:
        """iou, precision, recall, f1, pixels and predicted_pixels by class; the scores of an absent class are NaN."""
        scores = {name: values.tolist() for name, values in class_scores(torch.from_numpy(self.confusion)).items()}
        scores |= {"pixels": self.confusion.sum(1).tolist(), "predicted_pixels": self.confusion.sum(0).tolist()}
        return {name: {score: values[at] for score, values in scores.items()} for at, name in enumerate(self.names)}

    def ranked(self) -> list[ImageScore]:
        """The images from the best to the worst iou; images with an undefined iou are left out."""
        return sorted((image for image in self.images if image.iou == image.iou), key=lambda image: -image.iou)


@dataclass(frozen=True)
class PredictedSample:
    """One image of a split, as the net sees it, with its prediction.

    Args:
        name: see `ScoredData.sample_name`.
        image: float32 [C, H, W] in [0, 1].
        mask: int64 [H, W] of positions in the class table; 255 is ignored.
        prediction: int64 [H, W].
        iou: see `ImageScore`.
    """

    name: str
    image: NDArray[np.float32]
    mask: NDArray[np.int64]
    prediction: NDArray[np.int64]
    iou: float


class Evaluator:
    """Scores a run on a split, and predicts single images.

    Args:
        run: from `load_run`.
        data: from `data_of`; by default the test split of the data that the run was trained with.
        accelerator: "auto" uses a CUDA GPU if there is one.

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
        trained = run.settings("trainer")
        precision = trained_precision(trained, device_of(accelerator))
        channels_last = trained.get("channels_last", True)
        with naming_keys("trainer"):
            self._settings = TrainerSettings(
                accelerator=accelerator, precision=precision, channels_last=channels_last, progress_bar=False
            )
        loss = build_registered(LOSSES, run.settings("loss"), "loss", run.checkpoint)
        optimizer = SGD(lr=1.0)  # a task needs one; it is not used
        self.task: SegmentationTask = run.task(run.net, loss, run.labels, optimizer, channels_last=channels_last)

    def score(self) -> Evaluation:
        """Scores the whole split in batches and precision of the training's own test; 16-mixed becomes 32-true on a CPU."""
        scores = ImageScores()
        with tempfile.TemporaryDirectory() as folder, quiet_libraries():
            trainer = build_trainer(self._settings, Path(folder), [scores, ScoringProgress()], [])
            trainer.test(self.task, self.module, verbose=False)
        metrics = {name.removeprefix("test/"): float(value) for name, value in trainer.callback_metrics.items()}
        confusion = self.task.confusions["test"].cpu().numpy()
        ignored = self.data.source.ignored_classes
        return Evaluation(metrics, confusion, scores.scores(), self.run.labels.names, self.task.kind, ignored)

    def sample(self, index: int) -> PredictedSample:
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
        return PredictedSample(
            self.data.sample_name(index),
            batch.image[0].cpu().numpy(),
            batch.mask[0].cpu().numpy(),
            self.task.predict(logits)[0].cpu().numpy(),
            float(iou),
        )


def evaluate(
    run: Run, data: ScoredData | None = None, accelerator: Literal["auto", "cpu", "gpu"] = "auto"
) -> Evaluation:
    """Scores a run's checkpoint, by default as the test at the end of its training; arguments as for `Evaluator`."""
    return Evaluator(run, data, accelerator).score()


class ScoredRun(NamedTuple):
    """A run among those compared, the path that the user gave for it, and its scores."""

    name: str
    path: Path
    evaluator: Evaluator
    evaluation: Evaluation


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
    """Scores runs, prints their metrics and writes them to a folder; with `index`, only draws those images.

    Args:
        folder: makes the folder and returns it; called when there is something to write.
        run: as `find_runs` takes it.
        split: "val", "test" or, for a folder, "all".
        index: positions in the split.
        pictures: how many of the best and of the worst images are drawn; 0 draws none.
        accelerator: "auto" uses a CUDA GPU if there is one.
        data: changes of the run's `data` settings, as `data_of` takes them.

    Raises:
        UserError: a run cannot be loaded, the data cannot be found or does not fit, or a setting is wrong; nothing was
            written.
    """
    paths = find_runs(run)
    names = short_names(paths)
    loaded_runs = [load_run(path) for path in paths]
    evaluators: list[Evaluator] = []
    for loaded in loaded_runs:
        scored = data_of(loaded, data, split)
        # The runs of one sweep share their source, so that its files are decoded once.
        same = next((other.data for other in evaluators if other.data.settings == scored.settings), scored)
        evaluators.append(Evaluator(loaded, replace(scored, source=same.source), accelerator))
    for line in left_out(run):
        print(f"left out: {line}")
    for note in dict.fromkeys(note for evaluator in evaluators for note in evaluator.data.notes):
        print(note)
    if len({loaded.kind for loaded in loaded_runs}) > 1:
        print(
            "iou, precision, recall and f1 are of the object in a binary run, means over the classes in a multiclass run"
        )
    if index is not None:
        indices = [index] if isinstance(index, int) else index
        samples = [[evaluator.sample(at) for at in indices] for evaluator in evaluators]
        where = folder()
        for name, loaded, drawn in zip(names, loaded_runs, samples, strict=True):
            write_samples(where if len(names) == 1 else where / name, loaded, indices, drawn)
        return
    evaluations = [evaluator.score() for evaluator in evaluators]
    runs = [ScoredRun(*parts) for parts in zip(names, paths, evaluators, evaluations, strict=True)]
    where = folder()
    for each in runs:
        write_pictures(where if len(runs) == 1 else where / each.name, each, pictures)
    write_numbers(where, runs)
    print_scores(runs)
    written = ", ".join(sorted(path.name for path in where.iterdir() if path.is_file()))
    pictures_of = sorted({path.name for each in runs for path in (where / each.name).glob("*.png")})
    below = f"; in a folder for each run: {', '.join(pictures_of)}" if len(runs) > 1 else ""
    print(f"Everything is in {where}: {written}{below}")


def write_samples(folder: Path, run: Run, indices: Sequence[int], samples: Sequence[PredictedSample]) -> None:
    """Draws each sample to sample_<index>.png, in a folder that is created."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, sample in zip(indices, samples, strict=True):
        title = f"{sample.name}: iou {sample.iou:.4f}"
        figure = overlay_panels(sample.image, sample.mask, sample.prediction, title=title, **_class_style(run))
        path = save(figure, folder / f"sample_{index}.png")
        print(f"{sample.name}: iou {sample.iou:.6f}; {path}")


def write_pictures(folder: Path, scored: ScoredRun, number: int) -> None:
    """Draws the confusion matrix, and `number` of the best and of the worst images, in a folder that is created."""
    folder.mkdir(parents=True, exist_ok=True)
    evaluator, evaluation = scored.evaluator, scored.evaluation
    split = evaluator.data.name
    title = f"{split}: shares of each true class's pixels, and their number"
    save(confusion(evaluation.confusion, evaluation.names, title=title), folder / "confusion.png")
    ranked = evaluation.ranked()
    for which, chosen in (("best", ranked[:number]), ("worst", ranked[::-1][:number])):
        if not chosen:
            continue
        samples = [evaluator.sample(image.index) for image in chosen]
        figure = scored_samples(
            [sample.image for sample in samples], [sample.mask for sample in samples],
            [sample.prediction for sample in samples], [image.iou for image in chosen], **_class_style(evaluator.run),
            names=[sample.name for sample in samples],
            title=f"the {which} {len(chosen)} of {len(evaluation.images)} images ({split})",
        )  # fmt: skip
        save(figure, folder / f"{which}.png")


def _class_style(run: Run) -> dict[str, Any]:
    return {"colors": run.labels.colors, "class_names": run.labels.names, "background": run.labels.background_index}


def write_numbers(folder: Path, runs: Sequence[ScoredRun]) -> None:
    """Writes evaluation.json and, for several runs, evaluation.csv with a row per run."""
    split = runs[0].evaluator.data.name
    contents = [
        {
            "run": str(path),
            "checkpoint": str(evaluator.run.checkpoint),
            "step": evaluator.run.step,
            "split": split,
            "metrics": evaluation.metrics,
            "classes": evaluation.per_class,
            "confusion": evaluation.confusion.tolist(),
            "images": [
                {"name": evaluator.data.sample_name(image.index), **asdict(image)} for image in evaluation.images
            ],
        }
        for _, path, evaluator, evaluation in runs
    ]
    if len(runs) == 1:
        write_json(folder / "evaluation.json", contents[0])
        return
    write_json(folder / "evaluation.json", {"split": split, "runs": contents})
    rows = [
        {
            "run": scored.name,
            "task": scored.evaluation.task,
            "checkpoint": content["checkpoint"],
            "step": content["step"],
        }
        | scored.evaluation.metrics
        for scored, content in zip(runs, contents, strict=True)
    ]
    write_text(folder / "evaluation.csv", pd.DataFrame(rows).to_csv(index=False))
