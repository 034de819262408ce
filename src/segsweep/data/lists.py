"""Text files that list the pairs of train, val and test: one pair a line."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from segsweep.data.pairs import Pair
from segsweep.errors import UserError, shown

PARTS = ("train", "val", "test")
LARGEST_LIST = 64 << 20
"""Most bytes of a list file; enough for a line for each of some hundred thousand pairs."""
VOC_LISTS = "ImageSets/Segmentation"
"""Folder of lists in PASCAL VOC's layout, as CVAT and VOC write them."""

FOLDER_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


def part_lists(root: Path) -> dict[str, Path]:
    """The lists that are named like parts: train.txt, val.txt and test.txt, or those of PASCAL VOC's layout."""
    if found := {part: root / f"{part}.txt" for part in PARTS if (root / f"{part}.txt").is_file()}:
        return found
    lists = {path.stem.lower(): path for path in sorted((root / VOC_LISTS).glob("*.txt")) if path.is_file()}
    found = {part: lists[name] for part in PARTS for name in FOLDER_NAMES[part] if name in lists}
    return found if "train" in found and len(found) > 1 else {}


def find_list(root: Path, name: str) -> Path | None:
    """A list file below the root, or else below the current folder; None if there is none."""
    return next((path for path in (root / name, Path(name)) if path.is_file()), None)


def by_list(pairs: Sequence[Pair], root: Path, lists: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """The part of each listed pair, by the pair's name.

    Raises:
        UserError: a line names no pair, several pairs, or a pair that is listed already.
    """
    known = spellings(pairs, root)
    chosen: dict[str, str] = {}
    for part, path in ((part, path) for part, paths in lists.items() for path in paths):
        for number, line in enumerate(read_list(path), start=1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            names = known.get(str(PurePosixPath(text.replace("\\", "/"))), set())
            if len(names) != 1:
                what = "no pair" if not names else f"{len(names)} pairs"
                raise UserError(
                    f"{shown(path)}, line {number}: {what} named {shown(text)!r} in {shown(root)};"
                    " write the path below that folder"
                )
            (name,) = names
            if name in chosen:
                raise UserError(
                    f"{shown(path)}, line {number}: {shown(text)!r} is in {chosen[name]} already; keep one of the lines"
                )
            chosen[name] = part
    return chosen


def read_list(path: Path) -> list[str]:
    """The lines of a list file.

    Raises:
        UserError: it is too large, or no UTF-8 text.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_LIST + 1)
        if len(content) > LARGEST_LIST:
            raise UserError(f"{path}: is larger than {LARGEST_LIST >> 20} MiB, too large for a list of pairs")
        return content.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}); write one pair a line, in UTF-8") from error


def spellings(pairs: Iterable[Pair], root: Path) -> dict[str, set[str]]:
    """The names of the pairs that a line of a list may mean.

    A line may be a pair's name or its last part, or a path or file name of its image or mask, with or without extension.
    """
    known: dict[str, set[str]] = {}
    for pair in pairs:
        ways = {pair.name, pair.name.rpartition("/")[2]}
        for path in (pair.image, pair.mask):
            inside = path.relative_to(root) if path.is_relative_to(root) else path
            ways |= {inside.as_posix(), inside.with_suffix("").as_posix(), inside.name, inside.stem, path.as_posix()}
        for way in ways:
            known.setdefault(way, set()).add(pair.name)
    for pair in pairs:  # a pair's full name means that pair only
        known[pair.name] = {pair.name}
    return known
