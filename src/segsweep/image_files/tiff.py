"""TIFF files of any number of bands and any type of values: what the header says, and the values by tifffile.

Pillow reads gray, palette and RGB files; of other bands it keeps three or four without a word, and takes signed bytes
for unsigned ones. Shapes: H x W pixels, N bands.
"""

import contextlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from segsweep.errors import UserError
from segsweep.image_files import limits
from segsweep.image_files.limits import damaged, too_large

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_ALPHA = (1, 2, 999)
"""What ExtraSamples calls transparency; 999 is an old Corel Draw's."""
_COMPRESSIONS = {1: "none", 5: "LZW", 8: "deflate", 32773: "PackBits", 32946: "deflate", 34925: "LZMA", 50000: "ZSTD"}
"""Those that keep every value and whose decoders are told how much they may give."""


@dataclass(frozen=True)
class TiffLayout:
    """What the first page of a TIFF file says of its pixels."""

    height: int
    width: int
    samples: int
    """Values a pixel: N."""
    bits: int
    """Of a value; 0 where they differ."""
    sample_format: int
    """1 unsigned, 2 signed, 3 float; 0 where they differ or are something else."""
    photometric: int
    extra: tuple[int, ...]
    """What is beyond gray or RGB: 0 unspecified, 1 and 2 transparency."""
    orientation: int
    compression: int
    tile: tuple[int, int]
    """Height and width of a tile; (0, 0) where there are none."""
    pages: bool
    """Whether there are more pages."""

    @property
    def is_plain(self) -> bool:
        """Whether Pillow gives all that is in it, or refuses it: gray, palette, RGB, CMYK, ..."""
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
        """Whether the one band beyond gray or RGB is called transparency, as GDAL does by default with four of bytes."""
        if self.sample_format != _UNSIGNED or self.bits not in (8, 16):
            return False
        if self.is_colour and self.samples == 4:
            return not self.extra or self.extra[0] in _ALPHA
        gray_and_one = self.photometric == _BLACK_IS_ZERO and self.samples == 2 and self.bits == 8
        return gray_and_one and bool(self.extra) and self.extra[0] in _ALPHA

    @property
    def bytes(self) -> int:
        """Of all values."""
        return self.height * self.width * self.samples * (((self.bits or 64) + 7) // 8)

    @property
    def mode(self) -> str:
        """In words: "5 bands of uint16"."""
        kind = {_UNSIGNED: "uint", _SIGNED: "int", _FLOAT: "float"}.get(self.sample_format, "unknown ")
        return in_words(self.samples, f"{kind}{self.bits}")


def in_words(bands: int, type_of_values: str) -> str:
    return f"{bands} band{'' if bands == 1 else 's'} of {type_of_values}"


def tiff_layout(path: Path) -> TiffLayout | None:
    """What a TIFF file's header says; None of a file that is none, or whose header is broken, as opening it will tell."""
    with path.open("rb") as file:
        start = file.read(8)
        if start[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return None
        start += file.read(8) if 43 in start[2:4] else b""
        with contextlib.suppress(Exception):  # broken tags raise whatever they make Pillow trip over
            return _layout(file, ImageFileDirectory_v2(start))
    return None


def _layout(file: BinaryIO, tags: ImageFileDirectory_v2) -> TiffLayout:
    file.seek(tags.next)
    tags.load(file)
    samples = int(tags.get(277, 1))
    bits = set(tags.get(258, (1,)))
    formats = set(tags.get(339, (_UNSIGNED,)))
    sample_format = formats.pop() if len(formats) == 1 else 0
    return TiffLayout(
        int(tags[257]), int(tags[256]), samples, int(bits.pop()) if len(bits) == 1 else 0,
        # 4 is "undefined", which readers take for unsigned.
        {4: _UNSIGNED}.get(sample_format, sample_format if sample_format in (_UNSIGNED, _SIGNED, _FLOAT) else 0),
        int(tags.get(262, _WHITE_IS_ZERO)), tuple(tags.get(338, ())), int(tags.get(274, 1)), int(tags.get(259, 1)),
        (int(tags.get(323, 0)), int(tags.get(322, 0))), tags.next != 0,
    )  # fmt: skip


def read_bands(path: Path, layout: TiffLayout) -> NDArray[Any]:
    """Every band of a TIFF file, as stored: [H, W, N].

    Raises:
        UserError: the file is damaged, too large, of several pages, or of a kind that has no right reading; or tifffile,
            of the extra `tiff`, is not installed.
    """
    _refuse(path, layout)
    if any(importlib.util.find_spec(name) is None for name in ("tifffile", "imagecodecs")):
        raise UserError(f"{path}: holds {layout.mode}, which needs tifffile and imagecodecs: pip install -e '.[tiff]'")
    import tifffile

    try:
        # Read through an open file, and never mapped. The flags keep tifffile from following other makers' private pages.
        with path.open("rb") as file, tifffile.TiffFile(
            file, is_lsm=False, is_ndpi=False, is_scanimage=False, is_stk=False
        ) as tiff:  # fmt: skip
            page = tiff.pages[0]
            _refuse_segments(page, path.stat().st_size)
            planes, depth, height, width, samples = page.shaped
            if (planes * samples, depth, height, width) != (layout.samples, 1, layout.height, layout.width):
                raise ValueError(f"its pages have the shape {page.shaped}")
            values = page.asarray(squeeze=False, maxworkers=1).reshape(page.shaped)
    except UserError:
        raise
    except Exception as error:  # decoders raise whatever broken bytes make them trip over
        raise damaged(path, error) from error
    # Bands lie together (one plane of N samples) or apart (N planes of one).
    return np.moveaxis(values[:, 0], 0, 2).reshape(height, width, -1) if planes > 1 else values[0, 0]


def _refuse(path: Path, layout: TiffLayout) -> None:
    """Refuses by the header what has no right reading, before any value is read."""
    height, width = max(layout.height, layout.tile[0]), max(layout.width, layout.tile[1])
    if min(layout.height, layout.width, layout.samples) < 1:
        raise damaged(path, "it declares no pixels")
    size = layout.bytes // (layout.height * layout.width) * height * width
    if height * width > limits.MAX_PIXELS or size > limits.MAX_BYTES:
        raise too_large(path, f"{height:,} x {width:,} pixels of {layout.mode}")
    if layout.pages:
        raise UserError(
            f"{path}: holds several frames or pages; save the one that is meant, or bands in one page (tifffile:"
            " planarconfig='separate')"
        )
    wrong = ""
    if layout.photometric == _WHITE_IS_ZERO:
        wrong = "counts from white down (MinIsWhite); save it with black as zero"
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


def _refuse_segments(page: Any, size: int) -> None:
    """Refuses strips or tiles that are not all in the file; tifffile would fill the gaps.

    Raises:
        ValueError: says what is missing.
    """
    number = int(np.prod(page.chunked))
    if not len(page.dataoffsets) == len(page.databytecounts) == number:
        raise ValueError(f"it lists {len(page.dataoffsets)} strips or tiles of {number}")
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if not (offset > 0 and count > 0 and offset + count <= size):
            raise ValueError("a strip or tile is not in it")
