"""A training step of the U-Net at every combination of memory format, precision and compilation, against the printed one.

    python benchmarks/unet_step.py --device cpu
    python benchmarks/unet_step.py --no-monai

The batch is [8, 3, 320, 320] with six classes. A step is forward, cross-entropy, the counts for the metrics, backward and
SGD's step, for every net. The baseline is the architecture that the U-Net report prints, which upsamples to 640 x 640 and
reads every second pixel: head="plain", float32, contiguous, not compiled. Before the timing, the logits of every float32
variant are compared with those of the baseline.

Then the fastest variant is timed again against the baseline, so that a lucky measurement cannot meet the target. MONAI's
BasicUNet is timed too, against ours with the same batch, precision, memory format and compilation: the fastest variant in
which MONAI's net trains.
"""

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from measure import Row, arguments, interleave, pick_device, report, timing
from torch import Tensor, nn

from segsweep.classes import ClassTable, LabelClass
from segsweep.data.source import Batch
from segsweep.nets import UNet
from segsweep.tasks import SGD, CrossEntropy, MulticlassTask
from segsweep.trainer_settings import TrainerSettings

SHAPE, CLASSES = (8, 3, 320, 320), 6
TOLERANCE = 1e-5
"""Largest difference of float32 logits from the baseline's."""
MONAI_PARAMETERS = 1_979_174


Precision = Literal["32-true", "bf16-mixed"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class Variant:
    """Settings of the `trainer` group."""

    precision: Precision = "32-true"
    channels_last: bool = False
    compile: bool = False

    def __str__(self) -> str:
        words = [self.precision, "channels_last" if self.channels_last else "contiguous"]
        return " ".join([*words, "compiled"] if self.compile else words)


VARIANTS = [Variant(*values) for values in itertools.product(PRECISIONS, (False, True), (False, True))]
PRINTED = "the printed architecture, 32-true contiguous"


class Training:
    """A net with its task and optimizer.

    Args:
        net: maps images [B, 3, H, W] to logits [B, 6, H, W].
        variant: training settings.
        device: device to train on.

    Raises:
        ValueError: this machine does not support the variant.
    """

    def __init__(self, net: nn.Module, variant: Variant, device: torch.device) -> None:
        # Raises if this machine does not support the settings.
        TrainerSettings(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            precision=variant.precision,
            channels_last=variant.channels_last,
            compile=variant.compile,
        )
        labels = ClassTable(
            [LabelClass(position, f"class {position}", (position, 0, 0)) for position in range(CLASSES)]
        )
        task = MulticlassTask(net, CrossEntropy(), labels, SGD(lr=0.01), channels_last=variant.channels_last)
        self.task = task.to(device).train()
        self.optimizer = task.optimizer(task.net.parameters())
        self.device = device
        self.mixed = variant.precision == "bf16-mixed"
        if variant.compile:
            task.net.compile()

    def step(self, batch: Batch) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            loss = self.task.training_step(batch, 0)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def unet(head: Literal["exact", "plain"]) -> UNet:
    """Our U-Net with the same weights every time."""
    torch.manual_seed(0)
    return UNet(out_channels=CLASSES, head=head)


def basic_unet() -> nn.Module:
    """MONAI's BasicUNet with its defaults, for two dimensions, three channels and six classes.

    Raises:
        ImportError: MONAI is not installed.
    """
    from monai.networks.nets import BasicUNet

    net: nn.Module = BasicUNet(spatial_dims=2, in_channels=SHAPE[1], out_channels=CLASSES)
    count = sum(parameter.numel() for parameter in net.parameters())
    assert count == MONAI_PARAMETERS, f"BasicUNet has {count:,} parameters instead of {MONAI_PARAMETERS:,}"
    return net


def logits(training: Training, image: Tensor) -> Tensor:
    """Logits in float32 without TF32, on every device."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        return training.task(image).detach()  # with gradients: compiles the same graph as the timed step


def variants(printed: Training, batch: Batch, device: torch.device) -> dict[Variant, Training]:
    """All variants that this machine supports; float32 variants are checked against the printed architecture.

    Raises:
        SystemExit: a variant's logits differ.
    """
    expected = logits(printed, batch.image)
    found = {}
    for variant in VARIANTS:
        try:
            training = Training(unet("exact"), variant, device)
        except ValueError as error:
            print(f"left out: {variant}: {error}")
            continue
        found[variant] = training
        if not training.mixed:
            apart = float((logits(training, batch.image) - expected).abs().max())
            print(f"{variant}: logits differ from the printed architecture's by {apart:.1e} at most")
            if not apart <= TOLERANCE:
                raise SystemExit(f"error: {variant}: more than {TOLERANCE:g}, so this is not the same net")
    return found


def monai(fastest: Sequence[Variant], batch: Batch, device: torch.device) -> tuple[Variant, Training] | None:
    """MONAI's net in the first of these variants in which it trains; None if MONAI is not installed."""
    for variant in fastest:
        try:
            training = Training(basic_unet(), variant, device)
            training.step(batch)
        except ImportError as error:
            print(f"left out: MONAI's BasicUNet: {error}; pip install monai")
            return None
        except Exception as error:  # torch 2.13's inductor computes wrong strides for the padding in channels_last
            print(f"left out: MONAI's BasicUNet, {variant}: {type(error).__name__}: {str(error).splitlines()[0]}")
        else:
            return variant, training
    return None


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--no-monai", action="store_true", help="leave out MONAI's BasicUNet")
    options = parser.parse_args()
    device = pick_device(options.device)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(SHAPE, generator=generator)
    mask = torch.randint(CLASSES, (SHAPE[0], *SHAPE[2:]), generator=generator)
    batch = Batch(image.to(device), mask.to(device), torch.arange(SHAPE[0]))

    def timed(training: Training) -> Callable[[], float]:
        return timing(lambda: training.step(batch), device)

    printed = Training(unet("plain"), Variant(), device)
    trainings = variants(printed, batch, device)
    measures = {PRINTED: timed(printed)} | {str(variant): timed(training) for variant, training in trainings.items()}
    times = interleave(measures, options.repeats)
    rows = [Row(str(variant), PRINTED, times[str(variant)], times[PRINTED], "speedup", unit="step")
            for variant in trainings]  # fmt: skip

    fastest = sorted(trainings, key=lambda variant: statistics.median(times[str(variant)]))
    best, same = fastest[0], None if options.no_monai else monai(fastest, batch, device)
    again = {PRINTED, str(best)} | ({str(same[0])} if same else set())
    measures = {name: measure for name, measure in measures.items() if name in again}
    if same:
        measures["monai"] = timed(same[1])
    times = interleave(measures, options.repeats)
    target = 3.5 if device.type == "cpu" else None
    rows.append(Row(f"best: {best}", PRINTED, times[str(best)], times[PRINTED], "speedup", target, unit="step"))
    if same:
        variant = str(same[0])
        against = f"MONAI's BasicUNet ({MONAI_PARAMETERS:,} parameters), {variant}"
        rows.append(Row(variant, against, times[variant], times["monai"], "speedup", unit="step"))
    report("unet_step", rows, device, options.json)


if __name__ == "__main__":
    main()
