"""The ceiling's decisions follow Bayes' rule: calibrated, at chance without information, better with more pixels."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, special
from scipy.stats import norm
from support import ROOT

from replication.ceiling import bayes, evaluation
from replication.ceiling.__main__ import main
from replication.ceiling.bayes import PixelOdds
from replication.ceiling.texture_model import ROUNDINGS, Array, Mask, Model, Scene
from segsweep.data.textures import Textures

SMALL = Textures(image_size=64, sigma=10)
"""A narrow border filter, which the image does not cut off: smooth borders. The default filter is cut off a little."""

RESULTS_IOU = 0.9936
"""The best trained net in docs/results.md, on float32 images."""


@pytest.fixture(scope="module")
def known() -> list[Mask]:
    return evaluation.known_masks(SMALL)


@pytest.fixture(scope="module")
def prior(known: list[Mask]) -> Array:
    return bayes.fit_mask_prior(known)


def posterior(source: Textures, name: str, patch: int, index: int, known: list[Mask]) -> Array:
    rounding = ROUNDINGS[name]
    lines = evaluation.generator_lines(rounding, known[:32], patch)
    return bayes.patch_posterior(Scene.of(source, index, name), Model.of(source, rounding), rounding, patch, *lines)


# ---- the known scale


@pytest.mark.parametrize("source", [SMALL, Textures(), Textures(33)], ids=["64", "128", "odd"])
def test_the_known_scale_is_the_image_s_own(source: Textures) -> None:
    for name, bound in (("float32", 3e-7), ("8bit", 0.5 / 255 + 1e-6)):
        scene = Scene.of(source, 3, name)
        exact = source.make([3], "test")[0][0, 0].double().numpy()
        assert np.abs(scene.image - exact).max() <= bound
        extent = np.ptp(scene.smoothed) / np.ptp(scene.image)
        np.testing.assert_allclose(scene.smoothed, scene.smoothed.min() + extent * scene.image, atol=1e-12)


def test_float32_gives_the_composite_back() -> None:
    # Where texture 2 is shown, the undone image is its smooth field, and only there.
    source = Textures(sigma2=3.0)
    scene = Scene.of(source, 0, "float32")
    undone = Model.of(source, ROUNDINGS["float32"]).undo
    composite = undone @ scene.smoothed @ undone.T
    deep = ndimage.binary_erosion(~scene.mask, iterations=3)
    rough = ndimage.laplace(composite)
    assert rough[deep].std() < 0.03 < 0.5 < rough[ndimage.binary_erosion(scene.mask, iterations=3)].std()


@pytest.mark.parametrize("name", ROUNDINGS)
def test_covariances_are_those_of_the_images(name: str) -> None:
    # Whitened by the true mask's covariance, a window has p² independent normal values, even at the border.
    rounding, size, white = ROUNDINGS[name], 5, []
    model = Model.of(SMALL, rounding)
    for index in range(12):
        scene = Scene.of(SMALL, index, name)
        undone = model.undo @ scene.smoothed @ model.undo.T
        for row in range(0, 64 - size, 9):
            for column in range(0, 64 - size, 9):
                rows, columns = slice(row, row + size), slice(column, column + size)
                near = tuple(
                    slice(max(0, part.start - rounding.reach), part.stop + rounding.reach) for part in (rows, columns)
                )
                covariance = model.window(rows, columns, rounding.reach, scene.noise).undone(scene.mask[near])
                white.append(np.linalg.solve(np.linalg.cholesky(covariance), undone[rows, columns].ravel()))
    values = np.concatenate(white)
    assert abs((values**2).mean() - 1) < 0.03
    assert abs(values.mean()) < 0.03


def test_ranges_of_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="must be numbers"):
        Scene.of(Textures(32, sigma1=(0.2, 0.5)), 0, "float32")


# ---- from a patch


@given(size=st.sampled_from([3, 5, 7]), crossing=st.floats(0.01, 0.9), directions=st.sampled_from([4, 8, 12]))
@settings(max_examples=20, deadline=None)
def test_line_masks_are_distinct_with_a_symmetric_prior(size: int, crossing: float, directions: int) -> None:
    masks, prior = bayes.line_masks(size, size / 2, crossing, directions, 0.25)
    weight = dict(zip((mask.tobytes() for mask in masks), prior, strict=True))
    assert len(weight) == len(masks)
    assert prior.sum() == pytest.approx(1)
    assert all(weight[(~mask).tobytes()] == pytest.approx(weight[mask.tobytes()]) for mask in masks)


@pytest.mark.parametrize("name", ROUNDINGS)
def test_equal_widths_give_probability_one_half(name: str, known: list[Mask]) -> None:
    equal = Textures(image_size=64, sigma1=1.2, sigma2=1.2, sigma=10)
    np.testing.assert_allclose(posterior(equal, name, 3, 0, known), 0.5, atol=1e-6)


@pytest.mark.parametrize("name", ROUNDINGS)
def test_simulated_patches_get_calibrated_posteriors(name: str) -> None:
    rounding, patch = ROUNDINGS[name], 3
    draw = np.random.default_rng(1)
    part = slice(20, 20 + patch)
    window = Model.of(SMALL, rounding).window(part, part, rounding.reach, 1.5 * rounding.noise)
    size = patch + 2 * rounding.reach
    # A border in half of the patches makes most of them hard.
    masks, prior = bayes.line_masks(size, 2.5, 0.5, 8, 0.25)
    which = draw.choice(len(masks), 4000, p=prior)
    patches = np.empty((patch**2, len(which)))
    for number, mask in enumerate(masks):
        chosen = which == number
        patches[:, chosen] = np.linalg.cholesky(window.undone(mask)) @ draw.standard_normal((patch**2, chosen.sum()))
    joint = np.stack(list(bayes.log_joint(patches, window, masks, prior)))
    label = masks[:, size // 2, size // 2]
    probability = special.softmax(joint, axis=0)[label].sum(0)
    truth = label[which]
    for low, high in ((0, 1), (0.02, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 0.98)):
        inside = (probability >= low) & (probability <= high)
        spread = np.sqrt((probability * (1 - probability))[inside].sum())
        assert inside.sum() > 30
        assert abs((truth - probability)[inside].sum()) < norm.isf(0.0005) * spread


def test_generated_images_get_calibrated_posteriors(known: list[Mask]) -> None:
    found = [
        (posterior(SMALL, "float32", 3, index, known), Scene.of(SMALL, index, "float32").mask) for index in range(24)
    ]
    probability, truth = (np.stack(part) for part in zip(*found, strict=True))
    rows = evaluation.calibration(probability, truth)
    assert sum(row["pixels"] for row in rows) == truth.size
    sure = [row for row in rows if row["pixels"] > 300]
    assert len(sure) > 4
    assert all(abs(row["mean"] - row["share"]) < 0.06 for row in sure)


# ---- from the whole image


@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_the_change_of_one_pixel_is_that_of_the_covariance(seed: int) -> None:
    draw = np.random.default_rng(seed)
    for rounding in (ROUNDINGS["float32"], replace(ROUNDINGS["8bit"], reach=2)):
        window = Model.of(SMALL, rounding).window(slice(9, 12), slice(2, 5), rounding.reach, 1e-8)
        size = 3 + 2 * rounding.reach
        mask = draw.random((size, size)) < 0.5
        place = int(draw.integers(size**2))
        mask.ravel()[place] = False
        flipped = mask.copy()
        flipped.ravel()[place] = True
        expected = window.undone(flipped) - window.undone(mask)
        np.testing.assert_allclose(window.change(mask, place), expected, atol=1e-12)


@given(
    seed=st.integers(0, 1000), first=st.tuples(*[st.integers(0, 15)] * 2), second=st.tuples(*[st.integers(0, 15)] * 2)
)
@settings(max_examples=15, deadline=None)
def test_odds_from_a_window_as_large_as_the_image_are_exact(
    seed: int, first: tuple[int, int], second: tuple[int, int]
) -> None:
    # Exact odds are differences of one log density, so the order of two changes does not matter.
    if first == second:
        return
    source = Textures(image_size=16)
    rounding = ROUNDINGS["float32"]
    odds = PixelOdds(Scene.of(source, 0, "float32"), Model.of(source, rounding), rounding, 31, np.zeros((3, 3)))
    mask = (np.random.default_rng(seed).random((16, 16)) < 0.5).astype(np.int8)
    mask[first] = mask[second] = 0

    def path(one: tuple[int, int], other: tuple[int, int]) -> float:
        between = mask.copy()
        between[one] = 1
        return odds(mask, *one) + odds(between, *other)

    assert path(first, second) == pytest.approx(path(second, first), rel=1e-6, abs=1e-6)


def test_the_mask_prior_knows_a_straight_border(prior: Array) -> None:
    mask = np.zeros((64, 64), np.int8)
    mask[:, 20:] = 1
    reach = len(prior) // 2
    values = [
        float((prior * (2.0 * mask[20 - reach : 21 + reach, column - reach : column + reach + 1] - 1)).sum())
        for column in range(17, 23)
    ]
    assert prior[reach, reach] == 0
    assert np.array_equal(np.array(values) > 0, [False, False, False, True, True, True])


@pytest.mark.slow
def test_larger_windows_are_never_worse_and_no_net_is_above() -> None:
    source = Textures()
    rounding = replace(ROUNDINGS["float32"], patches=(3, 5), windows=(3, 7))
    rows = {
        (row["method"], row["pixels"]): row["iou"]
        for row in evaluation.evaluate(source, "float32", rounding, 4, sweeps=12)
    }
    energy = next(value for (method, _), value in rows.items() if method == "energy")
    assert energy < rows["patch", 3] < rows["patch", 5]
    assert rows["image", 3] < rows["image", 7]
    assert rows["genie", 3] <= rows["genie", 7]
    assert all(rows["image", window] <= rows["genie", window] for window in (3, 7))
    assert rows["image", 7] > RESULTS_IOU


@pytest.mark.slow
def test_rounding_to_8_bits_causes_more_errors(known: list[Mask]) -> None:
    wrong = {}
    for name in ROUNDINGS:
        wrong[name] = sum(
            ((posterior(SMALL, name, 5, index, known) > 0.5) != Scene.of(SMALL, index, name).mask).sum()
            for index in range(4)
        )
    assert wrong["float32"] < wrong["8bit"]


# ---- scores, and the command


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_no_threshold_is_better_than_best_threshold(seed: int) -> None:
    draw = np.random.default_rng(seed)
    truth = draw.random((9, 9)) < 0.4
    values = draw.normal(truth, 1.0)
    threshold, iou = bayes.best_threshold(values, truth)

    def at(level: float) -> float:
        return float(((values > level) & truth).sum() / ((values > level) | truth).sum())

    assert at(threshold) == pytest.approx(iou)
    assert all(at(level) <= iou + 1e-12 for level in np.nextafter(values.ravel(), -np.inf))


def test_scores_equal_the_project_s_metrics() -> None:
    truth = torch.zeros(2, 40, 40, dtype=torch.bool)
    truth[:, :, 20:] = True
    guess = truth.clone()
    guess[0, :, 19] = True
    result = evaluation.scores(list(guess.numpy()), list(truth.numpy()))
    assert result["iou"] == pytest.approx(1600 / 1640)
    assert result["accuracy"] == pytest.approx(1 - 40 / 3200)
    assert result["iou_interior"] == pytest.approx(2 * 24 * 12 / (2 * 24 * 12 + 24))
    assert result["wrong_at_border"] == 1


@pytest.mark.slow
def test_the_command_writes_its_table_its_figures_and_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--images=1", "--image-size=32", "--patches=3", "--windows=3", "--sweeps=4", "--scale-error=0.01"]
    outputs = ["--json", str(tmp_path / "ceiling.json"), "--figure", str(tmp_path / "ceiling.png")]
    monkeypatch.setattr("sys.argv", ["ceiling", *arguments, *outputs])
    main()
    content = json.loads((tmp_path / "ceiling.json").read_text(encoding="utf-8"))
    assert len(content["rows"]) == len(capsys.readouterr().out.strip().splitlines()) - 2 == 8
    assert content["settings"]["scale_error"] == 0.01
    assert (tmp_path / "ceiling.png").stat().st_size > 0


def test_the_documented_table_is_what_was_measured():
    measured = json.loads((ROOT / "docs/measured/ceiling.json").read_text(encoding="utf-8"))
    found = {(row["method"], row["rounding"], row["pixels"]): row for row in measured["rows"]}
    lines = [line for line in (ROOT / "docs/ceiling.md").read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    shown = 0
    for line in lines[1:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "---":
            continue
        sizes = [float(size) for size in cells[1].split(",")]
        for rounding, size, part in (("float32", sizes[0], cells[2:6]), ("8bit", sizes[-1], cells[6:10])):
            row = found.get((cells[0], rounding, size))
            if row is None:
                assert part == ["", "", "", ""], (cells, rounding)
                continue
            expected = [f"{row[key]:.4f}" for key in ("iou", "iou_interior", "accuracy")]
            assert part == [*expected, f"{row['wrong_at_border']:.2f}"], (cells, rounding)
            shown += 1
    assert shown == 17, "all rows but the genie with small windows, a worse bound"
