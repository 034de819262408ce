"""Puts sweeps of nets over folds into docs/results.md: `python docs/make_folds.py [LABEL=]SWEEP ...`.

A SWEEP is of study=dubai_folds. LABEL and the settings that it sweeps name its rows.

Writes the numbers of all completed jobs to docs/measured/dubai_folds.json, and from these two tables between the marks
`<!-- sweep dubai_folds -->` and `<!-- end of sweep dubai_folds -->` of docs/results.md. A sweep may be unfinished: rows
are compared over the tiles that all of them have.
"""

import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from make_sweep import put_in
from numpy.typing import NDArray

from segsweep import load_sweep
from segsweep.data import FolderSource
from segsweep.datamodule import LOADING_KEYS
from segsweep.errors import UserError
from segsweep.instantiate import build
from segsweep.runs.files import write_json, write_text
from segsweep.runs.stored import read_plain
from segsweep.sweeps.load import Sweep
from segsweep.sweeps.report_text import entry_text
from segsweep.sweeps.state import FOLD
from segsweep.sweeps.statistics import standard_error, t_quantile

DOCS = Path(__file__).parent
NAME = "dubai_folds"
DIFFERENCE = "to the first", "95 % interval"
"""Titles of the columns that `difference` fills."""


def numbers(sweep: Sweep, label: str = "") -> dict[str, Any]:
    """The command, the classes, the tiles of each fold, and every completed job with its metrics on test.

    Args:
        sweep: over folds.
        label: comes before each job's settings; may be "".

    Raises:
        UserError: no job is completed, folds were not swept, or the folder of the sweep cannot be read.
    """
    record, runs = sweep.record, sweep.results.runs
    completed = [job for job in record.jobs if job.status == "completed"]
    if FOLD not in record.axes or not completed:
        raise UserError(f"{sweep.path}: needs a sweep of {FOLD} with a completed job")
    node = read_plain(sweep.path / completed[0].directory / "config.yaml")["data"]
    source: FolderSource = build({key: value for key, value in node.items() if key not in LOADING_KEYS}, "data")
    jobs = []
    for job in completed:
        run = runs[job.directory]
        swept = ", ".join(entry_text(record.value_of(job, axis)) for axis in record.settings_axes)
        jobs.append(
            {
                "net": f"{label} {swept}".strip(),
                "fold": record.value_of(job, FOLD),
                "seed": run.seed,
                "parameters": run.parameters,
                "steps": run.steps,
                "best_step": run.best_step,
                "seconds": run.seconds,
                "device": run.device,
                "precision": run.precision,
                "val": {"iou": run.metrics["val/iou"]},
                "test": {key.removeprefix("test/"): run.metrics[key] for key in run.metrics if key.startswith("test/")},
            }
        )
    return {
        "commands": [["data.root=PATH" if typed.startswith("data.root=") else typed for typed in record.overrides]],
        "classes": source.labels.names,
        "background": source.labels.background,
        "tiles": [", ".join(fold.groups) for fold in source.splits.folds],
        "jobs": jobs,
    }


def per_fold(content: dict[str, Any]) -> pd.DataFrame:
    """A row for each net and fold that all nets have.

    Seeds are averaged: another training on the same images says nothing new about other images. The iou without the
    background class is the mean over the other classes present. It is of the same predictions, so a pixel of the background
    still counts as a wrong one of the class predicted there.

    Returns:
        Columns "val", the iou on val, and of test "iou", "without" the background class, and the iou of each class, NaN for
        one without a pixel; indexed by net and fold.

    Raises:
        UserError: no fold was completed with every net.
    """
    names = [f"iou/{name}" for name in content["classes"]]
    jobs = pd.DataFrame(
        [{**job["test"], "val": job["val"]["iou"], "net": job["net"], "fold": job["fold"]} for job in content["jobs"]]
    )
    others = [name for name in names if name != f"iou/{content['background']}"]
    jobs["without"] = jobs[others].astype(float).mean(axis=1)
    found = jobs.set_index(["net", "fold"])[["val", "iou", "without", *names]].astype(float)
    found = found.groupby(level=["net", "fold"], sort=False).mean()
    nets = found.index.unique("net")
    common = set.intersection(*(set(found.loc[net].index) for net in nets))
    if not common:
        raise UserError("no tile was completed with every net; run the sweep further.")
    return found[found.index.isin(sorted(common), level="fold")]


