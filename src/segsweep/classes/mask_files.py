"""Mask files on disk: read as colours or numbers without changing one, and written in the class colours."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from segsweep.classes.rules import MaskRule
from segsweep.classes.table import IGNORE, ClassTable, hex_color, pack_pixels
from segsweep.errors import UserError
from segsweep.image_files.arrays import is_npy, read_npy
from segsweep.image_files.pillow import is_deep_colour, open_image, orientation, raw_mode, upright
from segsweep.image_files.tiff import tiff_layout

EXACT_FORMATS = ("PNG", "TIFF", "BMP", "GIF")
LOSSY_FORMATS = ("JPEG", "WEBP")
# Pillow's names of the TIFF compressions that keep every pixel. All others count as lossy.
_EXACT_COMPRESSIONS = (
    "raw", "tiff_raw_16", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "lzma", "zstd", "tiff_ccitt",
    "group3", "group4",
)  # fmt: skip
_TIFF_WHITE_IS_ZERO = 0


@dataclass(frozen=True)
class Pixels:
    """The pixels of a mask file.

    Args:
        kind: 'colors': `values` are uint32 [H, W] of 0xRRGGBB. 'palette' and 'gray': `values` are uint8 [H, W], and
            `palette[v]` is the colour of the value v. 'numbers': `values` are integers [H, W] without colours.
        values: [H, W], see `kind`.
        palette: int64 [N] of 0xRRGGBB, with N <= 256; None for 'colors' and 'numbers'.
        lossy: the lossy format or compression of the file; None if it stores every pixel exactly.
    """

    kind: Literal["colors", "palette", "gray", "numbers"]
    values: NDArray[Any]
    palette: NDArray[np.int64] | None = None
    lossy: str | None = None


def read_pixels(path: str | PathLike[str]) -> Pixels:
    """Read a mask file without changing a value in it.

    Raises:
        UserError: the file is missing, empty, damaged, too large, has transparent pixels or cannot be read exactly.
    """
    path = Path(path)
    if is_npy(path):
        array = read_npy(path)
        if array.ndim == 2 and array.dtype.kind in "iub":
            return Pixels("numbers", array.astype(np.uint8) if array.dtype.kind == "b" else array)
        if array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8:
            return Pixels("colors", pack_pixels(array))
        raise UserError(
            f"{path}: is {array.dtype} {list(array.shape)}; a mask is [H, W] of integers, or [H, W, 3] of uint8 colours."
        )
    with open_image(path, EXACT_FORMATS + LOSSY_FORMATS) as image:
        raw, stated = raw_mode(image), orientation(path, image)
        lossy = None if image.format in EXACT_FORMATS else image.format
        if image.format == "TIFF":
            compression = image.info.get("compression")
            lossy = None if compression in _EXACT_COMPRESSIONS else f"a TIFF compressed by {compression}"
        if is_deep_colour(image):
            raise UserError(f"{path}: has 16 bits a colour channel; save it with 8, since colours are #RRGGBB.")
        if image.format == "TIFF":
            _refuse_misread_tiff(path, image)
        image.load()
        _refuse_transparency(path, image)
        turned = upright(image, stated)  # data.exif is for images alone
        mode, values = turned.mode, np.asarray(turned)
        if mode == "P":
            colors = np.array(turned.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
            palette = pack_pixels(colors[None])[0].astype(np.int64)
            if image.format == "GIF":
                return _by_shade(path, values, palette)
            return Pixels("palette", values, palette, lossy)
        if mode in ("RGB", "RGBA"):
            return Pixels("colors", pack_pixels(values), None, lossy)
        if mode == "1":
            return Pixels("gray", values.astype(np.uint8), np.array([0x000000, 0xFFFFFF]), lossy)
        if mode in ("L", "LA"):
            # Pillow stretches PNG's 2- and 4-bit grays to 0..255, but an index image means the stored number.
            stretch = {"L;2": 255 // 3, "L;4": 255 // 15}.get(raw[:3], 1)
            values = np.ascontiguousarray(values[..., 0]) if mode == "LA" else values
            values = values // np.uint8(stretch) if stretch > 1 else values
            return Pixels("gray", values, np.arange(0, 256, stretch, dtype=np.int64) * 0x010101, lossy)
        if mode in ("I", "I;16", "I;16L", "I;16B"):
            return Pixels("numbers", values, None, lossy)
    raise UserError(f"{path}: has the pixel mode {mode}; save it as RGB, palette, or 8- or 16-bit gray.")


def _by_shade(path: Path, values: NDArray[np.uint8], palette: NDArray[np.int64]) -> Pixels:
    """The pixels of a GIF by their colours: writers sort the palette and drop unused entries, so numbers say nothing."""
    if (largest := int(values.max())) >= len(palette):
        raise UserError(f"{path}: is damaged: number {largest} in a palette of {len(palette)} colours.")
    shades = palette.astype(np.uint32)[values]
    gray = shades & 255
    if np.array_equal(gray * 0x010101, shades):
        return Pixels("gray", gray.astype(np.uint8), np.arange(256, dtype=np.int64) * 0x010101)
    return Pixels("colors", shades)


def _refuse_misread_tiff(path: Path, image: Image.Image) -> None:
    tags = getattr(image, "tag_v2", {})
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == _TIFF_WHITE_IS_ZERO:
        raise UserError(f"{path}: is a TIFF with white as zero; save it with black as zero, or as PNG.")
    layout = tiff_layout(path)
    # Pillow drops further bands, and reads signed bytes as unsigned.
    if layout is not None and not (layout.is_plain or layout.has_alpha) and (layout.samples > 1 or layout.bits == 8):
        raise UserError(f"{path}: is a TIFF of {layout.mode}; save the mask as RGB, palette, or 8- or 16-bit gray.")


def _refuse_transparency(path: Path, image: Image.Image) -> None:
    if not image.has_transparency_data:
        return
    if image.mode.startswith("I"):  # 16-bit gray can declare one value as transparent
        transparent = int(np.count_nonzero(np.asarray(image) == image.info["transparency"]))
    else:
        transparent = int(np.count_nonzero(np.asarray(image.convert("RGBA").getchannel("A")) != 255))
    if transparent:
        raise UserError(
            f"{path}: {transparent:,} pixels are transparent, wholly or partly, so their class is unclear; save the mask "
            "without transparency, and give unlabelled pixels a colour that no class has."
        )


def written_rule(labels: ClassTable) -> MaskRule:
    """The rule with which `read_mask` reads exactly what `write_mask` wrote."""
    return MaskRule(by="color", ignore_colors=(hex_color(labels.ignore_color),))


def write_mask(path: str | PathLike[str], mask: NDArray[np.integer[Any]], labels: ClassTable) -> None:
    """Write a mask as a PNG in the class colours, ignored pixels in `labels.ignore_color`.

    The PNG has a palette, and its numbers are the class ids, with 255 for ignored pixels, so other tools can read it by
    index. If an id is 255 or more, that is impossible, and the PNG is RGB. `written_rule` reads both.

    Args:
        path: ends in .png; its folder exists.
        mask: integer [H, W] of positions; 255 is ignored.
        labels: the class table.

    Raises:
        UserError: the path does not end in .png.
        ValueError: the mask is not [H, W], or holds a value that is neither a position nor 255.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: masks are written as PNG; give the file a name that ends in .png.")
    if np.ndim(mask) != 2 or np.size(mask) == 0:
        raise ValueError(f"a mask is [H, W] with at least one pixel, not {list(np.shape(mask))}.")
    ids = [entry.id for entry in labels.classes]
    if max(ids) >= IGNORE:
        Image.fromarray(labels.colorize(mask)).save(path, format="PNG")
        return
    numbers = np.full(256, IGNORE, dtype=np.uint8)
    numbers[: len(ids)] = ids
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[ids] = labels.colors
    palette[IGNORE] = labels.ignore_color
    image = Image.fromarray(numbers[labels.checked(mask)])
    image.putpalette(palette.tobytes())
    image.save(path, format="PNG")
