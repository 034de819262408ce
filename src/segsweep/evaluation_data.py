"""The data and the loss of a run, built again from its checkpoint; or other data with the same classes.

A checkpoint may come from a stranger: sources and losses are looked up in tables, never imported from a name in the file.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segsweep.classes import ClassTable, find_class_table, read_mask, read_table
from segsweep.data import SOURCES, FolderSource, Source
from segsweep.data.pairs import Pair, find_pairs
from segsweep.data.source import Split
from segsweep.datamodule import LOADING_KEYS, SegmentationDataModule
from segsweep.errors import UserError, shown
from segsweep.instantiate import check_arguments, checked, naming_keys
from segsweep.runs.load import Run
from segsweep.tasks import LOSSES, Loss
from segsweep.training_setup import require_known_settings

_CACHE = "outputs/cache"
"""Where decoded images go that memory does not keep; a run may say another place, and anybody may have said it."""
ScoredSplit = Literal["val", "test", "all"]
_ALL = "split=all scores every image of a folder"


@dataclass(frozen=True)
class ScoredData:
    """Data to score a run on.

    Args:
        source: where the samples come from.
        loading: arguments of the DataModule.
        split: of the source.
        name: of the split, as the user knows it: "all" is the test split of a source that has everything there.
        notes: what a person should know of it, a line each.
    """

    source: Source
    loading: dict[str, Any]
    split: Split
    name: str
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    """By which two are known to be the same."""

    def module(self) -> SegmentationDataModule:
        with naming_keys("data"):
            check_arguments(SegmentationDataModule, self.loading, known=("source",))
            data = SegmentationDataModule(self.source, **self.loading)
        data.test_split = self.split
        return data

    def sample_name(self, index: int) -> str:
        """What a sample is called: its file and, where it is a part of an image, its place; or its number."""
        if isinstance(self.source, FolderSource):
            return self.source.name(self.split, index)
        return f"{self.name} {index}"


@checked
def data_of(run: Run, changes: Mapping[str, Any] | None = None, split: ScoredSplit = "test") -> ScoredData:
    """What a run is to be scored on: the data it was trained with, unless `changes` says otherwise.

    Args:
        run: from `load_run`.
        changes: settings of the run's own source, or of the DataModule. Another `root` is a folder with masks, whatever
            the run was trained on. It is read and divided as the run's own folder was, which may be the same folder at
            another place, so no image that was trained on is scored unasked. Where a class table lies in it, masks are
            read by that, or, of a run that was told its classes, by the one of the two tables that reads them.
        split: "val", "test" or, of a folder, "all".

    Raises:
        UserError: a setting is wrong, the data cannot be found, the split is empty, its classes are not the run's, or
            two class tables read its masks differently.
    """
    changes = dict(changes or {})
    node = settings_of(run, "data")
    loading = {key: node.pop(key) for key in LOADING_KEYS if key in node}
    if split == "all":
        loading.pop("limit_samples", None)
    if "overfit_samples" in changes:
        raise UserError("data.overfit_samples: is of a training; what is scored is a whole split")
    loading |= {key: changes.pop(key) for key in LOADING_KEYS if key in changes} | {"overfit_samples": 0}
    notes: list[str] = []
    if "root" in changes and _is_elsewhere(changes["root"], node):
        node, notes = _other_folder(run, node, changes)
    node |= changes
    _require_useful(node, changes)
    _require_no_writing(run, node, changes)
    source: Source = _built(SOURCES, node, run, "data")
    if split == "all":
        if not isinstance(source, FolderSource):
            raise UserError("split=all: only a folder has an all; give val or test")
        source = source.undivided()
    _prepare(source)
    same_order = "give data of the same classes in the same order"
    _require_same_classes(run.labels, source.labels, f"data.labels ({source.labels_from})", same_order)
    if source.channels != run.channels:
        raise UserError(f"data.channels={source.channels}: this run's net takes images of {run.channels}")
    scored: Split = "val" if split == "val" else "test"
    if not source.size(scored):
        described = "; ".join(source.describe())
        other = "give split=val, or split=all, which" if split == "test" and source.size("val") else "split=all"
        raise UserError(f"split={split}: there is no image in it ({described}); {other} scores every image of a folder")
    notes = [*(source.describe() if changes or split == "all" else []), *notes]
    limit = loading.get("limit_samples")
    if isinstance(limit, int) and limit < source.size(scored):
        notes.append(f"data.limit_samples={limit}: the first {limit} of {source.size(scored)} samples are scored")
    if names := _recoloured(run.labels, source.labels):
        notes.append(f"labels: ids or colours of {', '.join(names)} are not the run's; masks are read by these")
    # The seed is that of the training samples.
    settings = {key: value for key, value in node.items() if key != "seed"} | loading | {"scored": split}
    return ScoredData(source, loading, scored, split, notes, settings)


def loss_of(run: Run) -> Loss:
    """The loss that a run was trained with."""
    loss: Loss = _built(LOSSES, settings_of(run, "loss"), run, "loss")
    return loss


def settings_of(run: Run, group: str) -> dict[str, Any]:
    """A group of the configuration that a run was trained with.

    Raises:
        UserError: the checkpoint has none.
    """
    node = run.config.get(group)
    if not isinstance(node, dict):
        raise UserError(f"{run.checkpoint}: damaged, or not written by segsweep (it has no settings for {group})")
    return dict(node)


def reads_files(node: Mapping[str, Any]) -> bool:
    """Whether the settings are those of a folder."""
    target = node.get("_target_")
    return isinstance(target, str) and target in SOURCES and issubclass(SOURCES[target], FolderSource)


def _require_useful(node: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Refuses a change that the source does not take, or that changes nothing that is scored.

    Raises:
        UserError: names the key.
    """
    require_known_settings({"data": node})
    source = SOURCES.get(str(node.get("_target_")), Source)
    for key in changes:
        if key in source.training_only:
            raise UserError(f"data.{key}: changes training samples alone, and nothing that is scored; leave it out")


