"""Metrics of a split from one confusion matrix, which stays on the device.

Shapes: B images, K classes, H x W pixels. Rows of a confusion matrix are true classes, columns predicted ones.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from segsweep.classes import IGNORE


def confusion_per_image(prediction: Tensor, mask: Tensor, num_classes: int) -> Tensor:
    """Counts (true, predicted) pairs for each image, without ignored pixels.

    Args:
        prediction: int64 [B, H, W], class ids in [0, K).
        mask: int64 [B, H, W], class ids in [0, K) or 255.

    Returns:
        int64 [B, K, K].
    """
    images, cells = len(mask), num_classes * num_classes
    if num_classes == 2:
        # Four sums: several times as fast as the general code below.
        positive, true, negative = prediction == 1, mask == 1, mask == 0
        hits, false, actual, others = (
            found.sum((1, 2), dtype=torch.int32) for found in (positive & true, positive & negative, true, negative)
        )
        counts = torch.stack([others - false, false, actual - hits, hits], dim=1).long()
        return counts.view(images, 2, 2)
    image = torch.arange(images, device=mask.device).view(-1, 1, 1)
    # Ignored pixels go into one more cell at the end: selecting pixels would make a GPU wait.
    cell = torch.where(mask == IGNORE, images * cells, image * cells + mask * num_classes + prediction).flatten()
    counts = torch.zeros(images * cells + 1, dtype=torch.int64, device=mask.device)
    if mask.device.type == "cpu":
        counts = torch.bincount(cell, minlength=images * cells + 1)
    else:
        counts.scatter_add_(0, cell, torch.ones_like(cell))
    return counts[:-1].view(images, num_classes, num_classes)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """A ratio in float64; 0 / 0 is NaN."""
    return numerator.double() / denominator.double()


def class_iou(confusion: Tensor) -> Tensor:
    """Intersection over union of each class: float64 [..., K]; NaN for a class that is neither true nor predicted."""
    hits = confusion.diagonal(dim1=-2, dim2=-1)
    return _ratio(hits, confusion.sum(-1) + confusion.sum(-2) - hits)


def class_scores(confusion: Tensor) -> dict[str, Tensor]:
    """`iou`, `precision`, `recall` and `f1` of each class, float64 [K] each; NaN for a class without a true pixel.

    The iou of such a class would be 0 after one wrong pixel and undefined without, so the prediction would decide which
    classes a mean is over. A class with true pixels that is never predicted has precision 0, not NaN.

    Args:
        confusion: int64 [K, K].
    """
    hits, true, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    scores = {
        "iou": class_iou(confusion),
        "precision": hits / predicted.clamp(min=1).double(),
        "recall": _ratio(hits, true),
        "f1": _ratio(2 * hits, true + predicted),
    }
    return {name: torch.where(true > 0, values, torch.nan) for name, values in scores.items()}


class SegmentationMetrics(Metric):
    """The metrics of one split, by name.

    Binary (one channel of logits): `iou`, `precision`, `recall` and `f1` of the positive class, and `confident_accuracy`:
    the share of pixels whose probability is within 0.1 of the target. The texture notebook prints that as "precision".

    Multiclass: `iou`, `precision`, `recall` and `f1` as means over the classes present (with a true pixel in the split).

    Both: `accuracy`, `iou_image`, `iou_micro` over all pixels of all classes, `iou/<class>` (NaN for an absent class), and,
    if there is a background class, `foreground_iou`: the iou of everything but background, mean over images. The U-Net
    report prints that as "IoU".

    `iou_image` is the mean over images of the iou of each, without images for which it is undefined.

    Binary metrics of the positive class and `foreground_iou` are NaN if the split has no true pixel of that class or of
    the foreground.

    Args:
        class_names: the classes in the order of the class table.
        binary: whether the net gives the probability of the positive class alone.
        background: position of the background class, or None.
        sync_on_compute: whether processes add up their counts.
    """

    full_state_update = False
    confident_of_batches: Tensor
    """Pixels near the target, and pixels that count, of each batch of the last update, int64 [batches, 2]; binary only."""
    confusion: Tensor
    image_iou: Tensor
    foreground_iou: Tensor
    confident: Tensor

    def __init__(
        self, class_names: Sequence[str], binary: bool, background: int | None = None, sync_on_compute: bool = True
    ) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.class_names = list(class_names)
        self.binary = binary
        self.background = background
        classes = len(self.class_names)
        self.add_state(
            "confusion", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum", persistent=True
        )
        # Each holds a sum and a count.
        for name in ("image_iou", "foreground_iou", "confident"):
            self.add_state(name, torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum", persistent=True)

    def update(
        self, prediction: Tensor, mask: Tensor, positive_probability: Tensor | None = None, batches: int = 1
    ) -> None:
        """Counts a batch, or several joined, to the bit as if each had been counted alone.

        Args:
            prediction: int64 [B, H, W] of class ids.
            mask: int64 [B, H, W] of class ids, 255 ignored.
            positive_probability: float [B, H, W], for binary tasks.
            batches: number of batches joined, of the same number of images each.
        """
        confusion = confusion_per_image(prediction, mask, len(self.class_names))
        self.confusion += confusion.sum(0)
        per_class = class_iou(confusion)
        _add_means(self.image_iou, per_class[:, 1] if self.binary else per_class.nanmean(1), batches)
        if self.binary:
            assert positive_probability is not None
            near = (positive_probability > 0.9) & (mask == 1) | (positive_probability < 0.1) & (mask == 0)
            parts = near.view(batches, -1).sum(1), confusion.view(batches, -1).sum(1)
            self.confident_of_batches = torch.stack(parts, 1)
            self.confident += self.confident_of_batches.sum(0)
        if self.background is not None:
            total = confusion.sum((1, 2))
            true_background = confusion[:, self.background].sum(-1)
            predicted_background = confusion[:, :, self.background].sum(-1)
            both_background = confusion[:, self.background, self.background]
            union = total - both_background
            overlap = total - true_background - predicted_background + both_background
            _add_means(self.foreground_iou, _ratio(overlap, union), batches)

    def names(self) -> list[str]:
        """The names of the metrics that `compute` gives."""
        # The class's function: torchmetrics wraps the instance's, which warns before the first update.
        return list(SegmentationMetrics.compute(self))

    def compute(self) -> dict[str, Tensor]:
        """Every metric as a float64 scalar; NaN if it is undefined."""
        confusion = self.confusion
        hits, scores = confusion.diagonal(), class_scores(confusion)
        metrics: dict[str, Tensor] = {"accuracy": _ratio(hits.sum(), confusion.sum())}
        for name, values in scores.items():
            metrics[name] = values[1] if self.binary else values.nanmean()
        metrics["iou_image"] = _ratio(*self.image_iou)
        if self.binary:
            metrics["iou_image"] = torch.where(confusion[1].sum() > 0, metrics["iou_image"], torch.nan)
            metrics["confident_accuracy"] = _ratio(*self.confident)
        metrics["iou_micro"] = _ratio(hits.sum(), 2 * confusion.sum() - hits.sum())
        metrics |= {f"iou/{name}": scores["iou"][position] for position, name in enumerate(self.class_names)}
        if self.background is not None:
            foreground = confusion.sum() - confusion[self.background].sum()
            metrics["foreground_iou"] = torch.where(foreground > 0, _ratio(*self.foreground_iou), torch.nan)
        return metrics


def _add_means(sum_and_count: Tensor, values: Tensor, batches: int) -> None:
    """Adds the values of each of the joined batches, and how many there are, leaving out NaN."""
    _add_in_order(sum_and_count[0], values.view(batches, -1).nansum(1))
    sum_and_count[1] += (~values.isnan()).sum()


def _add_in_order(total: Tensor, values: Tensor) -> None:
    """Adds one value [N] after the other: the rounding of `values.sum()` would depend on how many steps are joined."""
    if values.device.type == "cpu":
        total.copy_(torch.cat([total[None], values]).cumsum(0)[-1])
        return
    for value in values.unbind():  # a GPU's cumsum adds in an order of its own
        total += value


class RunningMean(Metric):
    """Weighted mean since the last reset, in float64. Checkpoints hold it.

    Args:
        sync_on_compute: whether processes add up their sums.
    """

    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self, sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        for name in ("total", "weight"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum", persistent=True)

    def update(self, value: Tensor, weight: float | Tensor = 1.0) -> None:
        """Adds a scalar, or values [N] one after the other, with one weight for all or a weight each."""
        _add_in_order(self.total, (value.detach().double() * weight).reshape(-1))
        if isinstance(weight, Tensor):
            _add_in_order(self.weight, weight.double().reshape(-1))
        else:
            self.weight += weight * value.numel()

    def compute(self) -> Tensor:
        """A float64 scalar; NaN before the first update."""
        return self.total / self.weight


class SplitLoss(Metric):
    """The loss of a split, from the `Loss.totals` of its batches. Checkpoints hold it.

    Args:
        terms: `Loss.terms`.
        sync_on_compute: whether processes add up their totals.
    """

    full_state_update = False
    totals: Tensor

    def __init__(self, terms: int, sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.add_state("totals", torch.zeros(terms, 2, dtype=torch.float64), dist_reduce_fx="sum", persistent=True)

    def update(self, totals: Tensor) -> None:
        """Adds the totals of a batch, float64 [terms, 2]."""
        self.totals += totals

    def compute(self) -> Tensor:
        """A float64 scalar; NaN if no pixel counted."""
        return (self.totals[:, 0] / self.totals[:, 1]).sum()
