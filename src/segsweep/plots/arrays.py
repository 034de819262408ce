"""Checks and conversions of the images, masks and class colours that figures take.

Shape letters: N samples, C channels, H height, W width, K classes.
"""

import colorsys
from collections.abc import Iterable, Sequence, Sized
from typing import Any, Protocol

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

IGNORE = 255
"""The id of pixels that the loss and all metrics skip."""

IGNORED_COLOR = (150, 150, 150)

Colors = ArrayLike | Sequence[str] | Sequence[Sequence[int]]
"""Class colours by id: RGB in 0..255 (integers) or in [0, 1] (floats), or names and hex strings."""


class ImageBatch(Protocol):
    """N images or masks: an array or tensor [N, ...], or a sequence of arrays of any sizes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def to_array(value: Any, name: str) -> NDArray[Any]:
    """Converts anything with `__array__` to a NumPy array.

    Raises:
        ValueError: the conversion fails; it does for a tensor that requires a gradient or is on an accelerator.
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: cannot be read as an array ({error}). For a tensor give x.detach().cpu().") from None
    if array.dtype == object:
        raise ValueError(f"{name}: cannot be read as an array of numbers.")
    return array


def as_image(value: Any, name: str = "image") -> NDArray[Any]:
    """Converts one image to floats that matplotlib draws.

    Args:
        value: [H, W], [C, H, W], [H, W, 1] or [H, W, 3]; booleans, floats in [0, 1], or unsigned integers over the full
            range of their type. If both layouts fit, channels come first. `drawn_channels` chooses among many channels.
        name: the image's name in error messages.

    Returns:
        float [H, W] or [H, W, 3] in [0, 1]; float32 and float64 values in [0, 1] do not change.

    Raises:
        ValueError: another shape, no pixels, NaN or infinite values, or values outside [0, 1].
    """
    image = to_array(value, name)
    shape = image.shape
    if image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(f"{name} has shape {list(shape)}; give [H, W] or [channels, H, W].")
    if image.ndim == 3 and (shape[0] in (1, 3) or shape[2] not in (1, 3)):
        image = np.moveaxis(drawn_channels(image), 0, -1)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.dtype == bool:
        return image.astype(np.float32)
    if image.dtype.kind == "u":
        return (image / np.iinfo(image.dtype).max).astype(np.float32)
    if image.dtype.kind != "f":
        raise ValueError(f"{name} has type {image.dtype}; give floats in [0, 1] or uint8.")
    if image.dtype.itemsize < 4:
        image = image.astype(np.float32)
    low, high = float(image.min()), float(image.max())
    # Rounding in an augmentation may leave [0, 1] slightly; a larger excess is another scale.
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(f"{name} has values from {low:.4g} to {high:.4g}; give floats in [0, 1].")
    return np.clip(image, 0, 1)


def drawn_channels(image: NDArray[Any]) -> NDArray[Any]:
    """Returns the channels of an image [C, H, W] that are drawn: the first three, as RGB, or of fewer the first."""
    return image[:3] if len(image) >= 3 else image[:1]


def as_mask(value: Any, name: str = "mask", like: NDArray[Any] | None = None) -> NDArray[np.int64]:
    """Converts one mask to class ids.

    Args:
        value: [H, W] or [1, H, W]; booleans, integers, or floats that hold whole numbers.
        name: the mask's name in error messages.
        like: the image, or another mask, whose height and width the mask must have; None allows any.

    Returns:
        int64 [H, W].

    Raises:
        ValueError: another shape, another size than `like`, no pixels, or values that are not class ids.
    """
    mask = to_array(value, name)
    shape = mask.shape
    if mask.ndim == 3 and shape[0] == 1:
        mask = mask[0]
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"{name} has shape {list(shape)}; give [H, W] or [1, H, W].")
    if mask.dtype.kind == "f" and not (np.isfinite(mask).all() and (mask == np.round(mask)).all()):
        raise ValueError(f"{name} holds fractions, not class ids; threshold it or take its argmax first.")
    if mask.dtype.kind not in "biuf":
        raise ValueError(f"{name} has type {mask.dtype}; give class ids.")
    ids = mask.astype(np.int64)
    if ids.min() < 0:
        raise ValueError(f"{name} holds the negative id {ids.min()}; class ids start at 0.")
    if like is not None and ids.shape != like.shape[:2]:
        raise ValueError(f"{name} is {ids.shape[0]}×{ids.shape[1]}, its image {like.shape[0]}×{like.shape[1]}.")
    return ids


def batch_length(batch: ImageBatch, name: str) -> int:
    """Returns N; raises ValueError if the batch is empty or a single value."""
    try:
        number = len(batch)
    except TypeError:
        raise ValueError(f"{name}: give several, as [N, ...] or a list; this is a single value.") from None
    if number == 0:
        raise ValueError(f"{name} is empty; there is nothing to draw.")
    return number


def require_one_each(images: Sized, **others: Sized | None) -> None:
    """Raises ValueError if any of `others` has more or fewer entries than there are images; None is allowed."""
    for name, values in others.items():
        if values is not None and len(values) != len(images):
            raise ValueError(f"{name} has {len(values)} entries for {len(images)} images; give one each.")


def as_images(batch: ImageBatch) -> list[NDArray[Any]]:
    """Converts each image of [N, H, W] or [N, C, H, W], or of a list of single ones of any sizes, with `as_image`."""
    return [as_image(batch[index], f"images[{index}]") for index in range(batch_length(batch, "images"))]


