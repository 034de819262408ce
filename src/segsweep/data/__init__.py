"""Sources of samples, and the one DataModule around them."""

from segsweep.data.module import SegmentationData
from segsweep.data.source import Batch, Source
from segsweep.data.textures import Textures, toeplitz_gaussian

SOURCES: dict[str, type[Source]] = {"segsweep.data.Textures": Textures}
"""The sources that a checkpoint may name."""

__all__ = ["SOURCES", "Batch", "SegmentationData", "Source", "Textures", "toeplitz_gaussian"]
