"""Which training samples make which batch: a function of the optimizer steps done, and of nothing else."""

from collections.abc import Callable, Iterator

from torch.utils.data import Sampler


class TrainBatches(Sampler[list[int]]):
    """The batches from the current step to the end of its epoch, as sample indices `epoch * samples + i`.

    Where to begin is read off the steps done when an iteration begins. That is right in every epoch, after an
    interruption in the middle of one, and with workers that fetch ahead; an epoch told later by a callback is not.

    Args:
        samples: training samples in an epoch, over all processes.
        batch_size: samples of a batch, over all processes.
        steps_done: gives the optimizer steps done so far; one step takes one batch.
        rank: this process, of `world_size`.
        world_size: number of processes; each gets an equal share of every batch.
    """

    def __init__(
        self, samples: int, batch_size: int, steps_done: Callable[[], int], rank: int = 0, world_size: int = 1
    ) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.steps_done = steps_done
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[list[int]]:
        epoch, first = divmod(self.steps_done(), len(self))
        share = self.batch_size // self.world_size
        for batch in range(first, len(self)):
            start = epoch * self.samples + batch * self.batch_size + self.rank * share
            yield list(range(start, start + share))

    def __len__(self) -> int:
        """Batches of a whole epoch, as Lightning counts them, wherever an iteration begins."""
        return self.samples // self.batch_size
