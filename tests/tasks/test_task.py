"""Tasks in a real, tiny training: their metrics, when they stop, and their state in a checkpoint."""

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lightning as L
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader

from segsweep.classes import IGNORE, ClassTable, LabelClass
from segsweep.data.source import Batch
from segsweep.errors import DivergedError
from segsweep.tasks import (
    BCE,
    MSE,
    SGD,
    TASKS,
    Adam,
    AutoLoss,
    BCEDice,
    BinaryTask,
    CEDice,
    CrossEntropy,
    Dice,
    Exponential,
    Loss,
    MulticlassTask,
    OneCycle,
    Schedule,
    SegmentationMetrics,
    SegmentationTask,
)
from segsweep.tasks.held_steps import CAPACITY, first_bad_step
from segsweep.tasks.losses import LOSS_CHOICES

COLORS = [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
TWO = ClassTable([LabelClass(0, "ground", COLORS[0]), LabelClass(1, "thing", COLORS[1])])
FOUR = ClassTable([LabelClass(i, name, COLORS[i]) for i, name in enumerate(["sea", "land", "sky", "ice"])], "sky")

kinds = pytest.mark.parametrize("kind", ["binary", "multiclass"])
QUIET: dict[str, Any] = {
    "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
    "enable_model_summary": False,
}  # fmt: skip


def make_task(
    kind: str, loss: Loss | None = None, lr: float = 0.05, schedule: Schedule | None = None, channels_last: bool = True
) -> SegmentationTask:
    torch.manual_seed(0)
    labels = TWO if kind == "binary" else FOUR
    task_class = TASKS[kind]
    net = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, task_class.out_channels(labels), 1))
    loss = loss or (BCE() if kind == "binary" else CrossEntropy())
    return task_class(net, loss, labels, SGD(lr=lr, momentum=0.9), schedule, channels_last)


def make_batches(kind: str, count: int, images: int = 2, seed: int = 0) -> list[Batch]:
    """Batches with an unequal number of ignored pixels each."""
    draw = torch.Generator().manual_seed(seed)
    batches = []
    for number in range(count):
        image = torch.rand(images, 1, 6, 8, generator=draw)
        mask = (image[:, 0] * (2 if kind == "binary" else 4)).long()
        mask[torch.rand(mask.shape, generator=draw) < 0.8 * number / count] = IGNORE
        batches.append(Batch(image, mask, torch.arange(number * images, (number + 1) * images)))
    return batches


def loader(batches: Sequence[Batch]) -> DataLoader[Any]:
    return DataLoader(list(batches), batch_size=None)


