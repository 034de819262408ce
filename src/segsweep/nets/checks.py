"""Checks that nets share."""

from typing import Annotated

import torch
from pydantic import AfterValidator
from torch import Tensor

from segsweep.instantiate import AtLeast1


def _odd(kernel_size: int) -> int:
    if kernel_size % 2 == 0:
        raise ValueError(
            f"an even kernel has no centre, so the output would not have the image's size; "
            f"use {kernel_size - 1} or {kernel_size + 1}"
        )
    return kernel_size


KernelSize = Annotated[AtLeast1, AfterValidator(_odd)]
"""Of a kernel whose output has the size of its input with the same padding on both sides."""


def require_image(image: Tensor, in_channels: int) -> None:
    """Refuses an input that is not a batch of images with the net's channels.

    Raises:
        ValueError: naming the shape that came and the one that was expected.
    """
    if torch.jit.is_tracing():  # sizes are tensors then, and a condition on them warns
        return
    if image.dim() != 4 or image.shape[1] != in_channels:
        raise ValueError(f"input of shape {list(image.shape)}: this net takes [batch, {in_channels}, height, width]")