def as_masks(batch: ImageBatch, images: Sequence[NDArray[Any]], name: str = "masks") -> list[NDArray[np.int64]]:
    """Converts each mask of [N, H, W] or [N, 1, H, W], or of a list, with `as_mask`: one for each image, of its size."""
    batch_length(batch, name)
    require_one_each(images, **{name: batch})
    return [as_mask(batch[index], f"{name}[{index}]", image) for index, image in enumerate(images)]


def thinned(image: NDArray[Any], *masks: NDArray[np.int64], most: int) -> tuple[NDArray[Any], ...]:
    """Keeps every second, third, ... pixel of an image and its masks, so that no side is longer than `most` pixels.

    The same pixels of all are kept, so overlays stay aligned. Nothing is averaged, so masks keep their ids.
    """
    step = -(-max(image.shape[:2]) // most)
    return tuple(part[::step, ::step] for part in (image, *masks))


def class_colors(number: int) -> NDArray[np.uint8]:
    """Returns colours for `number` classes, uint8 [K, 3]: class 0 nearly black, then Okabe and Ito's palette.

    From the ninth class on, hues are spread by the golden angle. No palette of that size is safe for colour-blind eyes,
    so figures also name the classes.
    """
    known = ["#262626", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"]
    rows = [to_rgb(color) for color in known[:number]]
    for index in range(len(rows), number):
        rows.append(colorsys.hsv_to_rgb(index * 0.381966 % 1, (0.9, 0.5)[index % 2], (0.65, 0.95, 0.4)[index % 3]))
    return np.round(np.array(rows, dtype=float).reshape(-1, 3) * 255).astype(np.uint8)


def as_colors(colors: Colors | None, masks: Iterable[NDArray[np.int64]], ignore: int | None) -> NDArray[np.uint8]:
    """Converts class colours to uint8 [K, 3] and checks that every id in `masks` has one.

    Args:
        colors: by class id; None takes `class_colors`.
        masks: int64 [H, W] each.
        ignore: the id that needs no colour; None if every id is a class.

    Raises:
        ValueError: a colour that cannot be read, or an id without a colour.
    """
    ids = [value for value in _ids_in(masks) if value != ignore]
    highest = ids[-1] if ids else 0
    if colors is None:
        if highest > 65535:
            raise ValueError(f"the masks hold id {highest}, which is not a class id.")
        return class_colors(max(highest + 1, 2))
    if isinstance(colors, Sequence) and colors and all(isinstance(color, str) for color in colors):
        try:
            table = np.array([to_rgb(str(color)) for color in colors])
        except ValueError as error:
            raise ValueError(f"colors: {error}.") from None
    else:
        table = to_array(colors, "colors")
    if table.ndim != 2 or table.shape[1] != 3 or len(table) == 0 or table.dtype.kind not in "iuf":
        raise ValueError(f"colors has shape {list(table.shape)} and type {table.dtype}; give RGB numbers, [K, 3].")
    low, high, limit = table.min(), table.max(), 1 if table.dtype.kind == "f" else 255
    if not 0 <= low <= high <= limit:
        raise ValueError(f"colors runs from {low} to {high}; give integers in 0..255 or floats in [0, 1].")
    unknown = [value for value in ids if value >= len(table)]
    if unknown:
        listed = ", ".join(str(value) for value in unknown[:8]) + (", …" if len(unknown) > 8 else "")
        raise ValueError(f"the masks hold ids {listed}, but there are colors for 0 to {len(table) - 1} only.")
    return np.round(table * (255 / limit)).astype(np.uint8)


def _ids_in(masks: Iterable[NDArray[np.int64]]) -> list[int]:
    return sorted({int(value) for mask in masks for value in np.unique(mask)})


def mask_to_rgb(mask: NDArray[np.int64], colors: NDArray[np.uint8], ignore: int | None) -> NDArray[np.uint8]:
    """Paints a mask in its classes' colours, uint8 [H, W, 3]; ignored pixels are grey."""
    ignored = np.zeros(mask.shape, dtype=bool) if ignore is None else mask == ignore
    picture = colors[np.where(ignored, 0, mask)]
    picture[ignored] = IGNORED_COLOR
    return picture


def class_handles(
    masks: Iterable[NDArray[np.int64]],
    colors: NDArray[np.uint8],
    class_names: Sequence[str] | None,
    ignore: int | None,
) -> list[Patch]:
    """Returns legend entries for the classes that occur in `masks`, by id, and for ignored pixels if any occur.

    Raises:
        ValueError: a class that occurs has no name.
    """
    ids = _ids_in(masks)
    handles = []
    for value in ids:
        if value == ignore:
            continue
        if class_names is not None and value >= len(class_names):
            raise ValueError(f"the masks hold class {value}, but class_names has {len(class_names)} names.")
        name = f"class {value}" if class_names is None else str(class_names[value])
        handles.append(color_patch(colors[value], name))
    if ignore in ids:
        handles.append(color_patch(IGNORED_COLOR, "ignored"))
    return handles


def color_patch(color: Sequence[int] | NDArray[np.uint8], label: str) -> Patch:
    """Returns a legend entry for an RGB colour in 0..255."""
    red, green, blue = (int(channel) / 255 for channel in color)
    return Patch(facecolor=(red, green, blue), edgecolor="black", linewidth=0.5, label=label)