class Watch(Callback):
    """Keeps the loss of each step, and the value of `after_step`."""

    def __init__(self, after_step: Callable[[SegmentationTask, int], Any] = lambda task, step: None) -> None:
        self.after_step = after_step
        self.losses: list[float] = []
        self.logits: list[Tensor] = []
        self.given: list[Any] = []
        self.rates: list[float] = []

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        task.net.register_forward_hook(lambda net, inputs, output: self.logits.append(output.detach().clone()))

    def on_train_batch_end(self, trainer: Any, task: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        self.losses.append(float(outputs["loss"]))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.given.append(self.after_step(task, trainer.global_step))


def fit(task: SegmentationTask, batches: Sequence[Batch], *callbacks: Callback, **settings: Any) -> L.Trainer:
    defaults = QUIET | {"max_epochs": 1, "num_sanity_val_steps": 0}
    trainer = L.Trainer(callbacks=list(callbacks), **(defaults | settings))
    trainer.fit(task, loader(batches))
    return trainer


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        for advice in ("does not have many workers", "smaller than the logging interval", "LeafSpec", "val_dataloader"):
            warnings.filterwarnings("ignore", f".*{advice}.*")
        yield


# ---- losses that fit


MISFITS = {"binary": [CrossEntropy(), CEDice()], "multiclass": [MSE(), BCE(), BCEDice()]}
FITS = {
    "binary": [MSE(), BCE(), BCE([1, 3]), Dice(), BCEDice(), AutoLoss()],
    "multiclass": [CrossEntropy(), Dice(), CEDice([1, 2, 3, 4]), AutoLoss()],
}


def cases(losses: dict[str, list[Loss]]) -> Any:
    pairs = [(kind, loss) for kind, group in losses.items() for loss in group]
    return pytest.mark.parametrize(("kind", "loss"), pairs, ids=[f"{k}-{type(loss).__name__}" for k, loss in pairs])


@cases(MISFITS)
def test_loss_that_does_not_fit_the_task_is_refused_by_name(kind: str, loss: Loss):
    with pytest.raises(ValueError, match=f" this one is {kind}") as caught:
        make_task(kind, loss)
    names = {known: name for name, known in LOSS_CHOICES.items()}
    assert str(caught.value).startswith(names[type(loss)])
    offered = re.findall(r"loss=(\w+)", str(caught.value))
    assert {type(fitting) for fitting in FITS[kind]} <= {LOSS_CHOICES[name] for name in offered}
    for name in offered:
        make_task(kind, LOSS_CHOICES[name]())


@cases(FITS)
def test_training_gives_the_weights_of_a_plain_loop_to_the_bit(kind: str, loss: Loss):
    task, plain = (make_task(kind, loss, channels_last=False) for _ in range(2))
    batches = make_batches(kind, 5)
    start = [parameter.clone() for parameter in plain.net.parameters()]
    watch = Watch()
    fit(task, batches, watch)
    optimizer = torch.optim.SGD(plain.net.parameters(), lr=0.05, momentum=0.9)
    for batch, seen in zip(batches, watch.losses, strict=True):
        optimizer.zero_grad()
        value = loss(plain.net(batch.image), batch.mask)
        value.backward()
        optimizer.step()
        assert float(value.detach()) == seen
    for trained, expected, before in zip(task.net.parameters(), plain.net.parameters(), start, strict=True):
        assert torch.equal(trained, expected)
        assert not torch.equal(trained, before)


# ---- probabilities and predictions


def test_binary_probabilities_and_predictions_are_those_of_the_sigmoid():
    logits = torch.randn(3, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    probabilities = BinaryTask.probabilities(logits)
    torch.testing.assert_close(probabilities[:, 1], logits[:, 0].sigmoid())
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3, 4, 5))
    assert torch.equal(BinaryTask.predict(logits), (logits[:, 0].sigmoid() > 0.5).long())
    assert BinaryTask.out_channels(TWO) == 1


def test_a_binary_logit_is_the_difference_of_two_logits_of_a_softmax():
    two = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    difference = two[:, 1:] - two[:, :1]
    torch.testing.assert_close(BinaryTask.probabilities(difference), MulticlassTask.probabilities(two))
    assert torch.equal(BinaryTask.predict(difference), MulticlassTask.predict(two))


def test_multiclass_probabilities_and_predictions_are_those_of_the_softmax():
    logits = torch.randn(3, 4, 4, 5, generator=torch.Generator().manual_seed(0))
    probabilities = MulticlassTask.probabilities(logits)
    torch.testing.assert_close(probabilities, logits.softmax(1))
    assert torch.equal(MulticlassTask.predict(logits), probabilities.argmax(1))
    assert MulticlassTask.out_channels(FOUR) == 4


def test_multiclass_prediction_is_the_first_of_the_largest_logits():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randint(-1, 2, (3, 4, 9, 8), generator=draw).float()
    logits[torch.rand(logits.shape, generator=draw) < 0.05] = math.nan
    for layout in (torch.contiguous_format, torch.channels_last):
        assert torch.equal(MulticlassTask.predict(logits.to(memory_format=layout)), logits.argmax(dim=1))


@kinds
def test_memory_format_changes_no_number(kind: str):
    batch = make_batches(kind, 1)[0]
    fast, plain = make_task(kind), make_task(kind, channels_last=False)
    torch.testing.assert_close(fast(batch.image), plain(batch.image), rtol=1e-5, atol=1e-6)
    assert fast(batch.image).dtype == torch.float32


