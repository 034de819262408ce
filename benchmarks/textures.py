"""Time to make a batch of textures: against the direct definition, against its noise alone, and by image size.

    python benchmarks/textures.py --device cpu

1. 8 images of 128² against the same by two-dimensional convolutions. On a CPU these take about half a minute a batch, so
   they are measured only in the first and the last round.
2. 8 images of 128² against one `torch.randn` of their noise.
3. The time per pixel of 8 images of 512² against that of 128².
"""

import itertools
from collections.abc import Callable

import torch
from measure import Row, arguments, interleave, pick_device, report, timing
from published import direct_textures

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


def main() -> None:
    options = arguments(__doc__).parse_args()
    device = pick_device(options.device)
    slow = device.type == "cpu"
    measures = {
        "direct": timing(lambda: direct_textures(BATCH, SMALL, device), device, warm_up=not slow),
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
        Row(batch, "its noise with torch.randn", times["small"], times["noise"], "cost", 3.0),
        Row(f"a pixel at {LARGE}²", f"at {SMALL}²", large, small, "cost", 2.5, unit="pixel"),
    ]
    report("textures", rows, device, options.json)


if __name__ == "__main__":
    main()
