"""Divides pairs into train, val and test. No file is in two of them, and no group unless asked for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from segsweep.console import hydra_argument, quoted
from segsweep.data.folds import Fold, divide, group_below, in_words, require_fold, shuffled, test_and_val
from segsweep.data.lists import FOLDER_NAMES, PARTS, by_list, find_list, part_lists
from segsweep.data.pairs import Pair
from segsweep.errors import UserError, shown
from segsweep.instantiate import From0To1, checked

SplitBy = Literal["auto", "folders", "groups", "fraction", "lists"]
SPLIT_FOLDERS = {name: part for part, names in FOLDER_NAMES.items() for name in names}


@checked
@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How pairs are divided.

    Args:
        split: "folders": by folders named `train`, `val` and `test`. "groups": by the first folder of a pair's name, as
            `train`, `val` and `test` list them. "fraction": at random. "lists": by text files with one pair per line,
            which `train`, `val` and `test` name; without names, train.txt, val.txt and test.txt in the root or in
            ImageSets/Segmentation. "auto":
            groups or lists if `train`, `val` or `test` names some; else folders or lists if there are any, with val
            drawn from train if it is missing; else fraction.
        train, val, test: names of groups, or list files (below the root or the current folder).
        fractions: shares of the pairs for train, val and test, with sum 1.
        whole_groups: whether "fraction" and folds keep groups together; None: only if every pair has a group and there
            are at least as many groups as parts; for folds, if there are several.
        split_seed: seed of "fraction" and folds, and of the crops for batch-norm statistics.
        folds: cross-validation instead of `split`: the number of parts of about the same size; None: none.
        fold: the part that is test. The next one is val, after the last the first; the others train.

    Raises:
        UserError: the values contradict each other.
    """

    split: SplitBy = "auto"
    train: Sequence[str] = ()
    val: Sequence[str] = ()
    test: Sequence[str] = ()
    fractions: Annotated[Sequence[From0To1], Field(min_length=3, max_length=3)] = (0.7, 0.15, 0.15)
    whole_groups: bool | None = None
    split_seed: int = 0
    folds: int | None = None
    fold: int | None = None

    def __post_init__(self) -> None:
        require_fold(self.folds, self.fold)
        if not math.isclose(sum(self.fractions), 1, abs_tol=1e-6):
            raise UserError(f"{quoted('data.fractions', self.fractions)}: must have the sum 1 (train, val, test)")
        given = [part for part in PARTS if getattr(self, part)]
        if self.split in ("folders", "fraction") and given:
            raise UserError(
                f"data.{given[0]} is given, but data.split={self.split} does not use it;"
                " set data.split=groups or data.split=lists"
            )
        if self.split == "groups" and not given:
            raise UserError("data.split=groups: set data.train, data.val and data.test to names of groups")

    @property
    def names(self) -> list[str]:
        """All groups or list files that train, val and test name."""
        return [*self.train, *self.val, *self.test]


@dataclass(frozen=True)
class Splits:
    """Disjoint parts of the pairs; `unused` pairs are in no part. `reason` says in words how they were divided."""

    train: tuple[Pair, ...]
    val: tuple[Pair, ...]
    test: tuple[Pair, ...]
    unused: tuple[Pair, ...]
    reason: str
    folds: tuple[Fold, ...] = ()  # all parts of a cross-validation

    def __getitem__(self, part: str) -> tuple[Pair, ...]:
        return {"train": self.train, "val": self.val, "test": self.test}[part]


