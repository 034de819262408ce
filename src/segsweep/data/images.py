"""Reads image files as uint8 arrays. A file whose pixels could mean several things is refused.

Shapes: C channels, N bands of a file, H x W pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from segsweep.console import hydra_argument, quoted
from segsweep.errors import UserError
from segsweep.image_files.arrays import FULL, is_npy, npy_header, read_npy, to_uint8
from segsweep.image_files.pillow import TURNED, is_deep_colour, open_image, orientation, upright
from segsweep.image_files.tiff import TiffLayout, in_words, read_bands, tiff_layout
from segsweep.instantiate import AtLeast0, AtLeast1, Positive, checked

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM")
"""Formats that are read, in Pillow's words. Pillow knows more, but starts other programs for some of them."""
_RGB_BYTES = 6
"""Memory that a pixel of RGB takes: 3 bytes as stored and 3 as decoded."""
_COLOUR_MODES = ("RGB", "RGBX", "YCbCr")
_GRAY_MODES = ("1", "L")
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


@checked
@dataclass(frozen=True, kw_only=True)
class ImageRule:
    """How images are read.

    Args:
        channels: image channels that the net is given. A file must have as many bands, with two exceptions: for 3
            channels a gray image is repeated; for 1 channel an RGB image becomes its luma (ITU-R 601), unless it is a .npy
            file or a TIFF that only tifffile reads.
        alpha: transparent pixels: "refuse" the file, or "drop" the transparency and keep the colours under it. A file
            whose pixels are all opaque is always read.
        exif: an EXIF orientation: "apply" it as viewers do, "ignore" it if masks were drawn on the pixels as stored, or
            "refuse" the file.
        white: the value that becomes 255 in files of more than 8 bits: 4095 for 12-bit cameras. None: 65535 for uint16;
            floats and other integers need a value.
        bands: the file's bands that become the channels, from 0, in this order; None: all.

    Raises:
        UserError: a value is none of these.
    """

    channels: AtLeast1 = 3
    alpha: Literal["refuse", "drop"] = "refuse"
    exif: Literal["apply", "ignore", "refuse"] = "apply"
    white: Positive | None = None
    bands: Annotated[Sequence[AtLeast0], Field(min_length=1)] | None = None

    def __post_init__(self) -> None:
        if self.bands is not None and len(self.bands) != self.channels:
            raise UserError(
                f"{quoted('data.bands', self.bands)}: names {len(self.bands)} bands, and data.channels is"
                f" {self.channels}; set data.channels={len(self.bands)}"
            )


@dataclass(frozen=True)
class ImageReading:
    """A decoded image, and facts about its file."""

    pixels: NDArray[np.uint8]
    """[C, H, W]"""
    mode: str
    """Pillow's mode of the file: RGB, L, P, I;16, ...; or for example "4 bands of float32"."""
    orientation: int
    """The EXIF orientation in the file; 1 if there is none."""
    upright: bool
    """Whether the orientation was applied."""
    top: float | None = None
    """The largest stored value in the bands that were read; None for 8 bits."""


def read_image(path: Path, rule: ImageRule = ImageRule()) -> ImageReading:
    """Decodes one image file.

    Raises:
        UserError: the file is missing, empty, truncated, no image, larger than `MAX_PIXELS`, has several frames, or has
            pixels that `rule` refuses or whose meaning is unclear.
    """
    if is_npy(path):
        values = read_npy(path)
        values = np.atleast_3d(np.moveaxis(values, 0, 2) if bands_are_first(path, values.shape, rule) else values)
        mode = in_words(values.shape[2], str(values.dtype))
    elif (layout := layout_beyond_pillow(path, rule)) is not None:
        chosen_bands(path, layout.samples, rule)  # refuses before anything is decoded, or tifffile needed
        values, mode = read_bands(path, layout), layout.mode
    else:
        return _read_with_pillow(path, rule)
    pixels, top = to_uint8(path, values, chosen_bands(path, values.shape[2], rule), rule.white)
    return ImageReading(pixels, mode, 1, rule.exif == "apply", top)


def _read_with_pillow(path: Path, rule: ImageRule) -> ImageReading:
    with open_image(path, FORMATS) as image:
        return read_pillow_image(image, rule, path, orientation(path, image))


def read_pillow_image(image: Image.Image, rule: ImageRule, path: Path, stated: int) -> ImageReading:
    """Decodes an image that Pillow has opened.

    Args:
        image: open or loaded.
        rule: how it is read.
        path: its file, for errors.
        stated: its EXIF orientation, 1 to 8.

    Raises:
        UserError: as `read_image`.
    """
    deep = is_deep_colour(image)
    if stated != 1 and rule.exif == "refuse":
        raise UserError(
            f"{path}: has EXIF orientation {stated}; set data.exif=apply to turn it as viewers do,"
            " or data.exif=ignore if its mask was drawn on the pixels as stored"
        )
    if stated != 1 and rule.exif == "ignore" and image.format == "TIFF":
        raise UserError(f"{path}: is a TIFF with orientation {stated}, which cannot be ignored; set data.exif=apply")
    if deep and rule.white not in (None, FULL):
        is_tiff = image.format == "TIFF"
        way_out = "choose bands with 'data.bands=[0,1,2]'" if is_tiff else "save it as TIFF or as 8-bit"
        raise UserError(
            f"{path}: holds 16-bit colour, to which data.white={rule.white:g} cannot be applied; {way_out}, or"
            " leave out data.white"
        )
    mode = f"{image.mode};16" if deep else image.mode
    image.load()
    pixels, top = _to_channels(upright(image, stated) if rule.exif == "apply" else image, path, rule)
    if deep:  # Pillow keeps the upper 8 bits
        top = float(pixels.max()) * 256 + 255
    return ImageReading(np.ascontiguousarray(pixels), mode, stated, rule.exif == "apply", top)


