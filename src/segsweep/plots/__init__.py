"""Pictures: arrays and tables in, a `matplotlib.figure.Figure` out.

No function uses pyplot, so figures need no display and are freed like any object. After `%matplotlib inline`, a notebook
shows a Figure at the end of a cell; elsewhere `save` writes it and `to_image` gives its pixels.

Arguments that many functions share:
    colors: the classes' colours by id, as RGB, names or hex strings; None takes the colour-blind-safe `class_colors`.
    class_names: the classes' names by id, for the legend of the classes that occur; None numbers them.
    background: the class that overlays leave clear; None paints every class.
    ignore: the id of pixels that belong to no class; overlays leave them clear, masks show them grey, and they are
        neither right nor wrong. None if every id is a class.
"""

from segsweep.plots.arrays import class_colors, drawn_channels, mask_to_rgb
from segsweep.plots.confusion import border_distance, border_errors, confusion, confusion_thumbnail, row_shares
from segsweep.plots.curves import curves, loss_curve
from segsweep.plots.heatmap import heatmap, heatmap_cells
from segsweep.plots.network import feature_maps, filters
from segsweep.plots.overlays import contact_sheet, overlay, overlay_panels
from segsweep.plots.samples import ERROR_COLORS, error_map, samples, scored_samples, wrong_share
from segsweep.plots.series import running_mean
from segsweep.plots.style import save, to_image
from segsweep.plots.textures import sigma_study, texture_pair

__all__ = [
    "ERROR_COLORS",
    "border_distance",
    "border_errors",
    "class_colors",
    "confusion",
    "confusion_thumbnail",
    "contact_sheet",
    "curves",
    "drawn_channels",
    "error_map",
    "feature_maps",
    "filters",
    "heatmap",
    "heatmap_cells",
    "loss_curve",
    "mask_to_rgb",
    "overlay",
    "overlay_panels",
    "row_shares",
    "running_mean",
    "samples",
    "save",
    "scored_samples",
    "sigma_study",
    "texture_pair",
    "to_image",
    "wrong_share",
]
