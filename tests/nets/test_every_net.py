"""Properties that every registered net must have."""

import copy
import importlib.util
import io
import pickle

import pytest
import torch
from torch import Tensor, nn

from segsweep.nets import NETS, build_net, estimate_norm_statistics

# Settings that together reach every branch of a net.
VARIANTS: dict[str, list[dict]] = {
    "segsweep.nets.TextureCNN": [
        {},
        {"blocks": 4, "residual": True, "dilation": [1, 2, 1, 3]},
        {"norm": "block"},
        {"norm": "none", "bias": False},
        {"blocks": 1, "kernel_size": 1},
        {"blocks": 2, "residual": True, "norm": "block", "dilation": 2},
    ],
    "segsweep.nets.UNet": [{"widths": [8, 8, 16]}, {"widths": [8, 8, 16], "head": "plain"}],
    "segsweep.nets.ResidualUNet": [
        {},
        {"norm": "group", "upsampling": "bilinear"},
        {"norm": "batch", "stem_kernel_size": 3, "kernel_size": 1},
        {"stem": "convolution", "levels": 1},
        {"channels": 4, "levels": 4, "blocks": 2, "max_channels": 12},
        {"stem": "convolution", "levels": 2, "downsample": 2},
        {"levels": 2, "downsample": 4},
    ],
    "segsweep.nets.InverseFilterUNet": [{"channels": 4}, {"channels": 4, "smoothing": 0.7, "bits": 8}],
}
if importlib.util.find_spec("monai") is not None:
    VARIANTS["segsweep.nets.MonaiNet"] = [
        {"architecture": "UNet", "channels": [4, 8, 8]},
        {"architecture": "UNet", "channels": [4, 8], "num_res_units": 0, "norm": "batch"},
        {"architecture": "BasicUNet", "features": [4, 4, 4, 8, 8, 4]},
        {"architecture": "BasicUNet", "features": [4, 4, 4, 8, 8, 4], "norm": "batch"},
        {"architecture": "AttentionUnet", "channels": [4, 8]},
        {"architecture": "SegResNet", "init_filters": 4, "blocks_down": [1, 1], "groups": 2},
    ]
CASES = [(target, variant) for target in sorted(VARIANTS) for variant in VARIANTS[target]]

every_net = pytest.mark.parametrize(("target", "variant"), CASES, ids=[f"{t.split('.')[-1]}-{v}" for t, v in CASES])


def build(target: str, variant: dict, in_channels: int = 1, out_channels: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return build_net(target, {**variant, "in_channels": in_channels, "out_channels": out_channels})


def trained(net: nn.Module, in_channels: int = 1) -> nn.Module:
    """Changes every weight, bias and statistic, as a short training would."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    estimate_norm_statistics(net, [images(4, in_channels) for _ in range(2)])
    return net.eval()


def images(count: int, channels: int = 1, height: int = 24, width: int = 32) -> Tensor:
    return torch.rand(count, channels, height, width)


@every_net
@pytest.mark.parametrize(("in_channels", "out_channels"), [(1, 1), (3, 6)])
def test_gives_float_logits_for_every_pixel(target: str, variant: dict, in_channels: int, out_channels: int):
    net = build(target, variant, in_channels, out_channels)
    logits = net(images(2, in_channels))
    assert logits.shape == (2, out_channels, 24, 32)
    assert logits.dtype == torch.float32


@every_net
def test_logits_are_linear_in_the_last_layer(target: str, variant: dict):
    """Then the net applies neither a sigmoid nor a softmax."""
    if variant.get("architecture") == "UNet":
        pytest.skip("its last unit adds its input to its output")
    net = trained(build(target, variant))
    batch = images(2)
    last = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)][-1]
    with torch.no_grad():
        expected = 100 * net(batch)
        for parameter in last.parameters():
            parameter.mul_(100)
        torch.testing.assert_close(net(batch), expected, rtol=1e-4, atol=1e-3)


@every_net
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 3), (16, 16), (17, 31), (33, 18)])
def test_takes_any_height_and_width(target: str, variant: dict, size: tuple[int, int]):
    net = trained(build(target, variant))
    logits = net(images(2, 1, *size))
    assert logits.shape == (2, 1, *size)
    assert logits.isfinite().all()


@every_net
def test_every_parameter_gets_a_finite_gradient(target: str, variant: dict):
    net = trained(build(target, variant, 3, 4), 3).train()
    net(images(2, 3)).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@every_net
def test_logits_of_an_image_do_not_depend_on_its_batch(target: str, variant: dict):
    net = trained(build(target, variant))
    batch = images(5)
    with torch.no_grad():
        together = net(batch)
        alone = torch.cat([net(image[None]) for image in batch])
        others = net(batch.flip(0)).flip(0)
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(others, together, rtol=1e-5, atol=1e-5)


@every_net
def test_eval_mode_is_deterministic_and_changes_nothing(target: str, variant: dict):
    net = trained(build(target, variant))
    before = copy.deepcopy(net.state_dict())
    batch = images(2)
    with torch.no_grad():
        assert torch.equal(net(batch), net(batch))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@every_net
def test_channels_last_computes_the_same(target: str, variant: dict):
    net = trained(build(target, variant))
    other = copy.deepcopy(net).to(memory_format=torch.channels_last)
    batch = images(2, 1, 23, 30)
    with torch.no_grad():
        expected = net(batch)
        logits = other(batch.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@every_net
def test_bfloat16_autocast_gives_finite_logits_and_gradients(target: str, variant: dict):
    net = build(target, variant)
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(images(2))
    logits.float().square().mean().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


@every_net
def test_weights_written_and_read_make_the_same_net(target: str, variant: dict):
    net = trained(build(target, variant))
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other = build_net(target, {**variant, "in_channels": 1, "out_channels": 1})
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    batch = images(2)
    assert torch.equal(other.eval()(batch), net(batch))


@every_net
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["deepcopy", "pickle"]
)
def test_copy_is_equal_and_independent(target: str, variant: dict, copied):
    net = trained(build(target, variant))
    other = copied(net)
    batch = images(2)
    expected = net(batch)
    assert torch.equal(other(batch), expected)
    assert [name for name, _ in other.named_parameters()] == [name for name, _ in net.named_parameters()]
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(net(batch), expected)


@every_net
def test_input_of_another_shape_is_refused(target: str, variant: dict):
    net = build(target, variant, in_channels=3)
    with pytest.raises(ValueError, match=r"\[2, 1, 24, 32\].*\[batch, 3, height, width\]"):
        net(images(2))
    with pytest.raises(ValueError, match=r"\[3, 24, 32\]"):
        net(images(1, 3)[0])


@every_net
def test_seed_decides_the_initial_weights(target: str, variant: dict):
    one, same = build(target, variant), build(target, variant)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))


def test_every_net_is_under_test():
    assert {target for target in NETS if not target.startswith("segsweep.nets.Monai")} <= set(VARIANTS) <= set(NETS)
