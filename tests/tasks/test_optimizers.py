"""Each optimizer is torch's own, with one meaning for `momentum`."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from segsweep.tasks import SGD, Adam, AdamW, OptimizerFactory, RMSprop

FACTORIES = {SGD: torch.optim.SGD, Adam: torch.optim.Adam, AdamW: torch.optim.AdamW, RMSprop: torch.optim.RMSprop}
every_optimizer = pytest.mark.parametrize("ours", FACTORIES, ids=lambda factory: factory.__name__)


def weights() -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(3, 4, generator=draw)), nn.Parameter(torch.randn(4, generator=draw))]


def after_steps(make: OptimizerFactory, steps: int = 3) -> list[torch.Tensor]:
    """The weights after some steps on a curved loss."""
    parameters = weights()
    optimizer = make(parameters)
    for step in range(steps):
        optimizer.zero_grad()
        matrix, vector = parameters
        ((matrix @ vector).sin().sum() + (step + 1) * (matrix**2).sum() + vector.exp().sum()).backward()
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


@every_optimizer
def test_without_settings_every_default_is_torchs_own(ours: type):
    theirs = FACTORIES[ours](weights(), lr=0.02)
    optimizer = ours(lr=0.02)(weights())
    assert type(optimizer) is type(theirs)
    assert optimizer.defaults == theirs.defaults


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("lr", [0.001, 0.1])
def test_momentum_is_each_optimizers_own_momentum_term(momentum: float, lr: float):
    for ours in (SGD, RMSprop):
        group = ours(lr=lr, momentum=momentum)(weights()).param_groups[0]
        assert (group["lr"], group["momentum"]) == (lr, momentum)
    for ours in (Adam, AdamW):
        group = ours(lr=lr, momentum=momentum)(weights()).param_groups[0]
        assert (group["lr"], group["betas"]) == (lr, (momentum, 0.999))


CASES: list[tuple[OptimizerFactory, Any]] = [
    (SGD(lr=0.01), lambda p: torch.optim.SGD(p, lr=0.01)),
    (SGD(lr=0.01, momentum=0.0), lambda p: torch.optim.SGD(p, lr=0.01)),
    (SGD(lr=0.01, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)),
    (
        SGD(lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
    ),
    (RMSprop(lr=0.01), lambda p: torch.optim.RMSprop(p, lr=0.01)),
    (
        RMSprop(lr=0.01, momentum=0.5, alpha=0.9, eps=1e-3, weight_decay=0.1),
        lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, alpha=0.9, eps=1e-3, weight_decay=0.1),
    ),
    (Adam(lr=0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
    (Adam(lr=0.01, momentum=0.0), lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.0, 0.999))),
    (
        Adam(lr=0.01, momentum=0.5, beta2=0.9, eps=1e-3, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.1),
    ),
    (AdamW(lr=0.01), lambda p: torch.optim.AdamW(p, lr=0.01)),
    (
        AdamW(lr=0.01, momentum=0.5, beta2=0.9, weight_decay=0.3),
        lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.5, 0.9), weight_decay=0.3),
    ),
]


@pytest.mark.parametrize(("ours", "theirs"), CASES, ids=[repr(ours) for ours, _ in CASES])
def test_three_steps_give_the_weights_of_torchs_optimizer_to_the_bit(ours: OptimizerFactory, theirs: OptimizerFactory):
    for mine, reference, start in zip(after_steps(ours), after_steps(theirs), weights(), strict=True):
        assert torch.equal(mine, reference)
        assert not torch.equal(mine, start)


def test_grid_over_optimizer_rate_and_momentum_has_no_two_equal_jobs():
    results = [
        after_steps(ours(lr=lr, momentum=momentum))
        for ours in (SGD, Adam, RMSprop)
        for lr in (0.001, 0.01)
        for momentum in (0.5, 0.9, 0.95)
    ]
    for position, first in enumerate(results):
        assert not any(torch.equal(first[0], second[0]) for second in results[:position])


@every_optimizer
@pytest.mark.parametrize(
    ("name", "bad"),
    [("lr", value) for value in (0.0, -0.1, math.nan, math.inf)]
    + [("momentum", value) for value in (-0.1, 1.0, 1.5, math.nan)]
    + [("weight_decay", value) for value in (-1e-3, math.nan, math.inf)],
)
def test_value_outside_its_range_is_refused_by_name(ours: type, name: str, bad: float):
    with pytest.raises(ValueError, match=f"^{name}={bad}: "):
        ours(**{"lr": 0.1, name: bad})


@pytest.mark.parametrize(
    ("ours", "name", "bad"),
    [
        (Adam, "beta2", 1.0), (AdamW, "beta2", -0.1), (Adam, "eps", -1.0), (RMSprop, "alpha", -0.5),
        (RMSprop, "eps", math.nan), (RMSprop, "alpha", 1.5), (Adam, "beta2", math.nan),
    ],
)  # fmt: skip
def test_value_outside_an_optimizers_own_range_is_refused_by_name(ours: type, name: str, bad: float):
    with pytest.raises(ValueError, match=f"^{name}={bad}: "):
        ours(**{"lr": 0.1, name: bad})


@pytest.mark.parametrize("momentum", [None, 0.0])
def test_nesterov_without_momentum_is_refused(momentum: float | None):
    with pytest.raises(ValueError, match=r"^nesterov=true: .*momentum"):
        SGD(lr=0.1, momentum=momentum, nesterov=True)
