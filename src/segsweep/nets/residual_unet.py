"""A small U-Net of residual blocks whose first layer is a bank of whitened cosine filters.

Shapes: B images, C channels in, K classes, N channels inside, H x W pixels.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from segsweep.instantiate import AtLeast1
from segsweep.nets.padding import KernelSize, crop, needs_padding, require_image, round_up
from segsweep.nets.registry import register_net

BlockNorm = Literal["none", "batch", "group"]
Stem = Literal["cosine", "convolution"]
Upsampling = Literal["nearest", "bilinear"]
Downsample = Literal[1, 2, 4, 8]
"""Powers of two only: with them the bilinear weights are exact, and so the same in a tile as in the whole image."""


def cosine_filters(size: int) -> Tensor:
    """Returns the two-dimensional cosine basis (DCT-II) of `size` x `size` patches, as convolution weights.

    Returns:
        float32 [size * size, 1, size, size]; orthonormal, and the first filter is the mean (times `size`).
    """
    if torch.get_default_device().type == "meta":  # needs no values, and computing on meta takes torch seconds
        return torch.empty(size * size, 1, size, size)
    position = torch.arange(size, dtype=torch.float64)
    cosines = torch.cos(math.pi / size * (position + 0.5) * position[:, None])
    cosines = cosines / cosines.norm(dim=1, keepdim=True)
    return torch.einsum("ay,bx->abyx", cosines, cosines).reshape(size * size, 1, size, size).float()


def extend(image: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Pads an image by point reflection, which continues value and slope, so that no edge appears at the border.

    Args:
        image: [B, C, H, W].
        left, right, top, bottom: columns and rows to add.

    Returns:
        [B, C, top + H + bottom, left + W + right]; contains the image bit for bit.
    """
    for dim, before, after in ((2, top, bottom), (3, left, right)):
        size = image.shape[dim]
        position = torch.arange(-before, size + after, device=image.device)
        border = position.clamp(0, size - 1)
        mirrored = (2 * border - position).clamp(0, size - 1)
        image = 2 * image.index_select(dim, border) - image.index_select(dim, mirrored)
    return image


@contextlib.contextmanager
def _exact_convolutions(device: torch.device) -> Iterator[None]:
    """Turns off autocast and cuDNN's TF32, which convolutions use by default."""
    with torch.autocast(device.type, enabled=False):
        if device.type != "cuda":
            yield
            return
        allowed = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = allowed


