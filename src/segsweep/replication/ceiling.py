"""How well the textures can be told apart at all, when their widths are known: `python -m segsweep.replication.ceiling`.

The best IoU of any method lies between two figures. Below it: decisions made by Bayes' rule from the image. Above it: the
decision about a pixel by one who is told the mask at all other pixels. What is exact and what is not: docs/ceiling.md.

All start from the composite, the image before its last filter. That filter, a matrix from both sides, is known and can be
undone, and given the mask the composite is simple: two Gaussian fields, independent of each other, side by side. Scale and
offset of the image are told, which can only raise the figures.

Shapes: H = W = `source.image_size`; a window has p x p pixels of the undone image, which depend on q x q of the composite.
Lengths in pixels.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import linalg, ndimage, special

from segsweep import plots
from segsweep.data.seeds import sample_seed
from segsweep.data.textures import TEXTURE_LABELS, Textures, toeplitz_gaussian
from segsweep.tasks.metrics import class_iou, confusion_per_image

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

MARGIN = 8
"""Pixels nearer than this to the image's border are left out of the interior's scores."""

BINS = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)
"""Between these probabilities the calibration is counted."""

PRIOR_REACH = 5
"""How far from a pixel the mask says something about it, in the model of the mask: 11 x 11 pixels."""


@dataclass(frozen=True)
class Rounding:
    """How exactly an image is known.

    Attributes:
        noise: standard deviation of the rounding, as a share of the image's range.
        ridge: what is added to the last filter's singular values to undo it, in squares; 0 undoes it exactly.
        reach: how far from a pixel the undone image is taken to depend on the composite.
        patches: sizes p for `patch_posterior`; the last is where `sample` starts.
        windows: sizes p for `sample` and `genie`.
        directions, step: how finely `line_masks` lists borders. In float32 masks that differ in one pixel are told apart.
    """

    noise: float
    ridge: float
    reach: int
    patches: tuple[int, ...]
    windows: tuple[int, ...]
    directions: int
    step: float


ROUNDINGS = {
    "float32": Rounding(3e-8, 0.0, 0, (3, 5, 7), (3, 5, 7, 11), 128, 0.1),
    # Less ridge, more noise and a longer reach; from 0.02 to 0.05 nothing changes.
    "8bit": Rounding(1 / 255 / 12**0.5, 0.03, 4, (3, 5, 7), (5, 7), 32, 0.25),
}


@dataclass(frozen=True)
class Model:
    """What is known of every image: matrices [H, H] that act on rows and on columns alike.

    Attributes:
        undo: undoes the last filter, as far as the rounding allows.
        response: `undo` after the last filter; the identity where it is undone exactly.
        noise: covariance of white noise of variance 1 after `undo`, along one axis.
        textures: covariances of the first and the second texture along one axis. Those in two dimensions are Kronecker
            squares, at the image's border too.
    """

    undo: Array
    response: Array
    noise: Array
    textures: tuple[Array, Array]

    @classmethod
    def of(cls, source: Textures, rounding: Rounding) -> "Model":
        last = _filter(source, source.smoothing)
        left, values, right = np.linalg.svd(last)
        undo = right.T @ np.diag(values / (values**2 + rounding.ridge**2)) @ left.T
        first, second = (_filter(source, source.sigmas[field][0]) for field in (1, 2))
        return cls(undo, undo @ last, undo @ undo.T, (first @ first.T, second @ second.T))

    def window(self, rows: slice, columns: slice, reach: int, noise: float) -> "Window":
        """What is known of the pixels in these rows and columns; `noise` is the rounding's standard deviation."""
        near_rows, near_columns = (
            slice(max(0, part.start - reach), min(len(self.undo), part.stop + reach)) for part in (rows, columns)
        )
        first, second = (
            _kron(texture[near_rows, near_rows], texture[near_columns, near_columns]) for texture in self.textures
        )
        return Window(
            # Undone exactly, it is the identity but for what is left of 1e-10.
            _kron(self.response[rows, near_rows], self.response[columns, near_columns]) if reach else None,
            first,
            second,
            _kron(noise**2 * self.noise[rows, rows], self.noise[columns, columns]),
        )


