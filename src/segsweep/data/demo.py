"""A folder of six-class RGB scenes made of Gaussian processes, to try segsweep without images of your own.

Shapes: H = W pixels, K classes.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from segsweep.classes import ClassTable, LabelClass
from segsweep.classes.mask_files import write_mask
from segsweep.data.folder import FolderSource
from segsweep.errors import UserError
from segsweep.gaussian_filter import toeplitz_gaussian
from segsweep.instantiate import AtLeast1, checked

DEMO_LABELS = ClassTable(
    [
        LabelClass(0, "Ground", (128, 128, 128)),
        LabelClass(1, "Grass", (0, 158, 115)),
        LabelClass(2, "Forest", (0, 92, 60)),
        LabelClass(3, "Water", (0, 114, 178)),
        LabelClass(4, "Sand", (240, 228, 66)),
        LabelClass(5, "Rock", (204, 121, 167)),
    ],
    background="Ground",
)

# Mean colour of each class in images; its colour in masks is another.
_TINTS = ((132, 112, 92), (96, 148, 70), (38, 84, 48), (48, 96, 152), (214, 190, 140), (104, 104, 110))
# Each class's texture: spread (values of 255) and smoothing (pixels). The colours of the classes overlap, so
# colour alone does not tell them apart.
_SPREAD = (26.0, 34.0, 30.0, 10.0, 16.0, 40.0)
_SMOOTHNESS = (0.6, 1.0, 2.5, 4.0, 0.5, 1.6)
_REGION = 1 / 14
"""Smoothing of the fields that decide the regions, as a fraction of the scene's side."""


def demo_scene(size: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draws one scene: each class has a smooth random field, and a pixel gets the class whose field is largest there.

    Args:
        size: height and width in pixels, at least 16.
        seed: seed of the scene.

    Returns:
        image uint8 [H, W, 3] and mask uint8 [H, W] of class positions.
    """
    classes = len(DEMO_LABELS)
    noise = torch.randn(classes, 4, size, size, generator=torch.Generator().manual_seed(seed))
    regions = toeplitz_gaussian(size, size * _REGION)
    fields = regions @ noise[:, 0] @ regions.mT
    mask = fields.argmax(0)
    image = torch.empty(3, size, size)
    for position in range(classes):
        smooth = toeplitz_gaussian(size, _SMOOTHNESS[position])
        texture = smooth @ noise[position, 1:] @ smooth.mT
        # Mostly brightness and a little colour, both of unit variance before scaling.
        texture = 0.85 * texture.mean(0, keepdim=True) / texture.mean(0).std() + 0.3 * texture / texture.std()
        pixels = torch.tensor(_TINTS[position]).view(3, 1, 1) + _SPREAD[position] * texture
        image = torch.where(mask == position, pixels, image)
    blur = toeplitz_gaussian(size, 0.8)
    image = (blur @ image @ blur.mT).round().clamp(0, 255)
    return image.byte().permute(1, 2, 0).numpy().copy(), mask.byte().numpy()


def write_demo_folder(root: Path, scenes: tuple[int, int, int] = (24, 8, 8), size: int = 384, seed: int = 0) -> None:
    """Writes train, val and test folders of images and masks, and their class table. The folder appears complete or not
    at all. Writes nothing if `root` exists.

    Args:
        root: the folder to create.
        scenes: number of scenes for train, val and test.
        size: height and width of a scene, in pixels.
        seed: seed of the first scene; the next scenes have the next seeds.

    Raises:
        UserError: `root` cannot be written.
    """
    if root.exists():
        return
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
        try:
            number = seed
            for part, count in zip(("train", "val", "test"), scenes, strict=True):
                for kind in ("images", "masks"):
                    (making / part / kind).mkdir(parents=True)
                for scene in range(count):
                    image, mask = demo_scene(size, number)
                    Image.fromarray(image).save(making / part / "images" / f"scene_{scene:03d}.png")
                    write_mask(making / part / "masks" / f"scene_{scene:03d}.png", mask, DEMO_LABELS)
                    number += 1
            rows = [f"{entry.name},{','.join(map(str, entry.color))}" for entry in DEMO_LABELS.classes]
            (making / "classes.csv").write_text("\n".join(["name,r,g,b", *rows]) + "\n", encoding="utf-8")
            making.chmod(0o755)
            making.rename(root)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            if root.exists():  # another process has written the same scenes
                return
            raise
    except OSError as error:
        raise UserError(
            f"{root}: the demo folder cannot be written ({error.strerror}); set data.root to a folder that you"
            " can write to"
        ) from error


@checked
class DemoFolder(FolderSource):
    """The demo scenes as a source: written once, then read like any folder.

    Args:
        root: the folder of the scenes, written if it does not exist.
        image_size, samples_per_epoch, seed: see `CropRule`.
        scene_size: height and width of a scene that is written, in pixels.
        scenes: number of scenes that are written for train, val and test.

    Raises:
        UserError: as FolderSource, or the folder cannot be written.
    """

    def __init__(
        self,
        root: str | Path,
        image_size: AtLeast1 = 128,
        samples_per_epoch: AtLeast1 | None = None,
        seed: int = 0,
        scene_size: AtLeast1 = 384,
        scenes: Annotated[Sequence[AtLeast1], Field(min_length=3, max_length=3)] = (24, 8, 8),
    ) -> None:
        if scene_size < image_size:
            raise UserError(f"data.scene_size={scene_size}: must be at least data.image_size={image_size}")
        write_demo_folder(Path(root).expanduser(), (scenes[0], scenes[1], scenes[2]), scene_size)
        super().__init__(root, DEMO_LABELS, image_size=image_size, samples_per_epoch=samples_per_epoch, seed=seed)
