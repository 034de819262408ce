"""Sizes that a net computes on, and logits cut back to the image's size; in a form that can be exported.

An exported net has no branches and knows height and width only when it runs: it extends every image, by nothing where
that fits already, and its sizes are written so that the exporter can prove them equal where they meet.
"""

import torch
from torch import Tensor


def rounded_up(size: int, multiple: int) -> int:
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
        wanted = rounded_up(size, multiple)
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