def section(content: dict[str, Any]) -> str:
    """Two tables in Markdown: each net over the tiles, and each tile with every net."""
    found, background, tiles = per_fold(content), content["background"], content["tiles"]
    nets, folds = found.index.unique("net"), sorted(found.index.unique("fold"), key=tiles.__getitem__)
    header = ["", "parameters", "steps", "iou on val", "iou on test", f"without {background}", *content["classes"]]
    rows = []
    for net in nets:
        jobs = [job for job in content["jobs"] if job["net"] == net and job["fold"] in folds]
        steps = " or ".join(f"{count:,}" for count in sorted({job["steps"] for job in jobs}))
        cells = [spread(found.loc[net][column]) for column in found]
        rows.append([net, f"{jobs[0]['parameters']:,}", steps, *cells])
    without = {net: found["without"].loc[net].loc[folds].to_numpy(np.float64) for net in nets}
    each = [
        [net, *(f"{iou:.3f}" for iou in ious), *difference(ious - without[nets[0]], len(tiles))]
        for net, ious in without.items()
    ]
    best = found.loc[found.groupby(level="fold")["val"].idxmax()]
    seeds = len({job["seed"] for job in content["jobs"]})
    over = f"{len(folds)} of {len(tiles)} tiles" + (f", each the mean of {seeds} seeds" if seeds > 1 else "")
    return "\n".join(
        [
            *table(header, rows),
            "",
            f"Mean over {over}, ± standard deviation, from [measured/{NAME}.json](measured/{NAME}.json). A tile without a",
            "class counts in no mean of that class. The iou without a class is the mean over the other ones, of the same",
            f"predictions: a pixel of {background} still counts as a wrong pixel of the class predicted there. By tile:",
            "",
            *table([f"iou on test without {background}", *(tiles[fold] for fold in folds), *DIFFERENCE], each),
            "",
            f"Each tile by the row that is best on its own val tile: iou {spread(best['iou'])}, without {background}",
            f"{spread(best['without'])}.",
            "",
        ]
    )


def spread(values: "pd.Series[float]") -> str:
    """Mean and standard deviation of the values that are not NaN."""
    known = values.dropna()
    if not len(known):
        return "absent"
    return f"{known.mean():.3f}" + (f" ± {known.std():.3f}" if len(known) > 1 else "")


def difference(by_tile: NDArray[np.float64], folds: int) -> list[str]:
    """Mean of differences and its 95 % interval; empty for the first row, which differs nowhere from itself.

    A t-interval over tiles. Two folds share most training images, so its variance is that of Nadeau and Bengio, with one
    tile for test and all but two for training.
    """
    mean = by_tile.mean()
    if not by_tile.any():
        return ["", ""]
    if len(by_tile) == 1:
        return [f"{mean:+.3f}", ""]
    half = t_quantile(len(by_tile)) * standard_error(by_tile, 1 / (folds - 2))
    return [f"{mean:+.3f}", f"{mean - half:+.3f} to {mean + half:+.3f}"]


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]]


def joined(contents: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of several sweeps as one.

    Raises:
        UserError: their classes or tiles differ.
    """
    first, *others = contents
    for other in others:
        if any(other[key] != first[key] for key in ("classes", "background", "tiles")):
            raise UserError(f"{shlex.join(other['commands'][0])}: has other classes or tiles than the first sweep.")
    return first | {key: [entry for each in contents for entry in each[key]] for key in ("commands", "jobs")}


def main(arguments: list[str], docs: Path = DOCS) -> None:
    """Writes numbers and page; nothing if a tile was not completed with every net or the page lacks the marks."""
    parts = [argument.rpartition("=") for argument in arguments]
    content = joined([numbers(load_sweep(folder), label) for label, _, folder in parts])
    page = docs / "results.md"
    text = put_in(page.read_text(encoding="utf-8"), f"sweep {NAME}", section(content))
    write_json(docs / f"measured/{NAME}.json", content)
    write_text(page, text)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python docs/make_folds.py [LABEL=]SWEEP ...")
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
