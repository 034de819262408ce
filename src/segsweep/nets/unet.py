"""The U-Net report's U-Net: nine layers, two skip connections, and a head that reads every second pixel.

Shapes: B images, C channels in, K classes, H x W pixels.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from segsweep.instantiate import AtLeast1
from segsweep.nets.padding import crop, pad_to_multiple, require_image
from segsweep.nets.registry import register_net

Head = Literal["exact", "plain"]


@register_net
class UNet(nn.Module):
    """The published U-Net: 282,486 parameters at its defaults, in nine layers under their published names.

    ReLU follows each layer except upconv1, upconv2 and outconv. Two pairs of outputs are concatenated: upconv1 and conv2,
    upconv2 and conv1. All printed shapes follow from this. The shapes do not show which of the two comes
    first. Here it is the upsampled one, because the report names the result after it ("out4 shape after concatenation").
    For weights trained in the other order, swap the two halves of the input channels of conv4 and of conv5.

    The published head upsamples to 2H x 2W with upconv3 and reads every second pixel of the result with outconv. At these
    pixels, a transposed convolution of stride 2, kernel 3 and padding 1 uses only its centre tap, so `head="exact"`
    computes the same logits as two 1 x 1 convolutions at H x W. The other eight taps of upconv3 have gradient 0 in both
    forms, and the state dicts are the same. "exact" also composes upconv1 and its half of conv4, between which no ReLU
    stands (`down_of_up`). "plain" is the reference for the tests, and calls every layer, for those who read their outputs.

    Images of odd height or width are padded by repeating the last row or column, and the logits are cropped.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits: the number of classes, or 1 for a binary mask.
        widths: channels of conv1, conv2 and conv3.
        head_width: channels between upconv3 and outconv.
        head: "plain" as published, or "exact", the same function up to rounding in a fraction of the time and memory.

    Raises:
        ValueError: a size below 1, not three widths, or an unknown head.

    Source: U-Net report (docs/sources.md), network architecture.
    """

    stride = 2
    """Height and width are padded to multiples of this, in pixels."""
    reach = 7
    """Pixels on each side of a pixel that its logits depend on."""

    def __init__(
        self,
        in_channels: AtLeast1 = 3,
        out_channels: AtLeast1 = 6,
        widths: Annotated[Sequence[AtLeast1], Field(min_length=3, max_length=3)] = (32, 64, 128),
        head_width: AtLeast1 = 16,
        head: Head = "exact",
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.head = head
        first, second, third = widths

        def upconvolution(channels_in: int, channels_out: int) -> nn.ConvTranspose2d:
            return nn.ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=1)

        self.conv1 = nn.Conv2d(in_channels, first, 3, padding=1)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1)
        self.conv3 = nn.Conv2d(second, third, 3, stride=2, padding=1)
        self.upconv1 = upconvolution(third, second)
        self.conv4 = nn.Conv2d(2 * second, second, 3, stride=2, padding=1)
        self.upconv2 = upconvolution(second, first)
        self.conv5 = nn.Conv2d(2 * first, first, 3, padding=1)
        self.upconv3 = upconvolution(first, head_width)
        self.outconv = nn.Conv2d(head_width, out_channels, 1, stride=2)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws every weight from the Kaiming normal distribution for ReLU and sets every bias to 0."""
        for layer in self.children():
            assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Maps images [B, C, H, W] to logits [B, K, H, W]."""
        require_image(image, self.in_channels)
        height, width = image.shape[-2:]
        image = pad_to_multiple(image, self.stride)
        out1 = F.relu(self.conv1(image))
        out2 = F.relu(self.conv2(out1))
        out3 = F.relu(self.conv3(out2))
        if self.head == "plain":
            out4 = self.conv4(torch.cat([self.upconv1(out3), out2], dim=1))
        else:
            upsampled, skipped = self.conv4.weight.split([self.upconv1.out_channels, out2.shape[1]], dim=1)
            out4 = F.conv2d(out2, skipped, self.conv4.bias, stride=2, padding=1)
            out4 = out4 + down_of_up(out3, self.upconv1, upsampled)
        out4 = F.relu(out4)
        out5 = F.relu(self.conv5(torch.cat([self.upconv2(out4), out1], dim=1)))
        if self.head == "plain":
            logits = self.outconv(F.relu(self.upconv3(out5)))
        else:
            centre_tap = self.upconv3.weight[:, :, 1, 1].mT[:, :, None, None]
            out6 = F.relu(F.conv2d(out5, centre_tap, self.upconv3.bias))
            logits = F.conv2d(out6, self.outconv.weight, self.outconv.bias)
        return crop(logits, height, width)


def down_of_up(x: Tensor, up: nn.ConvTranspose2d, down: Tensor) -> Tensor:
    """`conv2d(up(x), down, stride=2, padding=1)` as one 3 x 3 convolution of `x`: the map of twice the size is not made.

    Along an axis, up adds W[k] x[i] to u[2i - 1 + k], and down sums V[m] u[2j - 1 + m]. So x[j + d] reaches y[j] through
    the pairs with m - k = 2d: the composed kernel is V correlated with W at stride 2.

    Args:
        x: [B, C, H, W].
        up: from C to M channels; kernel 3, stride 2, padding 1, output padding 1.
        down: weight [N, M, 3, 3].

    Returns:
        [B, N, H, W].
    """
    bias = up.bias
    assert bias is not None

    def composed(x: Tensor, up_taps: Tensor, down_taps: Tensor, padding: tuple[int, int]) -> Tensor:
        kernel = F.conv2d(down_taps, up_taps, stride=2, padding=(2 * padding[0], 2 * padding[1]))
        return F.conv2d(x, kernel, down_taps.sum((2, 3)) @ bias, padding=padding)

    result = composed(x, up.weight, down, (1, 1))
    # The first row and column contain V[0] u[-1], where down reads zeros of its padding; their corner contains it twice.
    row = composed(x[:, :, :1], up.weight[:, :, :1], down[:, :, :1], (0, 1))
    column = composed(x[..., :1], up.weight[..., :1], down[..., :1], (1, 0))
    corner = composed(x[:, :, :1, :1], up.weight[:, :, :1, :1], down[:, :, :1, :1], (0, 0))
    result[:, :, :1] -= row
    result[..., :1] -= column
    result[:, :, :1, :1] += corner
    return result
