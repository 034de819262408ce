"""Reads images: with their masks for training, without masks for prediction.

Shapes: C image channels, H x W pixels.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segsweep.classes import IGNORE, ClassTable
from segsweep.classes.masks import MaskReading, read_mask
from segsweep.classes.rules import MaskRule
from segsweep.data.images import ImageReading, ImageRule, read_image, read_pillow_image, room_needed
from segsweep.data.pairs import IMAGE_TYPES, Layout, Pair, pair_files
from segsweep.errors import UserError, shown
from segsweep.image_files.arrays import Brightest
from segsweep.image_files.limits import budget
from segsweep.image_files.pillow import TURNED, orientation


def read_pair(
    pair: Pair, labels: ClassTable, image_rule: ImageRule, mask_rule: MaskRule
) -> tuple[ImageReading, MaskReading]:
    """Decodes an image and its mask.

    Raises:
        UserError: `read_image`, `read_mask` or `require_match` refuses a file.
    """
    with room_for(pair.image, pair.mask):
        image, mask = read_image(pair.image, image_rule), read_mask(pair.mask, labels, mask_rule)
    require_match(pair, image, mask)
    return image, mask


@dataclass(frozen=True)
class PairReader:
    """Decodes pairs to uint8 [C + 1, H, W]: the image's channels, then the mask. Can be sent to a worker.

    Args:
        labels, image_rule, mask_rule: see `read_pair`.
        brightest: is told of every image.
    """

    labels: ClassTable
    image_rule: ImageRule
    mask_rule: MaskRule
    brightest: Brightest

    def __call__(self, pair: Pair) -> NDArray[np.uint8]:
        image, mask = read_pair(pair, self.labels, self.image_rule, self.mask_rule)
        self.brightest.add(pair.image, image.top, image.mode)
        return np.concatenate([image.pixels, mask.mask[None]])

    def count(self, mask: Path) -> list[int]:
        """Pixels of each class in a mask file, without ignored pixels."""
        with room_for(mask):
            counts: list[int] = read_mask(mask, self.labels, self.mask_rule).counts.tolist()
        return counts


@contextlib.contextmanager
def room_for(*paths: Path) -> Iterator[None]:
    """Waits until there is memory to decode the largest of some files, and reserves it until the block ends.

    Small images never wait: some hundred of them fit into the memory of one of the largest.
    """
    pixels = 0
    for path in paths:
        with contextlib.suppress(UserError):  # reported when the file is read
            pixels = max(pixels, room_needed(path))
    with budget.take(pixels):
        yield


def require_match(pair: Pair, image: ImageReading, mask: MaskReading) -> None:
    """Refuses a pair that cannot be trained on.

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
        # The mask fits the setting that was not used.
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
    """The images to predict on, sorted by name; the masks that were left out, and the number of other files by type."""

    images: tuple[InputImage, ...]
    masks: tuple[Path, ...]
    others: Mapping[str, int] = field(default_factory=dict)

    @property
    def passed_over(self) -> str:
        """What was left out, in words; "" for nothing."""
        counts = [
            f"{number:,} {kind}" for kind, number in sorted(self.others.items(), key=lambda item: (-item[1], item[0]))
        ]
        masks = [f"{len(self.masks):,} mask{'s' if len(self.masks) > 1 else ''}"] if self.masks else []
        return ", ".join([*masks, *counts])


def find_inputs(path: Path, layout: Layout = Layout(), output: Path | None = None) -> Inputs:  # noqa: B008  (frozen)
    """Finds the images in a folder, at any depth, or takes a single file.

    Hidden files, hidden folders and links to folders are skipped. Masks are left out: those that pair with an image, and
    if a folder has a subfolder of images and one of masks, all files of the latter.

    Args:
        path: a file or a folder.
        layout: where images and masks are, and how they are named.
        output: a folder to skip if it is inside `path`, since it holds earlier predictions.

    Raises:
        UserError: `path` does not exist, has no image, or has two images that differ only in their extension.
    """
    if path.is_file():
        return Inputs((InputImage(path, path.stem),), ())
    if not path.is_dir():
        raise UserError(f"input={path}: no such file or folder")

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be listed ({error.strerror})") from error

    folders = [(images, masks) for images, masks in zip(layout.images, layout.masks, strict=True) if images != masks]
    together = set(layout.images) & set(layout.masks)
    # `path` may be the one folder of both, so its name may not be in the paths below it.
    layout = replace(layout, images="", masks="") if together else layout
    images: list[Path] = []
    left_out: list[Path] = []
    others: Counter[str] = Counter()
    mask_folders: set[str] = set()
    skipped = None if output is None or output.resolve() == path.resolve() else output.resolve()
    for folder, subfolders, files in os.walk(path, onerror=refuse):
        subfolders[:] = sorted(
            name
            for name in subfolders
            if not name.startswith(".") and name != "__MACOSX" and Path(folder, name).resolve() != skipped
        )
        if folder in mask_folders:
            mask_folders |= {os.path.join(folder, name) for name in subfolders}
        else:
            names = [masks for images, masks in folders if images in subfolders and masks in subfolders]
            mask_folders |= {os.path.join(folder, name) for name in names}
        for file in (Path(folder, name) for name in sorted(files)):
            if file.name.startswith("."):
                continue
            if not file.name.lower().endswith(IMAGE_TYPES):
                others[file.suffix.lower() or "without extension"] += 1
                continue
            (left_out if folder in mask_folders else images).append(file)
    pairing = pair_files(((file.parent.relative_to(path).parts, file) for file in images), layout)
    masks = {pair.mask for pair in pairing.pairs}
    left_out += sorted(masks)
    found: dict[str, Path] = {}
    for file in images:
        if file in masks:
            continue
        name = file.relative_to(path).with_suffix("").as_posix()
        if name in found:
            raise UserError(f"{file}: has the name of {found[name]}, so both would get one mask; rename one of them")
        found[name] = file
    inputs = Inputs(tuple(InputImage(found[name], name) for name in sorted(found)), tuple(left_out), others)
    if not found:
        beside = f"; passed over: {inputs.passed_over}" if inputs.passed_over else ""
        raise UserError(
            f"input={path}: holds no image ({', '.join(IMAGE_TYPES)}){beside}; give an image or a folder of images"
        )
    return inputs


def read_input(source: Path | Image.Image, rule: ImageRule, gray_only: bool = False) -> ImageReading:
    """Decodes one image into writable memory, as torch asks.

    Args:
        source: the image file, or the same image opened with Pillow.
        rule: how the run reads its own images.
        gray_only: refuse a colour image if the rule asks for one channel, instead of taking its luma: for a net trained
            on gray images only. A gray image saved as RGB is accepted.

    Raises:
        UserError: as `read_image`, or a colour image is refused.
    """
    gray_only = gray_only and rule.channels == 1 and rule.bands is None
    asked = replace(rule, channels=3) if gray_only else rule
    if isinstance(source, Image.Image):
        path = Path(getattr(source, "filename", None) or "the image")
        reading = read_pillow_image(source, asked, path, orientation(path, source))
    else:
        path, reading = source, read_image(source, asked)
    pixels = reading.pixels
    if gray_only:
        if not ((pixels[0] == pixels[1]).all() and (pixels[0] == pixels[2]).all()):
            raise UserError(f"{path}: is a colour image, and this net was trained on gray ones; save it in gray")
        pixels = pixels[:1]
    # Pillow's own memory is read-only.
    return replace(reading, pixels=np.require(pixels, requirements=["C", "W"]))
