"""A residual U-Net that first undoes the Gaussian filter of its images.

Shapes: B images, C channels in, K classes, H x W pixels.
"""

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from segsweep.gaussian_filter import toeplitz_gaussian
from segsweep.instantiate import AtLeast1, NotNegative
from segsweep.nets.padding import KernelSize, require_image
from segsweep.nets.registry import register_net
from segsweep.nets.residual_unet import ResidualUNet

FLOAT32_ROUNDING = 2e-8
"""Standard deviation of the rounding of a float32 number in [0, 1]."""
DETAIL = 0.2
"""Standard deviation of the unfiltered textures, as a share of the filtered image's range."""
SYMMETRIES = tuple(itertools.product(range(4), (False, True)))
"""Of the square: quarter turns, and whether a mirror image follows. The first changes nothing."""
WIDTHS = torch.arange(30, 400, dtype=torch.float64) / 100
"""Standard deviations, in pixels, between which `estimate_sigma` chooses."""


@dataclass(frozen=True)
class _Inverse:
    """The regularised inverse of a filter of images [H, W], float64.

    Args:
        rows, columns: the singular vectors of the filter along an axis, [H, H] and [W, W], left and right.
        gain: what each pair of singular values is multiplied by, [H, W].
    """

    rows: tuple[Tensor, Tensor]
    columns: tuple[Tensor, Tensor]
    gain: Tensor

    def __call__(self, image: Tensor) -> Tensor:
        coefficients = self.gain * (self.rows[0].mT @ image @ self.columns[0])
        return self.rows[1].mT @ coefficients @ self.columns[1]


@functools.lru_cache(maxsize=8)
def _inverse(height: int, width: int, sigma: float, rounding: float, device: torch.device) -> tuple[_Inverse, Tensor]:
    """The inverse, and the image [H, W] that it makes of a constant 1."""
    with torch.inference_mode(False):  # what is kept must also serve a later gradient
        decomposed = []
        for size in (height, width):
            matrix = toeplitz_gaussian(size, sigma).double() if sigma else torch.eye(size, dtype=torch.float64)
            decomposed.append([each.to(device) for each in torch.linalg.svd(matrix)])
        (left, of_rows, right), (top, of_columns, bottom) = decomposed
        passed = of_rows[:, None] * of_columns
        # Wiener's filter for white detail under white rounding.
        gain = passed / (passed**2 + (rounding / DETAIL) ** 2)
        inverse = _Inverse((left, right), (top, bottom), gain)
        return inverse, inverse(passed.new_ones(height, width))


def undo_filter(image: Tensor, sigma: float, rounding: float) -> Tensor:
    """Undoes the notebook's Gaussian filter, as far as the rounding of the image allows, and removes scale and offset.

    The filter pads with zeros, so an offset that was added to the filtered image is not constant once the filter is
    undone: it oscillates. It is removed by least squares, from what a constant image becomes.

    Args:
        image: [..., H, W], filtered as a whole by `toeplitz_gaussian(H, sigma)` and `toeplitz_gaussian(W, sigma)`.
        sigma: standard deviation of the filter, in pixels; 0: there was none.
        rounding: standard deviation of the image's rounding.

    Returns:
        float32 [..., H, W] with unit standard deviation.
    """
    inverse, offset = _inverse(*image.shape[-2:], sigma, rounding, image.device)
    undone = inverse(image.double())  # autocast and TF32 leave float64 alone
    share = (undone * offset).sum((-2, -1), keepdim=True) / (offset * offset).sum()
    detail = undone - share * offset
    spread = detail.square().mean((-2, -1), keepdim=True).sqrt()
    return (detail / spread.clamp_min(1e-12)).float()


