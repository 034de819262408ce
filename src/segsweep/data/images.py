"""Image files to uint8 arrays: what a file holds is read as it is meant, or refused by name.

Shapes: C channels, N bands of a file, H x W pixels.
"""

import contextlib
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from segsweep.data.depth import FULL, to_uint8
from segsweep.errors import UserError
from segsweep.image_files.arrays import is_npy, npy_header, read_npy
from segsweep.image_files.tiff import TiffLayout, read_bands, tiff_layout
from segsweep.opening import MAX_PIXELS, open_image

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "JPEG2000", "PPM")
"""What images are read from, in Pillow's words. Pillow knows more, and some of those start other programs."""
Alpha = Literal["refuse", "drop"]
Exif = Literal["apply", "ignore", "refuse"]
ORIENTATION = 0x0112
LARGEST_EXIF = 1 << 16
"""Bytes of EXIF that are looked at; in a JPEG file it can have no more."""
TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""
_RGB_BYTES = 6
"""Of a pixel in RGB, as stored and as decoded."""
_COLOUR_MODES = ("RGB", "RGBX", "YCbCr")
_GRAY_MODES = ("1", "L")
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


@dataclass(frozen=True)
class ImageRule:
    """How images are read.

    Args:
        channels: how many the net is given. A file must have as many bands; but of 3, a gray image is repeated, and of 1, a
            colour image becomes its luma, as ITU-R 601.
        alpha: what becomes of transparent pixels: "refuse" the file, or "drop" the transparency and keep the colour
            that lies under it. A file whose pixels are all opaque is read either way.
        exif: what becomes of an EXIF orientation: "apply" it as viewers do, "ignore" it where masks were drawn on the
            pixels as stored, or "refuse" the file.
        white: the value that becomes 255 in files of more than 8 bits: 4095 for 12-bit cameras. None: 65535 for 16 bits;
            float images, and integers of other types, need a value.
        bands: which of a file's bands the channels are, from 0, in this order; None: all there are.

    Raises:
        UserError: a value is none of these.
    """

    channels: int = 3
    alpha: Alpha = "refuse"
    exif: Exif = "apply"
    white: float | None = None
    bands: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise UserError(f"data.channels={self.channels}: must be at least 1; 3 is colour, 1 gray")
        for name, value, allowed in (("alpha", self.alpha, get_args(Alpha)), ("exif", self.exif, get_args(Exif))):
            if value not in allowed:
                raise UserError(f"data.{name}={value!r}: must be {' or '.join(allowed)}")
        if self.white is not None and not 0 < self.white < math.inf:
            raise UserError(f"data.white={self.white}: must be above 0; null is 65535 in 16-bit files")
        if self.bands is None:
            return
        object.__setattr__(self, "bands", tuple(self.bands))
        if not self.bands or min(self.bands) < 0:
            raise UserError(f"data.bands={list(self.bands)}: must be positions of bands, counted from 0; null is all")
        if len(self.bands) != self.channels:
            raise UserError(
                f"data.bands={list(self.bands)}: names {len(self.bands)} bands, and data.channels is {self.channels}; set"
                f" data.channels={len(self.bands)}"
            )


@dataclass(frozen=True)
class ImageReading:
    """A decoded image, and how its file held it."""

    pixels: NDArray[np.uint8]
    """[C, H, W]"""
    mode: str
    """Pillow's word for the file's pixels: RGB, L, P, I;16, ...; or as in "4 bands of float32"."""
    orientation: int
    """The EXIF orientation that the file states; 1 where it states none."""
    upright: bool
    """Whether the orientation was applied."""
    top: float | None = None
    """The largest value that is stored, in the bands that were read; None of a file of bytes."""


def read_image(path: Path, rule: ImageRule = ImageRule()) -> ImageReading:
    """Decodes one image file.

    Raises:
        UserError: the file is missing, empty, truncated, no image, larger than `MAX_PIXELS`, has several frames, or
            pixels of a kind that `rule` refuses or nobody could guess the meaning of.
    """
    _refuse_no_file(path)
    if is_npy(path):
        values = read_npy(path)
        first = _bands_are_first(path, values.shape, rule)
        values = np.atleast_3d(np.moveaxis(values, 0, 2) if first else values)
        return _from_bands(path, values, f"{values.shape[2]} bands of {values.dtype}", rule)
    if (layout := _bands_beyond_pillow(path, rule)) is not None:
        _chosen(path, layout.samples, rule)  # before anything is decoded, or tifffile asked for
        return _from_bands(path, read_bands(path, layout), layout.mode, rule)
    with _opened(path) as image:
        orientation = _orientation(image, path)
        with _decoding(path):
            _refuse_by_header(image, path, orientation, rule)
            deep = _is_deep_colour(image)
            mode = f"{image.mode};16" if deep else image.mode
            image.load()
            pixels, top = _from_pillow(image, path, rule)
        if deep:  # Pillow keeps the upper 8 bits
            top = float(pixels.max()) * 256 + 255
        if rule.exif == "apply" and image.format != "TIFF":  # Pillow turns TIFF files itself
            pixels = _upright(pixels.transpose(1, 2, 0), orientation).transpose(2, 0, 1)
    return ImageReading(np.ascontiguousarray(pixels), mode, orientation, rule.exif == "apply", top)


