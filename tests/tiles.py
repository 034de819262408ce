"""A made-up folder like the Dubai tiles: a folder for each tile, with images and masks in the published colours."""

from pathlib import Path

from PIL import Image

from segsweep.classes import PRESETS
from segsweep.data.demo import demo_scene


def write_tiles(root: Path, tiles: int = 6, parts: int = 1, size: int = 48) -> Path:
    """Writes "Tile 1", "Tile 2", ... with `parts` scenes of size x size pixels each; returns `root`."""
    colors = PRESETS["dubai"][0].colors
    for tile in range(tiles):
        for kind in ("images", "masks"):
            (root / f"Tile {tile + 1}" / kind).mkdir(parents=True)
        for part in range(parts):
            image, mask = demo_scene(size, tile * parts + part)
            Image.fromarray(image).save(root / f"Tile {tile + 1}/images/part_{part}.png")
            Image.fromarray(colors[mask]).save(root / f"Tile {tile + 1}/masks/part_{part}.png")
    return root
