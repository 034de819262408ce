"""Pictures: arrays and tables in, a `matplotlib.figure.Figure` out.

No function here touches pyplot, so figures need no display, leave nothing open and are freed like any object. In a
notebook that says `%matplotlib inline`, a Figure at the end of a cell shows itself; elsewhere `save` writes it and
`to_image` gives its pixels.
"""

from segsweep.plots.arrays import class_colors, colorize, drawn_channels
from segsweep.plots.confusion import border_distance, border_errors, confusion, row_shares
from segsweep.plots.curves import curves, loss_curve
from segsweep.plots.heatmap import heatmap, heatmap_cells
from segsweep.plots.network import feature_maps, filters
from segsweep.plots.overlays import contact_sheet, overlay, overlay_panels, overlay_rgba, sheet_selection
from segsweep.plots.samples import ERROR_COLORS, error_map, samples, scored_samples, wrong_share
from segsweep.plots.series import running_mean
from segsweep.plots.style import save, to_image
from segsweep.plots.textures import sigma_study, texture_pair

__all__ = [
    "ERROR_COLORS",
    "border_distance",
    "border_errors",
    "class_colors",
    "colorize",
    "confusion",
    "contact_sheet",
    "curves",
    "drawn_channels",
    "error_map",
    "feature_maps",
    "filters",
    "heatmap",
    "heatmap_cells",
    "loss_curve",
    "overlay",
    "overlay_panels",
    "overlay_rgba",
    "row_shares",
    "running_mean",
    "samples",
    "save",
    "scored_samples",
    "sheet_selection",
    "sigma_study",
    "texture_pair",
    "to_image",
    "wrong_share",
]
