"""The texture notebook's network: three convolutions, one batch norm, one output convolution.

Shapes: B images, C channels in, K channels out, H x W pixels.
"""

import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from segsweep.instantiate import AtLeast1
from segsweep.nets.padding import KernelSize, require_image
from segsweep.nets.registry import register_net

Norm = Literal["shared", "block", "none"]


@register_net
class TextureCNN(nn.Module):
    """The published CNN: 13,681 parameters at its defaults, under their published names.

    The notebook's three blocks use one BatchNorm2d. In training this is harmless, because every block is normalised with
    the statistics of its own batch. In eval mode the running statistics are an average over three different layers, and
    the trained net is no better than chance. Here the three places share scale and shift, as the 13,681 parameters require,
    but each has its own running statistics.

    The state dict has exactly the published keys, so each module loads the other's strictly. Use `load_published` for one
    that the published module saved. The blocks are named conv1, conv2, and so on.

    `blocks`, `residual` and `dilation` are for ablations; the notebook does not have them. The logits of a pixel depend on
    a square of the image with sides of `kernel_size + (kernel_size - 1) * sum(dilation)` pixels, 17 at the defaults.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits; 1 for a binary mask.
        channels: channels of each block.
        kernel_size: kernel size of all convolutions, the output's too, in pixels; odd.
        bias: whether the convolutions have a bias.
        norm: "shared" as above; "block" gives each block a scale and shift of its own (13,745 parameters); "none".
        blocks: number of blocks of convolution, ReLU and norm before the output convolution.
        residual: adds the input of each block to its output, from the second block on.
        dilation: pixels from one tap of the blocks' convolutions to the next: one number, or a list with one for each
            block. The output convolution is not dilated. Padding keeps the image's size.

    Raises:
        ValueError: a size below 1, an even kernel, an unknown norm, or a list of dilations that does not fit `blocks`.

    Source: texture notebook (docs/sources.md), section 3.3.
    """

    def __init__(
        self,
        in_channels: AtLeast1 = 1,
        out_channels: AtLeast1 = 1,
        channels: AtLeast1 = 16,
        kernel_size: KernelSize = 5,
        bias: bool = True,
        norm: Norm = "shared",
        blocks: AtLeast1 = 3,
        residual: bool = False,
        dilation: AtLeast1 | Sequence[AtLeast1] = 1,
    ) -> None:
        super().__init__()
        if isinstance(dilation, Sequence) and len(dilation) != blocks:
            raise ValueError(f"dilation={list(dilation)}: must be one number, or {blocks}, one for each block")
        dilations: Iterable[int] = dilation if isinstance(dilation, Sequence) else itertools.repeat(dilation)
        self.reach = kernel_size // 2 * (1 + (sum(dilation) if isinstance(dilation, Sequence) else blocks * dilation))
        self.in_channels = in_channels
        self.norm = norm
        self.blocks = blocks
        self.residual = residual
        # Block by block, so that `registry.build_net_for` stops at the first block that is too many.
        for number, distance in zip(range(1, blocks + 1), dilations, strict=False):
            block_norm: nn.Module = nn.Identity() if norm == "none" else nn.BatchNorm2d(channels)
            if number == 1 and norm != "none":
                # First, as in the published module, so that `parameters()` has the published order.
                self.bn = block_norm
            convolution = nn.Conv2d(
                in_channels if number == 1 else channels,
                channels,
                kernel_size,
                padding=kernel_size // 2 * distance,
                dilation=distance,
                bias=bias,
            )
            self.add_module(f"conv{number}", nn.Sequential(convolution, nn.ReLU(), block_norm))
        self.out = nn.Conv2d(channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        self.share_scale_and_shift()
        self.register_load_state_dict_pre_hook(_refuse_different_scales)
        # load_state_dict(assign=True) replaces the parameters of each place separately.
        self.register_load_state_dict_post_hook(TextureCNN.share_scale_and_shift)

    def forward(self, image: Tensor) -> Tensor:
        """Maps images [B, C, H, W] to logits [B, K, H, W]."""
        require_image(image, self.in_channels)
        x = image
        for place, name in enumerate(self.block_names()):
            block = getattr(self, name)
            x = x + block(x) if self.residual and place else block(x)
        return self.out(x)

    def block_names(self) -> list[str]:
        """Lists conv1, conv2, ..."""
        return [f"conv{number}" for number in range(1, self.blocks + 1)]

    def share_scale_and_shift(self, *_: Any) -> None:
        """With norm "shared", makes every block use the scale and shift of `bn`."""
        if self.norm == "shared":
            for name in self.block_names()[1:]:
                block_norm = getattr(self, name)[2]
                block_norm.weight = self.bn.weight
                block_norm.bias = self.bn.bias

    def _apply(self, fn: Any, recurse: bool = True) -> "TextureCNN":
        # Moving a module (to and from the meta device) may replace the parameters of each place separately.
        super()._apply(fn, recurse)
        self.share_scale_and_shift()
        return self


def _refuse_different_scales(module: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    if not isinstance(module, TextureCNN) or module.norm != "shared":
        return
    for name in ("weight", "bias"):
        keys = [key for key in (f"{prefix}{block}.2.{name}" for block in module.block_names()) if key in state_dict]
        for one, other in itertools.pairwise(keys):
            if not _same_numbers(state_dict[one], state_dict[other]):
                raise ValueError(
                    f"{one} and {other} differ: this state dict is of a net with norm='block', not 'shared'"
                )


def _same_numbers(one: Tensor, other: Tensor) -> bool:
    # NaN equals NaN here, so that weights of a diverged net load.
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def load_published(net: TextureCNN, state_dict: Mapping[str, Tensor]) -> bool:
    """Strictly loads a state dict that the published module saved, and checks its running statistics.

    The published module has one set of running statistics for three layers, so all three places get the same. Before
    using the net in eval mode, estimate them from images with `estimate_norm_statistics(net, batches)`.

    Args:
        net: a net of the published sizes: three blocks, not residual, not dilated, and norm "shared" (or "block", to
            continue training with it).
        state_dict: as saved by `torch.save(model.state_dict())`.

    Returns:
        True, with a UserWarning, if the statistics must be estimated because the three places have the same; False if
        each place has its own, as in a state dict of this class.

    Raises:
        ValueError: the state dict has another number of blocks.
        RuntimeError: missing or unexpected names, or other sizes, from `load_state_dict`.
    """
    found = len({key.partition(".")[0] for key in state_dict if key.startswith("conv")})
    if found and found != net.blocks:
        raise ValueError(f"blocks={net.blocks}: this state dict is of a net with {found} blocks")
    net.load_state_dict(dict(state_dict), strict=True)
    if net.norm == "none" or net.blocks == 1:  # nothing is shared
        return False
    shared = all(
        _same_numbers(state_dict[f"conv1.2.{name}"], state_dict[f"{block}.2.{name}"])
        for block in net.block_names()
        for name in ("running_mean", "running_var")
    )
    if shared:
        warnings.warn(
            "this state dict has the same batch-norm statistics for all layers, which are wrong in eval mode; "
            "estimate them first with segsweep.nets.estimate_norm_statistics(net, batches)",
            UserWarning,
            stacklevel=2,
        )
    return shared
