"""Finds the pairs of a folder: lists its files, and pairs them as the settings say or as their names suggest."""

import errno
import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from segsweep.data.layouts import LayoutSettings, Proposal, arguments, propose
from segsweep.data.lists import VOC_LISTS, read_list
from segsweep.data.pairs import IMAGE_TYPES, File, Layout, Pair, Pairing, pair_files
from segsweep.errors import UserError, shown
from segsweep.invocation import to_type

FOUND_BY_NAME = LayoutSettings()
"""No key is typed."""


@dataclass(frozen=True)
class Found:
    """The pairs of a folder, sorted by name, and how they were found.

    Args:
        pairs: the pairs.
        layout: how they are named.
        notes: what was found without being typed, and what is left out, one line each.
        problems: one line each.
        skipped: files that are passed over, one line each.
        inferred: whether the layout was found in the names of the files.
    """

    pairs: tuple[Pair, ...]
    layout: Layout
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    skipped: tuple[str, ...]
    inferred: bool


def require_pairs(found: Found) -> tuple[Pair, ...]:
    """The pairs; raises UserError if there are problems, which names the first one and the number of the others."""
    if found.problems:
        more = len(found.problems) - 1
        others = f" ({more} more like it: {to_type('check_data')} lists them all)" if more else ""
        raise UserError(found.problems[0] + others)
    return found.pairs


def scan(root: Path | str, wanted: LayoutSettings = FOUND_BY_NAME) -> Found:
    """Pairs the files of a folder, and collects all problems instead of stopping at the first.

    If no image has a mask by the keys that were typed and the defaults of the others, the others are found in the names of
    the files: by the one layout that pairs every image and every mask, if there is just one.

    A problem is an image without a mask, a mask without an image, two images or two masks of one name, or a link that
    leaves the folder, forms a loop or has no target. Links to folders inside `root` are skipped, since their files are
    found there.

    Raises:
        UserError: `root` does not exist, is no folder, or holds no images or no masks, or its files pair in several ways.
    """
    root = Path(root)
    if not root.exists():
        raise UserError(f"{shown(root)}: no such folder; set data.root to the folder with images and masks")
    if not root.is_dir():
        raise UserError(f"{shown(root)}: is a file; set data.root to the folder with images and masks")
    layout, walk = wanted.layout(), _Walk(root)
    files, notes = excluded(root, list(walk.files()), wanted.exclude)
    pairing, inferred = pair_files(files, layout), False
    unpaired = [path for paths in pairing.unpaired.values() for path in paths]
    if not pairing.pairs or (unpaired and wanted.open()):
        lists = sorted((root / VOC_LISTS).glob("*.txt"))
        proposals = propose(files, wanted, {line.strip() for path in lists for line in read_list(path)})
        if (best := the_one(proposals)) is not None and not pairing.pairs:
            layout, pairing, inferred = best.layout, best.pairing, True
            notes = [f"images and masks were found by their names, as with {arguments(layout)}", *notes]
        elif proposals and len(proposals[0].pairing.pairs) > len(pairing.pairs):
            paired = f"only {len(pairing.pairs):,} images have a mask" if pairing.pairs else "no image has a mask"
            raise UserError(f"{shown(root)}: {paired} by the usual names; {advice(proposals)}")
        for role in ("image", "mask"):
            if not pairing.pairs and not pairing.unpaired[role]:
                # A refused link is a more likely cause than a wrong name.
                raise UserError(
                    walk.problems[0] if walk.problems else nothing_found(root, files, pairing, role, wanted)
                )
    problems = [*walk.problems, *pairing.twins]
    for role, other in (("image", "mask"), ("mask", "image")):
        alone = pairing.unpaired[role]
        if alone and layout.unpaired == "skip":
            notes = [*notes, f"left out by data.unpaired=skip: {len(alone):,} {role}s without {other}"]
        elif alone:
            problems += [
                f"{shown(path)}: has no {other}; add the {other} of this name, move the {role} away, or leave out all such"
                " files with data.unpaired=skip"
                for path in alone
            ]
    return Found(pairing.pairs, layout, tuple(notes), tuple(problems), (*walk.skipped, *pairing.skipped), inferred)


def excluded(root: Path, files: list[File], patterns: Sequence[str]) -> tuple[list[File], list[str]]:
    """The files that no pattern fits, and for each pattern a line that counts the others."""
    counts = dict.fromkeys(patterns, 0)
    kept = []
    for folders, path in files:
        below = "/".join([*folders, path.name])
        fitting = [
            pattern
            for pattern in patterns
            if fnmatch.fnmatchcase(below, pattern) or fnmatch.fnmatchcase(path.name, pattern)
        ]
        if not fitting:
            kept.append((folders, path))
        for pattern in fitting:
            counts[pattern] += 1
    return kept, [f"left out by data.exclude: {number:,} files like {pattern}" for pattern, number in counts.items()]


