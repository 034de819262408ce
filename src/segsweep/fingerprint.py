"""Which settings change a result. Two trainings with the same of these are the same job."""

import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segsweep.errors import UserError
from segsweep.file_facts import FileFacts, FileVersion, cache_folder, file_version

Leaf = str | int | float | bool | None

ROOT = ("lr", "momentum", "seed", "objective")
GROUPS = ("data", "model", "loss", "optim", "scheduler")
"""Config groups whose settings all affect the result, except `HARMLESS`."""
TRAINER = (
    "max_steps", "max_epochs", "max_minutes", "devices", "precision", "channels_last", "compile", "accumulate",
    "gradient_clip_val", "val_every_n_steps", "test",
)  # fmt: skip
"""Settings of the `trainer` group that affect the result. The others choose the device, the display and the files."""
HARMLESS = frozenset({"data.num_workers", "data.root", "data.cache", "data.cache_dir", "data.cache_gib"})
"""Settings that do not affect the result. A data folder counts by its content, as `data.content`, not by its path."""
NEWER: dict[str, dict[str, tuple[Leaf, Leaf]]] = {
    "": {
        "data.limit_samples": (None, None),
        "trainer.accumulate": (1, None),
        "trainer.max_minutes": (None, None),
        "objective_at": ("best", None),
    },
    "segsweep.data.FolderSource": {
        "data.bands": (None, None),
        "data.task": ("auto", None),
        "data.white": (None, 65535),
        "data.saturation": (0.0, None),
        "data.hue": (0.0, None),
        "data.blur": (0.0, None),
        "data.scale": (1.0, None),
        "data.folds": (None, None),
        "data.fold": (None, None),
        # Found by name only where the earlier defaults pair nothing, and then those were no training.
        "data.images": (None, "images"),
        "data.masks": (None, "masks"),
        "data.image_suffix": (None, ""),
        "data.mask_suffix": (None, ""),
        "data.image_prefix": (None, None),
        "data.mask_prefix": (None, None),
        "data.exclude": ("[]", None),
        "data.unpaired": ("error", None),
    },
    "segsweep.data.Textures": {"data.bits": (None, None)},
    "segsweep.tasks.BCE": {"loss.weights": (None, None)},
    "segsweep.tasks.BCEDice": {"loss.weights": (None, None)},
    "segsweep.tasks.Dice": {"loss.weights": (None, None)},
    "segsweep.nets.ResidualUNet": {"model.downsample": (1, None)},
    "segsweep.nets.TextureCNN": {
        "model.blocks": (3, None),
        "model.residual": (False, None),
        "model.dilation": (1, None),
    },
}
"""Settings that earlier configurations lacked or gave another value, by target; "" is any target.

Each has two values: the one that behaves as before, and the one that earlier configurations stored for that (None: they had
no such key). The first counts as the second, so earlier runs and sweeps can still be resumed."""
WATCHING = frozenset({"last_checkpoint", "panel", "graph", "confusion", "precision_recall"})
"""Callbacks that only save or draw. Any other may change the result."""
WRITTEN = frozenset({"run.json", "sweep.json", "evaluation.json"})
"""Files that mark a folder as written by segsweep."""

NAME = r"[\w.,=+-][\w.,=+ -]*"
"""Regular expression for a `name=`, which becomes a folder."""


def result_settings(settings: Mapping[str, Any], contents: Mapping[str, Leaf] | None = None) -> dict[str, Leaf]:
    """The settings that a result depends on, flat: {"optim.lr": 0.001, ...}.

    They include digests of the data and of the user's own code, but not device, workers, paths or logging.

    Args:
        settings: the resolved configuration, as plain data.
        contents: digests of the data, from `data_contents`, and of other files; None reads the data.

    Raises:
        UserError: the data folder cannot be read.
    """
    chosen: dict[str, Any] = {name: settings.get(name) for name in ROOT}
    chosen["objective_at"] = settings.get("objective_at", "best")
    chosen |= {name: settings[name] for name in GROUPS if name in settings}
    trainer = settings.get("trainer") or {}
    chosen["trainer"] = {name: trainer[name] for name in TRAINER if name in trainer}
    callbacks = settings.get("callbacks") or {}
    chosen["callbacks"] = {name: node for name, node in callbacks.items() if name not in WATCHING}
    flat = {key: value for key, value in flatten(chosen).items() if key not in HARMLESS}
    data = settings.get("data") or {}
    flat |= dict(data_contents(data) if contents is None else contents) | code_contents(settings.get("code"), flat)
    return _without_newer(flat)


def flatten(node: Any, prefix: str = "") -> dict[str, Leaf]:
    """Flattens nested dicts to the keys that a user types: {"a": {"b": 1}} becomes {"a.b": 1}.

    A list or an empty dict becomes one value, as JSON.
    """
    if isinstance(node, Mapping) and node:
        leaves: dict[str, Leaf] = {}
        for key, value in node.items():
            leaves |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
        return leaves
    if isinstance(node, Mapping | list | tuple):
        return {prefix: json.dumps(node, sort_keys=True)}
    return {prefix: node}


