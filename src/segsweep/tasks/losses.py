"""Losses. Each takes logits and class ids, ignores pixels of id 255, and says which tasks it fits.

Shapes: B images, K channels of logits (1 for binary: the positive class), H x W pixels.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.labels import IGNORE

TaskKind = Literal["binary", "multiclass"]


class Loss(nn.Module, ABC):
    """A scalar from logits float [B, K, H, W] and masks int64 [B, H, W]."""

    fits: ClassVar[frozenset[str]]

    def __init__(self) -> None:
        # Module's own takes anything, so that a setting that the loss does not have would pass for one.
        super().__init__()

    @abstractmethod
    def forward(self, logits: Tensor, mask: Tensor) -> Tensor: ...

    def scored(self, logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a batch that is not trained on, and how much it counts in the mean over several, in images.

        A batch counts by what of it is judged, so that the mean over batches of images of one size is the mean over their
        judged pixels, whatever the batches are. Where nothing is judged it counts 0, and the loss may be NaN. A loss that
        is no mean over pixels overrides this.

        Args:
            logits: float [B, K, H, W].
            mask: int64 [B, H, W].

        Returns:
            The loss, a float scalar, and the count, a float64 scalar: B where everything is judged.
        """
        return self(logits, mask), (mask != IGNORE).sum().double() / mask[0].numel()


def _binary_targets(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits and targets float32 [B, H, W] of the positive class, and which pixels count."""
    if logits.shape[1] != 1:
        raise ValueError(f"logits have {logits.shape[1]} channels: a binary loss takes 1")
    return logits[:, 0].float(), (mask == 1).float(), (mask != IGNORE).float()


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over the pixels that count; 0 where none does."""
    return (values * valid).sum() / valid.sum().clamp(min=1)


class MSE(Loss):
    """Mean squared error between probability and target: what the texture notebook trains with.

    Source: texture notebook (docs/sources.md), section 3.3.
    """

    fits = frozenset({"binary"})

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        logits, target, valid = _binary_targets(logits, mask)
        return _mean((torch.sigmoid(logits) - target) ** 2, valid)


class BCE(Loss):
    """Binary cross-entropy, mean over pixels."""

    fits = frozenset({"binary"})

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        logits, target, valid = _binary_targets(logits, mask)
        return _mean(F.binary_cross_entropy_with_logits(logits, target, reduction="none"), valid)


class Dice(Loss):
    """1 - (2 sum(p y) + s) / (sum(p) + sum(y) + s), sums over the pixels of an image, mean over images and classes.

    With one channel of logits the positive class alone counts. With more, a class counts in an image only where it is in
    that image's mask: smoothing would otherwise reward the absent.

    Args:
        smooth: s above, in pixels; the texture notebook's formula has 1.

    Raises:
        ValueError: `smooth` is not positive.

    Source: texture notebook (docs/sources.md), section 3.3; Milletari et al. 2016, V-Net.
    """

    fits = frozenset({"binary", "multiclass"})

    def __init__(self, smooth: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(smooth) and smooth > 0):
            raise ValueError(f"smooth={smooth}: must be positive")
        self.smooth = smooth

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
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
        if logits.shape[1] == 1:
            return loss.mean()
        return _mean(loss, (true > 0).float())

    def scored(self, logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """As of any loss. A batch counts by the images of which anything is judged."""
        judged = (mask != IGNORE).flatten(1).any(1).sum().double()
        value = self(logits, mask)
        # The mean over images takes one of which nothing is judged for a perfect one.
        return value * (len(mask) / judged).float() if logits.shape[1] == 1 else value, judged


class BCEDice(Loss):
    """Binary cross-entropy plus `dice_weight` times Dice."""

    fits = frozenset({"binary"})

    def __init__(self, dice_weight: float = 1.0, smooth: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(dice_weight) and dice_weight > 0):
            raise ValueError(f"dice_weight={dice_weight}: must be positive")
        self.bce, self.dice, self.dice_weight = BCE(), Dice(smooth), dice_weight

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        return self.bce(logits, mask) + self.dice_weight * self.dice(logits, mask)

    def scored(self, logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        bce, share = self.bce.scored(logits, mask)
        return bce + self.dice_weight * self.dice.scored(logits, mask)[0], share


class CrossEntropy(Loss):
    """Softmax cross-entropy, mean over pixels, weighted by class where weights are given.

    Args:
        weights: a positive number per class, or None for equal ones. "balanced" waits for `set_weights`, from whoever
            knows how often each class occurs.

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
        """Weighs the classes by `weights`, positive numbers in the order of the class table."""
        if not all(math.isfinite(weight) and weight > 0 for weight in weights):
            raise ValueError(f"weights={list(weights)}: must be positive and finite")
        self.weight = torch.tensor(list(weights), dtype=torch.float32)
        self.balanced = False

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        if self.balanced:
            raise ValueError('weights="balanced": how often each class occurs was not given; see set_weights')
        if self.weight is not None and len(self.weight) != logits.shape[1]:
            raise ValueError(f"weights has {len(self.weight)} numbers: the labels have {logits.shape[1]} classes")
        total = F.cross_entropy(logits.float(), mask, weight=self.weight, ignore_index=IGNORE, reduction="sum")
        if self.weight is None:
            return total / (mask != IGNORE).sum().clamp(min=1)
        return total / self._pixel_weights(mask).sum().clamp(min=torch.finfo(torch.float32).tiny)

    def scored(self, logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """As of any loss. With weights, a batch counts by those of its pixels."""
        value, share = super().scored(logits, mask)
        if self.weight is not None:
            share = self._pixel_weights(mask).sum(dtype=torch.float64) / mask[0].numel()
        return value, share

    def _pixel_weights(self, mask: Tensor) -> Tensor:
        """The weight of each pixel's class, float32 [B, H, W]; 0 where it is ignored."""
        assert self.weight is not None
        valid = mask != IGNORE
        return self.weight[torch.where(valid, mask, 0)].mul(valid)


class CEDice(Loss):
    """Cross-entropy plus `dice_weight` times Dice."""

    fits = frozenset({"multiclass"})

    def __init__(
        self,
        weights: Sequence[float] | Literal["balanced"] | None = None,
        dice_weight: float = 1.0,
        smooth: float = 1.0,
    ) -> None:
        super().__init__()
        if not (math.isfinite(dice_weight) and dice_weight > 0):
            raise ValueError(f"dice_weight={dice_weight}: must be positive")
        self.cross_entropy, self.dice, self.dice_weight = CrossEntropy(weights), Dice(smooth), dice_weight

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        return self.cross_entropy(logits, mask) + self.dice_weight * self.dice(logits, mask)
