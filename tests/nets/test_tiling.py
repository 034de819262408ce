"""Images in tiles: every pixel once, and the logits of the whole image."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_every_net import build, every_net, trained

from segsweep.nets.tiling import ALIGNMENT, check_tiling, ramp_of, spans, tiled_logits

tilings = st.integers(2 * ALIGNMENT, 400).flatmap(lambda tile: st.tuples(st.just(tile), st.integers(0, tile // 2)))


@given(length=st.integers(1, 2000), tiling=tilings)
def test_tiles_cover_an_axis_and_fade_into_each_other_far_from_where_they_cut(length: int, tiling: tuple[int, int]):
    tile, overlap = tiling
    found = spans(length, tile, overlap)
    assert (found[0].start, found[0].inner_start) == (0, 0)
    assert (found[-1].stop, found[-1].inner_stop) == (length, length)
    for span in found:
        assert span.start <= span.inner_start < span.inner_stop <= span.stop <= span.start + tile
        assert span.start % ALIGNMENT == 0
    away = (overlap - ramp_of(overlap)) // 2
    for one, other in itertools.pairwise(found):
        assert one.inner_stop - other.inner_start == ramp_of(overlap)
        assert one.stop - one.inner_stop >= away
        assert other.inner_start - other.start >= away
        assert one.inner_stop - one.inner_start >= 2 * ramp_of(overlap)


@every_net
@pytest.mark.parametrize("size", [(300, 211), (97, 320), (64, 64), (5, 130)])
def test_logits_in_tiles_are_those_of_the_whole_image(target: str, variant: dict, size: tuple[int, int]):
    if variant.get("norm") == "group" or target.startswith("segsweep.nets.Monai"):
        pytest.skip(
            "an instance or group norm looks at the whole image, and MONAI's deep nets farther than these tiles"
        )
    net = trained(build(target, variant, in_channels=3, out_channels=4), 3)
    image = torch.randint(256, (3, *size), dtype=torch.uint8)
    seen: list[tuple[int, int]] = []

    def prepare(part: torch.Tensor) -> torch.Tensor:
        seen.append((part.shape[2], part.shape[3]))
        return part / 255

    bands = list(tiled_logits(net, image, prepare, tile=192, overlap=96))
    assert [top for top, _ in bands] == [sum(band.shape[1] for _, band in bands[:index]) for index in range(len(bands))]
    with torch.inference_mode():
        whole = net(image[None] / 255)[0]
    # Four levels see farther around a pixel than the 36 that these tiles have to offer, though little depends on it.
    tolerance = 1e-3 if variant.get("levels") == 4 else 1e-4
    torch.testing.assert_close(torch.cat([band for _, band in bands], dim=1), whole, rtol=1e-4, atol=tolerance)
    assert max(max(shape) for shape in seen) <= 192


def test_a_constant_net_is_constant_across_seams():
    """Weights of tiles that meet sum to 1, wherever two or four of them do."""
    image = torch.zeros(1, 333, 517)
    bands = list(tiled_logits(lambda part: part + 3, image, lambda part: part, tile=128, overlap=61))
    assert torch.equal(torch.cat([band for _, band in bands], dim=1), image + 3)


def test_tiles_that_disagree_fade_into_each_other():
    """A net that numbers its tiles: along a seam values go from the one to the other without a jump."""
    count = iter(range(100))
    image = torch.zeros(1, 40, 300)
    ((_, logits),) = tiled_logits(lambda part: part + next(count), image, lambda part: part, tile=192, overlap=96)
    steps = logits[0, 0].diff()
    assert (logits[0, 0, 0], logits[0, 0, -1]) == (0, 2)
    assert (steps >= 0).all()
    assert steps.max() <= 1 / ramp_of(96) + 1e-6


@pytest.mark.parametrize(
    ("tile", "overlap", "named"), [(63, 0, "tile=63"), (128, 65, "tile=128"), (128, -1, "overlap=-1")]
)
def test_tiles_that_cannot_be_blended_are_refused_by_name(tile: int, overlap: int, named: str):
    with pytest.raises(ValueError, match=named):
        check_tiling(tile, overlap)