def _without_newer(settings: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """Replaces settings in `NEWER` that change nothing by what they count as."""
    found = dict(settings)
    for target in ("", *(settings.get(f"{group}._target_") for group in ("data", "model", "loss"))):
        for key, (value, earlier) in NEWER.get(str(target), {}).items():
            if key in found and json.dumps(_canonical(found[key])) == json.dumps(_canonical(value)):  # true is not 1
                del found[key]
                found |= {} if earlier is None else {key: earlier}
    return found


def job_key(settings: Mapping[str, Leaf]) -> str:
    """A hash of result settings: 12 hexadecimal digits."""
    plain = {key: _canonical(value) for key, value in _without_newer(settings).items()}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def _canonical(value: Leaf) -> Leaf:
    # 1 and 1.0 are one value, to Python and to the user.
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53 else value


def differences(before: Mapping[str, Leaf], now: Mapping[str, Leaf]) -> dict[str, str]:
    """The settings that differ, by key: {"lr": "0.1 before, 0.2 now"}."""
    found = {}
    before, now = _without_newer(before), _without_newer(now)
    for key in dict.fromkeys([*before, *now]):
        old, new = (side.get(key, "nothing") for side in (before, now))
        # Compared as JSON: in Python, True == 1 and NaN != NaN.
        if json.dumps(_canonical(old)) != json.dumps(_canonical(new)) or (key in before) != (key in now):
            found[key] = f"{typed(old)} before, {typed(new)} now"
    return found


def typed(value: Leaf) -> str:
    """A value as the user types it: null, true, 0.001."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def data_contents(data: Mapping[str, Any]) -> dict[str, str]:
    """Digests of the folder and the files that data settings name, by key: {"data.content": "1f0c..."}.

    Those of the folder's files are kept in `data.cache_dir` until a file changes.

    Raises:
        UserError: the data folder cannot be read.
    """
    found: dict[str, str] = {}
    root = data.get("root")
    # A demo folder follows from its settings, and may not be written yet.
    if isinstance(root, str) and data.get("_target_") != "segsweep.data.DemoFolder":
        found["data.content"] = folder_digest(Path(root).expanduser(), data.get("cache_dir"))
    for name in ("labels", "train", "val", "test"):
        value = data.get(name)
        if isinstance(value, str) and (path := Path(value).expanduser()).is_file():
            found[f"data.{name}"] = file_digest(path)
    return found


def code_contents(files: Any, flat: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """Digests of the user's own files, by key: {"code.mine": "1f0c..."}. Only files that a `_target_` names count.

    Args:
        files: the value of `code=`.
        flat: flat settings.
    """
    used = {str(value).rpartition(".")[0] for key, value in flat.items() if key.endswith("_target_")}
    named = files if isinstance(files, list) else [files]
    paths = [Path(file).expanduser() for file in named if isinstance(file, str)]
    found = [path for path in paths if path.stem in used and path.is_file()]
    return {f"code.{path.stem}": file_digest(path) for path in found}


def folder_digest(root: Path, cache_dir: object = None) -> str:
    """A digest of the relative paths and the bytes of all files below `root`: 16 hexadecimal digits.

    Skips hidden files, and folders of runs, sweeps and evaluations, which may be written there.

    Args:
        root: the folder.
        cache_dir: where the digests of its files are kept; see `cache_folder`.

    Raises:
        UserError: there is no such folder, or a file cannot be read.
    """
    if not root.is_dir():
        raise UserError(f"data.root={root}: no such folder")
    paths: list[str] = []  # as text: a Path for each of 100,000 files takes seconds
    names_below: list[str] = []
    for folder, folders, names in os.walk(root):
        if Path(folder) != root and not WRITTEN.isdisjoint(names):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        visible = (name for name in sorted(names) if not name.startswith(".") and name != "Thumbs.db")
        below = "" if Path(folder) == root else f"{Path(folder).relative_to(root).as_posix()}/"
        for name in visible:
            if os.path.isfile(path := os.path.join(folder, name)):
                paths.append(path)
                names_below.append(below + name)
    digests = FileFacts(cache_folder(cache_dir), root, "digest", _digest_of_data, _is_digest)
    digest = hashlib.sha256()
    for name, content in zip(names_below, digests.each(paths, "hashing the data"), strict=True):
        digest.update(json.dumps([name, content]).encode())
    return digest.hexdigest()[:16]


def _digest_of_data(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{16}", value) is not None


def file_digest(path: Path) -> str:
    """A digest of a file's bytes: 16 hexadecimal digits. Read once per process, until the file changes."""
    return _digest(path, file_version(path))


@functools.cache  # each job of a sweep asks for the same files
def _digest(path: Path, version: FileVersion) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
