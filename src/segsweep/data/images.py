"""Image files to uint8 arrays: what a file holds is read as it is meant, or refused by name.

Shapes: C channels (1 or 3), H x W pixels.
"""

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from segsweep.errors import UserError
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
_COLOUR_MODES = ("RGB", "RGBX", "YCbCr")
_GRAY_MODES = ("1", "L")
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


@dataclass(frozen=True)
class ImageRule:
    """How images are read.

    Args:
        channels: 3 for colour (a gray image is repeated) or 1 for gray (a colour image becomes its luma, as ITU-R 601).
        alpha: what becomes of transparent pixels: "refuse" the file, or "drop" the transparency and keep the colour
            that lies under it. A file whose pixels are all opaque is read either way.
        exif: what becomes of an EXIF orientation: "apply" it as viewers do, "ignore" it where masks were drawn on the
            pixels as stored, or "refuse" the file.
        white: the value of a 16-bit image that becomes 255; 4095 for 12-bit cameras.

    Raises:
        UserError: a value is none of these.
    """

    channels: int = 3
    alpha: Alpha = "refuse"
    exif: Exif = "apply"
    white: int = 65535

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise UserError(f"data.channels={self.channels}: must be 3 (colour) or 1 (gray)")
        for name, value, allowed in (("alpha", self.alpha, get_args(Alpha)), ("exif", self.exif, get_args(Exif))):
            if value not in allowed:
                raise UserError(f"data.{name}={value!r}: must be {' or '.join(allowed)}")
        if not 255 <= self.white <= 65535:
            raise UserError(f"data.white={self.white}: must be from 255 to 65535")


@dataclass(frozen=True)
class ImageReading:
    """A decoded image, and how its file held it."""

    pixels: NDArray[np.uint8]
    """[C, H, W]"""
    mode: str
    """Pillow's word for the file's pixels: RGB, L, P, I;16, ..."""
    orientation: int
    """The EXIF orientation that the file states; 1 where it states none."""
    upright: bool
    """Whether the orientation was applied."""


def read_image(path: Path, rule: ImageRule = ImageRule()) -> ImageReading:
    """Decodes one image file.

    Raises:
        UserError: the file is missing, empty, truncated, no image, larger than `MAX_PIXELS`, has several frames, or
            pixels of a kind that `rule` refuses or nobody could guess the meaning of.
    """
    with _opened(path) as image:
        orientation = _orientation(image, path)
        with _decoding(path):
            _refuse_by_header(image, path, orientation, rule)
            mode = f"{image.mode};16" if _is_deep_colour(image) else image.mode
            image.load()
            pixels_HWC = _to_uint8(image, path, rule)
        if rule.exif == "apply" and image.format != "TIFF":  # Pillow turns TIFF files itself
            pixels_HWC = _upright(pixels_HWC, orientation)
    return ImageReading(np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1)), mode, orientation, rule.exif == "apply")


def image_shape(path: Path, rule: ImageRule = ImageRule()) -> tuple[int, int]:
    """Height and width as `read_image` would give them, from the file's header alone.

    Raises:
        UserError: the file is missing, empty or no image.
    """
    with _opened(path) as image:
        width, height = image.size
        turned = rule.exif == "apply" and image.format != "TIFF" and _orientation(image, path) in TURNED
    return (width, height) if turned else (height, width)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with contextlib.ExitStack() as stack:
        try:
            if not path.is_file() and path.exists():
                raise UserError(f"{path}: is a folder or device, not an image file")
            if path.stat().st_size == 0:
                raise UserError(f"{path}: is empty (0 bytes); copy it again or remove it")
            image = stack.enter_context(open_image(path, FORMATS))
        except UserError:
            raise
        except FileNotFoundError as error:
            raise UserError(f"{path}: there is no such file") from error
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
    if _is_deep_colour(image) and rule.white != 65535:
        raise UserError(
            f"{path}: 16-bit colour is only read at its full range; set data.white=65535 or save it as 8-bit"
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


def _to_uint8(image: Image.Image, path: Path, rule: ImageRule) -> NDArray[np.uint8]:
    """To [H, W, C], with as many channels as the rule asks for."""
    if image.mode in _DEEP_MODES:
        return _from_deep(np.asarray(image), path, rule)
    if image.mode not in (*_COLOUR_MODES, *_GRAY_MODES, "P", "PA", "LA", "La", "RGBA", "RGBa"):
        raise UserError(f"{path}: has pixels of mode {image.mode}, which does not say what is seen; save it as RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        opaque = image.getchannel("A").getextrema() == (255, 255)
        if not opaque and rule.alpha == "refuse":
            raise UserError(
                f"{path}: has transparent pixels; save it without, or keep their colours with data.alpha=drop"
            )
    if image.mode in _GRAY_MODES:
        gray = np.asarray(image.convert("L"))[..., None]
        return gray if rule.channels == 1 else np.repeat(gray, 3, axis=2)
    if rule.channels == 1:
        return np.asarray(image.convert("RGB").convert("L"))[..., None]
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _from_deep(values: NDArray[np.generic], path: Path, rule: ImageRule) -> NDArray[np.uint8]:
    """16-bit gray to [H, W, C], `white` to 255."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > rule.white:
        raise UserError(
            f"{path}: has values from {low} to {high}, but data.white={rule.white} is to be 255;"
            " set data.white to the largest value the camera gives, at most 65535"
        )
    scaled = (values.astype(np.uint32) * 255 + rule.white // 2) // rule.white
    return np.repeat(scaled.astype(np.uint8)[..., None], rule.channels, axis=2)
