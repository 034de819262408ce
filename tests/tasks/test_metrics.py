"""Metrics agree with torchmetrics and with the code of the two sources, and do not depend on batches."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import classification as reference

from segsweep.classes import IGNORE
from segsweep.tasks import RunningMean, SegmentationMetrics

seeds = st.integers(0, 2**31)


class Example:
    """Random predictions and masks; some classes may be absent."""

    def __init__(self, seed: int, classes: int, images: int, ignored: float, used: int | None = None) -> None:
        draw = np.random.default_rng(seed)
        shape = (images, 4, 5)
        kinds = draw.permutation(classes)[: used or classes]
        self.classes = classes
        self.mask = torch.as_tensor(draw.choice(kinds, shape))
        self.probability = torch.as_tensor(
            draw.choice([0.02, 0.1, 0.4, 0.5, 0.7, 0.9, 0.95], shape), dtype=torch.float32
        )
        self.prediction = (
            (self.probability > 0.5).long() if classes == 2 else torch.as_tensor(draw.choice(kinds, shape))
        )
        self.mask[torch.as_tensor(draw.random(shape) < ignored)] = IGNORE

    def metrics(self, binary: bool, background: int | None = None) -> SegmentationMetrics:
        return SegmentationMetrics([f"c{i}" for i in range(self.classes)], binary, background)

    def count(self, metrics: SegmentationMetrics, rows: slice = slice(None)) -> SegmentationMetrics:
        metrics.update(self.prediction[rows], self.mask[rows], self.probability[rows] if metrics.binary else None)
        return metrics


binary_examples = st.builds(
    Example, seeds, st.just(2), st.integers(1, 6), st.sampled_from([0.0, 0.2, 0.9]), st.sampled_from([1, 2])
)
multiclass_examples = st.builds(
    Example, seeds, st.just(6), st.integers(1, 6), st.sampled_from([0.0, 0.2, 0.9]), st.integers(1, 6)
)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12, equal_nan=True)


# ---- against torchmetrics


@given(binary_examples)
@settings(max_examples=40, deadline=None)
def test_binary_metrics_are_those_of_torchmetrics(example: Example):
    ours = example.count(example.metrics(binary=True)).compute()
    valid = example.mask != IGNORE
    assume(valid.any())
    positive_somewhere = bool((example.mask == 1)[valid].any())
    for name, theirs in {
        "iou": reference.BinaryJaccardIndex(ignore_index=IGNORE),
        "precision": reference.BinaryPrecision(ignore_index=IGNORE),
        "recall": reference.BinaryRecall(ignore_index=IGNORE),
        "f1": reference.BinaryF1Score(ignore_index=IGNORE),
        "accuracy": reference.BinaryAccuracy(ignore_index=IGNORE),
    }.items():
        expected = float(theirs(example.prediction, example.mask))
        # Without positive pixels, torchmetrics gives 0 and we give NaN.
        if positive_somewhere or name == "accuracy":
            assert float(ours[name]) == pytest.approx(expected, abs=1e-6), name
        else:
            assert ours[name].isnan(), name


@given(binary_examples, st.sampled_from([None, 0]))
@settings(max_examples=40, deadline=None)
def test_what_both_tasks_measure_is_the_same_of_two_classes(example: Example, background: int | None):
    binary, multiclass = (example.count(example.metrics(kind, background)).compute() for kind in (True, False))
    shared = ["accuracy", "iou_micro", "iou/c0", "iou/c1", *([] if background is None else ["foreground_iou"])]
    same({name: binary[name] for name in shared}, {name: multiclass[name] for name in shared})
    same({"iou": binary["iou"]}, {"iou": binary["iou/c1"]})
    if background is not None:
        same({"iou_image": binary["iou_image"]}, {"iou_image": binary["foreground_iou"]})


@given(multiclass_examples)
@settings(max_examples=40, deadline=None)
def test_multiclass_metrics_are_those_of_torchmetrics_over_the_classes_present(example: Example):
    ours = example.count(example.metrics(binary=False)).compute()
    valid = example.mask != IGNORE
    assume(valid.any())
    present = torch.isin(torch.arange(6), example.mask[valid])
    every_prediction_is_present = bool(present[example.prediction[valid]].all())
    options = {"num_classes": 6, "ignore_index": IGNORE}

    def theirs(kind: str, average: str | None) -> Tensor:
        return getattr(reference, f"Multiclass{kind}")(average=average, **options)(example.prediction, example.mask)

    per_class = {
        "iou": theirs("JaccardIndex", "none"),
        "precision": theirs("Precision", "none"),
        "recall": theirs("Recall", "none"),
        "f1": theirs("F1Score", "none"),
    }
    for name, values in per_class.items():
        assert float(ours[name]) == pytest.approx(float(values[present].mean()), abs=1e-6), name
    # Torchmetrics counts a class that is only predicted as 0, so the prediction decides which classes its mean is over.
    for kind, name in {"JaccardIndex": "iou", "Precision": "precision", "Recall": "recall", "F1Score": "f1"}.items():
        if every_prediction_is_present:
            assert float(ours[name]) == pytest.approx(float(theirs(kind, "macro")), abs=1e-6), name
    assert float(ours["iou_micro"]) == pytest.approx(float(theirs("JaccardIndex", "micro")), abs=1e-6)
    assert float(ours["accuracy"]) == pytest.approx(float(theirs("Accuracy", "micro")), abs=1e-6)
    for position in range(6):
        value = float(ours[f"iou/c{position}"])
        if present[position]:
            assert value == pytest.approx(float(per_class["iou"][position]), abs=1e-6)
        else:
            assert math.isnan(value)


# ---- against the code of the two sources


def numpy_iou(prediction: np.ndarray, mask: np.ndarray) -> float:
    """The report's own code, for two boolean images."""
    intersection, union = np.logical_and(prediction, mask), np.logical_or(prediction, mask)
    return np.sum(intersection) / np.sum(union) if union.any() else math.nan


