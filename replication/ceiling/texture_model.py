"""What is known of a texture image when its widths are: the model that decisions are made by.

All starts from the composite, the image before its last filter. That filter, a matrix from both sides, is known and can be
undone, and given the mask the composite is simple: two Gaussian fields, independent of each other, side by side. Scale and
offset of the image are told, which can only raise the figures.

Shapes: H = W = `source.image_size`; a window has p x p pixels of the undone image, which depend on q x q of the composite.
Lengths in pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from segsweep.data.source import sample_seed
from segsweep.data.textures import Textures, toeplitz_gaussian

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


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
        first, second = (from_both_sides(_filter(source, source.sigmas[field][0]), noise[field]) for field in (1, 2))
        exact = from_both_sides(_filter(source, source.smoothing), np.where(mask, first, second))
        low, extent = exact.min(), np.ptp(exact)
        return cls(image, (image * extent + low) * (1 + scale_error), mask, float(ROUNDINGS[rounding].noise * extent))


def from_both_sides(matrix: Array, field: Array) -> Array:
    """`matrix` [H, W] acting on the rows and on the columns of `field` [W, W]: [H, H]."""
    return matrix @ field @ matrix.T
