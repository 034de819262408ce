"""Random numbers of a training sample, and flips, turns, colours and blur of a whole batch.

Random numbers are drawn on the CPU from the sample's seed alone, so they are the same for every device.

Shapes: B samples, C channels, H x W pixels.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

TURN, FLIP_COLUMNS, FLIP_ROWS = 1, 2, 4
"""Bits of a symmetry, applied in this order: transpose, mirror left to right, mirror top to bottom.

Together they make the eight symmetries of the square: every flip and every quarter turn.
"""
_WORD = 1 << 64


def random_word(sample_seed: int, position: int) -> int:
    """A 64-bit number from a sample's random stream (SplitMix64, Steele and others, 2014).

    Args:
        sample_seed: 32 bits, from `segsweep.data.sample_seed`.
        position: place in the stream, below 2**32. Each decision has its own place, so no draw changes another.
    """
    word = ((sample_seed << 32) + position + 1) * 0x9E3779B97F4A7C15 % _WORD
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % _WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB % _WORD
    return word ^ word >> 31


def random_words(sample_seed: int, positions: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """`random_word` at many positions at once."""
    word = (np.uint64(sample_seed << 32) + positions + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def random_below(sample_seed: int, position: int, bound: int) -> int:
    """An integer in [0, bound), uniform up to bound / 2**64."""
    return random_word(sample_seed, position) * bound >> 64


def random_between(sample_seed: int, position: int, low: float, high: float) -> float:
    """A number in [low, high)."""
    return low + (high - low) * (random_word(sample_seed, position) >> 11) / (1 << 53)


def apply_symmetries(pixels: Tensor, symmetry: Tensor) -> Tensor:
    """Flips and turns each sample by its own symmetry. Pixels are moved, never interpolated.

    Args:
        pixels: [B, ..., H, W], any dtype; H == W if any sample is turned.
        symmetry: integer [B] of 0..7, bits as `TURN`, `FLIP_COLUMNS`, `FLIP_ROWS`.

    Returns:
        Same shape and dtype, on the device of `pixels`.
    """
    if pixels.device.type != "cpu":
        return apply_symmetries_on_accelerator(pixels, symmetry)
    # One pass in one thread takes a tenth of three passes, and leaves the other cores to the data workers.
    samples = pixels.numpy()
    moved = np.empty_like(samples)
    for row, bits in enumerate(symmetry.tolist()):
        sample = samples[row]
        if bits & TURN:
            sample = sample.swapaxes(-1, -2)
        if bits & FLIP_COLUMNS:
            sample = sample[..., ::-1]
        if bits & FLIP_ROWS:
            sample = sample[..., ::-1, :]
        moved[row] = sample
    return torch.from_numpy(moved)


def apply_symmetries_on_accelerator(pixels: Tensor, symmetry: Tensor) -> Tensor:
    """`apply_symmetries` by masks instead of branches, so the host does not wait for the accelerator."""
    bits = symmetry.to(pixels.device, non_blocking=True).view(-1, *[1] * (pixels.ndim - 1))
    if pixels.shape[-1] == pixels.shape[-2]:
        pixels = torch.where((bits & TURN).bool(), pixels.mT, pixels)
    pixels = torch.where((bits & FLIP_COLUMNS).bool(), pixels.flip(-1), pixels)
    return torch.where((bits & FLIP_ROWS).bool(), pixels.flip(-2), pixels)


def to_unit(image: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]: `image / 255`, the same bits on every device."""
    if image.device.type == "cpu":  # in one thread: synchronising several costs more than the work
        return torch.from_numpy(np.divide(image.numpy(), np.float32(255)))
    # A plain 255 would become a multiplication by 1 / 255, which is one bit off for half of the values.
    return image.float().div_(torch.full((), 255.0, device=image.device))


def to_ids(mask: Tensor) -> Tensor:
    """uint8 to int64."""
    return torch.from_numpy(mask.numpy().astype(np.int64)) if mask.device.type == "cpu" else mask.long()


@dataclass(frozen=True)
class Jitter:
    """Changes of a sample's values, or the largest that are drawn: for contrast and saturation, of a factor of 1.

    Args:
        brightness: the value to add.
        contrast: the factor for each value's distance from the image's mean.
        saturation: the factor for each value's distance from the pixel's gray.
        hue: the turn of all hues, as a share of the colour circle.
        blur: standard deviation of a Gaussian filter, in pixels.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float
    blur: float


SAME = Jitter(0, 1, 1, 0, 0)
"""The change that leaves a sample as it is."""
NONE = Jitter(0, 0, 0, 0, 0)
"""As the largest changes: nothing is changed."""


_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], dtype=torch.float64)
"""Red, green and blue to brightness and two colour axes (NTSC, 1953). A turn of the axes is a turn of the hue."""
_RGB = torch.linalg.inv(_YIQ)


def apply_colours(image: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Changes saturation and hue of each image; the brightness of no pixel changes.

    Args:
        image: float32 [B, 3, H, W], red, green and blue.
        saturation, hue: float32 [B], as in `Jitter`.

    Returns:
        float32 [B, 3, H, W], which may leave [0, 1].
    """
    angle, factor = hue.double() * 2 * math.pi, saturation.double()
    turn = torch.zeros(len(image), 3, 3, dtype=torch.float64)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = factor * angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -factor * angle.sin(), factor * angle.sin()
    matrix = (_RGB @ turn @ _YIQ).float().to(image.device, non_blocking=True)
    return torch.einsum("bij,bjhw->bihw", matrix, image)


def apply_blur(image: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Filters each image with a Gaussian of its own; the image is reflected at its edges.

    Args:
        image: float32 [B, C, H, W].
        sigma: float32 [B], standard deviations in pixels; 0 changes nothing.
        largest: the largest of them that can occur, which decides the size of the kernel.
    """
    samples, channels, height, width = image.shape
    radius = min(math.ceil(3 * largest), height - 1, width - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-((offsets / sigma.double().clamp(min=1e-3)[:, None]) ** 2) / 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).float().to(image.device, non_blocking=True)
    # One group for each channel of each image: all images in one convolution.
    kernel = kernel.repeat_interleave(channels, 0)[:, None]
    joined = F.pad(image, [radius] * 4, mode="reflect").flatten(0, 1)[None]
    joined = F.conv2d(joined, kernel[..., None], groups=samples * channels)
    return F.conv2d(joined, kernel[:, :, None], groups=samples * channels).view(image.shape)


def apply_jitter(image: Tensor, jitter: Tensor, largest: Jitter) -> Tensor:
    """Changes the values of each image, and clips them to [0, 1].

    Args:
        image: float32 [B, C, H, W] in [0, 1].
        jitter: float32 [B, 5]: the fields of `Jitter`, of each image.
        largest: the largest changes; what is 0 in all images is skipped.
    """
    if largest.blur:
        image = apply_blur(image, jitter[:, 4], largest.blur)
    if largest.saturation or largest.hue:
        image = apply_colours(image, jitter[:, 2], jitter[:, 3])
    if largest.brightness or largest.contrast:
        both = jitter[:, :2].to(image.device, non_blocking=True)
        added, factor = (column.view(-1, 1, 1, 1) for column in both.unbind(1))
        mean = image.mean((1, 2, 3), keepdim=True)
        image = (image - mean) * factor + mean + added
    return image.clamp_(0, 1)
