"""The texture notebook's network: three convolutions, one batch norm, one output convolution.

Shapes: B images, C channels in, K channels out, H x W pixels.
"""

import itertools
import warnings
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from segsweep.nets.checks import require_image, require_odd, require_positive
from segsweep.nets.registry import register_net

Norm = Literal["shared", "block", "none"]

_BLOCKS = ("conv1", "conv2", "conv3")


@register_net
class TextureCNN(nn.Module):
    """The published CNN: 13,681 parameters at its defaults, under their published names.

    The notebook sends three blocks through one BatchNorm2d. While training that is harmless, since every block is
    normalised by its own batch. In eval mode its one set of running statistics is an average over three different
    layers, and the trained net is at chance. Here the three places share the scale and the shift, which is what makes
    13,681 parameters, and each has its own running statistics.

    The state dict has exactly the published keys, so either side loads the other's strictly. For one that the published
    module saved, use `load_published`.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits; 1 for a binary mask.
        channels: channels of each of the three blocks.
        kernel_size: of all four convolutions, in pixels; odd.
        bias: whether the convolutions have a bias.
        norm: "shared" as above; "block" with a scale and a shift for each block as well (13,745 parameters);
            "none" without normalisation.

    Raises:
        ValueError: a size below 1, an even kernel, an unknown norm.

    Source: texture notebook (docs/sources.md), section 3.3.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        channels: int = 16,
        kernel_size: int = 5,
        bias: bool = True,
        norm: Norm = "shared",
    ) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, out_channels=out_channels, channels=channels)
        require_odd("kernel_size", kernel_size)
        if norm not in get_args(Norm):
            raise ValueError(f"norm={norm!r}: must be one of {', '.join(get_args(Norm))}")
        self.in_channels = in_channels
        self.norm = norm
        norms = [nn.Identity() if norm == "none" else nn.BatchNorm2d(channels) for _ in _BLOCKS]
        if norm != "none":
            # The published name, and first, as there: `parameters()` then has the published order. It is conv1's norm.
            self.bn = norms[0]

        def block(block_channels: int, block_norm: nn.Module) -> nn.Sequential:
            convolution = nn.Conv2d(block_channels, channels, kernel_size, padding=kernel_size // 2, bias=bias)
            return nn.Sequential(convolution, nn.ReLU(), block_norm)

        self.conv1 = block(in_channels, norms[0])
        self.conv2 = block(channels, norms[1])
        self.conv3 = block(channels, norms[2])
        self.out = nn.Conv2d(channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        self._share_scale_and_shift()
        self.register_load_state_dict_pre_hook(_refuse_different_scales)
        self.register_load_state_dict_post_hook(_share_again)

    def forward(self, image: Tensor) -> Tensor:
        """Images [B, C, H, W] to logits [B, K, H, W]."""
        require_image(image, self.in_channels)
        return self.out(self.conv3(self.conv2(self.conv1(image))))

    def _share_scale_and_shift(self) -> None:
        if self.norm == "shared":
            for block in (self.conv2, self.conv3):
                block[2].weight = self.bn.weight
                block[2].bias = self.bn.bias

    def _apply(self, fn: Any, recurse: bool = True) -> "TextureCNN":
        # What moves a module may replace its parameters, each place on its own (to and from the meta device).
        super()._apply(fn, recurse)
        self._share_scale_and_shift()
        return self


def _refuse_different_scales(module: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    if not isinstance(module, TextureCNN) or module.norm != "shared":
        return
    for name in ("weight", "bias"):
        keys = [key for key in (f"{prefix}{block}.2.{name}" for block in _BLOCKS) if key in state_dict]
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
        net: of the same sizes as the published module, with norm "shared" (or "block", to train on from there).
        state_dict: as `torch.save(model.state_dict())` wrote it.

    Returns:
        True, with a UserWarning, where the three places have the same running statistics, so that they have to be
        estimated; False where each has its own, as in a state dict of this class.

    Raises:
        RuntimeError: missing or unexpected names, or other sizes, as `load_state_dict` says it.
    """
    net.load_state_dict(dict(state_dict), strict=True)
    if net.norm == "none":
        return False
    shared = all(
        _same_numbers(state_dict[f"conv1.2.{name}"], state_dict[f"{block}.2.{name}"])
        for block in _BLOCKS
        for name in ("running_mean", "running_var")
    )
    if shared:
        warnings.warn(
            "this state dict has one set of batch-norm statistics for three layers, which is of no use in eval mode; "
            "estimate them first with segsweep.nets.estimate_norm_statistics(net, batches)",
            UserWarning,
            stacklevel=2,
        )
    return shared
