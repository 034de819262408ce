"""Images for a run's net, read as its training read them: from a file, Pillow's, an array or a tensor.

Shapes: C image channels, H x W pixels.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from segsweep.data import SOURCES, FolderSource
from segsweep.data.images import ImageRule
from segsweep.data.reading import read_input
from segsweep.instantiate import check_arguments

ImageInput = str | Path | Image.Image | ArrayLike | Tensor
"""One image: its file, the same file opened with Pillow, or an array or tensor [C, H, W], [H, W] where C is 1, of uint8 or
of floats in [0, 1]."""


def reads_files(node: Mapping[str, Any]) -> bool:
    """Whether a node of `data` settings builds a `FolderSource`."""
    target = node.get("_target_")
    return isinstance(target, str) and target in SOURCES and issubclass(SOURCES[target], FolderSource)


def input_rule(node: Mapping[str, Any], channels: int, changes: Mapping[str, Any] | None = None) -> ImageRule:
    """How a run reads new images: as its training did.

    Args:
        node: the run's `data` settings.
        channels: C.
        changes: settings that replace those of the run.

    Raises:
        UserError: a change is unknown or has a wrong value.
    """
    names = {entry.name for entry in fields(ImageRule)} - {"channels"}
    settings = {name: node[name] for name in names if name in node} | dict(changes or {})
    check_arguments(ImageRule, settings, prefix="data.", known=("channels",))
    return ImageRule(channels=channels, **settings)


def image_tensor(image: ImageInput, node: Mapping[str, Any], channels: int) -> Tensor:
    """One image as a net takes it, float32 [1, C, H, W] in [0, 1].

    Args:
        image: in any form.
        node: the run's `data` settings.
        channels: C.

    Raises:
        UserError: the file is missing, damaged, or refused by the run's way of reading.
        ValueError: an array of another shape, or with values outside the range.
    """
    if isinstance(image, str | Path | Image.Image):
        source = image if isinstance(image, Image.Image) else Path(image)
        image = read_input(source, input_rule(node, channels), gray_only=not reads_files(node)).pixels
    array = image if isinstance(image, Tensor) else torch.from_numpy(np.require(image, requirements=["C", "W"]))
    if array.dtype == torch.uint8:
        array = array.float() / 255
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or len(array) != channels:
        raise ValueError(f"image has shape {list(array.shape)}: give [{channels}, height, width]")
    if not (array.numel() and float(array.min()) >= 0 and float(array.max()) <= 1):
        raise ValueError("image has values outside [0, 1]: give uint8, or floats in [0, 1]")
    return array.float()[None]