class CosineStem(nn.Module):
    """Reads `size` x `size` patches as cosine coefficients of mean 0 and variance 1.

    In a smooth image, the fine detail that tells two textures apart is thousands of times weaker than the coarse
    brightness, and an ordinary convolution gets gradients for it that are just as weak. This stem splits every channel
    into local cosine coefficients, scales each to mean 0 and variance 1, and applies a layer of `hidden` units to the
    coefficients of each patch, so all scales count from the first step. The scaling depends on the images and not on the
    weights, so its running statistics are right from the first epoch on. Everything up to the scaling is full float32,
    because bfloat16 and TF32 would round the fine detail away.

    `extend` pads the image. Zeros would make an edge stronger than any detail; repeated pixels would make one that is
    stronger than the weakest coefficients.
    """

    filters: Tensor

    def __init__(self, in_channels: int, channels: int, size: int, hidden: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.size = size
        coefficients = in_channels * size * size
        filters = cosine_filters(size).expand(in_channels, -1, -1, -1, -1).flatten(0, 1)
        self.register_buffer("filters", filters, persistent=False)
        # The default epsilon is hundreds of times the variance of the weakest coefficients and would hide them. This one
        # is a standard deviation of 1e-4, a fortieth of one step of an 8-bit image.
        self.norm = nn.BatchNorm2d(coefficients, affine=False, eps=1e-8)
        self.mix = nn.Sequential(nn.Conv2d(coefficients, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Maps images [B, C, H, W] to features [B, N, H, W]."""
        with _exact_convolutions(image.device):
            margin = self.size // 2
            extended = extend(image.float(), margin, margin, margin, margin)
            coefficients = self.norm(F.conv2d(extended, self.filters, groups=self.in_channels))
        return self.mix(coefficients)


class ResidualBlock(nn.Module):
    """Adds two rounds of norm, ReLU and convolution to its input; before training, up to a bias, it is the identity."""

    def __init__(self, channels: int, kernel_size: int, norm: BlockNorm) -> None:
        super().__init__()
        padding = kernel_size // 2
        first = nn.Conv2d(channels, channels, kernel_size, padding=padding, bias=norm == "none")
        last = nn.Conv2d(channels, channels, kernel_size, padding=padding)
        # An identity at the start allows a high learning rate without norms, with any number of blocks.
        nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
        nn.init.zeros_(last.weight)
        self.residual = nn.Sequential(
            norm_layer(norm, channels), nn.ReLU(), first, norm_layer(norm, channels), nn.ReLU(), last
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual(x)


@register_net
class ResidualUNet(nn.Module):
    """A U-Net with residual blocks and additive skips.

    Level i has `1 / (downsample * 2**i)` of the resolution and `min(channels * 2**i, max_channels)` channels. If height or
    width is not a multiple of `downsample * 2**(levels - 1)`, the image is padded at the right and at the bottom (see
    `extend`), and the logits are cropped.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits; 1 for a binary mask.
        channels: channels of the finest level.
        levels: number of resolutions, 1 (a plain residual net) to 12.
        max_channels: limit on the channels of coarse levels.
        blocks: residual blocks on each level, down and again up.
        kernel_size: kernel size of the residual blocks, in pixels; odd.
        norm: norm of the residual blocks: "none", which trained fastest in time and in steps; "batch"; or "group" in
            groups of about eight channels. The cosine stem always has a batch norm.
        stem: "cosine" (see `CosineStem`) or an ordinary "convolution".
        stem_kernel_size: kernel size of the stem, in pixels; odd.
        stem_channels: hidden units of the cosine stem.
        upsampling: how coarse levels are resized to the next finer one.
        downsample: 1, 2, 4 or 8; the finest level has 1 / downsample of an image's resolution. The stem reads the pixels of
            a square as channels, and the logits are resized bilinearly. At 2, a step computes a quarter, and a pixel sees
            twice as far.

    Raises:
        ValueError: a size below 1, an even kernel, an unknown option.
    """

    def __init__(
        self,
        in_channels: AtLeast1 = 1,
        out_channels: AtLeast1 = 1,
        channels: AtLeast1 = 16,
        levels: Annotated[int, Field(ge=1, le=12)] = 3,
        max_channels: AtLeast1 = 64,
        blocks: AtLeast1 = 1,
        kernel_size: KernelSize = 3,
        norm: BlockNorm = "none",
        stem: Stem = "cosine",
        stem_kernel_size: KernelSize = 7,
        stem_channels: AtLeast1 = 64,
        upsampling: Upsampling = "nearest",
        downsample: Downsample = 1,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.upsampling = upsampling
        self.downsample = downsample
        coarsest = 2 ** (levels - 1)
        self.stride = downsample * coarsest
        # Pixels of the finest level on each side of one that its logits depend on. A step at level i reaches 2**i of them.
        below = coarsest - 1  # 1 + 2 + 4 + ... over all levels but the coarsest
        encoder_and_decoder = (below + coarsest) + below
        resampling = below * (2 if upsampling == "bilinear" else 1)
        reach = stem_kernel_size // 2 + 2 * blocks * (kernel_size // 2) * encoder_and_decoder + resampling
        if downsample > 1:  # a pixel's logits lie between those of two squares, and the farther one begins so far away
            reach = (1 + reach) * downsample + downsample // 2 - 1
        self.reach = None if norm == "group" else reach  # a group norm sees the whole image
        widths = [min(channels * 2**level, max_channels) for level in range(levels)]

        def level_blocks(width: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(width, kernel_size, norm) for _ in range(blocks)))

        self.stem: nn.Module
        stem_inputs = in_channels * downsample**2
        if stem == "cosine":
            self.stem = CosineStem(stem_inputs, widths[0], stem_kernel_size, stem_channels)
        else:
            self.stem = nn.Conv2d(stem_inputs, widths[0], stem_kernel_size, padding=stem_kernel_size // 2)
        self.encoder = nn.ModuleList(level_blocks(width) for width in widths)
        steps = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in steps)
        self.decoder = nn.ModuleList(level_blocks(width) for width in widths[:-1])
        self.out = nn.Sequential(norm_layer(norm, widths[0]), nn.ReLU(), nn.Conv2d(widths[0], out_channels, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Maps images [B, C, H, W] to logits [B, K, H, W]."""
        require_image(image, self.in_channels)
        height, width = image.shape[-2:]
        if needs_padding(height, width, self.stride):
            bottom, right = (round_up(size, self.stride) - size for size in (height, width))
            image = extend(image, 0, right, 0, bottom)
        if self.downsample > 1:
            image = F.pixel_unshuffle(image, self.downsample)
        x = self.stem(image)
        skips = []
        for level, blocks in enumerate(self.encoder):
            if level:
                skips.append(x)
                x = self.down[level - 1](x)
            x = blocks(x)
        for skip, up, blocks in zip(reversed(skips), reversed(self.up), reversed(self.decoder), strict=True):
            x = blocks(skip + F.interpolate(up(x), size=skip.shape[-2:], mode=self.upsampling))
        logits = self.out(x)
        if self.downsample > 1:
            logits = F.interpolate(logits, scale_factor=self.downsample, mode="bilinear")
        return crop(logits, height, width)


def norm_layer(norm: BlockNorm, channels: int) -> nn.Module:
    """Makes a norm of `channels` channels; a group norm has groups of about eight, of equal size."""
    if norm == "none":
        return nn.Identity()
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 8)), channels)
