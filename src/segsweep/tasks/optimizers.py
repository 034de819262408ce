"""Optimizers and learning-rate schedules by name, with one meaning for `momentum`: each optimizer's own momentum term.

`momentum` is SGD's and RMSprop's momentum and Adam's first beta; None leaves the optimizer's own default (0, 0 and 0.9).
So a grid over optimizer, learning rate and momentum has no job without meaning and no two that are the same. A schedule is
asked for a torch scheduler once the length of the training is known.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from segsweep.instantiate import Above0To1, From0Below1, NotNegative, Positive, checked

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


class Schedule(ABC):
    """A schedule stepped after every optimizer step.

    All are LambdaLR: the rate is a function of the step and of the present training's length. Torch's own cosine and
    one-cycle schedulers keep the old length when a run is continued with more steps, and then climb again or raise.
    """

    @abstractmethod
    def __call__(self, optimizer: Optimizer, total_steps: int, steps_per_epoch: int) -> LRScheduler:
        """The scheduler of a training of `total_steps` optimizer steps."""


@checked
@dataclass(frozen=True)
class Exponential(Schedule):
    """The learning rate times `gamma` after every epoch; the texture notebook has 0.95.

    Source: texture notebook (docs/sources.md), section 4.1.
    """

    gamma: Above0To1 = 0.95

    def __call__(self, optimizer: Optimizer, total_steps: int, steps_per_epoch: int) -> LRScheduler:
        return LambdaLR(optimizer, lambda step: self.gamma ** (step // steps_per_epoch))


@checked
@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from the learning rate to `final_fraction` of it over the whole training."""

    final_fraction: From0Below1 = 0.0

    def __call__(self, optimizer: Optimizer, total_steps: int, steps_per_epoch: int) -> LRScheduler:
        low = self.final_fraction
        return LambdaLR(optimizer, lambda step: low + (1 - low) * _half_cosine(step / total_steps))


@checked
@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up to the learning rate over `warmup_fraction` of the training, then down to nearly 0 (Smith and Topin, 2018).

    Momentum is left as it is, so that `momentum` keeps its meaning.
    """

    warmup_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3
    start_fraction: Above0To1 = 0.04

    def __call__(self, optimizer: Optimizer, total_steps: int, steps_per_epoch: int) -> LRScheduler:
        peak = self.warmup_fraction * total_steps
        low, end = self.start_fraction, self.start_fraction * 1e-4

        def factor(step: int) -> float:
            if step < peak:
                return low + (1 - low) * (1 - _half_cosine(step / peak))
            return end + (1 - end) * _half_cosine((step - peak) / (total_steps - peak))

        return LambdaLR(optimizer, factor)


def _half_cosine(part: float) -> float:
    """From 1 at the beginning to 0 at the end, and 0 behind it."""
    return (1 + math.cos(math.pi * min(part, 1.0))) / 2
