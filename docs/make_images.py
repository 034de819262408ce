"""Makes the pictures in docs/images: `python docs/make_images.py [RUN]`.

RUN is the run directory of `python train.py`, as it was typed. Its predictions are in samples.png. What it printed at its
end is put into README.md between the marks `<!-- first run -->` and `<!-- end of first run -->`. Its run.json is copied
to docs/measured/first_run.json. Without RUN these stay as they are.
"""

import contextlib
import io
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from make_sweep import put_in

from segsweep import load_run, plots
from segsweep.cli.commands import print_result
from segsweep.data import DemoFolder, Textures
from segsweep.invocation import to_type
from segsweep.runs import RunRecord
from segsweep.runs.files import write_text

DOCS = Path(__file__).parent
IMAGES, FIRST_RUN = DOCS / "images", DOCS / "measured/first_run.json"
SIGMA = 15
"""Smoothing length of the border, from section 3.1 of the texture notebook."""


def texture_pair(path: Path) -> Path:
    """Draws a texture beside its mask, with the smoothing lengths of the notebook's first example."""
    image, mask = Textures(sigma1=0.2, sigma2=2.5, sigma=SIGMA).make([0], "val")
    return plots.save(plots.texture_pair(image[0], mask[0], title=f"σ₁ = 0.2, σ₂ = 2.5, σ = {SIGMA}"), path)


def contact_sheet(path: Path) -> Path:
    """Draws scenes of experiment=rgb_demo."""
    with tempfile.TemporaryDirectory() as folder:
        source = DemoFolder(f"{folder}/scenes", scenes=(1, 3, 1))
        scenes = torch.utils.data.default_collate([source.dataset("val")[index] for index in range(3)])
        batch = source.to_batch(scenes, "val", torch.device("cpu"))
    figure = plots.contact_sheet(batch.image, batch.mask, source.labels.colors, class_names=source.labels.names)
    return plots.save(figure, path)


def samples(path: Path, run_directory: str) -> Path:
    """Draws the first two test images with the predictions of a trained run."""
    run = load_run(run_directory)
    images, masks = Textures().make(range(2), "test")
    predictions = np.stack([run.predict(image) for image in images])
    figure = plots.samples(images, masks, predictions, colors=run.labels.colors, class_names=run.labels.names)
    return plots.save(figure, path, dpi=90)


def printed(record: RunRecord, directory: Path) -> str:
    """What `python train.py` prints at its end on a terminal of 80 columns or more, as a block of Markdown."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        print_result(record, directory, tests=True)
    text = out.getvalue().replace(to_type("evaluate"), "python evaluate.py")
    return "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines())


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    for make in (texture_pair, contact_sheet):
        print(make(IMAGES / f"{make.__name__}.png"))
    if len(sys.argv) > 1:
        print(samples(IMAGES / "samples.png", sys.argv[1]))
        run = Path(sys.argv[1])
        record = RunRecord.read(run / "run.json")
        readme = DOCS.parent / "README.md"
        write_text(readme, put_in(readme.read_text(encoding="utf-8"), "first run", printed(record, run)))
        record.write(FIRST_RUN)


if __name__ == "__main__":
    main()
