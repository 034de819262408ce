"""Textures follow the notebook's definition, masks exactly, and depend on their index alone."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from data_folders import generator
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve
from scipy.stats import kstest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from segsweep.data.source import Split
from segsweep.data.textures import TEXTURE_LABELS, Textures, compose_textures
from segsweep.gaussian_filter import toeplitz_gaussian

# ---- the definition, in float64


def kernel_2d(size: int, sigma: float) -> Tensor:
    """The notebook's kernel. Its largest exponent is taken out: a narrow kernel would be 0 / 0 at even sizes."""
    xs = torch.linspace(-size / 2, size / 2, size, dtype=torch.float64)
    x, y = torch.meshgrid(xs, xs, indexing="xy")
    exponent = -(x**2 + y**2) / (2 * sigma**2)
    g = torch.exp(exponent - exponent.max())
    return g / g.sum()


def same_conv2d(field: Tensor, kernel: Tensor) -> Tensor:
    """The notebook's filter; [B, H, H]."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*padding='same' with even kernel.*")
        return F.conv2d(field[:, None], kernel[None, None], padding="same")[:, 0]


def same_fft(field: Tensor, kernel: Tensor) -> Tensor:
    """The same filter for large images: cuts from the full convolution the window that conv2d returns."""
    size = field.shape[-1]
    full = fftconvolve(field.numpy(), kernel.numpy()[None, ::-1, ::-1], mode="full", axes=(1, 2))
    begin = size - 1 - (size - 1) // 2
    return torch.from_numpy(full[:, begin : begin + size, begin : begin + size].copy())


def same_filter(field: Tensor, kernel: Tensor) -> Tensor:
    return (same_conv2d if field.shape[-1] <= 40 else same_fft)(field, kernel)


def definition(
    noise: Tensor, sigma: float, sigma1: float, sigma2: float, smoothing: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Images [B, 1, H, H], masks [B, H, H] and the fields that are positive in the masks, from noise [B, 3, H, H]."""
    noise, size = noise.double(), noise.shape[-1]
    gp, gp1, gp2 = (same_filter(noise[:, i], kernel_2d(size, width)) for i, width in enumerate((sigma, sigma1, sigma2)))
    omega_1 = gp > 0
    image = gp1 * omega_1 + gp2 * ~omega_1
    if smoothing:
        image = same_filter(image, kernel_2d(size, smoothing))
    image = image - image.amin((-2, -1), keepdim=True)
    image = image / image.amax((-2, -1), keepdim=True)
    return image[:, None], omega_1, gp


def clear_noise(size: int, images: int, sigma: float) -> Tensor:
    """Noise with a border field that is nowhere within rounding of 0, so the mask is exact in float32."""
    for seed in range(100):
        noise = torch.randn(images, 3, size, size, generator=torch.Generator().manual_seed(seed))
        field = same_filter(noise[:, 0].double(), kernel_2d(size, sigma))
        if field.abs().min() > 1e-6 * field.std():
            return noise
    raise AssertionError("no clear noise among 100")


@pytest.mark.parametrize("size", [16, 17, 64, 65])
def test_fft_and_conv2d_give_the_same_filter(size: int):
    draw = torch.Generator().manual_seed(0)
    field, kernel = (torch.randn(1, size, size, generator=draw, dtype=torch.float64) for _ in range(2))
    # A kernel without symmetry shows every flip and every shift by a pixel.
    torch.testing.assert_close(same_fft(field, kernel[0]), same_conv2d(field, kernel[0]))


# ---- the filter


@pytest.mark.parametrize("size", [16, 17, 32, 33, 64, 65, 100, 127, 128, 129, 255, 256, 511, 512])
@pytest.mark.parametrize("sigmas", [(None, 0.2, 1.2), (15.0, 0.01, 3.0), (0.7, 200.0, 0.05)], ids=str)
def test_same_noise_gives_the_image_and_the_mask_of_the_definition(
    size: int, sigmas: tuple[float | None, float, float]
):
    sigma, sigma1, sigma2 = (size / 5 if width is None else width for width in sigmas)
    noise = clear_noise(size, 2 if size <= 256 else 1, sigma)
    matrices = [toeplitz_gaussian(size, width) for width in (sigma, sigma1, sigma2, 1.0)]
    image, mask = compose_textures(noise, *matrices)
    expected_image, expected_mask, _ = definition(noise, sigma, sigma1, sigma2)
    assert torch.equal(mask, expected_mask.long())
    assert 0 < mask.double().mean() < 1
    torch.testing.assert_close(image.double(), expected_image, rtol=0, atol=1e-5)


