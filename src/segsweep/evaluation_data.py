"""The data to score a run on: the data it was trained with, or another folder of the same classes.

A checkpoint is untrusted: its source is looked up in a table, never imported, and nothing is written to a path in it.
"""

import contextlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segsweep.classes import ClassTable, find_class_table, read_mask, read_table
from segsweep.classes.readers import read_table_and_rule
from segsweep.data import SOURCES, FolderSource, Source
from segsweep.data.finding import require_pairs, scan
from segsweep.data.layouts import LayoutSettings
from segsweep.data.pairs import Layout, Pair
from segsweep.data.source import Split
from segsweep.datamodule import LOADING_KEYS, SegmentationDataModule
from segsweep.errors import UserError, shown
from segsweep.instantiate import checked, naming_keys
from segsweep.runs.image_input import reads_files
from segsweep.runs.load import Run
from segsweep.runs.run_checkpoint import build_registered
from segsweep.training_setup import require_known_settings

ScoredSplit = Literal["val", "test", "all"]

TASK = {"binary": "auto", "multiclass": "multiclass"}
"""`data.task` for the folder of a run, by its kind. With auto, a table of more classes is refused by their names."""

NAMES = tuple(entry.name for entry in fields(Layout))
"""The settings that say how files are named."""


@dataclass(frozen=True)
class ScoredData:
    """Data to score a run on.

    Args:
        source: where the samples come from.
        loading: arguments of the DataModule.
        split: the split of the source that is scored.
        name: the split as the user typed it; "all" is the test split of a source that puts every pair there.
        notes: lines to print before scoring.
        settings: everything that the samples depend on; runs with equal settings can share a source.
    """

    source: Source
    loading: dict[str, Any]
    split: Split
    name: str
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def module(self) -> SegmentationDataModule:
        """A DataModule that has `split` as its test split."""
        with naming_keys("data"):
            module = SegmentationDataModule(self.source, **self.loading)
        module.test_split = self.split
        return module

    def sample_name(self, index: int) -> str:
        """The file of a sample, and its place if it is a tile; for a source without files, the split and `index`."""
        if isinstance(self.source, FolderSource):
            return self.source.name(self.split, index)
        return f"{self.name} {index}"


@checked
def data_of(run: Run, changes: Mapping[str, Any] | None = None, split: ScoredSplit = "test") -> ScoredData:
    """The data to score a run on: the data it was trained with, unless `changes` says otherwise.

    Args:
        run: from `load_run`.
        changes: settings of the run's source or of the DataModule. `root` may be any folder of images and masks, whatever
            the run was trained on. It is read and split like the run's own folder: if it is that folder, moved, then only
            `split="all"` scores training images. `choose_class_table` says which class table reads its masks.
        split: "val", "test" or, for a folder, "all".

    Raises:
        UserError: a setting is wrong, the data cannot be found, the split is empty, its classes are not the run's, or
            two class tables read its masks differently.
    """
    changes = dict(changes or {})
    if "overfit_samples" in changes:
        raise UserError("data.overfit_samples: is for training only; evaluation scores a whole split")
    node = run.settings("data")
    if split == "all":
        node.pop("limit_samples", None)
    loading = {key: value for key, value in (node | changes).items() if key in LOADING_KEYS} | {"overfit_samples": 0}
    changes = {key: value for key, value in changes.items() if key not in LOADING_KEYS}
    node = {key: value for key, value in node.items() if key not in LOADING_KEYS}
    node, notes = source_settings(run, node, changes)
    source = open_source(run, node, split)

    scored: Split = "val" if split == "val" else "test"
    size, described = source.size(scored), source.describe()
    if not size:
        other = "give split=val, or split=all, which" if split == "test" and source.size("val") else "split=all"
        reason = f"there is no image in it ({'; '.join(described)})"
        raise UserError(f"split={split}: {reason}; {other} scores every image of a folder")
    if changes or split == "all":
        notes = [*described, *notes]
    limit = loading.get("limit_samples")
    if isinstance(limit, int) and limit < size:
        notes.append(f"data.limit_samples={limit}: the first {limit} of {size} samples are scored")
    if names := recoloured(run.labels, source.labels):
        notes.append(f"labels: ids or colours of {', '.join(names)} are not the run's; masks are read by these")
    # `seed` only draws training samples.
    settings = {key: value for key, value in node.items() if key != "seed"} | loading | {"scored": split}
    return ScoredData(source, loading, scored, split, notes, settings)


