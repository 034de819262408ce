"""Losses of logits and masks. Each ignores pixels of class 255, and declares the tasks that it fits.

Shapes: B images, K channels of logits (1 for binary: the positive class), H x W pixels.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.classes import IGNORE
from segsweep.instantiate import Positive, checked

TaskKind = Literal["binary", "multiclass"]
Weights = Sequence[float] | Literal["balanced"] | None


class Loss(nn.Module, ABC):
    """A scalar from logits float [B, K, H, W] and masks int64 [B, H, W].

    The loss of a split does not depend on its batches: it is computed from the sums of their `totals`.
    """

    fits: ClassVar[frozenset[str]]
    terms: ClassVar[int] = 1
    """The loss of a split is the sum of this many weighted means."""

    def __init__(self) -> None:
        # nn.Module.__init__ takes any argument, so an unknown setting would not be refused.
        super().__init__()

    @abstractmethod
    def forward(self, logits: Tensor, mask: Tensor) -> Tensor: ...

    def totals(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The evaluation loss of a batch and its weight, for each term.

        Both are added up over the split. The loss of the split is then the sum over the terms of loss / weight.

        By default each image is one batch, weighted by the number of its pixels that count, so a mean over pixels becomes
        the mean over all pixels of the split that count. The losses in this file override it with faster code, which gives
        the loss of the split as one batch without its fully ignored images.

        Args:
            logits: float [B, K, H, W].
            mask: int64 [B, H, W].

        Returns:
            float64 [terms, 2].
        """
        counted = (mask != IGNORE).sum((1, 2))
        each = torch.stack(
            [self(logits[at : at + 1], mask[at : at + 1]).reshape(()) for at in range(len(mask))]
        ).double()
        # The loss of a fully ignored image may be NaN.
        return _totals(torch.where(counted > 0, each, 0.0) * counted, counted)


