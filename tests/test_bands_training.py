"""A class that is visible in the fourth band only, from the files to a prediction, on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import SMALL, Command

tifffile = pytest.importorskip("tifffile")

SETTINGS = [
    *(entry for entry in SMALL if entry != "debug=fast"), "data=folder", "data.root=plants", "data.image_size=32",
    "data.batch_size=4", "lr=0.01", "model.widths=[8,8,8]", "trainer.log_every_n_steps=20",
]  # fmt: skip


@pytest.fixture
def plants(tmp_path: Path) -> Path:
    """Ten images of four 16-bit bands: three hold noise, and the class is bright in the fourth, infrared."""
    root = tmp_path / "plants"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(10):
        draw = np.random.default_rng(number)
        mask = np.kron(draw.random((3, 3)) > 0.5, np.ones((16, 16))).astype(np.uint8)
        bands = np.dstack([draw.integers(80, 120, (48, 48, 3)), np.where(mask, 220, 40)]).astype(np.uint16) * 257
        tifffile.imwrite(root / f"images/{number}.tif", bands, photometric="rgb", extrasamples=["unspecified"])
        Image.fromarray(mask * 255).save(root / f"masks/{number}.png")
    (root / "classes.csv").write_text("name,r,g,b\nbackground,0,0,0\nplant,255,255,255\n")
    return root


@pytest.mark.slow
def test_a_class_in_the_fourth_band_only_is_learnt_with_four_channels_and_three_are_refused(
    command: Command, plants: Path, tmp_path: Path
) -> None:
    outcome = command("check_data.py", f"data.root={plants}")
    assert outcome.code == 1
    (line,) = (line for line in outcome.out.splitlines() if "data.channels=4" in line)
    assert "10 files" in line
    assert command("train.py", *SETTINGS).code == 1

    outcome = command("check_data.py", f"data.root={plants}", "data.channels=4")
    assert outcome.code == 0, outcome.err
    assert "4 bands of uint16 (10)" in outcome.out
    (depth,) = [line for line in outcome.out.splitlines() if "depth: 10 images" in line]
    assert str(220 * 257) in depth
    outcome = command("train.py", *SETTINGS, "data.channels=4", "trainer.max_steps=80", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert json.loads((tmp_path / "run/run.json").read_text())["metrics"]["test/iou/plant"] > 0.9

    assert command("evaluate.py", "run=run", "hydra.run.dir=evaluation", "accelerator=cpu").code == 0
    scored = json.loads((tmp_path / "evaluation/evaluation.json").read_text())["metrics"]
    assert scored["iou/plant"] > 0.9
    outcome = command(
        "predict.py", "run=run", f"input={plants}/images", "output=out", "overlays=true", "accelerator=cpu"
    )
    assert outcome.code == 0, outcome.err
    # `data.bands` skips a fifth band in front.
    with_another = np.insert(tifffile.imread(plants / "images/0.tif"), 0, 65535, axis=2)
    np.save(tmp_path / "five.npy", with_another)
    asked = ["predict.py", "run=run", "input=five.npy", "output=five", "accelerator=cpu"]
    assert command(*asked).code == 1
    assert command(*asked, "data.bands=[1,2,3,4]").code == 0
    masks = [np.asarray(Image.open(tmp_path / name)) for name in ("out/masks/0.png", "five/masks/five.png")]
    assert np.array_equal(*masks)
    outcome = command("export.py", "run=run", "format=torch_export")
    assert outcome.code == 0, outcome.err
