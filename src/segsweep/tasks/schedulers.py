"""Learning-rate schedules. Each is asked for a torch scheduler once the length of the training is known."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from segsweep.instantiate import Above0To1, From0Below1, checked


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
