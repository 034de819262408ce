"""Sizes that a net takes, images padded to them, and logits cropped to the image; in a form that can be exported.

An exported net has no branches and knows height and width only when it runs: it extends every image, by nothing where
that fits already, and its sizes are written so that the exporter can prove them equal where they meet.
"""

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


def round_up(size: int, multiple: int) -> int:
    """The smallest multiple that is not below `size`."""
    return multiple * ((size + multiple - 1) // multiple)


def needs_padding(height: int, width: int, multiple: int) -> bool:
    """Whether an image has to be extended before a net that computes on multiples of `multiple` pixels takes it."""
    return torch.compiler.is_exporting() or height % multiple != 0 or width % multiple != 0


def pad_to_multiple(image: Tensor, multiple: int, least: int = 0) -> Tensor:
    """Images [..., H, W] with the last row and column repeated, up to multiples of `multiple` of at least `least` pixels.

    `least` is a multiple of `multiple`. Images that fit are given back as they are.
    """
    height, width = image.shape[-2:]
    if not needs_padding(height, width, multiple) and min(height, width) >= least:
        return image
    for dim, size in ((-2, height), (-1, width)):
        wanted = round_up(size, multiple)
        # An exporter can prove no sizes equal that a maximum is in: an exported net wants at least `least` pixels.
        position = torch.arange(wanted if torch.compiler.is_exporting() else max(wanted, least), device=image.device)
        image = image.index_select(dim, position.clamp(max=size - 1))
    return image


def crop(logits: Tensor, height: int, width: int) -> Tensor:
    """The upper left `height` x `width` pixels of [..., H, W]."""
    if torch.compiler.is_exporting():
        # A slice would need a proof that it does not reach beyond the end.
        for dim, size in ((-2, height), (-1, width)):
            logits = logits.index_select(dim, torch.arange(size, device=logits.device))
        return logits
    return logits[..., :height, :width]
