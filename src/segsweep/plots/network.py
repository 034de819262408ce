"""Filters and feature maps of a convolutional net, as grids."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from segsweep.plots.arrays import to_array
from segsweep.plots.style import bare, counted, new_figure, plain_ticks, styled


def mosaic(tiles: ArrayLike) -> NDArray[np.float64]:
    """Joins a grid of small pictures into one, with a gap of NaN between them (drawn as paper).

    Args:
        tiles: [rows, columns, H, W].

    Returns:
        float64 [rows * (H + gap) - gap, columns * (W + gap) - gap]; the gap is H // 16 pixels, at least 1.
    """
    values = to_array(tiles, "tiles").astype(np.float64)
    rows, columns, height, width = values.shape
    gap = max(1, height // 16)
    padded = np.pad(values, ((0, 0), (0, 0), (0, gap), (0, gap)), constant_values=np.nan)
    joined = padded.swapaxes(1, 2).reshape(rows * (height + gap), columns * (width + gap))
    return joined[:-gap, :-gap]


@styled
def filters(weights: ArrayLike, *, title: str = "convolution filters") -> Figure:
    """Draws filters of a convolution: input channels against output channels, the more numerous across, on one scale.

    Middle grey is 0, white the largest magnitude, black its negative. Filters of a single input channel are laid out
    as a square. Only the first 32 outputs and 32 inputs are drawn; the title says so.

    Args:
        weights: [outputs, inputs, height, width], as `torch.nn.Conv2d.weight`.
        title: the layer's name; its sizes are added.

    Raises:
        ValueError: another shape, no weights, or NaN or infinite ones.
    """
    values = _checked_array(weights, "weights", 4, "[outputs, inputs, height, width]")
    outputs, inputs = values.shape[:2]
    shown = values[:32, :32]
    sizes = f"{counted(outputs, 'output')} × {counted(inputs, 'input')}, {values.shape[2]}×{values.shape[3]}"
    if shown.shape[:2] != (outputs, inputs):
        sizes += f"; the first {shown.shape[0]} × {shown.shape[1]}"
    square = inputs == 1 and outputs > 1
    upright = shown.shape[0] > shown.shape[1]
    tiles = _in_square(shown[:, 0]) if square else shown.swapaxes(0, 1) if upright else shown
    limit = float(np.abs(shown).max()) or 1.0
    figure = _draw_tiles(tiles, (-limit, limit), "weight", f"{title} ({sizes})")
    if not square:
        axes = figure.axes[0]
        axes.set_xlabel("output channel" if upright else "input channel")
        axes.set_ylabel("input channel" if upright else "output channel")
        axes.tick_params(length=0)
        rows, columns, height, width = tiles.shape
        for axis, number, size in ((axes.xaxis, columns, width), (axes.yaxis, rows, height)):
            first, last = sorted(axis.get_view_interval())
            centres = np.linspace(first + size / 2, last - size / 2, number)
            step = -(-number // 16)
            axis.set_ticks(centres[::step], [str(index) for index in range(0, number, step)])
    return figure


@styled
def feature_maps(maps: ArrayLike, *, title: str = "feature maps", clip: float = 0.01) -> Figure:
    """Draws the channels of one sample's activations, in reading order, on one scale.

    Only the first 64 are drawn; the title says so.

    Args:
        maps: [C, H, W] or [1, C, H, W].
        title: the layer's name; its sizes are added.
        clip: the share of the values that the scale leaves out at either end, so that a few large ones, often at the rim,
            do not make all others look alike; 0 leaves out none. Values beyond the scale are black or white, and the
            colour bar ends in an arrow.

    Raises:
        ValueError: another shape, no values, NaN or infinite ones, or `clip` outside [0, 0.5).
    """
    if not 0 <= clip < 0.5:
        raise ValueError(f"clip is {clip}; give a share from 0 to below 0.5.")
    array = to_array(maps, "maps")
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    values = _checked_array(array, "maps", 3, "[C, H, W] of one sample")
    shown = values[:64]
    sizes = f"{counted(len(values), 'channel')}, {values.shape[1]}×{values.shape[2]}"
    if len(shown) < len(values):
        sizes += f"; the first {len(shown)}"
    low, high = (float(limit) for limit in np.quantile(shown, [clip, 1 - clip]))
    limits = (low, high if high > low else low + 1)
    return _draw_tiles(_in_square(shown), limits, "activation", f"{title} ({sizes})")


def _checked_array(value: Any, name: str, dimensions: int, shape: str) -> NDArray[np.float64]:
    array = to_array(value, name)
    if array.ndim != dimensions or array.size == 0:
        raise ValueError(f"{name} has shape {list(array.shape)}; give {shape}.")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds {int((~np.isfinite(array)).sum())} values that are NaN or infinite.")
    return array


def _in_square(tiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reshapes [N, H, W] to [rows, columns, H, W] with about as many rows as columns; empty places are NaN."""
    columns = int(np.ceil(np.sqrt(len(tiles))))
    rows = -(-len(tiles) // columns)
    padded = np.full((rows * columns, *tiles.shape[1:]), np.nan)
    padded[: len(tiles)] = tiles
    return padded.reshape(rows, columns, *tiles.shape[1:])


def _draw_tiles(tiles: NDArray[np.float64], limits: tuple[float, float], unit: str, title: str) -> Figure:
    picture = mosaic(tiles)
    scale = min(8.0 / max(picture.shape), 0.9 / max(tiles.shape[2], tiles.shape[3]))
    # The colour bar takes 0.09 of the width; the rest is for numbers and labels.
    figure = new_figure(max(picture.shape[1] * scale / 0.91 + 0.9, 4.2), max(picture.shape[0] * scale, 1.0) + 0.8)
    figure.set_layout_engine("compressed")  # leaves room for the labels of axes of fixed aspect
    axes = figure.add_subplot()
    image = axes.imshow(picture, cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="nearest")
    beyond = bool(np.nanmin(picture) < limits[0]), bool(np.nanmax(picture) > limits[1])
    ends = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[beyond]
    bare(axes)
    bar = figure.colorbar(image, ax=axes, label=unit, shrink=0.9, fraction=0.06, pad=0.03, extend=ends)
    bar.formatter = plain_ticks()
    bar.update_ticks()
    figure.suptitle(title)
    return figure
