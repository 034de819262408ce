"""TensorBoard's precision-recall curve counts all pixels of the split that are not ignored, and changes nothing else."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from torchmetrics.classification import BinaryPrecisionRecallCurve
from using_runs import train_on_scenes

from segsweep import load_run
from segsweep.callbacks.tensorboard import STEPS, TAGS, count_levels, curve
from segsweep.classes import IGNORE
from segsweep.evaluation_data import data_of
from segsweep.runs import read_metrics
from segsweep.tasks import BinaryTask

Train = Callable[..., Path]
THRESHOLDS = np.arange(STEPS + 1) / STEPS
MIDDLE = STEPS // 2  # the threshold 0.5
# Several batches a split, the last one smaller.
SPLITS = ["data.limit_samples=5", "data.val_size=5", "data.test_size=3"]


def written(run: Path) -> dict[str, dict[int, NDArray[np.float32]]]:
    """The curves in the event files, float32 [6, T] by tag and step."""
    events = EventAccumulator(str(run / "tensorboard"), {"tensors": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["tensors"] if tag in TAGS.values()]
    return {tag: {event.step: make_ndarray(event.tensor_proto) for event in events.Tensors(tag)} for tag in tags}


# ---- counting


def test_counts_are_those_of_torchmetrics_with_values_on_the_thresholds_and_ignored_pixels():
    draw = torch.Generator().manual_seed(0)
    on = torch.arange(STEPS + 1) / STEPS
    exact = torch.cat([on, torch.nextafter(on, on + 1), torch.nextafter(on, on - 1)]).clamp(0, 1)
    probability = torch.cat([exact, torch.rand(1005, generator=draw)]).view(2, 5, -1)
    mask = torch.randint(2, probability.shape, generator=draw)
    mask[torch.rand(mask.shape, generator=draw) < 0.2] = IGNORE
    theirs = BinaryPrecisionRecallCurve(thresholds=STEPS + 1, ignore_index=IGNORE)
    theirs.update(probability, mask)
    rows = curve(count_levels(probability, mask).numpy())
    (rejected, false), (missed, true) = theirs.confmat.numpy().transpose(1, 2, 0)
    assert (rows[:4] == [true, false, rejected, missed]).all()
    precision, recall, thresholds = theirs.compute()
    assert (thresholds.numpy() == THRESHOLDS).all()
    np.testing.assert_allclose(rows[4], precision[:-1], rtol=1e-6)
    np.testing.assert_allclose(rows[5], recall[:-1], rtol=1e-6)


def test_counts_add_up_to_the_judged_pixels_of_each_class():
    probability = torch.tensor([[[0.0, 0.3, 0.5, 1.0]]])
    mask = torch.tensor([[[0, 1, 1, IGNORE]]])
    counts = count_levels(probability, mask)
    assert counts.sum(1).tolist() == [1, 2]
    rows = curve(counts.numpy())
    assert rows[:, 0].tolist() == [2, 1, 0, 0, 2 / 3, 1]
    assert rows[:, MIDDLE].tolist() == [1, 0, 1, 1, 1, 0.5]


def test_a_probability_that_is_no_number_counts_as_its_prediction_does():
    logits, mask = torch.full((1, 1, 1, 1), torch.nan), torch.ones(1, 1, 1, dtype=torch.int64)
    assert BinaryTask.predict(logits).item() == 0
    assert count_levels(BinaryTask.probabilities(logits)[:, 1], mask).nonzero().tolist() == [[1, 0]]


def test_a_split_without_a_positive_pixel_has_a_curve_of_zeros_not_of_nan():
    rows = curve(count_levels(torch.full((1, 2, 2), 0.4), torch.zeros(1, 2, 2, dtype=torch.int64)).numpy())
    assert (rows[4:] == 0).all()


# ---- a training


def test_every_validation_and_the_test_have_a_curve_through_the_logged_precision_and_recall(train: Train):
    run = train(*SPLITS, "trainer.max_steps=6")
    curves, metrics = written(run), read_metrics(run / "metrics.csv")
    assert sorted(curves) == list(TAGS.values()), "TensorBoard's slider takes its steps from the first"
    for split, pixels in (("val", 5 * 32**2), ("test", 3 * 32**2)):
        logged = metrics.dropna(subset=[f"{split}/precision"]).set_index("step")
        assert list(curves[TAGS[split]]) == list(logged.index)
        for step, rows in curves[TAGS[split]].items():
            assert rows.shape == (6, STEPS + 1)
            assert (rows[:4].sum(0) == pixels).all()
            assert rows[4:, MIDDLE] == pytest.approx(logged.loc[step, [f"{split}/precision", f"{split}/recall"]])


@pytest.mark.parametrize(("split", "name"), [("val", "last"), ("test", "best")])
def test_the_curve_is_that_of_the_saved_weights_probabilities(train: Train, split: str, name: str):
    folder = train(*SPLITS, "lr=0.05", "trainer.precision=32-true")
    run = load_run(folder / f"checkpoints/{name}.ckpt")
    images, masks = (torch.cat(parts) for parts in zip(*batches(run, split), strict=True))
    probability = np.stack([run.probabilities(image)[1] for image in images]).astype(np.float64)
    positive = masks.numpy() == 1
    *_, rows = written(folder)[TAGS[split]].values()
    for at, threshold in enumerate(THRESHOLDS):
        # The last digits differ between single images and batches.
        most, fewest = (probability >= threshold + 1e-5 * sign for sign in (-1, 1))
        for row, of in ((0, positive), (1, ~positive)):
            assert (fewest & of).sum() <= rows[row, at] <= (most & of).sum()
    assert len(np.unique(rows[0])) > 5, "the curve has hardly a point"


def batches(run: Any, split: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    source = data_of(run, split=split).source
    return [source.make([index], split) for index in range(source.size(split))]


def test_nothing_else_depends_on_it(train: Train):
    runs = [
        train(*SPLITS, *also, folder=name) for name, also in (("a", []), ("b", ["callbacks.precision_recall=null"]))
    ]
    first, second = (
        read_metrics(run / "metrics.csv").drop(columns=["steps_per_second", "epoch_seconds"]) for run in runs
    )
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    one, other = (torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in runs)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not written(runs[1])


def test_no_logits_are_kept_beyond_their_batch(train: Train, monkeypatch: pytest.MonkeyPatch):
    given: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def watched(task: Any, stage: Any, batch: Any, evaluate: Any = BinaryTask._evaluate) -> torch.Tensor:
        alive.append(sum(reference() is not None for reference in given))
        logits = evaluate(task, stage, batch)
        given.append(weakref.ref(logits))
        return logits

    monkeypatch.setattr(BinaryTask, "_evaluate", watched)
    train(*SPLITS)
    assert len(given) == 2 * 3 + 2
    assert max(alive) <= 1


def test_more_classes_have_none(command, tmp_path: Path):
    assert not written(train_on_scenes(command, tmp_path))


def test_without_tensorboard_there_is_none(train: Train):
    assert not (train("logger=csv") / "tensorboard").exists()
