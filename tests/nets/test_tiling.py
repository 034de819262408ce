"""Tiles use every pixel once and give the logits of the whole image."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_every_net import build, every_net, trained
from torch import Tensor, nn

from segsweep.data.crops import TileRule, Tiles, Tiling
from segsweep.nets.tiling import (
    ALIGNMENT,
    ReceptiveField,
    check_blending,
    least_blended,
    least_tile,
    margin_of,
    overlap_of,
    ramp_of,
    spans,
    tiled_logits,
)


@given(
    length=st.integers(1, 2000), extra=st.integers(0, 300), margin=st.integers(0, 70), ramp=st.integers(0, 40),
    alignment=st.sampled_from([1, ALIGNMENT, 96, 128]),
)  # fmt: skip
def test_tiles_cover_an_axis_and_used_pixels_keep_the_margin(
    length: int, extra: int, margin: int, ramp: int, alignment: int
):
    size = least_tile(margin, ramp, alignment) + extra
    found = spans(length, size, margin, ramp, alignment)
    assert (found[0].start, found[0].inner_start) == (0, 0)
    assert (found[-1].stop, found[-1].inner_stop) == (length, length)
    for span in found:
        assert span.start <= span.inner_start < span.inner_stop <= span.stop <= span.start + size
        assert span.start % alignment == 0
    for one, other in itertools.pairwise(found):
        assert one.inner_stop - other.inner_start == ramp
        assert one.stop - one.inner_stop >= margin
        assert other.inner_start - other.start >= margin
    for span in found[1:-1]:
        assert span.inner_stop - span.inner_start >= 2 * ramp
    if extra >= alignment - 1:
        assert len({span.stop - span.start for span in found}) == 1


@given(margin=st.integers(0, 300))
def test_the_smallest_overlap_for_a_margin(margin: int):
    overlap = overlap_of(margin)
    assert margin_of(overlap) == margin
    assert margin_of(overlap - 1) < margin or margin == 0
    assert 2 * margin + ramp_of(overlap) == overlap


def blended(net: nn.Module, image: Tensor, tile: int, margin: int) -> Tensor:
    """Computes logits as prediction does."""
    overlap, alignment = overlap_of(margin), ReceptiveField.of(net).alignment
    tile = max(tile, least_blended(overlap, alignment))
    bands = [
        (top, band[0])
        for top, band in tiled_logits(lambda part: net(part / 255), image[None], tile, overlap, alignment)
    ]
    assert [top for top, _ in bands] == [sum(band.shape[1] for _, band in bands[:index]) for index in range(len(bands))]
    return torch.cat([band for _, band in bands], dim=1)


def counted(net: nn.Module, image: Tensor, tile: int, margin: int) -> Tensor:
    """Computes logits as validation does: each pixel's from the window whose mask does not ignore it."""
    tiles = Tiling(TileRule(tile_size=tile, tile_margin=margin), ReceptiveField.of(net)).tiles(
        [(image.shape[1], image.shape[2])]
    )
    pixels = np.concatenate([image.numpy(), np.zeros((1, *image.shape[1:]), dtype=np.uint8)])
    found, times = torch.zeros(0), torch.zeros(image.shape[1:], dtype=torch.int64)
    for window, sample in zip(tiles, Tiles([pixels], tiles), strict=False):
        logits = net(sample.image[None] / 255)[0]
        found = found if len(found) else torch.zeros(len(logits), *image.shape[1:])
        place = (slice(window.top, window.top + window.height), slice(window.left, window.left + window.width))
        counts = sample.mask != 255
        times[place] += counts
        found[:, *place] = torch.where(counts, logits, found[:, *place])
    assert (times == 1).all()
    return found


