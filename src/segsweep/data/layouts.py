"""Proposes how the files of a folder pair, from the names of files and folders alone."""

import bisect
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from segsweep.console import hydra_argument
from segsweep.data.pairs import IMAGE_TYPES, File, Layout, Names, Pairing, pair_files, roles_in, stem_and_extension
from segsweep.data.splits import FOLDER_NAMES
from segsweep.errors import UserError
from segsweep.instantiate import checked

_MASK_WORD = re.compile(
    r"masks?|labels?|annot(?:ation)?s?|segment(?:ation)?s?(?:class)?(?:png)?|manual|ground.?truth|targets?",
    re.IGNORECASE,
)
_MASK_TOKENS = frozenset({"gt", "gts", "seg", "segs", "lbl"})
"""Too short to be searched within a word: `length` holds gt."""
_IMAGE_WORD = re.compile(r"images?|imgs?|photos?|pictures?|rgb|ortho|jpe?g|frames?|inputs?", re.IGNORECASE)
_NO_CLASSES = re.compile(r"instance|object|visual|overlay|depth|polygon|panoptic|npy", re.IGNORECASE)
"""Files in folders, or with suffixes, of these names show no classes: labelme's SegmentationObject."""
_SEPARATORS = "_-. "
_SAMPLES = 40
"""Masks whose names are compared with those of images to find prefixes and suffixes."""
_TRIED = 6
"""Most prefixes and suffixes that are tried for two folders; most folders that are tried beside one of masks."""


@checked
@dataclass(frozen=True, kw_only=True)
class LayoutSettings:
    """The user's part of a `Layout`. None is found in the names of the files, or else the default of `Layout`.

    Args:
        images, masks, image_prefix, image_suffix, mask_prefix, mask_suffix, unpaired: see `Layout`.
        exclude: files that are passed over: patterns for the path below the root or the file name, in which `*` stands for
            anything, as in `Tile 3/*` and `*_bad.png`.
    """

    images: Names | None = None
    masks: Names | None = None
    image_prefix: Names | None = None
    image_suffix: Names | None = None
    mask_prefix: Names | None = None
    mask_suffix: Names | None = None
    exclude: Sequence[str] = ()
    unpaired: Literal["error", "skip"] = "error"

    def layout(self, **found: Names) -> Layout:
        """The layout of the keys that were typed, and else of those that were found; raises UserError as `Layout` does."""
        typed = {name: value for name, value in vars(self).items() if value is not None and name != "exclude"}
        return Layout(**{**found, **typed})

    def open(self) -> bool:
        """Whether a key was not typed."""
        return any(value is None for value in vars(self).values())


@dataclass(frozen=True)
class Proposal:
    """A layout with the pairs that it gives.

    Args:
        layout: the layout.
        pairing: its pairs.
        unpaired: files that it calls images or masks, and leaves without partner.
        others: further files that may be images or masks.
    """

    layout: Layout
    pairing: Pairing
    unpaired: int
    others: int

    @property
    def pairs_all(self) -> bool:
        return not self.unpaired and not self.others

    def __str__(self) -> str:
        """What to type, and how many pairs it gives."""
        left = [
            *([f"{self.unpaired:,} files without partner are left out"] if self.unpaired else []),
            *([f"{self.others:,} other files"] if self.others else []),
        ]
        number = len(self.pairing.pairs)
        pairs = f"{number:,} pair{'' if number == 1 else 's'}"
        return f"{arguments(self.layout)} ({', '.join([pairs, *left])})"


def layout_settings(layout: Layout) -> dict[str, Any]:
    """The settings that say the same as a layout, without those that have their default: plain text and lists."""
    found: dict[str, Any] = {}
    for entry in fields(Layout):
        value = getattr(layout, entry.name)
        if value != getattr(Layout(), entry.name) or entry.name in ("images", "masks"):
            found[entry.name] = value if isinstance(value, str) else value[0] if len(value) == 1 else list(value)
    return found


def arguments(layout: Layout) -> str:
    """The settings of a layout as arguments to paste into a shell."""
    return " ".join(hydra_argument(f"data.{key}", value) for key, value in layout_settings(layout).items())