def _totals(weighted: Tensor, weights: Tensor) -> Tensor:
    """The totals of one term, float64 [1, 2], from weighted values and their weights."""
    return torch.stack([weighted.sum(dtype=torch.float64), weights.sum(dtype=torch.float64)])[None]


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean; 0 if every weight is 0."""
    return (values * weights).sum() / weights.sum().clamp(min=torch.finfo(torch.float32).tiny)


class WeightedLoss(Loss):
    """A loss that may be weighted by class.

    Args:
        weights: a positive number per class; None weights all equally. "balanced" needs a call of `set_weights` once the
            class frequencies are known.

    Raises:
        ValueError: a weight is not positive and finite.
    """

    weight: Tensor | None

    def __init__(self, weights: Weights = None) -> None:
        super().__init__()
        self.balanced = weights == "balanced"
        self.register_buffer("weight", None, persistent=False)
        if weights is not None and not isinstance(weights, str):
            self.set_weights(weights)

    def set_weights(self, weights: Sequence[float]) -> None:
        """Sets the class weights: positive numbers in the order of the class table."""
        if not all(math.isfinite(weight) and weight > 0 for weight in weights):
            raise ValueError(f"weights={list(weights)}: must be positive and finite")
        self.weight = torch.tensor(list(weights), dtype=torch.float32)
        self.balanced = False

    def known_weight(self, channels: int) -> Tensor | None:
        """The class weights for logits of so many channels, float32 [K]; None if all are equal.

        Raises:
            ValueError: they are not known yet, or are not one per class.
        """
        if self.balanced:
            raise ValueError('weights="balanced": the class frequencies are not known; call set_weights')
        if self.weight is None:
            return None
        classes = max(channels, 2)
        # A binary table may have ignored classes after its two.
        if len(self.weight) < classes or (channels > 1 and len(self.weight) != classes):
            raise ValueError(f"weights has {len(self.weight)} numbers: the class table has {classes} classes")
        return self.weight[:classes]

    def pixel_weights(self, mask: Tensor, channels: int) -> Tensor:
        """The weight of each pixel, float32 [B, H, W]: that of its class, or 0 if it is ignored."""
        valid, weight = mask != IGNORE, self.known_weight(channels)
        return valid.float() if weight is None else weight[torch.where(valid, mask, 0)].mul(valid)


class _BinaryMean(WeightedLoss):
    """A mean over the pixels that count."""

    fits = frozenset({"binary"})

    @abstractmethod
    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of every pixel, from logits and targets float32 [B, H, W] of the positive class."""

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        return _mean(*self._pixels(logits, mask))

    def totals(self, logits: Tensor, mask: Tensor) -> Tensor:
        values, weights = self._pixels(logits, mask)
        return _totals(values * weights, weights)

    def _pixels(self, logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and the weight of every pixel, float32 [B, H, W] each."""
        if logits.shape[1] != 1:
            raise ValueError(f"logits have {logits.shape[1]} channels: a binary loss takes 1")
        return self.each(logits[:, 0].float(), (mask == 1).float()), self.pixel_weights(mask, 1)


class MSE(_BinaryMean):
    """Mean squared error between probability and target, as in the texture notebook.

    Source: texture notebook (docs/sources.md), section 3.3.
    """

    def __init__(self) -> None:
        super().__init__()

    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        return (torch.sigmoid(logits) - target) ** 2


class BCE(_BinaryMean):
    """Binary cross-entropy, mean over pixels, optionally weighted by class; see `WeightedLoss`."""

    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


@checked
class Dice(WeightedLoss):
    """1 - (2 sum(p y) + s) / (sum(p) + sum(y) + s), sums over the pixels of an image, mean over images and classes.

    With one channel of logits and no weights, only the positive class counts. Otherwise a class counts, with its weight, in
    the images whose masks have it, because smoothing would reward absent classes.

    Over a split, it is the mean over all images and over the classes in their masks. As for `iou_image`, a tile of a large
    image counts as an image, and fully ignored images are left out.

    Args:
        smooth: s above, in pixels; 1 in the texture notebook.
        weights: see `WeightedLoss`. With one channel of logits, the background then counts as the other class.

    Raises:
        ValueError: `smooth` or a weight is not positive.

    Source: texture notebook (docs/sources.md), section 3.3; Milletari et al. 2016, V-Net.
    """

    fits = frozenset({"binary", "multiclass"})

    def __init__(self, smooth: Positive = 1.0, weights: Weights = None) -> None:
        super().__init__(weights)
        self.smooth = smooth

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        loss, counts = self._by_image(logits, mask)
        return loss.mean() if loss.shape[1] == 1 else _mean(loss, counts)

    def totals(self, logits: Tensor, mask: Tensor) -> Tensor:
        loss, counts = self._by_image(logits, mask)
        if loss.shape[1] == 1:
            counts = (mask != IGNORE).flatten(1).any(1, keepdim=True)
        return _totals(loss * counts, counts)

    def _by_image(self, logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and the weight of each class in each image; a class that its mask lacks weighs 0; float32 [B, K]."""
        valid, weight = (mask != IGNORE).float()[:, None], self.known_weight(logits.shape[1])
        logits = logits.float()
        if logits.shape[1] == 1 and weight is None:
            probability, target = torch.sigmoid(logits), (mask == 1).float()[:, None]
        else:
            if logits.shape[1] == 1:  # the softmax of a zero and the logit is the sigmoid
                logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
            probability = torch.softmax(logits, dim=1)
            classes = torch.arange(logits.shape[1], device=mask.device)
            target = (mask[:, None] == classes[:, None, None]).float()
        probability, target = probability * valid, target * valid
        overlap = (probability * target).sum((-2, -1))
        true = target.sum((-2, -1))
        loss = 1 - (2 * overlap + self.smooth) / (probability.sum((-2, -1)) + true + self.smooth)
        present = (true > 0).float()
        return loss, present if weight is None else present * weight


class _WithDice(Loss):
    """A loss of pixels plus `dice_weight` times Dice, for a batch and for a split."""

    terms = 2

    def __init__(self, pixels: Loss, dice_weight: float, smooth: float) -> None:
        super().__init__()
        self.pixels, self.dice, self.dice_weight = pixels, Dice(smooth), dice_weight

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        return self.pixels(logits, mask) + self.dice_weight * self.dice(logits, mask)

    def totals(self, logits: Tensor, mask: Tensor) -> Tensor:
        dice = self.dice.totals(logits, mask)
        dice[:, 0] *= self.dice_weight
        return torch.cat([self.pixels.totals(logits, mask), dice])


@checked
class BCEDice(_WithDice):
    """Binary cross-entropy, with `weights`, plus `dice_weight` times Dice, without."""

    fits = frozenset({"binary"})

    def __init__(self, dice_weight: Positive = 1.0, smooth: Positive = 1.0, weights: Weights = None) -> None:
        super().__init__(BCE(weights), dice_weight, smooth)


class CrossEntropy(WeightedLoss):
    """Softmax cross-entropy, mean over pixels, optionally weighted by class; see `WeightedLoss`.

    Source: U-Net report (docs/sources.md).
    """

    fits = frozenset({"multiclass"})

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        total = self._cross_entropy(logits, mask, "sum")
        if self.weight is None:
            return total / (mask != IGNORE).sum().clamp(min=1)
        return total / self.pixel_weights(mask, logits.shape[1]).sum().clamp(min=torch.finfo(torch.float32).tiny)

    def totals(self, logits: Tensor, mask: Tensor) -> Tensor:
        return _totals(self._cross_entropy(logits, mask, "none"), self.pixel_weights(mask, logits.shape[1]))

    def _cross_entropy(self, logits: Tensor, mask: Tensor, reduction: str) -> Tensor:
        weight = self.known_weight(logits.shape[1])
        return F.cross_entropy(logits.float(), mask, weight=weight, ignore_index=IGNORE, reduction=reduction)


@checked
class CEDice(_WithDice):
    """Cross-entropy, with `weights`, plus `dice_weight` times Dice, without."""

    fits = frozenset({"multiclass"})

    def __init__(self, weights: Weights = None, dice_weight: Positive = 1.0, smooth: Positive = 1.0) -> None:
        super().__init__(CrossEntropy(weights), dice_weight, smooth)


class AutoLoss(Loss):
    """`BCE` for a binary task, `CrossEntropy` for a multiclass one; both take the same weights."""

    fits = frozenset({"binary", "multiclass"})

    def __init__(self, weights: Weights = None) -> None:
        super().__init__()
        self.binary, self.multiclass = BCE(weights), CrossEntropy(weights)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        loss: Tensor = self._chosen(logits)(logits, mask)
        return loss

    def totals(self, logits: Tensor, mask: Tensor) -> Tensor:
        return self._chosen(logits).totals(logits, mask)

    def _chosen(self, logits: Tensor) -> Loss:
        return self.binary if logits.shape[1] == 1 else self.multiclass


LOSS_CHOICES: dict[str, type[Loss]] = {
    "auto": AutoLoss,
    "bce": BCE,
    "bce_dice": BCEDice,
    "ce_dice": CEDice,
    "cross_entropy": CrossEntropy,
    "dice": Dice,
    "mse": MSE,
}
"""The losses by their name in conf/loss."""


def misfit_line(loss: Loss, kind: TaskKind) -> str | None:
    """The error for a loss that does not fit a task, with the losses that do; None if it fits."""
    if kind in loss.fits:
        return None
    name = next((name for name, known in LOSS_CHOICES.items() if known is type(loss)), type(loss).__name__)
    others = ", ".join(f"loss={name}" for name, other in LOSS_CHOICES.items() if kind in other.fits)
    return f"{name} fits a {' or '.join(sorted(loss.fits))} task, and this one is {kind}; give one of {others}"
