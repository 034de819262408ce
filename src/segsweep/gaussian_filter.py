"""The texture notebook's Gaussian filter as a matrix: the textures are made with it, and a net undoes it."""

import torch
from torch import Tensor

_NEGLIGIBLE = 1e-30
"""Kernel values below this become 0. They change no float32 sum of normal size, and the smallest are denormal numbers,
which a CPU multiplies many times more slowly."""


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
