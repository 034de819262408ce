"""Speed of checking a data folder with all cores, against one thread.

    python benchmarks/data_check.py PATH

PATH and further settings are as for folder_baselines.py. The check decodes every image and mask as training does, looks up
every mask pixel in the class table, hashes pixels, counts classes and compares sizes, and reads every file anew. The
baselines are: the same check in one thread; one thread that decodes as training does; and one thread that decodes with
Pillow alone, without the class table. The target is a speed-up of 0.8 times the number of cores.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from folder_baselines import folder_arguments, opened
from measure import Row, arguments, interleave, report, timing
from PIL import Image

from segsweep.data.check import check_folder
from segsweep.data.reading import read_pair
from segsweep.image_files.limits import available_cores

NEAR = 0.8
"""Target speed-up, as a share of the number of cores."""


def decode(files: Sequence[Path]) -> None:
    """Decodes every file with Pillow, one after the other."""
    for file in files:
        if file.suffix.lower() == ".npy":
            np.load(file)
            continue
        with Image.open(file) as image:
            image.load()


def main() -> None:
    parser = arguments(__doc__)
    folder_arguments(parser)
    options = parser.parse_args()
    device = torch.device("cpu")  # files are read on the CPU, whatever --device says
    with (
        tempfile.TemporaryDirectory() as kept,
        opened(options.folder, [*options.overrides, f"data.cache_dir={kept}"]) as (_, source),
    ):
        pairs = source.found.pairs
        files = [file for pair in pairs for file in (pair.image, pair.mask)]
        rules = source.labels, source.image_rule, source.mask_rule

        def check(workers: int | None = None) -> None:
            source.__dict__.pop("found", None)  # listing the folder is part of the work
            shutil.rmtree(Path(kept) / "facts", ignore_errors=True)  # a pair that was found right is not read again
            check_folder(source, workers)

        actions = {
            "all": check,
            "one": lambda: check(workers=1),
            "reading": lambda: [read_pair(pair, *rules) for pair in pairs],
            "decoding": lambda: decode(files),
        }
        decode(files)  # fills the disk cache before the first measurement
        measures = {name: timing(action, device, warm_up=False) for name, action in actions.items()}
        times = interleave(measures, options.repeats)
    cores = available_cores()
    what = f"check_folder on {len(pairs)} pairs, {cores} threads"
    baselines = {
        "one": "the same in one thread",
        "reading": "one thread decoding as training does",
        "decoding": "one thread decoding with Pillow alone",
    }
    rows = [
        Row(what, against, times["all"], times[name], "speedup", NEAR * cores, unit="folder")
        for name, against in baselines.items()
    ]
    report("check_data", rows, device, options.json)


if __name__ == "__main__":
    main()
