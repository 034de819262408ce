"""The texture notebook's study of the widths: which pairs of textures are hard to tell apart, and its conclusions tested.

Source: texture notebook (docs/sources.md), section 3.2.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from replication import ROOT
from replication.ceiling.texture_model import Array, Mask, Scene
from replication.intervals import spread
from replication.page_parts import table
from replication.verdicts import Verdict, judge_pairs
from segsweep import plots
from segsweep.data import Textures
from segsweep.gaussian_filter import toeplitz_gaussian

FIGURE = ROOT / "docs/images/sigma_study.png"
SIGMA = 15
"""Width of the border."""
FIRST, APART = (0.2, 1, 5, 10), (0.2, 1)
"""σ₁, and how much larger σ₂ is."""
PAIRS: tuple[tuple[float, float], ...] = tuple((first, round(first + more, 1)) for first in FIRST for more in APART)
IMAGES = 32
PATCH, MARGIN = 5, 4
"""Pixels a side of a patch, few because larger ones tell most pairs apart without an error; and pixels between it and the
other texture, because the last filter mixes both."""
MEASURES = ("texture", "edge")

Bases = Mapping[int, tuple[Array, Array]]
"""Variances [p] and directions [p, p] of p pixels in a row that begin at a place, by that place."""


def name_of(pair: Sequence[float]) -> str:
    return "({:g}, {:g})".format(*pair)


def measure_widths(images: int = IMAGES) -> dict[str, list[float]]:
    """Measures all pairs on the first test images: the same noise and the same masks for every pair.

    Returns:
        `told_apart` and `edge` by "pair: texture" and "pair: edge", a number for each image.
    """
    found: dict[str, list[float]] = {}
    for pair in PAIRS:
        source = Textures(sigma1=pair[0], sigma2=pair[1], sigma=SIGMA)
        scenes = [Scene.of(source, index, "8bit") for index in range(images)]
        bases = texture_bases(source, 1), texture_bases(source, 2)
        found[f"{name_of(pair)}: texture"] = [round(told_apart(scene, *bases), 6) for scene in scenes]
        found[f"{name_of(pair)}: edge"] = [round(edge(scene.image, scene.mask), 6) for scene in scenes]
    return found


def texture_bases(source: Textures, texture: int) -> Bases:
    """Uncorrelated directions of texture 1 or 2 of a source, after the last filter, for every place of a patch."""
    matrices = (toeplitz_gaussian(source.image_size, sigma) for sigma in (source.smoothing, source.sigmas[texture][0]))
    last, own = (matrix.double().numpy() for matrix in matrices)
    covariance = (last @ own) @ (last @ own).T  # along one axis; in two dimensions the Kronecker square
    places = range(MARGIN, source.image_size - PATCH - MARGIN + 1, PATCH)
    return {at: np.linalg.eigh(covariance[at : at + PATCH, at : at + PATCH]) for at in places}


def told_apart(scene: Scene, first: Bases, second: Bases) -> float:
    """How often Bayes' rule says which of two patches of an image shows texture 1, if the other one shows texture 2.

    0.5 is guessing. The rule compares how much likelier each patch is in texture 1 than in texture 2. It knows the widths
    and the image's scale and offset, so no method that sees only the two patches is right more often, up to one
    approximation: rounding counts as normal and white.

    Args:
        scene: an image, rounded as the picture that a reader judges.
        first, second: `texture_bases` of both textures.

    Raises:
        ValueError: the image has no whole patch of one of the textures.
    """
    ratios: dict[bool, list[float]] = {True: [], False: []}
    for row in first:
        for column in first:
            rows, columns = slice(row, row + PATCH), slice(column, column + PATCH)
            near = scene.mask[row - MARGIN : rows.stop + MARGIN, column - MARGIN : columns.stop + MARGIN]
            if near.all() or not near.any():
                patch = scene.smoothed[rows, columns]
                one, other = (log_density(patch, each[row], each[column], scene.noise) for each in (first, second))
                ratios[bool(near.all())].append(one - other)
    if not all(ratios.values()):
        raise ValueError("a texture has no whole patch in this image")
    lead = np.subtract.outer(ratios[True], ratios[False])
    return float((lead > 0).mean() + (lead == 0).mean() / 2)


def log_density(patch: Array, rows: tuple[Array, Array], columns: tuple[Array, Array], noise: float) -> float:
    """Logarithm of a texture's density of a patch [p, p], up to a constant; `noise` is the deviation of the rounding."""
    (row_variances, row_directions), (column_variances, column_directions) = rows, columns
    variances = np.outer(row_variances, column_variances) + noise**2
    squares = (row_directions.T @ patch @ column_directions) ** 2
    return float(-(squares / variances + np.log(variances)).sum() / 2)


def edge(image: Array, mask: Mask) -> float:
    """Mean step between neighbours in the rows of [H, W] across the border, divided by the mean step elsewhere."""
    step, across = np.abs(np.diff(image)), mask[:, 1:] != mask[:, :-1]
    return float(step[across].mean() / step[~across].mean())


CLAIMS = {
    "pairs of widths further from σ are harder to tell apart (3.2)": [
        ((far, round(far + more, 1)), (near, round(near + more, 1))) for more in APART for far, near in pairwise(FIRST)
    ],
    "widths further from each other are harder to tell apart (3.2)": [
        ((first, round(first + APART[1], 1)), (first, round(first + APART[0], 1))) for first in FIRST
    ],
}
"""Comparisons by conclusion: the pair that is called harder, and the one that is called easier."""


def widths_verdicts(results: Mapping[str, Any]) -> list[tuple[str, str, Verdict]]:
    """Conclusion, measure and answer, for each conclusion by each measure."""
    found = []
    for text, comparisons in CLAIMS.items():
        names = [(name_of(harder), name_of(easier)) for harder, easier in comparisons]
        for measure in MEASURES:
            verdict = Verdict("cannot be told", 0, "not measured yet")
            if widths := results.get("widths"):
                difficulty = {name_of(pair): -np.array(widths[f"{name_of(pair)}: {measure}"]) for pair in PAIRS}
                verdict = judge_pairs(names, difficulty, "harder")
            found.append((text, measure, verdict))
    return found


def widths_table(results: Mapping[str, Any]) -> list[str]:
    """The lines of the table of `measure_widths`; none if it has not been measured."""
    if "widths" not in results:
        return []
    found = {key: spread(dict(enumerate(each))) for key, each in results["widths"].items()}
    rows = [
        [*(f"{width:g}" for width in pair), *(found[f"{name_of(pair)}: {measure}"] for measure in MEASURES)]
        for pair in PAIRS
    ]
    return table(["σ₁", "σ₂", *MEASURES], rows)


def draw_widths(path: Path) -> Path:
    """Draws one mask and one noise under the eight pairs."""
    samples = [Textures(sigma1=first, sigma2=second, sigma=SIGMA).make([0], "val") for first, second in PAIRS]
    images, (_, masks) = torch.cat([image for image, _ in samples]), samples[0]
    return plots.save(plots.sigma_study(images, *zip(*PAIRS, strict=True), mask=masks[0]), path)
