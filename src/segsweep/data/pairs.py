"""Pairs each image with its mask, by folder and file name; never by order."""

import functools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from segsweep.errors import UserError, shown
from segsweep.instantiate import checked

IMAGE_TYPES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".ppm", ".pgm", ".npy")
"""Ends of the names of images and masks; what a file is, its content says."""

Names = str | Sequence[str]
File = tuple[tuple[str, ...], Path]
"""The folders from the root down to a file, and its path."""


@dataclass(frozen=True)
class Pair:
    """One image and its mask.

    `name` is the path below the root without the images or masks folder, prefix, suffix and extension. Both files have the
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
    """Where images and masks are below the root, and how their names differ. A single name may stand for a tuple of one.

    Args:
        images: name of the folders that hold images, at any depth; "" means anywhere. Of several names, each belongs to
            the name at its place in `masks`, and stays in the pairs' names: `train`, `val`.
        masks: the same for masks. If both names are equal, prefixes and suffixes tell images from masks.
        image_prefix: start of an image's file name that is not part of the pair's name: `image_` in `image_7.png`; or
            several, of which the longest that fits counts. Files without the prefix are skipped.
        image_suffix: the same for the end of the name without its extension: `_image` in `7_image.png`.
        mask_prefix, mask_suffix: the same for masks: `.jpeg` in `7.jpeg.png`.
        unpaired: "skip" images without a mask and masks without an image, or call them an "error".

    Raises:
        UserError: a name is a path, or names, prefixes and suffixes cannot tell an image from a mask.
    """

    images: Names = "images"
    masks: Names = "masks"
    image_prefix: Names = ""
    image_suffix: Names = ""
    mask_prefix: Names = ""
    mask_suffix: Names = ""
    unpaired: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        for name in (entry.name for entry in fields(self) if entry.name != "unpaired"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
            if not getattr(self, name):
                raise UserError(f"data.{name}=[]: names nothing; leave it out")
        for key in ("images", "masks"):
            names = getattr(self, key)
            for name in names:
                if name in (".", "..") or "/" in name or "\\" in name:
                    raise UserError(
                        f"data.{key}={name!r}: must be the name of a folder, which is found at any depth; not a path"
                    )
                if names.count(name) > 1:
                    raise UserError(f"data.{key}: names {name!r} twice; remove one")
        if len(self.images) != len(self.masks):
            raise UserError(
                f"data.images names {len(self.images)} folders and data.masks {len(self.masks)}; name one folder of masks"
                " for each folder of images, in the same order"
            )
        alike = self.image_prefix == self.mask_prefix and self.image_suffix == self.mask_suffix
        if alike and set(self.images) & set(self.masks):
            raise UserError(
                f"data.images and data.masks are both {self.images[0]!r}: give data.mask_suffix, data.mask_prefix,"
                " data.image_suffix or data.image_prefix, to tell an image from its mask"
            )


@dataclass(frozen=True)
class Pairing:
    """The pairs of some files, sorted by name.

    Args:
        pairs: one for each name that has an image and a mask.
        twins: further images or masks of one name, one line each.
        unpaired: images without a mask and masks without an image, by role.
        skipped: files in the folders of images and masks that are neither, one line each.
        reasons: how many files of each role were skipped, by reason.
        elsewhere: files of supported types outside the folders of images and masks.
    """

    pairs: tuple[Pair, ...]
    twins: tuple[str, ...]
    unpaired: dict[str, list[Path]]
    skipped: tuple[str, ...]
    reasons: dict[str, Counter[str]]
    elsewhere: tuple[File, ...]


def pair_files(files: Iterable[File], layout: Layout) -> Pairing:
    """Pairs files by their names.

    Args:
        files: in sorted order.
        layout: where images and masks are.
    """
    found: dict[str, dict[str, list[Path]]] = {"image": {}, "mask": {}}
    reasons: dict[str, Counter[str]] = {"image": Counter(), "mask": Counter()}
    skipped, elsewhere = [], []
    for folders, path in files:
        role, name, reason = role_and_name(folders, path.name, layout)
        if role:
            found[role].setdefault(name, []).append(path)
        elif reason:
            skipped.append(f"{shown(path)}: {reason}")
            for possible, _ in roles_in(folders, layout):
                reasons[possible][reason] += 1
        elif path.name.lower().endswith(IMAGE_TYPES):
            elsewhere.append((folders, path))
    twins, unpaired = [], {}
    for role, other in (("image", "mask"), ("mask", "image")):
        for name, (path, *more) in sorted(found[role].items()):
            twins += [
                f"{shown(twin)}: a second {role} named {shown(name)!r}, beside {shown(path)}; keep one of them"
                for twin in more
            ]
        unpaired[role] = [paths[0] for name, paths in sorted(found[role].items()) if name not in found[other]]
    names = sorted(name for name in found["image"] if name in found["mask"])
    pairs = tuple(Pair(name, found["image"][name][0], found["mask"][name][0]) for name in names)
    return Pairing(pairs, tuple(twins), unpaired, tuple(skipped), reasons, tuple(elsewhere))


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
    roles = roles_in(folders, layout)
    if not roles:
        return "", "", ""
    stem, extension = stem_and_extension(file)
    best, role, name = -1, "", ""
    for possible, kept in roles:
        for prefix, suffix in affixes(possible, layout):
            length = len(prefix) + len(suffix)
            if best < length < len(stem) and stem.startswith(prefix) and stem.endswith(suffix):
                best, role, name = length, possible, kept + stem[len(prefix) : len(stem) - len(suffix)]
    if not role:
        return "", "", f"its name does not {' or '.join(affixes_in_words(possible, layout) for possible, _ in roles)}"
    if not extension.lower().endswith(IMAGE_TYPES):
        return "", "", f"{extension or 'no extension'} is no supported {role} type"
    # Some systems store é as one character, others as two.
    return role, unicodedata.normalize("NFC", name), ""


def stem_and_extension(file: str) -> tuple[str, str]:
    """A file name before its last dot, and the rest: `x.jpeg` and `.png`."""
    dot = file.rfind(".")
    return (file[:dot], file[dot:]) if 0 < dot < len(file) - 1 else (file, "")


def affixes(role: str, layout: Layout) -> list[tuple[str, str]]:
    """Every prefix with every suffix of a role."""
    prefixes, suffixes = getattr(layout, f"{role}_prefix"), getattr(layout, f"{role}_suffix")
    return [(prefix, suffix) for prefix in prefixes for suffix in suffixes]


def affixes_in_words(role: str, layout: Layout) -> str:
    """What the names of a role do: "start with 'mask_'", "end in '_a' or '_b'"."""
    parts = []
    for place, does in (("prefix", "start with"), ("suffix", "end in")):
        if any(names := getattr(layout, f"{role}_{place}")):
            parts.append(f"{does} {' or '.join(map(repr, names))}")
    return " and ".join(parts) or "end in ''"


@functools.lru_cache(maxsize=16)  # a folder's files come one after the other
def roles_in(folders: tuple[str, ...], layout: Layout) -> list[tuple[str, str]]:
    """What the files of a folder may be, each with the start of their pairs' names: `Tile 3/`.

    The deeper of the two folders decides; if both are equally deep, the longer prefix and suffix that fit.
    """
    place: dict[str, int] = {}  # level of the nearest folder of images or of masks, from 1; 0: any folder
    for role, names in (("image", layout.images), ("mask", layout.masks)):
        level = next((at for at in range(len(folders), 0, -1) if folders[at - 1] in names), 0)
        if level or "" in names:
            place[role] = level
    roles = []
    for role, level in place.items():
        if level == max(place.values()):
            kept = list(folders)
            if level and len(layout.images) == 1:
                del kept[level - 1]
            elif level and role == "mask":
                kept[level - 1] = layout.images[layout.masks.index(folders[level - 1])]
            roles.append((role, "".join(f"{folder}/" for folder in kept if folder)))
    return roles
