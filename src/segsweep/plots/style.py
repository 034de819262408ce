"""Fonts, colours, line styles and number formats of all figures; saving a figure or reading its pixels."""

import os
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
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
    # A "$" in the name of a file, class or run does not start a formula.
    "text.parse_math": False,
    "svg.hashsalt": "segsweep",
}

LINE_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00", "#882255")
"""Okabe and Ito's colour-blind-safe palette, with Tol's wine instead of its yellow, which is hard to see on white."""

LINE_STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (7, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "<", "*", ">")

GREY = "#767676"
PALE = "#D9D9D9"

styled = matplotlib.style.context(["default", STYLE])
"""Decorator: runs a function under `STYLE`, whatever the caller's matplotlib settings are."""


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure, sizes in inches. No backend holds it, so it is freed with its last reference."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def plain(value: float, digits: int | None = None, *, thousands: bool = False) -> str:
    """Writes a number as a person does: 0.001 and 10000, not 1e-03 and 1e+04.

    Args:
        value: any number. Below 1e-7 and from 1e9 on it gets an exponent, because long rows of zeros are hard to count.
        digits: significant digits, with trailing zeros; None writes up to ten and drops trailing zeros.
        thousands: separate thousands with a comma.
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
    """Formats tick labels with `plain`."""
    return FuncFormatter(lambda value, _position: plain(value, thousands=True))


def scale_log_y(axes: Axes, values: np.ndarray) -> None:
    """Makes the y axis logarithmic and labels several ticks, whatever its range.

    Args:
        axes: changed in place.
        values: every drawn value, finite. Values of 0 or less are not shown; if all are, the axis stays linear.
    """
    positive = values[values > 0]
    if not len(positive):
        return
    axes.set_yscale("log", nonpositive="mask")
    ratio = positive.max() / positive.min()
    if ratio < 5:  # the range may contain only one of 1, 2 and 5
        axes.yaxis.set_major_locator(MaxNLocator(5))
    elif ratio < 1000:  # the range contains too few powers of ten
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def shorten(text: str, length: int) -> str:
    """Cuts `text` to `length` characters by replacing its middle with `…`."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def counted(number: int, noun: str) -> str:
    """Writes `1 run` or `2 runs`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def bare(axes: Axes) -> None:
    """Removes ticks and frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def text_color(background: tuple[float, ...]) -> str:
    """Returns "black" or "white": the higher contrast (WCAG relative luminance) on an RGB(A) colour in [0, 1]."""
    channels = np.asarray(background[:3], dtype=float)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    return "black" if luminance > 0.179 else "white"


def matrix_axes(axes: Axes, rows: Sequence[str], columns: Sequence[str], fontsize: float = 8) -> None:
    """Prepares axes for a table: the cell (row, column) is the unit square around x = column, y = row, row 0 on top."""
    bare(axes)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks(range(len(columns)), columns, fontsize=fontsize)
    axes.set_yticks(range(len(rows)), rows, fontsize=fontsize)
    axes.tick_params(length=0)


def hatched_cells(axes: Axes, row: int, column: int, number: int, text: str, fontsize: float) -> None:
    """Hatches `number` cells of a row from `column` on, which have no value, and writes why in their middle."""
    corner = (column - 0.5, row - 0.5)
    axes.add_patch(Rectangle(corner, number, 1, facecolor=PALE, edgecolor=GREY, hatch="////", linewidth=0))
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    middle = column + (number - 1) / 2
    axes.text(middle, row, text, ha="center", va="center", in_layout=False, fontsize=fontsize, bbox=box)


def horizontal_grid(axes: Axes) -> None:
    """Draws pale horizontal lines behind the data."""
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)


def show_image(axes: Axes, image: NDArray[Any]) -> None:
    """Draws an image in [0, 1] with 0 as black and 1 as white, whatever range its values fill."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    outline(axes)


def show_colors(axes: Axes, picture: NDArray[Any]) -> None:
    """Draws a picture of class colours without blending neighbouring pixels."""
    axes.imshow(picture, interpolation="nearest")
    outline(axes)


def outline(axes: Axes) -> None:
    """Replaces the frame by a thin outline, without which a white picture has no visible edge on white paper."""
    bare(axes)
    axes.spines[:].set_visible(True)
    axes.spines[:].set(linewidth=0.4, color="black")


@styled
def to_image(figure: Figure, dpi: float = 100) -> NDArray[np.uint8]:
    """Renders a figure to pixels, uint8 [H, W, 3], for TensorBoard's `add_image(..., dataformats="HWC")`.

    The figure keeps its resolution and canvas.

    Raises:
        ValueError: `dpi` is not positive.
    """
    if not dpi > 0:
        raise ValueError(f"dpi is {dpi}; give dots per inch above 0.")
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
    """Writes a figure in the format that the suffix of `path` names (png, pdf, svg, ...), whole or not at all.

    The figure is written to a temporary file beside `path`, which is then renamed: a reader never sees half a file, and
    if writing fails the old file stays. No date is written, so the same figure gives the same bytes.

    Returns:
        The path written.

    Raises:
        ValueError: `dpi` is not positive, or matplotlib does not know the format.
        OSError: the folder is missing, full or not writable.
    """
    if not dpi > 0:
        raise ValueError(f"dpi is {dpi}; give dots per inch above 0.")
    path = Path(path)
    format_name = path.suffix.lstrip(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if format_name not in known:
        raise ValueError(f"{path}: no picture format {format_name!r}; use one of {', '.join(sorted(known))}.")
    metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(format_name)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with warnings.catch_warnings():  # letters that the font lacks are drawn as boxes
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
            figure.savefig(temporary, format=format_name, dpi=dpi, facecolor="white", metadata=metadata)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
