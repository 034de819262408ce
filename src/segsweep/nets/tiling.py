"""Runs a net on images of any size, whole or in overlapping tiles. Evaluation and prediction use the same layout.

Shapes: C image channels, K channels of logits, H x W pixels.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from segsweep.image_files.limits import parallel_map

ALIGNMENT = 32
"""Tiles begin at multiples of this, in pixels, so that a net that halves the resolution groups the same pixels in a tile as
in the whole image."""
_FAST = 320
"""Pixels. A tile of this size is computed fast on a CPU: larger ones are bound by memory, smaller ones by their overlap."""


@dataclass(frozen=True)
class Span:
    """A tile along one axis: the net sees the pixels `start` to `stop`, and the logits of its inner part are used.

    The inner parts of two neighbours share `ramp` pixels, over which one fades into the other.
    """

    start: int
    stop: int
    inner_start: int
    inner_stop: int


@dataclass(frozen=True)
class ReceptiveField:
    """How a net limits the tiles of an image.

    Args:
        net: its name.
        alignment: tiles must begin at multiples of this, in pixels.
        reach: the logits of a pixel depend on so many pixels on each side; "whole": on the whole image; "unknown": the net
            does not say.
    """

    net: str
    alignment: int
    reach: int | Literal["whole", "unknown"]

    @classmethod
    def of(cls, net: nn.Module) -> "ReceptiveField":
        """Reads the net's attributes `stride` and `reach`; a user's own net may have neither."""
        stride, reach = getattr(net, "stride", 1), getattr(net, "reach", "unknown")
        # In a user's own net they may mean something else, for example a stride for each axis.
        alignment = math.lcm(ALIGNMENT, stride) if isinstance(stride, int) and stride > 0 else ALIGNMENT
        if reach is None:
            return cls(type(net).__name__, alignment, "whole")
        return cls(type(net).__name__, alignment, reach if isinstance(reach, int) and reach >= 0 else "unknown")

    def caution(self, margin: int, wider: Callable[[int], str], uncut: str) -> str | None:
        """Returns a one-line warning if tiles change the logits, else None.

        Args:
            margin: pixels that a tile sees beyond those that are used.
            wider: what to type for a given margin.
            uncut: what to type to cut no image.
        """
        if self.reach == "whole":
            return f"{self.net} sees the whole image, so tiles change its result; {uncut} cuts no image"
        if self.reach == "unknown":
            return f"{self.net} does not say how far it sees (reach), so tiles may change its result; {uncut} cuts no image"
        if self.reach <= margin:
            return None
        return (
            f"{self.net} sees {self.reach} pixels far, but tiles have a margin of {margin}, so tiles change its result;"
            f" {wider(self.reach)} is enough, {uncut} cuts no image"
        )


def least_tile(margin: int, ramp: int, alignment: int) -> int:
    """Returns the smallest tile with room for a margin on both sides, in pixels.

    Such tiles advance by at least `alignment`, and along an axis each pixel fades between at most two of them.
    """
    return 2 * margin + ramp + max(alignment, 2 * ramp)


def spans(length: int, size: int, margin: int, ramp: int = 0, alignment: int = ALIGNMENT) -> list[Span]:
    """Divides an axis of `length` pixels into tiles.

    All tiles have the same size, so that they can share a batch, unless `size` leaves no room for that; then the last one
    is smaller. Seams are in the middle of the overlap.

    Args:
        length: length of the image along the axis, in pixels.
        size: largest tile, in pixels, at least `least_tile`; an image that fits into one is not cut.
        margin: least distance between a used pixel and a cut of its tile.
        ramp: pixels that the inner parts of neighbours share.
        alignment: tiles begin at multiples of this.
    """
    if length <= size:
        return [Span(0, length, 0, length)]
    least = least_tile(margin, ramp, alignment)
    assert size >= least, f"tiles of {size} pixels, not of {least} or more"
    # The largest tile that both begins at a multiple of the alignment and ends at the end of the image.
    equal = size - (size - length) % alignment
    size = equal if equal >= least else size
    step = (size - 2 * margin - ramp) // alignment * alignment
    last = -((size - length) // alignment) * alignment
    starts = [*range(0, last, step), last]
    # The pixels at which the fade between a tile and the next begins.
    seams = [(following + start + size - ramp) // 2 for start, following in itertools.pairwise(starts)]
    return [
        Span(start, min(start + size, length), inner_start, inner_stop)
        for start, inner_start, inner_stop in zip(
            starts, [0, *seams], [*(seam + ramp for seam in seams), length], strict=True
        )
    ]


def margin_of(overlap: int) -> int:
    """Returns the least distance of a used pixel from the cuts of blended tiles: three eighths of their overlap."""
    return 3 * overlap // 8


def ramp_of(overlap: int) -> int:
    """Returns the number of pixels over which blended tiles fade into each other: the middle quarter of their overlap."""
    return overlap - 2 * margin_of(overlap)


def overlap_of(margin: int) -> int:
    """Returns the smallest overlap of blended tiles that gives them a margin."""
    return -(-8 * margin // 3)


def least_blended(overlap: int, alignment: int) -> int:
    """Returns `least_tile` for blended tiles."""
    return least_tile(margin_of(overlap), ramp_of(overlap), alignment)


def check_blending(tile: int, overlap: int, alignment: int = ALIGNMENT) -> None:
    """Raises ValueError, with the argument and the smallest value that works, if tiles cannot be blended."""
    if overlap < 0:
        raise ValueError(f"overlap={overlap}: must be 0 or more pixels")
    if tile < (least := least_blended(overlap, alignment)):
        raise ValueError(f"tile={tile}: must be at least {least} pixels with overlap={overlap}")


def fast_tile(tile: int, reach: int, alignment: int) -> tuple[int, int]:
    """Returns the size and overlap of tiles that a CPU computes fast, for a net of known reach.

    Small tiles stay in the cache, and several cores can share an image. But tiles that are not much larger than their
    overlap would compute many pixels twice.

    Args:
        tile: the largest tile that is allowed, in pixels.
        reach: the net's reach, in pixels.
        alignment: see `ReceptiveField`.
    """
    overlap = overlap_of(reach)
    return min(tile, max(_FAST, 6 * overlap, least_blended(overlap, alignment))), overlap


@torch.inference_mode()
def tiled_logits(
    net: Callable[[Tensor], Tensor],
    images: Tensor,
    tile: int,
    overlap: int,
    alignment: int = ALIGNMENT,
    workers: int = 1,
) -> Iterator[tuple[int, Tensor]]:
    """Computes the logits of images of one size in bands of rows, from the top.

    Images of at most `tile` pixels each way are not cut: `net` gets all of them at once, in this thread. Larger ones are
    cut into tiles, which `workers` threads compute. Memory is then bounded by a tile for each worker, by a few tiles of
    logits, and by the logits of one row of tiles, float32 [B, K, tile, W]. If `margin_of(overlap)` is at least the net's
    reach, tiles do not change the logits, up to rounding. If the net sees the whole image, they always do.

    Args:
        net: from a part of the images [B, C, h, w] to its logits float32 [B, K, h, w] on the CPU; safe to call in several
            threads at once.
        images: [B, C, H, W] of any type, on the CPU.
        tile: the largest height and width that the net gets, in pixels.
        overlap: overlap of neighbouring tiles, in pixels.
        alignment: see `ReceptiveField`.
        workers: threads that compute tiles.

    Yields:
        The first row of the band, and its logits float32 [B, K, h, W].

    Raises:
        ValueError: as `check_blending`, if the images are cut.
    """
    height, width = images.shape[2:]
    margin, ramp = margin_of(overlap), ramp_of(overlap)
    if max(height, width) <= tile:
        yield 0, net(images)
        return
    check_blending(tile, overlap, alignment)
    rows, columns = (spans(length, tile, margin, ramp, alignment) for length in (height, width))
    fade = (torch.arange(ramp) + 0.5) / max(ramp, 1)

    def inner(place: tuple[Span, Span]) -> Tensor:
        row, column = place
        with torch.inference_mode():  # each thread has a mode of its own
            logits = net(images[:, :, row.start : row.stop, column.start : column.stop])
            logits = logits[..., row.inner_start - row.start :, column.inner_start - column.start :]
            return logits[..., : row.inner_stop - row.inner_start, : column.inner_stop - column.inner_start].clone()

    in_order = parallel_map(inner, itertools.product(rows, columns), workers, at_once=workers + 2)
    above: Tensor | None = None
    for row in rows:
        band = torch.empty(0)
        for column, logits in zip(columns, in_order, strict=False):
            if column.inner_start == 0:
                band = torch.empty(*logits.shape[:3], width)
            else:
                left = band[..., column.inner_start : column.inner_start + ramp]
                logits[..., :ramp] = left + fade * (logits[..., :ramp] - left)
            band[..., column.inner_start : column.inner_stop] = logits
        if above is not None:
            band[..., :ramp, :] = above + fade[:, None] * (band[..., :ramp, :] - above)
        done = band.shape[2] - (0 if row is rows[-1] else ramp)
        above = band[..., done:, :].clone()
        yield row.inner_start, band[..., :done, :]
