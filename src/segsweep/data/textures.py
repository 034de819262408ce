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
from segsweep.instantiate import AtLeast1, NotNegative, checked

MIN_IMAGE_SIZE = 16
"""In smaller images the border cuts off most of the kernel, which is as wide as the image."""

TEXTURE_LABELS = ClassTable([LabelClass(0, "texture 2", (38, 70, 83)), LabelClass(1, "texture 1", (244, 162, 97))])
"""Class 1 is the notebook's omega_1, the region of the first texture."""

_NEGLIGIBLE = 1e-30
"""Kernel values below this become 0. They change no float32 sum of normal size, and the smallest are denormal numbers,
which a CPU multiplies many times more slowly."""

_BLOCK = 64
"""Rows that a narrow filter is applied to at once, on the CPU."""

Sigma = float | Sequence[float]
"""A standard deviation in pixels, or a range [low, high] from which every image draws its own, log-uniformly."""


def toeplitz_gaussian(size: int, sigma: float | Tensor) -> Tensor:
    """One-dimensional Gaussian smoothing as a matrix: `T @ x` filters the columns of `x`.

    The kernel is sampled at `linspace(-size/2, size/2, size)`, normalised to sum 1, and applied with zero padding as
    `conv2d(padding="same")` applies it, so `T @ x @ T.mT` equals the two-dimensional filter of the texture notebook.
    An even `size` has no sample at 0: its narrowest kernel is the mean of two pixels (four in two dimensions). Only an odd
    size has a kernel of one pixel.

    Args:
        size: image height and width, in pixels.
        sigma: standard deviation of the Gaussian, in pixels; a tensor [B] gives one matrix per image.

    Returns:
        float32 [size, size], or [B, size, size]; on the CPU.

    Raises:
        ValueError: `sigma` is not positive and finite.

    Source: texture notebook (docs/sources.md), section 3.1.
    """
    width = torch.as_tensor(sigma, dtype=torch.float64)
    if not bool((width > 0).all() and width.isfinite().all()):
        raise ValueError(f"sigma={sigma}: must be positive and finite")
    grid_squared = torch.linspace(-size / 2, size / 2, size, dtype=torch.float64) ** 2
    # Subtracting the smallest exponent does not change the normalised kernel, and avoids 0 / 0 for a narrow one. Dividing
    # twice avoids the square of a very small sigma, which is 0.
    kernel = torch.exp(-(grid_squared - grid_squared.min()) / width[..., None] / width[..., None] / 2)
    kernel = kernel / kernel.sum(-1, keepdim=True)
    kernel = torch.where(kernel < _NEGLIGIBLE, 0, kernel)
    position = torch.arange(size)
    # 'same' padding puts the smaller half of size - 1 zeros on the left.
    tap = position[None, :] - position[:, None] + (size - 1) // 2
    matrix = kernel[..., tap.clamp(0, size - 1)] * ((tap >= 0) & (tap < size))
    return matrix.float()


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
        return compose_textures(noise.to(device), border, texture1, texture2, smoothing)

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