def mean_of_defined(values: list[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


@given(binary_examples)
@settings(max_examples=40, deadline=None)
def test_binary_iou_image_is_the_mean_of_each_images_own(example: Example):
    ours = example.count(example.metrics(binary=True)).compute()["iou_image"]
    images = [
        numpy_iou(prediction[mask != IGNORE] == 1, mask[mask != IGNORE] == 1)
        for prediction, mask in zip(example.prediction.numpy(), example.mask.numpy(), strict=True)
    ]
    expected = mean_of_defined(images) if (example.mask == 1).any() else math.nan
    assert float(ours) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(multiclass_examples)
@settings(max_examples=40, deadline=None)
def test_multiclass_iou_image_is_the_mean_over_images_of_the_mean_over_the_classes_they_have(example: Example):
    ours = example.count(example.metrics(binary=False)).compute()["iou_image"]
    images = []
    for prediction, mask in zip(example.prediction.numpy(), example.mask.numpy(), strict=True):
        valid = mask != IGNORE
        images.append(mean_of_defined([numpy_iou(prediction[valid] == k, mask[valid] == k) for k in range(6)]))
    assert float(ours) == pytest.approx(mean_of_defined(images), abs=1e-12, nan_ok=True)


@given(multiclass_examples, st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_foreground_iou_is_what_the_report_prints_wherever_the_background_is(example: Example, background: int):
    ours = example.count(example.metrics(binary=False, background=background)).compute()["foreground_iou"]
    images = []
    for prediction, mask in zip(example.prediction.numpy(), example.mask.numpy(), strict=True):
        valid = mask != IGNORE
        # In the report, the background has id 0, and every other id is true to its logical functions.
        moved_prediction, moved_mask = (np.where(x[valid] == background, 0, 1 + x[valid]) for x in (prediction, mask))
        images.append(numpy_iou(moved_prediction, moved_mask))
    foreground = (example.mask != background) & (example.mask != IGNORE)
    expected = mean_of_defined(images) if foreground.any() else math.nan
    assert float(ours) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_foreground_iou_is_named_only_where_there_is_a_background():
    assert "foreground_iou" not in SegmentationMetrics(["a", "b", "c"], binary=False).names()
    assert "foreground_iou" in SegmentationMetrics(["a", "b", "c"], binary=False, background=0).names()


def notebook_precision(probability: Tensor, mask: Tensor) -> Tensor:
    """The texture notebook's own code."""
    predicted_omega_1, omega_1 = probability.clone(), mask.float()
    predicted_omega_1[predicted_omega_1 < 0.1] = 0
    predicted_omega_1[predicted_omega_1 > 0.9] = 1
    return (predicted_omega_1 == omega_1).sum() / omega_1.numel()


@given(binary_examples)
@settings(max_examples=40, deadline=None)
def test_confident_accuracy_is_what_the_notebook_calls_precision(example: Example):
    valid = example.mask != IGNORE
    assume(valid.any())
    ours = example.count(example.metrics(binary=True)).compute()["confident_accuracy"]
    assert float(ours) == pytest.approx(
        float(notebook_precision(example.probability[valid], example.mask[valid])), abs=1e-6
    )


def test_confident_accuracy_draws_the_line_where_the_notebook_does_to_the_last_bit():
    edges = []
    for edge in (np.float32(0.0), np.float32(0.1), np.float32(0.9), np.float32(1.0)):
        below = above = edge
        edges.append(edge)
        for _ in range(3):
            below, above = np.nextafter(below, np.float32(-1)), np.nextafter(above, np.float32(2))
            edges += [below, above]
    probability = torch.tensor([p for p in edges if 0 <= p <= 1]).view(-1, 1, 1)
    for value in (0, 1):
        mask = torch.full(probability.shape, value)
        for row in range(len(probability)):
            metrics = SegmentationMetrics(["a", "b"], binary=True)
            metrics.update((probability > 0.5).long()[row : row + 1], mask[row : row + 1], probability[row : row + 1])
            expected = notebook_precision(probability[row], mask[row])
            assert float(metrics.compute()["confident_accuracy"]) == float(expected), float(probability[row])


# ---- laws of the counts


@given(
    st.one_of(st.tuples(binary_examples, st.just(True)), st.tuples(multiclass_examples, st.just(False))),
    st.lists(st.integers(0, 6), max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_result_is_the_same_however_the_batches_are_cut(case: tuple[Example, bool], cuts: list[int]):
    example, binary = case
    whole = example.count(example.metrics(binary, background=0))
    pieces = example.metrics(binary, background=0)
    edges = [0, *sorted(min(cut, len(example.mask)) for cut in cuts), len(example.mask)]
    for start, stop in itertools.pairwise(edges):
        if stop > start:
            example.count(pieces, slice(start, stop))
    same(whole.compute(), pieces.compute())


@given(seeds, st.booleans(), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_joined_batches_are_counted_to_the_bit_as_one_after_the_other(seed: int, binary: bool, batches: int, size: int):
    example = Example(seed, 2 if binary else 6, batches * size, 0.3)
    example.mask[::5] = IGNORE
    joined, alone = (example.metrics(binary, background=0) for _ in range(2))
    probability = example.probability if binary else None
    joined.update(example.prediction, example.mask, probability, batches)
    for start in range(0, batches * size, size):
        example.count(alone, slice(start, start + size))
    for name, state in alone.state_dict().items():
        assert torch.equal(joined.state_dict()[name], state), name


@given(st.one_of(st.tuples(binary_examples, st.just(True)), st.tuples(multiclass_examples, st.just(False))), seeds)
@settings(max_examples=40, deadline=None)
def test_predictions_at_ignored_pixels_do_not_count(case: tuple[Example, bool], seed: int):
    example, binary = case
    before = example.count(example.metrics(binary, background=1)).compute()
    draw = torch.Generator().manual_seed(seed)
    ignored = example.mask == IGNORE
    noise = torch.randint(0, example.classes, example.mask.shape, generator=draw)
    example.prediction = torch.where(ignored, noise, example.prediction)
    example.probability = torch.where(ignored, torch.rand(ignored.shape, generator=draw), example.probability)
    same(example.count(example.metrics(binary, background=1)).compute(), before)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_two_classes_are_counted_alike_as_binary_and_as_multiclass(seed: int):
    example = Example(seed, 2, 4, 0.2)
    binary = example.count(example.metrics(binary=True)).compute()
    multiclass = example.count(example.metrics(binary=False, background=0)).compute()
    torch.testing.assert_close(binary["iou"], multiclass["iou/c1"], equal_nan=True)
    torch.testing.assert_close(binary["iou_image"], multiclass["foreground_iou"], equal_nan=True)
    torch.testing.assert_close(binary["accuracy"], multiclass["accuracy"])


@given(multiclass_examples, seeds)
@settings(max_examples=40, deadline=None)
def test_which_classes_a_mean_is_over_does_not_hang_on_the_prediction(example: Example, seed: int):
    draw = torch.Generator().manual_seed(seed)
    example.prediction = torch.randint(0, 6, example.mask.shape, generator=draw)
    found = example.count(example.metrics(binary=False)).compute()
    own = torch.stack([found[f"iou/c{position}"] for position in range(6)])
    assert [not value.isnan() for value in own] == [bool((example.mask == position).any()) for position in range(6)]
    torch.testing.assert_close(found["iou"], own.nanmean(), equal_nan=True)


@pytest.mark.parametrize("binary", [True, False])
def test_counts_of_two_processes_add_up_to_those_of_one(binary: bool):
    example = Example(0, 2 if binary else 6, 6, 0.2)
    whole, first, second = (example.metrics(binary, background=0) for _ in range(3))
    example.count(whole)
    example.count(first, slice(0, 2))
    example.count(second, slice(2, None))
    first.merge_state(second)
    same(first.compute(), whole.compute())


@pytest.mark.parametrize("binary", [True, False])
def test_state_dict_resumes_the_counts(binary: bool):
    example = Example(1, 2 if binary else 6, 6, 0.2)
    whole, first, resumed = (example.metrics(binary, background=0) for _ in range(3))
    example.count(whole)
    state = example.count(first, slice(0, 4)).state_dict()
    resumed.load_state_dict(state)
    same(example.count(resumed, slice(4, None)).compute(), whole.compute())


@pytest.mark.parametrize("binary", [True, False])
def test_reset_forgets_everything(binary: bool):
    example, other = Example(2, 2 if binary else 6, 3, 0.2), Example(3, 2 if binary else 6, 3, 0.2)
    metrics = example.count(example.metrics(binary, background=0))
    metrics.compute()
    metrics.reset()
    same(other.count(metrics).compute(), other.count(other.metrics(binary, background=0)).compute())


@pytest.mark.parametrize(("binary", "background"), [(True, None), (False, None), (False, 2)])
def test_names_are_known_before_anything_is_counted(binary: bool, background: int | None):
    example = Example(4, 2 if binary else 6, 3, 0.2)
    metrics = example.metrics(binary, background)
    names = metrics.names()
    assert list(example.count(metrics).compute()) == names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("binary", [True, False])
def test_split_of_ignored_pixels_alone_has_no_number(binary: bool):
    example = Example(5, 2 if binary else 6, 3, 1.0)
    assert (example.mask == IGNORE).all()
    assert all(value.isnan() for value in example.count(example.metrics(binary, background=0)).compute().values())


def test_counts_beyond_float32_are_exact():
    metrics = SegmentationMetrics(["a", "b"], binary=False)
    metrics.confusion += torch.tensor([[2**40, 1], [0, 2**40]])
    metrics._update_count = 1
    assert float(metrics.compute()["accuracy"]) == 2**41 / (2**41 + 1) != 1.0


# ---- running means


@given(st.lists(st.tuples(st.floats(-1e3, 1e3, width=32), st.floats(0.5, 64)), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_running_mean_is_the_weighted_mean(values: list[tuple[float, float]]):
    running = RunningMean()
    for value, weight in values:
        running.update(torch.tensor(value), weight)
    expected = np.average([value for value, _ in values], weights=[weight for _, weight in values])
    assert float(running.compute()) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans()), min_size=1, max_size=70))
@settings(max_examples=40, deadline=None)
def test_running_mean_of_joined_values_is_that_of_one_after_the_other_to_the_bit(pairs: list[tuple[float, bool]]):
    values, weights = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    joined, alone, plain_joined, plain_alone = (RunningMean() for _ in range(4))
    joined.update(values, weights)
    plain_joined.update(values)
    for value, weight in zip(values, weights, strict=True):
        alone.update(value, weight)
        plain_alone.update(value)
    for first, second in ((joined, alone), (plain_joined, plain_alone)):
        assert torch.equal(first.total, second.total)
        assert torch.equal(first.weight, second.weight)


def test_running_mean_resumes_from_a_state_dict():
    whole, first, second = RunningMean(), RunningMean(), RunningMean()
    values = torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for value in values:
        whole.update(value)
    for value in values[:4]:
        first.update(value)
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    for value in values[4:]:
        second.update(value)
    assert second.compute() == whole.compute()


def test_running_mean_loses_nothing_over_a_long_training():
    # In float32 the sum of as many 0.1 would be off in the third digit.
    running = RunningMean()
    running.total += 1e8
    running.weight += 1e9
    for _ in range(1000):
        running.update(torch.tensor(0.5))
    assert float(running.compute()) == pytest.approx((1e8 + 500) / (1e9 + 1000), rel=1e-13)