def estimate_sigma(images: Tensor, rounding: float) -> float:
    """Estimates the width of the Gaussian filter that images went through, from their mean power spectrum.

    Divides the spectrum by that of each width in `WIDTHS` and returns the width that makes it flattest. It takes the finest
    detail for white noise; at even sizes for the mean of 2 x 2 of its pixels, the finest that these textures can be.
    Frequencies where rounding hides the detail do not count, nor do low ones, where coarser textures have power too.

    Args:
        images: [..., H, W], filtered as `undo_filter` says.
        rounding: standard deviation of the images' rounding.

    Returns:
        The standard deviation in pixels; 0 if no detail stands out from the rounding.
    """
    sides = images.shape[-2:]
    detail = images.detach().double().cpu().reshape(-1, *sides)
    # The power spans 14 decades: a window with higher sidelobes would spread the coarse brightness over the fine detail.
    window = torch.outer(*(torch.hann_window(side, periodic=False, dtype=torch.float64) ** 4 for side in sides))
    detail = detail - detail.mean((-2, -1), keepdim=True)
    power = torch.fft.fft2(detail * window).abs().square().mean(0)
    rows, columns = (2 * math.pi * torch.fft.fftfreq(side, dtype=torch.float64) for side in sides)
    radius = torch.hypot(rows[:, None], columns)
    # At pi, the kernel of an even size is 0.
    chosen = (power > 30 * rounding**2 * window.square().sum()) & (rows.abs()[:, None] < 3) & (columns.abs() < 3)
    if int(chosen.sum()) < 20:
        return 0.0
    chosen &= radius > 0.4 * radius[chosen].quantile(0.99)

    def log_response(side: int, sigma: Tensor) -> Tensor:
        kernel = toeplitz_gaussian(side, sigma).double()[..., side // 2, :]
        return 2 * torch.fft.fft(kernel).abs().clamp_min(1e-30).log()

    finest = torch.tensor([0.01])
    by_side = [log_response(side, WIDTHS) + log_response(side, finest) for side in sides]
    level = power.log()
    flatness = [(level - row[:, None] - column)[chosen].var() for row, column in zip(*by_side, strict=True)]
    return float(WIDTHS[torch.stack(flatness).argmin()])


class EnergyStem(nn.Module):
    """Filters an image, and mixes the responses and their squares.

    Bayes' rule for Gaussian textures is a quadratic form of the pixels, so the squares save the net from composing them.
    """

    def __init__(self, in_channels: int, channels: int, size: int, filters: int) -> None:
        super().__init__()
        self.filters = nn.Conv2d(in_channels, filters, size, padding=size // 2)
        self.mix = nn.Conv2d(2 * filters, channels, 1)
        # White noise of variance 1 gives responses of variance 1.
        nn.init.normal_(self.filters.weight, std=1 / math.sqrt(in_channels * size**2))
        assert self.filters.bias is not None
        nn.init.zeros_(self.filters.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Maps images [B, C, H, W] to features [B, N, H, W]."""
        responses = self.filters(image)
        return self.mix(torch.cat([responses, responses.square() - 1], 1))


@register_net
class InverseFilterUNet(ResidualUNet):
    """Undoes the last Gaussian filter of an image (see `undo_filter`); `EnergyStem` and a `ResidualUNet` do the rest.

    The filter makes the fine detail, which tells two textures apart, thousands of times weaker than the coarse brightness.
    The inverse belongs to whole images: in a tile it is wrong, so `reach` is None.

    Undone textures look the same however they are turned or mirrored. So in eval mode, logits are the mean over the eight
    symmetries of the square, which takes eight times as long.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits; 1 for a binary mask.
        smoothing: standard deviation of the filter, in pixels; 0: there was none. None: estimated from the first batch
            of the training (see `estimate_sigma`) and kept with the weights.
        bits: bits of an image's pixels if they were rounded, as in a PNG; None: float32.
        channels: channels at full resolution.
        levels: number of resolutions, 1 to 12.
        max_channels: limit on the channels of coarse levels.
        blocks: residual blocks on each level, down and again up.
        kernel_size: kernel size of the residual blocks, in pixels; odd.
        stem_kernel_size: kernel size of the stem, in pixels; odd.
        stem_filters: filters of the stem.
        symmetries: False leaves out the mean over the symmetries.

    Raises:
        ValueError: a size below 1, an even kernel.
    """

    estimated: Tensor

    def __init__(
        self,
        in_channels: AtLeast1 = 1,
        out_channels: AtLeast1 = 1,
        smoothing: NotNegative | None = 1.0,
        bits: Annotated[int, Field(ge=1, le=16)] | None = None,
        channels: AtLeast1 = 16,
        levels: Annotated[int, Field(ge=1, le=12)] = 3,
        max_channels: AtLeast1 = 64,
        blocks: AtLeast1 = 2,
        kernel_size: KernelSize = 3,
        stem_kernel_size: KernelSize = 5,
        stem_filters: AtLeast1 = 32,
        symmetries: bool = True,
    ) -> None:
        super().__init__(
            in_channels, out_channels, channels, levels, max_channels, blocks, kernel_size, stem="convolution"
        )
        self.stem = EnergyStem(in_channels, min(channels, max_channels), stem_kernel_size, stem_filters)
        self.reach = None
        self.smoothing = smoothing
        self.symmetries = symmetries
        self.rounding = FLOAT32_ROUNDING if bits is None else 1 / (2**bits - 1) / math.sqrt(12)
        self.register_buffer("estimated", torch.zeros((), dtype=torch.float64))

    def forward(self, image: Tensor) -> Tensor:
        """Maps images [B, C, H, W] to logits [B, K, H, W]."""
        require_image(image, self.in_channels)
        if torch.compiler.is_exporting():
            raise ValueError("the inverse of a filter belongs to one image size")
        sigma = self.smoothing
        if sigma is None:
            if self.training and not self.estimated:
                self.estimated.fill_(estimate_sigma(image, self.rounding))
            sigma = float(self.estimated)  # 0 before the first batch
        detail = undo_filter(image, sigma, self.rounding)
        symmetries = SYMMETRIES if self.symmetries and not self.training else SYMMETRIES[:1]
        seen = []
        for quarters, mirrored in symmetries:
            turned = detail.rot90(quarters, (-2, -1))
            logits = super().forward(turned.flip(-1)).flip(-1) if mirrored else super().forward(turned)
            seen.append(logits.rot90(-quarters, (-2, -1)))
        return torch.stack(seen).mean(0)
