"""Which texture a pixel shows, decided in several ways: from a patch, from the whole image, and by a simple statistic.

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
"""How far from a pixel the mask says something about it, in the model of the mask: 11 x 11 pixels."""


# ---- from a patch alone


def crossing_share(masks: Sequence[Mask], distance: float) -> float:
    """The share of pixels at most `distance` from the border of their mask, 0 to 1.

    Args:
        masks: [H, W] each.
        distance: in pixels, to where the two classes meet.
    """
    # From centre to centre it is half a pixel more.
    return float(np.mean([plots.border_distance(mask) <= distance + 0.5 for mask in masks]))


def line_masks(size: int, extent: float, crossing: float, directions: int, step: float) -> tuple[Mask, Array]:
    """Masks of a window with a straight border or none, and their prior probabilities.

    Args:
        size: of the window, odd.
        extent: the border's distance from the centre is uniform up to here, its direction uniform.
        crossing: the probability of a border so near.
        directions: number of directions, over the full circle.
        step: between distances.

    Returns:
        bool [K, size, size], all different, and float64 [K] that sum to 1.
    """
    across = np.arange(size) - (size - 1) / 2
    angles = np.arange(directions) * 2 * np.pi / directions
    # Half steps: no border runs through the centre of the centre pixel, whose class would be open.
    half = (np.arange(np.ceil(extent / step)) + 0.5) * step
    distances = np.concatenate([-half[::-1], half])
    slopes = np.cos(angles)[:, None, None] * across[:, None] + np.sin(angles)[:, None, None] * across
    lines = (slopes[:, None] + distances[:, None, None] > 0).reshape(-1, size, size)
    plain = np.stack([np.zeros((size, size), bool), np.ones((size, size), bool)])
    prior = np.concatenate([np.full(len(lines), crossing / len(lines)), np.full(2, (1 - crossing) / 2)])
    masks, which = np.unique(np.concatenate([lines, plain]), axis=0, return_inverse=True)
    return masks, np.bincount(which.ravel(), weights=prior).astype(np.float64)


def log_joint(patches: Array, window: Window, masks: Mask, prior: Array) -> Iterator[Array]:
    """The log density of every patch together with a mask, mask by mask, up to a constant of all.

    Args:
        patches: of the undone image, [p², N].
        window: of the patch.
        masks: bool [K, q, q].
        prior: their probabilities, [K].

    Returns:
        K times [N].
    """
    for mask, probability in zip(masks, prior, strict=True):
        factor = np.linalg.cholesky(window.undone(mask))
        white = np.linalg.inv(factor) @ patches
        yield np.log(probability) - np.log(np.diag(factor)).sum() - (white * white).sum(0) / 2


def patch_posterior(scene: Scene, model: Model, rounding: Rounding, patch: int, masks: Mask, prior: Array) -> Array:
    """The probability of texture 1 at every pixel, from the `patch` x `patch` undone pixels around it.

    Exact for an image whose masks are those given, with these probabilities, but for the image's border: pixels near it
    take the nearest whole patch, and all patches the covariances of the middle.

    Args:
        scene: the image.
        model: what is known of it.
        rounding: how exactly it is known.
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
    """Where the 3 x 3 pixels around a pixel, or those without itself, hold both classes: [H, W]."""
    around = np.ones((3, 3), bool)
    around[1, 1] = with_centre
    high, low = (extreme(mask, footprint=around) for extreme in (ndimage.maximum_filter, ndimage.minimum_filter))
    return high != low