def the_one(proposals: list[Proposal]) -> Proposal | None:
    """The proposal that pairs every image and every mask; None without one, or with several."""
    whole = [proposal for proposal in proposals if proposal.pairs_all]
    return whole[0] if len(whole) == 1 else None


def advice(proposals: list[Proposal]) -> str:
    """What to type, for the proposals with the most pairs."""
    whole = [proposal for proposal in proposals if not proposal.unpaired]
    return f"say how they are named: add {'; or add '.join(map(str, (whole or proposals)[:4]))}"


def nothing_found(root: Path, files: list[File], pairing: Pairing, role: str, wanted: LayoutSettings) -> str:
    """The error for a folder without any image, or without any mask."""
    names = getattr(wanted.layout(), f"{role}s")
    folders = " or ".join(repr(shown(name)) for name in names if name) or "the folder"
    others = [proposal for proposal in propose(files, FOUND_BY_NAME) if not proposal.unpaired]
    what_to_do = f"set data.root, or data.{role}s to the name of the folder that holds them"
    if others:
        typed = [f"data.{entry.name}" for entry in fields(Layout) if getattr(wanted, entry.name) not in (None, "error")]
        leave_out = f"leave out {', '.join(typed)}, and " if typed else ""
        what_to_do = f"{leave_out}{advice(others)}"
    elif any(re.fullmatch(r"task-\d+-annotation-\d+-by-.*-tag-.*-\d+\.png", path.name) for _, path in files):
        what_to_do = (
            "task-1-annotation-... are files of Label Studio, one for each label, and do not name their images:"
            " docs/your_folder.md says how to join them"
        )
    types = ", ".join(IMAGE_TYPES)
    if reasons := pairing.reasons[role]:
        number = sum(reasons.values())
        files_are = f"{number:,} file{'' if number == 1 else 's'} in {folders}"
        which = [
            f"{count:,} {reason.replace('its name does', 'whose names do')}" for reason, count in reasons.most_common(3)
        ]
        why = ", ".join(which) if len(reasons) > 1 else which[0].partition(" ")[2]
        return f"{shown(root)}: {files_are}, {why} ({role}s are {types}); {what_to_do}"
    here = sorted(shown(path.name) for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    listed = ", ".join(here[:8]) + (", ..." if len(here) > 8 else "") if here else "none"
    where = f"no folder named {folders} with {role}s" if any(names) else f"no {role}s"
    return f"{shown(root)}: {where} ({types}) in it at any depth; folders at its top: {listed}; {what_to_do}"


@dataclass
class _Walk:
    """Lists all files below a folder, in sorted order."""

    root: Path
    problems: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def files(self) -> Iterator[tuple[tuple[str, ...], Path]]:
        """Yields each file with the folders from the root down to it."""
        # A stack instead of recursion: folders may be nested deeper than Python's calls.
        waiting: list[tuple[tuple[str, ...], Iterator[tuple[Path, bool]]]] = [((), self._entries(self.root))]
        while waiting:
            folders, entries = waiting[-1]
            for path, is_folder in entries:
                if is_folder:
                    waiting.append(((*folders, path.name), self._entries(path)))
                    break
                yield folders, path
            else:
                waiting.pop()

    def _entries(self, folder: Path) -> Iterator[tuple[Path, bool]]:
        """Files and folders, and whether each is a folder; not hidden ones, devices, pipes and sockets."""
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            self.problems.append(f"{shown(folder)}: cannot be listed ({error.strerror}); correct its permissions")
            return
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_symlink() and not self._follows(path):
                continue
            if entry.is_dir():
                yield path, True
            elif entry.is_file():
                yield path, False

    def _follows(self, link: Path) -> bool:
        """Whether to follow a link: only to a file inside the root."""
        try:
            target = link.resolve(strict=True)
            root = self.root.resolve()
        except (OSError, RuntimeError) as error:  # Python before 3.13 raises RuntimeError for a loop
            missing = isinstance(error, OSError) and error.errno == errno.ENOENT
            what = "a link to a file that does not exist" if missing else "a link that leads back to itself"
            self.problems.append(f"{shown(link)}: is {what}; remove it")
            return False
        if not target.is_relative_to(root):
            if target.is_dir() or {link.suffix.lower(), target.suffix.lower()} & set(IMAGE_TYPES):
                self.problems.append(
                    f"{shown(link)}: is a link that leaves the folder, to {shown(target)};"
                    " put the files themselves here, or set data.root to a folder that holds both"
                )
            return False
        if target.is_dir():
            self.skipped.append(
                f"{shown(link)}: is a link to a folder in {shown(self.root)}; its files are found there"
            )
            return False
        return True
