"""The run directory: what a training leaves on disk, and where."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from segsweep.errors import UserError


@dataclass(frozen=True)
class RunDirectory:
    """Paths inside a run directory. The names are a contract: tools outside this project read them."""

    path: Path

    @property
    def record(self) -> Path:
        return self.path / "run.json"

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        return self.checkpoints / "best.ckpt"

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @contextlib.contextmanager
    def locked(self, wait: bool = False) -> Iterator[None]:
        """Nobody else trains in this directory meanwhile. The lock goes with the process that holds it, however it ends.

        Args:
            wait: wait until it is free, instead of refusing.

        Raises:
            UserError: another process trains here.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(self.lock, timeout=-1 if wait else 0)
            with lock:
                yield
        except Timeout as error:
            raise UserError(f"{self.path}: another process is training there; wait for it, or stop it") from error

    def clear(self) -> None:
        """Takes away what a training has left, but for its log: what comes next begins at the beginning."""
        for folder in (self.checkpoints, self.tensorboard):
            if folder.exists():
                shutil.rmtree(folder)
        for file in (self.record, self.metrics):
            file.unlink(missing_ok=True)
