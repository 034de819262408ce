"""Time from the command to the first training step on a folder of many pairs, at the first and at a later start.

    python benchmarks/large_folder.py --pairs 50000 --json results/large_folder.json
    python benchmarks/large_folder.py --pairs 2000 data.cache=memory

The pairs are demo scenes of 512 x 512 pixels in a temporary folder: few files, and hard links to them, so the disk cache is
always warm and disk speed is not measured. 15 % of them are for val and as many for test. Each start is a process of its
own. Its time includes starting Python, and ends after the first optimizer step. The net is small, because the data are
measured. Further settings are as for train.py.
"""

import argparse
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hydra import compose, initialize_config_dir
from measure import CONF, environment

from segsweep.data.demo import write_demo_folder
from segsweep.runs.files import write_json

SIZE = 512
FILES = 8
"""Different pairs in each split; the others are links to them."""
SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
NET = ("model=unet", "model.widths=[8,16,16]", "model.head_width=8", "data.image_size=128", "callbacks.graph=null")


def make_folder(root: Path, pairs: int) -> None:
    """Writes a folder of `pairs` pairs in train, val and test."""
    few = root.with_name("few")
    write_demo_folder(few, (FILES, FILES, FILES), SIZE)
    for split, share in SHARES.items():
        for kind in ("images", "masks"):
            files = sorted((few / split / kind).iterdir())
            folder = root / split / kind
            folder.mkdir(parents=True)
            for number in range(max(round(share * pairs), 1)):
                os.link(files[number % FILES], folder / f"part_{number:06d}.png")
    (root / "classes.csv").write_bytes((few / "classes.csv").read_bytes())


def start(root: str, overrides: list[str]) -> None:
    """Trains one step in this process, and prints the time when it ended and the peak memory, as JSON."""
    from segsweep import cli  # noqa: F401  (registers the resolvers that the configuration needs)
    from segsweep.callbacks import StopOnSignal
    from segsweep.errors import Interrupted
    from segsweep.training import train

    asked: list[float] = []
    cpu: list[float] = []

    def after_a_step() -> int | None:
        asked.append(time.time())
        cpu.append(time.process_time())
        return signal.SIGTERM if len(asked) > 1 else None  # the first time is before training

    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=["data=folder", f"data.root={root}", *NET, *overrides])
    with tempfile.TemporaryDirectory() as run, contextlib.suppress(Interrupted):
        train(config, Path(run, "run"), stop=StopOnSignal(asked=after_a_step))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
    print(json.dumps({"ended": asked[1], "cpu_seconds": cpu[1], "peak_gib": peak}))


def measured(root: Path, overrides: list[str]) -> dict[str, float]:
    """Seconds to the first step of one start, those of the CPU in all its threads, and its peak memory in GiB."""
    began = time.time()
    command = [sys.executable, __file__, "--start", str(root), *overrides]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    last = json.loads(output.splitlines()[-1])
    return {"seconds": last.pop("ended") - began, **last}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--starts", type=int, default=3, help="number of starts; the first finds nothing on disk")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--start", help=argparse.SUPPRESS)
    options, overrides = parser.parse_known_args()
    if options.start:
        start(options.start, overrides)
        return
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "pairs")
        make_folder(root, options.pairs)
        time.sleep(3)  # facts about files that have just changed are not kept
        results = []
        for number in range(options.starts):
            results.append(measured(root, [f"data.cache_dir={scratch}/cache", *overrides]))
            print(
                f"start {number + 1}: {results[-1]['seconds']:.1f} s to the first step"
                f" ({results[-1]['cpu_seconds']:.1f} s of CPU), {results[-1]['peak_gib']:.2f} GiB at most",
                flush=True,
            )
    if options.json:
        import torch

        write_json(
            options.json,
            {"pairs": options.pairs, "settings": overrides, "starts": results, **environment(torch.device("cpu"))},
        )


if __name__ == "__main__":
    main()
