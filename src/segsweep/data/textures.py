"""Two-texture images made on the fly: stationary Gaussian processes on either side of a random smooth border.

Shapes: B samples, H = W = `image_size` pixels.

Source: texture notebook (docs/sources.md), section 3.1.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from segsweep.classes import ClassTable, LabelClass
from segsweep.data.source import Batch, Source, Split, sample_seed
from segsweep.gaussian_filter import toeplitz_gaussian
from segsweep.instantiate import AtLeast1, NotNegative, checked

MIN_IMAGE_SIZE = 16
"""In smaller images the border cuts off most of the kernel, which is as wide as the image."""

TEXTURE_LABELS = ClassTable([LabelClass(0, "texture 2", (38, 70, 83)), LabelClass(1, "texture 1", (244, 162, 97))])
"""Class 1 is the notebook's omega_1, the region of the first texture."""

_BLOCK = 64
"""Rows that a narrow filter is applied to at once, on the CPU."""

Sigma = float | Sequence[float]
"""A standard deviation in pixels, or a range [low, high] from which every image draws its own, log-uniformly."""


def compose_textures(
    noise: Tensor, border: Tensor, texture1: Tensor, texture2: Tensor, smoothing: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Images and masks from white noise.

    Args:
        noise: float32 [B, 3, H, H], standard normal: for the border, the first and the second texture.
        border, texture1, texture2: smoothing matrices of `toeplitz_gaussian`, [H, H] or [B, H, H].
        smoothing: the filter that softens the jump at the border, or None.

    Returns:
        image float32 [B, 1, H, H], each scaled to [0, 1], and mask int64 [B, H, H], 1 in the first texture.
    """
    with _full_float32(noise.device.type):
        omega_1 = smooth(noise[:, 0], border) > 0
        image = torch.where(omega_1, smooth(noise[:, 1], texture1), smooth(noise[:, 2], texture2))
        if smoothing is not None:
            image = smooth(image, smoothing)
        image = image - image.amin((-2, -1), keepdim=True)
        image = image / image.amax((-2, -1), keepdim=True)
    return image[:, None], omega_1.long()


def smooth(x: Tensor, matrix: Tensor) -> Tensor:
    """`matrix @ x @ matrix.mT`; on the CPU the zeros of a large matrix of a narrow filter are skipped."""
    size = matrix.shape[-1]
    if matrix.device.type != "cpu" or size <= 2 * _BLOCK:
        return matrix @ x @ matrix.mT
    # Toeplitz: the first row and the first column hold every tap.
    reach = max(int((edge != 0).sum(-1).max()) for edge in (matrix[..., 0, :], matrix[..., :, 0]))
    if _BLOCK + 2 * reach > size // 2:
        return matrix @ x @ matrix.mT
    blocks = [
        (slice(start, start + _BLOCK), slice(max(0, start - reach), start + _BLOCK + reach))
        for start in range(0, size, _BLOCK)
    ]
    x = torch.cat([matrix[..., block, near] @ x[..., near, :] for block, near in blocks], dim=-2)
    return torch.cat([x[..., :, near] @ matrix[..., block, near].mT for block, near in blocks], dim=-1)


@contextlib.contextmanager
def _full_float32(device_type: str) -> Iterator[None]:
    """Switches off autocast and TF32: the mask is a threshold at 0, which rounding would move."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


class _Positions(Dataset[int]):
    """Returns the index itself: the accelerator makes the texture from it."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __getitem__(self, index: int) -> int:
        return index

    def __len__(self) -> int:
        return self.size


@checked
class Textures(Source):
    """The notebook's two-texture images.

    Training noise is drawn on the device that trains. Validation and test noise is drawn on the CPU and depends on
    `eval_seed` alone, so every machine and every run seed scores the same images.

    Args:
        image_size: height and width in pixels, at least 16.
        sigma1: standard deviation of the first texture's filter, in pixels, or a range [low, high].
        sigma2: the same for the second texture.
        sigma: the same for the field whose sign makes the mask; None: `image_size / 5`, as in the notebook.
        smoothing: standard deviation of the last filter, which softens the border; 0: no filter.
        bits: rounds the images to `2**bits` levels, as a PNG of 8 or 16 bits does; None: float32.
        samples_per_epoch: training samples in an epoch; in the notebook 100 steps of 8.
        val_size: number of validation images.
        test_size: number of test images.
        seed: seed of the training samples.
        eval_seed: seed of the samples of val, test and bn_calibration.

    Raises:
        ValueError: a value is outside its range.

    Source: texture notebook (docs/sources.md), section 3.1.
    """

    kind = "binary"
    labels = TEXTURE_LABELS
    channels = 1
    unscored = Source.unscored | {"samples_per_epoch", "test_size"}  # jobs are ranked by val
    training_only = Source.training_only | {"samples_per_epoch"}

    def __init__(
        self,
        image_size: Annotated[int, Field(ge=MIN_IMAGE_SIZE)] = 128,
        sigma1: Sigma = 0.2,
        sigma2: Sigma = 1.2,
        sigma: Sigma | None = None,
        smoothing: NotNegative = 1.0,
        bits: Annotated[int, Field(ge=1, le=16)] | None = None,
        samples_per_epoch: AtLeast1 = 800,
        val_size: AtLeast1 = 64,
        test_size: AtLeast1 = 256,
        seed: int = 0,
        eval_seed: int = 0,
    ) -> None:
        self.image_size = image_size
        self.sigmas = (
            sigma_range("sigma", image_size / 5 if sigma is None else sigma),
            sigma_range("sigma1", sigma1),
            sigma_range("sigma2", sigma2),
        )
        self.smoothing = smoothing
        self.bits = bits
        self.seed = seed
        self.eval_seed = eval_seed
        self._sizes: dict[Split, int] = {
            "train": samples_per_epoch,
            "val": val_size,
            "test": test_size,
            "bn_calibration": samples_per_epoch,
        }
        self._matrices: dict[tuple[float, torch.device], Tensor] = {}

    def size(self, split: Split) -> int:
        return self._sizes[split]

    def absent_classes(self, split: Literal["val", "test"]) -> list[str]:
        return []  # nearly every image has both textures

    def dataset(self, split: Split) -> Dataset[Any]:
        return _Positions(self.size(split))

    def to_batch(self, collated: Any, split: Split, device: torch.device) -> Batch:
        index = torch.as_tensor(collated)
        image, mask = self.make(index.tolist(), split, device)
        return Batch(image, mask, index)

    def make(
        self, indices: Sequence[int], split: Split = "train", device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor]:
        """The samples of a split at `indices`.

        Returns:
            image float32 [B, 1, H, W] in [0, 1] and mask int64 [B, H, W], on `device`.
        """
        device = torch.device(device)
        seed = self.seed if split == "train" else self.eval_seed
        noise_device = device if split == "train" else torch.device("cpu")
        noise = torch.empty(len(indices), 3, self.image_size, self.image_size, device=noise_device)
        draw = torch.Generator(noise_device)
        seeds = [sample_seed(seed, split, index) for index in indices]
        for row, noise_seed in enumerate(seeds):
            noise[row].normal_(generator=draw.manual_seed(noise_seed))
        matrices = []
        for field, (low, high) in enumerate(self.sigmas):
            if low == high:
                matrices.append(self._matrix(low, device))
                continue
            # Own generators on the CPU: a range changes no noise, and the widths are the same on every device.
            uniform = [np.random.default_rng([noise_seed, field]).random() for noise_seed in seeds]
            widths = low * (high / low) ** torch.tensor(uniform, dtype=torch.float64)
            matrices.append(toeplitz_gaussian(self.image_size, widths).to(device))
        border, texture1, texture2 = matrices
        smoothing = self._matrix(self.smoothing, device) if self.smoothing else None
        image, mask = compose_textures(noise.to(device), border, texture1, texture2, smoothing)
        if self.bits is not None:
            levels = 2**self.bits - 1
            image = (image * levels).round() / levels
        return image, mask

    def _matrix(self, sigma: float, device: torch.device) -> Tensor:
        key = (sigma, device)
        if key not in self._matrices:
            self._matrices[key] = toeplitz_gaussian(self.image_size, sigma).to(device)
        return self._matrices[key]


def sigma_range(name: str, sigma: Sigma) -> tuple[float, float]:
    """A setting as the range (low, high), both in pixels; a number is a range of one width.

    Raises:
        ValueError: names the setting.
    """
    values = (float(sigma), float(sigma)) if isinstance(sigma, int | float) else tuple(float(value) for value in sigma)
    if len(values) != 2 or not all(math.isfinite(value) and value > 0 for value in values) or values[0] > values[1]:
        raise ValueError(f"{name}={sigma}: must be a positive number of pixels, or a range [low, high] of them")
    return values[0], values[1]
