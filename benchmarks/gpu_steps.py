"""Training steps on a fixed batch, in every precision and batch size: eager, fused, as a CUDA graph, or compiled.

    python benchmarks/gpu_steps.py --device cuda --json steps.json
    python benchmarks/gpu_steps.py --device cuda --compiled --json compiled.json

Nets: the texture network of train.py's defaults at 128 x 128 with Adam, and the U-Net of unet_step.py at 320 x 320 with
SGD. A step is forward, loss, counts for the metrics, backward and the optimizer's step; batches are made before.

- eager: as train.py's step, without Lightning;
- fused: the same with the optimizer's fused kernel;
- graph: the step with the fused optimizer, captured once as a CUDA graph and replayed. At the smallest batch size its
  weights are compared with those of the same steps uncaptured;
- compiled: `torch.compile`, with the optimizer of "eager".

"trainer" is a step through train.py's own Trainer (trainer_overhead.py), batches included. At the end, two trainings from
one seed are compared bit for bit, with cuDNN's default algorithms and with its deterministic ones.

The file is written after every row. A way that fails has its error there, and `--seconds` ends the list.
"""

import dataclasses
import functools
import gc
import itertools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from hydra import compose, initialize_config_dir
from measure import CONF, Measure, arguments, environment, pick_device, timing, trainer_group
from torch import Tensor
from trainer_overhead import fit_seconds, settings
from unet_step import CLASSES, Training, unet
from unet_step import Variant as UNetVariant

from segsweep.data.source import Batch
from segsweep.errors import first_line
from segsweep.instantiate import build, to_plain
from segsweep.runs.files import write_json
from segsweep.tasks import SegmentationTask
from segsweep.training_setup import build_data, build_task

