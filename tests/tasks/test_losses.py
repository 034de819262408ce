"""Losses equal their formulas, and ignored pixels change nothing."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ROOT
from torch import Tensor

from segsweep.classes import IGNORE
from segsweep.tasks import BCE, LOSSES, MSE, AutoLoss, BCEDice, CEDice, CrossEntropy, Dice, Loss
from segsweep.tasks.losses import LOSS_CHOICES
from segsweep.tasks.metrics import SplitLoss

BINARY: list[Loss] = [
    MSE(), BCE(), BCE([0.2, 3.0]), Dice(), Dice(weights=[0.3, 2.0]), BCEDice(dice_weight=0.7),
    BCEDice(weights=[0.5, 2.0]), AutoLoss([0.2, 3.0]),
]  # fmt: skip
MULTICLASS: list[Loss] = [
    CrossEntropy(), CrossEntropy([0.2, 1.0, 3.0]), Dice(), Dice(weights=[0.2, 1.0, 3.0]), CEDice([1.0, 2.0, 3.0], 0.5),
    AutoLoss(),
]  # fmt: skip
CASES = [(loss, 1) for loss in BINARY] + [(loss, 3) for loss in MULTICLASS]

every_loss = pytest.mark.parametrize(
    ("loss", "channels"), CASES, ids=[f"{type(loss).__name__}-{channels}" for loss, channels in CASES]
)
seeds = st.integers(0, 2**31)


def example(
    seed: int, channels: int, ignored: float = 0.3, images: int = 3, scale: float = 2.0
) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(images, channels, 5, 7, generator=draw)
    mask = torch.randint(0, max(channels, 2), (images, 5, 7), generator=draw)
    mask[torch.rand(mask.shape, generator=draw) < ignored] = IGNORE
    return logits, mask


def value_and_gradient(loss: Loss, logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits, mask)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected.float(), rtol=1e-5, atol=1e-6)


# ---- the formulas


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_mse_and_bce_are_torchs_own_over_the_pixels_that_count(seed: int):
    logits, mask = example(seed, 1)
    valid = mask != IGNORE
    chosen, target = logits[:, 0][valid], mask[valid].float()
    close(MSE()(logits, mask), F.mse_loss(chosen.sigmoid(), target))
    close(BCE()(logits, mask), F.binary_cross_entropy_with_logits(chosen, target))


@given(seeds, st.sampled_from([None, [1.0, 1.0, 1.0], [0.1, 1.0, 7.5]]))
@settings(max_examples=20, deadline=None)
def test_cross_entropy_is_torchs_own_with_its_weights(seed: int, weights: list[float] | None):
    logits, mask = example(seed, 3)
    weight = None if weights is None else torch.tensor(weights)
    close(CrossEntropy(weights)(logits, mask), F.cross_entropy(logits, mask, weight=weight, ignore_index=IGNORE))


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_equal_weights_are_no_weights(seed: int):
    logits, mask = example(seed, 3)
    for weighted in (CrossEntropy, lambda weights=None: Dice(weights=weights)):
        close(weighted([2.5] * 3)(logits, mask), weighted()(logits, mask))
    logits, mask = example(seed, 1)
    close(BCE([2.5] * 2)(logits, mask), BCE()(logits, mask))


WEIGHTS = st.lists(st.floats(0.01, 100), min_size=2, max_size=2)


@given(seeds, st.none() | WEIGHTS)
@settings(max_examples=40, deadline=None)
def test_binary_cross_entropy_is_that_of_two_classes_with_a_zero_logit(seed: int, weights: list[float] | None):
    logits, mask = example(seed, 1)
    two = torch.cat([torch.zeros_like(logits), logits], dim=1)
    bce, gradient = value_and_gradient(BCE(weights), logits, mask)
    cross_entropy, gradient_of_two = value_and_gradient(CrossEntropy(weights), two, mask)
    close(bce, cross_entropy)
    close(gradient[:, 0], gradient_of_two[:, 1])


@given(seeds, WEIGHTS)
@settings(max_examples=40, deadline=None)
def test_weighted_binary_dice_is_that_of_two_classes_with_any_difference_of_logits(seed: int, weights: list[float]):
    logits, mask = example(seed, 1)
    shift, _ = example(seed + 1, 1)
    two = torch.cat([shift, shift + logits], dim=1)
    close(Dice(weights=weights)(logits, mask), Dice(weights=weights)(two, mask))


@given(seeds, st.sampled_from([None, [0.2, 3.0, 1.0]]))
@settings(max_examples=20, deadline=None)
def test_the_auto_loss_is_bce_or_cross_entropy_by_the_channels(seed: int, weights: list[float] | None):
    for channels, other in ((1, BCE(weights)), (3, CrossEntropy(weights))):
        logits, mask = example(seed, channels)
        assert torch.equal(AutoLoss(weights)(logits, mask), other(logits, mask))
        assert torch.equal(AutoLoss(weights).totals(logits, mask), other.totals(logits, mask))


@given(seeds, st.sampled_from([0.5, 1.0, 4.0]))
@settings(max_examples=20, deadline=None)
def test_binary_dice_is_the_formula_image_by_image(seed: int, smooth: float):
    logits, mask = example(seed, 1)
    losses = []
    for image_logits, image_mask in zip(logits.double(), mask, strict=True):
        valid = image_mask != IGNORE
        p, y = image_logits[0][valid].sigmoid(), (image_mask[valid] == 1).double()
        losses.append(1 - (2 * (p * y).sum() + smooth) / (p.sum() + y.sum() + smooth))
    close(Dice(smooth)(logits, mask), torch.stack(losses).mean())


@given(seeds, st.integers(0, 2))
@settings(max_examples=20, deadline=None)
def test_multiclass_dice_is_the_mean_over_the_classes_that_an_image_has(seed: int, missing: int):
    logits, mask = example(seed, 3)
    mask[0][mask[0] == missing] = IGNORE  # one image lacks a class
    losses = []
    for image_logits, image_mask in zip(logits.double(), mask, strict=True):
        valid = image_mask != IGNORE
        for k in image_mask[valid].unique():
            p, y = image_logits.softmax(0)[k][valid], (image_mask[valid] == k).double()
            losses.append(1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1))
    close(Dice()(logits, mask), torch.stack(losses).mean())


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_the_sums_are_the_parts_with_their_weight(seed: int):
    logits, mask = example(seed, 1)
    close(BCEDice(0.3, 2.0)(logits, mask), BCE()(logits, mask) + 0.3 * Dice(2.0)(logits, mask))
    logits, mask = example(seed, 3)
    weights = [1.0, 2.0, 3.0]
    expected = CrossEntropy(weights)(logits, mask) + 0.3 * Dice(2.0)(logits, mask)
    close(CEDice(weights, 0.3, 2.0)(logits, mask), expected)


# ---- laws of every loss


@every_loss
@given(seed=seeds, garbage_seed=seeds)
@settings(max_examples=20, deadline=None)
def test_ignored_pixels_change_neither_value_nor_gradient(loss: Loss, channels: int, seed: int, garbage_seed: int):
    logits, mask = example(seed, channels)
    garbage, _ = example(garbage_seed, channels, scale=30)
    ignored = (mask == IGNORE)[:, None].expand_as(logits)
    value, gradient = value_and_gradient(loss, logits, mask)
    other_value, other_gradient = value_and_gradient(loss, torch.where(ignored, garbage, logits), mask)
    assert torch.equal(value, other_value)
    assert torch.equal(gradient, other_gradient)
    assert torch.equal(gradient[ignored], torch.zeros_like(gradient[ignored]))
    assert (gradient[~ignored] != 0).any()


@every_loss
def test_batch_of_ignored_pixels_alone_trains_nothing(loss: Loss, channels: int):
    logits, mask = example(0, channels)
    value, gradient = value_and_gradient(loss, logits, torch.full_like(mask, IGNORE))
    assert value == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@every_loss
@pytest.mark.parametrize("size", [30.0, 1e4, 1e30])
def test_value_and_gradient_are_finite_at_extreme_logits(loss: Loss, channels: int, size: float):
    logits, mask = example(1, channels)
    for extreme in (size * logits.sign(), torch.full_like(logits, size), torch.full_like(logits, -size)):
        value, gradient = value_and_gradient(loss, extreme, mask)
        assert value.isfinite()
        assert gradient.isfinite().all()


@every_loss
def test_gradient_is_that_of_finite_differences(loss: Loss, channels: int):
    logits, mask = example(2, channels)
    _, gradient = value_and_gradient(loss, logits, mask)
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    step = 1e-2
    difference = (loss(logits + step * direction, mask) - loss(logits - step * direction, mask)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-3, atol=1e-4)


@every_loss
@given(seed=seeds, ignored=st.floats(0, 0.9))
@settings(max_examples=20, deadline=None)
def test_loss_is_never_negative_and_small_for_the_right_answer_alone(
    loss: Loss, channels: int, seed: int, ignored: float
):
    logits, mask = example(seed, channels, ignored)
    assert loss(logits, mask) >= 0
    classes = torch.where(mask == IGNORE, 0, mask)
    if channels == 1:
        right = 50.0 * (2 * classes - 1)[:, None]
    else:
        right = 50.0 * F.one_hot(classes, channels).movedim(-1, 1).float()
    assert loss(right, mask) < 1e-5
    if (mask != IGNORE).any():
        assert loss(-right, mask) > 0.1


@given(seeds, st.sampled_from([1, 3]), st.floats(0.1, 100), st.floats(0.1, 50))
@settings(max_examples=40, deadline=None)
def test_dice_lies_between_0_and_1(seed: int, channels: int, smooth: float, scale: float):
    assert 0 <= Dice(smooth)(*example(seed, channels, scale=scale)) <= 1


@every_loss
def test_half_precision_logits_are_counted_in_float32(loss: Loss, channels: int):
    logits, mask = example(3, channels)
    rounded = logits.bfloat16()
    value = loss(rounded, mask)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(rounded.float(), mask))


# ---- over a split


class SquaredMean(Loss):
    """A user's loss: not a mean over pixels, and NaN if all pixels are ignored."""

    fits = frozenset({"binary", "multiclass"})

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        return (logits.exp().mean(1) - mask)[mask != IGNORE].mean() ** 2


