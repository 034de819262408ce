"""Each net of the ablation differs from the published one in one setting, and its comment is right."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from support import ROOT
from torch import nn

from segsweep import cli  # noqa: F401  (registers the resolvers that the configuration needs)
from segsweep.instantiate import build, to_plain
from segsweep.nets import TextureCNN

FILES = sorted((ROOT / "conf/model/ablation").glob("*.yaml"))

every_variant = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def settings(model: str) -> dict[str, Any]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return dict(to_plain(compose("train", overrides=[f"model={model}"]))["model"])


def net_of(path: Path) -> TextureCNN:
    torch.manual_seed(0)
    net = build(settings(f"ablation/{path.stem}"), "model", in_channels=1, out_channels=1)
    assert isinstance(net, TextureCNN)
    return net


def field_of_view(net: nn.Module, size: int = 65) -> tuple[int, int]:
    """Returns height and width, in pixels, of the area in which the middle logit has a gradient."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.abs_().add_(0.01)  # opens every ReLU, and gradients do not cancel
    image = torch.ones(1, 1, size, size, requires_grad=True)
    net.eval()(image)[0, 0, size // 2, size // 2].backward()
    assert image.grad is not None
    seen = image.grad[0, 0] != 0
    rows, columns = (torch.nonzero(seen.any(dim)).flatten() for dim in (1, 0))
    assert rows.min() > 0
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


@every_variant
def test_comment_says_parameters_and_field_of_view(path: Path):
    net = net_of(path)
    found = re.match(r"# .+\. ([\d,]+) parameters; a pixel sees (\d+)x(\d+)\.\n", path.read_text())
    assert found is not None
    parameters, *seen = (int(number.replace(",", "")) for number in found.groups())
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    assert field_of_view(net) == tuple(seen)


@pytest.mark.quick
@every_variant
def test_variant_differs_from_the_published_net_only_in_the_setting_it_is_named_after(path: Path):
    published, variant = settings("texture_cnn"), settings(f"ablation/{path.stem}")
    changed = {key: value for key, value in variant.items() if key not in published or published[key] != value}
    assert published.keys() <= variant.keys()
    if path.stem == "published":
        assert variant == published
        return
    ((key, value),) = changed.items()
    name, _, said = path.stem.partition("_")
    assert key.startswith(name)
    assert said in ("", str(value))


@pytest.mark.quick
@every_variant
def test_variant_trains(path: Path):
    net = net_of(path)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    optimizer = torch.optim.Adam(net.parameters(), lr=0.001)
    image = torch.rand(4, 1, 32, 32)
    mask = (image > 0.5).float()
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(net(image).sigmoid(), mask)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    assert not any(torch.equal(one, other) for one, other in zip(before, net.parameters(), strict=True))
