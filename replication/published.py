"""The figures that the two documents print (docs/sources.md), digit by digit, and the settings of their trainings."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from segsweep.plots.style import plain

LOSS, CONFIDENT = "train/loss_running", "train/confident_accuracy_running"
MOMENTUM_SGD, PLAIN_SGD = "SGD with momentum 0.9", "plain SGD"

FIRST_LOSSES: Mapping[int, float] = {
    1_000: 0.13996, 2_000: 0.096638, 3_000: 0.076834, 4_000: 0.065161, 5_000: 0.057315,
    6_000: 0.051751, 7_000: 0.047524, 8_000: 0.044245, 9_000: 0.041612, 10_000: 0.039440,
}  # fmt: skip
"""Plain SGD at 0.001: mean of the losses of all steps so far, by step (texture notebook, 3.3)."""

SECOND_SGD: Mapping[str, float] = {LOSS: 0.045060, CONFIDENT: 0.7185}
"""The row called SGD, which has momentum 0.9 too (texture notebook, 4.3)."""
ONE_BATCH = 0.8326
"""Share of confident pixels of one training batch, printed as "Precision" and called IoU (texture notebook, 4.2)."""

RATE_LOSSES: Mapping[float, float] = {
    0.00001: 0.13820, 0.0001: 0.035675, 0.001: 0.014514, 0.01: 0.013491,
    0.1: 0.026231, 0.5: 0.033673, 1.0: 0.072490, 5.0: 0.50313,
}  # fmt: skip
"""Adam, 1,000 steps: the same mean, by learning rate (texture notebook, 4.1)."""

LAYER_PARAMETERS: Mapping[str, int] = {"conv1": 448, "conv2": 6_416, "conv3": 6_416, "out": 401}
"""Parameters of the texture notebook's net; the only batch norm is counted with the first layer (3.3)."""
TEXTURE_PARAMETERS = 13_681
TEXTURE_SHAPE = (1, 1, 128, 128)
"""Shape of the net's input, its output and a mask."""

PRINTED_NORM = (1e-5, 0.1)
"""eps and momentum of the batch norm (3.3)."""
PRINTED_OPTIMIZER: Mapping[str, float | tuple[float, float] | bool] = {
    "lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False, "maximize": False,
}  # fmt: skip
"""State of the optimizer of the training that stood still (4.1)."""
PRINTED_TENSORS = 10
"""Number of parameter tensors of this optimizer."""
PRINTED_TIMES: Mapping[str, str] = {
    "texture_rates": "18 s, 52.9 to 53.6 steps/s", "texture_optimizers": "19 s, 51.8 to 52.5 steps/s",
    "texture_first": "3 min 11 s, 52.1 steps/s",
}  # fmt: skip
"""Time of one training by study, on an unnamed GPU (texture notebook, 3.3, 4.1 and 4.3)."""

UNET_INPUT = (8, 3, 320, 320)
UNET_LAYERS = (6, 3)
"""Numbers of convolutions and of transposed convolutions."""
UNET_SHAPES: tuple[tuple[str, tuple[int, int, int, int]], ...] = (
    ("out1", (8, 32, 320, 320)),
    ("out1 after ReLU", (8, 32, 320, 320)),
    ("out2", (8, 64, 320, 320)),
    ("out2 after ReLU", (8, 64, 320, 320)),
    ("out3", (8, 128, 160, 160)),
    ("out3 after ReLU", (8, 128, 160, 160)),
    ("out4", (8, 64, 320, 320)),
    ("out4 after concatenation", (8, 128, 320, 320)),
    ("out4 after conv4", (8, 64, 160, 160)),
    ("out4 after ReLU", (8, 64, 160, 160)),
    ("out5", (8, 32, 320, 320)),
    ("out5 after concatenation", (8, 64, 320, 320)),
    ("out5 after conv5", (8, 32, 320, 320)),
    ("out after ReLU", (8, 32, 320, 320)),
    ("out6", (8, 16, 640, 640)),
    ("final output", (8, 6, 320, 320)),
)
"""U-Net report, Our Model layer architecture."""
UNET_PARAMETERS = 282_486
"""Computed from the layers; the report prints no number."""

