"""Pads images to sizes that a net takes and crops the logits, in a form that torch.export accepts.

An exported net has no branches and gets height and width only when it runs. It therefore pads every image, perhaps by 0
pixels, and computes sizes in such a way that the exporter can prove them equal.
"""

from typing import Annotated

import torch
from pydantic import AfterValidator
from torch import Tensor

from segsweep.instantiate import AtLeast1


def _require_odd(kernel_size: int) -> int:
    if kernel_size % 2 == 0:
        raise ValueError(
            f"an even kernel has no centre, so the output would not have the image's size; "
            f"use {kernel_size - 1} or {kernel_size + 1}"
        )
    return kernel_size


KernelSize = Annotated[AtLeast1, AfterValidator(_require_odd)]
"""An odd kernel size: with equal padding on both sides the output has the size of the input."""


def require_image(image: Tensor, in_channels: int) -> None:
    """Raises ValueError, with the actual and the expected shape, unless `image` is [B, in_channels, H, W]."""
    if torch.jit.is_tracing():  # sizes are then tensors, and torch warns about conditions on them
        return
    if image.dim() != 4 or image.shape[1] != in_channels:
        raise ValueError(f"input of shape {list(image.shape)}: this net takes [batch, {in_channels}, height, width]")


def round_up(size: int, multiple: int) -> int:
    """Returns the smallest multiple that is at least `size`."""
    return multiple * ((size + multiple - 1) // multiple)


def needs_padding(height: int, width: int, multiple: int) -> bool:
    """Says whether to pad an image for a net that computes on multiples of `multiple` pixels; always while exporting."""
    return torch.compiler.is_exporting() or height % multiple != 0 or width % multiple != 0


def pad_to_multiple(image: Tensor, multiple: int, least: int = 0) -> Tensor:
    """Repeats the last row and column of images [..., H, W] up to multiples of `multiple` of at least `least` pixels.

    `least` is a multiple of `multiple`. Images that fit are returned unchanged.
    """
    height, width = image.shape[-2:]
    if not needs_padding(height, width, multiple) and min(height, width) >= least:
        return image
    for dim, size in ((-2, height), (-1, width)):
        wanted = round_up(size, multiple)
        # The exporter cannot prove sizes equal that contain a maximum, so an exported net needs `least` pixels as input.
        position = torch.arange(wanted if torch.compiler.is_exporting() else max(wanted, least), device=image.device)
        image = image.index_select(dim, position.clamp(max=size - 1))
    return image


def crop(logits: Tensor, height: int, width: int) -> Tensor:
    """Returns the upper left `height` x `width` pixels of [..., H, W]."""
    if torch.compiler.is_exporting():
        # For a slice the exporter would have to prove that it stays inside.
        for dim, size in ((-2, height), (-1, width)):
            logits = logits.index_select(dim, torch.arange(size, device=logits.device))
        return logits
    return logits[..., :height, :width]
