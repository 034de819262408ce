"""Images and masks opened by Pillow with what anybody may send in mind: few formats, a limit, errors of one line."""

import contextlib
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

# Imported by name, so that Pillow never goes through all of its plugins: some start other programs (EPS).
from PIL import (
    BmpImagePlugin,  # noqa: F401
    Image,
    ImageFile,
    ImageOps,
    Jpeg2KImagePlugin,  # noqa: F401
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from segsweep.errors import UserError
from segsweep.image_files import limits
from segsweep.image_files.limits import damaged, require_file, too_large

ORIENTATION = 0x0112
TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""
_LARGEST_EXIF = 1 << 16
"""Bytes of EXIF that are looked at; in a JPEG file it can have no more."""


class _Limit(int):
    """Pillow warns above its limit and refuses above twice that. Twice this limit is the limit."""

    def __rmul__(self, factor: int) -> int:
        return int(self)


class _PillowLimit:
    """Pillow's limit is one for the process: it is ours while any thread reads, and then what it was."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._before: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._readers:
                self._before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, _Limit(limits.MAX_PIXELS)
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if not self._readers:
                Image.MAX_IMAGE_PIXELS = self._before


_pillow_limit = _PillowLimit()


@contextlib.contextmanager
def open_image(path: Path, formats: Sequence[str]) -> Iterator[ImageFile.ImageFile]:
    """An image file of one of the formats, in Pillow's words, whatever its name says; no pixel is decoded yet.

    It is read and never mapped, so a file that another process cuts short is an error and not the end of this process.
    (Pillow 13.0 also gets rows of a mapped TIFF wrong that its orientation turns.)

    Raises:
        UserError: it is missing, empty, no such image, too large, of several frames, or a BMP whose pixels Pillow would get
            wrong. Whatever its decoder raises within the block becomes one, too.
    """
    require_file(path)
    try:
        with _pillow_limit, path.open("rb") as file, Image.open(file, formats=list(formats)) as image:
            if image.format == "BMP":
                _refuse_misread_bmp(path, file, image.mode)
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # an MPO's further frames are previews
                raise UserError(f"{path}: holds {frames} frames or pages; save the one that is meant")
            yield image
    except UserError:
        raise
    except UnidentifiedImageError as error:
        read = ", ".join(formats)
        raise UserError(f"{path}: {_what_instead(path)}; replace it by an image ({read}) or remove it") from error
    except Image.DecompressionBombError as error:
        raise too_large(path) from error
    except Exception as error:  # decoders raise whatever broken bytes make them trip over: SyntaxError, AssertionError
        raise damaged(path, error) from error


def _what_instead(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the image (git lfs pull fetches it)"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start):
        return "is a text file, not an image"
    return "is no image of a kind that can be read, whatever its name says"


def orientation(path: Path, image: Image.Image) -> int:
    """The EXIF orientation that a file states, 1 to 8, without decoding any pixels; 1 where it states none."""
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
                return file.read(min(length, _LARGEST_EXIF))
            file.seek(length + 4, 1)
    return b""


def upright(image: Image.Image, stated: int) -> Image.Image:
    """A loaded image as viewers show it; `stated` is its `orientation`."""
    if stated == 1 or image.format == "TIFF":  # Pillow turns TIFF files itself
        return image
    image.getexif()[ORIENTATION] = stated
    return ImageOps.exif_transpose(image)


def raw_mode(image: Image.Image) -> str:
    """How the pixels lie in a file that is not loaded yet, in Pillow's words: `L;4` for 4-bit grays."""
    tiles = getattr(image, "tile", [])
    if not tiles:
        return ""
    arguments = tiles[0].args
    first = arguments if isinstance(arguments, str) else (arguments or ("",))[0]
    return first if isinstance(first, str) else ""


def is_deep_colour(image: Image.Image) -> bool:
    """Whether a file that is not loaded yet has 16 bits a channel, of which Pillow keeps the upper 8."""
    return ";16" in raw_mode(image) and not image.mode.startswith("I")


def _refuse_misread_bmp(path: Path, file: BinaryIO, mode: str) -> None:
    """Pillow 13.0 takes a palette of grays for the depth: rows of 4 or 8 bits a pixel are then read as rows of 1 or 8."""
    file.seek(14)
    header = file.read(16)
    (bits,) = struct.unpack_from("<H", header, 10 if header[0] == 12 else 14)
    if bits != {"1": 1, "L": 8}.get(mode, bits):
        raise UserError(
            f"{path}: is a BMP of {bits} bits a pixel with a palette of few grays, which cannot be read rightly; save it"
            " as PNG"
        )
