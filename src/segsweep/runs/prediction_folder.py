"""The output folder of a prediction: folders of masks, overlays and probabilities, and the class table.

Shapes: C image channels, K classes, H x W pixels.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segsweep.classes import ClassTable, write_mask
from segsweep.errors import UserError
from segsweep.plots import drawn_channels, overlay
from segsweep.runs.files import write_whole

Precision = Literal["float16", "float32"]

_ROWS = 512
"""Rows of an overlay that are painted at a time, since painting takes several floats a pixel."""


@dataclass(frozen=True)
class PredictionFolder:
    """The output folder of a prediction.

    Args:
        path: the folder; made when the first file is written.
        labels: the class table.
        overlays: whether overlays are written.
        probabilities: the type in which probabilities are written; None writes none.
    """

    path: Path
    labels: ClassTable
    overlays: bool = False
    probabilities: Precision | None = None

    @property
    def class_table(self) -> Path:
        return self.path / "classes.json"

    def mask(self, name: str) -> Path:
        return self.path / "masks" / f"{name}.png"

    def overlay(self, name: str) -> Path:
        return self.path / "overlays" / f"{name}.png"

    def probability(self, name: str) -> Path:
        return self.path / "probabilities" / f"{name}.npy"

    def files(self, name: str) -> list[Path]:
        """All files that are written for an image."""
        wanted = [self.mask(name)]
        wanted += [self.overlay(name)] if self.overlays else []
        wanted += [self.probability(name)] if self.probabilities else []
        return wanted

    def check(self, names: Iterable[str], inputs: Sequence[Path], overwrite: bool) -> None:
        """Checks before any work that no file will be replaced.

        Args:
            names: names of the images.
            inputs: files that must never be replaced.
            overwrite: whether other files may be replaced, and the class table of other classes.

        Raises:
            UserError: a file would be replaced, or the folder has the masks of other classes.
        """
        taken = {path.resolve() for path in inputs}
        targets = [file for name in names for file in self.files(name)]
        if over := next((file for file in targets if file.resolve() in taken), None):
            raise UserError(f"output={self.path}: {over} would be written over an input; give another folder")
        there = [] if overwrite else [file for file in targets if file.exists()]
        if there:
            more = f" and {len(there) - 1} more of the files to be written" if len(there) > 1 else ""
            raise UserError(f"{there[0]}{more}: exists already; give another output, or overwrite=true")
        if self.class_table.exists() and not overwrite:
            try:
                content = json.loads(self.class_table.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                content = None
            if content != self.labels.to_dict():
                raise UserError(
                    f"{self.class_table}: lists other classes than this run has, or is damaged; give another output, or"
                    " overwrite=true"
                )

    def write_pictures(self, name: str, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
        """Writes the mask as a palette PNG in the class colours, and the overlay if overlays are written.

        Args:
            name: name of the image.
            image: [C, H, W].
            mask: [H, W] of positions in the class table.

        Raises:
            OSError: a file could not be written; names it.
        """

        def write(path: Path) -> None:
            png = path.with_name(f"{path.name}.png")  # the suffix that `write_mask` requires
            try:
                write_mask(png, mask, self.labels)
                png.replace(path)
            finally:
                png.unlink(missing_ok=True)

        _write(self.mask(name), write)
        if self.overlays:
            picture = Image.fromarray(painted(image, mask, self.labels))
            _write(self.overlay(name), lambda path: picture.save(path, format="PNG"))

    def write_probabilities(
        self, name: str, shape: tuple[int, int], bands: Iterable[tuple[int, NDArray[np.float32]]]
    ) -> None:
        """Writes probabilities [K, H, W] to a .npy file, one band of rows at a time.

        Args:
            name: name of the image.
            shape: H and W.
            bands: the first row of each band and its probabilities [K, h, W]; together all rows, from the top. Fewer
                than K classes: the others are 0.

        Raises:
            OSError: the file could not be written; names it.
        """
        assert self.probabilities is not None
        number_type = np.dtype(self.probabilities).newbyteorder("<")
        classes, (height, width) = len(self.labels), shape
        header = {"descr": number_type.str, "fortran_order": False, "shape": (classes, height, width)}

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                start = file.tell()
                # Not through a memory map: on a full disk, writing to one kills the process.
                for top, band in bands:
                    for position, rows in enumerate(band.astype(number_type)):
                        file.seek(start + (position * height + top) * width * number_type.itemsize)
                        file.write(rows.tobytes())
                file.truncate(start + classes * height * width * number_type.itemsize)

        _write(self.probability(name), write)


def painted(image: NDArray[np.uint8], mask: NDArray[np.uint8], labels: ClassTable) -> NDArray[np.uint8]:
    """The overlay uint8 [H, W, 3] of an image [C, H, W] and its mask [H, W]; the background stays clear."""
    picture = np.empty((*mask.shape, 3), dtype=np.uint8)
    drawn = drawn_channels(image)
    for top in range(0, len(mask), _ROWS):
        rows = slice(top, top + _ROWS)
        laid_over = overlay(drawn[:, rows], mask[rows], labels.colors, background=labels.background_index)
        picture[rows] = np.round(laid_over * 255).astype(np.uint8)
    return picture


def _write(path: Path, write: Callable[[Path], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, write)
