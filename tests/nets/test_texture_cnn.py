"""The published CNN: its names and numbers, its sharing, and a published state dict in eval mode."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import Tensor, nn

from segsweep.nets import TextureCNN, estimate_norm_statistics, load_published

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
    """The published architecture as a test needs it: one batch norm module in three places; logits."""

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


def test_computes_what_the_published_module_computes_while_training(published: Reference):
    net = TextureCNN()
    net.load_state_dict(published.state_dict())
    image = torch.rand(4, 1, 24, 24)
    logits, expected = net(image), published(image)
    torch.testing.assert_close(logits, expected, rtol=0, atol=0)
    logits.square().mean().backward()
    expected.square().mean().backward()
    for ours, theirs in zip(net.parameters(), published.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_published_state_dict_says_that_its_statistics_have_to_be_estimated(published: Reference):
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


def test_published_weights_serve_in_eval_mode_once_statistics_are_estimated(published: Reference):
    """With the statistics of one batch, eval mode gives that batch what training mode gives it."""
    net = TextureCNN()
    net.load_state_dict(published.state_dict())
    batch = torch.rand(8, 1, 32, 32)
    with torch.no_grad():
        expected = published.train()(batch)
        of_no_use = net.eval()(batch)
        estimate_norm_statistics(net, [batch])
        estimated = net(batch)
    # What remains is that running variances are the unbiased ones: 1 part in 8 * 32 * 32.
    torch.testing.assert_close(estimated, expected, rtol=1e-3, atol=1e-3)
    assert (of_no_use - expected).abs().max() > 0.1


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
    with pytest.raises(ValueError, match=r"conv1\.2\.weight and conv2\.2\.weight differ.*norm='block'"):
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
        ({"norm": "layer"}, "norm='layer'.*shared, block, none"),
    ],
)
def test_wrong_value_is_named(arguments, message: str):
    with pytest.raises(ValueError, match=message):
        TextureCNN(**arguments)
