"""Sources of samples: made on the fly, or read from files."""

from segsweep.data.check import check_folder
from segsweep.data.demo import DemoFolder
from segsweep.data.folder import FolderSource
from segsweep.data.source import Batch, Source, sample_seed
from segsweep.data.textures import Textures
from segsweep.gaussian_filter import toeplitz_gaussian

SOURCES: dict[str, type[Source]] = {
    f"segsweep.data.{source.__name__}": source for source in (Textures, FolderSource, DemoFolder)
}
"""The sources that a checkpoint may name."""

__all__ = [
    "SOURCES",
    "Batch",
    "DemoFolder",
    "FolderSource",
    "Source",
    "Textures",
    "check_folder",
    "sample_seed",
    "toeplitz_gaussian",
]
