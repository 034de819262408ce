"""Checks that every net makes of its own arguments, so that a wrong one is named before any layer is built."""

import torch
from torch import Tensor


def require_positive(**values: int) -> None:
    """Refuses counts and sizes below 1.

    Args:
        **values: the arguments to check, under the names that the message should use.

    Raises:
        ValueError: naming the first argument below 1 and its value.
    """
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")


def require_odd(name: str, kernel_size: int) -> None:
    """Refuses kernels that cannot give an output of the input's size with the same padding on both sides.

    Raises:
        ValueError: naming the value and its odd neighbours.
    """
    require_positive(**{name: kernel_size})
    if kernel_size % 2 == 0:
        raise ValueError(
            f"{name}={kernel_size}: an even kernel has no centre, so the output would not have the image's size; "
            f"use {kernel_size - 1} or {kernel_size + 1}"
        )


def require_image(image: Tensor, in_channels: int) -> None:
    """Refuses an input that is not a batch of images with the net's channels.

    Raises:
        ValueError: naming the shape that came and the one that was expected.
    """
    if torch.jit.is_tracing():  # sizes are tensors then, and a condition on them warns
        return
    if image.dim() != 4 or image.shape[1] != in_channels:
        raise ValueError(f"input of shape {list(image.shape)}: this net takes [batch, {in_channels}, height, width]")
