"""Images of any size through a net: whole, or in overlapping tiles that are blended where they meet.

Shapes: C image channels, K channels of logits, H x W pixels.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

ALIGNMENT = 32
"""Tiles begin at multiples of this, in pixels: a net that halves the resolution then sees the same pixels together in a
tile as in the whole image."""


@dataclass(frozen=True)
class Span:
    """A tile along one axis: the pixels `start` to `stop` that the net sees, of which `inner_start` to `inner_stop` count.

    The inner parts of two neighbours share `ramp` pixels, over which the one fades into the other.
    """

    start: int
    stop: int
    inner_start: int
    inner_stop: int


def check_tiling(tile: int, overlap: int, alignment: int = ALIGNMENT) -> None:
    """Refuses tiles that could not be blended.

    Raises:
        ValueError: names the argument.
    """
    if overlap < 0:
        raise ValueError(f"overlap={overlap}: must be 0 or more pixels")
    if tile < 2 * max(alignment, overlap):
        raise ValueError(f"tile={tile}: must be at least {2 * alignment} pixels, and twice the overlap of {overlap}")


def ramp_of(overlap: int) -> int:
    """Over how many pixels two tiles fade into each other: the middle quarter of their overlap."""
    return overlap // 4


def spans(length: int, tile: int, overlap: int, alignment: int = ALIGNMENT) -> list[Span]:
    """Tiles along an axis of `length` pixels.

    Neighbours overlap by `overlap` pixels or a little more. Seams lie in the middle of the overlap, so whatever counts
    is at least three eighths of the overlap away from where a tile cuts through the image.

    Args:
        length: of the image.
        tile: the largest tile; an image that fits into one is not cut.
        overlap: at most half of `tile`.
        alignment: tiles begin at multiples of it.

    Raises:
        ValueError: as `check_tiling`, where the axis has to be cut.
    """
    if length <= tile:
        return [Span(0, length, 0, length)]
    check_tiling(tile, overlap, alignment)
    step = (tile - overlap) // alignment * alignment
    starts = range(0, length - (tile - step), step)
    ramp = ramp_of(overlap)
    # Where the fading between a tile and the next begins.
    seams = [start + step + (tile - step - ramp) // 2 for start in starts[:-1]]
    return [
        Span(start, min(start + tile, length), inner_start, inner_stop)
        for start, inner_start, inner_stop in zip(
            starts, [0, *seams], [*(seam + ramp for seam in seams), length], strict=True
        )
    ]


@torch.inference_mode()
def tiled_logits(
    net: Callable[[Tensor], Tensor],
    image: Tensor,
    prepare: Callable[[Tensor], Tensor],
    tile: int,
    overlap: int,
    stride: int = 1,
) -> Iterator[tuple[int, Tensor]]:
    """The logits of one image, a band of rows after the other from the top.

    An image of at most `tile` pixels each way goes through the net whole. What a larger one takes is bounded by the tile:
    on the net's device one tile, in main memory the logits of one row of tiles, float32 [K, tile, W]. Where three eighths
    of the overlap are at least as far as the net sees around a pixel, the logits are those of the whole image up to
    rounding; a net that looks at the whole image at once, as a group norm does, cannot be tiled without a difference.

    Args:
        net: from images [1, C, h, w] to logits [1, K, h, w].
        image: [C, H, W] of any type, on the CPU.
        prepare: from a part of it, [1, C, h, w], to what the net takes, on the net's device.
        tile: the largest height and width that the net is given, in pixels.
        overlap: of neighbouring tiles, in pixels.
        stride: tiles begin at multiples of it, for a net that halves its resolution often.

    Yields:
        Where the band begins, and its logits float32 [K, h, W] on the CPU.

    Raises:
        ValueError: as `check_tiling`, where the image has to be cut.
    """
    height, width = image.shape[1:]
    alignment = math.lcm(ALIGNMENT, stride)
    rows, columns = spans(height, tile, overlap, alignment), spans(width, tile, overlap, alignment)
    fade = (torch.arange(ramp_of(overlap)) + 0.5) / max(ramp_of(overlap), 1)
    above: Tensor | None = None
    for row in rows:
        band: Tensor | None = None
        for column in columns:
            part = image[None, :, row.start : row.stop, column.start : column.stop]
            logits = net(prepare(part))[0].float().cpu()
            if len(rows) == len(columns) == 1:
                yield 0, logits
                return
            logits = logits[
                :,
                row.inner_start - row.start : row.inner_stop - row.start,
                column.inner_start - column.start : column.inner_stop - column.start,
            ]
            if band is None:
                band = torch.empty(len(logits), logits.shape[1], width)
            left = band[..., column.inner_start : column.inner_start + len(fade)]
            if column.inner_start:
                logits[..., : len(fade)] = left + fade * (logits[..., : len(fade)] - left)
            band[..., column.inner_start : column.inner_stop] = logits
        assert band is not None
        if above is not None:
            band[:, : len(fade)] = above + fade[:, None] * (band[:, : len(fade)] - above)
        last = row is rows[-1]
        done = band.shape[1] if last else band.shape[1] - len(fade)
        above = band[:, done:].clone()
        yield row.inner_start, band[:, :done]