def propose(files: Iterable[File], wanted: LayoutSettings, listed: AbstractSet[str] = frozenset()) -> list[Proposal]:
    """The layouts that pair files, those with the most pairs first; no two give the same pairs.

    Args:
        files: in sorted order.
        wanted: the keys that were typed, which every proposal has.
        listed: names in the lists of a PASCAL VOC folder. Of its images, others need no mask.
    """
    files = [file for file in files if file[1].name.lower().endswith(IMAGE_TYPES)]
    found: dict[frozenset[Any], Proposal] = {}
    for images, masks in folder_choices({folders for folders, _ in files}, wanted):
        for proposal in proposals_of(files, images, masks, wanted, listed):
            found.setdefault(frozenset((pair.image, pair.mask) for pair in proposal.pairing.pairs), proposal)
    return sorted(
        found.values(), key=lambda proposal: (-len(proposal.pairing.pairs), proposal.unpaired, proposal.others)
    )


def proposals_of(
    files: Sequence[File], images: Names, masks: Names, wanted: LayoutSettings, listed: AbstractSet[str]
) -> list[Proposal]:
    """The layouts for some folders of images and masks: with equal file names, or else with prefixes and suffixes."""

    def tried(affixes: dict[str, Any]) -> Proposal | None:
        try:
            layout = wanted.layout(images=images, masks=masks, **affixes)
        except UserError:  # nothing tells an image from its mask
            return None
        pairing = pair_files(files, layout)
        if not pairing.pairs or pairing.twins:
            return None
        alone = [path for path in pairing.unpaired["image"] if not listed or path.stem in listed]
        unlisted = len(pairing.unpaired["image"]) - len(alone)
        unpaired = len(alone) + len(pairing.unpaired["mask"])
        layout = replace(layout, unpaired="skip") if unpaired or unlisted else layout
        strange = [folders for folders, _ in pairing.elsewhere if not any(map(shows_masks, folders))]
        return Proposal(layout, pairing, unpaired, len(pairing.skipped) + len(strange))

    plain = tried({})
    if plain is not None and plain.pairs_all:
        return [plain]
    choices = affix_choices(files, images, masks)
    with_affixes = [(choice, proposal) for choice in choices if (proposal := tried(choice))]
    if all(proposal.unpaired for _, proposal in with_affixes):
        several = merged([choice for choice, _ in with_affixes])
        with_affixes += [(choice, proposal) for choice in several if (proposal := tried(choice))]
    return [*([plain] if plain else []), *(proposal for _, proposal in with_affixes)]


def shows_masks(folder: str) -> bool:
    """Whether the files of a folder of this name are masks, or other pictures of what they show."""
    tokens = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", folder)
    is_mask = _MASK_WORD.search(folder) or any(token.lower() in _MASK_TOKENS for token in tokens)
    return bool(is_mask or _NO_CLASSES.search(folder))


def part_of(folder: str, word: re.Pattern[str]) -> str:
    """A folder's name without a word: `train` for `train_masks` and `trainannot`."""
    return word.sub("", folder).strip(_SEPARATORS).lower()


def folder_choices(folders: AbstractSet[tuple[str, ...]], wanted: LayoutSettings) -> list[tuple[Names, Names]]:
    """Names of folders of images and of masks that may belong together.

    Folders of masks are told by their names; folders of images lie beside or around them.

    Args:
        folders: those with files, each as the names from the root down to it.
        wanted: the names that were typed.
    """
    if wanted.images is not None and wanted.masks is not None:
        return [(wanted.images, wanted.masks)]
    below: dict[tuple[str, ...], set[str]] = defaultdict(set)  # the folders in each folder
    for path in folders:
        for level, name in enumerate(path):
            below[path[:level]].add(name)
    beside: dict[str, Counter[str]] = defaultdict(Counter)  # folders that may hold the images, by the masks'
    for parent, names in below.items():
        for masks in names:
            if (
                masks != wanted.masks
                if wanted.masks is not None
                else not shows_masks(masks) or _NO_CLASSES.search(masks)
            ):
                continue
            around = ["", *parent[-1:]] if parent in folders else []
            for images in [*around, *(name for name in names if not shows_masks(name) or _IMAGE_WORD.search(name))]:
                if images != masks and wanted.images in (None, images):
                    beside[masks][images] += 1
    by_part: dict[int, tuple[str, str]] = {}  # train, val and test
    choices: list[tuple[Names, Names]] = []
    for masks in sorted(beside):
        near = [name for name, _ in sorted(beside[masks].items(), key=lambda item: (-item[1], item[0]))]
        named = part_of(masks, _MASK_WORD)
        alike = [name for name in near if name and named and part_of(name, _IMAGE_WORD) == named]
        if (
            alike
            and (place := next((at for at, names in enumerate(FOLDER_NAMES.values()) if named in names), None))
            is not None
        ):
            by_part.setdefault(place, (alike[0], masks))
        choices += [(name, masks) for name in (alike or near)[:_TRIED]]
    if len(by_part) > 1:
        pairs = [by_part[place] for place in sorted(by_part)]
        lists = [name for name, _ in pairs], [name for _, name in pairs]
        # One of these alone would leave out the others.
        apart = [choice for choice in choices if choice[0] not in lists[0] and choice[1] not in lists[1]]
        choices = [lists, *apart]
    one_folder = [("", "")] if wanted.images in (None, "") and wanted.masks in (None, "") else []
    return [*choices, *one_folder]