def split_pairs(pairs: Sequence[Pair], root: Path | str, rule: SplitRule = SplitRule()) -> Splits:
    """Divides `pairs` by a rule. Their order does not matter.

    Raises:
        UserError: train or val would be empty, one image file or one named group would be in two parts, or the rule
            names a group, a pair or a list that does not exist.
    """
    pairs = sorted(pairs, key=lambda pair: pair.name)
    root = Path(root)
    if rule.folds is not None:
        return by_fold(pairs, root, rule)
    by = infer_split(pairs, root, rule) if rule.split == "auto" else rule.split
    if by == "folders":
        chosen = {pair.name: SPLIT_FOLDERS[pair.group.lower()] for pair in pairs if pair.group.lower() in SPLIT_FOLDERS}
        reason = "by the folders " + ", ".join(sorted({pair.group for pair in pairs}))
    elif by == "groups":
        chosen = by_group(pairs, {part: getattr(rule, part) for part in PARTS})
        reason = "by group: " + "; ".join(f"{part} {', '.join(getattr(rule, part)) or 'none'}" for part in PARTS)
    elif by == "lists":
        lists = find_lists(root, rule)
        chosen = by_list(pairs, root, lists)
        reason = "by the lists " + ", ".join(shown(path) for paths in lists.values() for path in paths)
    else:
        chosen, reason = by_fraction({pair.name: pair.group for pair in pairs}, rule, rule.fractions)
    if rule.split == "auto" and by in ("folders", "lists") and not rule.names and "val" not in chosen.values():
        depth = 1 if by == "folders" else 0  # the groups are folders below the one named train
        groups = {}
        for pair in pairs:
            if chosen.get(pair.name) == "train":
                folders = pair.name.split("/")[:-1]
                groups[pair.name] = folders[depth] if len(folders) > depth else ""
        val = rule.fractions[1]
        drawn, how = by_fraction(groups, rule, (1 - val, val, 0.0))
        chosen, reason, by = chosen | drawn, f"{reason}; val from train {how}", "fraction"
    members = {part: tuple(pair for pair in pairs if chosen.get(pair.name) == part) for part in PARTS}
    unused = tuple(pair for pair in pairs if pair.name not in chosen)
    for part in ("train", "val"):
        if not members[part]:
            remedy = {
                "folders": f"put pairs in a folder named {part}, or set data.split=fraction",
                "groups": f"name a group with pairs in data.{part}",
                "lists": f"name pairs in a list for data.{part}",
                "fraction": f"type {hydra_argument('data.fractions', [0.8, 0.2, 0])} or other shares of train and val",
            }[by]
            raise UserError(f"{shown(root)}: the split {reason} leaves {part} empty (of {len(pairs)} pairs); {remedy}")
    require_distinct_files(members)
    return Splits(members["train"], members["val"], members["test"], unused, reason)


def infer_split(pairs: Sequence[Pair], root: Path, rule: SplitRule) -> SplitBy:
    """What "auto" means for these pairs: folders, groups, fraction or lists.

    Raises:
        UserError: there are folders or lists for some parts, but not for train and one other.
    """
    if rule.names:
        are_groups = set(rule.names) <= {pair.group for pair in pairs}
        return "groups" if are_groups or not any(find_list(root, name) for name in rule.names) else "lists"
    tops = {pair.group.lower() for pair in pairs}
    folders = [part for part in PARTS if tops & set(FOLDER_NAMES[part])]
    lists = list(part_lists(root))
    for needed in ("val", "test"):
        if {"train", needed} <= set(folders):
            return "folders"
        if {"train", needed} <= set(lists):
            return "lists"
    if not lists and folders in ([], ["train"]):
        return "fraction"
    # A fraction of all pairs would train on pairs named test, or on pairs that a list leaves out.
    found, ending = (lists, ".txt") if lists else (folders, "")
    missing = ["train"] if "train" not in found else ["val", "test"]
    raise UserError(
        f"{shown(root)}: has {', '.join(f'{part}{ending}' for part in found)}, but no"
        f" {' or '.join(f'{part}{ending}' for part in missing)}; say which groups or lists are for what in data.train,"
        " data.val and data.test, or divide all pairs with data.split=fraction"
    )


