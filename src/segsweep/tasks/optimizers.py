"""Optimizers and learning-rate schedules by name. `momentum` means each optimizer's own momentum term.

`momentum` is SGD's and RMSprop's momentum and Adam's first beta; None is the optimizer's default (0, 0 and 0.9). Every
optimizer uses it, so a grid over optimizer, learning rate and momentum has equal jobs only if it lists null and a default.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar

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
    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer: ...


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

    torch_class: ClassVar[type[torch.optim.Adam]] = torch.optim.Adam
    beta2: From0Below1 = 0.999
    eps: NotNegative = 1e-8

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        betas = (0.9 if self.momentum is None else self.momentum, self.beta2)
        return self.torch_class(parameters, lr=self.lr, betas=betas, eps=self.eps, weight_decay=self.weight_decay)


@checked
@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    torch_class = torch.optim.AdamW
    weight_decay: NotNegative = 0.01


class Schedule(ABC):
    """A learning-rate schedule, stepped after every optimizer step.

    All are LambdaLR: the rate is a function of the step and of the training's length. When a run is resumed with more
    steps, torch's cosine and one-cycle schedulers keep the old length, and then rise again or raise an error.
    """

    @abstractmethod
    def __call__(self, optimizer: Optimizer, total_steps: int | None, steps_per_epoch: int) -> LRScheduler:
        """The torch scheduler for a training of `total_steps` optimizer steps; None if only time ends it."""


class LengthSchedule(Schedule):
    """A schedule over the length of the training: it follows the share of the steps or of the time, whichever is larger."""

    @abstractmethod
    def factor(self, step: float, total_steps: int) -> float:
        """What the learning rate is multiplied by after `step` of `total_steps` steps, which may be more than all."""

    def __call__(
        self,
        optimizer: Optimizer,
        total_steps: int | None,
        steps_per_epoch: int,
        time_share: Callable[[], float] = lambda: 0.0,
    ) -> LRScheduler:
        """The torch scheduler.

        Args:
            optimizer: the optimizer.
            total_steps: optimizer steps of the training; None if only time ends it.
            steps_per_epoch: changes nothing here.
            time_share: gives the share of the training's time that is used.
        """
        if total_steps is None:
            return LambdaLR(optimizer, lambda _: self.factor(time_share(), 1))
        return LambdaLR(optimizer, lambda step: self.factor(max(step, time_share() * total_steps), total_steps))


@checked
@dataclass(frozen=True)
class Exponential(Schedule):
    """Multiplies the learning rate by `gamma` after every epoch; 0.95 in the texture notebook.

    Source: texture notebook (docs/sources.md), section 4.1.
    """

    gamma: Above0To1 = 0.95

    def __call__(self, optimizer: Optimizer, total_steps: int | None, steps_per_epoch: int) -> LRScheduler:
        return LambdaLR(optimizer, lambda step: self.gamma ** (step // steps_per_epoch))


@checked
@dataclass(frozen=True)
class Cosine(LengthSchedule):
    """Half a cosine over the whole training, from the learning rate down to `final_fraction` times it."""

    final_fraction: From0Below1 = 0.0

    def factor(self, step: float, total_steps: int) -> float:
        low = self.final_fraction
        return low + (1 - low) * _half_cosine(step / total_steps)


@checked
@dataclass(frozen=True)
class OneCycle(LengthSchedule):
    """Up from `start_fraction` of the learning rate over `warmup_fraction` of the training, then down to nearly 0 (Smith
    and Topin, 2018).

    Unlike in torch, the momentum stays constant.
    """

    warmup_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3
    start_fraction: Above0To1 = 0.04

    def factor(self, step: float, total_steps: int) -> float:
        peak = self.warmup_fraction * total_steps
        low, end = self.start_fraction, self.start_fraction * 1e-4
        if step < peak:
            return low + (1 - low) * (1 - _half_cosine(step / peak))
        return end + (1 - end) * _half_cosine((step - peak) / (total_steps - peak))


def _half_cosine(part: float) -> float:
    """From 1 at `part` 0 to 0 at `part` 1 and above."""
    return (1 + math.cos(math.pi * min(part, 1.0))) / 2
