"""Which mask belongs to which image: files paired by their place in the folder and their name."""

import errno
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

    `name` is what both have in common: the path below the root without the images or masks folder, the suffix and the
    extension, with "/" between its parts: `Tile 3/image_part_001`.
    """

    name: str
    image: Path
    mask: Path

    @property
    def group(self) -> str:
        """The folder at the top of the name, such as `Tile 3`; "" where there is none."""
        top, slash, _ = self.name.partition("/")
        return top if slash else ""


@checked
@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where images and masks lie below the root.

    Args:
        images: name of the folders that hold images, at any depth; "" means anywhere.
        masks: the same for masks. Where both have one name, the suffixes tell them apart.
        image_suffix: what an image's stem ends in, beyond the name it shares with its mask: `_image` in `x_image.png`.
        mask_suffix: the same for masks. Files without the suffix are skipped.

    Raises:
        UserError: folders and suffixes cannot tell an image from a mask.
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
    """What a folder holds: sorted pairs, every problem in one line, and what was passed over and why."""

    pairs: tuple[Pair, ...]
    problems: tuple[str, ...]
    skipped: tuple[str, ...]


def find_pairs(root: Path | str, layout: Layout = Layout()) -> tuple[Pair, ...]:
    """All pairs below `root`, sorted by name.

    Raises:
        UserError: what `scan` finds wrong; the first problem, and how many more there are.
    """
    pairing = scan(root, layout)
    if pairing.problems:
        more = len(pairing.problems) - 1
        raise UserError(pairing.problems[0] + (f" ({more} more like it: check_data.py lists them all)" if more else ""))
    return pairing.pairs


def scan(root: Path | str, layout: Layout = Layout()) -> Pairing:
    """Looks through the whole folder, and gives every problem instead of stopping at the first.

    A problem is an image without a mask or the reverse, two images or two masks of one name, or a link that leaves the
    folder, loops or points at nothing. Links to folders inside `root` are skipped: their files are read at their own
    place.

    Raises:
        UserError: `root` does not exist, is no folder, or holds no images or no masks at all.
    """
    root = Path(root)
    if not root.exists():
        raise UserError(f"{shown(root)}: no such folder; set data.root to the folder with images and masks")
    if not root.is_dir():
        raise UserError(f"{shown(root)}: is a file; set data.root to the folder with images and masks")
    walk = _Walk(root)
    found: dict[str, dict[str, list[Path]]] = {"image": {}, "mask": {}}
    for path in walk.files():
        role, name, reason = _place(path.relative_to(root), layout)
        if role:
            found[role].setdefault(name, []).append(path)
        elif reason:
            walk.skipped.append(f"{shown(path)}: {reason}")
    for role, folder, types in (("image", layout.images, IMAGE_TYPES), ("mask", layout.masks, MASK_TYPES)):
        if not found[role]:
            # A link that was refused is the likelier cause than a wrong name.
            raise UserError(walk.problems[0] if walk.problems else _nothing_found(root, role, folder, types))
    problems = walk.problems + _problems(found["image"], found["mask"])
    names = sorted(name for name in found["image"] if name in found["mask"])
    pairs = tuple(Pair(name, found["image"][name][0], found["mask"][name][0]) for name in names)
    return Pairing(pairs, tuple(problems), tuple(walk.skipped))


def _problems(images: dict[str, list[Path]], masks: dict[str, list[Path]]) -> list[str]:
    problems = []
    for role, files, others, other in (("image", images, masks, "mask"), ("mask", masks, images, "image")):
        for name, paths in sorted(files.items()):
            for twin in paths[1:]:
                problems.append(
                    f"{shown(twin)}: a second {role} named {shown(name)!r}, beside {shown(paths[0])}; keep one of them"
                )
            if name not in others:
                problems.append(
                    f"{shown(paths[0])}: has no {other}; add the {other} of this name, or move the {role} away"
                )
    return problems


def _place(path: Path, layout: Layout) -> tuple[str, str, str]:
    """Role ("image", "mask" or "") and name of a file, given relative to the root; for no role, why it is skipped."""
    folders = path.parts[:-1]
    depth = {"image": _depth(folders, layout.images), "mask": _depth(folders, layout.masks)}
    suffix = {"image": layout.image_suffix, "mask": layout.mask_suffix}
    # The folder nearest to the file decides; where it is the same for both, the longer suffix that fits.
    roles = [role for role in depth if depth[role] is not None]
    if not roles:
        return "", "", ""
    deepest = max(depth[role] or 0 for role in roles)
    roles = [role for role in roles if (depth[role] or 0) == deepest]
    fitting = [role for role in roles if path.stem.endswith(suffix[role]) and len(path.stem) > len(suffix[role])]
    if not fitting:
        return "", "", f"its name does not end in {' or '.join(repr(suffix[role]) for role in roles)}"
    role = max(fitting, key=lambda role: len(suffix[role]))
    if path.suffix.lower() not in (IMAGE_TYPES if role == "image" else MASK_TYPES):
        return "", "", f"{path.suffix or 'no extension'} is no {role} type that is read"
    kept = [folder for index, folder in enumerate(folders, start=1) if index != depth[role]]
    stem = path.stem[: len(path.stem) - len(suffix[role])]
    # Some systems store é as one character and others as two.
    return role, unicodedata.normalize("NFC", "/".join([*kept, stem])), ""


def _depth(folders: tuple[str, ...], name: str) -> int | None:
    """At which depth, from 1, a folder of this name lies nearest to the file; 0 where any place will do."""
    if not name:
        return 0
    depths = [depth for depth, folder in enumerate(folders, start=1) if folder == name]
    return depths[-1] if depths else None


def _nothing_found(root: Path, role: str, folder: str, types: tuple[str, ...]) -> str:
    here = sorted(shown(path.name) for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    listed = ", ".join(here[:8]) + (", ..." if len(here) > 8 else "") if here else "none"
    where = f"no folder named {folder!r} with {role}s" if folder else f"no {role}s"
    return (
        f"{shown(root)}: {where} ({', '.join(types)}) in it at any depth; folders at its top: {listed};"
        f" set data.root, or data.{role}s to the name of the folder that holds them"
    )


@dataclass
class _Walk:
    """All files below a folder in sorted order, whatever order the file system lists them in."""

    root: Path
    problems: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def files(self) -> Iterator[Path]:
        # A stack of its own: folders may lie deeper in each other than Python's calls can.
        waiting = [self._entries(self.root)]
        while waiting:
            for path, is_folder in waiting[-1]:
                if is_folder:
                    waiting.append(self._entries(path))
                    break
                yield path
            else:
                waiting.pop()

    def _entries(self, folder: Path) -> Iterator[tuple[Path, bool]]:
        """Files and folders that count, and whether each is a folder; devices, pipes and sockets do not."""
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            self.problems.append(f"{shown(folder)}: cannot be listed ({error.strerror}); mend its permissions")
            return
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_symlink() and not self._is_welcome(path):
                continue
            if entry.is_dir():
                yield path, True
            elif entry.is_file():
                yield path, False

    def _is_welcome(self, link: Path) -> bool:
        """Whether a link is followed: only to a file inside the root."""
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
            self.skipped.append(f"{shown(link)}: is a link to a folder whose files are read at their own place")
            return False
        return True
