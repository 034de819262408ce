"""Prediction: masks for images of any size and number.

Shapes: C image channels, K classes, H x W pixels.
"""

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segsweep.data.augment import to_unit
from segsweep.data.images import ImageRule, image_shape
from segsweep.data.reading import InputImage, find_inputs, read_input
from segsweep.errors import UserError
from segsweep.evaluation_data import reads_files
from segsweep.image_files.arrays import Brightest
from segsweep.image_files.limits import available_cores, parallel_map
from segsweep.instantiate import check_arguments
from segsweep.nets.tiling import ReceptiveField, check_blending, least_blended, margin_of, overlap_of, tiled_logits
from segsweep.runs.files import write_json
from segsweep.runs.load import Run
from segsweep.runs.prediction_folder import Precision, PredictionFolder
from segsweep.trainer_settings import device_of

LARGE = 4_000_000
"""Pixels. A larger image is not decoded ahead and is written at once, so that few of them are in memory."""


class PredictionProgress(Protocol):
    """Events of a prediction, as `predict` reports them."""

    def begin(self, images: int) -> None:
        """The number of images to predict is known."""

    def cautioned(self, line: str) -> None:
        """Tiles may change the mask of an image."""

    def written(self, name: str) -> None:
        """The mask of an image is written."""

    def failed(self, path: Path, reason: str) -> None:
        """An image cannot be read."""


class _Unreported:
    def begin(self, *_: object, **__: object) -> None:
        """Ignores the event, like the other methods."""

    cautioned = written = failed = begin


@dataclass
class Prediction:
    """The result of `predict`."""

    written: list[str] = field(default_factory=list)
    """Names of the images that now have a mask."""
    failed: dict[Path, str] = field(default_factory=dict)
    """The images that could not be read, each with the reason, in one line."""
    caution: str | None = None
    """A line that warns that tiles may have changed masks of large images; None if they did not."""
    doubt: str | None = None
    """A line on images that were probably read wrongly; None if there is no doubt."""
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
    progress: PredictionProgress | None = None,
) -> Prediction:
    """Writes a mask for an image, or for every image in a folder and in the folders below it.

    Writes `masks/<name>.png` below `output`, palette files in the class colours with the class ids as numbers, and the
    class table, `classes.json`; if asked for, also `overlays/<name>.png` and `probabilities/<name>.npy` [K, H, W]. A file
    that cannot be read is listed in the result and does not stop the others.

    Args:
        run: from `load_run`.
        input: an image file or a folder.
        output: a folder; created if missing.
        overlays: write each image with its mask laid over it, the background clear.
        probabilities: write class probabilities; True is float16.
        tile: the largest height and width, in pixels, that the net is given at once; larger images are cut.
        overlap: the overlap of tiles, in pixels; see `tiled_logits`.
        overwrite: replace files that exist.
        accelerator: "auto" uses a CUDA GPU if there is one.
        reading: settings of `ImageRule` to change from those of the training: alpha, exif, white, bands.
        progress: receives the events.

    Raises:
        UserError: a setting is wrong, there is nothing to predict, or a file would be replaced: nothing was written. Or a
            tile does not fit into memory: the masks before it are whole, and classes.json is not written.
        OSError: a file could not be written; the files before it are whole.
    """
    try:
        check_blending(tile, overlap)
    except ValueError as error:
        raise UserError(error) from error
    device = torch.device(device_of(accelerator))
    reader = ImageReader.of(run, reading or {})
    inputs = find_inputs(Path(input), reader.images, reader.masks, Path(output))
    wanted: Precision | None = "float16" if probabilities is True else (probabilities or None)
    folder = PredictionFolder(Path(output), run.labels, overlays, wanted)
    images = [entry.path for entry in inputs.images]
    folder.check([entry.name for entry in inputs.images], [*images, *inputs.masks], overwrite)
    caution = check_tiles(images, reader, tile, overlap, ReceptiveField.of(run.net))

    net = TiledNet(run, device, tile, overlap)
    progress = progress or _Unreported()
    result = Prediction(device=str(device), caution=caution)
    started = time.perf_counter()
    progress.begin(len(inputs.images))
    if caution is not None:
        progress.cautioned(caution)

    def write(segmented: Segmented) -> str:
        if segmented.pictures is not None:
            folder.write_pictures(segmented.name, *segmented.pictures)
        return segmented.name

    for name in parallel_map(write, segment_all(inputs.images, reader, net, folder, result, progress), _threads()):
        result.written.append(name)
        progress.written(name)
    result.doubt = reader.brightest.doubt()
    if result.written:
        write_json(folder.class_table, run.labels.to_dict())
    result.seconds = time.perf_counter() - started
    return result