def _require_no_writing(run: Run, node: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Takes from what a run says of its data what would write to where it says.

    Raises:
        UserError: demonstration scenes would have to be written.
    """
    if "cache_dir" in node and "cache_dir" not in changes:
        node["cache_dir"] = _CACHE
    if node.get("_target_") == "segsweep.data.DemoFolder" and not Path(str(node.get("root"))).expanduser().is_dir():
        raise UserError(
            f"{run.checkpoint}: its data.root={node.get('root')!s:.200} is not there; data.root=PATH says where it is now"
        )


def _is_elsewhere(root: Any, node: Mapping[str, Any]) -> bool:
    if not reads_files(node) or not isinstance(node.get("root"), str):
        return True
    return Path(str(root)).expanduser().resolve() != Path(node["root"]).expanduser().resolve()


def _other_folder(run: Run, node: Mapping[str, Any], changes: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Settings for another folder, as the run's own, and what a person should know of them."""
    known = inspect.signature(FolderSource).parameters if reads_files(node) else ()
    kept = {key: value for key, value in node.items() if key in known}
    settings = {"_target_": "segsweep.data.FolderSource", **kept, "channels": run.channels}
    root = Path(str(changes["root"])).expanduser()
    if not root.is_dir():
        raise UserError(f"data.root={changes['root']}: no such folder")
    told = settings.get("labels")
    if "labels" in changes:
        return settings, []
    if (table := find_class_table(root)) is None:
        return settings | {"labels": run.labels.to_dict() if told is None else told}, []
    way_out = (
        f"data.labels={told}, if its masks are of these" if isinstance(told, str) else "the right one in data.labels"
    )
    own = read_table(table)
    _require_same_classes(run.labels, own, f"{table}", f"give {way_out}")
    if told is None or not (names := _recoloured(run.labels, own)):
        return settings, []
    by_told, by_own = (
        _built(SOURCES, settings | dict(changes) | {"labels": labels}, run, "data") for labels in (told, str(table))
    )
    as_told = f"data.labels={told}" if isinstance(told, str) else "the run's own table"
    # Either may be the wrong one: the folder's own, which the run was told not to use, or another folder's classes.
    for pair in find_pairs(root, by_told.layout):
        ours, theirs = _mask(pair, by_told), _mask(pair, by_own)
        if ours is not None and theirs is None:
            return settings, [f"labels: masks are read by {as_told}, as in training: {table} does not fit them"]
        if ours is None and theirs is not None:
            return settings | {"labels": str(table)}, []
        if not np.array_equal(ours, theirs):  # type: ignore[arg-type]  # both are masks, or both None
            raise UserError(
                f"{table}: gives {', '.join(names)} other ids or colours than the run's table, and {shown(pair.mask)} can"
                f" be read by both; say which counts: {as_told} or data.labels={table}"
            )
    return settings, []


def _mask(pair: Pair, source: FolderSource) -> NDArray[np.uint8] | None:
    """A mask as a source reads it; None where that cannot."""
    try:
        return read_mask(pair.mask, source.labels, source.mask_rule).mask
    except UserError:
        return None


def _prepare(source: Source) -> None:
    try:
        source.prepare()
    except UserError as error:
        divided = isinstance(source, FolderSource) and re.search(
            r"data\.(split|train|val|test|fractions)\b", str(error)
        )
        if not divided:
            raise
        raise UserError(f"{error}; or {_ALL}") from error


def _require_same_classes(expected: ClassTable, found: ClassTable, where: str, way_out: str) -> None:
    """Refuses classes that are not the run's.

    Raises:
        UserError: says what differs.
    """
    if differences := class_differences(expected, found):
        more = f", and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise UserError(f"{where}: its classes are not the run's: {'; '.join(differences[:3])}{more}; {way_out}")


def _recoloured(expected: ClassTable, found: ClassTable) -> list[str]:
    """Which of the same classes have other ids or colours."""
    pairs = zip(expected.classes, found.classes, strict=True)
    return [one.name for one, other in pairs if (one.id, one.color) != (other.id, other.color)]


def class_differences(expected: ClassTable, found: ClassTable) -> list[str]:
    """What tells two class tables apart, a phrase each; none where names and order are the same."""
    differences = [f"{name!r} is missing" for name in expected.names if name not in found.names]
    differences += [f"{name!r} is none of the run's" for name in found.names if name not in expected.names]
    if not differences:
        pairs = enumerate(zip(expected.names, found.names, strict=True))
        differences = [
            f"class {at} is {theirs!r}, and {ours!r} in the run" for at, (ours, theirs) in pairs if ours != theirs
        ]
    return differences


def _built(table: Mapping[str, Any], node: Mapping[str, Any], run: Run, what: str) -> Any:
    """The object that `node` describes, of a class in `table`."""
    settings = dict(node)
    target = settings.pop("_target_", None)
    if target not in table:
        raise UserError(
            f"{run.checkpoint}: its {what} {target!s:.200} is none of segsweep's own, and nobody's code is run unasked; "
            "where it is yours, name the file it is in: code=FILE, or segsweep.load_code(FILE)"
        )
    with naming_keys(what):
        check_arguments(table[target], settings)
        return table[target](**settings)
