"""A user's callback that ends a training in one of many ways."""

import os
import shutil
import signal
import sys
from pathlib import Path

import lightning as L
import torch


class Trap(L.Callback):
    """Does `kind` at a step.

    Args:
        kind: nothing, raise, memory, cuda, remove, rename, exit, exit well, or a signal's name.
        step: the optimizer step; None does it at every step.
        flag: does it only if this file exists, and deletes the file; None does it always.
        word: any value, to make two settings differ.
        hook: the callback hook that does it.
        stage: does it only in this stage, fit or test.
    """

    def __init__(
        self, kind: str = "nothing", step: int | None = 1, flag: str | None = None,
        word: str | float | list | bool | None = None, hook: str = "on_train_batch_end", stage: str = "fit",
    ) -> None:  # fmt: skip
        self.kind, self.step, self.flag, self.word, self.stage = kind, step, flag, word, stage
        setattr(self, hook, self._do)

    def _do(self, trainer: L.Trainer, *_: object) -> None:
        if self.step not in (None, trainer.global_step) or trainer.state.fn != self.stage:
            return
        if self.flag is not None:
            if not Path(self.flag).exists():
                return
            Path(self.flag).unlink()
        if self.kind == "raise":
            raise RuntimeError("the trap has snapped")
        if self.kind == "memory":
            raise MemoryError("no room for the trap")
        if self.kind == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory: no room for the trap")
        if self.kind == "remove":
            shutil.rmtree(trainer.default_root_dir)
            return
        if self.kind == "rename":
            shutil.move(trainer.default_root_dir, f"{trainer.default_root_dir} elsewhere")
            return
        if self.kind == "exit":
            sys.exit(3)
        if self.kind == "exit well":
            sys.exit(0)
        if self.kind != "nothing":
            os.kill(os.getpid(), signal.Signals[self.kind])
