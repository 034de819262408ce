"""Where predictions are wrong: how far from where one class ends and another begins."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from segsweep.plots.arrays import IGNORE, Batch, as_mask
from segsweep.plots.samples import ERROR_COLORS, IGNORED, WRONG, error_map
from segsweep.plots.style import LINE_COLORS, counted, new_figure, styled


def border_distance(mask: ArrayLike, ignore: int | None = IGNORE) -> NDArray[np.float64]:
    """How far each pixel is from the nearest pixel of another class.

    Args:
        mask: class ids [H, W]; pixels of id `ignore` are of no class.
        ignore: None takes every id for a class.

    Returns:
        float64 [H, W], in pixels, from centre to centre: 1 where a pixel above, below, left or right is of another class;
        infinite where the mask has one class alone; NaN where it is ignored.

    Raises:
        ValueError: it is no mask.
    """
    ids = as_mask(mask)
    ignored = np.zeros(ids.shape, dtype=bool) if ignore is None else ids == ignore
    classes = np.unique(ids[~ignored])
    result = np.full(ids.shape, np.nan if len(classes) == 0 else np.inf)
    if len(classes) > 1:
        for value in classes:
            own = ids == value
            # What is ignored is no other class: distances reach through it.
            result[own] = ndimage.distance_transform_edt(own | ignored)[own]
    result[ignored] = np.nan
    return result


@styled
def border_errors(
    masks: Batch,
    predictions: Batch,
    *,
    ignore: int | None = IGNORE,
    max_distance: int = 8,
    title: str | None = None,
) -> Figure:
    """Whether what is wrong lies at the borders of classes: two panels against the distance from the border.

    Left: which share of the pixels at a distance is wrong. Right: which share of all wrong pixels, and of all pixels, is at
    most so far from a border; the rest is farther. Distance k holds what is more than k - 1 and up to k pixels from the
    nearest pixel of another class. Ignored pixels count nowhere; a mask of one class is farther than any distance.

    Args:
        masks: true class ids [N, H, W], or a list of masks of any sizes.
        predictions: predicted class ids, shaped as `masks`.
        ignore: the id that counts for nothing; None if there is none.
        max_distance: the farthest distance drawn, in pixels; what is farther shares the last place.
        title: above both panels; None says how many images and pixels there are.

    Raises:
        ValueError: nothing to draw, lengths or sizes that differ, every pixel ignored, or no distance.
    """
    if max_distance < 1:
        raise ValueError(f"max_distance is {max_distance}; give at least 1.")
    if not 0 < len(masks) == len(predictions):
        raise ValueError(f"there are {len(masks)} masks and {len(predictions)} predictions; give as many, and some.")
    pixels, wrong = np.zeros(max_distance + 1, dtype=np.int64), np.zeros(max_distance + 1, dtype=np.int64)
    for index in range(len(masks)):
        errors = error_map(masks[index], predictions[index], ignore)
        place = np.minimum(np.ceil(border_distance(masks[index], ignore)), max_distance + 1)
        for counts, chosen in ((pixels, errors != IGNORED), (wrong, errors == WRONG)):
            counts += np.bincount(place[chosen].astype(np.int64) - 1, minlength=max_distance + 1)
    if not pixels.sum():
        raise ValueError("every pixel is ignored; there is nothing to draw.")

    places = np.arange(1, max_distance + 2)
    red = tuple(float(channel) / 255 for channel in ERROR_COLORS[WRONG])
    figure = new_figure(9.2, 3.7)
    left, right = figure.subplots(1, 2)
    found = pixels > 0
    shares = 100 * wrong[found] / pixels[found]
    bars = left.bar(places[found], shares, color=red, width=0.7)
    left.bar_label(bars, [_per_cent(share) for share in shares], fontsize=7, padding=1)
    left.set_title("of the pixels at this distance, wrong", loc="left")
    for counts, label, style in (
        (wrong, "of all wrong pixels", {"color": red, "marker": "o"}),
        (pixels, "of all pixels", {"color": LINE_COLORS[0], "marker": "s", "linestyle": "--"}),
    ):
        if counts.sum():
            right.plot(places[:-1], 100 * counts.cumsum()[:-1] / counts.sum(), label=label, markersize=4, **style)
    right.set_title("up to this distance", loc="left")
    right.set_ylim(0, 104)
    right.legend(loc="best")
    left.set_xticks(places, [*map(str, places[:-1]), f"> {max_distance}"])
    right.set_xticks(places[:-1])
    for axes in (left, right):
        axes.set_xlabel("pixels to the nearest pixel of another class")
        axes.set_ylabel("per cent")
        axes.grid(axis="y", color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
    total = f"{counted(len(masks), 'image')}: {wrong.sum():,} of {pixels.sum():,} pixels wrong"
    figure.suptitle(total if title is None else title)
    return figure


def _per_cent(share: float) -> str:
    if share == 0:
        return "0"
    return "<0.01" if share < 0.005 else f"{share:.3g}" if share >= 0.995 else f"{share:.2f}"