def check_tiles(
    images: Sequence[Path], reader: "ImageReader", tile: int, overlap: int, field: ReceptiveField
) -> str | None:
    """The line to print if an image must be cut into tiles that may change its logits; else None.

    Raises:
        UserError: an image must be cut, and the tiles are too small for the net.
    """

    def wider(margin: int) -> str:
        enough = overlap_of(margin)
        least = least_blended(enough, field.alignment)
        return f"overlap={enough}" + (f" tile={least}" if least > tile else "")

    least = least_blended(overlap, field.alignment)
    if tile >= least and field.caution(margin_of(overlap), wider, "") is None:
        return None  # saves reading the headers of all images
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
class ImageReader:
    """Reads images as a run's training read them.

    Args:
        rule: how pixels are read.
        gray_only: whether colour images are refused.
        images: the name of image folders.
        masks: the name of mask folders beside them.
        brightest: collects how bright files of more than 8 bits are.
    """

    rule: ImageRule
    gray_only: bool
    images: str
    masks: str
    brightest: Brightest

    @classmethod
    def of(cls, run: Run, changes: Mapping[str, Any]) -> "ImageReader":
        node = run.settings("data")
        names = {entry.name for entry in fields(ImageRule)} - {"channels"}
        settings = {name: node[name] for name in names if name in node} | dict(changes)
        check_arguments(ImageRule, settings, prefix="data.", known=("channels",))
        rule = ImageRule(channels=run.channels, **settings)
        # Training on files may have shown the net colour images turned to gray; training on textures has not.
        gray_only = not reads_files(node)
        images, masks = str(node.get("images", "images")), str(node.get("masks", "masks"))
        return cls(rule, gray_only, images, masks, Brightest(rule.white))

    def read(self, path: Path) -> NDArray[np.uint8] | UserError:
        try:
            reading = read_input(path, self.rule, self.gray_only)
        except UserError as error:
            return error
        self.brightest.add(path, reading.top, reading.mode)
        return reading.pixels

    def shape(self, path: Path) -> tuple[int, int] | UserError:
        """Height and width, from the header."""
        try:
            return image_shape(path, self.rule)
        except UserError as error:
            return error

    def read_ahead(self, path: Path) -> NDArray[np.uint8] | UserError | None:
        """The image, or None if it is large."""
        shape = self.shape(path)
        if isinstance(shape, UserError):
            return shape
        return None if math.prod(shape) > LARGE else self.read(path)


class TiledNet:
    """A run's net on a device, for images of any size: whole, or in overlapping tiles."""

    def __init__(self, run: Run, device: torch.device, tile: int, overlap: int) -> None:
        self.net = copy.deepcopy(run.net).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.task = run.task
        self.device, self.tile, self.overlap = device, tile, overlap
        self.alignment = ReceptiveField.of(run.net).alignment

    def prepare(self, part: Tensor) -> Tensor:
        return to_unit(part.to(self.device)).contiguous(memory_format=torch.channels_last)

    def segment(self, name: str, image: NDArray[np.uint8], folder: PredictionFolder) -> NDArray[np.uint8]:
        """The mask [H, W] of an image [C, H, W]; writes its probabilities if they are asked for."""
        _, height, width = image.shape
        mask = np.empty((height, width), dtype=np.uint8)

        def bands() -> Iterator[tuple[int, NDArray[np.float32]]]:
            pixels = torch.from_numpy(image)
            for top, logits in tiled_logits(self.net, pixels, self.prepare, self.tile, self.overlap, self.alignment):
                mask[top : top + logits.shape[1]] = self.task.predict(logits[None])[0].to(torch.uint8).numpy()
                if folder.probabilities:
                    yield top, self.task.probabilities(logits[None])[0].numpy()

        try:
            if folder.probabilities:
                folder.write_probabilities(name, (height, width), bands())
            else:
                list(bands())
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
                raise
            used = min(self.tile, max(height, width))
            smaller = max(used // 2, least_blended(self.overlap, self.alignment))
            way_out = f"set tile={smaller}" if smaller < used else "set a smaller overlap and tile"
            raise UserError(f"tile={self.tile}: a tile does not fit into memory; {way_out}") from error
        return mask


class Segmented(NamedTuple):
    """The name of an image, and what is left to write: image [C, H, W] and mask [H, W], or nothing."""

    name: str
    pictures: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None


def segment_all(
    images: Sequence[InputImage],
    reader: ImageReader,
    net: TiledNet,
    folder: PredictionFolder,
    result: Prediction,
    progress: PredictionProgress,
) -> Iterator[Segmented]:
    """Segments images one after the other, while threads decode the next ones; adds failures and pixels to `result`."""
    ahead = parallel_map(lambda entry: reader.read_ahead(entry.path), images, _threads())
    for entry, decoded in zip(images, ahead, strict=True):
        image = reader.read(entry.path) if decoded is None else decoded
        if isinstance(image, UserError):
            result.failed[entry.path] = str(image)
            progress.failed(entry.path, str(image))
            continue
        mask = net.segment(entry.name, image, folder)
        result.pixels += mask.size
        if mask.size > LARGE:  # written at once, so that no queue holds it
            folder.write_pictures(entry.name, image, mask)
            yield Segmented(entry.name, None)
        else:
            yield Segmented(entry.name, (image, mask))


def _threads() -> int:
    return min(4, available_cores())
