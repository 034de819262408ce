"""Makes the pictures in docs/images: `python docs/make_images.py [RUN]`.

RUN is the run directory of a texture training, whose predictions samples.png shows; without it samples.png is not made.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from segsweep import load_run, plots
from segsweep.data import DemoFolder, Textures

IMAGES = Path(__file__).parent / "images"
SIGMA = 15
"""Smoothing length of the border, from sections 3.1 and 3.2 of the texture notebook."""


def texture_pair(path: Path) -> Path:
    """Draws a texture beside its mask, with the smoothing lengths of the notebook's first example."""
    image, mask = Textures(sigma1=0.2, sigma2=2.5, sigma=SIGMA).make([0], "val")
    return plots.save(plots.texture_pair(image[0], mask[0], title=f"σ₁ = 0.2, σ₂ = 2.5, σ = {SIGMA}"), path)


def sigma_study(path: Path) -> Path:
    """Draws the notebook's section 3.2: the same mask and noise under eight pairs of smoothing lengths."""
    sigma1 = [value for value in (0.2, 1, 5, 10) for _ in range(2)]
    sigma2 = [round(value + (0.2, 1)[column % 2], 1) for column, value in enumerate(sigma1)]
    samples = [
        Textures(sigma1=first, sigma2=second, sigma=SIGMA).make([0], "val")
        for first, second in zip(sigma1, sigma2, strict=True)
    ]
    images = torch.cat([image for image, _ in samples])
    return plots.save(plots.sigma_study(images, sigma1, sigma2, mask=samples[0][1][0]), path)


def contact_sheet(path: Path) -> Path:
    """Draws scenes of experiment=rgb_demo."""
    with tempfile.TemporaryDirectory() as folder:
        source = DemoFolder(f"{folder}/scenes", scenes=(1, 3, 1))
        scenes = torch.utils.data.default_collate([source.dataset("val")[index] for index in range(3)])
        batch = source.to_batch(scenes, "val", torch.device("cpu"))
    figure = plots.contact_sheet(batch.image, batch.mask, source.labels.colors, class_names=source.labels.names)
    return plots.save(figure, path)


def samples(path: Path, run_directory: str) -> Path:
    """Draws four test images with the predictions of a trained run."""
    run = load_run(run_directory)
    images, masks = Textures().make(range(4), "test")
    predictions = np.stack([run.predict(image) for image in images])
    figure = plots.samples(images, masks, predictions, colors=run.labels.colors, class_names=run.labels.names)
    return plots.save(figure, path, dpi=90)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    for make in (texture_pair, sigma_study, contact_sheet):
        print(make(IMAGES / f"{make.__name__}.png"))
    if len(sys.argv) > 1:
        print(samples(IMAGES / "samples.png", sys.argv[1]))


if __name__ == "__main__":
    main()
