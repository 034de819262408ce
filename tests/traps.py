"""A callback as a user might write one, that ends a training in every way that one can end."""

import os
import shutil
import signal
import sys
from pathlib import Path

import lightning as L
import torch


class Trap(L.Callback):
    """Does `kind` behind a step.

    Args:
        kind: nothing, raise, memory, exit, or the name of a signal that this process sends itself.
        step: the optimizer step.
        flag: does it only while this file is there, and takes the file away; None does it always.
        word: anything; only there to be different.
        hook: the hook to do it in.
    """

    def __init__(
        self, kind: str = "nothing", step: int = 1, flag: str | None = None, word: str | float | list | bool | None = None,
        hook: str = "on_train_batch_end",
    ) -> None:  # fmt: skip
        self.kind, self.step, self.flag, self.word = kind, step, flag, word
        setattr(self, hook, self._do)

    def _do(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step != self.step or trainer.state.fn != "fit":
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
        if self.kind == "exit":
            sys.exit(3)
        if self.kind == "exit well":
            sys.exit(0)
        if self.kind != "nothing":
            os.kill(os.getpid(), signal.Signals[self.kind])


class AfterTest(L.Callback):
    """Raises, or sends this process a signal, when the test is done, once: while there is a file `flag`."""

    def __init__(self, kind: str, flag: str) -> None:
        self.kind, self.flag = kind, flag

    def on_test_end(self, *_: object) -> None:
        if Path(self.flag).exists():
            Path(self.flag).unlink()
            if self.kind == "raise":
                raise RuntimeError("the trap has snapped")
            os.kill(os.getpid(), signal.Signals[self.kind])
