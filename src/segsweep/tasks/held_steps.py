"""Training steps whose metrics are still to be counted.

Shapes: N steps, B images in each, K channels of logits, H x W pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

CAPACITY = {"cpu": 1 << 18, "cuda": 1 << 22}
"""Most logits and mask pixels to hold: on a CPU what its cache holds. A GPU waits for the host at larger images too."""

NEVER = torch.iinfo(torch.int64).max
"""Later than any step."""


@dataclass(frozen=True)
class Steps:
    """Training steps in order, joined.

    Args:
        logits: float32 [N B, K, H, W].
        mask: int64 [N B, H, W].
        losses: float [N].
    """

    logits: Tensor
    mask: Tensor
    losses: Tensor


class HeldSteps:
    """Holds logits, masks and losses of training steps until they are counted together.

    Counting takes some 40 calls of torch, however small the images are. One count of many small steps takes the host hardly
    longer than a count of one. Large images are counted in every step.
    """

    def __init__(self) -> None:
        self.last_loss: Tensor | None = None
        self._logits: list[Tensor] = []
        self._masks: list[Tensor] = []
        self._losses: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._losses)

    def fits(self, logits: Tensor) -> bool:
        """Whether logits of this shape can be joined with those held."""
        return not self._logits or self._logits[0].shape == logits.shape

    def add(self, logits: Tensor, mask: Tensor, loss: Tensor) -> bool:
        """Holds a step, which must fit. Returns whether it is time to count."""
        self.last_loss = loss.detach()
        size = logits.numel() + mask.numel()
        full = (len(self._losses) + 2) * size > CAPACITY[logits.device.type]
        # Copies, because a net or a source may write its next batch into the same memory.
        alone = full and not self._losses
        self._logits.append(logits.detach() if alone else logits.detach().clone())
        self._masks.append(mask if alone else mask.clone())
        self._losses.append(self.last_loss)
        return full

    def take(self) -> Steps:
        """Gives the steps held, of which there must be one at least, and holds none."""
        logits, masks, losses = self._logits, self._masks, self._losses
        self.clear()
        if len(losses) == 1:
            return Steps(logits[0], masks[0], losses[0][None])
        return Steps(torch.cat(logits), torch.cat(masks), torch.stack(losses))

    def clear(self) -> None:
        """Forgets the steps held."""
        self._logits, self._masks, self._losses = [], [], []


def first_bad_step(losses: Tensor, first: int, part: int = 0, parts: int = 1) -> Tensor:
    """The first step whose loss is not finite, int64 on the losses' device, without waiting for it; NEVER if all are.

    Args:
        losses: float [N], of the parts of steps from `part` of step `first` on.
        first: number of the first step.
        part: from 0, of `parts` in each step.
    """
    numbers = first + torch.arange(part, part + len(losses), device=losses.device) // parts
    return torch.where(losses.isfinite(), NEVER, numbers).min()
