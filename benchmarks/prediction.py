"""Speed of predict for many small images and for a large one, against one image or tile at a time.

    python benchmarks/prediction.py
    python benchmarks/prediction.py --megapixels 100 --precision bf16-mixed

Trains a texture net for a few steps. Then writes the masks of small images of 128 x 128 pixels and of a large square image;
files are read and written too. The baseline computes one image or one tile of 1,024 pixels at a time, on all cores, in
float32.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args
from unittest import mock

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from measure import CONF, Measure, Row, arguments, interleave, pick_device, report, trainer_group
from PIL import Image

from segsweep import load_run
from segsweep.data.textures import Textures
from segsweep.prediction import predict
from segsweep.prediction_net import BATCH, NetPrecision, PredictionNet
from segsweep.runs.load import Run
from segsweep.training import train

SIZE = 128
STEPS = ["trainer.max_steps=60", "trainer.progress_bar=false", "trainer.test=false", "callbacks.graph=null"]
TARGET = 1.5


def trained(folder: Path, device: torch.device) -> Run:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        train(compose("train", overrides=[trainer_group(device), *STEPS]), folder)
    return load_run(folder)


def write_images(folder: Path, images: int, side: int) -> None:
    """Writes `small/`, with texture images, and `large/`, with one of `side` pixels that repeats them."""
    textures = np.concatenate(
        [Textures(SIZE, test_size=images).make([index], "test")[0].numpy()[0] for index in range(images)]
    )
    pixels = (textures * 255).round().astype(np.uint8)
    for name in ("small", "large"):
        (folder / name).mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"small/{index:04}.png")
    row = np.concatenate(pixels, axis=1)
    tiles = np.tile(row, (-(-side // SIZE), -(-side // row.shape[1])))
    Image.fromarray(tiles[:side, :side]).save(folder / "large/image.png", compress_level=1)


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Computes images and tiles one after the other, each on all cores."""
    with (
        mock.patch.dict(BATCH, {"cpu": 1, "cuda": 1}),
        mock.patch.object(PredictionNet, "at_once", return_value=1),
        mock.patch.object(PredictionNet, "layout", lambda net, height, width: (net.tile, net.overlap)),
    ):
        yield


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--images", type=int, default=200, help="small images (default 200)")
    parser.add_argument("--megapixels", type=float, default=16, help="pixels of the large image (default 16 million)")
    parser.add_argument("--precision", choices=get_args(NetPrecision), default="auto", help="of ours (default auto)")
    options = parser.parse_args()
    device = pick_device(options.device)
    side = round((options.megapixels * 1e6) ** 0.5)
    units = {"small": options.images, "large": side * side / 1e6}

    def measure(run: Run, folder: Path, name: str, baseline: bool) -> Measure:
        def once() -> float:
            with one_at_a_time() if baseline else contextlib.nullcontext():
                started = time.perf_counter()
                predict(
                    run,
                    folder / name,
                    folder / f"masks of {name}",
                    overwrite=True,
                    accelerator="gpu" if device.type == "cuda" else "cpu",
                    precision="32-true" if baseline else options.precision,
                )
                return (time.perf_counter() - started) / units[name]

        return once

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = trained(folder / "run", device)
        write_images(folder, options.images, side)
        measure(run, folder, "small", baseline=False)()  # fills the disk cache
        measures = {
            f"{name} {baseline}": measure(run, folder, name, baseline) for name in units for baseline in (True, False)
        }
        times = interleave(measures, options.repeats)
    what = {
        "small": (f"{options.images} images of {SIZE} x {SIZE}", "image"),
        "large": (f"an image of {side:,} x {side:,}", "megapixel"),
    }
    rows = [
        Row(
            title, "one image or tile at a time", times[f"{name} False"], times[f"{name} True"], "speedup", TARGET, unit
        )
        for name, (title, unit) in what.items()
    ]
    report("predict", rows, device, options.json)
    small, large = (1 / np.median(row.ours) for row in rows)
    print(f"{small:.3g} images/s of {SIZE} x {SIZE}; {large:.3g} megapixels/s of the large image")


if __name__ == "__main__":
    main()