SPLIT = [*CASES, (SquaredMean(), 1), (SquaredMean(), 3)]
every_split_loss = pytest.mark.parametrize(
    ("loss", "channels"), SPLIT, ids=[f"{type(loss).__name__}-{channels}" for loss, channels in SPLIT]
)


def split_loss(loss: Loss, logits: Tensor, mask: Tensor, batches: list[list[int]]) -> float:
    """The loss of the images in `batches`, as tasks compute it."""
    counts = SplitLoss(loss.terms)
    for images in batches:
        counts.update(loss.totals(logits[images], mask[images]))
    return float(counts.compute())


def unevenly_ignored(seed: int, channels: int) -> tuple[Tensor, Tensor]:
    logits, mask = example(seed, channels, images=5)
    for at, share in enumerate([0, 0.2, 0.6, 0.95, 1]):
        mask[at][torch.rand(mask.shape[1:], generator=torch.Generator().manual_seed(seed)) < share] = IGNORE
    return logits, mask


@every_split_loss
@given(seed=seeds, order=st.permutations(range(5)), cuts=st.sets(st.integers(1, 4)))
@settings(max_examples=20, deadline=None)
def test_loss_of_a_split_does_not_depend_on_batches_and_order(
    loss: Loss, channels: int, seed: int, order: list[int], cuts: set[int]
):
    logits, mask = unevenly_ignored(seed, channels)
    edges = [0, *sorted(cuts), 5]
    batches = [order[start:stop] for start, stop in itertools.pairwise(edges)]
    whole = split_loss(loss, logits, mask, [list(range(5))])
    assert split_loss(loss, logits, mask, batches) == pytest.approx(whole, rel=1e-6)


