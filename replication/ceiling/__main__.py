"""Estimates the best possible segmentation of the textures when their widths are known."""

import argparse
import json
from dataclasses import replace
from datetime import date
from importlib import metadata
from pathlib import Path

from replication.ceiling.evaluation import evaluate, figure, table
from replication.ceiling.texture_model import ROUNDINGS
from segsweep import plots
from segsweep.data.textures import Textures


def _odd(text: str) -> int:
    number = int(text)
    if number < 1 or number % 2 == 0:
        raise argparse.ArgumentTypeError(f"{number}: must be odd and positive, or no pixel is in the middle")
    return number


def main() -> None:
    """Prints the table, and writes the numbers and a picture if asked to."""
    parser = argparse.ArgumentParser(prog="python -m replication.ceiling", description=__doc__)
    parser.add_argument("--images", type=int, default=32, help="number of test images")
    parser.add_argument("--sigma1", type=float, default=0.2)
    parser.add_argument("--sigma2", type=float, default=1.2)
    parser.add_argument("--sigma", type=float, help="width of the border field (default image size / 5)")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--rounding", nargs="+", choices=list(ROUNDINGS), default=list(ROUNDINGS))
    parser.add_argument("--patches", type=_odd, nargs="+", help="odd patch sizes (default: those of the rounding)")
    parser.add_argument("--windows", type=_odd, nargs="+", help="odd window sizes (default: those of the rounding)")
    parser.add_argument("--sweeps", type=int, default=32, help="sweeps of the Gibbs sampler")
    parser.add_argument("--scale-error", type=float, default=0.0, help="relative error of the known scale")
    parser.add_argument("--json", type=Path, help="write settings and numbers to this file")
    parser.add_argument("--figure", type=Path, help="draw a test image and its wrong pixels to this file")
    options = parser.parse_args()
    source = Textures(options.image_size, options.sigma1, options.sigma2, options.sigma)
    rows = []
    for name in options.rounding:
        rounding = ROUNDINGS[name]
        patches, windows = options.patches or rounding.patches, options.windows or rounding.windows
        rounding = replace(rounding, patches=tuple(patches), windows=tuple(windows))
        rows += evaluate(source, name, rounding, options.images, options.sweeps, options.scale_error)
    print(table(rows))
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key not in ("json", "figure")}
        versions = {name: metadata.version(name) for name in ("segsweep", "numpy", "scipy", "torch")}
        content = {"settings": settings, "date": date.today().isoformat(), "versions": versions, "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if options.figure:
        plots.save(figure(source, sweeps=options.sweeps), options.figure, dpi=110)


if __name__ == "__main__":
    main()
