"""Two baselines without a net for a folder: the most frequent class everywhere, and a class for each colour.

    python benchmarks/folder_baselines.py PATH --json results/folder_baselines.json
    python benchmarks/folder_baselines.py PATH data=folder data.labels=voc

Both are fitted on every pixel of the training split and scored on the test split like a net in train.py: the same samples,
the same metrics. PATH is a folder of the Dubai tiles, split as in experiment=dubai; for another folder add its settings as
for train.py. PATH defaults to the environment variable SEGSWEEP_DUBAI, and without that to demo scenes in a temporary
folder.

Shapes: C channels, H x W pixels, K classes. Decoded pairs are uint8 [C + 1, H, W]: the image's channels, then the mask.
"""

import argparse
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from measure import CONF
from numpy.typing import NDArray

from segsweep.classes import IGNORE, ClassTable
from segsweep.console import explain
from segsweep.data import FolderSource
from segsweep.datamodule import LOADING_KEYS
from segsweep.errors import UserError
from segsweep.instantiate import build, to_plain
from segsweep.runs.files import write_json
from segsweep.tasks import SegmentationMetrics

Pixels = NDArray[np.uint8]
Predict = Callable[[Pixels], NDArray[np.int64]]
"""Maps an image uint8 [C, H, W] to class positions int64 [H, W]."""

METRICS = ("iou", "iou_micro", "iou_image", "foreground_iou", "accuracy")
"""Metrics in the table, before the iou of each class."""
PRODUCTS = 1 << 24
"""Number of distances between colours in memory at once."""


@contextlib.contextmanager
def opened(folder: str | None, overrides: Sequence[str] = ()) -> Iterator[tuple[dict[str, Any], FolderSource]]:
    """Yields train.py's configuration for a folder, and its source.

    Args:
        folder: the folder; None takes SEGSWEEP_DUBAI, or temporary demo scenes if that is not set.
        overrides: as for train.py; `data` or `experiment` among them replaces experiment=dubai.

    Raises:
        SystemExit: the settings or the files are wrong; says why.
    """
    if folder is not None and "=" in folder and not Path(folder).exists():  # the first argument is a setting
        overrides, folder = [folder, *overrides], None
    root = folder or os.environ.get("SEGSWEEP_DUBAI") or None
    with tempfile.TemporaryDirectory() as scratch:
        defaults = ["experiment=dubai"]
        if root is None:
            print("no folder given, by argument or in SEGSWEEP_DUBAI: these are numbers of the demo scenes")
            root, defaults = str(Path(scratch) / "demo"), ["experiment=rgb_demo", "data.image_size=320"]
        elif any(override.startswith(("data=", "experiment=")) for override in overrides):
            defaults = []
        try:
            with initialize_config_dir(str(CONF), version_base="1.3"):
                config = compose("train", overrides=[*defaults, "data.root=folder", *overrides])
            config.data.root = root
            node = to_plain(config)
            source = build({key: node["data"][key] for key in node["data"] if key not in LOADING_KEYS}, "data")
            source.prepare()
        except Exception as error:
            if (line := explain(error)) is not None:
                raise SystemExit(f"error: {line}") from error
            raise
        assert isinstance(source, FolderSource), "only folders have a root"
        yield node, source


