"""`run.predict` takes an image in any form, and the form does not matter."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from segsweep.data import Textures
from segsweep.data.demo import DEMO_LABELS
from segsweep.errors import UserError
from segsweep.image_files.pillow import ORIENTATION
from segsweep.nets import TextureCNN, UNet
from segsweep.runs.load import Run

FOLDER = {"_target_": "segsweep.data.FolderSource"}


@pytest.fixture(scope="module")
def colour_run() -> Run:
    labels = DEMO_LABELS
    torch.manual_seed(0)
    net = UNet(in_channels=3, out_channels=len(labels), widths=[4, 4, 8]).eval()
    return Run(Path("best.ckpt"), {"data": FOLDER}, labels, "multiclass", 3, 1, net)


@pytest.fixture(scope="module")
def texture_run() -> Run:
    labels = Textures(image_size=16).labels
    config = {"data": {"_target_": "segsweep.data.Textures"}}
    return Run(Path("best.ckpt"), config, labels, "binary", 1, 1, TextureCNN().eval())


@pytest.mark.filterwarnings("error")  # torch warns of read-only memory
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 99), st.integers(8, 20), st.integers(8, 20), st.sampled_from([1, 3, 6, 8]))
def test_a_file_a_pillow_image_an_array_and_a_tensor_give_one_answer(
    colour_run: Run, tmp_path: Path, seed: int, height: int, width: int, orientation: int
):
    pixels = np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[ORIENTATION] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    upright = {1: pixels, 3: pixels[::-1, ::-1], 6: np.rot90(pixels, -1), 8: np.rot90(pixels)}[orientation]
    array = upright.transpose(2, 0, 1)
    expected = colour_run.probabilities(torch.from_numpy(array.copy()).float() / 255)
    with Image.open(tmp_path / "a.png") as opened:
        forms = [tmp_path / "a.png", str(tmp_path / "a.png"), opened, array, torch.from_numpy(array.copy())]
        for form in forms:
            np.testing.assert_array_equal(colour_run.probabilities(form), expected)
            np.testing.assert_array_equal(colour_run.predict(form), expected.argmax(0))
    read_only = np.array(array)
    read_only.setflags(write=False)
    np.testing.assert_array_equal(colour_run.probabilities(read_only), expected)


def test_a_net_trained_on_textures_takes_gray_images_only(texture_run: Run, tmp_path: Path):
    gray = np.random.default_rng(0).integers(256, size=(16, 12), dtype=np.uint8)
    expected = texture_run.probabilities(gray)
    as_colour = Image.fromarray(np.stack([gray] * 3, axis=2))
    for image in (Image.fromarray(gray), as_colour):
        np.testing.assert_array_equal(texture_run.probabilities(image), expected)
    as_colour.putpixel((0, 0), (255, 0, 0))
    as_colour.save(tmp_path / "red.png")
    for form, name in ((as_colour, "the image"), (tmp_path / "red.png", "red.png")):
        with pytest.raises(UserError, match=rf"{name}: is a colour image"):
            texture_run.predict(form)


def test_an_array_with_the_bands_last_is_refused_with_its_shape(colour_run: Run):
    with pytest.raises(ValueError, match=r"\[10, 12, 3\]: give \[3, height, width\]"):
        colour_run.predict(np.zeros((10, 12, 3), np.uint8))
