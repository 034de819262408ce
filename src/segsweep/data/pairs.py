"""Pairs each image with its mask, by folder and file name."""

import errno
import functools
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from segsweep.errors import UserError, shown
from segsweep.instantiate import checked

IMAGE_TYPES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".ppm", ".pgm", ".npy")
MASK_TYPES = (*IMAGE_TYPES, ".gif")


@dataclass(frozen=True)
class Pair:
    """One image and its mask.

    `name` is the path below the root without the images or masks folder, the suffix and the extension. Both files have the
    same one, for example `Tile 3/image_part_001`; its separator is "/".
    """

    name: str
    image: Path
    mask: Path

    @property
    def group(self) -> str:
        """The first folder of the name, such as `Tile 3`; "" if there is none."""
        top, slash, _ = self.name.partition("/")
        return top if slash else ""


@checked
@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where images and masks are below the root.

    Args:
        images: name of the folders that hold images, at any depth; "" means anywhere.
        masks: the same for masks. If both names are equal, the suffixes tell images from masks.
        image_suffix: end of an image's stem that is not part of the pair's name: `_image` in `x_image.png`.
        mask_suffix: the same for masks. Files without the suffix are skipped.

    Raises:
        UserError: a name is a path, or names and suffixes cannot tell an image from a mask.
    """

    images: str = "images"
    masks: str = "masks"
    image_suffix: str = ""
    mask_suffix: str = ""

    def __post_init__(self) -> None:
        for name in ("images", "masks"):
            value = getattr(self, name)
            if value in (".", "..") or "/" in value or "\\" in value:
                raise UserError(
                    f"data.{name}={value!r}: must be the name of a folder, which is found at any depth; not a path"
                )
        if self.images == self.masks and self.image_suffix == self.mask_suffix:
            raise UserError(
                f"data.images and data.masks are both {self.images!r}: give data.image_suffix or data.mask_suffix,"
                " to tell an image from its mask"
            )


@dataclass(frozen=True)
class Pairing:
    """The pairs of a folder, sorted by name; its problems and its skipped files, one line each."""

    pairs: tuple[Pair, ...]
    problems: tuple[str, ...]
    skipped: tuple[str, ...]


def find_pairs(root: Path | str, layout: Layout = Layout()) -> tuple[Pair, ...]:
    """All pairs below `root`, sorted by name.

    Raises:
        UserError: `scan` raises it or finds problems; names the first problem and the number of the others.
    """
    pairing = scan(root, layout)
    if pairing.problems:
        more = len(pairing.problems) - 1
        raise UserError(pairing.problems[0] + (f" ({more} more like it: check_data.py lists them all)" if more else ""))
    return pairing.pairs


def scan(root: Path | str, layout: Layout = Layout()) -> Pairing:
    """Pairs the files of a folder, and collects all problems instead of stopping at the first.

    A problem is an image without a mask, a mask without an image, two images or two masks of one name, or a link that
    leaves the folder, forms a loop or has no target. Links to folders inside `root` are skipped, since their files are
    found there.

    Raises:
        UserError: `root` does not exist, is no folder, or holds no images or no masks.
    """
    root = Path(root)
    if not root.exists():
        raise UserError(f"{shown(root)}: no such folder; set data.root to the folder with images and masks")
    if not root.is_dir():
        raise UserError(f"{shown(root)}: is a file; set data.root to the folder with images and masks")
    walk = _Walk(root)
    found: dict[str, dict[str, list[Path]]] = {"image": {}, "mask": {}}
    for folders, path in walk.files():
        role, name, reason = role_and_name(folders, path.name, layout)
        if role:
            found[role].setdefault(name, []).append(path)
        elif reason:
            walk.skipped.append(f"{shown(path)}: {reason}")
    for role, folder, types in (("image", layout.images, IMAGE_TYPES), ("mask", layout.masks, MASK_TYPES)):
        if not found[role]:
            # A refused link is a more likely cause than a wrong name.
            raise UserError(walk.problems[0] if walk.problems else nothing_found(root, role, folder, types))
    problems = list(walk.problems)
    for role, other in (("image", "mask"), ("mask", "image")):
        for name, (path, *twins) in sorted(found[role].items()):
            problems += [
                f"{shown(twin)}: a second {role} named {shown(name)!r}, beside {shown(path)}; keep one of them"
                for twin in twins
            ]
            if name not in found[other]:
                problems.append(f"{shown(path)}: has no {other}; add the {other} of this name, or move the {role} away")
    names = sorted(name for name in found["image"] if name in found["mask"])
    pairs = tuple(Pair(name, found["image"][name][0], found["mask"][name][0]) for name in names)
    return Pairing(pairs, tuple(problems), tuple(walk.skipped))


def role_and_name(folders: tuple[str, ...], file: str, layout: Layout) -> tuple[str, str, str]:
    """Whether a file is an image or a mask, and its pair's name.

    Args:
        folders: the folders from the root down to the file.
        file: its name.
        layout: where images and masks are.

    Returns:
        "image" or "mask", the name, and ""; or "", "" and the reason to skip the file, which is "" for a file outside the
        folders of images and masks.
    """
    roles, kept = roles_in(folders, layout)
    if not roles:
        return "", "", ""
    dot = file.rfind(".")
    stem, extension = (file[:dot], file[dot:]) if 0 < dot < len(file) - 1 else (file, "")
    fitting = [(role, suffix) for role, suffix in roles if stem.endswith(suffix) and len(stem) > len(suffix)]
    if not fitting:
        return "", "", f"its name does not end in {' or '.join(repr(suffix) for _, suffix in roles)}"
    role, suffix = max(fitting, key=lambda choice: len(choice[1]))
    if not extension.lower().endswith(IMAGE_TYPES if role == "image" else MASK_TYPES):
        return "", "", f"{extension or 'no extension'} is no supported {role} type"
    # Some systems store é as one character, others as two.
    return role, unicodedata.normalize("NFC", kept + stem[: len(stem) - len(suffix)]), ""


@functools.lru_cache(maxsize=16)  # a folder's files come one after the other
def roles_in(folders: tuple[str, ...], layout: Layout) -> tuple[list[tuple[str, str]], str]:
    """What the files of a folder may be, with the suffix of each, and the start of their pairs' names: `Tile 3/`.

    The deeper of the two folders decides; if both are equally deep, the longer suffix that fits.
    """
    depth: dict[str, int] = {}  # level of the nearest folder of images or of masks, from 1; 0: any folder
    for role, folder in (("image", layout.images), ("mask", layout.masks)):
        if not folder:
            depth[role] = 0
        elif folder in folders:
            depth[role] = len(folders) - folders[::-1].index(folder)
    if not depth:
        return [], ""
    deepest = max(depth.values())
    suffix = {"image": layout.image_suffix, "mask": layout.mask_suffix}
    kept = [folder for level, folder in enumerate(folders, start=1) if level != deepest]
    return [(role, suffix[role]) for role in depth if depth[role] == deepest], "".join(f"{folder}/" for folder in kept)


def nothing_found(root: Path, role: str, folder: str, types: tuple[str, ...]) -> str:
    """The error for a folder without any image, or without any mask."""
    here = sorted(shown(path.name) for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    listed = ", ".join(here[:8]) + (", ..." if len(here) > 8 else "") if here else "none"
    where = f"no folder named {folder!r} with {role}s" if folder else f"no {role}s"
    return (
        f"{shown(root)}: {where} ({', '.join(types)}) in it at any depth; folders at its top: {listed};"
        f" set data.root, or data.{role}s to the name of the folder that holds them"
    )


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
            if target.is_dir() or {link.suffix.lower(), target.suffix.lower()} & set(MASK_TYPES):
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
