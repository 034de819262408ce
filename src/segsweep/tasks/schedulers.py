"""Learning-rate schedules. Each is asked for a torch scheduler once the length of the training is known."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR


class Schedule(ABC):
    """A schedule stepped after every optimizer step."""

    @abstractmethod
    def __call__(self, optimizer: Optimizer, total_steps: int, steps_per_epoch: int) -> LRScheduler:
        """The scheduler of a training of `total_steps` optimizer steps."""


@dataclass(frozen=True)
class Exponential(Schedule):
    """The learning rate times `gamma` after every epoch; the texture notebook has 0.95.

    Source: texture notebook (docs/sources.md), section 4.1.
    """

    gamma: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma={self.gamma}: must be above 0 and at most 1")

    def __call__(self, optimizer: Optimizer, total_steps: int, steps_per_epoch: int) -> LRScheduler:
        return LambdaLR(optimizer, lambda step: self.gamma ** (step // steps_per_epoch))


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from the learning rate to `final_fraction` of it over the whole training."""

    final_fraction: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.final_fraction < 1:
            raise ValueError(f"final_fraction={self.final_fraction}: must be at least 0 and below 1")

    def __call__(self, optimizer: Optimizer, total_steps: int, steps_per_epoch: int) -> LRScheduler:
        return CosineAnnealingLR(
            optimizer, T_max=total_steps, eta_min=optimizer.param_groups[0]["lr"] * self.final_fraction
        )


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up to the learning rate over `warmup_fraction` of the training, then down to nearly 0 (Smith and Topin, 2018).

    Momentum is left as it is, so that `momentum` keeps its meaning.
    """

    warmup_fraction: float = 0.3
    start_fraction: float = 0.04

    def __post_init__(self) -> None:
        if not 0 < self.warmup_fraction < 1:
            raise ValueError(f"warmup_fraction={self.warmup_fraction}: must be above 0 and below 1")
        if not (math.isfinite(self.start_fraction) and 0 < self.start_fraction <= 1):
            raise ValueError(f"start_fraction={self.start_fraction}: must be above 0 and at most 1")

    def __call__(self, optimizer: Optimizer, total_steps: int, steps_per_epoch: int) -> LRScheduler:
        # The scheduler is stepped once more behind the last optimizer step.
        steps = total_steps + 1
        warmup = self.warmup_fraction
        if warmup * steps == 1:
            # A peak exactly at the first step would have OneCycleLR divide by 0.
            warmup *= 1 - 1e-9
        return OneCycleLR(
            optimizer,
            max_lr=optimizer.param_groups[0]["lr"],
            total_steps=steps,
            pct_start=warmup,
            div_factor=1 / self.start_fraction,
            cycle_momentum=False,
        )
