"""A filter is undone up to scale and offset, whether its width is known or estimated."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segsweep.data import Textures
from segsweep.gaussian_filter import toeplitz_gaussian
from segsweep.nets import InverseFilterUNet
from segsweep.nets.inverse_filter import FLOAT32_ROUNDING, EnergyStem, estimate_sigma, undo_filter

EIGHT_BITS = 1 / 255 / 12**0.5


def correlation(one: Tensor, other: Tensor) -> float:
    one, other = (x.double() - x.double().mean((-2, -1), keepdim=True) for x in (one, other))
    return float((one * other).mean() / (one.square().mean() * other.square().mean()).sqrt())


@settings(deadline=None)
@given(
    height=st.integers(8, 40), width=st.integers(8, 40), sigma=st.floats(0.3, 0.8),
    scale=st.floats(0.1, 10), offset=st.floats(-10, 10), seed=st.integers(0, 99),
)  # fmt: skip
def test_undoes_a_filter_up_to_scale_and_offset(height, width, sigma, scale, offset, seed):
    detail = torch.randn(2, 1, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    rows, columns = (toeplitz_gaussian(size, sigma).double() for size in (height, width))
    filtered = scale * (rows @ detail @ columns.mT) + offset
    undone = undo_filter(filtered, sigma, 1e-12)
    torch.testing.assert_close(undone, undo_filter(rows @ detail @ columns.mT, sigma, 1e-12), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(undone.square().mean((-2, -1)), torch.ones(2, 1), rtol=1e-4, atol=1e-4)
    # What is left of the detail is what least squares leaves of it beside an undone constant.
    ones = torch.ones(height, width, dtype=torch.float64)
    constant = torch.linalg.solve(rows, torch.linalg.solve(columns, ones.mT).mT)
    share = (detail * constant).sum((-2, -1), keepdim=True) / (constant * constant).sum()
    expected = detail - share * constant
    expected = expected / expected.square().mean((-2, -1), keepdim=True).sqrt()
    torch.testing.assert_close(undone.double(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("size", [128, 127])
@pytest.mark.parametrize(("bits", "rounding"), [(None, FLOAT32_ROUNDING), (8, EIGHT_BITS)])
@pytest.mark.parametrize("sigma", [0.7, 1.0, 1.5, 2.0])
def test_an_unknown_width_is_estimated(size: int, bits: int | None, rounding: float, sigma: float):
    images, _ = Textures(image_size=size, smoothing=sigma, bits=bits).make(range(8))
    found = estimate_sigma(images, rounding)
    assert found == pytest.approx(sigma, abs=0.1)
    sharp, _ = Textures(image_size=size, smoothing=0).make(range(8))
    known = correlation(undo_filter(images, sigma, rounding), sharp)
    assert correlation(images, sharp) < correlation(undo_filter(images, found, rounding), sharp) <= known + 0.01


def test_neither_autocast_nor_an_earlier_inference_matters():
    image = torch.rand(1, 1, 19, 26, requires_grad=True)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        inferred = undo_filter(image, 0.9, FLOAT32_ROUNDING)
    undone = undo_filter(image, 0.9, FLOAT32_ROUNDING)
    assert torch.equal(undone, inferred)
    undone[0, 0, 3, 4].backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert image.grad.any()


def test_without_a_filter_only_scale_and_offset_are_removed():
    image = torch.rand(2, 3, 9, 14)
    expected = (image - image.mean((-2, -1), keepdim=True)) / image.std((-2, -1), correction=0, keepdim=True)
    torch.testing.assert_close(undo_filter(image, 0.0, FLOAT32_ROUNDING), expected, rtol=1e-4, atol=1e-5)


def test_an_image_without_detail_has_no_width():
    assert estimate_sigma(torch.full((2, 1, 32, 32), 0.5), FLOAT32_ROUNDING) == 0


def test_the_first_batch_of_training_sets_the_width_for_good():
    net = InverseFilterUNet(smoothing=None, channels=4)
    one, other = (Textures(image_size=64, smoothing=sigma).make(range(4))[0] for sigma in (1.0, 2.0))
    net.eval()(one)
    assert net.estimated == 0
    net.train()(one)
    assert net.estimated == estimate_sigma(one, FLOAT32_ROUNDING)
    before = net.estimated.clone()
    net(other)
    assert net.estimated == before
    again = InverseFilterUNet(smoothing=None, channels=4)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(other), net.eval()(other))


def test_rounding_to_bits_is_what_an_image_file_stores():
    exact, mask = Textures(image_size=32).make(range(3))
    rounded, same = Textures(image_size=32, bits=8).make(range(3))
    assert torch.equal(rounded, (exact * 255).round() / 255)
    assert torch.equal(mask, same)


@pytest.mark.parametrize(
    "turn", [lambda x: x.flip(-1), lambda x: x.rot90(1, (-2, -1)), lambda x: x.rot90(3, (-2, -1)).flip(-2)]
)
def test_logits_in_eval_mode_turn_with_the_undone_image(turn):
    net = InverseFilterUNet(smoothing=None, channels=4).eval()  # before its first batch it undoes no filter
    image = torch.randn(2, 1, 24, 20)
    torch.testing.assert_close(net(turn(image)), turn(net(image)), rtol=1e-4, atol=1e-4)
    plain = InverseFilterUNet(smoothing=None, channels=4, symmetries=False).eval()
    assert (plain(turn(image)) - turn(plain(image))).abs().max() > 1e-3


def test_white_noise_has_responses_of_unit_variance():
    responses = EnergyStem(1, 8, 5, 64).filters(torch.randn(1, 1, 200, 200))
    assert responses.detach().var() == pytest.approx(1, rel=0.1)
