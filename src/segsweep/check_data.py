"""Checks every file of a folder before training on it, and reports what it found."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from segsweep.data import FolderSource
from segsweep.data.check import CheckReport, check_folder
from segsweep.data.reading import read_pair
from segsweep.datamodule import LOADING_KEYS
from segsweep.errors import UserError, shown
from segsweep.instantiate import build, to_plain
from segsweep.plots import contact_sheet, save
from segsweep.runs.files import write_json
from segsweep.training_setup import require_known_settings

SHOWN = 20
"""Most lines of mistakes, and of warnings, on the terminal; check.json has all."""


def check(config: DictConfig, directory: Path) -> CheckReport:
    """Checks the folder that the `data` group names; prints the report and writes check.json and contact_sheet.png.

    Args:
        config: the configuration composed from conf/check_data.yaml.
        directory: an existing folder to write to.

    Raises:
        UserError: the data is not a folder, or has no images or no masks.
    """
    settings = to_plain(config)
    require_known_settings(settings)
    if settings["data"].get("folds") is not None and settings["data"].get("fold") is None:
        settings["data"]["fold"] = 0  # all folds are shown, whichever is test
    source = build({key: value for key, value in settings["data"].items() if key not in LOADING_KEYS}, "data")
    if not isinstance(source, FolderSource):
        raise UserError("data: check_data looks at files; give data=folder data.root=PATH")
    report = check_folder(source, settings["workers"])
    write_json(directory / "check.json", report.to_dict())
    print_report(report, Console(soft_wrap=True, markup=False, emoji=False))  # a class may be named like markup
    draw_contact_sheet(source, report, settings["sheet_pairs"], directory / "contact_sheet.png")
    return report


def print_report(report: CheckReport, console: Console) -> None:
    """Prints splits, sizes, classes and the first warnings and mistakes."""
    split = ", ".join(f"{part} {count}" for part, count in report.split_sizes.items())
    sizes = [f"{height} x {width} ({count})" for (height, width), count in report.sizes.items()]
    print(f"{shown(report.root)}: {len(report.pairs)} pairs, read in {report.seconds:.1f} s")
    print(f"split: {report.split}: {split}" if report.split else "split: not possible; a mistake says why")
    for fold in report.folds:
        print(fold)
    print(f"height x width (images): {', '.join(sizes[:8])}{f', and {len(sizes) - 8} more' if len(sizes) > 8 else ''}")
    print(f"modes: {', '.join(f'{mode} ({count})' for mode, count in report.modes.items())}")
    if tops := [pair.top for pair in report.pairs if pair.top is not None]:
        print(f"depth: {len(tops)} images of more than 8 bits are read as 8; their largest value is {max(tops):g}")
    table = Table(
        "class", "pixels", *(f"{part} pixels" for part in ("train", "val", "test")), "images without", "weight"
    )
    parts: dict[str, Any] = {part: report.class_fractions(part) for part in ("train", "val", "test")}
    for name, fraction in report.class_fractions().items():
        without = len(report.images_without[name])
        shares = (f"{100 * share:.2f} %" for share in (fraction, *(parts[part][name] for part in parts)))
        table.add_row(name, *shares, str(without), f"{report.class_weights[name]:.2f}")
    console.print(table)
    for kind, lines in (("warning", report.warnings), ("mistake", report.errors)):
        for line in lines[:SHOWN]:
            print(f"{kind}: {line}")
        if len(lines) > SHOWN:
            print(f"{kind}: and {len(lines) - SHOWN} more; all are in check.json")


def draw_contact_sheet(source: FolderSource, report: CheckReport, pairs: int, path: Path) -> None:
    """Draws at most `pairs` pairs without errors; nothing if there is none, or no split."""
    readable = {pair.name for pair in report.pairs if not pair.errors}
    try:
        found = [pair for part in ("train", "val", "test") for pair in source.splits[part] if pair.name in readable]
    except UserError:
        return  # the report has the error
    if not found:
        return
    read = functools.lru_cache(maxsize=1)(
        lambda index: read_pair(found[index], source.labels, source.image_rule, source.mask_rule)
    )
    labels = source.labels
    figure = contact_sheet(
        _Lazy(len(found), lambda index: read(index)[0].pixels),
        _Lazy(len(found), lambda index: read(index)[1].mask),
        labels.colors,
        names=[pair.name for pair in found],
        class_names=labels.names,
        background=labels.background_index,
        max_pairs=pairs,
    )
    save(figure, path)


@dataclass(eq=False, repr=False)
class _Lazy(Sequence[Any]):
    """A sequence that makes an entry when it is asked for: the sheet reads only the pairs that it shows."""

    length: int
    make: Callable[[int], Any]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self.length:
            raise IndexError(index)
        return self.make(index)
