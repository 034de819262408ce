"""A training step at every combination of memory format, precision and compilation, against the notebook's loop.

    python benchmarks/step.py --device cpu

A step makes the batch and does forward, loss, the counts for the metrics, backward and the optimizer's step, for the
published texture network with the notebook's settings (experiment=texture_sgd). Compilation is not timed. On a CPU the
notebook's loop takes about half a minute a step, so it is measured only in the first and the last round.
`python train.py debug=speed` compares these settings with each other, for any training.
"""

import itertools
import statistics
from collections.abc import Callable, Sequence

import torch
from hydra import compose, initialize_config_dir
from measure import CONF, Row, arguments, interleave, pick_device, report, timing, trainer_group
from published import PublishedLoop

from segsweep.errors import UserError
from segsweep.instantiate import build, to_plain
from segsweep.training_setup import build_data, build_task

CHOICES = {
    "trainer.precision": ("32-true", "bf16-mixed"),
    "trainer.channels_last": ("false", "true"),
    "trainer.compile": ("false", "true"),
}
VARIANTS = [
    tuple(f"{key}={value}" for key, value in zip(CHOICES, values, strict=True))
    for values in itertools.product(*CHOICES.values())
]
PLAIN = " ".join(VARIANTS[0])


def stepper(overrides: Sequence[str], device: torch.device) -> Callable[[], None]:
    """A function that trains one step, with the settings of train.py and these overrides.

    Raises:
        UserError: this machine does not support the settings.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = ["experiment=texture_sgd", trainer_group(device), *overrides]
        node = to_plain(compose("train", overrides=overrides))
    trainer_settings = build(node["trainer"], "trainer")
    data = build_data(node["data"])
    task = build_task(node, data.source, trainer_settings).to(device).train()
    optimizer = task.optimizer(task.net.parameters())
    if trainer_settings.compile:
        task.net.compile()
    starts = itertools.count(step=data.batch_size)
    mixed = trainer_settings.precision == "bf16-mixed"

    def step() -> None:
        start = next(starts)
        batch = data.source.to_batch(torch.arange(start, start + data.batch_size), "train", device)
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = task.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def main() -> None:
    options = arguments(__doc__).parse_args()
    device = pick_device(options.device)
    slow = device.type == "cpu"
    measures = {}
    for overrides in VARIANTS:
        try:
            measures[" ".join(overrides)] = timing(stepper(overrides, device), device)
        except UserError as error:
            print(f"left out: {error}")
    variants = list(measures)
    measures["notebook"] = timing(PublishedLoop(device).step, device, warm_up=not slow)
    times = interleave(measures, options.repeats, rarely={"notebook"} if slow else ())
    rows = [
        Row(name, "the plain settings", times[name], times[PLAIN], "speedup", unit="step")
        for name in variants
        if name != PLAIN
    ]
    against, baseline = "the notebook's loop", times["notebook"]
    rows += [Row(name, against, times[name], baseline, "speedup", unit="step") for name in variants]
    best = min(variants, key=lambda name: statistics.median(times[name]))
    target = 250 if slow else None
    rows.append(Row(f"best: {best}", against, times[best], baseline, "speedup", target, unit="step"))
    report("step", rows, device, options.json)


if __name__ == "__main__":
    main()
