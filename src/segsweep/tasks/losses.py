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


def _binary_targets(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits and targets of the positive class, and 1 for pixels that count, float32 [B, H, W] each."""
    if logits.shape[1] != 1:
        raise ValueError(f"logits have {logits.shape[1]} channels: a binary loss takes 1")
    return logits[:, 0].float(), (mask == 1).float(), (mask != IGNORE).float()


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of the values that count; 0 if none counts."""
    return (values * valid).sum() / valid.sum().clamp(min=1)


class _BinaryMean(Loss):
    """A mean over the pixels that count."""

    fits = frozenset({"binary"})

    @abstractmethod
    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of every pixel, from logits and targets float32 [B, H, W] of the positive class."""

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        logits, target, valid = _binary_targets(logits, mask)
        return _mean(self.each(logits, target), valid)

    def totals(self, logits: Tensor, mask: Tensor) -> Tensor:
        logits, target, valid = _binary_targets(logits, mask)
        return _totals(self.each(logits, target) * valid, valid)


class MSE(_BinaryMean):
    """Mean squared error between probability and target, as in the texture notebook.

    Source: texture notebook (docs/sources.md), section 3.3.
    """

    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        return (torch.sigmoid(logits) - target) ** 2


class BCE(_BinaryMean):
    """Binary cross-entropy, mean over pixels."""

    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


@checked
class Dice(Loss):
    """1 - (2 sum(p y) + s) / (sum(p) + sum(y) + s), sums over the pixels of an image, mean over images and classes.

    With one channel of logits, only the positive class counts. With more, a class counts in the images whose masks have
    it, because smoothing would reward absent classes.

    Over a split, it is the mean over all images and over the classes in their masks. As for `iou_image`, a tile of a large
    image counts as an image, and fully ignored images are left out.

    Args:
        smooth: s above, in pixels; 1 in the texture notebook.

    Raises:
        ValueError: `smooth` is not positive.

    Source: texture notebook (docs/sources.md), section 3.3; Milletari et al. 2016, V-Net.
    """

    fits = frozenset({"binary", "multiclass"})

    def __init__(self, smooth: Positive = 1.0) -> None:
        super().__init__()
        self.smooth = smooth

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        loss, present = self._by_image(logits, mask)
        return loss.mean() if logits.shape[1] == 1 else _mean(loss, present)

    def totals(self, logits: Tensor, mask: Tensor) -> Tensor:
        loss, counts = self._by_image(logits, mask)
        if logits.shape[1] == 1:
            counts = (mask != IGNORE).flatten(1).any(1, keepdim=True)
        return _totals(loss * counts, counts)

    def _by_image(self, logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each class in each image, and 1 if the image's mask has the class; float32 [B, K] each."""
        valid = (mask != IGNORE).float()[:, None]
        logits = logits.float()
        if logits.shape[1] == 1:
            probability, target = torch.sigmoid(logits), (mask == 1).float()[:, None]
        else:
            probability = torch.softmax(logits, dim=1)
            classes = torch.arange(logits.shape[1], device=mask.device)
            target = (mask[:, None] == classes[:, None, None]).float()
        probability, target = probability * valid, target * valid
        overlap = (probability * target).sum((-2, -1))
        true = target.sum((-2, -1))
        loss = 1 - (2 * overlap + self.smooth) / (probability.sum((-2, -1)) + true + self.smooth)
        return loss, (true > 0).float()


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
    """Binary cross-entropy plus `dice_weight` times Dice."""

    fits = frozenset({"binary"})

    def __init__(self, dice_weight: Positive = 1.0, smooth: Positive = 1.0) -> None:
        super().__init__(BCE(), dice_weight, smooth)


class CrossEntropy(Loss):
    """Softmax cross-entropy, mean over pixels, optionally weighted by class.

    Args:
        weights: a positive number per class; None weights all equally. "balanced" needs a call of `set_weights` once the
            class frequencies are known.

    Raises:
        ValueError: a weight is not positive and finite.

    Source: U-Net report (docs/sources.md).
    """

    fits = frozenset({"multiclass"})
    weight: Tensor | None

    def __init__(self, weights: Sequence[float] | Literal["balanced"] | None = None) -> None:
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

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        total = self._cross_entropy(logits, mask, "sum")
        if self.weight is None:
            return total / (mask != IGNORE).sum().clamp(min=1)
        return total / self._pixel_weights(mask).sum().clamp(min=torch.finfo(torch.float32).tiny)

    def totals(self, logits: Tensor, mask: Tensor) -> Tensor:
        return _totals(self._cross_entropy(logits, mask, "none"), self._pixel_weights(mask))

    def _cross_entropy(self, logits: Tensor, mask: Tensor, reduction: str) -> Tensor:
        if self.balanced:
            raise ValueError('weights="balanced": the class frequencies are not known; call set_weights')
        if self.weight is not None and len(self.weight) != logits.shape[1]:
            raise ValueError(f"weights has {len(self.weight)} numbers: the class table has {logits.shape[1]} classes")
        return F.cross_entropy(logits.float(), mask, weight=self.weight, ignore_index=IGNORE, reduction=reduction)

    def _pixel_weights(self, mask: Tensor) -> Tensor:
        """The weight of each pixel [B, H, W]: that of its class, or 0 if it is ignored."""
        valid = mask != IGNORE
        return valid if self.weight is None else self.weight[torch.where(valid, mask, 0)].mul(valid)


@checked
class CEDice(_WithDice):
    """Cross-entropy plus `dice_weight` times Dice."""

    fits = frozenset({"multiclass"})

    def __init__(
        self,
        weights: Sequence[float] | Literal["balanced"] | None = None,
        dice_weight: Positive = 1.0,
        smooth: Positive = 1.0,
    ) -> None:
        super().__init__(CrossEntropy(weights), dice_weight, smooth)