OVERFIT_IOU = 0.8549
"""Two samples after 50 steps, printed as 85.49; all classes but the background count as one."""
TEST_IOU = 0.498
"""The U-Net report's last training on its test set, by the same measure."""


PUBLISHED = "published"
VARIANTS: Mapping[str, str] = {
    "blocks_1": "One block instead of three",
    "blocks_2": "Two blocks instead of three",
    "blocks_4": "Four blocks instead of three",
    "channels_32": "32 channels instead of 16",
    "channels_4": "4 channels instead of 16",
    "channels_8": "8 channels instead of 16",
    "dilation_2": "The blocks' taps lie 2 pixels apart instead of 1",
    "kernel_1": "Kernels of 1x1 instead of 5x5: each pixel by its own brightness alone",
    "kernel_3": "Kernels of 3x3 instead of 5x5",
    "kernel_7": "Kernels of 7x7 instead of 5x5",
    "norm_block": "A batch norm for each block instead of one scale and shift for all three",
    "norm_none": "No batch norm",
    "published": "The texture notebook's net as it is, to compare the others with",
    "residual": "The second and the third block add their input to their output",
}
"""Nets of the ablation (files of conf/model/ablation), and how each differs from the published one."""


@dataclass(frozen=True)
class Setting:
    """A training of one of the documents, or of an open question; one run for each seed.

    Args:
        name: name for a reader.
        overrides: overrides for train.py.
        printed: printed figures by column of metrics.csv.
    """

    name: str
    overrides: tuple[str, ...]
    printed: Mapping[str, float] = field(default_factory=dict)

    @property
    def needs_folder(self) -> bool:
        """Whether it trains on a folder of images, which this project does not contain."""
        return "data=folder" in self.overrides


@dataclass(frozen=True)
class Study:
    """Settings that are compared.

    Args:
        command: arguments of train.py that train all settings; seeds and a name are added.
        settings: the settings.
    """

    command: tuple[str, ...]
    settings: tuple[Setting, ...]

    @property
    def needs_folder(self) -> bool:
        return any(setting.needs_folder for setting in self.settings)


RATES = (0.001, 0.01, 0.1)
"""Learning rates that the U-Net report tunes at momentum 0.9; the notebook's rates include them."""
MOMENTA = (0.9, 0.5, 0.1)
"""The report names 0.1 and starts from 0.9; 0.5 is our choice between them."""

CROP, EPOCH = 96, 20
"""Pixels a side, because the report's 320 take hours; and steps an epoch, because its data are not known."""
SMALL_RGB = (f"data.image_size={CROP}", f"data.samples_per_epoch={8 * EPOCH}")

DUBAI = (
    "data=folder", "data.labels=dubai", "data.split=groups", "data.train=[Tile 1,Tile 2,Tile 3,Tile 4]",
    "data.val=[Tile 5]", "data.test=[Tile 6]",
)  # fmt: skip
"""The aerial images of Dubai, with the splits of experiment=dubai; data.root is added."""


def _texture_rates() -> Study:
    settings = tuple(
        Setting(f"Adam {plain(rate)}", ("experiment=texture_adam", f"lr={plain(rate)}"), {LOSS: printed})
        for rate, printed in RATE_LOSSES.items()
    )
    return Study(("study=texture_rates",), settings)


def _texture_optimizers() -> Study:
    printed = {
        "Adam": ("texture_adam", 0.014081, 0.9182),
        "RMSprop": ("texture_rmsprop", 0.013566, 0.9356),
        MOMENTUM_SGD: ("texture_momentum", 0.038248, 0.7434),
    }
    settings = [
        Setting(name, (f"experiment={experiment}",), {LOSS: loss, CONFIDENT: confident})
        for name, (experiment, loss, confident) in printed.items()
    ]
    meant = ("experiment=texture_sgd", "trainer.max_steps=1000")
    # The notebook's four rows lack plain SGD; its printed loss is that of the first training after 1,000 steps.
    settings.append(Setting(PLAIN_SGD, meant, {LOSS: FIRST_LOSSES[1_000]}))
    return Study(("study=texture_optimizers",), tuple(settings))


