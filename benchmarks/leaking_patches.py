"""Cuts images and masks into patches, for the random patch split of tutorials on the Dubai tiles.

    python benchmarks/leaking_patches.py PATH OUT
    python train.py data=folder data.root=OUT data.labels=dubai data.split=fraction data.whole_groups=false

PATH is a folder of pairs as for data=folder. Patches lie side by side from the top left of each image; remainders at the
right and bottom are dropped. They are saved as PNG, so no pixel changes, and masks keep their palette.

Such a split leaks: training and test share images. Its scores compare only with others that leak in the same way.
"""

import argparse
from pathlib import Path

from folder_baselines import PATCH
from PIL import Image, ImageOps

from segsweep.data.finding import require_pairs, scan
from segsweep.errors import UserError


def cut(source: Path, stem: Path, size: int) -> int:
    """Saves the patches of a file as `<stem>_<top>_<left>.png`, with top and left in pixels; returns their number."""
    with Image.open(source) as stored:
        image = ImageOps.exif_transpose(stored)
    corners = [(x, y) for y in range(0, image.height - size + 1, size) for x in range(0, image.width - size + 1, size)]
    for x, y in corners:
        image.crop((x, y, x + size, y + size)).save(f"{stem}_{y:04}_{x:04}.png")
    return len(corners)


def cut_folder(root: Path, out: Path, size: int) -> int:
    """Saves the patches of every pair of `root` in the same folders below `out`; returns the number of pairs of patches.

    Raises:
        UserError: `root` holds no pairs, or files that do not pair.
        FileExistsError: `out` exists; it could hold patches of another size.
    """
    pairs = require_pairs(scan(root))
    out.mkdir(parents=True)
    count = 0
    for file in (file for pair in pairs for file in (pair.image, pair.mask)):
        stem = out / file.relative_to(root).with_suffix("")
        stem.parent.mkdir(parents=True, exist_ok=True)
        count += cut(file, stem, size)
    return count // 2


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="images and masks")
    parser.add_argument("out", type=Path, help="a new folder for the patches")
    parser.add_argument("--size", type=int, default=PATCH, help=f"height and width in pixels (default {PATCH})")
    options = parser.parse_args()
    if options.size < 1:
        parser.error("--size must be at least 1")
    try:
        count = cut_folder(options.folder, options.out, options.size)
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
    except FileExistsError:
        raise SystemExit(f"error: {options.out} exists; name a new folder for the patches") from None
    print(f"{count} patches of {options.size} x {options.size} pixels in {options.out}; a random split of them leaks")


if __name__ == "__main__":
    main()
