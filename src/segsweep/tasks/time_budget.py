"""The wall time that a training has used, of the time that it may take."""

from time import monotonic

import lightning as L


class TimeBudget:
    """Wall time of a training, steps and the validations between them, out of `trainer.max_minutes`.

    Args:
        minutes: the time that the training may take, above 0.
    """

    def __init__(self, minutes: float) -> None:
        self.total = 60 * minutes
        """In seconds, like `seconds`."""
        self.seconds = 0.0
        """Used at the last look, in all sessions of the run. Each step and each validation ends with a look."""
        self._began = 0.0

    def start(self) -> None:
        """Starts the clock at the `seconds` that earlier sessions used."""
        self._began = monotonic() - self.seconds

    def look(self, trainer: L.Trainer) -> None:
        """Reads the clock."""
        seconds = monotonic() - self._began
        # Processes that train together need one learning rate and one end: the clock of the first decides.
        self.seconds = trainer.strategy.broadcast(seconds) if trainer.world_size > 1 else seconds

    @property
    def over(self) -> bool:
        return self.seconds >= self.total

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(0.0, self.total - self.seconds)

    def share(self) -> float:
        """The share that is used, from 0; above 1 if the last step ended late."""
        return self.seconds / self.total
