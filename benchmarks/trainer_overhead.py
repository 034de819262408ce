"""A training step through train.py's own Trainer against a bare PyTorch loop.

    python benchmarks/trainer_overhead.py --device cpu
    python benchmarks/trainer_overhead.py trainer.precision=bf16-mixed

Both train the same net on the same samples with the same optimizer and precision, from train.py's configuration. Ours is a
whole fit, with every default callback, metrics.csv, TensorBoard and the progress bar on a pseudo-terminal. The bare loop
only makes the batch and does forward, loss, backward and step.

The last callback times a fit from the end of one training step to the end of a later one in the same epoch. That includes
fetching, metrics, the bar, and a row of metrics every 50 steps. It excludes the work of once a run or once an epoch: setup,
validation, checkpoints. The number of steps is a multiple of the logging interval, so that rows count with their true
share. Fits and bare loops of that length take turns.
"""

import contextlib
import os
import pty
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import Callback
from measure import CONF, Row, arguments, interleave, pick_device, report, synchronize, timing, trainer_group

from segsweep.callbacks import StopOnSignal
from segsweep.instantiate import build, to_plain
from segsweep.runs import RunDirectory
from segsweep.trainer_settings import quiet_libraries
from segsweep.training_setup import assemble, build_data, build_task

WARM_UP = 10
"""Steps before the clock starts."""


def settings(overrides: Sequence[str], steps: int) -> dict[str, Any]:
    """train.py's configuration with one epoch that is longer than the timed steps, and a short validation."""
    last = WARM_UP + steps + 1
    short = [f"trainer.max_steps={last}", f"++data.samples_per_epoch={8 * last}", "++data.val_size=8"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return to_plain(compose("train", overrides=[*overrides, *short, "data.batch_size=8"]))


class Clock(Callback):
    """Records the times at the ends of steps `first` and `last`."""

    def __init__(self, first: int, last: int) -> None:
        self.steps = (first, last)
        self.moments: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step in self.steps:
            synchronize(pl_module.device)
            self.moments.append(time.perf_counter())


def fit_seconds(node: dict[str, Any], steps: int) -> float:
    """Seconds of a step in a fit as train.py runs it."""
    clock = Clock(WARM_UP, WARM_UP + steps)
    with tempfile.TemporaryDirectory() as folder, terminal(), StopOnSignal() as stop, quiet_libraries():
        session = assemble(node, RunDirectory(Path(folder)), stop)
        session.trainer.callbacks.append(clock)  # type: ignore[attr-defined]  # the Trainer's own list
        session.trainer.fit(session.task, session.data)
    first, last = clock.moments
    return (last - first) / steps


@contextlib.contextmanager
def terminal() -> Iterator[None]:
    """Context with a terminal as stderr; discards its output.

    Raises:
        RuntimeError: nothing was drawn.
    """
    reader, writer = pty.openpty()
    drawn: list[int] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # raised when the other end is closed
            while text := os.read(reader, 1 << 16):
                drawn.append(len(text))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    if os.environ.get("TERM", "dumb") == "dumb":
        os.environ["TERM"] = "xterm-256color"
    with os.fdopen(writer, "w") as screen, contextlib.redirect_stderr(screen):
        yield
    thread.join()
    os.close(reader)
    if not drawn:
        raise RuntimeError("the progress bar was not drawn: the measurement would leave its cost out")


def bare_loop(node: dict[str, Any], device: torch.device) -> Callable[[int], None]:
    """A function that trains some more steps, without Lightning, metrics, logs or callbacks."""
    trainer_settings = build(node["trainer"], "trainer")
    if trainer_settings.precision == "16-mixed":
        raise SystemExit("trainer.precision=16-mixed: the bare loop has no loss scaling; use 32-true or bf16-mixed")
    data = build_data(node["data"])
    task = build_task(node, data.source, trainer_settings).to(device)
    net, loss_function, source = task.net.train(), task.loss, data.source
    optimizer = task.optimizer(net.parameters())
    mixed = trainer_settings.precision == "bf16-mixed"
    if trainer_settings.compile:
        net.compile()
    start = 0

    def run(steps: int) -> None:
        nonlocal start
        for _ in range(steps):
            batch = source.to_batch(torch.arange(start, start + 8), "train", device)
            start += 8
            with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
                logits = net(batch.image.to(memory_format=task.memory_format))
                loss = loss_function(logits, batch.mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=100, help="timed steps of a fit, a multiple of 50 (default 100)")
    parser.add_argument("overrides", nargs="*", help="settings as for train.py")
    options = parser.parse_args()
    device = pick_device(options.device)
    node = settings([trainer_group(device), *options.overrides], options.steps)
    if options.steps < 1 or options.steps % node["trainer"]["log_every_n_steps"]:
        parser.error(f"--steps {options.steps}: must be a multiple of {node['trainer']['log_every_n_steps']}")
    loop = bare_loop(node, device)
    loop(WARM_UP)
    bare = timing(lambda: loop(options.steps), device, warm_up=False)
    measures = {"bare": lambda: bare() / options.steps, "fit": lambda: fit_seconds(node, options.steps)}
    times = interleave(measures, options.repeats)
    what = " ".join(["a training step through train.py's Trainer", *options.overrides])
    rows = [Row(what, "bare PyTorch loop", times["fit"], times["bare"], "cost", 1.10, unit="step")]
    report("trainer_overhead", rows, device, options.json)


if __name__ == "__main__":
    main()
