"""The residual U-Net: its stem, its levels, its padding, and equal logits in eval and training mode."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segsweep.nets import ResidualUNet, estimate_norm_statistics
from segsweep.nets.residual_unet import CosineStem, ResidualBlock, cosine_filters, extend


def resolutions(net: ResidualUNet, image: Tensor) -> list[tuple[int, int]]:
    """Returns channels and height of every residual block's output, in the order of the forward pass."""
    seen: list[tuple[int, int]] = []
    for module in net.modules():
        if isinstance(module, ResidualBlock):
            module.register_forward_hook(lambda _, args, output: seen.append((output.shape[1], output.shape[2])))
    net(image)
    return seen


@pytest.mark.parametrize("size", [1, 3, 7])
def test_cosine_filters_are_an_orthonormal_basis_that_begins_with_the_mean(size: int):
    filters = cosine_filters(size).flatten(1)
    torch.testing.assert_close(filters @ filters.mT, torch.eye(size * size), rtol=0, atol=1e-6)
    torch.testing.assert_close(filters[0], torch.full((size * size,), 1 / size))


def test_stem_scales_every_coefficient_to_mean_0_and_variance_1():
    torch.manual_seed(0)
    stem = CosineStem(2, 4, 5, 8)
    smooth = torch.rand(4, 2, 40, 40)
    for _ in range(2):
        smooth = nn.functional.avg_pool2d(smooth, 3, stride=1)
    assert nn.functional.conv2d(smooth[:, :1], stem.filters[:25]).var((0, 2, 3)).min() < 1e-5  # torch's epsilon
    coefficients: list[Tensor] = []
    stem.norm.register_forward_hook(lambda _, args, output: coefficients.append(output))
    stem(smooth)
    assert coefficients[0].shape == (4, 2 * 25, 36, 36)
    torch.testing.assert_close(coefficients[0].mean((0, 2, 3)), torch.zeros(50), rtol=0, atol=1e-4)
    torch.testing.assert_close(coefficients[0].std((0, 2, 3)), torch.ones(50), rtol=1e-2, atol=0)


def test_stem_is_float32_up_to_the_scaling_under_autocast():
    stem = CosineStem(1, 4, 7, 8).eval()
    coefficients: list[Tensor] = []
    stem.norm.register_forward_hook(lambda _, args, output: coefficients.append(output))
    image = torch.rand(1, 1, 16, 16)
    stem(image)
    with torch.autocast("cpu", torch.bfloat16):
        stem(image)
    assert coefficients[1].dtype == torch.float32
    assert torch.equal(*coefficients)


def test_stem_takes_images_smaller_than_its_filters():
    assert CosineStem(1, 4, 7, 8).eval()(torch.rand(1, 1, 1, 2)).shape == (1, 4, 1, 2)


def test_resolution_halves_and_channels_double_up_to_the_maximum():
    net = ResidualUNet(channels=4, levels=4, max_channels=10)
    down = [(4, 32), (8, 16), (10, 8), (10, 4)]
    assert resolutions(net, torch.rand(1, 1, 32, 32)) == [*down, *reversed(down[:-1])]


def test_downsample_makes_the_finest_level_as_coarse():
    net = ResidualUNet(channels=4, levels=2, downsample=4)
    assert resolutions(net, torch.rand(1, 1, 32, 32)) == [(4, 8), (8, 4), (4, 8)]


def test_blocks_are_repeated_on_every_level():
    net = ResidualUNet(channels=4, levels=2, blocks=3)
    assert resolutions(net, torch.rand(1, 1, 8, 8)) == [(4, 8)] * 3 + [(8, 4)] * 3 + [(4, 8)] * 3


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_new_block_returns_its_input(norm):
    block = ResidualBlock(16, 3, norm)
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(block(x), x + block.residual[-1].bias[:, None, None])


