"""Prediction: masks for images of any size and number.

Shapes: C image channels, K classes, H x W pixels.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segsweep.data.augment import to_unit
from segsweep.data.images import ImageRule, image_shape
from segsweep.data.reading import InputImage, find_inputs, read_input
from segsweep.errors import UserError
from segsweep.evaluation_data import reads_files, settings_of
from segsweep.image_files.arrays import Brightest
from segsweep.image_files.limits import available_cores, parallel_map
from segsweep.instantiate import check_arguments
from segsweep.nets.tiling import ReceptiveField, check_blending, least_blended, margin_of, overlap_of, tiled_logits
from segsweep.runs.load import Run
from segsweep.runs.prediction_folder import Precision, PredictionFolder
from segsweep.trainer_settings import device_of

LARGE = 4_000_000
"""Pixels above which an image is decoded when its turn comes and written at once, so that few of them are in memory."""


class Progress(Protocol):
    """Is told of what happens."""

    def begin(self, images: int) -> None:
        """So many images are to be predicted."""

    def cautioned(self, line: str) -> None:
        """Cutting an image into tiles changes its mask."""

    def written(self, name: str) -> None:
        """One has a mask."""

    def failed(self, path: Path, reason: str) -> None:
        """One could not be read."""


class _Silence:
    def begin(self, images: int) -> None: ...

    def cautioned(self, line: str) -> None: ...

    def written(self, name: str) -> None: ...

    def failed(self, path: Path, reason: str) -> None: ...


@dataclass
class Prediction:
    """What became of the images."""

    written: list[str] = field(default_factory=list)
    """Names of the images that have a mask now."""
    failed: dict[Path, str] = field(default_factory=dict)
    """Why the others have none, in a line each."""
    caution: str | None = None
    """Why the masks of images that were cut into tiles differ from those of whole images; None where they do not."""
    doubt: str | None = None
    """Why the images were likely not read as they were meant."""
    pixels: int = 0
    seconds: float = 0.0
    device: str = "cpu"


def predict(
    run: Run,
    input: str | Path,
    output: str | Path,
    overlays: bool = False,
    probabilities: bool | Precision = False,
    tile: int = 1024,
    overlap: int = 128,
    overwrite: bool = False,
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    reading: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Prediction:
    """Writes a mask for an image, or for every image in a folder; folders below it are kept.

    In `output` lie then `masks/<name>.png`, palette files in the class colours whose numbers are the class ids, and the
    class table, `classes.json`; where asked for, `overlays/<name>.png` and `probabilities/<name>.npy` [K, H, W]. A file
    that cannot be read is noted in the result, and the others go on.

    Args:
        run: from `load_run`.
        input: an image file or a folder.
        output: a folder, which is made.
        overlays: write the image with its mask laid over it, the background clear.
        probabilities: write class probabilities; True is float16.
        tile: the largest height and width, in pixels, that the net is given at once; larger images are cut.
        overlap: of tiles, in pixels; see `tiled_logits`.
        overwrite: write over files that are there.
        accelerator: "auto" takes a CUDA GPU where there is one.
        reading: settings of `ImageRule` that differ from those the run was trained with: alpha, exif, white, bands.
        progress: is told of what happens.

    Raises:
        UserError: a setting is wrong, there is nothing to predict, or something would be written over; nothing was written.
        OSError: a file could not be written; those before it are whole.
    """
    try:
        check_blending(tile, overlap)
    except ValueError as error:
        raise UserError(error) from error
    device = torch.device(device_of(accelerator))
    reader = _Reader.of(run, reading or {})
    inputs = find_inputs(Path(input), reader.images, reader.masks, Path(output))
    wanted: Precision | None = "float16" if probabilities is True else (probabilities or None)
    folder = PredictionFolder(Path(output), run.labels, overlays, wanted)
    images = [entry.path for entry in inputs.images]
    folder.check([entry.name for entry in inputs.images], [*images, *inputs.masks], overwrite)
    caution = _check_tiles(images, reader, tile, overlap, ReceptiveField.of(run.net))

    net = _TiledNet(run, device, tile, overlap)
    progress = progress or _Silence()
    result = Prediction(device=str(device), caution=caution)
    started = time.perf_counter()
    progress.begin(len(inputs.images))
    if caution is not None:
        progress.cautioned(caution)
    written = _segment_all(inputs.images, reader, net, folder, result, progress)
    for name in parallel_map(lambda write: write(), written, _threads()):
        result.written.append(name)
        progress.written(name)
    result.doubt = reader.brightest.doubt()
    if result.written:
        folder.write_class_table()
    result.seconds = time.perf_counter() - started
    return result


def _check_tiles(
    images: Sequence[Path], reader: "_Reader", tile: int, overlap: int, field: ReceptiveField
) -> str | None:
    """What to say where an image has to be cut, and that may change the net's logits.

    Raises:
        UserError: an image has to be cut, and tiles are too small for the net.
    """

    def wider(margin: int) -> str:
        enough = overlap_of(margin)
        least = least_blended(enough, field.alignment)
        return f"overlap={enough}" + (f" tile={least}" if least > tile else "")

    least = least_blended(overlap, field.alignment)
    if tile >= least and field.caution(margin_of(overlap), wider, "") is None:
        return None  # without reading the headers of all images
    shapes = zip(images, parallel_map(reader.shape, images, _threads()), strict=True)
    large = {path: max(shape) for path, shape in shapes if not isinstance(shape, UserError) and max(shape) > tile}
    if not large:
        return None
    if tile < least:
        raise UserError(
            f"tile={tile}: must be at least {least} pixels with overlap={overlap} for this net; {next(iter(large))} does"
            " not fit into one tile"
        )
    return field.caution(margin_of(overlap), wider, f"tile={max(large.values())}")


@dataclass(frozen=True)
class _Reader:
    """How a run's images are read, and what the folders that hold them are called."""

    rule: ImageRule
    gray_only: bool
    images: str
    masks: str
    brightest: Brightest

    @classmethod
    def of(cls, run: Run, changes: Mapping[str, Any]) -> "_Reader":
        node = settings_of(run, "data")
        names = {entry.name for entry in fields(ImageRule)} - {"channels"}
        settings = {name: node[name] for name in names if name in node} | dict(changes)
        check_arguments(ImageRule, settings, prefix="data.", known=("channels",))
        rule = ImageRule(channels=run.channels, **settings)
        # A net that was trained on files has seen what reading makes of them; textures were never files.
        folders = str(node.get("images", "images")), str(node.get("masks", "masks"))
        return cls(rule, not reads_files(node), *folders, Brightest(rule.white))

    def read(self, path: Path) -> NDArray[np.uint8] | UserError:
        try:
            reading = read_input(path, self.rule, self.gray_only)
        except UserError as error:
            return error
        self.brightest.add(path, reading.top, reading.mode)
        return reading.pixels

    def shape(self, path: Path) -> tuple[int, int] | UserError:
        """Height and width, by the header."""
        try:
            return image_shape(path, self.rule)
        except UserError as error:
            return error

    def read_ahead(self, path: Path) -> NDArray[np.uint8] | UserError | None:
        """The image, unless it is large."""
        shape = self.shape(path)
        if isinstance(shape, UserError):
            return shape
        return None if math.prod(shape) > LARGE else self.read(path)


