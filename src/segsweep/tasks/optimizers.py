"""Optimizers by name, with one meaning for `momentum`: each optimizer's own momentum term.

`momentum` is SGD's and RMSprop's momentum and Adam's first beta; None leaves the optimizer's own default (0, 0 and 0.9).
So a grid over optimizer, learning rate and momentum has no job without meaning and no two that are the same.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from segsweep.instantiate import From0Below1, NotNegative, Positive, checked

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True, kw_only=True)
class _Settings(ABC):
    lr: Positive
    momentum: From0Below1 | None = None
    weight_decay: NotNegative = 0.0

    @abstractmethod
    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer over `parameters`."""


@checked
@dataclass(frozen=True, kw_only=True)
class SGD(_Settings):
    """Stochastic gradient descent; plain unless `momentum` is given."""

    nesterov: bool = False

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov=true: needs a momentum above 0")

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.SGD:
        momentum = 0.0 if self.momentum is None else self.momentum
        return torch.optim.SGD(
            parameters, lr=self.lr, momentum=momentum, weight_decay=self.weight_decay, nesterov=self.nesterov
        )


@checked
@dataclass(frozen=True, kw_only=True)
class RMSprop(_Settings):
    """RMSprop; `alpha` is the smoothing of the squared gradients."""

    alpha: From0Below1 = 0.99
    eps: NotNegative = 1e-8

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.RMSprop:
        momentum = 0.0 if self.momentum is None else self.momentum
        return torch.optim.RMSprop(
            parameters, lr=self.lr, momentum=momentum, alpha=self.alpha, eps=self.eps, weight_decay=self.weight_decay
        )


@checked
@dataclass(frozen=True, kw_only=True)
class Adam(_Settings):
    """Adam; `momentum` is its first beta."""

    beta2: From0Below1 = 0.999
    eps: NotNegative = 1e-8

    def _arguments(self) -> dict[str, Any]:
        beta1 = 0.9 if self.momentum is None else self.momentum
        return {"lr": self.lr, "betas": (beta1, self.beta2), "eps": self.eps, "weight_decay": self.weight_decay}

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, **self._arguments())


@checked
@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    weight_decay: NotNegative = 0.01

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, **self._arguments())
