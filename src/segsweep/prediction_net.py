"""A run's net for images of any size and number: batches of whole images, or one image in tiles, on all cores.

Shapes: B images of one size, C channels, K classes, H x W pixels.
"""

import copy
import functools
import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segsweep.data.augment import to_unit
from segsweep.errors import UserError
from segsweep.instantiate import checked
from segsweep.nets.tiling import ReceptiveField, fast_tile, least_blended, margin_of, tiled_logits
from segsweep.runs.load import Run
from segsweep.trainer_settings import auto_precision, trained_precision

NetPrecision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]

BATCH = {"cpu": 1 << 15, "cuda": 1 << 20}
"""Pixels of the images that the net gets at once, unless a single image has more. More do not fit into a CPU's cache."""


class Band(NamedTuple):
    """Rows of B images: the first row, masks [B, h, W], and probabilities [B, K, h, W] if they are wanted."""

    top: int
    masks: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None


class PredictionNet:
    """A copy of a run's net on a device, which segments images whole or in overlapping tiles.

    On a CPU, images and tiles are computed in several threads of one core each: threads that share the work of one
    convolution spend much of their time waiting for each other. Those that are computed at the same time have at most
    `tile * tile` pixels together, so memory is bounded as if one tile was computed at a time.

    An image has the same logits in a batch as alone, up to rounding. On the CPUs that were tried, they are equal.

    Args:
        run: from `load_run`.
        device: where the net runs.
        tile, overlap, precision: as `predict` takes them.

    Raises:
        UserError: there is no such precision, or the device lacks it.
    """

    def __init__(self, run: Run, device: torch.device, tile: int, overlap: int, precision: NetPrecision) -> None:
        device_type: Literal["cpu", "cuda"] = "cuda" if device.type == "cuda" else "cpu"
        if precision == "auto":
            precision = trained_precision(run.settings("trainer"), device_type)
        self.number_type = autocast_type(precision, device_type)
        self.net = copy.deepcopy(run.net).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.task, self.field = run.task, ReceptiveField.of(run.net)
        self.device, self.tile, self.overlap = device, tile, overlap
        self.cores = torch.get_num_threads() if device.type == "cpu" else 1
        self.batch_pixels = max(min(BATCH[device.type], tile * tile // self.cores), 1)

    def at_once(self, pixels: int) -> int:
        """The number of images or tiles of so many pixels that may be computed at the same time."""
        room = max(self.tile * self.tile // max(pixels, self.batch_pixels), 1)
        return self.cores if room >= self.cores else 1 << room.bit_length() - 1

    def layout(self, height: int, width: int) -> tuple[int, int]:
        """Tile and overlap for an image; it is cut if it is larger than the tile.

        If the net says how far it sees, and the overlap asked for covers that, any tiles give the same logits. Then those
        that a CPU computes fast are chosen, and an image that would keep the other cores idle is cut too.
        """
        reach = self.field.reach
        shared = max(height, width) <= self.tile and self.at_once(height * width) == self.cores
        if shared or self.device.type != "cpu" or not isinstance(reach, int) or reach > margin_of(self.overlap):
            return self.tile, self.overlap
        return fast_tile(self.tile, reach, self.field.alignment)

    def plan(self, height: int, width: int) -> tuple[bool, int]:
        """Whether an image is cut, and how many images or tiles like its own are computed at the same time."""
        tile, _ = self.layout(height, width)
        return max(height, width) > tile, self.at_once(min(tile, height) * min(tile, width))

    def segment(self, images: NDArray[np.uint8], probabilities: bool) -> Iterator[Band]:
        """Segments images [B, C, H, W], in bands of rows from the top. Images that are not cut are a single band.

        Raises:
            UserError: they do not fit into memory; names a smaller tile.
        """
        size, _, height, width = images.shape
        tile, overlap = self.layout(height, width)
        _, workers = self.plan(height, width)
        logits_of = functools.partial(self.logits, threads=self.cores // workers)
        pixels = torch.from_numpy(images)
        try:
            for top, logits in tiled_logits(logits_of, pixels, tile, overlap, self.field.alignment, workers):
                masks = self.task.predict(logits).to(torch.uint8).numpy()
                yield Band(top, masks, self.task.probabilities(logits).numpy() if probabilities else None)
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
                raise
            used = min(self.tile, max(height, width, math.isqrt(size * height * width)))
            smaller = max(used // 2, least_blended(self.overlap, self.field.alignment))
            way_out = f"set tile={smaller}" if smaller < used else "set a smaller overlap and tile"
            raise UserError(f"tile={self.tile}: a tile does not fit into memory; {way_out}") from error

    def logits(self, part: Tensor, threads: int) -> Tensor:
        """Logits float32 [B, K, h, w] of a part of images, uint8 [B, C, h, w]; both on the CPU.

        Sets the number of cores for torch in the thread that calls.
        """
        torch.set_num_threads(threads)
        with torch.autocast(self.device.type, self.number_type, enabled=self.number_type != torch.float32):
            unit = to_unit(part.to(self.device)).contiguous(memory_format=torch.channels_last)
            return self.net(unit).float().cpu()


@checked
def autocast_type(precision: NetPrecision, device_type: Literal["cpu", "cuda"]) -> torch.dtype:
    """The type in which the net multiplies; "auto", as a run may have stored it, is `auto_precision`.

    Raises:
        UserError: there is no such precision, or the device lacks it.
    """
    if precision == "16-mixed" and device_type == "cpu":
        raise UserError("precision=16-mixed: needs a GPU; bf16-mixed works on the CPU as well")
    chosen = auto_precision(device_type) if precision == "auto" else precision
    return {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}[chosen]