def folder_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `opened`."""
    parser.add_argument("folder", nargs="?", help="images and masks (default: SEGSWEEP_DUBAI, else demo scenes)")
    parser.add_argument("overrides", nargs="*", help="settings as for train.py")


def class_counts(train: Iterable[Pixels], classes: int) -> NDArray[np.int64]:
    """Number of pixels of each class, int64 [K], without ignored pixels."""
    return sum((np.bincount(pixels[-1].ravel(), minlength=256)[:classes] for pixels in train), np.zeros(classes, int))


def majority(counts: NDArray[np.int64]) -> Predict:
    """Predicts the most frequent class everywhere; `counts` are those of the training pixels, [K]."""
    winner = int(counts.argmax())
    return lambda image: np.full(image.shape[1:], winner, dtype=np.int64)


def colour_cells(image: Pixels, bins: int) -> NDArray[np.int64]:
    """Cell of each pixel in a colour histogram with `bins` bins a channel, int64 [H, W]."""
    cells = np.zeros(image.shape[1:], dtype=np.int64)
    for channel in image:
        cells = cells * bins + channel.astype(np.int64) * bins // 256
    return cells


def colour_classifier(train: Iterable[Pixels], classes: int, channels: int, bins: int = 32) -> Predict:
    """Predicts for each pixel the class of most training pixels of its colour, by a colour histogram.

    Every cell gets one more pixel, divided like the classes of all training pixels (Laplace smoothing), so the more
    frequent class wins a tie. A cell without training pixels takes the class of the nearest cell with some.

    Args:
        train: decoded pairs.
        classes: K.
        channels: C.
        bins: cells a channel.
    """
    counts = np.zeros(bins**channels * classes, dtype=np.int64)
    for pixels in train:
        mask = pixels[-1].astype(np.int64)
        key = colour_cells(pixels[:-1], bins) * classes + mask
        counts += np.bincount(key[mask != IGNORE], minlength=len(counts))
    table = counts.reshape(-1, classes)
    prior = table.sum(0) / max(int(table.sum()), 1)
    best = (table + prior).argmax(1)
    filled = table.any(1)
    best[~filled] = best[filled][_nearest(np.flatnonzero(~filled), np.flatnonzero(filled), bins, channels)]
    return lambda image: best[colour_cells(image, bins)]


def _nearest(cells: NDArray[np.int64], others: NDArray[np.int64], bins: int, channels: int) -> NDArray[np.int64]:
    """For each cell the index in `others` of the nearest; the first one of equals."""
    places, other_places = (
        np.stack(np.unravel_index(which, (bins,) * channels), axis=1).astype(np.float32) for which in (cells, others)
    )
    nearest = [np.empty(0, dtype=np.int64)]
    for start in range(0, len(cells), rows := max(1, PRODUCTS // len(others))):
        # The squared distance minus the cell's own square, which is constant over `others`.
        distances = (other_places**2).sum(1) - 2 * places[start : start + rows] @ other_places.T
        nearest.append(distances.argmin(1))
    return np.concatenate(nearest)


def score(predict: Predict, test: Iterable[Pixels], labels: ClassTable) -> dict[str, float]:
    """Every metric of the predictions for decoded pairs; NaN if undefined."""
    metrics = SegmentationMetrics(labels.names, binary=False, background=labels.background_index)
    for pixels in test:
        prediction, mask = predict(pixels[:-1]), pixels[-1].astype(np.int64)
        metrics.update(torch.from_numpy(prediction)[None], torch.from_numpy(mask)[None])
    return {name: float(value) for name, value in metrics.compute().items()}


def baselines(
    train: Sequence[Pixels], test: Sequence[Pixels], labels: ClassTable, bins: int
) -> dict[str, dict[str, float]]:
    """Fits both baselines on `train` and returns their metrics on `test`, by name.

    Raises:
        UserError: there is nothing to fit on, or nothing to score.
    """
    counts = class_counts(train, len(labels))
    if not counts.any() or not len(test):
        raise UserError(f"{'test' if counts.any() else 'train'} has no pixels of any class; split otherwise")
    share = counts.max() / counts.sum()
    predictors = {
        f"majority class ({labels.names[int(counts.argmax())]}, {share:.1%} of training)": majority(counts),
        f"class by colour ({bins} bins a channel)": colour_classifier(train, len(labels), len(train[0]) - 1, bins),
    }
    return {name: score(predict, test, labels) for name, predict in predictors.items()}


def scored_samples(source: FolderSource) -> list[Pixels]:
    """The test samples that a net would be scored on."""
    dataset = source.dataset("test")
    samples = (dataset[index] for index in range(source.size("test")))
    return [np.concatenate([sample.image.numpy(), sample.mask.numpy()[None]]) for sample in samples]


def markdown(results: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown table: a row for each metric, a column for each baseline."""
    names = list(next(iter(results.values())))
    shown = [name for name in METRICS if name in names] + [name for name in names if name.startswith("iou/")]
    lines = [f"| {' | '.join(['', *results])} |", f"| --- |{' ---: |' * len(results)}"]
    for name in shown:
        cells = ("absent" if np.isnan(metrics[name]) else f"{metrics[name]:.4f}" for metrics in results.values())
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def _bins(text: str) -> int:
    value = int(text)
    if not 2 <= value <= 64:
        raise argparse.ArgumentTypeError("must be from 2 to 64")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    folder_arguments(parser)
    parser.add_argument("--bins", type=_bins, default=32, help="bins of the colour histogram, a channel (default 32)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every metric to FILE")
    options = parser.parse_args()
    with opened(options.folder, options.overrides) as (_, source):
        split = f"split {source.splits.reason}; scored on test, {len(source.splits.test)} images"
        try:
            results = baselines(source.arrays("train"), scored_samples(source), source.labels, options.bins)
        except UserError as error:
            raise SystemExit(f"error: {error}") from error
        print(f"{split}\n\n{markdown(results)}")
        if options.json is not None:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            content = {"benchmark": "folder_baselines", "folder": source.root.name, "split": split, "results": results}
            write_json(options.json, content)


if __name__ == "__main__":
    main()