@every_loss
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_loss_of_a_split_is_the_training_loss_of_its_judged_images_as_one_batch(loss: Loss, channels: int, seed: int):
    logits, mask = unevenly_ignored(seed, channels)
    judged = (mask != IGNORE).flatten(1).any(1)
    expected = float(loss(logits[judged], mask[judged]))
    assert split_loss(loss, logits, mask, [[0, 3], [4], [1, 2]]) == pytest.approx(expected, rel=1e-5)


@every_split_loss
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_ignored_images_and_margins_do_not_change_the_loss_of_a_split(loss: Loss, channels: int, seed: int):
    logits, mask = example(seed, channels)
    alone = split_loss(loss, logits, mask, [[0, 1, 2]])
    garbage, _ = example(seed + 1, channels, scale=30)
    more = torch.cat([logits, garbage]), torch.cat([mask, torch.full_like(mask, IGNORE)])
    assert split_loss(loss, *more, [[3, 0], [4, 5], [1, 2]]) == pytest.approx(alone, rel=1e-6)
    # Ignored margins below and to the right, as tiles have them.
    padded = F.pad(logits, (0, 4, 0, 3), value=7.0), F.pad(mask, (0, 4, 0, 3), value=IGNORE)
    assert split_loss(loss, *padded, [[0], [1, 2]]) == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "channels"), [case for case in CASES if isinstance(case[0], MSE | BCE | CrossEntropy | AutoLoss)]
)
@given(seed=seeds, cut=st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_a_mean_over_pixels_is_the_same_over_tiles_of_any_size(loss: Loss, channels: int, seed: int, cut: int):
    logits, mask = unevenly_ignored(seed, channels)
    tiles = SplitLoss(loss.terms)
    for columns in (slice(cut), slice(cut, None)):
        tiles.update(loss.totals(logits[..., columns], mask[..., columns]))
    assert float(tiles.compute()) == pytest.approx(split_loss(loss, logits, mask, [[0, 1, 2, 3, 4]]), rel=1e-6)


@given(seed=seeds, weight=st.floats(0.01, 10))
@settings(max_examples=20, deadline=None)
def test_a_combined_loss_of_a_split_is_the_sum_of_its_parts(seed: int, weight: float):
    batches = [[0, 1], [2], [3, 4]]
    for channels, whole, pixels in (
        (1, BCEDice(weight, 2.0), BCE()),
        (3, CEDice([1.0, 2.0, 3.0], weight, 2.0), CrossEntropy([1.0, 2.0, 3.0])),
    ):
        logits, mask = unevenly_ignored(seed, channels)
        parts = [split_loss(part, logits, mask, batches) for part in (pixels, Dice(2.0))]
        assert split_loss(whole, logits, mask, batches) == pytest.approx(parts[0] + weight * parts[1], rel=1e-12)


def test_loss_of_a_large_split_is_summed_without_losing_small_terms():
    loss, counts = MSE(), SplitLoss(1)
    counts.totals[:] = torch.tensor([[1e9, 2e9]])
    for _ in range(1000):
        counts.update(loss.totals(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64)))
    assert float(counts.totals[0, 0]) == 1e9 + 250
    assert float(counts.compute()) == (1e9 + 250) / (2e9 + 1000)


