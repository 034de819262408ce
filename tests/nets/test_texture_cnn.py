"""The published CNN: names, sizes, shared scale and shift, and a published state dict in eval mode."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segsweep.errors import UserError
from segsweep.nets import TextureCNN, estimate_norm_statistics, load_published
from segsweep.nets.registry import build_net_for

PUBLISHED_PARAMETERS = [
    *["bn.weight", "bn.bias"],
    *["conv1.0.weight", "conv1.0.bias", "conv2.0.weight", "conv2.0.bias", "conv3.0.weight", "conv3.0.bias"],
    *["out.weight", "out.bias"],
]
NORM_KEYS = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
PUBLISHED_KEYS = {
    *PUBLISHED_PARAMETERS,
    *[f"{place}.{key}" for place in ("bn", "conv1.2", "conv2.2", "conv3.2") for key in NORM_KEYS],
}


class Reference(nn.Module):
    """The published architecture, with logits: one batch norm module in three places."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(16)
        for name, channels in (("conv1", 1), ("conv2", 16), ("conv3", 16)):
            self.add_module(name, nn.Sequential(nn.Conv2d(channels, 16, 5, padding=2), nn.ReLU(), self.bn))
        self.out = nn.Conv2d(16, 1, 5, padding=2)

    def forward(self, image: Tensor) -> Tensor:
        for block in (self.conv1, self.conv2, self.conv3):
            image = block(image)
        return self.out(image)


@pytest.fixture
def published() -> Reference:
    torch.manual_seed(1)
    reference = Reference()
    for _ in range(5):
        reference(torch.rand(4, 1, 24, 24))
    with torch.no_grad():
        reference.bn.weight.uniform_(0.5, 1.5)
        reference.bn.bias.uniform_(-0.5, 0.5)
    return reference


def is_shared(net: TextureCNN) -> bool:
    norms = [net.conv1[2], net.conv2[2], net.conv3[2]]
    one_scale = all(norm.weight is net.bn.weight and norm.bias is net.bn.bias for norm in norms)
    own_statistics = len({id(norm.running_mean) for norm in norms}) == 3
    return one_scale and own_statistics


def test_parameters_have_the_published_count_names_and_order():
    net = TextureCNN()
    assert [name for name, _ in net.named_parameters()] == PUBLISHED_PARAMETERS
    assert sum(parameter.numel() for parameter in net.parameters()) == 13_681


def test_state_dict_has_the_published_keys(published: Reference):
    assert set(TextureCNN().state_dict()) == PUBLISHED_KEYS
    assert set(published.state_dict()) == PUBLISHED_KEYS


def test_logits_and_gradients_equal_the_published_module_s_in_training(published: Reference):
    net = TextureCNN()
    net.load_state_dict(published.state_dict())
    image = torch.rand(4, 1, 24, 24)
    logits, expected = net(image), published(image)
    torch.testing.assert_close(logits, expected, rtol=0, atol=0)
    logits.square().mean().backward()
    expected.square().mean().backward()
    for ours, theirs in zip(net.parameters(), published.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_loading_a_published_state_dict_asks_to_estimate_its_statistics(published: Reference):
    net = TextureCNN()
    with pytest.warns(UserWarning, match="estimate_norm_statistics"):
        assert load_published(net, published.state_dict())
    batches = [torch.rand(4, 1, 24, 24) for _ in range(3)]
    estimate_norm_statistics(net, batches)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not load_published(TextureCNN(), net.state_dict())


def test_published_state_dict_without_a_key_is_refused(published: Reference):
    state = published.state_dict()
    del state["conv2.2.bias"]
    with pytest.raises(RuntimeError, match=r"conv2\.2\.bias"):
        load_published(TextureCNN(), state)


def test_published_weights_work_in_eval_mode_with_estimated_statistics(published: Reference):
    """With the statistics of a batch, eval mode and training mode give the same logits for it."""
    net = TextureCNN()
    net.load_state_dict(published.state_dict())
    batch = torch.rand(8, 1, 32, 32)
    with torch.no_grad():
        expected = published.train()(batch)
        unestimated = net.eval()(batch)
        estimate_norm_statistics(net, [batch])
        estimated = net(batch)
    # Running variances are unbiased, which makes a difference of 1 part in 8 * 32 * 32.
    torch.testing.assert_close(estimated, expected, rtol=1e-3, atol=1e-3)
    assert (unestimated - expected).abs().max() > 0.1


@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda net: pickle.loads(pickle.dumps(net)),
        lambda net: net.to(torch.float64).to(torch.float32),
        lambda net: net.to(memory_format=torch.channels_last),
        lambda net: net.to("meta").to_empty(device="cpu"),
    ],
    ids=["deepcopy", "pickle", "dtype", "memory_format", "meta"],
)
def test_scale_and_shift_stay_shared(copied):
    net = copied(TextureCNN())
    assert is_shared(net)
    assert len(list(net.parameters())) == len(PUBLISHED_PARAMETERS)