def _to_channels(image: Image.Image, path: Path, rule: ImageRule) -> tuple[NDArray[np.uint8], float | None]:
    """A loaded image as [C, H, W], and the largest value if it is 16-bit gray."""
    if image.mode in _DEEP_MODES:
        values = np.asarray(image)[..., None]
        return to_uint8(path, values, chosen_bands(path, 1, rule), rule.white, full=FULL)
    if image.mode not in (*_COLOUR_MODES, *_GRAY_MODES, "P", "PA", "LA", "La", "RGBA", "RGBa"):
        raise UserError(f"{path}: has pixels of mode {image.mode}, which can be shown in several ways; save it as RGB")
    by_band = rule.bands is not None or rule.channels not in (1, 3)
    gray, alpha_is_a_band = image.mode in _GRAY_MODES, by_band and image.mode in ("LA", "RGBA")
    if image.has_transparency_data and not alpha_is_a_band:
        bands, is_tiff = len(image.getbands()), image.format == "TIFF"
        image = image.convert("RGBA")
        if rule.alpha == "refuse" and image.getchannel("A").getextrema() != (255, 255):
            # GDAL writes the fourth of four 8-bit bands as transparency, unless told otherwise.
            maybe = f"; or, if its last band is no transparency, read all with data.channels={bands}" if is_tiff else ""
            raise UserError(
                f"{path}: has transparent pixels; save it without, or keep their colours with data.alpha=drop{maybe}"
            )
    if by_band:
        if not alpha_is_a_band:
            image = image.convert("L" if gray else "RGB")
        values = np.atleast_3d(np.asarray(image))
        return to_uint8(path, values, chosen_bands(path, values.shape[2], rule), None)
    if image.mode in _GRAY_MODES:
        luma = np.asarray(image.convert("L"))
        return np.broadcast_to(luma, (rule.channels, *luma.shape)), None
    if rule.channels == 1:
        return np.asarray(image.convert("RGB").convert("L"))[None], None
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB")).transpose(2, 0, 1), None


def image_shape(path: Path, rule: ImageRule = ImageRule()) -> tuple[int, int]:
    """Height and width of what `read_image` returns, from the file header alone.

    Raises:
        UserError: the file is missing, empty or no image.
    """
    if is_npy(path):
        shape, _ = npy_header(path)
        return shape[1:3] if bands_are_first(path, shape, rule) else shape[:2]  # type: ignore[return-value]  # two of them
    if (layout := layout_beyond_pillow(path, rule)) is not None:
        return layout.height, layout.width
    with open_image(path, FORMATS) as image:
        width, height = image.size
        turned = rule.exif == "apply" and image.format != "TIFF" and orientation(path, image) in TURNED
    return (width, height) if turned else (height, width)


def room_needed(path: Path) -> int:
    """The memory needed to decode a file, in pixels of RGB, from the file header alone.

    Raises:
        UserError: the file is missing, empty or no image.
    """
    if is_npy(path):
        shape, dtype = npy_header(path)
        return math.prod(shape) * dtype.itemsize // _RGB_BYTES
    if (layout := tiff_layout(path)) is not None:
        return max(layout.height * layout.width, layout.bytes // _RGB_BYTES)
    with open_image(path, FORMATS) as image:
        return math.prod(image.size)


def layout_beyond_pillow(path: Path, rule: ImageRule) -> TiffLayout | None:
    """The header of a TIFF whose bands Pillow would lose or misread; None for any other file."""
    layout = tiff_layout(path)
    if layout is None:
        return None
    if layout.is_plain:
        scaled = layout.is_colour and layout.bits == 16 and rule.white not in (None, FULL)
        return layout if scaled else None
    return None if layout.has_alpha and rule.bands is None and rule.channels in (1, 3) else layout


def chosen_bands(path: Path, number: int, rule: ImageRule) -> Sequence[int]:
    """The bands of a file with `number` bands that become the image's channels.

    Raises:
        UserError: the file does not have the bands that the rule asks for.
    """
    if rule.bands is not None:
        if max(rule.bands) >= number:
            raise UserError(
                f"{path}: has {number} bands, 0 to {number - 1}, and {quoted('data.bands', rule.bands)} asks for band"
                f" {max(rule.bands)}"
            )
        return rule.bands
    if number == rule.channels:
        return range(number)
    if number == 1 and rule.channels == 3:
        return (0, 0, 0)
    first = hydra_argument("data.bands", list(range(min(number, rule.channels))))
    if number > rule.channels:
        others = f"choose some with {first}"
    else:
        others = f"set data.channels={number} and {first} where other files have more bands"
    raise UserError(
        f"{path}: has {number} bands, and data.channels is {rule.channels}; set data.channels={number} to read all, or"
        f" {others}"
    )


def bands_are_first(path: Path, shape: tuple[int, ...], rule: ImageRule) -> bool:
    """Whether an array is [N, H, W] instead of [H, W] or [H, W, N].

    N is the first or last length, the one equal to `rule.channels`. If neither or both are equal, or bands are chosen, N
    is the smaller one.

    Raises:
        UserError: both have the same length, or the array is no image.
    """
    if len(shape) == 2:
        return False
    if len(shape) != 3:
        raise UserError(f"{path}: has the shape {list(shape)}; an image is [H, W], [bands, H, W] or [H, W, bands]")
    first, last = shape[0], shape[2]
    if rule.bands is None and (first == rule.channels) != (last == rule.channels):
        return first == rule.channels
    if first == last:
        raise UserError(f"{path}: has the shape {list(shape)}, and its bands may be at either end; save it as TIFF")
    return first < last
