"""Checks every file of a folder before training on it, and reports what it found."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from segsweep.console import hydra_argument, quoted, relative, shell_word
from segsweep.data import FolderSource
from segsweep.data.check import check_folder
from segsweep.data.check_report import CheckReport
from segsweep.data.faults import passed_over_in_one_line, some
from segsweep.data.first_look import MaskLook
from segsweep.data.folder_classes import NoClassTableError
from segsweep.data.reading import read_pair
from segsweep.datamodule import LOADING_KEYS
from segsweep.errors import UserError, causes, short, shown
from segsweep.instantiate import build, to_plain
from segsweep.invocation import to_type
from segsweep.plots import contact_sheet, save
from segsweep.runs.files import write_json, write_text
from segsweep.training_setup import require_known_settings

SHOWN = 20
"""Most lines of mistakes, and of warnings, on the terminal; check.json has all, with every file."""
MUCH_IGNORED = 0.05
"""Masks in which more than this share of the pixels is ignored are named."""


def check(config: DictConfig, directory: Path, typed: Sequence[str] = ()) -> CheckReport:
    """Checks the folder that the `data` group names; prints the report and writes check.json and contact_sheet.png.

    Where there is no class table, it looks at some masks instead, and writes a table to fill in.

    Args:
        config: the configuration composed from conf/check_data.yaml.
        directory: an existing folder to write to.
        typed: the overrides that the user typed, for the next command to type.

    Raises:
        UserError: the data is not a folder, or has no images, no masks or no class table.
    """
    settings = to_plain(config)
    require_known_settings(settings)
    if settings["data"].get("folds") is not None and settings["data"].get("fold") is None:
        settings["data"]["fold"] = 0  # all folds are shown, whichever is test
    try:
        source = build({key: value for key, value in settings["data"].items() if key not in LOADING_KEYS}, "data")
    except UserError as error:
        for cause in causes(error):
            if isinstance(cause, NoClassTableError):
                require_table(cause.look, directory, typed)
        raise
    if not isinstance(source, FolderSource):
        raise UserError("data: check_data looks at files; give data=folder data.root=PATH")
    report = check_folder(source, settings["workers"])
    write_json(directory / "check.json", report.to_dict())
    print_report(report, Console(soft_wrap=True, markup=False, emoji=False))  # a class may be named like markup
    draw_contact_sheet(source, report, settings["sheet_pairs"], directory / "contact_sheet.png")
    return report


def require_table(look: MaskLook, directory: Path, typed: Sequence[str]) -> NoReturn:
    """Prints what the masks of a folder without a class table hold, and commands to type; writes a table to fill in.

    Raises:
        UserError: always, for the folder has no class table.
    """

    def command(**keys: Any) -> str:
        changed = {f"data.{key}": value for key, value in keys.items()}
        kept = [word for word in typed if word.partition("=")[0] not in changed]
        kept = kept or [quoted("data.root", look.root)]
        return " ".join([to_type("check_data"), *map(shell_word, kept), *starmap(hydra_argument, changed.items())])

    lines = look.lines()
    lines += [f"These are the colours of {name}: {command(labels=name)}" for name in look.presets_by_color]
    if by_id := look.presets_by_id:
        lines.append("Known tables with these ids (if it is one of them, which ids alone cannot tell):")
        lines += [f"  {name} ({share}): {command(labels=name, **keys)}" for name, keys, share in by_id]
    path = relative(directory / "classes.csv")
    if look.table is not None:
        write_text(path, look.table)
        lines.append(f"A table to fill in is in {path}: name its {len(look.classes)} classes, then type")
        lines.append(f"  {command(labels=path, **look.keys)}")
    for line in lines:
        print(shown(line))
    if look.table is None:
        raise UserError(
            f"{shown(look.root)}: holds no class table, and its masks show no classes to list in one; name the folder of"
            " the masks of classes in data.masks, or a table in data.labels"
        )
    known = f"take that of {look.presets_by_color[0]}, or " if look.presets_by_color else ""
    raise UserError(
        f"{shown(look.root)}: holds no class table; {known}name the classes in {shown(path)}, and type the command above"
    )


def print_report(report: CheckReport, console: Console) -> None:
    """Prints splits, sizes, classes and the first warnings and mistakes."""
    split = ", ".join(f"{part} {count}" for part, count in report.split_sizes.items())
    sizes = [f"{height} x {width} ({count})" for (height, width), count in report.sizes.items()]
    print(f"{shown(report.root)}: {len(report.pairs)} pairs, read in {report.seconds:.1f} s")
    for line in [*report.notes, *passed_over_in_one_line(report.passed_over, shown(report.root))]:
        print(shown(line))
    print(f"split: {short(report.split)}: {split}" if report.split else "split: not possible; the mistakes say why")
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
    if report.ignored:
        every = sum(pair.ignored for pair in report.pairs)
        share = every / (every + int(report.class_pixels().sum()))
        much = [f"{shown(name)} {100 * part:.1f} %" for name, part in report.ignored.items() if part > MUCH_IGNORED]
        above = f"; above {100 * MUCH_IGNORED:g} % in {len(much):,} masks: {some(much)}" if much else ""
        print(f"ignored: {100 * share:.2f} % of the pixels, in {len(report.ignored):,} masks{above}")
    for kind, lines in (("warning", report.doubts), ("mistake", report.mistakes)):
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
        names=[shown(pair.name) for pair in found],
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