@pytest.mark.parametrize("assign", [False, True])
def test_scale_and_shift_stay_shared_after_loading(assign: bool):
    source, net = TextureCNN(), TextureCNN()
    nn.init.uniform_(source.bn.weight)
    source(torch.rand(2, 1, 8, 8))
    net.load_state_dict({key: value.clone() for key, value in source.state_dict().items()}, assign=assign)
    assert is_shared(net)
    for key, value in source.state_dict().items():
        assert torch.equal(net.state_dict()[key], value)


def test_shared_net_refuses_the_scales_of_a_block_net():
    block = TextureCNN(norm="block")
    nn.init.constant_(block.conv2[2].weight, 2.0)
    with pytest.raises(ValueError, match=r"conv1\.2\.weight.*conv2\.2\.weight.*norm='block'"):
        TextureCNN().load_state_dict(block.state_dict())


def test_weights_of_a_diverged_net_load():
    net = TextureCNN()
    nn.init.constant_(net.bn.weight, float("nan"))
    loaded = TextureCNN()
    loaded.load_state_dict(net.state_dict())
    assert loaded.bn.weight.isnan().all()


@pytest.mark.parametrize(("norm", "parameters"), [("shared", 13_681), ("block", 13_745), ("none", 13_649)])
def test_norm_decides_the_parameters(norm, parameters: int):
    assert sum(parameter.numel() for parameter in TextureCNN(norm=norm).parameters()) == parameters


def test_options_change_the_sizes():
    net = TextureCNN(in_channels=3, out_channels=2, channels=4, kernel_size=3, bias=False)
    assert net(torch.rand(2, 3, 9, 7)).shape == (2, 2, 9, 7)
    assert not any(key.startswith("conv") and key.endswith(".0.bias") for key in net.state_dict())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 4}, "kernel_size=4.*use 3 or 5"),
        ({"kernel_size": 0}, "kernel_size=0"),
        ({"channels": 0}, "channels=0"),
        ({"in_channels": -1}, "in_channels=-1"),
        ({"out_channels": 0}, "out_channels=0"),
        ({"norm": "layer"}, "norm=layer.*'shared', 'block' or 'none'"),
        ({"blocks": 0}, "blocks=0"),
        ({"dilation": 0}, "dilation=0"),
        ({"dilation": [1, 0, 1]}, r"dilation\[1\]=0"),
        ({"dilation": [1, 2]}, r"dilation=\[1, 2\].*3"),
    ],
)
def test_wrong_value_is_named(arguments, message: str):
    with pytest.raises(ValueError, match=message):
        TextureCNN(**arguments)


# ---- other architectures ----


def test_a_seed_gives_the_same_weights_as_the_published_module():
    torch.manual_seed(3)
    reference = Reference()
    for net_class in (TextureCNN, lambda: TextureCNN(blocks=3, residual=False, dilation=[1, 1, 1])):
        torch.manual_seed(3)
        state = net_class().state_dict()
        assert list(state) == list(reference.state_dict())
        assert all(torch.equal(state[key], value) for key, value in reference.state_dict().items())


