"""A mask file as it is: colours or numbers, before any class table is asked. Refuses what cannot be read exactly."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from segsweep.errors import UserError
from segsweep.labels.colors import pack_pixels
from segsweep.opening import MAX_PIXELS, open_image

EXACT_FORMATS = ("PNG", "TIFF", "BMP")
LOSSY_FORMATS = ("JPEG", "WEBP")
# In Pillow's words. What else a TIFF may be compressed by, above all jpeg, changes pixels or is not known to keep them.
_EXACT_COMPRESSIONS = (
    "raw", "tiff_raw_16", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "lzma", "zstd", "tiff_ccitt",
    "group3", "group4",
)  # fmt: skip

# PNG's 2- and 4-bit grays arrive stretched to 0..255; this undoes it, since an index image means the stored number.
_STRETCH = {"L;2": 255 // 3, "L;4": 255 // 15}
_TIFF_WHITE_IS_ZERO = 0
_TIFF_TURNED = (5, 6, 7, 8)


@dataclass(frozen=True)
class Pixels:
    """What a mask file holds.

    Args:
        kind: 'colors': `values` are uint32 [H, W] of 0xRRGGBB. 'palette' and 'gray': `values` are uint8 [H, W] and
            `palette[v]` is the colour that v is shown in. 'numbers': `values` are integers [H, W] without colours.
        values: [H, W], see `kind`.
        palette: int64 [N] of 0xRRGGBB, with N <= 256; None without one.
        lossy: what the file is, where that changes pixels when saving.
    """

    kind: Literal["colors", "palette", "gray", "numbers"]
    values: NDArray[Any]
    palette: NDArray[np.int64] | None = None
    lossy: str | None = None


def read_pixels(path: str | PathLike[str]) -> Pixels:
    """Read a mask file without changing a value in it.

    Raises:
        UserError: the file is missing, empty, damaged, too large or of a kind that has no exact reading.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: there is no such file.")
    if not path.is_file():
        raise UserError(f"{path}: is a folder or device, not a mask file.")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty (0 bytes); replace it or leave it out.")
    return _read_array(path) if path.suffix.lower() == ".npy" else _read_image(path)


def _read_image(path: Path) -> Pixels:
    try:
        with open_image(path, EXACT_FORMATS + LOSSY_FORMATS) as image:
            return _from_image(path, image)
    except UserError:
        raise
    except UnidentifiedImageError:
        kinds = ", ".join(EXACT_FORMATS)
        raise UserError(f"{path}: is not an image, whatever its name says; masks are {kinds} or .npy.") from None
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except Exception as error:  # Pillow's decoders raise whatever broken bytes make them trip over, AssertionError too
        raise UserError(f"{path}: is truncated or damaged ({one_line(error)}); replace it or leave it out.") from None


def _too_large(path: Path) -> UserError:
    return UserError(
        f"{path}: declares more than {MAX_PIXELS:,} pixels, which looks like a damaged or hostile file; cut real masks of "
        "this size into tiles."
    )


def _from_image(path: Path, image: Image.Image) -> Pixels:
    raw_mode = _raw_mode(image)
    lossy = _lossy(image)
    if (frames := getattr(image, "n_frames", 1)) != 1:
        raise UserError(f"{path}: holds {frames} images; a mask file holds one, so save it alone.")
    if ";16" in raw_mode and not image.mode.startswith("I"):
        raise UserError(f"{path}: has 16 bits a colour channel; save it with 8, since colours are #RRGGBB.")
    _refuse_tiff(path, image)
    image.load()
    _refuse_transparency(path, image)
    # Images are turned upright by the same tag, and a mask must turn with its image. (For TIFF, Pillow has done it.)
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)

    if image.mode == "P":
        colors = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        return Pixels("palette", np.asarray(image), pack_pixels(colors).astype(np.int64), lossy)
    if image.mode in ("RGB", "RGBA"):
        return Pixels("colors", pack_pixels(np.asarray(image)), None, lossy)
    if image.mode in ("1", "L", "LA"):
        return _gray(image, _STRETCH.get(raw_mode[:3], 1), lossy)
    if image.mode in ("I", "I;16", "I;16L", "I;16B"):
        return Pixels("numbers", np.asarray(image), None, lossy)
    raise UserError(f"{path}: has the pixel mode {image.mode}; save it as RGB, palette, or 8- or 16-bit gray.")


