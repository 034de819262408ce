"""What is drawn for a training sample, and the flips, turns and jitter that a whole batch gets on the accelerator.

Every number is a function of the sample's seed, drawn on the CPU, so it is the same on every device.

Shapes: B samples, C channels, H x W pixels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TURN, FLIP_COLUMNS, FLIP_ROWS = 1, 2, 4
"""Bits of a symmetry, applied in this order: transpose, mirror left to right, mirror top to bottom.

Together they make the eight symmetries of the square: every flip and every quarter turn.
"""
_WORD = 1 << 64


def random_word(sample_seed: int, position: int) -> int:
    """The random 64-bit number at a position of a sample's own stream (SplitMix64, Steele and others, 2014).

    Args:
        sample_seed: 32 bits, of `segsweep.data.sample_seed`.
        position: less than 2**32. What is drawn is said by the position, so no draw moves another.
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
    """A whole number in [0, bound); uneven by less than bound / 2**64."""
    return random_word(sample_seed, position) * bound >> 64


def random_between(sample_seed: int, position: int, low: float, high: float) -> float:
    """A number in [low, high)."""
    return low + (high - low) * (random_word(sample_seed, position) >> 11) / (1 << 53)


def apply_symmetries(pixels: Tensor, symmetry: Tensor) -> Tensor:
    """Flips and turns each sample by its own symmetry, exactly: no pixel is computed, all are moved.

    Args:
        pixels: [B, ..., H, W], any type; H == W where any sample is turned.
        symmetry: integer [B] of 0..7, bits as `TURN`, `FLIP_COLUMNS`, `FLIP_ROWS`.

    Returns:
        The same shape and type, on the device of `pixels`.
    """
    if pixels.device.type == "cpu":
        # One pass in one thread takes a tenth of three passes, and leaves the other cores to the data workers.
        return torch.from_numpy(_apply_one_by_one(pixels.numpy(), symmetry.tolist()))
    return _apply_together(pixels, symmetry)


def _apply_together(pixels: Tensor, symmetry: Tensor) -> Tensor:
    """No sample's symmetry is looked at from the host, so the accelerator is not waited for."""
    bits = symmetry.to(pixels.device, non_blocking=True).view(-1, *[1] * (pixels.ndim - 1))
    if pixels.shape[-1] == pixels.shape[-2]:
        pixels = torch.where((bits & TURN).bool(), pixels.mT, pixels)
    pixels = torch.where((bits & FLIP_COLUMNS).bool(), pixels.flip(-1), pixels)
    return torch.where((bits & FLIP_ROWS).bool(), pixels.flip(-2), pixels)


def _apply_one_by_one(pixels: NDArray[np.generic], symmetries: list[int]) -> NDArray[np.generic]:
    moved = np.empty_like(pixels)
    for row, symmetry in enumerate(symmetries):
        sample = pixels[row]
        if symmetry & TURN:
            sample = sample.swapaxes(-1, -2)
        if symmetry & FLIP_COLUMNS:
            sample = sample[..., ::-1]
        if symmetry & FLIP_ROWS:
            sample = sample[..., ::-1, :]
        moved[row] = sample
    return moved


def to_unit(image: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]: `image / 255`, with the same bits on every device.

    On the CPU it runs in one thread, as all of this file does: a barrier between threads costs more than the work.
    """
    if image.device.type == "cpu":
        return torch.from_numpy(np.divide(image.numpy(), np.float32(255)))
    # A plain 255 would be multiplied with as its inverse, which is off by a bit for half of the values.
    return image.float().div_(torch.full((), 255.0, device=image.device))


def to_ids(mask: Tensor) -> Tensor:
    """uint8 to int64."""
    return torch.from_numpy(mask.numpy().astype(np.int64)) if mask.device.type == "cpu" else mask.long()


def apply_jitter(image: Tensor, jitter: Tensor) -> Tensor:
    """Changes brightness and contrast of each image, and clips to [0, 1].

    Args:
        image: float32 [B, C, H, W] in [0, 1].
        jitter: float32 [B, 2]: what is added to every value, and the factor by which values move away from the image's
            mean.
    """
    added, factor = (column.view(-1, 1, 1, 1) for column in jitter.to(image.device, non_blocking=True).unbind(1))
    mean = image.mean((1, 2, 3), keepdim=True)
    return ((image - mean) * factor + mean + added).clamp_(0, 1)