def image_shape(path: Path, rule: ImageRule = ImageRule()) -> tuple[int, int]:
    """Height and width as `read_image` would give them, from the file's header alone.

    Raises:
        UserError: the file is missing, empty or no image.
    """
    _refuse_no_file(path)
    if is_npy(path):
        shape, _ = npy_header(path)
        return shape[1:3] if _bands_are_first(path, shape, rule) else shape[:2]  # type: ignore[return-value]  # of two
    if (layout := _bands_beyond_pillow(path, rule)) is not None:
        return layout.height, layout.width
    with _opened(path) as image:
        width, height = image.size
        turned = rule.exif == "apply" and image.format != "TIFF" and _orientation(image, path) in TURNED
    return (width, height) if turned else (height, width)


def room_needed(path: Path) -> int:
    """How many pixels of RGB take the memory that decoding a file takes, from its header alone.

    Raises:
        UserError: the file is missing, empty or no image.
    """
    _refuse_no_file(path)
    if is_npy(path):
        shape, dtype = npy_header(path)
        return math.prod(shape) * dtype.itemsize // _RGB_BYTES
    if (layout := tiff_layout(path)) is not None:
        return max(layout.height * layout.width, layout.bytes // _RGB_BYTES)
    return math.prod(image_shape(path))


def _bands_beyond_pillow(path: Path, rule: ImageRule) -> TiffLayout | None:
    """The header of a TIFF file whose bands Pillow would lose or take for something else; None of any other file."""
    layout = tiff_layout(path)
    if layout is None:
        return None
    if layout.is_plain:
        scaled = layout.is_colour and layout.bits == 16 and rule.white not in (None, FULL)
        return layout if scaled else None
    return None if layout.has_alpha and rule.bands is None and rule.channels in (1, 3) else layout


def _from_bands(path: Path, values: NDArray[Any], mode: str, rule: ImageRule) -> ImageReading:
    pixels, top = to_uint8(path, values, _chosen(path, values.shape[2], rule), rule.white)
    return ImageReading(pixels, mode, 1, rule.exif == "apply", top)


def _chosen(path: Path, number: int, rule: ImageRule) -> Sequence[int]:
    """Which of a file's bands the channels are.

    Raises:
        UserError: the file has others than the rule asks for.
    """
    if rule.bands is not None:
        if max(rule.bands) >= number:
            raise UserError(
                f"{path}: has {number} bands, 0 to {number - 1}, and data.bands={list(rule.bands)} asks for band"
                f" {max(rule.bands)}"
            )
        return rule.bands
    if number == rule.channels:
        return range(number)
    if number == 1 and rule.channels == 3:
        return (0, 0, 0)
    some = f", or choose some with data.bands={list(range(rule.channels))}" if number > rule.channels else ""
    raise UserError(
        f"{path}: has {number} bands, and data.channels is {rule.channels}; set data.channels={number} to read all{some}"
    )


def _bands_are_first(path: Path, shape: tuple[int, ...], rule: ImageRule) -> bool:
    """Whether an array is [N, H, W] instead of [H, W] or [H, W, N].

    N is the axis, first or last, that is `rule.channels` long; where that is neither or both, or where bands are chosen,
    it is the shorter one.

    Raises:
        UserError: that does not tell, or the array is no image.
    """
    if len(shape) == 2:
        return False
    if len(shape) != 3:
        raise UserError(f"{path}: has the shape {list(shape)}; an image is [H, W], [bands, H, W] or [H, W, bands]")
    first, last = shape[0], shape[2]
    if rule.bands is None and (first == rule.channels) != (last == rule.channels):
        return first == rule.channels
    if first == last:
        raise UserError(
            f"{path}: has the shape {list(shape)}, and either end may be its bands; save it as TIFF, which says so"
        )
    return first < last


def _refuse_no_file(path: Path) -> None:
    if not path.exists():
        raise UserError(f"{path}: there is no such file")
    if not path.is_file():
        raise UserError(f"{path}: is a folder or device, not an image file")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: is empty (0 bytes); copy it again or remove it")
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({_one_line(error)})") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with contextlib.ExitStack() as stack:
        try:
            image = stack.enter_context(open_image(path, FORMATS))
        except UserError:
            raise
        except UnidentifiedImageError as error:
            raise UserError(f"{path}: {_what_instead(path)}; replace it by an image or remove it") from error
        except Image.DecompressionBombError as error:
            raise _too_large(path) from error
        except OSError as error:
            raise UserError(f"{path}: cannot be opened ({_one_line(error)})") from error
        except Exception as error:  # decoders raise whatever a broken header makes them trip over
            raise UserError(
                f"{path}: cannot be read as an image ({_one_line(error)}); copy it again or remove it"
            ) from error
        yield image


@contextlib.contextmanager
def _decoding(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except Exception as error:  # as above; a truncated file is an OSError, a broken PNG a SyntaxError
        raise UserError(f"{path}: is damaged or cut short ({_one_line(error)}); copy it again or remove it") from error


def _too_large(path: Path) -> UserError:
    return UserError(
        f"{path}: is too large, it declares more than {MAX_PIXELS:,} pixels; cut it into tiles, or remove it if it is"
        " not what you expect"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _what_instead(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the image (git lfs pull fetches it)"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start):
        return "is a text file, not an image"
    return "is no image of a kind that can be read, whatever its name says"


def _orientation(image: Image.Image, path: Path) -> int:
    """The EXIF orientation, 1 to 8, without decoding any pixels."""
    with contextlib.suppress(Exception):  # a broken EXIF block states no orientation; the pixels may be sound
        if image.format == "PNG":
            # Pillow decodes the whole file to find what may lie behind the pixels.
            exif = Image.Exif()
            exif.load(_png_exif(path))
        else:
            exif = image.getexif()
        value = exif.get(ORIENTATION, 1)
        if value in range(1, 9):
            return int(value)
    return 1


def _png_exif(path: Path) -> bytes:
    """The eXIf chunk of a PNG file, wherever in the file it lies; b"" where there is none."""
    with path.open("rb") as file:
        file.seek(8)
        while len(header := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if kind == b"eXIf":
                return file.read(min(length, LARGEST_EXIF))
            file.seek(length + 4, 1)
    return b""


def _refuse_by_header(image: Image.Image, path: Path, orientation: int, rule: ImageRule) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # an MPO's further frames are previews
        raise UserError(f"{path}: holds {frames} frames or pages; save the one that is meant")
    if orientation != 1 and rule.exif == "refuse":
        raise UserError(
            f"{path}: has EXIF orientation {orientation}; set data.exif=apply to turn it as viewers do,"
            " or data.exif=ignore if its mask was drawn on the pixels as stored"
        )
    if orientation != 1 and rule.exif == "ignore" and image.format == "TIFF":
        raise UserError(
            f"{path}: is a TIFF with orientation {orientation}, which cannot be ignored; set data.exif=apply"
        )
    if _is_deep_colour(image) and rule.white not in (None, FULL):
        raise UserError(
            f"{path}: 16-bit colour is only read at its full range, but of a TIFF; save it as TIFF or as 8-bit, or set"
            " data.white=65535"
        )


def _is_deep_colour(image: Image.Image) -> bool:
    """Whether the file has 16 bits a channel, of which Pillow keeps the upper 8."""
    return not image.mode.startswith("I") and any(";16" in str(tile[3]) for tile in getattr(image, "tile", []))


def _upright(pixels_HWC: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undoes an EXIF orientation (EXIF 2.32, tag 0x0112)."""
    if orientation in TURNED:
        pixels_HWC = pixels_HWC.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels_HWC = pixels_HWC[::-1]
    if orientation in (2, 3, 6, 7):
        pixels_HWC = pixels_HWC[:, ::-1]
    return pixels_HWC


def _from_pillow(image: Image.Image, path: Path, rule: ImageRule) -> tuple[NDArray[np.uint8], float | None]:
    """To [C, H, W], and the largest value of a 16-bit gray file."""
    if image.mode in _DEEP_MODES:
        values = np.asarray(image)[..., None]
        return to_uint8(path, values, _chosen(path, 1, rule), rule.white, full=FULL)
    if image.mode not in (*_COLOUR_MODES, *_GRAY_MODES, "P", "PA", "LA", "La", "RGBA", "RGBa"):
        raise UserError(f"{path}: has pixels of mode {image.mode}, which does not say what is seen; save it as RGB")
    by_band = rule.bands is not None or rule.channels not in (1, 3)
    if image.has_transparency_data and not (by_band and image.mode in ("LA", "RGBA")):
        image = _opaque(image, path, rule)
    if by_band:
        if image.mode not in ("LA", "RGBA"):
            image = image.convert("L" if image.mode in _GRAY_MODES else "RGB")
        values = np.atleast_3d(np.asarray(image))
        return to_uint8(path, values, _chosen(path, values.shape[2], rule), None)
    if image.mode in _GRAY_MODES:
        gray = np.asarray(image.convert("L"))
        return np.broadcast_to(gray, (rule.channels, *gray.shape)), None
    if rule.channels == 1:
        return np.asarray(image.convert("RGB").convert("L"))[None], None
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB")).transpose(2, 0, 1), None


def _opaque(image: Image.Image, path: Path, rule: ImageRule) -> Image.Image:
    """In RGBA; refused where pixels are transparent, unless the rule drops that."""
    shown = image.convert("RGBA")
    if rule.alpha == "refuse" and shown.getchannel("A").getextrema() != (255, 255):
        bands = len(image.getbands())
        # GDAL calls the fourth of four bands of bytes transparency, unless told otherwise.
        maybe = f"; or, if its last band is none, read all with data.channels={bands}" if image.format == "TIFF" else ""
        raise UserError(
            f"{path}: has transparent pixels; save it without, or keep their colours with data.alpha=drop{maybe}"
        )
    return shown