@given(
    st.integers(16, 40),
    st.tuples(*[st.floats(math.log(0.01), math.log(500)).map(math.exp)] * 4),
    st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_any_sigmas_give_the_definition(size: int, sigmas: tuple[float, float, float, float], seed: int):
    noise = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(seed))
    sigma, sigma1, sigma2, smoothing = sigmas
    image, mask = compose_textures(noise, *(toeplitz_gaussian(size, width) for width in sigmas))
    expected_image, expected_mask, field = definition(noise, sigma, sigma1, sigma2, smoothing)
    clear = field.abs() > 1e-6 * field.abs().max()
    assert torch.equal(mask[clear], expected_mask.long()[clear])
    if clear.all():
        torch.testing.assert_close(image.double(), expected_image, rtol=0, atol=1e-5)


@given(st.integers(16, 48), st.floats(math.log(0.01), math.log(500)).map(math.exp), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_matrix_filters_columns_and_rows_as_the_two_dimensional_kernel_does(size: int, sigma: float, seed: int):
    field = torch.randn(1, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    matrix = toeplitz_gaussian(size, sigma).double()
    torch.testing.assert_close(
        matrix @ field @ matrix.mT, same_conv2d(field, kernel_2d(size, sigma)), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("sigma", [1e-200, 1e-3, 0.2, 1.0, 30.0, 1e6, 1e200])
def test_filter_is_a_mean_however_narrow_or_wide(sigma: float):
    for size in (16, 17, 128, 129, 511, 512):
        matrix = toeplitz_gaussian(size, sigma)
        assert matrix.dtype == torch.float32
        assert matrix.isfinite().all()
        assert (matrix >= 0).all()
        # The row that sees the kernel whole; as wide as the image, the kernel fits in there alone.
        assert float(matrix.double().sum(1).max()) == pytest.approx(1, abs=1e-6)
        weights = matrix[size // 2 if size % 2 else size // 2 - 1]
        assert torch.equal(weights, weights.flip(0))


def test_narrowest_kernel_is_one_pixel_at_odd_sizes_and_two_at_even_ones():
    assert torch.equal(toeplitz_gaussian(17, 0.01), torch.eye(17))
    even = toeplitz_gaussian(16, 0.01)
    assert torch.equal(even, 0.5 * (torch.eye(16) + torch.diag(torch.ones(15), 1)))


def test_tensor_of_sigmas_gives_each_its_own_matrix():
    sigmas = torch.tensor([0.2, 1.7, 30.0], dtype=torch.float64)
    stacked = toeplitz_gaussian(21, sigmas)
    assert stacked.shape == (3, 21, 21)
    for row, sigma in zip(stacked, sigmas.tolist(), strict=True):
        assert torch.equal(row, toeplitz_gaussian(21, sigma))


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, torch.tensor([1.0, 0.0])])
def test_sigma_that_is_no_width_is_refused_by_name(sigma: float | Tensor):
    with pytest.raises(ValueError, match=r"^sigma="):
        toeplitz_gaussian(16, sigma)


# ---- statistics of the fields

STATISTICS = [(64, 0.2), (65, 0.2), (64, 1.0), (65, 1.5), (96, 3.0)]


def one_dimensional_kernel(size: int, sigma: float) -> np.ndarray:
    grid = np.linspace(-size / 2, size / 2, size)
    weights = np.exp(-(grid**2) / (2 * sigma**2))
    return weights / weights.sum()


def shifted_sum(weights: np.ndarray, lag: int) -> float:
    return float((weights[: len(weights) - lag] * weights[lag:]).sum())


@pytest.mark.parametrize(("size", "sigma"), STATISTICS)
def test_variance_and_correlation_of_a_field_are_those_of_the_theory(size: int, sigma: float):
    images = 300
    noise = torch.randn(images, size, size, generator=torch.Generator().manual_seed(1))
    matrix = toeplitz_gaussian(size, sigma)
    margin = math.ceil(5 * sigma) + 1
    interior = (matrix @ noise @ matrix.mT).double()[:, margin : size - margin, margin : size - margin]
    weights = one_dimensional_kernel(size, sigma)
    variance = shifted_sum(weights, 0) ** 2
    rho = np.array([shifted_sum(weights, lag) / shifted_sum(weights, 0) for lag in range(size)])
    # Of a Gaussian field, a mean of n products of neighbours has a variance of at most 2 v² / n times the sum of the
    # squared correlations in two dimensions.
    squared = (rho[0] ** 2 + 2 * (rho[1:] ** 2).sum()) ** 2
    pixels = interior[0].numel()

    def tolerance(kept: float) -> float:
        return 5 * variance * math.sqrt(2 * squared / (images * pixels * kept))

    assert float((interior**2).mean()) == pytest.approx(variance, abs=tolerance(1.0))
    for lag in (1, 2, round(2 * sigma), round(4 * sigma)):
        kept = 1 - lag / interior.shape[-1]
        for products in (
            interior[:, lag:] * interior[:, : -lag or None],
            interior[..., lag:] * interior[..., : -lag or None],
        ):
            assert float(products.mean()) == pytest.approx(rho[lag] * variance, abs=tolerance(kept)), lag


@pytest.mark.parametrize("size", [64, 65, 128, 512])
@pytest.mark.parametrize("sigma", [1.0, 1.2, 2.5, 5.0])
def test_theory_of_the_kernel_is_that_of_a_continuous_gaussian_process(size: int, sigma: float):
    h = size / (size - 1)
    weights = one_dimensional_kernel(size, sigma)
    # Sums over a grid differ from integrals by the first term of Poisson's formula; there are three sums in two dimensions.
    error = 2 * math.exp(-((math.pi * sigma / h) ** 2))
    variance = shifted_sum(weights, 0) ** 2
    assert variance == pytest.approx(h**2 / (4 * math.pi * sigma**2), rel=4 * error + 1e-9)
    for lag in range(round(4 * sigma) + 1):
        expected = math.exp(-((h * lag) ** 2) / (4 * sigma**2))
        assert shifted_sum(weights, lag) / shifted_sum(weights, 0) == pytest.approx(expected, rel=3 * error + 1e-9)
    # And the matrix holds those very weights.
    middle = toeplitz_gaussian(size, sigma)[size // 2 if size % 2 else size // 2 - 1].double().numpy()
    np.testing.assert_allclose(middle[: size - 1], weights[: size - 1] if size % 2 else weights[1:][::-1], atol=1e-7)


def test_masks_have_the_sign_correlation_of_their_field():
    size, sigma, images = 64, 3.0, 400
    source = Textures(image_size=size, sigma=sigma)
    _, mask = source.make(range(images))
    margin = 16
    sign = 2.0 * mask[:, margin : size - margin, margin : size - margin].double() - 1
    weights = one_dimensional_kernel(size, sigma)
    rho = np.array([shifted_sum(weights, lag) / shifted_sum(weights, 0) for lag in range(size)])
    # The arcsine law. Squared correlations of the signs are smaller than the field's.
    squared = (rho[0] ** 2 + 2 * (rho[1:] ** 2).sum()) ** 2
    tolerance = 5 * math.sqrt(2 * squared / (images * sign[0].numel() / 2))
    total = (1 + 2 * rho[1:].sum()) ** 2
    assert abs(float(sign.mean())) < 5 * math.sqrt(total / (images * sign[0].numel()))
    for lag in (1, 3, 6, 12):
        expected = 2 / math.pi * math.asin(rho[lag])
        assert float((sign[:, lag:] * sign[:, :-lag]).mean()) == pytest.approx(expected, abs=tolerance)
        assert float((sign[..., lag:] * sign[..., :-lag]).mean()) == pytest.approx(expected, abs=tolerance)


# ---- a sample is a function of (seed, split, index)

VARIANTS: list[dict[str, Any]] = [
    {},
    {"sigma1": [0.3, 4.0], "sigma2": [0.5, 2.0], "sigma": [2.0, 9.0]},
    {"smoothing": 0.0, "sigma1": [1.0, 2.0]},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("size", [24, 33])
@given(order=st.lists(st.integers(0, 40), min_size=1, max_size=12), split=st.sampled_from(["train", "val", "test"]))
@settings(max_examples=12, deadline=None)
def test_sample_is_the_same_alone_and_in_any_batch(size: int, variant: dict[str, Any], order: list[int], split: Split):
    source = Textures(image_size=size, **variant)
    images, masks = source.make(order, split)
    for row, index in enumerate(order):
        image, mask = Textures(image_size=size, **variant).make([index], split)
        assert torch.equal(mask[0], masks[row])
        assert torch.equal(image[0], images[row])


@pytest.mark.parametrize("size", [16, 33, 128])
def test_sample_is_the_definition_of_its_own_noise(size: int):
    source = Textures(image_size=size, sigma=6.0, sigma1=0.2, sigma2=1.2, seed=3, eval_seed=5)
    for split, seed in (("train", 3), ("val", 5), ("test", 5)):
        noise = torch.stack([torch.randn(3, size, size, generator=generator(seed, split, index)) for index in (0, 7)])
        image, mask = source.make([0, 7], split)
        expected_image, expected_mask, _ = definition(noise, 6.0, 0.2, 1.2)
        assert torch.equal(mask, expected_mask.long())
        torch.testing.assert_close(image.double(), expected_image, rtol=0, atol=1e-5)


def test_validation_and_test_do_not_depend_on_the_seed_and_training_does():
    first, second = Textures(image_size=16, seed=0), Textures(image_size=16, seed=1)
    for split in ("val", "test", "bn_calibration"):
        for one, other in zip(first.make(range(4), split), second.make(range(4), split), strict=True):
            assert torch.equal(one, other)
    for one, other in zip(first.make(range(4)), second.make(range(4)), strict=True):
        assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_training_does_not_depend_on_the_seed_of_evaluation_and_the_others_do():
    first, second = Textures(image_size=16, eval_seed=0), Textures(image_size=16, eval_seed=1)
    assert torch.equal(first.make(range(4))[0], second.make(range(4))[0])
    for split in ("val", "test", "bn_calibration"):
        images, others = first.make(range(4), split)[0], second.make(range(4), split)[0]
        assert not any(torch.equal(a, b) for a, b in zip(images, others, strict=True))


def test_no_two_samples_of_a_run_are_equal():
    source = Textures(image_size=16)
    images = torch.cat([source.make(range(50), split)[0] for split in ("train", "val", "test", "bn_calibration")])
    assert len({image.numpy().tobytes() for image in images}) == 200


class Precisions(TorchDispatchMode):
    """Records the precision allowed for each matrix product; not every machine has a lower one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket in (torch.ops.aten.bmm, torch.ops.aten.mm, torch.ops.aten.baddbmm):
            self.seen.append(torch.get_float32_matmul_precision())
        return function(*args, **(kwargs or {}))


def test_settings_of_arithmetic_around_it_change_nothing():
    source = Textures(image_size=32)
    expected = source.make(range(3))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16), Precisions() as products:
            found = source.make(range(3))
        assert products.seen
        assert set(products.seen) == {"highest"}
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_state_of_the_global_generators_neither_matters_nor_changes():
    source = Textures(image_size=16, sigma1=[0.5, 2.0])
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    first, after = source.make(range(3)), (torch.rand(1), np.random.rand())  # noqa: NPY002
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    assert (torch.rand(1), np.random.rand()) == after  # noqa: NPY002
    for one, other in zip(first, source.make(range(3)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_finished_batch_is_the_samples_of_its_indices(variant: dict[str, Any]):
    source = Textures(image_size=24, **variant)
    dataset = source.dataset("val")
    batch = source.to_batch(torch.tensor([dataset[index] for index in (5, 2)]), "val", torch.device("cpu"))
    image, mask = source.make([5, 2], "val")
    assert torch.equal(batch.image, image)
    assert torch.equal(batch.mask, mask)
    assert batch.indices.tolist() == [5, 2]


# ---- values of images and masks


@pytest.mark.parametrize("variant", [*VARIANTS, {"sigma1": 0.01, "sigma2": 300.0}], ids=str)
@pytest.mark.parametrize("size", [16, 45, 64])
def test_images_fill_0_to_1_and_masks_hold_both_classes_alone(size: int, variant: dict[str, Any]):
    image, mask = Textures(image_size=size, **variant).make(range(12))
    assert (image.shape, image.dtype) == ((12, 1, size, size), torch.float32)
    assert (mask.shape, mask.dtype) == ((12, size, size), torch.int64)
    assert torch.equal(image.amin((1, 2, 3)), torch.zeros(12))
    assert torch.equal(image.amax((1, 2, 3)), torch.ones(12))
    assert mask.unique().tolist() == [0, 1]
    assert len(TEXTURE_LABELS) == 2


def test_first_texture_is_where_the_mask_is_1():
    # Hardly smoothed noise varies from pixel to pixel, a wide field does not.
    image, mask = Textures(image_size=64, sigma1=0.01, sigma2=20.0, smoothing=0.0).make(range(8))
    difference = (image[:, 0, 1:] - image[:, 0, :-1]).abs()
    inside, outside = ((mask[:, 1:] == value) & (mask[:, :-1] == value) for value in (1, 0))
    assert difference[inside].mean() > 10 * difference[outside].mean()


# ---- ranges


@pytest.mark.parametrize("name", ["sigma", "sigma1", "sigma2"])
def test_range_of_one_width_is_that_width(name: str):
    for one, other in zip(
        Textures(image_size=20, **{name: [1.5, 1.5]}).make(range(5)),
        Textures(image_size=20, **{name: 1.5}).make(range(5)),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_ranges_of_the_textures_leave_noise_and_masks_as_they_are():
    fixed, ranged = Textures(image_size=32), Textures(image_size=32, sigma1=[0.1, 9.0], sigma2=[0.1, 9.0])
    for split in ("train", "val"):
        images, masks = fixed.make(range(16), split)
        ranged_images, ranged_masks = ranged.make(range(16), split)
        assert torch.equal(masks, ranged_masks)
        assert not any(torch.equal(one, other) for one, other in zip(images, ranged_images, strict=True))


def widths_found(ranged: Textures, name: str, candidates: Sequence[float], images: int, **fixed: float) -> Tensor:
    """For every image the fixed width that reproduces it."""
    image, _ = ranged.make(range(images))
    trials = torch.stack(
        [
            Textures(image_size=ranged.image_size, **{name: width}, **fixed).make(range(images))[0]
            for width in candidates
        ]
    )
    distance, best = (trials - image).abs().amax((2, 3, 4)).min(0)
    assert distance.max() < 0.02
    return torch.tensor(candidates)[best]


@pytest.mark.parametrize("name", ["sigma1", "sigma2"])
def test_every_image_draws_its_own_width_log_uniformly_from_the_range(name: str):
    low, high, images = 0.5, 8.0, 100
    fixed = {"sigma": 3.0, "smoothing": 0.0, ("sigma2" if name == "sigma1" else "sigma1"): 1.0}
    candidates = np.geomspace(low, high, 600).tolist()
    ranged = Textures(image_size=16, **{name: [low, high]}, **fixed)
    found = widths_found(ranged, name, candidates, images, **fixed)
    assert len(found.unique()) > 0.8 * images
    place = np.log(found.double().numpy() / low) / math.log(high / low)
    assert kstest(place, "uniform").pvalue > 0.001
    # The number of images suffices to tell it from a uniform draw.
    assert kstest((found.double().numpy() - low) / (high - low), "uniform").pvalue < 0.001


def test_ranges_of_both_textures_are_drawn_independently():
    low, high, images = 0.5, 8.0, 200
    source = Textures(image_size=16, sigma1=[low, high], sigma2=[low, high], sigma=3.0, smoothing=0.0)
    image, mask = source.make(range(images))
    # The roughness of a texture depends on its width.
    step = (image[:, 0, 1:] - image[:, 0, :-1]).abs()
    roughness = []
    for value in (0, 1):
        inside = (mask[:, 1:] == value) & (mask[:, :-1] == value)
        roughness.append(((step * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)).log())
    usable = mask.double().mean((1, 2)).sub(0.5).abs() < 0.3
    ranks = torch.stack([values[usable].argsort().argsort().double() for values in roughness])
    assert usable.sum() > 80
    assert float(torch.corrcoef(ranks)[0, 1]) < 0.5


# ---- sizes, and values out of range


def test_splits_have_the_sizes_that_were_asked_for():
    source = Textures(samples_per_epoch=80, val_size=5, test_size=7)
    assert [source.size(split) for split in ("train", "val", "test")] == [80, 5, 7]
    assert [len(source.dataset(split)) for split in ("train", "val", "test")] == [80, 5, 7]
    assert [list(batch) for batch in source.batches("test", 3)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_border_is_as_wide_as_a_fifth_of_the_image_unless_it_is_given():
    by_default, given_it = Textures(image_size=40), Textures(image_size=40, sigma=8.0)
    assert torch.equal(by_default.make(range(4))[1], given_it.make(range(4))[1])


@pytest.mark.parametrize(
    ("name", "value"),
    [("image_size", value) for value in (15, 0, -128)]
    + [(name, value) for name in ("samples_per_epoch", "val_size", "test_size") for value in (0, -1)]
    + [("smoothing", value) for value in (-1.0, math.nan, math.inf)]
    + [
        (name, value)
        for name in ("sigma", "sigma1", "sigma2")
        for value in (0, 0.0, -1.0, math.nan, math.inf, [2.0, 1.0], [0.0, 1.0], [1.0, math.inf], [1.0], [1.0, 2.0, 3.0], [])
    ],
)  # fmt: skip
def test_value_outside_its_range_is_refused_by_name(name: str, value: Any):
    with pytest.raises(ValueError, match=rf"^{name}=.*: must be "):
        Textures(**{name: value})


def test_smallest_image_size_is_16():
    assert Textures(image_size=16).make([0])[0].shape[-1] == 16
