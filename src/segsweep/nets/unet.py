"""The U-Net report's U-Net: nine layers, two skip connections, a head that reads every second pixel.

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

    Every printed shape follows from ReLU after each layer except upconv1, upconv2 and outconv, and from these
    concatenations: upconv1's output with conv2's, upconv2's output with conv1's. Which of the two comes first cannot be
    told from the shapes; here it is the upsampled one, as the report names the result after it ("out4 shape after
    concatenation"). Weights trained in the other order need the two halves of the input channels of conv4 and of conv5
    swapped.

    The published head upsamples to 2H x 2W with upconv3 and reads every second pixel of the result with outconv. There,
    a transposed convolution of stride 2, kernel 3 and padding 1 is its centre tap alone, so `head="exact"` computes the
    same logits as two 1 x 1 convolutions at H x W. The other eight taps of upconv3 have gradient 0 in both forms. The
    state dict is the same too; "plain" is the reference that the tests compare with.

    Images of odd height or width are extended to even ones by repeating the last row or column, and the logits cropped.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits: the number of classes, or 1 for a binary mask.
        widths: channels of conv1, conv2 and conv3.
        head_width: channels between upconv3 and outconv.
        head: "exact" or "plain"; the same function of the same parameters, the first in a fraction of time and memory.

    Raises:
        ValueError: a size below 1, other than three widths, an unknown head.

    Source: U-Net report (docs/sources.md), network architecture.
    """

    stride = 2
    """What height and width are extended to multiples of, in pixels."""
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
        """Draws every weight anew from the Kaiming normal distribution for ReLU and sets every bias to 0."""
        for layer in self.children():
            assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Images [B, C, H, W] to logits [B, K, H, W]."""
        require_image(image, self.in_channels)
        height, width = image.shape[-2:]
        return crop(self._forward_even(pad_to_multiple(image, self.stride)), height, width)

    def _forward_even(self, image: Tensor) -> Tensor:
        out1 = F.relu(self.conv1(image))
        out2 = F.relu(self.conv2(out1))
        out3 = F.relu(self.conv3(out2))
        out4 = F.relu(self.conv4(torch.cat([self.upconv1(out3), out2], dim=1)))
        out5 = F.relu(self.conv5(torch.cat([self.upconv2(out4), out1], dim=1)))
        if self.head == "plain":
            return self.outconv(F.relu(self.upconv3(out5)))
        centre_tap = self.upconv3.weight[:, :, 1, 1].mT[:, :, None, None]
        out6 = F.relu(F.conv2d(out5, centre_tap, self.upconv3.bias))
        return F.conv2d(out6, self.outconv.weight, self.outconv.bias)
