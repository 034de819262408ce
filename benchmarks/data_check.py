"""Checking a folder before training with all cores, against one thread: doing the same, and merely decoding the files.

    python benchmarks/data_check.py PATH

PATH and further settings are as for folder_baselines.py. The check decodes every image and mask as training does, every
pixel of a mask looked up in the class table, and looks for what is wrong: it hashes pixels, counts classes, compares
sizes. The baselines are the same in one thread; one thread that decodes as training does; and one thread that has Pillow
decode, which leaves out the class table too. "Near the number of cores" is taken as eight tenths of it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from folder_baselines import folder_arguments, opened
from measure import Row, arguments, interleave, report, timing
from PIL import Image

from segsweep.data.check import check_folder
from segsweep.data.pairs import find_pairs
from segsweep.data.reading import read_pair
from segsweep.image_files.limits import available_cores

NEAR = 0.8
"""Of the number of cores."""


def decode(files: Sequence[Path]) -> None:
    """Has Pillow decode every file, one after the other."""
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
    device = torch.device("cpu")  # where files are read, whatever --device says
    with opened(options.folder, options.overrides) as (_, source):
        pairs = find_pairs(source.root, source.layout)
        files = [file for pair in pairs for file in (pair.image, pair.mask)]
        rules = source.labels, source.image_rule, source.mask_rule
        actions = {
            "all": lambda: check_folder(source),
            "one": lambda: check_folder(source, workers=1),
            "reading": lambda: [read_pair(pair, *rules) for pair in pairs],
            "decoding": lambda: decode(files),
        }
        decode(files)  # so that no measurement waits for the disk
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