def _lossy(image: Image.Image) -> str | None:
    if image.format == "TIFF":
        compression = image.info.get("compression")
        return None if compression in _EXACT_COMPRESSIONS else f"a TIFF compressed by {compression}"
    return None if image.format in EXACT_FORMATS else image.format


def _gray(image: Image.Image, stretch: int, lossy: str | None) -> Pixels:
    values = np.asarray(image)
    if image.mode == "1":
        values = values.astype(np.uint8)
        return Pixels("gray", values, np.array([0x000000, 0xFFFFFF]), lossy)
    if image.mode == "LA":
        values = np.ascontiguousarray(values[..., 0])
    if stretch > 1:
        values = values // np.uint8(stretch)
    return Pixels("gray", values, np.arange(0, 256, stretch, dtype=np.int64) * 0x010101, lossy)


def _raw_mode(image: Image.Image) -> str:
    """How the pixels lie in the file, in Pillow's words: `L;4` for 4-bit grays."""
    tiles = getattr(image, "tile", [])
    if not tiles:
        return ""
    arguments = tiles[0].args
    first = arguments if isinstance(arguments, str) else (arguments or ("",))[0]
    return first if isinstance(first, str) else ""


def _refuse_tiff(path: Path, image: Image.Image) -> None:
    if image.format != "TIFF":
        return
    tags = getattr(image, "tag_v2", {})
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == _TIFF_WHITE_IS_ZERO:
        raise UserError(f"{path}: is a TIFF that counts gray from white down; save it with black as zero, or as PNG.")
    # Pillow 13.0 reads the rows of an uncompressed TIFF at the turned width, which scrambles them.
    if tags.get(ExifTags.Base.Orientation) in _TIFF_TURNED:
        raise UserError(f"{path}: is a TIFF with a tag that turns it; save it upright, without the tag.")


def _refuse_transparency(path: Path, image: Image.Image) -> None:
    if not image.has_transparency_data:
        return
    if image.mode.startswith("I"):  # 16-bit gray, where one value can be declared transparent
        transparent = int(np.count_nonzero(np.asarray(image) == image.info["transparency"]))
    else:
        transparent = int(np.count_nonzero(np.asarray(image.convert("RGBA").getchannel("A")) != 255))
    if transparent:
        raise UserError(
            f"{path}: {transparent:,} pixels are transparent, wholly or partly, so it is open what class they are; "
            "save the mask without transparency, and unlabelled pixels in a colour of their own."
        )


def _read_array(path: Path) -> Pixels:
    try:
        # Mapping first compares the declared shape with the size of the file, before any memory is taken.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # of a broken header, among others tokenize.TokenError and SyntaxError
        raise UserError(f"{path}: is not a whole .npy array of numbers ({one_line(error)}); save it again.") from None
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path}: is an archive of several arrays; save the mask alone, as .npy.")
    if array.size == 0:
        raise UserError(f"{path}: has the shape {list(array.shape)}, so no pixel; replace it or leave it out.")
    if array.ndim in (2, 3) and array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise _too_large(path)  # a file with holes takes no room on disk, but would in memory
    if array.ndim == 2 and array.dtype.kind in "iub":
        values = np.array(array, dtype=np.uint8 if array.dtype.kind == "b" else array.dtype.newbyteorder("="))
        return Pixels("numbers", values)
    if array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8:
        return Pixels("colors", pack_pixels(array))
    raise UserError(
        f"{path}: is {array.dtype} {list(array.shape)}; a mask is [H, W] of integers, or [H, W, 3] of uint8 colours."
    )


def one_line(error: BaseException) -> str:
    """The error's text without line breaks, or its type where it has none."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
