"""Nets of MONAI (the extra `monai`) as nets of this project: any image size, plain arguments, checkpoints that load.

Shapes: B images, C channels in, K classes, H x W pixels.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from segsweep.arguments import AtLeast0, AtLeast1, From0Below1
from segsweep.nets.checks import require_image
from segsweep.nets.fitting import crop, extended
from segsweep.nets.registry import register_net

Norm = Literal["instance", "batch"]
Levels = Annotated[Sequence[AtLeast1], Field(min_length=2)]
"""A number for each level."""


class _MonaiNet(nn.Module):
    """A net of MONAI that computes on multiples of `stride` pixels, of which instance norms need two.

    Images of other sizes are extended by repeating the last row and column, and the logits cropped. `reach` is how many
    pixels on each side of a pixel its logits depend on; None is the whole image, where a norm is by the image at hand. A
    step at a level of stride s counts s pixels; the strides of all levels but the coarsest add up to `stride - 1`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, name: str, stride: int, reach: int | None, **arguments: Any
    ) -> None:
        super().__init__()
        self.in_channels, self.stride, self.reach = in_channels, stride, reach
        self.net: nn.Module = _class(name)(
            spatial_dims=2, in_channels=in_channels, out_channels=out_channels, **arguments
        )

    def forward(self, image: Tensor) -> Tensor:
        """Images [B, C, H, W] to logits [B, K, H, W]."""
        require_image(image, self.in_channels)
        logits = self.net(extended(image, self.stride, least=2 * self.stride))
        return crop(logits, *image.shape[-2:])


def _class(name: str) -> Any:
    try:
        from monai.networks import nets  # here, because it takes seconds
    except ImportError as error:
        raise ValueError(f"needs MONAI ({error}): pip install -e '.[monai]'") from error
    return getattr(nets, name)


@register_net
class MonaiUNet(_MonaiNet):
    """MONAI's `UNet`: residual units, strided convolutions down and transposed ones up (Kerfoot et al., 2018).

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits.
        channels: of each level; every further level has half the resolution.
        num_res_units: convolutions of a residual unit; 0: plain convolutions.
        norm: of every layer. Instance norm also in eval mode is by the image at hand.
        dropout: share of activations.

    Raises:
        ValueError: a size below 1, fewer than two levels, or MONAI is not installed.
    """

    def __init__(
        self, in_channels: AtLeast1 = 3, out_channels: AtLeast1 = 6, channels: Levels = (16, 32, 64, 128),
        num_res_units: AtLeast0 = 2, norm: Norm = "instance", dropout: From0Below1 = 0.0,
    ) -> None:  # fmt: skip
        steps = len(channels) - 1
        below, convolutions = 2**steps - 1, max(num_res_units, 1)
        # Down: one strided convolution and the others on the coarser level; up: a transposed one, and another in a unit.
        reach = below * (1 + 2 * (convolutions - 1)) + convolutions * 2**steps + below * (1 + (num_res_units > 0))
        super().__init__(
            in_channels, out_channels, "UNet", 2**steps, reach if norm == "batch" else None,
            channels=tuple(channels), strides=(2,) * steps, num_res_units=num_res_units, norm=norm, dropout=dropout,
        )  # fmt: skip


@register_net
class MonaiBasicUNet(_MonaiNet):
    """MONAI's `BasicUNet`: pairs of convolutions, max pooling, five levels (after Falk et al., 2019).

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits.
        features: of the five levels, and of the last layer.
        norm: of every layer. Instance norm also in eval mode is by the image at hand.
        dropout: share of activations.

    Raises:
        ValueError: a size below 1, other than six numbers, or MONAI is not installed.
    """

    def __init__(
        self, in_channels: AtLeast1 = 3, out_channels: AtLeast1 = 6,
        features: Annotated[Sequence[AtLeast1], Field(min_length=6, max_length=6)] = (16, 16, 32, 64, 128, 16),
        norm: Norm = "instance", dropout: From0Below1 = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(
            # Two convolutions on each of the levels 1, 2, 4, 8 and 16, and on the way up again; and the resampling.
            in_channels, out_channels, "BasicUNet", 16, 2 * 31 + 2 * 15 + 15 if norm == "batch" else None,
            features=tuple(features), norm=(norm, {"affine": True}), dropout=dropout,
        )  # fmt: skip


@register_net
class MonaiAttentionUnet(_MonaiNet):
    """MONAI's `AttentionUnet`: gates on the skips, batch norm and, where levels merge, instance norm (Oktay et al., 2018).

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits.
        channels: of each level; every further level has half the resolution.
        dropout: share of activations.

    Raises:
        ValueError: a size below 1, fewer than two levels, or MONAI is not installed.
    """

    def __init__(
        self,
        in_channels: AtLeast1 = 3,
        out_channels: AtLeast1 = 6,
        channels: Levels = (16, 32, 64, 128),
        dropout: From0Below1 = 0.0,
    ) -> None:
        steps = len(channels) - 1
        super().__init__(
            # MONAI merges the levels with an instance norm.
            in_channels, out_channels, "AttentionUnet", 2**steps, None,
            channels=tuple(channels), strides=(2,) * steps, dropout=dropout,
        )  # fmt: skip


@register_net
class MonaiSegResNet(_MonaiNet):
    """MONAI's `SegResNet`: residual blocks with group norm (Myronenko, 2018).

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits.
        init_filters: channels at full resolution; twice as many on each coarser level.
        blocks_down: residual blocks of each level, from the finest.
        groups: of the group norms; divides `init_filters`.

    Raises:
        ValueError: a size below 1, fewer than two levels, or MONAI is not installed.
    """

    def __init__(
        self, in_channels: AtLeast1 = 3, out_channels: AtLeast1 = 6, init_filters: AtLeast1 = 16,
        blocks_down: Levels = (1, 2, 2, 4), groups: AtLeast1 = 8,
    ) -> None:  # fmt: skip
        if math.gcd(init_filters, groups) != groups:
            raise ValueError(f"groups={groups}: must divide init_filters={init_filters}")
        steps = len(blocks_down) - 1
        super().__init__(
            in_channels, out_channels, "SegResNet", 2**steps, None, init_filters=init_filters,
            blocks_down=tuple(blocks_down), blocks_up=(1,) * steps, norm=("group", {"num_groups": groups}),
        )  # fmt: skip