def affix_choices(files: Sequence[File], images: Names, masks: Names) -> list[dict[str, Any]]:
    """Prefixes and suffixes that turn names of images into names of masks, the most frequent first.

    The names that are most alike lie side by side when they are sorted, by their start or by their end.
    """
    together = images == masks
    layout = Layout(images=images, masks=masks, mask_suffix="_" if together else "")
    stems: dict[str, dict[str, list[str]]] = {"image": defaultdict(list), "mask": defaultdict(list)}
    for folders, path in files:
        stem, _ = stem_and_extension(path.name)
        roles = roles_in(folders, layout)
        if together:
            roles = [(role, kept) for role, kept in roles if (role == "mask") == shows_masks(stem)]
        for role, kept in roles:
            stems[role][kept].append(stem)
    votes: Counter[tuple[str, str, str, str]] = Counter()
    every = [(kept, stem) for kept, names in stems["mask"].items() for stem in names]
    order = {
        kept: (sorted(names), sorted(name[::-1] for name in names))
        for kept, names in stems["image"].items()
        if kept in stems["mask"]
    }
    for kept, mask in every[:: max(len(every) // _SAMPLES, 1)]:
        if kept not in order:
            continue
        starts, ends = order[kept]
        for names, step in ((starts, 1), (ends, -1)):
            found = [end[::step] for end in difference(names, mask[::step])]
            if found and all(is_usual(end, step) for end in found) and not _NO_CLASSES.search(found[1]):
                image_end, mask_end = found
                votes[("", image_end, "", mask_end) if step == 1 else (image_end, "", mask_end, "")] += 1
    keys = ("image_prefix", "image_suffix", "mask_prefix", "mask_suffix")
    return [dict(zip(keys, affixes, strict=True)) for affixes, _ in votes.most_common(_TRIED)]


def difference(ordered: Sequence[str], name: str) -> tuple[str, ...]:
    """The ends by which a name and the one most like it in an ordered list differ: that of the list first.

    They begin at a separator, or where letters and digits meet. Empty if the names are equal or have no common start.
    """
    at = bisect.bisect(ordered, name)
    length, other = max((common_start(text, name), text) for text in ordered[max(at - 1, 0) : at + 1])
    while length and not (begins_word(other, length) and begins_word(name, length)):
        length -= 1
    return (other[length:], name[length:]) if length and other != name else ()


def is_usual(end: str, step: int) -> bool:
    """Whether a suffix (step 1) or prefix (step -1) may be of many files: it has a letter, and no part is a number.

    It is separated from the name, or has a usual word.
    """
    if not end:
        return True
    apart = end[::step][0] in _SEPARATORS or shows_masks(end) or _IMAGE_WORD.search(end)
    numbered = any(part.isdigit() for part in re.split(r"[_\-. ]", end))
    return bool(apart and not numbered and re.search(r"[^\W\d_]", end))


def common_start(one: str, other: str) -> int:
    """The number of characters with which both texts begin."""
    same = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(same, min(len(one), len(other)))


def begins_word(text: str, at: int) -> bool:
    """Whether an end of a name may begin at a position: at its end, at a separator, or where letters and digits meet."""
    if at == len(text):
        return True
    before, after = text[at - 1], text[at]
    return before not in _SEPARATORS and (after in _SEPARATORS or before.isdigit() != after.isdigit())


def merged(choices: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choices that differ in one key alone, as one choice with several values of it: DRIVE's `_training` and `_test`."""
    found = []
    for key in ("image_suffix", "mask_suffix", "image_prefix", "mask_prefix"):
        groups: dict[tuple[Any, ...], set[str]] = defaultdict(set)
        for choice in choices:
            groups[tuple((name, value) for name, value in choice.items() if name != key)].add(choice[key])
        found += [{**dict(rest), key: sorted(values)} for rest, values in groups.items() if len(values) > 1]
    return found