# ---- metrics


@kinds
def test_running_means_are_the_plain_means_of_every_step_so_far(kind: str):
    batches = make_batches(kind, 13)
    # Reading them at some steps must not change them.
    watch = Watch(lambda task, step: task.training_metrics() if step in (1, 4, 5, 13) else None)
    fit(make_task(kind), batches, watch)
    shares = []
    for logits, batch in zip(watch.logits, batches, strict=True):
        valid = batch.mask != IGNORE
        near = (logits[:, 0].sigmoid() - batch.mask).abs() < 0.1
        shares.append(float(near[valid].double().mean()))
    for step in (1, 4, 5, 13):
        given = watch.given[step - 1]
        assert given["train/loss_running"] == pytest.approx(sum(watch.losses[:step]) / step, rel=1e-12)
        if kind == "binary":
            expected = sum(shares[:step]) / step
            assert given["train/confident_accuracy_running"] == pytest.approx(expected, rel=1e-6)
        else:
            assert "train/confident_accuracy_running" not in given


@kinds
def test_training_metrics_are_of_the_steps_since_the_last_call(kind: str):
    batches = make_batches(kind, 12)
    watch = Watch(lambda task, step: task.training_metrics() if step in (2, 7, 12) else None)
    task = make_task(kind)
    fit(task, batches, watch)
    for start, stop in ((0, 2), (2, 7), (7, 12)):
        given = watch.given[stop - 1]
        assert given["train/loss"] == pytest.approx(sum(watch.losses[start:stop]) / (stop - start), rel=1e-12)
        expected = reference_metrics(task, watch.logits[start:stop], batches[start:stop])
        assert {name.removeprefix("train/") for name in given} >= set(expected)
        for name, value in expected.items():
            assert given[f"train/{name}"] == pytest.approx(value, rel=1e-12, nan_ok=True), name


def reference_metrics(task: SegmentationTask, logits: list[Tensor], batches: Sequence[Batch]) -> dict[str, float]:
    binary = task.kind == "binary"
    background = None if binary else task.labels.index("sky")
    metrics = SegmentationMetrics(task.labels.names, binary, background)
    for output, batch in zip(logits, batches, strict=True):
        metrics.update(task.predict(output), batch.mask, output[:, 0].sigmoid() if binary else None)
    return {name: float(value) for name, value in metrics.compute().items()}


@kinds
@pytest.mark.parametrize("reused", [False, True], ids=["new memory", "memory used again"])
def test_steps_held_together_give_the_metrics_of_steps_counted_alone_to_the_bit(
    kind: str, reused: bool, monkeypatch: pytest.MonkeyPatch
):
    # Larger batches and a smaller one between them: they cannot be joined.
    batches = [*make_batches(kind, 5), *make_batches(kind, 1, images=3), *make_batches(kind, 9, seed=7)]
    memory = {len(batch.mask): Batch(*(part.clone() for part in batch)) for batch in batches}

    class Reusing(DataLoader[Any]):
        def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
            for batch in batches:
                for there, part in zip(memory[len(batch.mask)], batch, strict=True):
                    there.copy_(part)
                yield memory[len(batch.mask)]

    def given(capacity: int) -> tuple[list[Any], dict[str, Tensor]]:
        monkeypatch.setitem(CAPACITY, "cpu", capacity)
        watch = Watch(lambda task, step: task.training_metrics() if step in (4, 11) else None)
        task = make_task(kind)
        trainer = L.Trainer(callbacks=[watch], max_epochs=1, num_sanity_val_steps=0, **QUIET)
        trainer.fit(task, Reusing(batches, batch_size=None) if reused else loader(batches))  # type: ignore[arg-type]
        return [watch.given[3], watch.given[10]], task.state_dict()

    (alone, state), (few, state_of_few), (many, state_of_many) = given(0), given(1000), given(1 << 20)
    assert repr(alone) == repr(few) == repr(many)  # NaN is unequal to itself
    for name, value in state.items():
        assert torch.equal(state_of_few[name], value), name
        assert torch.equal(state_of_many[name], value), name