@dataclass(frozen=True)
class Window:
    """Covariances in a window.

    Attributes:
        response: of its pixels [p²] to the composite [q²], [p², q²]; None for the identity.
        first, second: covariances of the two textures, [q², q²].
        noise: covariance of the rounding, [p², p²].
    """

    response: Array | None
    first: Array
    second: Array
    noise: Array

    def composite(self, mask: Mask) -> Array:
        """Covariance [q², q²] of the composite given the mask of its pixels."""
        inside = mask.ravel()
        return np.where(np.equal.outer(inside, inside), np.where(inside, self.first, self.second), 0)

    def undone(self, mask: Mask) -> Array:
        """Covariance [p², p²] of the undone pixels given the mask of those they depend on."""
        composite = self.composite(mask)
        if self.response is not None:
            composite = self.response @ composite @ self.response.T
        return composite + self.noise

    def change(self, mask: Mask, place: int) -> Array:
        """What `undone` grows by when pixel `place` of the mask, which shows the second texture, shows the first."""
        # One row and one column of the composite's covariance change.
        column = np.where(mask.ravel(), self.first[place], -self.second[place])
        column[place] = (self.first[place, place] - self.second[place, place]) / 2
        unit = np.zeros(len(column))
        unit[place] = 1
        if self.response is not None:
            column, unit = self.response @ column, self.response[:, place]
        cross = np.outer(unit, column)
        return cross + cross.T


def _kron(first: Array, second: Array) -> Array:
    return np.asarray(np.kron(first, second), dtype=np.float64)


def _filter(source: Textures, sigma: float) -> Array:
    """The generator's own float32 taps."""
    return toeplitz_gaussian(source.image_size, sigma).double().numpy() if sigma else np.eye(source.image_size)


@dataclass(frozen=True)
class Scene:
    """A test image as the generator made it.

    Attributes:
        image: as published, [H, W] in [0, 1], rounded.
        smoothed: the same before minimum and maximum became 0 and 1, [H, W]: scale and offset are told.
        mask: True where the first texture is, [H, W].
        noise: standard deviation of the rounding of `smoothed`.
    """

    image: Array
    smoothed: Array
    mask: Mask
    noise: float

    @classmethod
    def of(cls, source: Textures, index: int, rounding: str, scale_error: float = 0.0) -> "Scene":
        """Test image `index`; its scale is told wrong by the share `scale_error`.

        Raises:
            ValueError: a width is a range.
        """
        if any(low != high for low, high in source.sigmas):
            raise ValueError("sigma, sigma1 and sigma2 must be numbers: the ceiling is that of known widths")
        images, masks = source.make([index], "test")
        image, mask = images[0, 0].double().numpy(), masks[0].numpy() == 1
        if rounding == "8bit":
            image = np.round(image * 255) / 255
        # The generator gives no scale: the same noise once more, in float64.
        draw = torch.Generator("cpu").manual_seed(sample_seed(source.eval_seed, "test", index))
        noise = torch.empty(3, *mask.shape).normal_(generator=draw).double().numpy()
        first, second = (_both(_filter(source, source.sigmas[field][0]), noise[field]) for field in (1, 2))
        exact = _both(_filter(source, source.smoothing), np.where(mask, first, second))
        low, extent = exact.min(), np.ptp(exact)
        return cls(image, (image * extent + low) * (1 + scale_error), mask, float(ROUNDINGS[rounding].noise * extent))


def _both(matrix: Array, field: Array) -> Array:
    return matrix @ field @ matrix.T


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
    undone = _both(model.undo, scene.smoothed)
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
        self.undone = _both(model.undo, scene.smoothed)
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


# ---- scores


