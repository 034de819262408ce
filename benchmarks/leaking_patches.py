"""Cuts images and masks into patches, and divides them into trainings that differ in neighbours of the test patches alone.

Tutorials on the Dubai tiles divide patches at random, so neighbouring patches of one image are in training and in test.

Patches lie side by side from the top left of each image; remainders at the right and bottom are dropped. They are saved as
PNG, so no pixel changes, and masks keep their palette.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from segsweep.data.finding import require_pairs, scan
from segsweep.errors import UserError

VAL_FRACTION = 0.1
"""Share of the other tiles' patches that nothing is trained on."""


@dataclass(frozen=True)
class Division:
    """Names of patches: two trainings with the same test and val.

    Args:
        test: every second patch of one tile, as the squares of one colour on a chessboard.
        val: patches of other tiles.
        train: by whether neighbours of test patches are among them. Without: patches of other tiles. With: the other half
            of the tile instead of as many of those.
    """

    test: tuple[str, ...]
    val: tuple[str, ...]
    train: dict[bool, tuple[str, ...]]


def divide(names: Sequence[str], tile: str, size: int, seed: int) -> Division:
    """Divides patches.

    Args:
        names: of the pairs that `cut_folder` has saved.
        tile: the held-out tile, the first folder of a name.
        size: height and width of a patch, in pixels.
        seed: chooses val, and which patches of other tiles give way to neighbours.

    Raises:
        UserError: the tile has no two neighbours, or the other tiles have too few patches.
    """
    halves: tuple[list[str], list[str]] = ([], [])
    others = sorted(name for name in names if name.partition("/")[0] != tile)
    for name in sorted(set(names) - set(others)):
        top, left = map(int, name.split("_")[-2:])
        halves[(top // size + left // size) % 2].append(name)
    test, neighbours = halves
    order = [others[at] for at in np.random.default_rng(seed).permutation(len(others))]
    count = max(1, round(VAL_FRACTION * len(others)))
    val, train = order[:count], order[count:]
    if not neighbours or len(train) < len(neighbours):
        raise UserError(
            f"{tile}: {len(test)} patches to test, {len(neighbours)} neighbours and {len(train)} patches of other tiles to"
            " train on; give smaller patches or more images"
        )
    return Division(tuple(test), tuple(val), {False: tuple(train), True: (*neighbours, *train[len(neighbours) :])})


def cut(source: Path, stem: Path, size: int) -> int:
    """Saves the patches of a file as `<stem>_<top>_<left>.png`, with top and left in pixels; returns their number."""
    with Image.open(source) as stored:
        image = ImageOps.exif_transpose(stored)
    corners = [(x, y) for y in range(0, image.height - size + 1, size) for x in range(0, image.width - size + 1, size)]
    for x, y in corners:
        image.crop((x, y, x + size, y + size)).save(f"{stem}_{y:04}_{x:04}.png")
    return len(corners)


def cut_folder(root: Path, out: Path, size: int) -> int:
    """Saves the patches of every pair of `root` in the same folders below `out`, which appears complete or not at all.

    Returns:
        The number of pairs of patches.

    Raises:
        UserError: `root` holds no pairs, or files that do not pair.
        OSError: `out` holds files; they could be patches of another size.
    """
    pairs = require_pairs(scan(root))
    out.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        making = Path(scratch) / out.name
        making.mkdir()
        for file in (file for pair in pairs for file in (pair.image, pair.mask)):
            stem = making / file.relative_to(root).with_suffix("")
            stem.parent.mkdir(parents=True, exist_ok=True)
            count += cut(file, stem, size)
        making.rename(out)
    return count // 2
