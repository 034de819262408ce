"""A folder of which every pair is scored, however it would be divided for a training."""

import functools

from segsweep.data.folder import FolderSource
from segsweep.data.pairs import find_pairs
from segsweep.data.splits import Splits


class EveryPair(FolderSource):
    """A folder whose test split is all of it; for scoring only."""

    @functools.cached_property
    def splits(self) -> Splits:
        return Splits((), (), find_pairs(self.root, self.layout), (), "every pair")
