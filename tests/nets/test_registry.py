"""Nets are built by name, and mistakes are refused in one line."""

import json

import pytest
import torch
from torch import nn

from segsweep.errors import UserError
from segsweep.nets import NETS, TextureCNN, UNet, build_net, register_net


def test_nets_are_known_by_the_path_they_are_imported_from():
    import segsweep.nets

    for target, net_class in NETS.items():
        assert target.startswith("segsweep.nets.")
        assert getattr(segsweep.nets, target.removeprefix("segsweep.nets.")) is net_class


def test_net_is_built_from_plain_values():
    arguments = json.loads('{"in_channels": 1, "out_channels": 2, "widths": [4, 8, 16]}')
    net = build_net("segsweep.nets.UNet", arguments)
    assert isinstance(net, UNet)
    assert net(torch.rand(1, 1, 8, 8)).shape == (1, 2, 8, 8)


@pytest.mark.parametrize(
    ("target", "arguments", "message"),
    [
        ("segsweep.nets.Unet", {}, r"unknown net 'segsweep.nets.Unet'.*segsweep.nets.UNet"),
        ("torch.nn.Conv2d", {}, "unknown net 'torch.nn.Conv2d'"),
        ("segsweep.nets.TextureCNN", {"channel": 16}, "TextureCNN: channel: .*in_channels, "),
        ("segsweep.nets.TextureCNN", {"channels": "16"}, "channels=16: .*integer"),
        ("segsweep.nets.TextureCNN", {"channels": True}, "channels=True.*integer"),
        ("segsweep.nets.TextureCNN", {"channels": None}, "channels=None.*integer"),
        ("segsweep.nets.TextureCNN", {"channels": 0}, "channels=0: must be at least 1"),
        ("segsweep.nets.TextureCNN", {"kernel_size": 4}, "kernel_size=4: .*use 3 or 5"),
        ("segsweep.nets.TextureCNN", {"norm": "layer"}, "norm=layer: .*'shared', 'block' or 'none'"),
        ("segsweep.nets.UNet", {"widths": [4, "8", 16]}, r"widths\[1\]=8.*integer"),
    ],
)
def test_mistake_is_one_line_that_names_it(target: str, arguments, message: str):
    with pytest.raises(UserError, match=message) as error:
        build_net(target, arguments)
    assert "\n" not in str(error.value)


def test_missing_argument_is_named(monkeypatch: pytest.MonkeyPatch):
    class Needy(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()

    monkeypatch.setattr("segsweep.nets.registry.NETS", {})
    register_net(Needy)
    with pytest.raises(UserError, match="size: "):
        build_net("segsweep.nets.Needy", {})


def test_a_name_cannot_be_registered_twice():
    with pytest.raises(ValueError, match=r"segsweep\.nets\.TextureCNN"):
        register_net(type("TextureCNN", (nn.Module,), {}))
    assert NETS["segsweep.nets.TextureCNN"] is TextureCNN
    assert register_net(TextureCNN) is TextureCNN
