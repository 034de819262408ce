"""An image and its mask, read together."""

import contextlib
from collections.abc import Iterator

from segsweep.classes import IGNORE, ClassTable
from segsweep.classes.masks import MaskReading, read_mask
from segsweep.classes.rules import MaskRule
from segsweep.data.images import ImageReading, ImageRule, read_image, room_needed
from segsweep.data.pairs import Pair
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