def fit_mask_prior(masks: Sequence[Mask], reach: int = PRIOR_REACH) -> Array:
    """A pixel of the mask given the others: the weights of a logistic regression on those around it.

    Fitted to pixels whose neighbours are of both classes; elsewhere the class is hardly ever in doubt.

    Args:
        masks: [H, W] each, of the generator.
        reach: k; the pixels used are (2k + 1)² - 1.

    Returns:
        float64 [2k + 1, 2k + 1], 0 in the centre. The log odds of texture 1 are their sum over the pixels around, each
        times 1 for texture 1, -1 for texture 2 and 0 outside the image.
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
    for _ in range(15):  # Newton; the small ridge keeps the centre at 0 and the rest from running away
        p = special.expit(x @ weights)
        hessian = (x.T * (p * (1 - p))) @ x + np.eye(len(weights))
        weights += np.linalg.solve(hessian, x.T @ (y - p) - weights)
    return weights.reshape((2 * reach + 1,) * 2)


class PixelOdds:
    """The log odds of texture 1 at one pixel, given the mask at all others and the undone pixels in a window around it.

    Exact as the window grows, but for the model of the mask; at the image's border the window is cut off, and the
    covariances are those of the place.

    Args:
        scene: the image.
        model: what is known of it.
        rounding: how exactly it is known.
        window: p, odd.
        prior: of `fit_mask_prior`.
    """

    def __init__(self, scene: Scene, model: Model, rounding: Rounding, window: int, prior: Array) -> None:
        self.undone = from_both_sides(model.undo, scene.smoothed)
        self.model, self.rounding, self.noise = model, rounding, scene.noise
        self.half, self.prior = window // 2, prior
        # Most windows look the same from one sweep to the next.
        self._known: dict[tuple[int, int, bytes], float] = {}

    def __call__(self, mask: NDArray[np.int8], row: int, column: int) -> float:
        """The log odds at a pixel; `mask` is int8 [H, W], and its own value there does not matter."""
        reach = len(self.prior) // 2
        rows, columns = (_clip(place, reach, len(mask)) for place in (row, column))
        weights = self.prior[
            rows.start - row + reach : rows.stop - row + reach,
            columns.start - column + reach : columns.stop - column + reach,
        ]
        return self._image(mask, row, column) + float((weights * (2.0 * mask[rows, columns] - 1)).sum())

    def _image(self, mask: NDArray[np.int8], row: int, column: int) -> float:
        """How much more probable the window is if the pixel shows the first texture, as a logarithm."""
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
    """Of a normal vector [k] with mean 0, up to a constant of k alone.

    Raises:
        numpy.linalg.LinAlgError: the covariance [k, k] is not positive definite.
    """
    factor = np.linalg.cholesky(covariance)
    white = linalg.solve_triangular(factor, values, lower=True, check_finite=False)
    return float(-np.log(np.diag(factor)).sum() - white @ white / 2)


def genie(odds: PixelOdds, mask: Mask) -> Mask:
    """What one decides about each pixel who is told the mask at all others: [H, W].

    Nobody who is told less can be right more often, on average.
    """
    decision, truth = mask.copy(), mask.astype(np.int8)
    for row, column in np.argwhere(mixed(mask)):
        decision[row, column] = odds(truth, row, column) > 0
    return decision


def sample(odds: PixelOdds, start: Mask, sweeps: int, generator: np.random.Generator) -> Array:
    """The probability of texture 1 at every pixel given the whole image: Gibbs sampling of the mask.

    Every sweep draws each pixel next to another class anew, given all others. The probabilities it is drawn by are
    averaged over the sweeps after the first quarter; the first two sweeps take the more probable class instead.

    Args:
        odds: of a pixel given the others.
        start: the first mask, [H, W].
        sweeps: at least 4.
        generator: of the draws.

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

    The two Laplacians take back some of the last filter, and the second texture has next to nothing left of what passes.
    """
    sharp = ndimage.laplace(ndimage.laplace(scene.smoothed))
    # At even sizes the last filter moves the image by half a pixel.
    shift = 0.5 if len(sharp) % 2 == 0 else 0.0
    return ndimage.shift(ndimage.gaussian_filter(sharp**2, width), shift, order=1, mode="nearest")


def best_threshold(values: Array, truth: Mask) -> tuple[float, float]:
    """The threshold above which `values` give the highest IoU with `truth`, both of one shape, and that IoU."""
    order = np.argsort(-values, axis=None)
    hits = np.cumsum(truth.ravel()[order])
    iou = hits / (np.arange(1, len(order) + 1) + truth.sum() - hits)
    best = int(iou.argmax())
    return float(np.nextafter(values.ravel()[order[best]], -np.inf)), float(iou[best])
