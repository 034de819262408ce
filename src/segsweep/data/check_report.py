"""What a check of a folder found, as data."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segsweep.data.splits import PARTS


@dataclass(frozen=True)
class PairReport:
    """What was read from one pair. If a file cannot be read, `errors` says why and its fields keep their defaults."""

    name: str
    image: str
    mask: str
    split: str
    """train, val, test or "unused"."""
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    height: int = 0
    width: int = 0
    mode: str = ""
    """Pillow's mode of the image, or for example "4 bands of uint16"."""
    top: float | None = None
    """The largest value in an image file of more than 8 bits, which is read as 8; None for 8 bits."""
    mask_mode: str = ""
    """How the mask was read: color or index."""
    pixels: tuple[int, ...] = ()
    """Number of pixels of each class, in the order of the class table."""
    unlisted: dict[str, int] = field(default_factory=dict)
    """Number of pixels of each colour (as "#RRGGBB") or id that is no class, the most frequent ones."""
    ignored: int = 0
    snapped: int = 0
    image_hash: str = ""
    """SHA-256 of the decoded shape and pixels."""
    mask_hash: str = ""


@dataclass(frozen=True)
class CheckReport:
    """All pairs of a folder, with errors and warnings of one line each.

    `mistakes` and `doubts` say the same as `errors` and `warnings`, with one line for all files with the same fault.
    """

    root: str
    classes: tuple[str, ...]
    split: str
    """How the pairs were split, in words."""
    folds: tuple[str, ...]
    """The folds of a cross-validation, in words."""
    pairs: tuple[PairReport, ...]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float
    mistakes: tuple[str, ...]
    doubts: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """How the pairs were found if that was not typed, and what was left out."""
    passed_over: tuple[str, ...] = ()
    """Files in the folders of images and masks that are neither, one line each."""

    @property
    def ok(self) -> bool:
        """False if training on this folder would be wrong."""
        return not self.errors

    @property
    def sizes(self) -> dict[tuple[int, int], int]:
        """Number of images by (height, width), the most frequent first."""
        return dict(Counter((pair.height, pair.width) for pair in self.pairs if pair.height).most_common())

    @property
    def modes(self) -> dict[str, int]:
        """Number of images by mode, the most frequent first."""
        return dict(Counter(pair.mode for pair in self.pairs if pair.mode).most_common())

    @property
    def ignored(self) -> dict[str, float]:
        """The share of ignored pixels in each mask that has some, by the pair's name, the largest first."""
        shares = {pair.name: pair.ignored / (pair.ignored + sum(pair.pixels)) for pair in self.pairs if pair.ignored}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    @property
    def split_sizes(self) -> dict[str, int]:
        """Pairs in train, val and test."""
        counts = Counter(pair.split for pair in self.pairs)
        return {part: counts[part] for part in PARTS}

    def class_pixels(self, split: str | None = None) -> NDArray[np.int64]:
        """Pixels of each class, in one split or in all pairs; int64 [K]."""
        rows = [pair.pixels for pair in self.pairs if pair.pixels and split in (None, pair.split)]
        return np.array(rows, dtype=np.int64).reshape(-1, len(self.classes)).sum(0)

    def class_fractions(self, split: str | None = None) -> dict[str, float]:
        """Each class's share of the pixels that are not ignored, by name; 0 if there are no pixels."""
        pixels = self.class_pixels(split)
        fractions = pixels / max(int(pixels.sum()), 1)
        return {name: float(fraction) for name, fraction in zip(self.classes, fractions, strict=True)}

    @cached_property
    def images_without(self) -> dict[str, tuple[str, ...]]:
        """Names of the pairs without a pixel of a class, by class."""
        read = [pair for pair in self.pairs if pair.pixels]
        return {
            name: tuple(pair.name for pair in read if not pair.pixels[position])
            for position, name in enumerate(self.classes)
        }

    @property
    def class_weights(self) -> dict[str, float]:
        """Balanced loss weights by class, from the training split; see `balanced_weights`."""
        return dict(zip(self.classes, balanced_weights(self.class_pixels("train")), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON."""
        return {
            "ok": self.ok,
            **asdict(self),
            "sizes": [{"height": h, "width": w, "images": n} for (h, w), n in self.sizes.items()],
            "modes": self.modes,
            "split_sizes": self.split_sizes,
            "class_fractions": self.class_fractions(),
            "images_without": self.images_without,
            "class_weights": self.class_weights,
        }


def balanced_weights(pixels: Sequence[int] | NDArray[np.int64]) -> list[float]:
    """Loss weights inverse to class frequency, so that every class has the same share of the loss.

    The mean weight over all pixels is 1, so the learning rate keeps its meaning. A class without pixels gets 1.

    Args:
        pixels: number of pixels of each class, [K].
    """
    counts = np.asarray(pixels, dtype=np.float64)
    present = counts > 0
    weights = np.ones(len(counts))
    if present.any():
        weights[present] = counts.sum() / (present.sum() * counts[present])
    return [float(weight) for weight in weights]
