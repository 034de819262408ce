"""Prediction: masks for images of any size and number.

Shapes: C image channels, K classes, H x W pixels.
"""

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from segsweep.data.images import ImageRule, image_shape
from segsweep.data.pairs import Layout
from segsweep.data.reading import InputImage, find_inputs, read_input
from segsweep.errors import UserError
from segsweep.image_files.arrays import Brightest
from segsweep.image_files.limits import available_cores, parallel_map
from segsweep.nets.tiling import ReceptiveField, check_blending, least_blended, margin_of, overlap_of
from segsweep.prediction_net import NetPrecision, PredictionNet
from segsweep.runs.files import write_json
from segsweep.runs.image_input import input_rule, reads_files
from segsweep.runs.load import Run
from segsweep.runs.prediction_folder import Precision, PredictionFolder
from segsweep.trainer_settings import cpu_threads, device_of

LARGE = 4_000_000
"""Pixels. A larger image is not decoded ahead and is written at once, so that few of them are in memory."""
WRITERS = 8
"""Threads that write. They wait for the disk most of the time."""


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
    passed_over: str = ""
    """The files that are no images, counted by kind, in words; "" without any."""
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
    precision: NetPrecision = "auto",
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
        precision: the net's arithmetic: "32-true" is float32, "bf16-mixed" bfloat16 where torch.autocast allows it,
            "16-mixed" float16 (GPU only); "auto" is that of the run's training, in which it is scored (16-mixed becomes
            32-true on a CPU). Logits, probabilities and masks are always computed in float32 from what the net gives.
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
    inputs = find_inputs(Path(input), reader.layout, Path(output))
    wanted: Precision | None = "float16" if probabilities is True else (probabilities or None)
    folder = PredictionFolder(Path(output), run.labels, overlays, wanted)
    images = [entry.path for entry in inputs.images]
    folder.check([entry.name for entry in inputs.images], [*images, *inputs.masks], overwrite)
    caution = check_tiles(images, reader, tile, overlap, ReceptiveField.of(run.net))

    net = PredictionNet(run, device, tile, overlap, precision)
    progress = progress or _Unreported()
    result = Prediction(device=str(device), caution=caution, passed_over=inputs.passed_over)
    started = time.perf_counter()
    progress.begin(len(inputs.images))
    if caution is not None:
        progress.cautioned(caution)

    found = segment_all(decoded(inputs.images, reader, result, progress), net, folder)
    # One core for what is left to this thread; the threads that compute set their own number.
    with cpu_threads(1):
        for name in parallel_map(lambda done: write(done, folder), found, WRITERS, at_once=2 * WRITERS):
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
        layout: how the training's images and masks are named.
        brightest: collects how bright files of more than 8 bits are.
    """

    rule: ImageRule
    gray_only: bool
    layout: Layout
    brightest: Brightest

    @classmethod
    def of(cls, run: Run, changes: Mapping[str, Any]) -> "ImageReader":
        node = run.settings("data")
        rule = input_rule(node, run.channels, changes)
        # Training on files may have shown the net colour images turned to gray; training on textures has not.
        gray_only = not reads_files(node)
        names = {entry.name: node[entry.name] for entry in fields(Layout) if node.get(entry.name) is not None}
        try:
            layout = Layout(**names)
        except UserError as error:
            raise UserError(f"{run.checkpoint}: is damaged ({error})") from error
        return cls(rule, gray_only, layout, Brightest(rule.white))

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


class Decoded(NamedTuple):
    """The name of an image, and its pixels [C, H, W]."""

    name: str
    pixels: NDArray[np.uint8]


class Segmented(NamedTuple):
    """What is to be written of an image: pixels [C, H, W], mask [H, W], and probabilities [K, H, W] or None."""

    name: str
    pixels: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None


def decoded(
    images: Sequence[InputImage], reader: ImageReader, result: Prediction, progress: PredictionProgress
) -> Iterator[Decoded]:
    """Reads images in their order, while threads decode the next ones; adds failures to `result`."""
    ahead = parallel_map(lambda entry: reader.read_ahead(entry.path), images, _threads())
    for entry, pixels in zip(images, ahead, strict=True):
        image = reader.read(entry.path) if pixels is None else pixels
        if isinstance(image, UserError):
            result.failed[entry.path] = str(image)
            progress.failed(entry.path, str(image))
        else:
            result.pixels += math.prod(image.shape[1:])
            yield Decoded(entry.name, image)


def segment_all(images: Iterable[Decoded], net: PredictionNet, folder: PredictionFolder) -> Iterator[Segmented | str]:
    """Segments images in their order, several at a time. Gives the name alone of an image that is written already."""

    def one(image: Decoded) -> Segmented | str:
        """Writes probabilities band by band, and a large mask at once, so that no queue holds them."""
        _, height, width = image.pixels.shape
        mask = np.empty((height, width), dtype=np.uint8)

        def bands() -> Iterator[tuple[int, NDArray[np.float32]]]:
            for band in net.segment(image.pixels[None], folder.probabilities is not None):
                mask[band.top : band.top + band.masks.shape[1]] = band.masks[0]
                if band.probabilities is not None:
                    yield band.top, band.probabilities[0]

        if folder.probabilities:
            folder.write_probabilities(image.name, (height, width), bands())
        else:
            list(bands())
        segmented = Segmented(*image, mask, None)
        return write(segmented, folder) if mask.size > LARGE else segmented

    def several(batch: Sequence[Decoded]) -> list[Segmented | str]:
        if batch[0].pixels[0].size > net.batch_pixels:
            return [one(batch[0])]
        (band,) = net.segment(np.stack([image.pixels for image in batch]), folder.probabilities is not None)
        probabilities = [None] * len(batch) if band.probabilities is None else band.probabilities
        return [Segmented(*image, *found) for image, *found in zip(batch, band.masks, probabilities, strict=True)]

    for (cut, at_once), group in itertools.groupby(images, key=lambda image: net.plan(*image.pixels.shape[1:])):
        if cut:
            yield from map(one, group)  # threads compute its tiles
        else:
            done = parallel_map(several, batches(group, net.batch_pixels), at_once, at_once=2 * at_once)
            yield from itertools.chain.from_iterable(done)


def batches(images: Iterable[Decoded], pixels: int) -> Iterator[list[Decoded]]:
    """Groups neighbours of one size, up to so many pixels; a larger image is a batch of one."""
    for (_, height, width), same in itertools.groupby(images, key=lambda image: image.pixels.shape):
        while batch := list(itertools.islice(same, max(pixels // (height * width), 1))):
            yield batch


def write(segmented: Segmented | str, folder: PredictionFolder) -> str:
    """Writes what is not written yet; returns the name of the image."""
    if isinstance(segmented, str):
        return segmented
    name, pixels, mask, probabilities = segmented
    if probabilities is not None:
        folder.write_probabilities(name, mask.shape, [(0, probabilities)])
    folder.write_pictures(name, pixels, mask)
    return name


def _threads() -> int:
    return min(4, available_cores())