def by_group(pairs: Sequence[Pair], wanted: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The part of each pair whose group is named, by the pair's name."""
    groups = sorted({pair.group for pair in pairs} - {""})
    part_of: dict[str, str] = {}
    for part, names in wanted.items():
        for name in names:
            if name not in groups:
                listed = ", ".join(shown(group) for group in groups) or "none: no image lies in a folder of its own"
                raise UserError(f"data.{part}: there is no group {shown(name)!r}; the groups are: {listed}")
            if name in part_of:
                raise UserError(
                    f"data.{part}: the group {shown(name)!r} is in data.{part_of[name]} too; remove it from one of them"
                )
            part_of[name] = part
    return {pair.name: part_of[pair.group] for pair in pairs if pair.group in part_of}


def by_fraction(group_of: Mapping[str, str], rule: SplitRule, fractions: Sequence[float]) -> tuple[dict[str, str], str]:
    """Draws the part of each pair.

    Args:
        group_of: the group of each pair, by the pair's name.
        rule: seed, and whether groups stay together.
        fractions: shares of train, val and test.

    Returns:
        The part of each pair by its name, and how they were drawn, in words.
    """
    parts = [part for part, fraction in zip(PARTS, fractions, strict=True) if fraction > 0]
    groups = set(group_of.values())
    together = rule.whole_groups if rule.whole_groups is not None else "" not in groups and len(groups) >= len(parts)
    units: dict[str, list[str]] = {}
    for name, group in group_of.items():
        units.setdefault(group if together else name, []).append(name)
    if len(units) < len(parts):
        what = "groups" if together else "pairs"
        ways = ["type data.whole_groups=false"] if together and len(group_of) >= len(parts) else []
        if len(units) == 2 and len(parts) == 3:  # train and val must not be empty
            ways.append(f"type {hydra_argument('data.fractions', [0.5, 0.5, 0])} to go without test")
        raise UserError(
            f"{quoted('data.fractions', rule.fractions)}: {len(units)} {what} would leave one of"
            f" {', '.join(parts)} empty; {' or '.join([*ways, f'add {what}'])}"
        )
    missing = {part: fraction * len(group_of) for part, fraction in zip(PARTS, fractions, strict=True)}
    chosen: dict[str, str] = {}
    first = [part for part in ("val", "test", "train") if part in parts]
    for position, unit in enumerate(shuffled(units, rule.split_seed)):
        # First one unit for each part, so that none is empty; then each goes to the part that lacks most.
        part = first[position] if position < len(first) else max(parts, key=lambda part: missing[part])
        missing[part] -= len(units[unit])
        chosen.update(dict.fromkeys(units[unit], part))
    shares = "/".join(f"{fraction:g}" for fraction in fractions)
    return chosen, f"by fraction {shares} of {'whole groups' if together else 'files'}, seed {rule.split_seed}"


def by_fold(pairs: Sequence[Pair], root: Path, rule: SplitRule) -> Splits:
    """Divides pairs into `rule.folds`. Raises UserError if no fold is chosen, groups are too few, or a file is in two."""
    assert rule.folds is not None
    test, val = test_and_val(rule.folds, rule.fold)
    folders = sorted({pair.group for pair in pairs if pair.group.lower() in SPLIT_FOLDERS})
    if all(SPLIT_FOLDERS[folder.lower()] != "train" for folder in folders):
        folders = []  # a group named test among others is a group
    groups = {pair.name: group_below(pair.name, folders) for pair in pairs}
    folds = divide(groups, rule.folds, rule.whole_groups, rule.split_seed)
    fold_of = {name: number for number, fold in enumerate(folds) for name in fold.pairs}
    members = [tuple(pair for pair in pairs if fold_of[pair.name] == number) for number in range(rule.folds)]
    require_distinct_files({f"fold {number}": own for number, own in enumerate(members)})
    train = tuple(pair for pair in pairs if fold_of[pair.name] not in (test, val))
    if rule.names or rule.split not in ("auto", "fraction"):
        instead = [f"data.{part}" for part in PARTS if getattr(rule, part)] or [f"data.split={rule.split}"]
    else:
        lists = [path.name for paths in find_lists(root, rule).values() for path in paths]
        instead = lists or folders or ["data.fractions"]
    reason = f"by {in_words(folds, test, val)}, seed {rule.split_seed}, instead of {', '.join(map(shown, instead))}"
    return Splits(train, members[val], members[test], (), reason, folds)


def find_lists(root: Path, rule: SplitRule) -> dict[str, list[Path]]:
    """The list files of each part.

    Raises:
        UserError: a list that the rule names does not exist.
    """
    if not rule.names:
        return {part: [path] for part, path in part_lists(root).items()}
    lists: dict[str, list[Path]] = {}
    for part in PARTS:
        for name in getattr(rule, part):
            path = find_list(root, name)
            if path is None:
                raise UserError(
                    f"data.{part}: there is no list file {shown(name)!r} in {shown(root)} or the current folder"
                )
            lists.setdefault(part, []).append(path)
    return lists


def require_distinct_files(members: Mapping[str, Sequence[Pair]]) -> None:
    """Refuses one image file in two parts: hard and symbolic links can give it two names.

    Raises:
        UserError: names both.
    """
    owner: dict[tuple[int, int], tuple[str, Pair]] = {}
    for part, pairs in members.items():
        for pair in pairs:
            try:
                stat = pair.image.stat()
            except OSError:  # removed since the folder was listed; reported when it is read
                continue
            other_part, other = owner.setdefault((stat.st_dev, stat.st_ino), (part, pair))
            if other_part != part:
                raise UserError(
                    f"{shown(pair.image)} ({part}): is the same file as {shown(other.image)} ({other_part});"
                    " remove one of them"
                )
