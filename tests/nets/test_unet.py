"""The report's U-Net: its layers, its printed shapes, and the equality of its two forms."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segsweep.nets import UNet
from segsweep.nets.padding import pad_to_multiple
from segsweep.nets.unet import down_of_up

LAYERS = ["conv1", "conv2", "conv3", "upconv1", "conv4", "upconv2", "conv5", "upconv3", "outconv"]

# The report prints these for [8, 3, 320, 320]: (channels, pixels) of each layer's output, and of the input of each layer
# that reads a concatenation.
PRINTED_OUTPUTS = {
    "conv1": (32, 320),
    "conv2": (64, 320),
    "conv3": (128, 160),
    "upconv1": (64, 320),
    "conv4": (64, 160),
    "upconv2": (32, 320),
    "conv5": (32, 320),
    "upconv3": (16, 640),
    "outconv": (6, 320),
}
PRINTED_CONCATENATIONS = {"conv4": (128, 320), "conv5": (64, 320)}


def twins(**arguments) -> tuple[UNet, UNet]:
    torch.manual_seed(0)
    exact, plain = UNet(**arguments, head="exact"), UNet(**arguments, head="plain")
    for layer in exact.children():
        nn.init.normal_(layer.bias, std=0.1)  # initial zeros would hide a forgotten bias
    plain.load_state_dict(exact.state_dict())
    return exact, plain


def test_layers_have_the_published_names_and_count():
    net = UNet()
    assert [name for name, _ in net.named_children()] == LAYERS
    assert list(net.state_dict()) == [f"{layer}.{kind}" for layer in LAYERS for kind in ("weight", "bias")]
    assert sum(parameter.numel() for parameter in net.parameters()) == 282_486


def test_every_printed_shape():
    outputs: dict[str, list[int]] = {}
    inputs: dict[str, list[int]] = {}
    with torch.device("meta"):
        net = UNet(head="plain")
        image = torch.empty(8, 3, 320, 320)
    for name, layer in net.named_children():

        def note(_: nn.Module, args: tuple[Tensor], output: Tensor, name: str = name) -> None:
            inputs[name], outputs[name] = list(args[0].shape), list(output.shape)

        layer.register_forward_hook(note)
    assert list(net(image).shape) == [8, 6, 320, 320]
    assert outputs == {name: [8, channels, size, size] for name, (channels, size) in PRINTED_OUTPUTS.items()}
    for name, (channels, size) in PRINTED_CONCATENATIONS.items():
        assert inputs[name] == [8, channels, size, size]


def test_skip_connections_follow_the_upsampled_channels():
    net = UNet(head="plain")
    seen: dict[str, Tensor] = {}
    for name in LAYERS:
        layer = getattr(net, name)
        layer.register_forward_hook(
            lambda _, args, output, name=name: seen.update({name: output, f"{name} in": args[0]})
        )
    net(torch.rand(1, 3, 8, 8))
    assert torch.equal(seen["conv4 in"], torch.cat([seen["upconv1"], seen["conv2"].relu()], dim=1))
    assert torch.equal(seen["conv5 in"], torch.cat([seen["upconv2"], seen["conv1"].relu()], dim=1))


@pytest.mark.parametrize("size", [(40, 56), (33, 47), (2, 2), (1, 1)])
def test_the_exact_form_is_the_plain_form(size: tuple[int, int]):
    # In single precision, rounding turns a ReLU on or off here and there, which changes a gradient by a whole term.
    exact, plain = (net.double() for net in twins())
    image = torch.rand(2, 3, *size, dtype=torch.float64)
    mask = torch.randint(0, 6, (2, *size))
    gradients = []
    logits = []
    for net in (exact, plain):
        net_image = image.clone().requires_grad_()
        logits.append(net(net_image))
        loss = F.cross_entropy(logits[-1], mask)
        gradients.append(torch.autograd.grad(loss, [net_image, *net.parameters()]))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-10, atol=1e-10)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_the_exact_form_is_the_plain_form_for_other_widths_and_one_channel():
    exact, plain = twins(in_channels=1, out_channels=1, widths=[4, 6, 10], head_width=3)
    image = torch.rand(2, 1, 12, 20)
    torch.testing.assert_close(exact(image), plain(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 1), (6, 7)])
def test_composed_convolutions_are_one_after_the_other_in_double_precision(size: tuple[int, int]):
    torch.manual_seed(0)
    up = nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1, dtype=torch.float64)
    x, down = torch.randn(2, 3, *size, dtype=torch.float64), torch.randn(5, 4, 3, 3, dtype=torch.float64)
    x.requires_grad_()
    down.requires_grad_()
    results = [F.conv2d(up(x), down, stride=2, padding=1), down_of_up(x, up, down)]
    towards = torch.randn_like(results[0])
    gradients = [torch.autograd.grad(result, [x, down, *up.parameters()], towards) for result in results]
    for one, other in zip([results[0], *gradients[0]], [results[1], *gradients[1]], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_even_sizes_are_not_padded():
    image = torch.rand(1, 3, 10, 14)
    assert pad_to_multiple(image, UNet.stride) is image


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (7, 8), (8, 5), (31, 17)])
def test_odd_sizes_are_padded_with_the_border_pixels(size: tuple[int, int]):
    net, _ = twins()
    image = torch.rand(2, 3, *size)
    height, width = size
    rows = torch.arange(height + height % 2).clamp(max=height - 1)
    columns = torch.arange(width + width % 2).clamp(max=width - 1)
    extended = image[:, :, rows][..., columns]
    logits = net(image)
    assert logits.shape == (2, 6, *size)
    assert torch.equal(logits, net(extended)[..., :height, :width])


def test_initialisation_is_kaiming():
    torch.manual_seed(0)
    for layer in UNet().children():
        fan_in = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.2)
        assert not layer.bias.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": (32, 64)}, r"widths=\(32, 64\): must have at least 3"),
        ({"widths": (32, 0, 64)}, r"widths\[1\]=0"),
        ({"in_channels": 0}, "in_channels=0"),
        ({"out_channels": 0}, "out_channels=0"),
        ({"head_width": 0}, "head_width=0"),
        ({"head": "fast"}, "head=fast.*'exact' or 'plain'"),
    ],
)
def test_wrong_value_is_named(arguments, message: str):
    with pytest.raises(ValueError, match=message):
        UNet(**arguments)