def test_a_split_without_judged_pixels_has_no_loss():
    for loss, channels in SPLIT:
        logits, mask = example(0, channels)
        assert math.isnan(split_loss(loss, logits, torch.full_like(mask, IGNORE), [[0, 1], [2]]))


# ---- refusals


@pytest.mark.parametrize("loss", [MSE(), BCE(), BCEDice()], ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("channels", [2, 3])
def test_binary_loss_refuses_logits_of_several_channels(loss: Loss, channels: int):
    with pytest.raises(ValueError, match=f"{channels} channels"):
        loss(*example(0, channels))


@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0] * 4])
def test_weights_that_are_not_one_a_class_are_refused(weights: list[float]):
    for loss in (CrossEntropy(weights), Dice(weights=weights)):
        with pytest.raises(ValueError, match=f"weights has {len(weights)} numbers.* 3 classes"):
            loss(*example(0, 3))
    for loss in (BCE([1.0]), Dice(weights=[1.0])):
        with pytest.raises(ValueError, match=r"weights has 1 numbers.* 2 classes"):
            loss(*example(0, 1))


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_settings_that_are_not_positive_and_finite_are_refused_by_name(bad: float):
    for make in (Dice, lambda smooth: BCEDice(smooth=smooth), lambda smooth: CEDice(smooth=smooth)):
        with pytest.raises(ValueError, match=r"^smooth="):
            make(bad)
    for combined in (BCEDice, CEDice):
        with pytest.raises(ValueError, match=r"^dice_weight="):
            combined(dice_weight=bad)
    for weighted in (BCE, Dice, BCEDice, CrossEntropy, CEDice, AutoLoss):
        with pytest.raises(ValueError, match=r"^weights="):
            weighted(weights=[1.0, bad])


def test_every_loss_is_in_the_table_and_says_what_it_fits():
    assert {type(loss) for loss, _ in CASES} == set(LOSSES.values())
    for loss, channels in CASES:
        assert ("binary" if channels == 1 else "multiclass") in loss.fits
    for name, loss_class in LOSS_CHOICES.items():
        assert (
            f"\n_target_: segsweep.tasks.{loss_class.__name__}\n"
            in "\n" + (ROOT / f"conf/loss/{name}.yaml").read_text()
        )


def test_no_loss_adds_to_the_state_of_a_task():
    assert all(not loss.state_dict() for loss, _ in CASES)
