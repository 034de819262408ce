"""Images of any size through a net: whole, or in overlapping tiles. One layout for evaluation and prediction.

Shapes: C image channels, K channels of logits, H x W pixels.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

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


@dataclass(frozen=True)
class ReceptiveField:
    """What cutting an image into tiles has to know of a net.

    Args:
        net: its name.
        alignment: tiles begin at multiples of it, in pixels.
        reach: how far the net sees on each side of a pixel, in pixels; "whole" is the whole image.
    """

    net: str
    alignment: int
    reach: int | Literal["whole", "unknown"]

    @classmethod
    def of(cls, net: nn.Module) -> "ReceptiveField":
        """As the net's attributes `stride` and `reach` say; a net of a user's own may have neither."""
        stride, reach = getattr(net, "stride", 1), getattr(net, "reach", "unknown")
        # Attributes of that name may mean something else there, a stride of each axis for example.
        alignment = math.lcm(ALIGNMENT, stride) if isinstance(stride, int) and stride > 0 else ALIGNMENT
        if reach is None:
            return cls(type(net).__name__, alignment, "whole")
        return cls(type(net).__name__, alignment, reach if isinstance(reach, int) and reach >= 0 else "unknown")

    def caution(self, margin: int, wider: Callable[[int], str], uncut: str) -> str | None:
        """The line for whoever has an image cut into tiles that change its logits; None where they change nothing.

        Args:
            margin: what tiles see beyond the pixels that count, in pixels.
            wider: what to type for a margin of so many pixels.
            uncut: what to type so that no image is cut.
        """
        if self.reach == "whole":
            return f"{self.net} sees the whole image, so cutting one into tiles changes its result; {uncut} cuts none"
        if self.reach == "unknown":
            return f"{self.net} does not say how far it sees (reach), so tiles may change its result; {uncut} cuts none"
        if self.reach <= margin:
            return None
        return (
            f"{self.net} sees {self.reach} pixels far and tiles only {margin} beyond what counts, so tiles change its"
            f" result; {wider(self.reach)} is enough, {uncut} cuts no image"
        )


def least_tile(margin: int, ramp: int, alignment: int) -> int:
    """The smallest tile that leaves room for a margin on both sides, in pixels.

    Tiles then advance by at least `alignment`, and no pixel fades between more than two of them along an axis.
    """
    return 2 * margin + ramp + max(alignment, 2 * ramp)


def spans(length: int, size: int, margin: int, ramp: int = 0, alignment: int = ALIGNMENT) -> list[Span]:
    """Tiles along an axis of `length` pixels.

    They are equally large, so that they can share a batch, unless `size` leaves no room for that; then the last one is
    smaller. Seams lie in the middle of the overlap.

    Args:
        length: of the image.
        size: of the largest tile, at least `least_tile`; an image that fits into one is not cut.
        margin: whatever counts is at least so far away from where its tile cuts through the image.
        ramp: pixels that the inner parts of neighbours share.
        alignment: tiles begin at multiples of it.
    """
    if length <= size:
        return [Span(0, length, 0, length)]
    least = least_tile(margin, ramp, alignment)
    assert size >= least, f"tiles of {size} pixels, not of {least} or more"
    # The largest tile that ends with the image where it begins at a multiple of the alignment.
    equal = size - (size - length) % alignment
    size = equal if equal >= least else size
    step = (size - 2 * margin - ramp) // alignment * alignment
    last = -((size - length) // alignment) * alignment
    starts = [*range(0, last, step), last]
    # Where the fading between a tile and the next begins.
    seams = [(following + start + size - ramp) // 2 for start, following in itertools.pairwise(starts)]
    return [
        Span(start, min(start + size, length), inner_start, inner_stop)
        for start, inner_start, inner_stop in zip(
            starts, [0, *seams], [*(seam + ramp for seam in seams), length], strict=True
        )
    ]


def margin_of(overlap: int) -> int:
    """What counts of blended tiles is at least so far from where they are cut: three eighths of their overlap."""
    return 3 * overlap // 8


def ramp_of(overlap: int) -> int:
    """Over how many pixels blended tiles fade into each other: the middle quarter of their overlap."""
    return overlap - 2 * margin_of(overlap)


def overlap_of(margin: int) -> int:
    """The smallest overlap of blended tiles that gives them a margin of so many pixels."""
    return -(-8 * margin // 3)


def least_blended(overlap: int, alignment: int) -> int:
    """`least_tile` of blended tiles."""
    return least_tile(margin_of(overlap), ramp_of(overlap), alignment)


def check_blending(tile: int, overlap: int, alignment: int = ALIGNMENT) -> None:
    """Refuses tiles that could not be blended.

    Raises:
        ValueError: names the argument, and the smallest value that works.
    """
    if overlap < 0:
        raise ValueError(f"overlap={overlap}: must be 0 or more pixels")
    if tile < (least := least_blended(overlap, alignment)):
        raise ValueError(f"tile={tile}: must be at least {least} pixels with overlap={overlap}")


@torch.inference_mode()
def tiled_logits(
    net: Callable[[Tensor], Tensor],
    image: Tensor,
    prepare: Callable[[Tensor], Tensor],
    tile: int,
    overlap: int,
    alignment: int = ALIGNMENT,
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
        alignment: tiles begin at multiples of it, as `ReceptiveField` has it.

    Yields:
        Where the band begins, and its logits float32 [K, h, W] on the CPU.

    Raises:
        ValueError: as `check_blending`, where the image has to be cut.
    """
    height, width = image.shape[1:]
    margin, ramp = margin_of(overlap), ramp_of(overlap)
    if max(height, width) > tile:
        check_blending(tile, overlap, alignment)
    rows, columns = (spans(length, tile, margin, ramp, alignment) for length in (height, width))
    fade = (torch.arange(ramp) + 0.5) / max(ramp, 1)
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
