"""MONAI's nets (the extra `monai`) for images of any size, built from plain arguments.

Shapes: B images, C channels in, K classes, H x W pixels.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field
from torch import Tensor, nn

from segsweep.instantiate import AtLeast0, AtLeast1, From0Below1, check_arguments
from segsweep.nets.padding import crop, pad_to_multiple, require_image
from segsweep.nets.registry import register_net

Norm = Literal["instance", "batch"]
Levels = Annotated[Sequence[AtLeast1], Field(min_length=2)]
"""A number for each level, from full resolution down; each level halves the resolution."""
Features = Annotated[Sequence[AtLeast1], Field(min_length=6, max_length=6)]
"""Channels of the five levels and of the last layer."""


class _View(NamedTuple):
    """Sizes of a net in pixels. A step at a level of stride s adds s pixels to `reach`."""

    stride: int
    """Height and width must be multiples of this."""
    reach: int | None
    """Pixels on each side of a pixel that its logits depend on; None for the whole image, as with an instance norm."""


def _unet(
    channels: Levels = (16, 32, 64, 128),
    num_res_units: AtLeast0 = 2,
    norm: Norm = "instance",
    dropout: From0Below1 = 0.0,
) -> tuple[_View, dict[str, Any]]:
    steps = len(channels) - 1
    below, convolutions = 2**steps - 1, max(num_res_units, 1)
    # Down: a strided convolution, then the others at the coarser level. Up: a transposed one, and another in a unit.
    reach = below * (1 + 2 * (convolutions - 1)) + convolutions * 2**steps + below * (1 + (num_res_units > 0))
    arguments = {"channels": channels, "strides": (2,) * steps, "num_res_units": num_res_units}
    return _View(2**steps, reach if norm == "batch" else None), arguments | {"norm": norm, "dropout": dropout}


def _basic_unet(
    features: Features = (16, 16, 32, 64, 128, 16), norm: Norm = "instance", dropout: From0Below1 = 0.0
) -> tuple[_View, dict[str, Any]]:
    # Two convolutions at the strides 1, 2, 4, 8 and 16, two on the way up at 1 to 8, and the resampling.
    reach = 2 * 31 + 2 * 15 + 15 if norm == "batch" else None
    return _View(16, reach), {"features": features, "norm": (norm, {"affine": True}), "dropout": dropout}


def _attention_unet(channels: Levels = (16, 32, 64, 128), dropout: From0Below1 = 0.0) -> tuple[_View, dict[str, Any]]:
    steps = len(channels) - 1
    # MONAI merges the levels with an instance norm, which sees the whole image.
    return _View(2**steps, None), {"channels": channels, "strides": (2,) * steps, "dropout": dropout}


def _segresnet(
    init_filters: AtLeast1 = 16, blocks_down: Levels = (1, 2, 2, 4), groups: AtLeast1 = 8
) -> tuple[_View, dict[str, Any]]:
    if init_filters % groups:
        raise ValueError(f"groups={groups}: must divide init_filters={init_filters}")
    steps = len(blocks_down) - 1
    arguments = {"init_filters": init_filters, "blocks_down": blocks_down, "blocks_up": (1,) * steps}
    return _View(2**steps, None), arguments | {"norm": ("group", {"num_groups": groups})}


ARCHITECTURES: dict[str, Callable[..., tuple[_View, dict[str, Any]]]] = {
    "UNet": _unet, "BasicUNet": _basic_unet, "AttentionUnet": _attention_unet, "SegResNet": _segresnet,
}  # fmt: skip
"""By MONAI's name: turns the settings of a net into its sizes and the arguments of MONAI's class."""


@register_net
class MonaiNet(nn.Module):
    """A net of MONAI.

    It computes on multiples of `stride` pixels, and on at least `2 * stride`, because an instance norm needs more than one
    value. Other images are padded by repeating the last row and column, and the logits are cropped.

    - "UNet": residual units, strided convolutions down and transposed ones up (Kerfoot et al., 2018). Settings: `channels`
      of each level, `num_res_units` convolutions of a residual unit (0: plain convolutions), `norm`, `dropout`.
    - "BasicUNet": pairs of convolutions, max pooling, five levels (after Falk et al., 2019). Settings: `features`, the
      channels of the five levels and of the last layer, `norm`, `dropout`.
    - "AttentionUnet": gates on the skips, batch norm, and instance norm at each merge of two levels (Oktay et al., 2018).
      Settings: `channels` of each level, `dropout`.
    - "SegResNet": residual blocks with group norm (Myronenko, 2018). Settings: `init_filters`, the channels at full
      resolution, which double with each coarser level; `blocks_down` of each level from the finest; `groups` of the
      norms, a divisor of `init_filters`.

    `norm` is "batch" or "instance"; an instance norm uses the statistics of the image itself, in eval mode too.

    Args:
        architecture: MONAI's name of the net.
        in_channels: channels of the image.
        out_channels: channels of the logits.
        settings: the architecture's settings, see above.

    Raises:
        ValueError: an unknown setting, one outside its range, or MONAI is not installed.
    """

    def __init__(
        self,
        architecture: Literal["UNet", "BasicUNet", "AttentionUnet", "SegResNet"],
        in_channels: AtLeast1 = 3,
        out_channels: AtLeast1 = 6,
        **settings: Any,
    ) -> None:
        super().__init__()
        check_arguments(ARCHITECTURES[architecture], settings)
        self.in_channels = in_channels
        (self.stride, self.reach), arguments = ARCHITECTURES[architecture](**settings)
        try:
            from monai.networks import nets  # here, because the import takes seconds
        except ImportError as error:
            raise ValueError(f"needs MONAI ({error}): pip install monai") from error
        self.net: nn.Module = getattr(nets, architecture)(
            spatial_dims=2, in_channels=in_channels, out_channels=out_channels, **arguments
        )

    def forward(self, image: Tensor) -> Tensor:
        """Maps images [B, C, H, W] to logits [B, K, H, W]."""
        require_image(image, self.in_channels)
        logits = self.net(pad_to_multiple(image, self.stride, least=2 * self.stride))
        return crop(logits, *image.shape[-2:])
