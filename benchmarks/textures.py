"""Time to make a batch of textures: against the direct definition, against its noise alone, and by image size.

    python benchmarks/textures.py --device cpu

1. 8 images of 128² against the same by two-dimensional convolutions. On a CPU these take about half a minute a batch, so
   they are measured only in the first and the last round.
2. The same against scipy.ndimage.gaussian_filter, which one would write today; it truncates the kernel at four standard
   deviations.
3. 8 images of 128² against one `torch.randn` of their noise.
4. The time per pixel of 8 images of 512² against that of 128².
"""

import itertools
from collections.abc import Callable

import numpy as np
import torch
from measure import Row, arguments, interleave, pick_device, report, timing
from published import direct_textures
from scipy.ndimage import gaussian_filter

from segsweep.data import Textures

BATCH, SMALL, LARGE = 8, 128, 512


def maker(size: int, device: torch.device) -> Callable[[], object]:
    """A function that makes a new training batch."""
    source = Textures(image_size=size)
    starts = itertools.count(step=BATCH)

    def make() -> object:
        start = next(starts)
        return source.make(range(start, start + BATCH), "train", device)

    return make


def scipy_textures(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images and masks [B, H, H] by scipy's separable filters, with the widths of `direct_textures`."""

    def smooth(field: np.ndarray, width: float) -> np.ndarray:
        return gaussian_filter(field, width, mode="constant", axes=(-2, -1))

    border, texture1, texture2 = generator.standard_normal((3, BATCH, SMALL, SMALL), dtype=np.float32)
    mask = smooth(border, 25.6) > 0
    image = smooth(np.where(mask, smooth(texture1, 0.2), smooth(texture2, 1.2)), 1.0)
    image -= image.min((-2, -1), keepdims=True)
    return image / image.max((-2, -1), keepdims=True), mask


def main() -> None:
    options = arguments(__doc__).parse_args()
    device = pick_device(options.device)
    slow, generator = device.type == "cpu", np.random.default_rng(0)
    measures = {
        "direct": timing(lambda: direct_textures(BATCH, SMALL, device), device, warm_up=not slow),
        "scipy": timing(lambda: scipy_textures(generator), device),
        "small": timing(maker(SMALL, device), device),
        "noise": timing(lambda: torch.randn(BATCH, 3, SMALL, SMALL, device=device), device),
        "large": timing(maker(LARGE, device), device),
    }
    times = interleave(measures, options.repeats, rarely={"direct"} if slow else ())
    small, large = ([seconds / (BATCH * size**2) for seconds in times[name]] for name, size in
                    (("small", SMALL), ("large", LARGE)))  # fmt: skip
    batch = f"a batch of {BATCH} at {SMALL}²"
    rows = [
        Row(batch, "direct definition with conv2d", times["small"], times["direct"], "speedup", 3000 if slow else None),
        Row(batch, "scipy.ndimage.gaussian_filter", times["small"], times["scipy"], "speedup"),
        Row(batch, "its noise with torch.randn", times["small"], times["noise"], "cost", 3.0),
        Row(f"a pixel at {LARGE}²", f"at {SMALL}²", large, small, "cost", 2.5, unit="pixel"),
    ]
    report("textures", rows, device, options.json)


if __name__ == "__main__":
    main()
