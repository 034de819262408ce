"""Optimizers by name, with one meaning for `momentum`: each optimizer's own momentum term.

`momentum` is SGD's and RMSprop's momentum and Adam's first beta; None leaves the optimizer's own default (0, 0 and 0.9).
So a grid over optimizer, learning rate and momentum has no job without meaning and no two that are the same.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True, kw_only=True)
class _Settings(ABC):
    lr: float
    momentum: float | None = None
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr={self.lr}: must be positive and finite")
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum}: must be at least 0 and below 1, or null for the default")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay={self.weight_decay}: must be 0 or positive")
        self._check_own()

    def _check_own(self) -> None:  # noqa: B027  (not every optimizer has settings of its own)
        """Raises ValueError for a setting that only this optimizer has."""

    @abstractmethod
    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer over `parameters`."""


@dataclass(frozen=True, kw_only=True)
class SGD(_Settings):
    """Stochastic gradient descent; plain unless `momentum` is given."""

    nesterov: bool = False

    def _check_own(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov=true: needs a momentum above 0")

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.SGD:
        momentum = 0.0 if self.momentum is None else self.momentum
        return torch.optim.SGD(
            parameters, lr=self.lr, momentum=momentum, weight_decay=self.weight_decay, nesterov=self.nesterov
        )


@dataclass(frozen=True, kw_only=True)
class RMSprop(_Settings):
    """RMSprop; `alpha` is the smoothing of the squared gradients."""

    alpha: float = 0.99
    eps: float = 1e-8

    def _check_own(self) -> None:
        _check_smoothing("alpha", self.alpha)
        _check_eps(self.eps)

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.RMSprop:
        momentum = 0.0 if self.momentum is None else self.momentum
        return torch.optim.RMSprop(
            parameters, lr=self.lr, momentum=momentum, alpha=self.alpha, eps=self.eps, weight_decay=self.weight_decay
        )


@dataclass(frozen=True, kw_only=True)
class Adam(_Settings):
    """Adam; `momentum` is its first beta."""

    beta2: float = 0.999
    eps: float = 1e-8

    def _check_own(self) -> None:
        _check_smoothing("beta2", self.beta2)
        _check_eps(self.eps)

    def _arguments(self) -> dict[str, Any]:
        beta1 = 0.9 if self.momentum is None else self.momentum
        return {"lr": self.lr, "betas": (beta1, self.beta2), "eps": self.eps, "weight_decay": self.weight_decay}

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, **self._arguments())


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    weight_decay: float = 0.01

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, **self._arguments())


def _check_smoothing(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name}={value}: must be at least 0 and below 1")


def _check_eps(eps: float) -> None:
    if not (math.isfinite(eps) and eps >= 0):
        raise ValueError(f"eps={eps}: must be 0 or positive")
