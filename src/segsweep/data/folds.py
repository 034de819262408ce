"""Cross-validation: divides pairs into folds of about the same size. No group is in two folds."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from segsweep.errors import UserError, shown

_MOST_GROUPS = 6
"""Most groups that a line names."""


@dataclass(frozen=True)
class Fold:
    """One part of a cross-validation: names of its pairs, and the groups that these are; no groups if files are divided."""

    pairs: tuple[str, ...]
    groups: tuple[str, ...]

    def __str__(self) -> str:
        """As "12 pairs: Tile 1, Tile 4"."""
        text = f"{len(self.pairs)} pair{'s' if len(self.pairs) != 1 else ''}"
        return f"{text}: {_named(self.groups)}" if self.groups else text


def require_fold(folds: int | None, fold: int | None) -> None:
    """Refuses numbers that make no cross-validation.

    Args:
        folds: number of folds; None for none.
        fold: the one that is test; None if it is not chosen yet.

    Raises:
        UserError: there are less than three folds, or no such fold.
    """
    if folds is None:
        if fold is not None:
            raise UserError(f"data.fold={fold}: needs the number of folds; add data.folds={max(fold + 1, 5)}")
    elif folds < 3:
        raise UserError(f"data.folds={folds}: must be at least 3 (test, val and train); type data.folds=3")
    elif fold is not None and not 0 <= fold < folds:
        raise UserError(f"data.fold={fold}: must be from 0 to {folds - 1}, for data.folds={folds}; type data.fold=0")


def test_and_val(folds: int, fold: int | None) -> tuple[int, int]:
    """The fold that is test, and the next one, which is val.

    Raises:
        UserError: no fold is chosen. Fold 0 would do, but who asks for folds seldom wants a single one.
    """
    if fold is None:
        every = ",".join(map(str, range(folds)))
        raise UserError(
            f"data.folds={folds}: say which fold is test: data.fold=0, or train all with -m data.fold={every}"
        )
    return fold, (fold + 1) % folds


def in_words(folds: Sequence[Fold], test: int, val: int) -> str:
    """As "3 folds of whole groups (test is fold 0, 12 pairs: Tile 1; val is fold 1, 9 pairs: Tile 2)"."""
    kind = "whole groups" if folds[0].groups else "files"
    return f"{len(folds)} folds of {kind} (test is fold {test}, {folds[test]}; val is fold {val}, {folds[val]})"


def group_below(name: str, splits: Collection[str]) -> str:
    """The first folder in a pair's name, or the one below it if the first is in `splits`; "" if there is none."""
    folders = name.split("/")[:-1]
    below = folders[1:] if folders and folders[0] in splits else folders
    return below[0] if below else ""


def divide(group_of: Mapping[str, str], folds: int, whole_groups: bool | None, seed: int) -> tuple[Fold, ...]:
    """Divides pairs into folds. The numbers of pairs in two folds differ by at most those of the largest group.

    The result depends on names and seed, not on order: largest groups first, then by a hash, each to the smallest fold.

    Args:
        group_of: the group of each pair, by the pair's name; "" if it has none.
        folds: number of folds.
        whole_groups: whether groups stay together; None: only if every pair has a group and there are several.
        seed: chooses which groups of the same size share a fold, and the order of the folds.

    Raises:
        UserError: there are fewer groups, or files, than folds.
    """
    groups = set(group_of.values())
    together = whole_groups if whole_groups is not None else "" not in groups and len(groups) > 1
    units: dict[str, list[str]] = {}
    for name, group in group_of.items():
        # A pair without a group is a unit of its own. No pair's name ends in "/".
        units.setdefault(f"{group}/" if together and group else name, []).append(name)
    if (found := len(units)) < folds:
        kinds = "groups" if together else "pairs"
        listed = f" ({_named(sorted(unit.removesuffix('/') for unit in units))})" if together else ""
        ways = [f"type data.folds={found}"] if found >= 3 else []
        ways += ["data.whole_groups=false divides files instead"] if together and len(group_of) >= folds else []
        raise UserError(
            f"data.folds={folds}: there are only {found} {kinds}{listed}; "
            f"{', or '.join(ways) or 'cross-validation needs at least 3'}"
        )
    members: list[list[str]] = [[] for _ in range(folds)]
    sizes = [0] * folds
    for unit in sorted(shuffled(units, seed), key=lambda unit: -len(units[unit])):
        smallest = sizes.index(min(sizes))
        members[smallest].append(unit)
        sizes[smallest] += len(units[unit])
    return tuple(
        Fold(
            tuple(sorted(name for unit in own for name in units[unit])),
            tuple(sorted(unit.removesuffix("/") for unit in own)) if together else (),
        )
        for own in members
    )


def _named(groups: Sequence[str]) -> str:
    more = f", and {len(groups) - _MOST_GROUPS} more" if len(groups) > _MOST_GROUPS else ""
    return ", ".join(map(shown, groups[:_MOST_GROUPS])) + more


def shuffled(units: Iterable[str], seed: int) -> list[str]:
    """Ordered by a hash of the name: a unit keeps its place when others are added or removed."""
    return sorted(units, key=lambda unit: hashlib.sha256(f"{seed}:{unit}".encode("utf-8", "surrogatepass")).digest())


def absences(folds: Sequence[Fold], pixels: Mapping[str, Sequence[int]], classes: Sequence[str]) -> list[str]:
    """A line for each fold without a pixel of a class that another fold has.

    Args:
        folds: from `divide`.
        pixels: number of pixels of each class in each mask that was read, by the pair's name.
        classes: their names.
    """
    present = [
        {name for pair in fold.pairs for name, count in zip(classes, pixels.get(pair, ()), strict=False) if count}
        for fold in folds
    ]
    known = [name for name in classes if any(name in found for found in present)]
    return [
        f"fold {number} has no pixel of {', '.join(missing)}: iou leaves that out where the fold is val or test"
        for number, found in enumerate(present)
        if (missing := [name for name in known if name not in found])
    ]
