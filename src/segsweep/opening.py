"""Images opened with what anybody may send in mind: few formats, a limit on pixels, a limit on what is decoded at once."""

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
    Jpeg2KImagePlugin,  # noqa: F401
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from segsweep.errors import UserError

MAX_PIXELS = 500_000_000
"""Height times width of the largest image or mask that is read; an orthophoto of 20,000 x 20,000 fits."""
MAX_BYTES = 8 * MAX_PIXELS
"""What the values of all bands of an image may take; such an orthophoto of four bands of 16 bits fits."""


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
                self._before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, _Limit(MAX_PIXELS)
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

    Raises:
        PIL.UnidentifiedImageError: it is of no such format.
        PIL.Image.DecompressionBombError: it declares more than `MAX_PIXELS`; also later, when it is decoded.
        UserError: it is a BMP whose pixels Pillow would get wrong.
        OSError: it cannot be opened.
    """
    with _pillow_limit, path.open("rb") as file, Image.open(file, formats=list(formats)) as image:
        if image.format == "BMP":
            _refuse_misread_bmp(path, file, image.mode)
        yield image


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


class Room:
    """A number of pixels that threads may decode at the same time.

    Args:
        size: pixels in all. One image may be larger, and is then alone.
    """

    def __init__(self, size: int) -> None:
        self._free = self._size = size
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Waits until there is room for so many pixels, and keeps it until the end of the block."""
        pixels = min(pixels, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()


room = Room(MAX_PIXELS)
"""For whoever decodes images in several threads: many large ones then take the memory of the largest, not of all."""