Net = Literal["texture", "unet"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Way = Literal["eager", "fused", "graph", "compiled", "trainer", "trainer compiled"]
DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
WARM_UP, CHECKED = 3, 5
"""Steps before a graph is captured, and replays after which its weights are compared."""


@dataclass(frozen=True)
class Sizes:
    """Batch sizes, image sizes, and the length of each measurement."""

    batches: tuple[int, ...] = (8, 32, 128)
    compiled_batches: tuple[int, ...] = (8, 32, 128)
    texture: int = 128
    unet: int = 320
    seconds: float = 0.2
    fit_steps: int = 200
    repeated_steps: int = 50


QUICK = Sizes(batches=(2, 4), compiled_batches=(2,), texture=32, unet=32, seconds=0.02, fit_steps=50, repeated_steps=2)


@dataclass(frozen=True)
class Variant:
    """One way to train a step."""

    net: Net
    batch_size: int
    precision: Precision
    way: Way

    def __str__(self) -> str:
        return f"{self.net}, batch of {self.batch_size}, {self.precision}, {self.way}"


def texture_task(variant: Variant, size: int, device: torch.device) -> tuple[SegmentationTask, Batch]:
    """The task of train.py's defaults, and a batch of textures."""
    changes = [
        f"data.batch_size={variant.batch_size}",
        f"data.image_size={size}",
        f"trainer.precision={variant.precision}",
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = to_plain(compose("train", overrides=[trainer_group(device), *changes]))
    torch.manual_seed(0)
    data = build_data(node["data"])
    task = build_task(node, data.source, build(node["trainer"], "trainer")).to(device).train()
    return task, data.source.to_batch(torch.arange(variant.batch_size), "train", device)


def unet_task(variant: Variant, size: int, device: torch.device) -> tuple[SegmentationTask, Batch]:
    """The task of unet_step.py, and a batch of noise with random masks."""
    settings = UNetVariant(cast(Any, variant.precision), channels_last=True)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(variant.batch_size, 3, size, size, generator=generator)
    mask = torch.randint(CLASSES, (variant.batch_size, size, size), generator=generator)
    batch = Batch(image.to(device), mask.to(device), torch.arange(variant.batch_size))
    return Training(unet("exact"), settings, device).task, batch


class Stepper:
    """Trains steps of a variant on one batch, without Lightning.

    Raises:
        UserError: this machine does not support the precision.
    """

    def __init__(self, variant: Variant, sizes: Sizes, device: torch.device) -> None:
        make, size = (texture_task, sizes.texture) if variant.net == "texture" else (unet_task, sizes.unet)
        self.task, self.batch = make(variant, size, device)
        self.device, self.dtype = device, DTYPES[variant.precision]
        self.optimizer = self.task.optimizer(self.task.net.parameters())
        if variant.way in ("fused", "graph"):
            faster = {"fused": True, "foreach": None}
            if "capturable" in self.optimizer.defaults:
                faster["capturable"] = device.type == "cuda"
            self.optimizer = type(self.optimizer)(self.task.net.parameters(), **self.optimizer.defaults | faster)
        self.scaler = torch.amp.GradScaler(device.type, enabled=variant.precision == "16-mixed")
        if variant.way == "compiled":
            self.task.net.compile()

    def step(self) -> None:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            loss = self.task.training_step(self.batch, 0)
        self.task.count_held()  # in every step, so that a captured one counts too
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def captured(self) -> Callable[[], None]:
        """The step as a CUDA graph, after `WARM_UP` ordinary steps.

        Raises:
            ValueError: the device is no GPU.
        """
        if self.device.type != "cuda":
            raise ValueError("a CUDA graph needs a GPU")
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        return graph.replay

    def weights(self) -> Tensor:
        return torch.cat([weight.detach().flatten() for weight in self.task.net.parameters()])


def measured(variant: Variant, sizes: Sizes, device: torch.device, repeats: int) -> dict[str, Any]:
    """Seconds of a step, and the most bytes that tensors took on a GPU."""
    if variant.way.startswith("trainer"):
        compiled = f"trainer.compile={variant.way == 'trainer compiled'}"
        changes = [trainer_group(device), f"trainer.precision={variant.precision}", f"data.image_size={sizes.texture}"]
        node = settings([*changes, compiled], sizes.fit_steps)
        measure: Measure = functools.partial(fit_seconds, node, sizes.fit_steps)
        rounds = min(repeats, 2)
    else:
        stepper, rounds = Stepper(variant, sizes, device), repeats
        step = stepper.captured() if variant.way == "graph" else stepper.step
        measure = timing(step, device, seconds=sizes.seconds)
    seconds = [measure() for _ in range(rounds)]
    row: dict[str, Any] = {"seconds": seconds, "steps_per_second": 1 / statistics.median(seconds)}
    row["images_per_second"] = variant.batch_size * row["steps_per_second"]
    row["peak_bytes"] = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    if variant.way == "graph" and variant.batch_size == min(sizes.batches):
        row["weights_apart"] = graph_error(variant, sizes, device)
    return row


def graph_error(variant: Variant, sizes: Sizes, device: torch.device) -> float:
    """Largest difference of weights between steps of a graph and the same steps uncaptured."""
    graph, plain = Stepper(variant, sizes, device), Stepper(variant, sizes, device)
    replay = graph.captured()
    for _ in range(CHECKED):
        replay()
    for _ in range(WARM_UP + CHECKED):
        plain.step()
    return float((graph.weights() - plain.weights()).abs().max())


def repeated(variant: Variant, sizes: Sizes, device: torch.device, deterministic: bool) -> dict[str, Any]:
    """Whether two trainings from one seed end with equal weights."""
    found = []
    before, torch.backends.cudnn.deterministic = torch.backends.cudnn.deterministic, deterministic
    try:
        for _ in range(2):
            stepper = Stepper(variant, sizes, device)
            for _ in range(sizes.repeated_steps):
                stepper.step()
            found.append(stepper.weights())
    finally:
        torch.backends.cudnn.deterministic = before
    return {"equal": torch.equal(*found), "apart": float((found[0] - found[1]).abs().max())}


def making(batch_size: int, sizes: Sizes, device: torch.device, repeats: int) -> dict[str, Any]:
    """Seconds to make a batch of textures."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = to_plain(compose("train", overrides=[f"data.image_size={sizes.texture}"]))
    source, starts = build_data(node["data"]).source, itertools.count(step=batch_size)

    def make() -> object:
        start = next(starts)
        return source.to_batch(torch.arange(start, start + batch_size), "train", device)

    measure = timing(make, device, seconds=sizes.seconds)
    return {"seconds": [measure() for _ in range(repeats)]}


def variants(sizes: Sizes, compiled: bool) -> list[Variant]:
    """Everything to measure, the most wanted first."""
    nets, precisions = get_args(Net), get_args(Precision)
    ways: tuple[Way, ...] = ("compiled",) if compiled else ("eager", "fused", "graph")
    batches = sizes.compiled_batches if compiled else sizes.batches
    steps = [Variant(*values) for values in itertools.product(nets, batches, precisions, ways)]
    steps.sort(key=lambda variant: variant.batch_size)
    trainer = [
        Variant("texture", 8, precision, "trainer compiled" if compiled else "trainer") for precision in precisions
    ]
    return [*steps, *trainer] if compiled else [*trainer, *steps]


class Results:
    """The content of the JSON file; a measurement that fails leaves its error.

    Args:
        file: written after every measurement; None writes nothing.
        device: device of the measurements.
        seconds: no measurement begins after so many.
    """

    def __init__(self, file: Path | None, device: torch.device, seconds: float) -> None:
        self.file, self.device, self.end = file, device, time.monotonic() + seconds
        self.content: dict[str, Any] = {"benchmark": "gpu_steps", "environment": environment(device)}
        self.content |= {"steps": [], "made": [], "repeated": [], "left_out": []}

    def add(self, part: str, what: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> None:
        name = ", ".join(str(value) for value in what.values())
        if time.monotonic() > self.end:
            self.content["left_out"].append(f"{part}: {name}")
        else:
            self._clear()
            try:
                found = measure()
            except Exception as error:  # one way that fails must not end the others
                found = {"error": f"{type(error).__name__}: {first_line(error)}"}
            self.content[part].append(what | found)
            print(f"{part}: {name}: {found}", flush=True)
        if self.file is not None:
            write_json(self.file, self.content)

    def _clear(self) -> None:
        """Drops what earlier measurements left: compiled nets, memory and its peak."""
        torch._dynamo.reset()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--compiled", action="store_true", help="measure compiled steps instead of the other ways")
    parser.add_argument("--quick", action="store_true", help="tiny images and few steps, to try the script")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no measurement after so many seconds")
    options = parser.parse_args()
    device, sizes = pick_device(options.device), QUICK if options.quick else Sizes()
    results = Results(options.json, device, options.seconds)
    for variant in variants(sizes, options.compiled):
        measure = functools.partial(measured, variant, sizes, device, options.repeats)
        results.add("steps", dataclasses.asdict(variant), measure)
    if options.compiled:
        return
    for size in sizes.batches:
        results.add("made", {"batch_size": size}, functools.partial(making, size, sizes, device, options.repeats))
    for net, precision, exact in itertools.product(get_args(Net), get_args(Precision), (False, True)):
        variant = Variant(net, min(sizes.batches), precision, "eager")
        what = {"net": net, "precision": precision, "deterministic": exact}
        results.add("repeated", what, functools.partial(repeated, variant, sizes, device, exact))


if __name__ == "__main__":
    main()