def _rgb(name: str, data: tuple[str, ...], best_rate: float) -> dict[str, Study]:
    """The U-Net report's trainings on some data, and its tuning of the momentum at our best rate if that differs."""
    report = ("experiment=rgb_report", *data, *SMALL_RGB)
    # The report does not name the overfit's optimizer: use the tuning's first and last momentum.
    overfit = (
        *report, "debug=overfit", "trainer.log_every_n_steps=1", "trainer.max_epochs=null", "trainer.max_steps=50", "lr=0.1"
    )  # fmt: skip
    tuned = (*report, "objective=val/loss", "trainer.test=false")
    last = (*report, "objective=val/loss", "lr=0.1", "momentum=0.1")
    # The report's protocol: tune the momentum at the best rate, then test.
    own = {f"{name}_own": _grid((*report, "objective=val/loss", f"lr={plain(best_rate)}"), "momentum", MOMENTA)}
    return {
        f"{name}_overfit": _grid(overfit, "momentum", (0.9, 0.1), {"val/foreground_iou": OVERFIT_IOU}),
        f"{name}_rates": _grid((*tuned, "momentum=0.9"), "lr", RATES),
        f"{name}_momenta": _grid((*tuned, "lr=0.1"), "momentum", MOMENTA),
        f"{name}_final": Study(last, (Setting("0.1, momentum 0.1", last, {"test/foreground_iou": TEST_IOU}),)),
        **(own if best_rate != 0.1 else {}),
    }


def _grid(
    fixed: tuple[str, ...], key: str, choices: tuple[float, ...], printed: Mapping[str, float] | None = None
) -> Study:
    """A setting for each choice of one key; the choice is its name."""
    settings = tuple(Setting(plain(choice), (*fixed, f"{key}={plain(choice)}"), printed or {}) for choice in choices)
    return Study((*fixed, f"{key}={','.join(map(plain, choices))}"), settings)


FIRST = Setting("plain SGD 0.001", ("experiment=texture_sgd",))
STOOD_STILL = Setting("Adam, 0.1 falling by 5 % an epoch, BCE", ("experiment=texture_exponential",))

STUDIES: Mapping[str, Study] = {
    "texture_rates": _texture_rates(),
    "texture_optimizers": _texture_optimizers(),
    # The notebook calls 0.001 SGD's best rate too, but prints no figure for another rate.
    "texture_sgd_rates": _grid(("experiment=texture_sgd", "trainer.max_steps=1000"), "lr", RATES),
    "texture_first": Study(FIRST.overrides, (FIRST,)),
    "texture_exponential": Study(STOOD_STILL.overrides, (STOOD_STILL,)),
    **_rgb("demo", ("data=rgb_demo",), best_rate=0.01),
    **_rgb("dubai", DUBAI, best_rate=0.1),
    "ablation": Study(
        ("study=ablation",),
        tuple(Setting(name, ("experiment=texture_adam", f"model=ablation/{name}")) for name in VARIANTS),
    ),
}
"""All trainings with a printed figure, a conclusion or an open question, by name."""


def named(study: str, setting: Setting) -> str:
    """The name of a study's setting in the collected results."""
    return f"{study}: {setting.name}"


def tuning(data: str) -> dict[str, str]:
    """The settings of the U-Net report's tuning on some data: their labels, and their names in the collected results."""
    rates, momenta = f"{data}_rates", f"{data}_momenta"
    return {f"rate {setting.name}, momentum 0.9": named(rates, setting) for setting in STUDIES[rates].settings} | {
        f"rate 0.1, momentum {setting.name}": named(momenta, setting)
        for setting in STUDIES[momenta].settings
        if setting.name != "0.9"  # the same as rate 0.1, momentum 0.9
    }
