"""Open images and masks with Pillow safely: few formats, a size limit, errors of one line."""

import contextlib
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

# Imported by name, so that Pillow never loads its other plugins: some start other programs (EPS).
from PIL import (
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
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
"""Most bytes of EXIF that are read; a JPEG file cannot hold more."""


class _Limit(int):
    """Pillow warns above its limit and refuses above `2 * limit`. For this type that product is the limit itself."""

    def __rmul__(self, factor: int) -> int:
        return int(self)


class _PillowLimit:
    """Sets Pillow's limit, which is global, while any thread reads, and restores it afterwards."""

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
    """Open an image file without decoding its pixels.

    Args:
        path: the file; its name and suffix do not matter.
        formats: Pillow's names of the accepted formats.

    Raises:
        UserError: the file is missing, empty, of another format, too large, of several frames, or a BMP that Pillow would
            misread. Any error of the decoder within the block becomes a UserError, too.
    """
    require_file(path)
    try:
        # An open file is never memory-mapped. If another process truncates a mapped file, this process crashes; and
        # Pillow 13.0 misreads rows of a mapped TIFF that has an orientation.
        with _pillow_limit, path.open("rb") as file, Image.open(file, formats=list(formats)) as image:
            if image.format == "BMP":
                _refuse_misread_bmp(path, file, image.mode)
            if image.format == "GIF" and image.tile and image.tile[0][1] != (0, 0, *image.size):
                raise UserError(f"{path}: is a GIF whose frame covers a part of it; save it as PNG")
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # an MPO's further frames are previews
                raise UserError(f"{path}: holds {frames} frames or pages; save only one of them")
            yield image
    except UserError:
        raise
    except UnidentifiedImageError as error:
        with path.open("rb") as file:
            start = file.read(64)
        kind = kind_of(start)
        if kind.upper().replace(" ", "") in formats:
            raise damaged(path, f"its header says {kind}, and the rest cannot be read") from error
        what = "is no image of a kind that can be read, whatever its name says"
        if start.startswith(b"version https://git-lfs"):
            what = "is a Git LFS pointer, not the image (git lfs pull fetches it)"
        elif kind:
            what = f"is of type {kind}, which cannot be read here"
        elif all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start):
            what = "is a text file, not an image"
        raise UserError(f"{path}: {what}; replace it by an image ({', '.join(formats)}) or remove it") from error
    except Image.DecompressionBombError as error:
        raise too_large(path) from error
    except Exception as error:  # broken bytes make decoders raise anything, such as SyntaxError or AssertionError
        raise damaged(path, error) from error


_KINDS = {
    b"GIF8": "GIF", b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000", b"P5": "PGM", b"P6": "PPM", b"8BPS": "Photoshop",
    b"gimp xcf": "GIMP", b"%PDF": "PDF", b"%!PS": "PostScript", b"<svg": "SVG", b"<?xml": "XML", b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "gzip", b"\x89HDF": "HDF5", b"\x93NUMPY": "NumPy", b"\0\0\x01\0": "icons (ICO)", b"\xff\x0a": "JPEG XL",
}  # fmt: skip
"""What a file is, by its first bytes."""
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"jxl ": "JPEG XL", b"qt  ": "video", b"isom": "video", b"mp42": "video"}


def kind_of(start: bytes) -> str:
    """What a file is, by its first 64 bytes, also if it cannot be read; "" if unknown."""
    if start[:4] == b"RIFF":
        return "WebP" if start[8:12] == b"WEBP" else "sound or video (RIFF)"
    if start[4:8] == b"ftyp":  # the container of HEIC, AVIF and MP4
        heic = start[8:11] in (b"hei", b"hev", b"mif", b"msf")
        return "HEIC" if heic else _BRANDS.get(start[8:12], "video")
    return next((kind for first, kind in _KINDS.items() if start.startswith(first)), "")


def orientation(path: Path, image: Image.Image) -> int:
    """The EXIF orientation in a file, 1 to 8, without decoding pixels; 1 if there is none."""
    with contextlib.suppress(Exception):  # if EXIF is broken, the pixels may still be good
        if image.format == "PNG" and path.is_file():
            # Pillow would decode all pixels to reach EXIF behind them.
            exif = Image.Exif()
            exif.load(png_exif(path))
        else:
            exif = image.getexif()
        value = exif.get(ORIENTATION, 1)
        if value in range(1, 9):
            return int(value)
    return 1


def png_exif(path: Path) -> bytes:
    """The eXIf chunk of a PNG file, anywhere in the file; b"" if there is none."""
    with path.open("rb") as file:
        file.seek(8)
        while len(header := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if kind == b"eXIf":
                return file.read(min(length, _LARGEST_EXIF))
            file.seek(length + 4, 1)
    return b""


def upright(image: Image.Image, stated: int) -> Image.Image:
    """Turn or flip a loaded image as its EXIF `orientation` says, as viewers do."""
    if stated == 1 or image.format == "TIFF":  # Pillow has already turned TIFF files
        return image
    image.getexif()[ORIENTATION] = stated
    return ImageOps.exif_transpose(image)


def raw_mode(image: Image.Image) -> str:
    """Pillow's name for the stored pixels of a file that is not loaded yet, such as `L;4` for 4-bit gray; "" if unknown."""
    tiles = getattr(image, "tile", [])
    if not tiles:
        return ""
    arguments = tiles[0].args
    first = arguments if isinstance(arguments, str) else (arguments or ("",))[0]
    return first if isinstance(first, str) else ""


def is_deep_colour(image: Image.Image) -> bool:
    """Whether a file that is not loaded yet has colour of 16 bits a channel. Pillow keeps only the upper 8."""
    return ";16" in raw_mode(image) and not image.mode.startswith("I")


def _refuse_misread_bmp(path: Path, file: BinaryIO, mode: str) -> None:
    """Pillow 13.0 takes the depth from a gray palette: it reads rows of 4 or 8 bits a pixel as rows of 1 or 8."""
    file.seek(14)
    header = file.read(16)
    (bits,) = struct.unpack_from("<H", header, 10 if header[0] == 12 else 14)
    if bits != {"1": 1, "L": 8}.get(mode, bits):
        raise UserError(
            f"{path}: is a BMP of {bits} bits a pixel with a palette of few grays, which Pillow misreads; save it as PNG"
        )