class _TiledNet:
    """A run's net on a device, for images of any size: whole, or in tiles that overlap."""

    def __init__(self, run: Run, device: torch.device, tile: int, overlap: int) -> None:
        self.net = copy.deepcopy(run.net).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.task = run.task
        self.device, self.tile, self.overlap = device, tile, overlap
        self.alignment = ReceptiveField.of(run.net).alignment

    def prepare(self, part: Tensor) -> Tensor:
        return to_unit(part.to(self.device)).contiguous(memory_format=torch.channels_last)

    def segment(self, name: str, image: NDArray[np.uint8], folder: PredictionFolder) -> NDArray[np.uint8]:
        """The mask [H, W] of an image [C, H, W]; its probabilities are written where the folder wants them."""
        _, height, width = image.shape
        mask = np.empty((height, width), dtype=np.uint8)

        def bands() -> Iterator[tuple[int, NDArray[np.float32]]]:
            pixels = torch.from_numpy(image)
            for top, logits in tiled_logits(self.net, pixels, self.prepare, self.tile, self.overlap, self.alignment):
                mask[top : top + logits.shape[1]] = self.task.predict(logits[None])[0].to(torch.uint8).numpy()
                if folder.probabilities:
                    yield top, self.task.probabilities(logits[None])[0].numpy()

        with _explaining_memory(self.tile):
            if folder.probabilities:
                folder.write_probabilities(name, (height, width), bands())
            else:
                list(bands())
        return mask


def _segment_all(
    images: Sequence[InputImage],
    reader: _Reader,
    net: _TiledNet,
    folder: PredictionFolder,
    result: Prediction,
    progress: Progress,
) -> Iterator[Callable[[], str]]:
    """Decodes the images in threads ahead of their turn and segments one after the other.

    Yields:
        For each image a function that writes its mask, for a thread to call, and gives its name. A large image is written
        here, so that few of them are in memory, and its function has nothing left to do.
    """
    ahead = parallel_map(lambda entry: reader.read_ahead(entry.path), images, _threads())
    for entry, decoded in zip(images, ahead, strict=True):
        image = reader.read(entry.path) if decoded is None else decoded
        if isinstance(image, UserError):
            result.failed[entry.path] = str(image)
            progress.failed(entry.path, str(image))
            continue
        mask = net.segment(entry.name, image, folder)
        result.pixels += mask.size
        write = partial(_write, folder, entry.name, image, mask)
        if mask.size > LARGE:
            write()
            yield partial(str, entry.name)
        else:
            yield write


def _write(folder: PredictionFolder, name: str, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> str:
    folder.write_pictures(name, image, mask)
    return name


def _threads() -> int:
    return min(4, available_cores())


class _explaining_memory:  # noqa: N801  (reads as a statement)
    """Says which setting a tile that does not fit into memory comes from."""

    def __init__(self, tile: int) -> None:
        self.tile = tile

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error).lower()):
            raise UserError(f"tile={self.tile}: a tile does not fit into memory; try a smaller one") from error