@kinds
def test_loading_a_state_forgets_the_steps_held(kind: str):
    task = make_task(kind)
    start = {name: value.clone() for name, value in task.state_dict().items()}
    fit(task, make_batches(kind, 3))
    task.load_state_dict(start)
    assert all(torch.equal(value, start[name]) for name, value in task.state_dict().items())


@cases(FITS)
def test_loss_of_a_validation_is_one_number_in_batches_of_any_size(kind: str, loss: Loss):
    (samples,) = make_batches(kind, 1, images=7)
    samples.mask[:3, 2:] = IGNORE
    samples.mask[3] = IGNORE
    task = make_task(kind, loss).eval()
    trainer = L.Trainer(**QUIET)
    found = []
    for size in (1, 2, 3, 7):
        batches = [Batch(*(part[start : start + size] for part in samples)) for start in range(0, 7, size)]
        trainer.validate(task, loader(batches), verbose=False)
        found.append(float(trainer.callback_metrics["val/loss"]))
    assert found == pytest.approx(found[:1] * 4, rel=1e-6)


@kinds
@pytest.mark.parametrize("stage", ["val", "test"])
def test_evaluation_counts_every_judged_pixel_once_and_starts_anew_each_time(kind: str, stage: str):
    task = make_task(kind).eval()
    # The last batch is smaller, and another is fully ignored: their losses must weigh less.
    batches = [*make_batches(kind, 3, images=3), *make_batches(kind, 2, images=1, seed=9)]
    batches[-2].mask.fill_(IGNORE)
    trainer = L.Trainer(**QUIET)
    evaluate = trainer.validate if stage == "val" else trainer.test
    for chosen in (batches, batches[1:], batches):
        evaluate(task, loader(chosen), verbose=False)
        given = {name: float(value) for name, value in trainer.callback_metrics.items()}
        logits = [task(batch.image).detach() for batch in chosen]
        mean = task.loss(torch.cat(logits), torch.cat([batch.mask for batch in chosen]))  # of all as one batch
        assert given[f"{stage}/loss"] == pytest.approx(float(mean), rel=1e-6)
        for name, value in reference_metrics(task, logits, chosen).items():
            assert given[f"{stage}/{name}"] == pytest.approx(value, rel=1e-6, nan_ok=True), name


@kinds
def test_metric_names_are_what_a_validation_gives(kind: str):
    task = make_task(kind)
    trainer = L.Trainer(**QUIET)
    trainer.validate(task, loader(make_batches(kind, 1)), verbose=False)
    assert set(trainer.callback_metrics) == set(task.metric_names)


@kinds
def test_batch_of_ignored_pixels_alone_leaves_the_running_means_numbers(kind: str):
    batches = make_batches(kind, 5)
    batches[2] = batches[2]._replace(mask=torch.full_like(batches[2].mask, IGNORE))
    watch = Watch(lambda task, step: task.training_metrics() if step == 5 else None)
    fit(make_task(kind), batches, watch)
    running = {name: value for name, value in watch.given[-1].items() if name.endswith("_running")}
    assert all(math.isfinite(value) for value in running.values()), running


# ---- divergence


@kinds
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("step", [1, 4])
def test_training_stops_at_the_step_whose_loss_is_not_finite(kind: str, bad: float, step: int):
    batches = make_batches(kind, 6)
    batches[step - 1].image[0, 0, 2, 2] = bad
    batches[step - 1].mask[0] = 0
    watch = Watch()
    task = make_task(kind, lr=0.02)
    with pytest.raises(DivergedError, match=rf"step {step} .* 0\.02\b.* lower lr") as caught:
        fit(task, batches, watch)
    assert caught.value.step == step
    assert len(watch.losses) == step - 1  # the step was not taken
    assert all(parameter.isfinite().all() for parameter in task.net.parameters())