@every_net
@pytest.mark.parametrize("way", [blended, counted])
@settings(max_examples=6, deadline=None)
@given(
    tile=st.sampled_from([255, 256, 257]), long=st.integers(258, 620), short=st.integers(1, 20), tall=st.booleans(),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_logits_in_tiles_are_those_of_the_whole_image(
    target: str, variant: dict, way, tile: int, long: int, short: int, tall: bool, seed: int
):
    """The margin is exactly the net's reach."""
    net = trained(build(target, variant, in_channels=3, out_channels=4), 3)
    if net.reach is None:
        pytest.skip("sees the whole image")
    shape = (3, long, short) if tall else (3, short, long)
    image = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        whole = net(image[None] / 255)[0]
        in_tiles = way(net, image, tile, net.reach)
    torch.testing.assert_close(in_tiles, whole, rtol=1e-5, atol=1e-5 * float(whole.abs().max()))


@pytest.mark.slow
@every_net
@pytest.mark.parametrize("way", [blended, counted])
def test_logits_in_tiles_are_those_of_the_whole_image_if_both_sides_are_cut(target: str, variant: dict, way):
    net = trained(build(target, variant, in_channels=3, out_channels=4), 3)
    if net.reach is None or net.reach > 32:
        pytest.skip("sees farther than the margin of these tiles")
    image = torch.randint(256, (3, 211, 167), dtype=torch.uint8)
    with torch.inference_mode():
        whole = net(image[None] / 255)[0]
        in_tiles = way(net, image, 128, 32)
    torch.testing.assert_close(in_tiles, whole, rtol=1e-5, atol=1e-5 * float(whole.abs().max()))


def test_the_receptive_field_is_read_from_a_net_unless_its_attributes_mean_something_else():
    class Net(nn.Module):
        def __init__(self, **attributes):
            super().__init__()
            for name, value in attributes.items():
                setattr(self, name, value)

    def field(**attributes):
        found = ReceptiveField.of(Net(**attributes))
        return found.alignment, found.reach

    assert field(stride=2, reach=7) == (32, 7)
    assert field(stride=12, reach=None) == (96, "whole")
    assert field() == field(stride=(2, 2), reach=[3]) == field(stride=0, reach=-1) == (32, "unknown")


@pytest.mark.parametrize(
    ("reach", "words"),
    [
        (30, None),
        (31, ["Net", "31", "30", "m=31", "t=900"]),
        ("whole", ["Net", "whole image", "t=900"]),
        ("unknown", ["Net", "(reach)", "t=900"]),
    ],
)
def test_a_net_that_sees_farther_than_the_margin_gets_a_warning_of_one_line(reach, words):
    line = ReceptiveField("Net", 32, reach).caution(30, lambda margin: f"m={margin}", "t=900")
    if words is None:
        assert line is None
    else:
        assert all(word in line for word in words)
        assert "\n" not in line


def test_a_constant_net_is_constant_across_seams():
    """The weights of two or four overlapping tiles sum to 1."""
    image = torch.zeros(2, 1, 333, 517)
    bands = list(tiled_logits(lambda part: part + 3, image, tile=128, overlap=61))
    assert torch.equal(torch.cat([band for _, band in bands], dim=2), image + 3)


def test_tiles_that_disagree_fade_into_each_other():
    """With a net that numbers its tiles, values rise along a seam without a jump."""
    count = iter(range(100))
    image = torch.zeros(1, 1, 40, 300)
    ((_, logits),) = tiled_logits(lambda part: part + next(count), image, tile=192, overlap=96)
    steps = logits[0, 0, 0].diff()
    assert (logits[0, 0, 0, 0], logits[0, 0, 0, -1]) == (0, 2)
    assert (steps >= 0).all()
    assert steps.max() <= 1 / ramp_of(96) + 1e-6


@pytest.mark.parametrize(
    ("tile", "overlap", "named"),
    [(31, 0, "tile=31: must be at least 32"), (151, 100, "tile=151: must be at least 152"), (128, -1, "overlap=-1")],
)
def test_tiles_that_cannot_be_blended_are_refused_by_name(tile: int, overlap: int, named: str):
    with pytest.raises(ValueError, match=named):
        check_blending(tile, overlap)
