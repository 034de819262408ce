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

    The notebook sends three blocks through one BatchNorm2d. While training that is harmless, since every block is
    normalised by its own batch. In eval mode its one set of running statistics is an average over three different
    layers, and the trained net is at chance. Here the three places share the scale and the shift, which is what makes
    13,681 parameters, and each has its own running statistics.

    The state dict has exactly the published keys, so either side loads the other's strictly. For one that the published
    module saved, use `load_published`. Other numbers of blocks go on counting: conv1, conv2, and so on.

    `blocks`, `residual` and `dilation` are for ablations and not of the notebook. The logits of a
    pixel depend on a square of the image with sides of `kernel_size + (kernel_size - 1) * sum(dilation)` pixels, 17 at the
    defaults.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits; 1 for a binary mask.
        channels: channels of each block.
        kernel_size: of all convolutions, the output's too, in pixels; odd.
        bias: whether the convolutions have a bias.
        norm: "shared" as above; "block" with a scale and a shift for each block as well (13,745 parameters);
            "none" without normalisation.
        blocks: how many blocks of convolution, ReLU and norm come before the output convolution.
        residual: from the second block on, what goes into a block is added to what comes out of its norm.
        dilation: of the blocks' convolutions, in pixels from one tap to the next: one number for all blocks, or one for
            each. The output convolution has none. Padding keeps the image's size.

    Raises:
        ValueError: a size below 1, an even kernel, an unknown norm, a list with another number of dilations than blocks.

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
        # Block by block: whoever limits how large a net may become then stops it at the first that is too many.
        for number, distance in zip(range(1, blocks + 1), dilations, strict=False):
            block_norm: nn.Module = nn.Identity() if norm == "none" else nn.BatchNorm2d(channels)
            if number == 1 and norm != "none":
                # The published name, and first, as there: `parameters()` then has the published order.
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
        self._share_scale_and_shift()
        self.register_load_state_dict_pre_hook(_refuse_different_scales)
        self.register_load_state_dict_post_hook(_share_again)

    def forward(self, image: Tensor) -> Tensor:
        """Images [B, C, H, W] to logits [B, K, H, W]."""
        require_image(image, self.in_channels)
        x = image
        for place, name in enumerate(self._block_names()):
            block = getattr(self, name)
            x = x + block(x) if self.residual and place else block(x)
        return self.out(x)

    def _block_names(self) -> list[str]:
        return [f"conv{number}" for number in range(1, self.blocks + 1)]

    def _share_scale_and_shift(self) -> None:
        if self.norm == "shared":
            for name in self._block_names()[1:]:
                block_norm = getattr(self, name)[2]
                block_norm.weight = self.bn.weight
                block_norm.bias = self.bn.bias

    def _apply(self, fn: Any, recurse: bool = True) -> "TextureCNN":
        # What moves a module may replace its parameters, each place on its own (to and from the meta device).
        super()._apply(fn, recurse)
        self._share_scale_and_shift()
        return self


def _refuse_different_scales(module: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    if not isinstance(module, TextureCNN) or module.norm != "shared":
        return
    for name in ("weight", "bias"):
        keys = [key for key in (f"{prefix}{block}.2.{name}" for block in module._block_names()) if key in state_dict]
        for one, other in itertools.pairwise(keys):
            if not _same_numbers(state_dict[one], state_dict[other]):
                raise ValueError(
                    f"{one} and {other} differ: this state dict is of a net with norm='block', not 'shared'"
                )


def _same_numbers(one: Tensor, other: Tensor) -> bool:
    # Weights of a diverged net are the same too: NaN equals NaN here.
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _share_again(module: nn.Module, _: Any) -> None:
    # load_state_dict(assign=True) gives every place a parameter of its own.
    assert isinstance(module, TextureCNN)
    module._share_scale_and_shift()


def load_published(net: TextureCNN, state_dict: Mapping[str, Tensor]) -> bool:
    """Loads a state dict that the published module saved, strictly, and says whether it is of use in eval mode.

    The published module has one set of running statistics for three layers, so all three places get the same. Estimate
    them from images before using the net in eval mode: `estimate_norm_statistics(net, batches)`.

    Args:
        net: of the same sizes as the published module, with norm "shared" (or "block", to train on from there), three
            blocks, not residual and not dilated.
        state_dict: as `torch.save(model.state_dict())` wrote it.

    Returns:
        True, with a UserWarning, where the three places have the same running statistics, so that they have to be
        estimated; False where each has its own, as in a state dict of this class.

    Raises:
        ValueError: the state dict is of a net with another number of blocks.
        RuntimeError: missing or unexpected names, or other sizes, as `load_state_dict` says it.
    """
    found = len({key.partition(".")[0] for key in state_dict if key.startswith("conv")})
    if found and found != net.blocks:
        raise ValueError(f"blocks={net.blocks}: this state dict is of a net with {found} blocks")
    net.load_state_dict(dict(state_dict), strict=True)
    if net.norm == "none" or net.blocks == 1:  # what no or one layer has is not shared
        return False
    shared = all(
        _same_numbers(state_dict[f"conv1.2.{name}"], state_dict[f"{block}.2.{name}"])
        for block in net._block_names()
        for name in ("running_mean", "running_var")
    )
    if shared:
        warnings.warn(
            "this state dict has one set of batch-norm statistics for all layers, which is of no use in eval mode; "
            "estimate them first with segsweep.nets.estimate_norm_statistics(net, batches)",
            UserWarning,
            stacklevel=2,
        )
    return shared