def source_settings(run: Run, node: dict[str, Any], changes: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The settings `node` of a run's source with `changes`, and the notes on them.

    Raises:
        UserError: a change is unknown, changes the task or nothing that is scored, or the folder is not there.
    """
    if "task" in changes:
        raise UserError(f"data.task: follows from the run, which is {run.kind}; leave it out")
    if "cache_dir" in node:
        node |= {"cache_dir": "outputs/cache"}  # the path in the checkpoint is untrusted
    notes: list[str] = []
    if "root" in changes and not (reads_files(node) and is_same_folder(changes["root"], node.get("root"))):
        node, notes = other_folder(run, node, changes)
    if node.get("_target_") == "segsweep.data.FolderSource":
        node |= {"task": TASK[run.kind]}
    node |= changes
    require_known_settings({"data": node})
    source_class = SOURCES.get(str(node.get("_target_")), Source)
    if useless := [key for key in changes if key in source_class.training_only]:
        raise UserError(f"data.{useless[0]}: only changes training samples, not what is scored; leave it out")
    root = str(node.get("root"))
    # A DemoFolder would write its scenes there, and the path in the checkpoint is untrusted.
    if node.get("_target_") == "segsweep.data.DemoFolder" and not Path(root).expanduser().is_dir():
        raise UserError(f"{run.checkpoint}: its data.root={root:.200} is not there; give its new place, data.root=PATH")
    return node, notes


def other_folder(run: Run, node: Mapping[str, Any], changes: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The settings that read the folder `changes["root"]` like the run's own, and the notes on them.

    If its files do not pair by the names of the run's folder, they are found in it anew.
    """
    root = Path(str(changes["root"])).expanduser()
    if not root.is_dir():
        raise UserError(f"data.root={changes['root']}: no such folder")
    known = inspect.signature(FolderSource).parameters if reads_files(node) else ()
    settings = {key: value for key, value in node.items() if key in known}
    settings |= {"_target_": "segsweep.data.FolderSource", "channels": run.channels, "task": TASK[run.kind]}
    if not pairs_by(settings | dict(changes), root):
        settings = {key: value for key, value in settings.items() if key not in NAMES}
    if "labels" in changes:
        return settings, []
    if (table := find_class_table(root)) is not None:
        if settings.get("labels") is None and read_table_and_rule(table)[1].by != "auto":
            settings["by"] = None  # what this table says of the masks beside it
        return choose_class_table(run, settings, changes, table)
    if settings.get("labels") is None:
        settings["labels"] = run.labels.to_dict()
    return settings, []


def pairs_by(settings: Mapping[str, Any], root: Path) -> bool:
    """Whether the files of a folder pair by the names in some settings; the names that they lack have their defaults."""
    names = {key: settings[key] for key in (*NAMES, "exclude") if settings.get(key) is not None}
    with contextlib.suppress(UserError):
        return bool(scan(root, LayoutSettings(**names)).pairs)
    return False


def choose_class_table(
    run: Run, settings: dict[str, Any], changes: Mapping[str, Any], table: Path
) -> tuple[dict[str, Any], list[str]]:
    """Chooses what reads the masks of another folder: the run's `data.labels`, or `table`, which lies in the folder.

    A run without `data.labels` takes `table`. If their ids or colours differ, either may be right: training used
    `data.labels`, but other masks may need the table beside them. The first mask that only one of the two can read decides.

    Args:
        run: from `load_run`.
        settings: the settings of the folder's source, with the run's `labels`.
        changes: the settings that the user typed.
        table: the class table in the folder.

    Returns:
        `settings` with the chosen `labels`, and the notes on them.

    Raises:
        UserError: the classes of `table` are not the run's, or both can read a mask, but differently.
    """
    given, own = settings.get("labels"), read_table(table)
    if run.kind == "binary" and set(own.names) == set(run.labels.names):
        own = ClassTable(
            [own.classes[own.index(name)] for name in run.labels.names]
        )  # its source changes the order too
    way_out = f"data.labels={given}, if its masks have these" if isinstance(given, str) else "the right data.labels"
    require_same_classes(run.labels, own, str(table), f"give {way_out}")
    if given is None or not (names := recoloured(run.labels, own)):
        return settings, []

    by_given, by_table = (
        build_registered(SOURCES, settings | dict(changes) | {"labels": labels}, "data", run.checkpoint)
        for labels in (given, str(table))
    )

    def read(pair: Pair, source: FolderSource) -> NDArray[np.uint8] | None:
        try:
            return read_mask(pair.mask, source.labels, source.mask_rule).mask
        except UserError:
            return None

    name = f"data.labels={given}" if isinstance(given, str) else "the run's own table"
    for pair in require_pairs(by_given.found):
        ours, theirs = read(pair, by_given), read(pair, by_table)
        if ours is not None and theirs is not None and not np.array_equal(ours, theirs):
            raise UserError(
                f"{table}: ids or colours of {', '.join(names)} are not the run's, and both tables can read"
                f" {shown(pair.mask)}; say which is right: {name} or data.labels={table}"
            )
        if ours is None and theirs is not None:
            return settings | {"labels": str(table)}, []
        if ours is not None and theirs is None:
            return settings, [f"labels: masks are read by {name}, as in training: {table} does not fit them"]
    return settings, []


def open_source(run: Run, node: Mapping[str, Any], split: ScoredSplit) -> Source:
    """Builds the source that `node` describes and checks that it fits the run.

    Raises:
        UserError: the data cannot be found, or its classes or channels are not the run's.
    """
    source: Source = build_registered(SOURCES, node, "data", run.checkpoint)
    if split == "all":
        if not isinstance(source, FolderSource):
            raise UserError("split=all: only a folder has it; give val or test")
        source = source.undivided()
    try:
        source.prepare()
    except UserError as error:
        names_split = re.search(r"data\.(split|train|val|test|fractions|folds?)\b", str(error))
        if names_split and isinstance(source, FolderSource):
            raise UserError(f"{error}; or split=all scores every image of a folder") from error
        raise
    way_out = "give data of the same classes in the same order"
    require_same_classes(run.labels, source.labels, f"data.labels ({source.labels_from})", way_out)
    if source.channels != run.channels:
        raise UserError(
            f"data.channels={source.channels}: this run's net takes {run.channels}; set data.channels={run.channels}"
        )
    return source


def is_same_folder(one: Any, other: Any) -> bool:
    """Whether two settings of `data.root` name the same folder."""
    return isinstance(other, str) and Path(str(one)).expanduser().resolve() == Path(other).expanduser().resolve()


def require_same_classes(expected: ClassTable, found: ClassTable, where: str, way_out: str) -> None:
    """Refuses a class table with other names, or another order of names, than the run's.

    Raises:
        UserError: lists up to three differences.
    """
    differences = [f"{name!r} is missing" for name in expected.names if name not in found.names]
    differences += [f"{name!r} is not a class of the run" for name in found.names if name not in expected.names]
    if not differences:
        pairs = enumerate(zip(expected.names, found.names, strict=True))
        differences = [
            f"class {at} is {theirs!r}, and {ours!r} in the run" for at, (ours, theirs) in pairs if ours != theirs
        ]
    if differences:
        more = f", and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise UserError(f"{where}: its classes are not the run's: {'; '.join(differences[:3])}{more}; {way_out}")


def recoloured(expected: ClassTable, found: ClassTable) -> list[str]:
    """The names of the classes that have another id or colour in `found`; both tables have the same names."""
    pairs = zip(expected.classes, found.classes, strict=True)
    return [one.name for one, other in pairs if (one.id, one.color) != (other.id, other.color)]
