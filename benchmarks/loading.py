"""Time to load a batch of a folder, against a training step.

    python benchmarks/loading.py PATH --device cpu
    python benchmarks/loading.py PATH trainer.compile=true

PATH and further settings are as for folder_baselines.py. Loading runs with data.num_workers=0, so it does not overlap with
the step: crops, collation, the move to the device, flips and turns. The step is forward, loss, counts, backward and the
optimizer's step on a batch in memory. The clock starts after one epoch of loading; the time to decode the files is printed.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from folder_baselines import folder_arguments, opened
from measure import Row, arguments, interleave, pick_device, report, timing, trainer_group
from torch.utils.data import DataLoader

from segsweep.data.source import Batch, TrainBatches
from segsweep.datamodule import SegmentationDataModule
from segsweep.instantiate import build
from segsweep.training_setup import build_data, build_task


def training_batches(data: SegmentationDataModule, device: torch.device) -> Iterator[Batch]:
    """Yields the batches of all epochs, as the DataModule's own loader does without workers."""
    steps = 0
    batches = TrainBatches(data.source.size("train"), data.batch_size, lambda: steps)
    loader: DataLoader[Any] = DataLoader(
        data.source.dataset("train"),
        batch_sampler=batches,
        num_workers=0,
        pin_memory=device.type == "cuda",
    )
    while True:
        for collated in loader:
            steps += 1
            yield data.source.to_batch(collated, "train", device)


def stepper(
    node: dict[str, Any], data: SegmentationDataModule, batch: Batch, device: torch.device
) -> Callable[[], None]:
    """A function that trains one step on `batch`, as configured."""
    settings = build(node["trainer"], "trainer")
    if settings.precision == "16-mixed":
        raise SystemExit("trainer.precision=16-mixed: this loop has no loss scaling; use 32-true or bf16-mixed")
    task = build_task(node, data.source, settings).to(device).train()
    optimizer = task.optimizer(task.net.parameters())
    if settings.compile:
        task.net.compile()
    mixed = settings.precision == "bf16-mixed"

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = task.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def main() -> None:
    parser = arguments(__doc__, repeats=15)
    folder_arguments(parser)
    options = parser.parse_args()
    device = pick_device(options.device)
    with opened(options.folder, [trainer_group(device), *options.overrides]) as (node, _):
        data = build_data(node["data"])
        epoch = data.source.size("train") // data.batch_size
        start = time.perf_counter()
        batches = training_batches(data, device)
        batch = next(batches)
        print(f"decoding the files and the first batch: {time.perf_counter() - start:.1f} s, once")
        for _ in itertools.islice(batches, epoch - 1):
            pass
        measures = {
            "step": timing(stepper(node, data, batch, device), device),
            "loading": timing(lambda: next(batches), device),
        }
        times = interleave(measures, options.repeats)
        shape = list(batch.image.shape)
        trainer = node["trainer"]
    settings = f"{trainer['precision']}, channels_last={trainer['channels_last']}, compile={trainer['compile']}"
    row = Row(
        f"loading a batch {shape} without workers", f"the training step ({settings})",
        times["loading"], times["step"], "cost", 0.05, unit="batch",
    )  # fmt: skip
    report("loading", [row], device, options.json)


if __name__ == "__main__":
    main()
