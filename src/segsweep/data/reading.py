"""Images as they are read: with their masks to train on, and without to predict on.

Shapes: C image channels, H x W pixels.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segsweep.classes import IGNORE, ClassTable
from segsweep.classes.masks import MaskReading, read_mask
from segsweep.classes.rules import MaskRule
from segsweep.data.images import ImageReading, ImageRule, read_image, room_needed
from segsweep.data.pairs import IMAGE_TYPES, Pair
from segsweep.errors import UserError, shown
from segsweep.image_files.limits import budget
from segsweep.image_files.pillow import TURNED


def read_pair(
    pair: Pair, labels: ClassTable, image_rule: ImageRule, mask_rule: MaskRule
) -> tuple[ImageReading, MaskReading]:
    """Decodes an image and its mask.

    Raises:
        UserError: what `read_image`, `read_mask` and `require_match` refuse.
    """
    with room_for(pair):
        image, mask = read_image(pair.image, image_rule), read_mask(pair.mask, labels, mask_rule)
    require_match(pair, image, mask)
    return image, mask


@contextlib.contextmanager
def room_for(pair: Pair) -> Iterator[None]:
    """Waits until the larger of the two files can be decoded beside what other threads decode.

    Small images never wait: some hundred of them fit into the room for one of the largest.
    """
    pixels = 0
    for path in (pair.image, pair.mask):
        with contextlib.suppress(UserError):  # reading it will say what is wrong with it
            pixels = max(pixels, room_needed(path))
    with budget.take(pixels):
        yield


def require_match(pair: Pair, image: ImageReading, mask: MaskReading) -> None:
    """Refuses a pair that cannot be learnt from.

    Raises:
        UserError: image and mask differ in size, or every pixel of the mask is ignored.
    """
    if mask.ignored == mask.mask.size:
        raise UserError(f"{shown(pair.mask)}: every pixel is ignored ({IGNORE}); label it or remove the pair")
    height, width = image.pixels.shape[1:]
    if mask.mask.shape == (height, width):
        return
    message = (
        f"{shown(pair.image)}: is {height} x {width} pixels (height x width), but its mask {shown(pair.mask)} is"
        f" {mask.mask.shape[0]} x {mask.mask.shape[1]}"
    )
    if image.orientation in TURNED and mask.mask.shape == (width, height):
        # Which of the two fits the mask is known: the other one than was used.
        other = "ignore" if image.upright else "apply"
        raise UserError(
            f"{message}; its EXIF orientation is {image.orientation} and the mask fits with data.exif={other}"
        )
    raise UserError(f"{message}; export both at one size")


@dataclass(frozen=True)
class InputImage:
    """An image file; `name` is its path below the input folder without the extension: `Tile 3/images/a`."""

    path: Path
    name: str


@dataclass(frozen=True)
class Inputs:
    """What a file or a folder holds: images in the order of their names, and files that lie there as masks."""

    images: tuple[InputImage, ...]
    masks: tuple[Path, ...]


def find_inputs(path: Path, images: str = "images", masks: str = "masks", output: Path | None = None) -> Inputs:
    """The image files that `path` is or holds, at any depth.

    Hidden files and folders are passed over, and links to folders. A folder named `masks` beside one named `images` holds
    the masks of those images, which nobody wants a prediction of.

    Args:
        path: a file or a folder.
        images: what folders of images are called.
        masks: what folders of masks are called.
        output: a folder that is passed over where it lies in `path`: what an earlier prediction wrote is no input.

    Raises:
        UserError: there is nothing, no image, or two images that only their extension tells apart.
    """
    if path.is_file():
        return Inputs((InputImage(path, path.stem),), ())
    if not path.is_dir():
        raise UserError(f"input={path}: no such file or folder")
    found: dict[str, Path] = {}
    left_out: list[Path] = []
    for file, is_mask in _files(path, images, masks, output):
        if is_mask:
            left_out.append(file)
            continue
        name = file.relative_to(path).with_suffix("").as_posix()
        if name in found:
            raise UserError(f"{file}: has the name of {found[name]}, so both would get one mask; rename one of them")
        found[name] = file
    if not found:
        beside = f"; {len(left_out)} lie in folders named {masks}" if left_out else ""
        raise UserError(f"input={path}: holds no image ({', '.join(IMAGE_TYPES)}){beside}")
    return Inputs(tuple(InputImage(found[name], name) for name in sorted(found)), tuple(left_out))


def _files(root: Path, images: str, masks: str, output: Path | None) -> Iterator[tuple[Path, bool]]:
    """Image files in sorted order, and whether they lie as masks."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be listed ({error.strerror})") from error

    among_masks: set[str] = set()
    passed_over = None if output is None or output.resolve() == root.resolve() else output.resolve()
    for folder, folders, files in os.walk(root, onerror=refuse):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and name != "__MACOSX" and Path(folder, name).resolve() != passed_over
        )
        if folder in among_masks:
            among_masks |= {os.path.join(folder, name) for name in folders}
        elif images in folders and masks in folders and images != masks:
            among_masks.add(os.path.join(folder, masks))
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(IMAGE_TYPES):
                yield Path(folder, name), folder in among_masks


def read_input(path: Path, rule: ImageRule, gray_only: bool = False) -> ImageReading:
    """Decodes one image; its pixels may be written to, as torch asks.

    Args:
        path: of the image.
        rule: as the run reads its own images.
        gray_only: refuse colour where the rule asks for one channel, instead of taking its luma: for a net that has only
            ever seen gray images. A gray image saved as RGB is gray.

    Raises:
        UserError: as `read_image`, or a colour image where gray is wanted.
    """
    gray_only = gray_only and rule.channels == 1 and rule.bands is None
    reading = read_image(path, replace(rule, channels=3) if gray_only else rule)
    pixels = reading.pixels
    if gray_only:
        if not ((pixels[0] == pixels[1]).all() and (pixels[0] == pixels[2]).all()):
            raise UserError(f"{path}: is a colour image, and this net was trained on gray ones; save it in gray")
        pixels = pixels[:1]
    # What Pillow gives may be its own memory.
    return replace(reading, pixels=np.require(pixels, requirements=["C", "W"]))
