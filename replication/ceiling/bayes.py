"""Decides which texture a pixel shows: from a patch, from the whole image, or by a simple statistic.

Shapes and lengths as in `texture_model`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import linalg, ndimage, special

from replication.ceiling.texture_model import Array, Mask, Model, Rounding, Scene, Window, from_both_sides
from segsweep import plots

PRIOR_REACH = 5
"""Reach of the mask prior: a pixel depends on the 11 x 11 pixels around it."""


# ---- from a patch alone


def crossing_share(masks: Sequence[Mask], distance: float) -> float:
    """The share of pixels, 0 to 1, at most `distance` from the border of their mask.

    Args:
        masks: [H, W] each.
        distance: pixels from the pixel's centre to the edge between the two classes.
    """
    # border_distance measures between pixel centres: half a pixel more.
    return float(np.mean([plots.border_distance(mask) <= distance + 0.5 for mask in masks]))


def line_masks(size: int, extent: float, crossing: float, directions: int, step: float) -> tuple[Mask, Array]:
    """Masks of a window with one straight border or none, and their prior probabilities.

    Args:
        size: size of the window, odd.
        extent: the border's distance from the centre is uniform from 0 to this; its direction is uniform.
        crossing: probability of a border within `extent`.
        directions: number of directions over the full circle.
        step: step between distances.

    Returns:
        bool [K, size, size], all different, and float64 [K] that sum to 1.
    """
    across = np.arange(size) - (size - 1) / 2
    angles = np.arange(directions) * 2 * np.pi / directions
    # Half steps: a border through the middle of the centre pixel would leave its class undefined.
    half = (np.arange(np.ceil(extent / step)) + 0.5) * step
    distances = np.concatenate([-half[::-1], half])
    slopes = np.cos(angles)[:, None, None] * across[:, None] + np.sin(angles)[:, None, None] * across
    lines = (slopes[:, None] + distances[:, None, None] > 0).reshape(-1, size, size)
    plain = np.stack([np.zeros((size, size), bool), np.ones((size, size), bool)])
    prior = np.concatenate([np.full(len(lines), crossing / len(lines)), np.full(2, (1 - crossing) / 2)])
    masks, which = np.unique(np.concatenate([lines, plain]), axis=0, return_inverse=True)
    return masks, np.bincount(which.ravel(), weights=prior).astype(np.float64)


def log_joint(patches: Array, window: Window, masks: Mask, prior: Array) -> Iterator[Array]:
    """Yields for each mask the joint log density [N] of all patches with that mask, up to a common constant.

    Args:
        patches: patches of the undone image, [p², N].
        window: covariances of the patch.
        masks: bool [K, q, q].
        prior: probabilities of the masks, [K].
    """
    for mask, probability in zip(masks, prior, strict=True):
        factor = np.linalg.cholesky(window.undone(mask))
        white = np.linalg.inv(factor) @ patches
        yield np.log(probability) - np.log(np.diag(factor)).sum() - (white * white).sum(0) / 2


def patch_posterior(scene: Scene, model: Model, rounding: Rounding, patch: int, masks: Mask, prior: Array) -> Array:
    """The probability of texture 1 at every pixel, from the `patch` x `patch` undone pixels around it.

    Exact if the true mask of a window is one of `masks` with these probabilities, except near the image's border: pixels
    there use the nearest whole patch, and all patches use the covariances of the middle.

    Args:
        scene: the image.
        model: covariances of every image.
        rounding: rounding of the image.
        patch: p, odd.
        masks: bool [K, q, q] with q = p + 2 reach.
        prior: float64 [K].

    Returns:
        float64 [H, W].
    """
    undone = from_both_sides(model.undo, scene.smoothed)
    size = len(undone)
    start = (size - patch) // 2
    middle = slice(start, start + patch)
    window = model.window(middle, middle, rounding.reach, scene.noise)
    patches = np.ascontiguousarray(sliding_window_view(undone, (patch, patch)).reshape(-1, patch**2).T)
    corner = np.clip(np.arange(size) - patch // 2, 0, size - patch)
    inside = np.arange(size) - corner + rounding.reach
    own_patch = np.add.outer(corner * (size - patch + 1), corner)
    evidence = np.full((2, size, size), -np.inf)
    for mask, joint in zip(masks, log_joint(patches, window, masks, prior), strict=True):
        label = mask[np.ix_(inside, inside)]
        for value in (False, True):
            found = np.where(label == value, joint[own_patch], -np.inf)
            evidence[int(value)] = np.logaddexp(evidence[int(value)], found)
    return special.expit(evidence[1] - evidence[0])


# ---- from the whole image


def mixed(mask: NDArray[Any], with_centre: bool = True) -> Mask:
    """Where the 3 x 3 pixels around a pixel, with or without its own, hold both classes: [H, W]."""
    around = np.ones((3, 3), bool)
    around[1, 1] = with_centre
    high, low = (extreme(mask, footprint=around) for extreme in (ndimage.maximum_filter, ndimage.minimum_filter))
    return high != low


def fit_mask_prior(masks: Sequence[Mask], reach: int = PRIOR_REACH) -> Array:
    """Fits the mask prior: a logistic regression of a pixel on the pixels around it.

    Fits only pixels next to both classes; elsewhere the class is hardly ever in doubt.

    Args:
        masks: [H, W] each, from the generator.
        reach: k; the regression uses (2k + 1)² - 1 pixels.

    Returns:
        Weights, float64 [2k + 1, 2k + 1], 0 in the centre. The log odds of texture 1 are the weights summed over the pixels
        around, each times 1 for texture 1, -1 for texture 2 and 0 outside the image.
    """
    inputs, labels = [], []
    for mask in masks:
        signs = np.pad(np.where(mask, 1.0, -1.0), reach)
        chosen = mixed(mask, with_centre=False)
        inputs.append(sliding_window_view(signs, (2 * reach + 1,) * 2)[chosen].reshape(-1, (2 * reach + 1) ** 2))
        labels.append(mask[chosen])
    x, y = np.concatenate(inputs), np.concatenate(labels)
    x[:, x.shape[1] // 2] = 0
    weights = np.zeros(x.shape[1])
    for _ in range(15):  # Newton's method; the ridge keeps the centre at 0 and the other weights bounded
        p = special.expit(x @ weights)
        hessian = (x.T * (p * (1 - p))) @ x + np.eye(len(weights))
        weights += np.linalg.solve(hessian, x.T @ (y - p) - weights)
    return weights.reshape((2 * reach + 1,) * 2)


class PixelOdds:
    """The log odds of texture 1 at a pixel, given the mask at all other pixels and the undone pixels in a window.

    Becomes exact as the window grows, except for the mask prior. At the image's border the window is cut off and its
    covariances are those of that place.

    Args:
        scene: the image.
        model: covariances of every image.
        rounding: rounding of the image.
        window: p, odd.
        prior: weights from `fit_mask_prior`.
    """

    def __init__(self, scene: Scene, model: Model, rounding: Rounding, window: int, prior: Array) -> None:
        self.undone = from_both_sides(model.undo, scene.smoothed)
        self.model, self.rounding, self.noise = model, rounding, scene.noise
        self.half, self.prior = window // 2, prior
        # A cache: most windows do not change from one sweep to the next.
        self._known: dict[tuple[int, int, bytes], float] = {}

    def __call__(self, mask: NDArray[np.int8], row: int, column: int) -> float:
        """The log odds at a pixel of `mask`, int8 [H, W]; the pixel's own value is ignored."""
        reach = len(self.prior) // 2
        rows, columns = (_clip(place, reach, len(mask)) for place in (row, column))
        weights = self.prior[
            rows.start - row + reach : rows.stop - row + reach,
            columns.start - column + reach : columns.stop - column + reach,
        ]
        return self._image(mask, row, column) + float((weights * (2.0 * mask[rows, columns] - 1)).sum())

    def _image(self, mask: NDArray[np.int8], row: int, column: int) -> float:
        """The log likelihood ratio of the window: the pixel shows texture 1, or texture 2."""
        rows, columns = (_clip(place, self.half, len(mask)) for place in (row, column))
        reach = self.rounding.reach
        near = mask[_clip(row, self.half + reach, len(mask)), _clip(column, self.half + reach, len(mask))].copy()
        at = (min(row, self.half + reach), min(column, self.half + reach))
        near[at] = 0
        key = (row, column, near.tobytes())
        if key not in self._known:
            window = self.model.window(rows, columns, reach, self.noise)
            place, others = at[0] * near.shape[1] + at[1], near == 1
            covariance, values = window.undone(others), self.undone[rows, columns].ravel()
            ratio = log_density(values, covariance + window.change(others, place)) - log_density(values, covariance)
            self._known[key] = ratio
        return self._known[key]


