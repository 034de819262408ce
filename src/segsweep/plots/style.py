"""What all figures share: fonts, colours, line styles, how numbers are written; and a figure as pixels or as a file."""

import os
import uuid
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

STYLE: dict[str, Any] = {
    # DejaVu comes with matplotlib, so a figure looks the same on every machine.
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "figure.titlesize": 11,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
    "image.cmap": "gray",
    "figure.dpi": 100,
    # Names of files, classes and runs are text: a "$" in one is not the start of a formula.
    "text.parse_math": False,
    "svg.hashsalt": "segsweep",
}

LINE_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00", "#882255")
"""Okabe and Ito's colour-blind-safe palette; for its yellow, which vanishes on white, Tol's wine."""

LINE_STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (7, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "<", "*", ">")

GREY = "#767676"
PALE = "#D9D9D9"


styled = matplotlib.style.context(["default", STYLE])
"""A decorator: runs a function under this project's style, whatever the caller's matplotlib settings are."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` by `height` inches that belongs to no backend and is freed with its last reference."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def plain(value: float, digits: int | None = None, *, thousands: bool = False) -> str:
    """A number as a person writes it: 0.001 and 10000, not 1e-03 and 1e+04.

    Args:
        value: any number. Below 1e-7 and from 1e9 on it is written with an exponent, since zeros are hard to count.
        digits: significant digits, trailing zeros kept; None for as many as tell the value apart.
        thousands: separates thousands with a comma.
    """
    value = float(value)
    if not np.isfinite(value):
        return "NaN" if np.isnan(value) else ("∞" if value > 0 else "−∞")
    if value != 0 and not 1e-7 <= abs(value) < 1e9:
        mantissa, exponent = f"{value:.{(digits or 3) - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(exponent)}"
    if digits is None:
        text = np.format_float_positional(float(f"{value:.10g}"), trim="-")
    elif value == 0:
        text = f"{0:.{max(digits - 1, 0)}f}"
    else:
        rounded = float(f"{value:.{digits - 1}e}")
        decimals = max(digits - 1 - int(np.floor(np.log10(abs(rounded)))), 0)
        text = f"{rounded:.{decimals}f}"
    if thousands:
        whole, point, fraction = text.partition(".")
        text = f"{int(whole):,}{point}{fraction}" if abs(value) >= 1000 else text
    return text


def plain_ticks() -> FuncFormatter:
    """Tick labels as `plain` writes numbers."""
    return FuncFormatter(lambda value, _position: plain(value, thousands=True))


def scale_log_y(axes: Axes, values: np.ndarray) -> None:
    """A logarithmic y axis on which several ticks are labelled, however far it reaches.

    Args:
        axes: are changed.
        values: what is drawn, finite; what is not above 0 has no place. Without any that has, the axis stays linear.
    """
    positive = values[values > 0]
    if not len(positive):
        return
    axes.set_yscale("log", nonpositive="mask")
    ratio = positive.max() / positive.min()
    if ratio < 5:  # 1, 2 and 5 may be one
        axes.yaxis.set_major_locator(MaxNLocator(5))
    elif ratio < 1000:  # powers of ten alone would be few
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def shorten(text: str, length: int) -> str:
    """`text` in at most `length` characters; what is left out of the middle is shown as `…`."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def counted(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def bare(axes: Axes) -> None:
    """Takes ticks and frame off axes that show a picture."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def text_color(background: tuple[float, ...]) -> str:
    """Black or white, whichever has the higher contrast on an RGB(A) colour in [0, 1] (WCAG relative luminance)."""
    channels = np.asarray(background[:3], dtype=float)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    return "black" if luminance > 0.179 else "white"


def show_image(axes: Axes, image: NDArray[Any]) -> None:
    """Draws an image in [0, 1] with black at 0 and white at 1, whatever range it fills."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    picture_frame(axes)


def show_colors(axes: Axes, picture: NDArray[Any]) -> None:
    """Draws a picture whose colours mean classes: none is ever blended with its neighbour's."""
    axes.imshow(picture, interpolation="nearest")
    picture_frame(axes)


def picture_frame(axes: Axes) -> None:
    """A thin outline, without which a white picture has no edge on white paper."""
    bare(axes)
    axes.spines[:].set_visible(True)
    axes.spines[:].set(linewidth=0.4, color="black")


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
