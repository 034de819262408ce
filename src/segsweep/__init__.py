"""segsweep trains small image-segmentation networks and compares them honestly."""

__version__ = "0.1.0"
