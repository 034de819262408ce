"""Probability model of a texture image with known widths.

The model describes the composite, the image before its last filter. That filter, a matrix from both sides, is known and
can be undone. Given the mask, the composite consists of two independent Gaussian fields side by side. Scale and offset of
the image are assumed to be known, which can only raise the scores.

Shapes: H = W = `source.image_size`; a window has p x p pixels of the undone image, which depend on q x q of the composite.
Lengths in pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from segsweep.data.source import sample_seed
from segsweep.data.textures import Textures
from segsweep.gaussian_filter import toeplitz_gaussian

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Rounding:
    """How precisely an image is known.

    Attributes:
        noise: standard deviation of the rounding, as a share of the image's range.
        ridge: its square is added to the last filter's squared singular values to undo it; 0 undoes it exactly.
        reach: how many pixels away the undone image is assumed to depend on the composite.
        patches: sizes p for `patch_posterior`; `sample` starts from the last.
        windows: sizes p for `sample` and `genie`.
        directions, step: resolution of the borders in `line_masks`; in float32 a single different pixel shows.
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
    # A smaller ridge needs a longer reach and leaves more noise; 0.02 to 0.05 give the same scores.
    "8bit": Rounding(1 / 255 / 12**0.5, 0.03, 4, (3, 5, 7), (5, 7), 32, 0.25),
}


@dataclass(frozen=True)
class Model:
    """Matrices [H, H] of every image, for its rows and its columns alike.

    Attributes:
        undo: undoes the last filter, as far as the rounding allows.
        response: last filter and `undo` together; the identity if the filter is undone exactly.
        noise: covariance of white noise of variance 1 after `undo`, along one axis.
        textures: covariances of the first and the second texture along one axis. In two dimensions they are Kronecker
            squares, even at the image's border.
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
        """Covariances of the pixels in these rows and columns; `noise` is the rounding's standard deviation."""
        near_rows, near_columns = (
            slice(max(0, part.start - reach), min(len(self.undo), part.stop + reach)) for part in (rows, columns)
        )
        first, second = (
            _kron(texture[near_rows, near_rows], texture[near_columns, near_columns]) for texture in self.textures
        )
        return Window(
            # Without ridge it is the identity, up to 1e-10.
            _kron(self.response[rows, near_rows], self.response[columns, near_columns]) if reach else None,
            first,
            second,
            _kron(noise**2 * self.noise[rows, rows], self.noise[columns, columns]),
        )


@dataclass(frozen=True)
class Window:
    """Covariances in a window.

    Attributes:
        response: maps the composite [q²] to the undone pixels [p²]: [p², q²]; None for the identity.
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
        """Covariance [p², p²] of the undone pixels given the mask of the composite pixels that they depend on."""
        composite = self.composite(mask)
        if self.response is not None:
            composite = self.response @ composite @ self.response.T
        return composite + self.noise

    def change(self, mask: Mask, place: int) -> Array:
        """The change of `undone` if pixel `place` of the mask changes from the second texture to the first."""
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
    """The generator's filter matrix, computed in float32 as there."""
    return toeplitz_gaussian(source.image_size, sigma).double().numpy() if sigma else np.eye(source.image_size)


@dataclass(frozen=True)
class Scene:
    """A test image as the generator made it.

    Attributes:
        image: the published image, [H, W] in [0, 1], rounded.
        smoothed: the image with its scale and offset from before the normalization to [0, 1], [H, W].
        mask: True where the first texture is, [H, W].
        noise: standard deviation of the rounding of `smoothed`.
    """

    image: Array
    smoothed: Array
    mask: Mask
    noise: float

    @classmethod
    def of(cls, source: Textures, index: int, rounding: str, scale_error: float = 0.0) -> "Scene":
        """Test image `index`, its known scale wrong by the share `scale_error`.

        Raises:
            ValueError: a width is a range.
        """
        if any(low != high for low, high in source.sigmas):
            raise ValueError("sigma, sigma1 and sigma2 must be numbers: the ceiling needs known widths")
        images, masks = source.make([index], "test")
        image, mask = images[0, 0].double().numpy(), masks[0].numpy() == 1
        if rounding == "8bit":
            image = np.round(image * 255) / 255
        # The generator does not return the scale: repeat it with the same noise, in float64.
        draw = torch.Generator("cpu").manual_seed(sample_seed(source.eval_seed, "test", index))
        noise = torch.empty(3, *mask.shape).normal_(generator=draw).double().numpy()
        first, second = (from_both_sides(_filter(source, source.sigmas[field][0]), noise[field]) for field in (1, 2))
        exact = from_both_sides(_filter(source, source.smoothing), np.where(mask, first, second))
        low, extent = exact.min(), np.ptp(exact)
        return cls(image, (image * extent + low) * (1 + scale_error), mask, float(ROUNDINGS[rounding].noise * extent))


def from_both_sides(matrix: Array, field: Array) -> Array:
    """Applies `matrix` [H, W] to the rows and the columns of `field` [W, W]: [H, H]."""
    return matrix @ field @ matrix.T
