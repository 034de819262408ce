"""Which pairs are for training, which for validation, which for the test: no file and no group is in two of them."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field

from segsweep.data.pairs import Pair
from segsweep.errors import UserError, shown
from segsweep.instantiate import From0To1, checked

SplitBy = Literal["auto", "folders", "groups", "fraction", "lists"]
PARTS = ("train", "val", "test")
LARGEST_LIST = 64 << 20
"""Bytes of a list file: a line for each of some hundred thousand pairs."""
FOLDER_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


@checked
@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How pairs are divided.

    Args:
        split: "folders": by the folders `train`, `val` and `test`. "groups": by the folder at the top of a name, as
            `train`, `val` and `test` say. "fraction": drawn with `seed`. "lists": by the files that `train`, `val` and
            `test` name, one pair a line, or else by train.txt, val.txt and test.txt below the root. "auto": groups or
            lists where `train`, `val` or `test` names such, else folders or lists where there are such, else by
            fraction. Of folders or lists for train and test alone, val is drawn from train.
        train, val, test: names of groups, or list files (below the root, or as the shell sees them).
        fractions: how much of the pairs goes to train, val and test; sums to 1.
        whole_groups: whether a fraction keeps groups together; None: where there are as many groups as parts or more.
        split_seed: of the fractions' draw, and of the crops that batch-norm statistics are estimated from.

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

    def __post_init__(self) -> None:
        if not math.isclose(sum(self.fractions), 1, abs_tol=1e-6):
            raise UserError(f"data.fractions={list(self.fractions)}: must have the sum 1 (train, val, test)")
        given = [part for part in PARTS if getattr(self, part)]
        if self.split in ("folders", "fraction") and given:
            raise UserError(
                f"data.{given[0]} is given, but data.split={self.split} does not use it; set data.split=groups or lists"
            )
        if self.split == "groups" and not given:
            raise UserError("data.split=groups: set data.train, data.val and data.test to the groups each is to have")


@dataclass(frozen=True)
class Splits:
    """Pairs by part, disjoint; `unused` holds those that no part asked for. `reason` says by what they were divided."""

    train: tuple[Pair, ...]
    val: tuple[Pair, ...]
    test: tuple[Pair, ...]
    unused: tuple[Pair, ...]
    reason: str

    def __getitem__(self, part: str) -> tuple[Pair, ...]:
        return {"train": self.train, "val": self.val, "test": self.test}[part]


def split_pairs(pairs: Sequence[Pair], root: Path | str, rule: SplitRule = SplitRule()) -> Splits:
    """Divides `pairs` as `rule` says; the same pairs in another order are divided the same way.

    Raises:
        UserError: train or val would be empty, one image file or one named group would be in two parts, or the rule
            names a group, a pair or a list that is not there.
    """
    pairs = sorted(pairs, key=lambda pair: pair.name)
    root = Path(root)
    by = _inferred(pairs, root, rule) if rule.split == "auto" else rule.split
    if by == "folders":
        chosen, reason = _by_folder(pairs), "by the folders " + ", ".join(sorted({pair.group for pair in pairs}))
    elif by == "groups":
        chosen = _by_group(pairs, {part: getattr(rule, part) for part in PARTS})
        reason = "by group: " + "; ".join(f"{part} {', '.join(getattr(rule, part)) or 'none'}" for part in PARTS)
    elif by == "lists":
        lists = _list_files(root, rule)
        chosen = _by_list(pairs, root, lists)
        reason = "by the lists " + ", ".join(shown(path) for paths in lists.values() for path in paths)
    else:
        chosen, reason = _by_fraction({pair.name: pair.group for pair in pairs}, rule, rule.fractions)
    if rule.split == "auto" and by in ("folders", "lists") and not _names(rule) and "val" not in chosen.values():
        drawn, how = _val_of_train(pairs, chosen, rule, below=by == "folders")
        chosen, reason, by = chosen | drawn, f"{reason}; val from train {how}", "fraction"
    members = {part: tuple(pair for pair in pairs if chosen.get(pair.name) == part) for part in PARTS}
    unused = tuple(pair for pair in pairs if pair.name not in chosen)
    for part in ("train", "val"):
        if not members[part]:
            raise UserError(
                f"{shown(root)}: the split {reason} leaves {part} empty (of {len(pairs)} pairs); {_remedy(by, part)}"
            )
    _refuse_shared_files(members)
    return Splits(members["train"], members["val"], members["test"], unused, reason)


def _remedy(by: str, part: str) -> str:
    return {
        "folders": f"put pairs in a folder named {part}, or set data.split=fraction",
        "groups": f"name a group with pairs in data.{part}",
        "lists": f"name pairs in a list for data.{part}",
        "fraction": f"give {part} more in data.fractions",
    }[by]


def _names(rule: SplitRule) -> list[str]:
    return [name for part in PARTS for name in getattr(rule, part)]


def _inferred(pairs: Sequence[Pair], root: Path, rule: SplitRule) -> SplitBy:
    if names := _names(rule):
        groups = {pair.group for pair in pairs}
        return "groups" if all(name in groups for name in names) or not any(_found(root, n) for n in names) else "lists"
    tops = {pair.group.lower() for pair in pairs}
    folders = [part for part in PARTS if tops & set(FOLDER_NAMES[part])]
    lists = [part for part in PARTS if (root / f"{part}.txt").is_file()]
    for needed in ("val", "test"):
        if {"train", needed} <= set(folders):
            return "folders"
        if {"train", needed} <= set(lists):
            return "lists"
    if not lists and folders in ([], ["train"]):
        return "fraction"
    # A fraction of all pairs would train on what is named test, or on what a list leaves out.
    found, ending = (lists, ".txt") if lists else (folders, "")
    missing = ["train"] if "train" not in found else ["val", "test"]
    raise UserError(
        f"{shown(root)}: has {', '.join(f'{part}{ending}' for part in found)}, but no"
        f" {' or '.join(f'{part}{ending}' for part in missing)}; say which groups or lists are for what in data.train,"
        " data.val and data.test, or divide all pairs with data.split=fraction"
    )


def _by_folder(pairs: Sequence[Pair]) -> dict[str, str]:
    part_of = {name: part for part, names in FOLDER_NAMES.items() for name in names}
    return {pair.name: part_of[pair.group.lower()] for pair in pairs if pair.group.lower() in part_of}


def _by_group(pairs: Sequence[Pair], wanted: Mapping[str, Sequence[str]]) -> dict[str, str]:
    groups = sorted({pair.group for pair in pairs} - {""})
    part_of: dict[str, str] = {}
    for part, names in wanted.items():
        for name in names:
            if name not in groups:
                listed = ", ".join(shown(group) for group in groups) or "none: no pair lies in a folder of its own"
                raise UserError(f"data.{part}: there is no group {shown(name)!r}; the groups are: {listed}")
            if name in part_of:
                raise UserError(
                    f"data.{part}: the group {shown(name)!r} is in data.{part_of[name]} too; leave it in one of them"
                )
            part_of[name] = part
    return {pair.name: part_of[pair.group] for pair in pairs if pair.group in part_of}


def _val_of_train(
    pairs: Sequence[Pair], chosen: Mapping[str, str], rule: SplitRule, below: bool
) -> tuple[dict[str, str], str]:
    """What of train becomes val; `below`: groups are the folders below the one named train."""
    group_of = {}
    for pair in pairs:
        if chosen.get(pair.name) == "train":
            folders = pair.name.split("/")[:-1]
            group_of[pair.name] = next(iter(folders[below:]), "")
    val = rule.fractions[1]
    return _by_fraction(group_of, rule, (1 - val, val, 0.0))


def _by_fraction(
    group_of: Mapping[str, str], rule: SplitRule, fractions: Sequence[float]
) -> tuple[dict[str, str], str]:
    """Parts of the pairs, given by name and group, and how these were drawn."""
    parts = [part for part, fraction in zip(PARTS, fractions, strict=True) if fraction > 0]
    groups = set(group_of.values())
    together = rule.whole_groups if rule.whole_groups is not None else "" not in groups and len(groups) >= len(parts)
    units: dict[str, list[str]] = {}
    for name, group in group_of.items():
        units.setdefault(group if together else name, []).append(name)
    if len(units) < len(parts):
        what = "groups" if together else "pairs"
        raise UserError(
            f"data.fractions={list(rule.fractions)}: {len(units)} {what} would leave one of {', '.join(parts)} empty;"
            f" set a fraction to 0{', or data.whole_groups=false' if together else ''}"
        )
    missing = {part: fraction * len(group_of) for part, fraction in zip(PARTS, fractions, strict=True)}
    chosen: dict[str, str] = {}
    # By a hash of the name: a pair keeps its place in the order when others come or go.
    order = sorted(
        units, key=lambda unit: hashlib.sha256(f"{rule.split_seed}:{unit}".encode("utf-8", "surrogatepass")).digest()
    )
    first = [part for part in ("val", "test", "train") if part in parts]
    for position, unit in enumerate(order):
        # No part stays empty, whatever rounding says; after that each unit goes where most is missing.
        part = first[position] if position < len(first) else max(parts, key=lambda part: missing[part])
        missing[part] -= len(units[unit])
        chosen.update(dict.fromkeys(units[unit], part))
    shares = "/".join(f"{fraction:g}" for fraction in fractions)
    return chosen, f"by fraction {shares} of {'whole groups' if together else 'files'}, seed {rule.split_seed}"


def _list_files(root: Path, rule: SplitRule) -> dict[str, list[Path]]:
    if not any(getattr(rule, part) for part in PARTS):
        return {part: [root / f"{part}.txt"] for part in PARTS if (root / f"{part}.txt").is_file()}
    lists: dict[str, list[Path]] = {}
    for part in PARTS:
        for name in getattr(rule, part):
            path = _found(root, name)
            if path is None:
                raise UserError(
                    f"data.{part}: there is no list file {shown(name)!r}, neither in {shown(root)} nor where you are"
                )
            lists.setdefault(part, []).append(path)
    return lists


def _found(root: Path, name: str) -> Path | None:
    return next((path for path in (root / name, Path(name)) if path.is_file()), None)


def _by_list(pairs: Sequence[Pair], root: Path, lists: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    known = _names_in_use(pairs, root)
    chosen: dict[str, str] = {}
    for part, path in ((part, path) for part, paths in lists.items() for path in paths):
        lines = _lines(path)
        for number, line in enumerate(lines, start=1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            names = known.get(str(PurePosixPath(text.replace("\\", "/"))), set())
            if len(names) != 1:
                what = "no pair" if not names else f"{len(names)} pairs"
                raise UserError(
                    f"{shown(path)}, line {number}: {what} named {shown(text)!r} in {shown(root)};"
                    " write the path from there"
                )
            (name,) = names
            if name in chosen:
                raise UserError(
                    f"{shown(path)}, line {number}: {shown(text)!r} is in {chosen[name]} already; leave it in one place"
                )
            chosen[name] = part
    return chosen


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_LIST + 1)
        if len(content) > LARGEST_LIST:
            raise UserError(f"{path}: is larger than {LARGEST_LIST >> 20} MiB, too large for a list of pairs")
        return content.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}); write one pair a line, in UTF-8") from error


def _names_in_use(pairs: Iterable[Pair], root: Path) -> dict[str, set[str]]:
    """Every way a list may name a pair: its name, its image's or mask's path with or without extension, a stem."""
    known: dict[str, set[str]] = {}
    for pair in pairs:
        ways = {pair.name, pair.name.rpartition("/")[2]}
        for path in (pair.image, pair.mask):
            inside = path.relative_to(root) if path.is_relative_to(root) else path
            ways |= {inside.as_posix(), inside.with_suffix("").as_posix(), inside.name, inside.stem, path.as_posix()}
        for way in ways:
            known.setdefault(way, set()).add(pair.name)
    for pair in pairs:
        known[pair.name] = {pair.name}
    return known


def _refuse_shared_files(members: Mapping[str, Sequence[Pair]]) -> None:
    """Links, hard or symbolic, can give one file two names."""
    owner: dict[tuple[int, int], tuple[str, Pair]] = {}
    for part, pairs in members.items():
        for pair in pairs:
            try:
                status = pair.image.stat()
            except OSError:  # gone since the folder was listed; reading it will say so
                continue
            other_part, other = owner.setdefault((status.st_dev, status.st_ino), (part, pair))
            if other_part != part:
                raise UserError(
                    f"{shown(pair.image)} ({part}): is the same file as {shown(other.image)} ({other_part});"
                    " remove one of them"
                )