def test_step_of_a_divergence_counts_optimizer_steps_over_epochs():
    batches = make_batches("binary", 4)

    class Spoil(Callback):
        def on_train_epoch_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
            if trainer.current_epoch == 2:
                with torch.no_grad():
                    task.net[2].bias.fill_(math.nan)

    with pytest.raises(DivergedError) as caught:
        fit(make_task("binary"), batches, Spoil(), max_epochs=4)
    assert caught.value.step == 9


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 4), st.integers(0, 3))
def test_first_bad_step_counts_the_parts_of_a_step(before: int, after: int, parts: int, begun: int):
    losses = torch.tensor([1.0] * before + [math.nan] + [1.0] * after)
    part = begun % parts  # step 7 may have begun before
    assert int(first_bad_step(losses, 7, part, parts)) == 7 + (part + before) // parts


@pytest.mark.parametrize(("losses", "expected"), [([1, math.nan, math.inf], 8), ([-math.inf], 7), ([1, 2], None)])
def test_first_bad_step_is_that_of_the_first_loss_that_is_not_finite(losses: list[float], expected: int | None):
    found = int(first_bad_step(torch.tensor(losses), 7))
    assert found == (torch.iinfo(torch.int64).max if expected is None else expected)


# ---- learning rates


def test_schedule_is_stepped_after_every_optimizer_step():
    watch = Watch()
    fit(make_task("binary", lr=0.1, schedule=Exponential(0.5)), make_batches("binary", 3), watch, max_epochs=3)
    assert watch.rates == [0.1 * 0.5 ** (step // 3) for step in range(1, 10)]


@pytest.mark.parametrize("max_steps", [1, 5, 8])
def test_onecycle_fits_the_training_it_is_in(max_steps: int):
    watch = Watch()
    task = make_task("binary", lr=0.1, schedule=OneCycle(0.25))
    fit(task, make_batches("binary", 3), watch, max_epochs=-1, max_steps=max_steps)
    assert len(watch.rates) == max_steps
    assert watch.rates[-1] < 1e-3 * 0.1


def test_without_a_schedule_the_rate_stays():
    watch = Watch()
    fit(make_task("binary", lr=0.1), make_batches("binary", 4), watch)
    assert watch.rates == [0.1] * 4


# ---- state


@kinds
def test_state_holds_the_net_and_counts_and_is_plain(kind: str):
    task = make_task(kind, CEDice([1, 2, 3, 4]) if kind == "multiclass" else None)
    fit(task, make_batches(kind, 2))
    state = task.state_dict()
    net = {name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")}
    assert net.keys() == task.net.state_dict().keys()
    assert {name.split(".")[0] for name in state} == {"net", "metrics", "running"}
    file = io.BytesIO()
    torch.save({"state_dict": state}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)["state_dict"]
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


@kinds
def test_counts_go_on_from_a_loaded_state(kind: str):
    batches = make_batches(kind, 6)
    whole = Watch(lambda task, step: task.training_metrics() if step == 6 else None)
    # Without learning, both halves see the same weights as the whole.
    fit(make_task(kind, lr=1e-30), batches, whole)
    first, second = make_task(kind, lr=1e-30), make_task(kind, lr=1e-30)
    fit(first, batches[:3])
    second.load_state_dict(first.state_dict())
    watch = Watch(lambda task, step: task.training_metrics() if step == 3 else None)
    fit(second, batches[3:], watch)
    assert watch.given[-1] == pytest.approx(whole.given[-1], rel=1e-12, nan_ok=True)


def test_optimizer_trains_the_net_and_nothing_else():
    task = make_task("binary")
    trainer = fit(task, make_batches("binary", 1))
    trained = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert trained == {id(p) for p in task.net.parameters()} == {id(p) for p in task.parameters()}
    assert isinstance(Adam(lr=1.0)(task.net.parameters()), torch.optim.Adam)
