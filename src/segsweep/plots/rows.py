"""Pictures below each other, each with a name."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from numpy.typing import NDArray

from segsweep.plots.style import bare, new_figure, styled


@styled
def picture_rows(pictures: Sequence[NDArray], names: Sequence[str], *, title: str | None = None) -> Figure:
    """Pictures of one size below each other.

    Args:
        pictures: uint8 [H, W, 3], at least one.
        names: of each, beside it.
        title: above all.

    Raises:
        ValueError: no pictures, or not one name for each.
    """
    if not pictures or len(pictures) != len(names):
        raise ValueError(f"{len(pictures)} pictures and {len(names)} names: give one name for each of at least one")
    height, width = pictures[0].shape[:2]
    figure = new_figure(7.6, 0.4 + len(pictures) * 6.6 * height / width)
    rows = figure.subplots(len(pictures), squeeze=False)[:, 0]
    for axes, picture, name in zip(rows, pictures, names, strict=True):
        axes.imshow(picture)
        bare(axes)
        axes.set_anchor("W")  # where the layout leaves room for the name
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
    if title is not None:
        figure.suptitle(title)
    return figure