def _clip(place: int, reach: int, size: int) -> slice:
    return slice(max(0, place - reach), min(size, place + reach + 1))


def log_density(values: Array, covariance: Array) -> float:
    """The log density of a normal vector [k] with mean 0, up to a constant that depends only on k.

    Raises:
        numpy.linalg.LinAlgError: the covariance [k, k] is not positive definite.
    """
    factor = np.linalg.cholesky(covariance)
    white = linalg.solve_triangular(factor, values, lower=True, check_finite=False)
    return float(-np.log(np.diag(factor)).sum() - white @ white / 2)


def genie(odds: PixelOdds, mask: Mask) -> Mask:
    """Decides each pixel given the true mask at all other pixels: [H, W].

    On average no method that knows less can be right more often.
    """
    decision, truth = mask.copy(), mask.astype(np.int8)
    for row, column in np.argwhere(mixed(mask)):
        decision[row, column] = odds(truth, row, column) > 0
    return decision


def sample(odds: PixelOdds, start: Mask, sweeps: int, generator: np.random.Generator) -> Array:
    """The probability of texture 1 at every pixel given the whole image, by Gibbs sampling of the mask.

    Each sweep redraws the pixels next to another class, given all others; the first two sweeps take the more probable
    class instead. The result averages the probabilities over all sweeps but the first quarter.

    Args:
        odds: log odds of a pixel given the others.
        start: the first mask, [H, W].
        sweeps: at least 4.
        generator: random generator of the draws.

    Returns:
        float64 [H, W].
    """
    mask = start.astype(np.int8)
    total = np.zeros(mask.shape)
    for sweep in range(sweeps):
        probability = mask.astype(float)
        for row, column in np.argwhere(mixed(mask)):
            probability[row, column] = special.expit(odds(mask, row, column))
            mask[row, column] = probability[row, column] > (0.5 if sweep < 2 else generator.random())
        if sweep >= sweeps // 4:
            total += probability
    return total / (sweeps - sweeps // 4)


# ---- a simple statistic


def local_energy(scene: Scene, width: float) -> Array:
    """Mean square of the image after two Laplacians, under a Gaussian window of `width`: [H, W].

    The Laplacians undo part of the last filter; the second texture has almost no energy left at the frequencies they pass.
    """
    sharp = ndimage.laplace(ndimage.laplace(scene.smoothed))
    # At even sizes the last filter shifts the image by half a pixel.
    shift = 0.5 if len(sharp) % 2 == 0 else 0.0
    return ndimage.shift(ndimage.gaussian_filter(sharp**2, width), shift, order=1, mode="nearest")


def best_threshold(values: Array, truth: Mask) -> tuple[float, float]:
    """The threshold on `values` with the highest IoU with `truth`, of the same shape, and that IoU."""
    order = np.argsort(-values, axis=None)
    hits = np.cumsum(truth.ravel()[order])
    iou = hits / (np.arange(1, len(order) + 1) + truth.sum() - hits)
    best = int(iou.argmax())
    return float(np.nextafter(values.ravel()[order[best]], -np.inf)), float(iou[best])
