from dataclasses import asdict

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from segsweep.data.augment import (
    NONE,
    SAME,
    Jitter,
    apply_blur,
    apply_colours,
    apply_jitter,
    apply_symmetries,
    apply_symmetries_on_accelerator,
    random_below,
    random_between,
    random_word,
    random_words,
    to_ids,
    to_unit,
)

ALL = torch.arange(8)


def coordinates(batch: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image with row and column as its channels, and a mask of their sum."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([row, column]).to(torch.uint8)
    return image.expand(batch, -1, -1, -1).contiguous(), (row + column).to(torch.uint8).expand(
        batch, -1, -1
    ).contiguous()


def test_image_and_mask_move_together() -> None:
    image, mask = coordinates(8, 9, 9)
    image, mask = apply_symmetries(image, ALL), apply_symmetries(mask, ALL)
    assert torch.equal(image.sum(1).to(torch.uint8), mask)


def test_the_eight_symmetries_are_different_and_move_every_pixel_once() -> None:
    image, _ = coordinates(8, 5, 5)
    places = apply_symmetries(image, ALL).long()
    flat = (places[:, 0] * 5 + places[:, 1]).flatten(1)
    assert torch.equal(flat.sort(1).values, torch.arange(25).expand(8, -1))
    assert len({tuple(row.tolist()) for row in flat}) == 8
    turned = {tuple(torch.rot90(flat[0].view(5, 5), k).flatten().tolist()) for k in range(4)}
    assert turned == {tuple(flat[k].tolist()) for k in (0, 3, 6, 5)}


@given(symmetry=st.lists(st.integers(0, 7), min_size=1, max_size=6))
def test_accelerators_move_as_the_cpu_does(symmetry: list[int]) -> None:
    choice = torch.tensor(symmetry)
    for pixels in (torch.randint(0, 256, (len(symmetry), 3, 4, 4), dtype=torch.uint8), torch.rand(len(symmetry), 4, 4)):
        assert torch.equal(apply_symmetries(pixels, choice), apply_symmetries_on_accelerator(pixels, choice))


def test_flips_alone_fit_images_that_are_not_square() -> None:
    image, mask = coordinates(4, 4, 6)
    choice = torch.tensor([0, 2, 4, 6])
    assert torch.equal(apply_symmetries(mask, choice), apply_symmetries(image, choice).sum(1).to(torch.uint8))
    assert torch.equal(apply_symmetries(mask, choice), apply_symmetries_on_accelerator(mask, choice))


@given(seed=st.integers(0, 2**32 - 1), start=st.integers(0, 2**32 - 20))
def test_words_drawn_together_are_the_words_drawn_one_by_one(seed: int, start: int) -> None:
    words = random_words(seed, np.arange(start, start + 10, dtype=np.uint64))
    assert words.tolist() == [random_word(seed, position) for position in range(start, start + 10)]


@given(seed=st.integers(0, 2**32 - 1), bound=st.integers(1, 10**6))
def test_draws_stay_in_their_range(seed: int, bound: int) -> None:
    assert 0 <= random_below(seed, 0, bound) < bound
    assert -0.5 <= random_between(seed, 1, -0.5, 0.25) < 0.25


def test_draws_are_even() -> None:
    counts = np.bincount([random_below(seed, 2, 8) for seed in range(8000)], minlength=8)
    assert (abs(counts - 1000) < 150).all()  # five standard deviations


def test_a_unit_image_is_the_image_over_255() -> None:
    image = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_unit(image), image.float() / 255)
    assert to_ids(image).dtype == torch.int64


def images(batch: int = 3, channels: int = 3, size: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(seed))


def changes(**values: list[float]) -> torch.Tensor:
    """The jitter of a batch: what is not named changes nothing."""
    rows = len(next(iter(values.values())))
    return torch.tensor([values.get(name, [same] * rows) for name, same in asdict(SAME).items()]).T


def test_jitter_moves_values_as_said_and_clips_them() -> None:
    image = torch.tensor([[[[0.2, 0.4]]]]).expand(3, 1, 1, 2)
    jitter = changes(brightness=[0.0, 0.1, 0.0], contrast=[1.0, 1.0, 11.0])
    expected = torch.tensor([[0.2, 0.4], [0.3, 0.5], [0.0, 1.0]])
    largest = Jitter(0.1, 10, 0, 0, 0)
    assert torch.allclose(apply_jitter(image, jitter, largest).view(3, 2), expected, atol=1e-6)


def test_a_jitter_of_nothing_changes_nothing() -> None:
    image = images()
    unchanged = apply_jitter(image.clone(), changes(hue=[0.0] * 3), Jitter(1, 1, 1, 0.5, 2))
    assert torch.allclose(unchanged, image, atol=1e-6)
    assert torch.equal(apply_jitter(image.clone(), changes(hue=[0.3] * 3), NONE), image)


FACTORS = st.floats(0, 2, width=32)
TURNS = st.floats(-0.5, 0.5, width=32)


@given(FACTORS, TURNS, TURNS)
def test_hues_turn_saturations_multiply_and_gray_and_brightness_stay(factor: float, one: float, other: float) -> None:
    image, ones = images(), torch.ones(3)
    turned = apply_colours(apply_colours(image, ones, ones * one), ones, ones * other)
    assert torch.allclose(turned, apply_colours(image, ones, ones * (one + other)), atol=1e-5)
    changed = apply_colours(image, ones * factor, ones * one)
    luma = torch.tensor([0.299, 0.587, 0.114])
    assert torch.allclose(
        torch.einsum("c,bchw->bhw", luma, changed), torch.einsum("c,bchw->bhw", luma, image), atol=1e-5
    )
    gray = image[:, :1].expand(-1, 3, -1, -1)
    # The rows of the table for the colour axes add up to 0 and 0.001 or so, as they are printed with three digits.
    assert torch.allclose(apply_colours(gray, ones * factor, ones * one), gray, atol=0.02)


def test_without_saturation_a_pixel_is_its_luma_in_all_channels() -> None:
    image = images()
    gray = apply_colours(image, torch.zeros(3), torch.zeros(3))
    luma = torch.einsum("c,bchw->bhw", torch.tensor([0.299, 0.587, 0.114]), image)
    assert torch.allclose(gray, luma[:, None].expand(-1, 3, -1, -1), atol=0.01)


@given(st.lists(st.floats(0.125, 2, width=32), min_size=1, max_size=4), st.integers(1, 4))
def test_blur_is_scipy_s_gaussian_filter_of_each_image(sigmas: list[float], channels: int) -> None:
    image = images(len(sigmas), channels, 16)
    found = apply_blur(image, torch.tensor(sigmas), 2.0)
    for blurred, sharp, sigma in zip(found, image, sigmas, strict=True):
        expected = gaussian_filter(sharp.double().numpy(), sigma, axes=(1, 2), radius=6, mode="mirror")
        assert np.allclose(blurred.numpy(), expected, atol=1e-5)


def test_blur_of_nothing_keeps_the_image_and_small_images_are_blurred_too() -> None:
    image = images(2, 3, 2)
    assert torch.allclose(apply_blur(image, torch.zeros(2), 5.0), image, atol=1e-7)
    flat = torch.full((2, 3, 2, 9), 0.3)
    assert torch.allclose(apply_blur(flat, torch.ones(2), 5.0), flat, atol=1e-6)