def scores(decisions: Sequence[Mask], masks: Sequence[Mask]) -> dict[str, float]:
    """Of all pixels of all images [H, W]: IoU of texture 1 as the project counts it, and where the errors are.

    Returns:
        `iou`, `accuracy`, `iou_interior` without the outer `MARGIN` pixels, and `wrong_at_border`, the share of the wrong
        pixels that touch the other class; NaN where nothing is wrong.
    """
    guess, truth = (torch.from_numpy(np.stack(list(part)).astype(np.int64)) for part in (decisions, masks))
    inner = slice(MARGIN, -MARGIN)
    confusion, interior = (
        confusion_per_image(guess[:, part, part], truth[:, part, part], 2).sum(0) for part in (slice(None), inner)
    )
    wrong = (guess != truth).numpy()
    touching = np.stack([plots.border_distance(mask) <= 1 for mask in masks])
    return {
        "iou": float(class_iou(confusion)[1]),
        "accuracy": float(confusion.diagonal().sum() / confusion.sum()),
        "iou_interior": float(class_iou(interior)[1]),
        "wrong_at_border": float((wrong & touching).sum() / wrong.sum()) if wrong.any() else float("nan"),
    }


def calibration(probability: Array, truth: Mask) -> list[dict[str, float]]:
    """How often texture 1 is where it has a probability between two of `BINS`.

    Returns:
        A row a bin that is not empty: `mean` probability, `share` of the pixels that show texture 1, their number `pixels`.
    """
    place = np.clip(np.digitize(probability, BINS) - 1, 0, len(BINS) - 2)
    return [
        {
            "mean": float(probability[place == number].mean()),
            "share": float(truth[place == number].mean()),
            "pixels": int((place == number).sum()),
        }
        for number in range(len(BINS) - 1)
        if (place == number).any()
    ]


def generator_lines(rounding: Rounding, masks: Sequence[Mask], patch: int) -> tuple[Mask, Array]:
    """`line_masks` for a patch, borders as frequent as in `masks`."""
    extent = patch / 2**0.5 + 0.5
    return line_masks(
        patch + 2 * rounding.reach, extent, crossing_share(masks, extent), rounding.directions, rounding.step
    )


def known_masks(source: Textures) -> list[Mask]:
    """Masks from which the prior is learnt: of the training split, so that no test mask helps."""
    return [mask.numpy() == 1 for mask in source.make(range(256), "train")[1]]