def test_sizes_that_fit_are_not_padded(monkeypatch):
    monkeypatch.setattr("segsweep.nets.residual_unet.extend", lambda *_: pytest.fail("padded"))
    assert ResidualUNet(channels=4, levels=3, stem="convolution")(torch.rand(1, 1, 16, 12)).shape == (1, 1, 16, 12)


@pytest.mark.parametrize("size", [(1, 1), (13, 16), (16, 14), (11, 9)])
def test_other_sizes_are_padded_and_the_logits_cropped(size: tuple[int, int]):
    net = ResidualUNet(channels=4, levels=3).eval()
    image = torch.rand(2, 1, *size)
    height, width = size
    extended = extend(image, 0, -width % 4, 0, -height % 4)
    assert torch.equal(net(image), net(extended)[..., :height, :width])


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (2, 3)])
def test_extension_reflects_in_the_border_pixels(size: tuple[int, int]):
    image = torch.rand(2, 3, *size)
    left, right, top, bottom = 3, 1, 0, 4
    extended = extend(image, left, right, top, bottom)
    expected = image.double().numpy()
    height, width = size

    def reflected(values: np.ndarray, before: int, after: int) -> np.ndarray:
        last = len(values) - 1
        head = [2 * values[0] - values[min(step, last)] for step in range(before, 0, -1)]
        tail = [2 * values[-1] - values[max(last - step, 0)] for step in range(1, after + 1)]
        return np.array([*head, *values, *tail])

    expected = np.apply_along_axis(reflected, 2, expected, top, bottom)
    expected = np.apply_along_axis(reflected, 3, expected, left, right)
    np.testing.assert_allclose(extended.numpy(), expected, rtol=0, atol=1e-6)
    assert torch.equal(extended[:, :, top : top + height, left : left + width], image)


def test_extension_continues_a_ramp():
    ramp = torch.arange(6.0).expand(1, 1, 6, 6)
    assert torch.equal(extend(ramp, 2, 3, 1, 1), torch.arange(-2.0, 9.0).expand(1, 1, 8, 11))


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_eval_mode_with_the_statistics_of_the_batch_equals_training_mode(norm):
    torch.manual_seed(0)
    net = ResidualUNet(norm=norm)
    for block in net.modules():
        if isinstance(block, ResidualBlock):
            nn.init.normal_(block.residual[-1].weight, std=0.05)
    batch = torch.rand(8, 1, 32, 32)
    with torch.no_grad():
        expected = net(batch)
        estimate_norm_statistics(net, [batch])
        torch.testing.assert_close(net.eval()(batch), expected, rtol=1e-2, atol=1e-2)


def test_default_net_normalises_its_input_only():
    """Then running statistics depend on the images and not on the weights."""
    net = ResidualUNet()
    norms = [name for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d | nn.GroupNorm)]
    assert norms == ["stem.norm"]
    assert sum(parameter.numel() for parameter in net.parameters()) == 137_329


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 0}, "levels=0: must be at least 1"),
        ({"levels": 13}, "levels=13: must be at most 12"),
        ({"blocks": 0}, "blocks=0"),
        ({"channels": 0}, "channels=0"),
        ({"max_channels": 0}, "max_channels=0"),
        ({"stem_channels": 0}, "stem_channels=0"),
        ({"downsample": 3}, "downsample=3: must be 1, 2, 4 or 8"),
        ({"kernel_size": 2}, "kernel_size=2.*use 1 or 3"),
        ({"stem_kernel_size": 6}, "stem_kernel_size=6.*use 5 or 7"),
        ({"norm": "layer"}, "norm=layer.*'none', 'batch' or 'group'"),
        ({"stem": "fourier"}, "stem=fourier.*'cosine' or 'convolution'"),
        ({"upsampling": "bicubic"}, "upsampling=bicubic.*'nearest' or 'bilinear'"),
    ],
)
def test_wrong_value_is_named(arguments, message: str):
    with pytest.raises(ValueError, match=message):
        ResidualUNet(**arguments)
