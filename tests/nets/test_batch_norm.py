"""Estimated running statistics are exact, and nothing else in the net changes."""

import copy

import pytest
import torch
from torch import Tensor, nn

from segsweep.nets import TextureCNN, batch_norms, estimate_norm_statistics


def batches(count: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, 1, 12, 10, generator=generator) for _ in range(count)]


def test_statistics_are_the_average_over_batches():
    net = TextureCNN()
    estimate_norm_statistics(net, batches())

    means: list[list[Tensor]] = [[], [], []]
    variances: list[list[Tensor]] = [[], [], []]
    with torch.no_grad():
        for x in batches():
            for place, block in enumerate((net.conv1, net.conv2, net.conv3)):
                x = torch.relu(nn.functional.conv2d(x, block[0].weight, block[0].bias, padding=2))
                mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
                means[place].append(mean)
                variances[place].append(x.var((0, 2, 3)))
                x = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
                x = x * net.bn.weight[:, None, None] + net.bn.bias[:, None, None]
    for place, block in enumerate((net.conv1, net.conv2, net.conv3)):
        torch.testing.assert_close(block[2].running_mean, torch.stack(means[place]).mean(0))
        torch.testing.assert_close(block[2].running_var, torch.stack(variances[place]).mean(0))


def test_estimate_agrees_with_torch():
    net, other = TextureCNN(), TextureCNN()
    other.load_state_dict(net.state_dict())
    estimate_norm_statistics(net, batches())
    torch.optim.swa_utils.update_bn(batches(), other)
    for key, value in other.state_dict().items():
        assert torch.equal(net.state_dict()[key], value), key


def test_estimate_does_not_depend_on_earlier_statistics():
    net = TextureCNN()
    net(100 * torch.rand(2, 1, 12, 10))
    estimate_norm_statistics(net, batches())
    first = copy.deepcopy(net.state_dict())
    estimate_norm_statistics(net, batches())
    for key, value in first.items():
        assert torch.equal(net.state_dict()[key], value), key


def test_only_statistics_change():
    net = nn.Sequential(TextureCNN(), nn.Dropout(0.5), nn.BatchNorm2d(1, momentum=0.3))
    net[0].conv2.eval()
    modes = {name: module.training for name, module in net.named_modules()}
    momenta = [norm.momentum for norm in batch_norms(net)]
    weights = [parameter.clone() for parameter in net.parameters()]
    random_state = torch.get_rng_state()

    assert estimate_norm_statistics(net, iter(batches(3))) == 3

    assert {name: module.training for name, module in net.named_modules()} == modes
    assert [norm.momentum for norm in batch_norms(net)] == momenta == [0.1, 0.1, 0.1, 0.3]
    assert all(torch.equal(before, after) for before, after in zip(weights, net.parameters(), strict=True))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
    assert torch.equal(random_state, torch.get_rng_state())  # dropout drew nothing


def test_modes_and_momenta_return_after_an_error():
    net = TextureCNN()

    def failing():
        yield batches(1)[0]
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        estimate_norm_statistics(net, failing())
    assert all(module.training for module in net.modules())
    assert [norm.momentum for norm in batch_norms(net)] == [0.1] * 3


def test_net_without_batch_norms_reads_nothing():
    source = iter(batches())
    assert estimate_norm_statistics(nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2)), source) == 0
    assert len(list(source)) == 4


def test_batch_norm_without_running_statistics_stays_as_it_is():
    net = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.BatchNorm2d(1))
    assert estimate_norm_statistics(net, batches(1)) == 1
    assert net[0].running_mean is None
    assert net[0].momentum == 0.1


def test_no_batches_is_an_error_and_changes_nothing():
    net = TextureCNN()
    net(batches(1)[0])
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match="no batches"):
        estimate_norm_statistics(net, [])
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in before.items())