def evaluate(
    source: Textures, name: str, rounding: Rounding, images: int, sweeps: int, scale_error: float = 0.0
) -> list[dict[str, Any]]:
    """Scores of every method on the first test images: a dict a row of the table.

    Args:
        source: its widths must be numbers.
        name: of the rounding, a key of `ROUNDINGS`.
        rounding: with the patches and windows to try.
        images: N.
        sweeps: of `sample`.
        scale_error: by what share the scale that is told is wrong.

    Returns:
        `rounding`, `method`, `pixels` (p, or the width of the energy's window), what `scores` gives, and `calibration`.
    """
    model = Model.of(source, rounding)
    known = known_masks(source)
    prior = fit_mask_prior(known)
    lines = {patch: generator_lines(rounding, known, patch) for patch in rounding.patches}
    scenes = [Scene.of(source, index, name, scale_error) for index in range(images)]
    truth = [scene.mask for scene in scenes]
    found: dict[tuple[str, float], list[Array]] = {}
    for index, scene in enumerate(scenes):
        for patch in rounding.patches:
            from_patch = patch_posterior(scene, model, rounding, patch, *lines[patch])
            found.setdefault(("patch", patch), []).append(from_patch)
        for window in rounding.windows:
            odds = PixelOdds(scene, model, rounding, window, prior)
            drawn = sample(odds, from_patch > 0.5, sweeps, np.random.default_rng([source.eval_seed, index]))
            found.setdefault(("image", window), []).append(drawn)
            found.setdefault(("genie", window), []).append(genie(odds, scene.mask).astype(float))
    widths = (1.0, 1.5, 2.0, 3.0, 4.0)
    # The narrower filter leaves more of what is fine.
    sign = 1 if source.sigmas[1] <= source.sigmas[2] else -1
    energies = {width: np.stack([sign * local_energy(scene, width) for scene in scenes]) for width in widths}
    best = {width: best_threshold(energies[width], np.stack(truth)) for width in widths}
    width = max(widths, key=lambda candidate: best[candidate][1])
    rows: list[dict[str, Any]] = [
        {"method": "energy", "pixels": width} | scores(list(energies[width] > best[width][0]), truth)
    ]
    for (method, size), values in sorted(found.items(), key=lambda item: ("patch", "image", "genie").index(item[0][0])):
        rows.append({"method": method, "pixels": size} | scores([value > 0.5 for value in values], truth))
        if method != "genie":
            rows[-1]["calibration"] = calibration(np.stack(values), np.stack(truth))
    return [{"rounding": name} | row for row in rows]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a line a row of `evaluate`."""
    lines = ["| rounding | method | p | IoU | IoU, interior | accuracy | errors at the border |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        figures = [f"{row[key]:.4f}" for key in ("iou", "iou_interior", "accuracy")] + [f"{row['wrong_at_border']:.2f}"]
        lines.append(f"| {row['rounding']} | {row['method']} | {row['pixels']:g} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


def figure(source: Textures, index: int = 0, sweeps: int = 32) -> Figure:
    """A test image, its mask, and the errors of the decision from the whole image, a row a rounding."""
    known = known_masks(source)
    prior = fit_mask_prior(known)
    images, masks, decisions = [], [], []
    for name, rounding in ROUNDINGS.items():
        scene, model = Scene.of(source, index, name), Model.of(source, rounding)
        patch = rounding.patches[-1]
        start = patch_posterior(scene, model, rounding, patch, *generator_lines(rounding, known, patch)) > 0.5
        odds = PixelOdds(scene, model, rounding, rounding.windows[-1], prior)
        drawn = sample(odds, start, sweeps, np.random.default_rng([source.eval_seed, index]))
        images.append(scene.image)
        masks.append(scene.mask)
        decisions.append(drawn > 0.5)
    return plots.samples(
        images,
        masks,
        decisions,
        colors=TEXTURE_LABELS.colors,
        class_names=TEXTURE_LABELS.names,
        titles=["as made, in float32", "rounded to 8 bits"],
    )


def _odd(text: str) -> int:
    number = int(text)
    if number < 1 or number % 2 == 0:
        raise argparse.ArgumentTypeError(f"{number}: must be odd and positive, or no pixel is in the middle")
    return number


def main() -> None:
    """The command: prints the table, and writes figures and a picture where it is told to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=32, help="number of test images")
    parser.add_argument("--sigma1", type=float, default=0.2)
    parser.add_argument("--sigma2", type=float, default=1.2)
    parser.add_argument("--sigma", type=float, help="of the border; image size / 5 by default")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--rounding", nargs="+", choices=list(ROUNDINGS), default=list(ROUNDINGS))
    parser.add_argument(
        "--patches", type=_odd, nargs="+", help="sizes of a patch, odd; by default those of the rounding"
    )
    parser.add_argument(
        "--windows", type=_odd, nargs="+", help="sizes of a window, odd; by default those of the rounding"
    )
    parser.add_argument("--sweeps", type=int, default=32, help="of the sampling of masks")
    parser.add_argument("--scale-error", type=float, default=0.0, help="by what share the told scale is wrong")
    parser.add_argument("--json", type=Path, help="where to write settings and figures")
    parser.add_argument("--figure", type=Path, help="where to draw a test image and what is decided wrong in it")
    options = parser.parse_args()
    source = Textures(options.image_size, options.sigma1, options.sigma2, options.sigma)
    rows = []
    for name in options.rounding:
        rounding = ROUNDINGS[name]
        patches, windows = options.patches or rounding.patches, options.windows or rounding.windows
        rounding = replace(rounding, patches=tuple(patches), windows=tuple(windows))
        rows += evaluate(source, name, rounding, options.images, options.sweeps, options.scale_error)
    print(table(rows))
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key not in ("json", "figure")}
        versions = {name: metadata.version(name) for name in ("segsweep", "numpy", "scipy", "torch")}
        content = {"settings": settings, "date": date.today().isoformat(), "versions": versions, "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if options.figure:
        plots.save(figure(source, sweeps=options.sweeps), options.figure, dpi=110)


if __name__ == "__main__":
    main()
