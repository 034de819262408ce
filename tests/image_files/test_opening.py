"""Images and masks share one opener: it refuses the same files with the same line, and applies the same orientation."""

import os
import struct
import threading
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segsweep.classes import ClassTable, LabelClass, read_mask
from segsweep.data.images import ImageRule, image_shape, read_image
from segsweep.errors import UserError
from segsweep.image_files.limits import DecodeBudget, parallel_map

LABELS = ClassTable(
    [LabelClass(0, "sand", (200, 180, 90)), LabelClass(1, "sea", (0, 80, 200)), LabelClass(2, "wood", (20, 120, 40))]
)
POSITIONS = np.add.outer(np.arange(7), np.arange(5)) // 2 % 3


def _wide(content: bytes) -> bytes:
    """The PNG with a header that declares 60,000 x 60,000 pixels."""
    header = content[12:16] + struct.pack(">II", 60_000, 60_000) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


CONTENTS = {
    "empty": lambda whole: b"",
    "text": lambda whole: b"not an image\n" * 9,
    "Git LFS": lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "EPS": lambda whole: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
    "noise": lambda whole: bytes(range(200, 256)) * 3,
    "cut short": lambda whole: whole[:-40],
    "array cut short": lambda whole: b"\x93NUMPY\x01\x00",
    "archive": lambda whole: b"PK\x03\x04" * 20,
}


def _refusals(path: Path) -> list[str]:
    """The errors for a file read as an image and as a mask, without the list of formats, which differs."""
    lines = []
    for read in (lambda: read_image(path), lambda: read_mask(path, LABELS)):
        with pytest.raises(UserError) as caught:
            read()
        line = str(caught.value)
        assert line.startswith(f"{path}: ")
        lines.append(line.partition(" (PNG")[0])
    return lines


@pytest.mark.parametrize("suffix", ["png", "npy"])
@pytest.mark.parametrize("content", CONTENTS)
def test_a_file_that_is_no_image_is_refused_with_the_same_line_as_a_mask(
    tmp_path: Path, content: str, suffix: str
) -> None:
    Image.fromarray(LABELS.colors[POSITIONS]).save(tmp_path / "whole.png")
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(CONTENTS[content]((tmp_path / "whole.png").read_bytes()))
    first, second = _refusals(path)
    assert first == second


def test_missing_files_folders_pipes_and_bombs_are_refused_with_the_same_line(tmp_path: Path) -> None:
    Image.fromarray(LABELS.colors[POSITIONS]).save(tmp_path / "bomb.png")
    (tmp_path / "bomb.png").write_bytes(_wide((tmp_path / "bomb.png").read_bytes()))
    os.mkfifo(tmp_path / "pipe.png")
    page = Image.fromarray(LABELS.colors[POSITIONS])
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page])
    for name, word in {
        "none.png": "no such file",
        "": "folder or device",
        "pipe.png": "folder or device",
        "bomb.png": "too large",
        "pages.tif": "holds 2 frames",
    }.items():
        first, second = _refusals(tmp_path / name)
        assert first == second
        assert word in first


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("options", ["png", "tif", "tif tiff_lzw", "webp"])
@pytest.mark.parametrize("gray", [True, False])
def test_an_orientation_turns_an_image_and_its_mask_alike(
    tmp_path: Path, options: str, orientation: int, gray: bool
) -> None:
    extension, _, compression = options.partition(" ")
    exif = Image.Exif()
    exif[0x0112] = orientation
    colors = np.repeat(POSITIONS[..., None], 3, 2).astype(np.uint8) if gray else LABELS.colors[POSITIONS]
    stored = Image.fromarray(colors[..., 0] if gray else colors)
    path = tmp_path / f"x.{extension}"
    extra = {"lossless": True} if extension == "webp" else {"compression": compression} if compression else {}
    stored.save(path, exif=exif, **extra)
    # EXIF 2.32, tag 0x0112: where the stored rows and columns belong in the picture.
    positions = POSITIONS.T if orientation >= 5 else POSITIONS
    positions = positions[::-1] if orientation in (3, 4, 7, 8) else positions
    positions = positions[:, ::-1] if orientation in (2, 3, 6, 7) else positions
    shown = np.repeat(positions[None], 3, 0) if gray else LABELS.colors[positions].transpose(2, 0, 1)
    assert np.array_equal(read_image(path, ImageRule()).pixels, shown)
    assert image_shape(path) == positions.shape
    if extension != "webp":
        assert np.array_equal(read_mask(path, LABELS).mask, positions)


def test_large_images_are_decoded_one_after_another_and_small_ones_together() -> None:
    budget, together, most = DecodeBudget(100), Counter(), Counter()
    lock = threading.Lock()

    def decode(pixels: int) -> None:
        with budget.take(pixels):
            with lock:
                together[pixels] += 1
                most[pixels] = max(most[pixels], together[pixels])
            time.sleep(0.01)
            with lock:
                together[pixels] -= 1

    for pixels, expected in ((1000, 1), (60, 1), (25, 4)):
        list(parallel_map(decode, [pixels] * 12, workers=6))
        assert most[pixels] == expected
