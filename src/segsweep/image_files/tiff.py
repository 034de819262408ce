"""TIFF files of any number of bands and type of values: the header, and the values read by tifffile.

Pillow reads gray, palette and RGB files. Of more bands it silently keeps three or four, and it reads signed bytes as
unsigned. Shapes: H x W pixels, N bands.
"""

import contextlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from segsweep.errors import UserError
from segsweep.image_files import limits
from segsweep.image_files.limits import damaged, too_large
from segsweep.image_files.pillow import ORIENTATION

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_ALPHA = (1, 2, 999)
"""Values of the tag ExtraSamples that mean transparency; 999 is from old Corel Draw."""
_COMPRESSIONS = {1: "none", 5: "LZW", 8: "deflate", 32773: "PackBits", 32946: "deflate", 34925: "LZMA", 50000: "ZSTD"}
"""Exact compressions whose decoders limit the size of their output."""


@dataclass(frozen=True)
class TiffLayout:
    """The header of the first page of a TIFF file."""

    height: int
    width: int
    samples: int
    """Values per pixel: N."""
    bits: int
    """Bits per value; 0 if bands differ."""
    sample_format: int
    """1 unsigned, 2 signed, 3 float; 0 if bands differ or for anything else."""
    photometric: int
    extra: tuple[int, ...]
    """Meaning of each band beyond gray or RGB: 0 unspecified, 1 and 2 transparency."""
    orientation: int
    compression: int
    tile: tuple[int, int]
    """Height and width of a tile; (0, 0) without tiles."""
    pages: bool
    """Whether the file has more pages."""

    @property
    def is_plain(self) -> bool:
        """Whether Pillow either reads every value or refuses the file: gray, palette, RGB, CMYK, ..."""
        if self.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
            return True
        if self.sample_format != _UNSIGNED:
            return False
        return (
            (self.samples, self.bits) in ((3, 8), (3, 16)) if self.is_colour else self.samples == 1 <= self.bits <= 16
        )

    @property
    def is_colour(self) -> bool:
        return self.photometric == _RGB

    @property
    def has_alpha(self) -> bool:
        """Whether the band beyond gray or RGB is transparency, as GDAL declares by default for four uint8 bands."""
        if self.sample_format != _UNSIGNED or self.bits not in (8, 16):
            return False
        if self.is_colour and self.samples == 4:
            return not self.extra or self.extra[0] in _ALPHA
        gray_and_one = self.photometric == _BLACK_IS_ZERO and self.samples == 2 and self.bits == 8
        return gray_and_one and bool(self.extra) and self.extra[0] in _ALPHA

    @property
    def bytes(self) -> int:
        """Size of all values, in bytes; 8 bytes each if the bands differ."""
        return self.height * self.width * self.samples * (((self.bits or 64) + 7) // 8)

    @property
    def mode(self) -> str:
        """For messages: "5 bands of uint16"."""
        kind = {_UNSIGNED: "uint", _SIGNED: "int", _FLOAT: "float"}.get(self.sample_format, "unknown ")
        return in_words(self.samples, f"{kind}{self.bits}")


def in_words(bands: int, type_of_values: str) -> str:
    return f"{bands} band{'' if bands == 1 else 's'} of {type_of_values}"


def tiff_layout(path: Path) -> TiffLayout | None:
    """The header of a TIFF file; None if the file is no TIFF or its header is damaged, which opening it will report."""
    with path.open("rb") as file:
        start = file.read(8)
        if start[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return None
        start += file.read(8) if 43 in start[2:4] else b""  # BigTIFF
        with contextlib.suppress(Exception):  # broken tags make Pillow raise anything
            tags = TiffImagePlugin.ImageFileDirectory_v2(start)
            file.seek(tags.next)
            tags.load(file)
            bits = set(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
            formats = set(tags.get(TiffImagePlugin.SAMPLEFORMAT, (_UNSIGNED,)))
            sample_format = formats.pop() if len(formats) == 1 else 0
            if sample_format == 4:  # "undefined", which readers take as unsigned
                sample_format = _UNSIGNED
            return TiffLayout(
                height=int(tags[TiffImagePlugin.IMAGELENGTH]),
                width=int(tags[TiffImagePlugin.IMAGEWIDTH]),
                samples=int(tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)),
                bits=int(bits.pop()) if len(bits) == 1 else 0,
                sample_format=sample_format if sample_format in (_UNSIGNED, _SIGNED, _FLOAT) else 0,
                photometric=int(tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, _WHITE_IS_ZERO)),
                extra=tuple(tags.get(TiffImagePlugin.EXTRASAMPLES, ())),
                orientation=int(tags.get(ORIENTATION, 1)),
                compression=int(tags.get(TiffImagePlugin.COMPRESSION, 1)),
                tile=(int(tags.get(TiffImagePlugin.TILELENGTH, 0)), int(tags.get(TiffImagePlugin.TILEWIDTH, 0))),
                pages=tags.next != 0,
            )
    return None


def read_bands(path: Path, layout: TiffLayout) -> NDArray[Any]:
    """Every band of a TIFF file, as stored: [H, W, N].

    Raises:
        UserError: the file is damaged, too large, of several pages or of an unsupported kind; or tifffile, which the extra
            `tiff` installs, is missing.
    """
    require_supported(path, layout)
    if any(importlib.util.find_spec(name) is None for name in ("tifffile", "imagecodecs")):
        raise UserError(
            f"{path}: holds {layout.mode}, which needs tifffile and imagecodecs: pip install tifffile imagecodecs"
        )
    import tifffile

    try:
        # An open file is never memory-mapped. The flags keep tifffile from following private pages of other makers.
        with path.open("rb") as file, tifffile.TiffFile(
            file, is_lsm=False, is_ndpi=False, is_scanimage=False, is_stk=False
        ) as tiff:  # fmt: skip
            page = tiff.pages[0]
            _require_all_segments(page, path.stat().st_size)
            planes, depth, height, width, samples = page.shaped
            if (planes * samples, depth, height, width) != (layout.samples, 1, layout.height, layout.width):
                raise ValueError(f"its pages have the shape {page.shaped}")
            values = page.asarray(squeeze=False, maxworkers=1).reshape(page.shaped)
    except UserError:
        raise
    except Exception as error:  # broken bytes make decoders raise anything
        raise damaged(path, error) from error
    # Bands lie together (one plane of N samples) or apart (N planes of one).
    return np.moveaxis(values[:, 0], 0, 2).reshape(height, width, -1) if planes > 1 else values[0, 0]


def require_supported(path: Path, layout: TiffLayout) -> None:
    """Raise UserError if the header declares pixels that `read_bands` cannot read correctly."""
    height, width = max(layout.height, layout.tile[0]), max(layout.width, layout.tile[1])
    if min(layout.height, layout.width, layout.samples) < 1:
        raise damaged(path, "it declares no pixels")
    size = layout.bytes // (layout.height * layout.width) * height * width
    if height * width > limits.MAX_PIXELS or size > limits.MAX_BYTES:
        raise too_large(path, f"{height:,} x {width:,} pixels of {layout.mode}")
    if layout.pages:
        raise UserError(
            f"{path}: holds several frames or pages; save only one of them, or all bands in one page (tifffile:"
            " planarconfig='separate')"
        )
    wrong = ""
    if layout.photometric == _WHITE_IS_ZERO:
        wrong = "has white as zero (MinIsWhite); save it with black as zero"
    elif layout.sample_format == 0 or layout.bits not in {_FLOAT: (16, 32, 64)}.get(
        layout.sample_format, (8, 10, 12, 14, 16, 32)
    ):
        wrong = f"holds {layout.mode}; save it as uint8, uint16 or float32"
    elif layout.orientation not in (0, 1):
        wrong = f"holds {layout.mode} and an orientation ({layout.orientation}); save it upright, without the tag"
    elif layout.compression not in _COMPRESSIONS:
        known = ", ".join(dict.fromkeys(_COMPRESSIONS.values()))
        wrong = f"holds {layout.mode} with compression {layout.compression}; save it with one of {known}"
    if wrong:
        raise UserError(f"{path}: is a TIFF that {wrong}")


def _require_all_segments(page: Any, size: int) -> None:
    """Raise ValueError if a strip or tile is not in the file of `size` bytes; tifffile would fill the gap."""
    number = int(np.prod(page.chunked))
    if not len(page.dataoffsets) == len(page.databytecounts) == number:
        raise ValueError(f"it lists {len(page.dataoffsets)} strips or tiles of {number}")
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if not (offset > 0 and count > 0 and offset + count <= size):
            raise ValueError("a strip or tile is not in it")