@pytest.mark.parametrize(("blocks", "parameters"), [(1, 849), (2, 7_265), (4, 20_097), (12, 71_425)])
def test_further_blocks_are_numbered_and_share_scale_and_shift(blocks: int, parameters: int):
    net = copy.deepcopy(TextureCNN(blocks=blocks).to("meta").to_empty(device="cpu"))
    convolutions = [f"conv{number}.0" for number in range(1, blocks + 1)]
    assert [name for name, _ in net.named_parameters()] == [
        f"{layer}.{name}" for layer in ("bn", *convolutions, "out") for name in ("weight", "bias")
    ]
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    norms = [net.get_submodule(f"conv{number}.2") for number in range(1, blocks + 1)]
    assert all(norm.weight is net.bn.weight and norm.bias is net.bn.bias for norm in norms)
    assert len({id(norm.running_mean) for norm in norms}) == blocks


@pytest.mark.parametrize("in_channels", [1, 16])
def test_residual_adds_the_input_of_each_block_from_the_second_on(in_channels: int):
    net = TextureCNN(in_channels, blocks=4, residual=True)
    image = torch.rand(2, in_channels, 16, 16)
    x = net.conv1(image)
    for block in (net.conv2, net.conv3, net.conv4):
        x = x + block(x)
    assert torch.equal(net(image), net.out(x))


@pytest.mark.parametrize("dilation", [2, [1, 2, 4]])
def test_dilation_spaces_the_taps_of_the_blocks(dilation: int | list[int]):
    """It equals an ordinary convolution with zeros between its taps."""
    plain, net = TextureCNN(kernel_size=3), TextureCNN(kernel_size=3, dilation=dilation)
    net.load_state_dict(plain.state_dict())
    x = image = torch.rand(2, 1, 20, 20)
    steps = dilation if isinstance(dilation, list) else [dilation] * 3
    for block, step in zip((net.conv1, net.conv2, net.conv3), steps, strict=True):
        weight = block[0].weight
        apart = weight.new_zeros(*weight.shape[:2], 2 * step + 1, 2 * step + 1)
        apart[..., ::step, ::step] = weight
        x = block[2](F.conv2d(x, apart, block[0].bias, padding=step).relu())
    torch.testing.assert_close(net(image), F.conv2d(x, net.out.weight, net.out.bias, padding=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_published_state_dict_is_refused_by_a_net_of_another_depth(published: Reference, blocks: int):
    with pytest.raises(ValueError, match=f"blocks={blocks}: .*3 blocks"):
        load_published(TextureCNN(blocks=blocks), published.state_dict())


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_state_dict_of_another_depth_is_loaded_by_a_net_of_that_depth(blocks: int):
    net, loaded = TextureCNN(blocks=blocks), TextureCNN(blocks=blocks)
    estimate_norm_statistics(net, [torch.rand(2, 1, 16, 16)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not load_published(loaded, net.state_dict())
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_a_deep_net_with_norm_shared_refuses_the_scales_of_a_block_net():
    block = TextureCNN(norm="block", blocks=5)
    nn.init.constant_(block.conv5[2].bias, 2.0)
    with pytest.raises(ValueError, match=r"conv4\.2\.bias.*conv5\.2\.bias.*norm='block'"):
        TextureCNN(blocks=5).load_state_dict(block.state_dict())


@pytest.mark.parametrize("norm", ["shared", "block", "none"])
@pytest.mark.parametrize("setting", [{"blocks": 10**9}, {"blocks": 10**30}, {"blocks": 10**9, "dilation": 2}])
def test_a_net_of_endless_blocks_is_refused_at_once(norm: str, setting: dict[str, int]):
    arguments = {"in_channels": 1, "out_channels": 1, "norm": norm, **setting}
    with pytest.raises(UserError, match="larger net"):
        build_net_for("segsweep.nets.TextureCNN", arguments, TextureCNN(norm=norm).state_dict(), 100_000)
