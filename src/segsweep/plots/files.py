"""A figure as an array of pixels, and as a file that is there whole or not at all."""

import os
import uuid
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from segsweep.plots.style import styled


@styled
def to_image(figure: Figure, dpi: float = 100) -> NDArray[np.uint8]:
    """The figure's pixels, uint8 [H, W, 3], as TensorBoard's `add_image(..., dataformats="HWC")` takes them.

    The figure keeps its own resolution and canvas.

    Raises:
        ValueError: `dpi` is not positive.
    """
    _check_dpi(dpi)
    canvas, own_dpi = figure.canvas, figure.dpi
    try:
        figure.set_dpi(dpi)
        agg = FigureCanvasAgg(figure)
        agg.draw()
        return np.asarray(agg.buffer_rgba())[..., :3].copy()
    finally:
        figure.set_dpi(own_dpi)
        figure.set_canvas(canvas)


@styled
def save(figure: Figure, path: str | os.PathLike[str], dpi: float = 150) -> Path:
    """Writes the figure whole or not at all; the suffix of `path` gives the format (png, pdf, svg, ...).

    It is written beside `path` under another name and then renamed, so a reader never sees half a file, and a failure
    leaves what was there before. The same figure gives the same bytes: no date is written.

    Returns:
        The path written.

    Raises:
        ValueError: `dpi` is not positive, or matplotlib knows no such format.
        OSError: the folder is missing, full or not writable.
    """
    _check_dpi(dpi)
    path = Path(path)
    format_name = path.suffix.lstrip(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if format_name not in known:
        raise ValueError(f"{path}: no picture format {format_name!r}; use one of {', '.join(sorted(known))}.")
    metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(format_name)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        figure.savefig(temporary, format=format_name, dpi=dpi, facecolor="white", metadata=metadata)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _check_dpi(dpi: float) -> None:
    if not dpi > 0:
        raise ValueError(f"dpi is {dpi}; give dots per inch above 0.")
