"""The study of the widths: its measures, its conclusions, and its command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from replication import widths
from replication.__main__ import main
from replication.ceiling.texture_model import Scene
from replication.page import page
from replication.results import RESULTS, read_results
from replication.verdicts import judge_pairs
from segsweep.data import Textures


@pytest.mark.parametrize("patch", [1, 3])
def test_the_density_is_that_of_a_normal_distribution(patch: int):
    rng = np.random.default_rng(0)
    factors = [rng.normal(size=(patch, patch + 2)) for _ in range(2)]
    rows, columns = (factor @ factor.T for factor in factors)
    exact = stats.multivariate_normal(cov=np.kron(rows, columns) + 0.3**2 * np.eye(patch**2))
    bases = np.linalg.eigh(rows), np.linalg.eigh(columns)
    offsets = [
        exact.logpdf(values.ravel()) - widths.log_density(values, *bases, noise=0.3)
        for values in rng.normal(size=(5, patch, patch))
    ]
    assert offsets == pytest.approx([-np.log(2 * np.pi) * patch**2 / 2] * 5)


@pytest.mark.parametrize(("sigma2", "right"), [(2.0, 0.5), (0.2, 1.0)])
def test_equal_textures_are_told_apart_by_guessing_and_very_different_ones_always(sigma2: float, right: float):
    source = Textures(sigma1=2.0, sigma2=sigma2, sigma=15)
    bases = widths.texture_bases(source, 1), widths.texture_bases(source, 2)
    scene = Scene.of(source, 0, "8bit")
    assert widths.told_apart(scene, *bases) == right
    with pytest.raises(ValueError, match="no whole patch"):
        widths.told_apart(replace(scene, mask=np.ones_like(scene.mask)), *bases)


@given(st.floats(0.01, 100), st.floats(-10, 10))
def test_an_edge_is_a_ratio_that_neither_contrast_nor_brightness_changes(contrast: float, brightness: float):
    image = np.random.default_rng(0).normal(size=(16, 16))
    mask = np.arange(16) < np.full((16, 1), 8)
    assert widths.edge(contrast * image + brightness, mask) == pytest.approx(widths.edge(image, mask))
    assert widths.edge(image + 9 * mask, mask) > 3 * widths.edge(image, mask)


def test_a_conclusion_that_is_true_by_construction_holds_and_its_opposite_does_not():
    noise = np.random.default_rng(0).normal(size=(2, 32)) / 10
    runs = {"a": 1 + noise[0], "b": noise[1], "c": noise[0] + 0.01 * (-1) ** np.arange(32)}
    assert judge_pairs([("a", "b"), ("a", "c")], runs, "harder").answer == "holds"
    reverse = judge_pairs([("b", "a"), ("a", "c")], runs, "harder")
    assert (reverse.answer, reverse.seeds, reverse.reason) == ("does not hold", 32, "a is harder than b")
    same = judge_pairs([("a", "b"), ("c", "b")], runs, "harder")
    assert same.answer == "cannot be told"
    assert same.reason.startswith("not shown to be harder: c than b (it is in ")


def test_the_conclusions_on_widths_follow_the_numbers():
    rng = np.random.default_rng(0)
    nearer_is_easier = {pair: 15 - abs(15 - pair[0]) - (pair[1] - pair[0]) / 10 for pair in widths.PAIRS}
    for sign, answer in ((1, "holds"), (-1, "does not hold")):
        found = {
            f"{widths.name_of(pair)}: {measure}": list(sign * ease + rng.normal(size=32) / 100)
            for pair, ease in nearer_is_easier.items()
            for measure in widths.MEASURES
        }
        said = widths.widths_verdicts({"widths": found})
        assert [verdict.answer for _, _, verdict in said] == [answer] * 4
    assert {verdict.answer for _, _, verdict in widths.widths_verdicts({})} == {"cannot be told"}


def test_the_stored_numbers_are_those_of_the_images_and_all_are_on_the_page():
    stored = read_results(RESULTS)["widths"]
    measured = widths.measure_widths(images=1)
    assert {key: each[0] for key, each in measured.items()} == pytest.approx(
        {k: v[0] for k, v in stored.items()}, abs=0.01
    )
    assert {len(each) for each in stored.values()} == {widths.IMAGES}
    text = page({"settings": {}, "mistakes": {}, "widths": stored})
    assert all(line in text for line in widths.widths_table({"widths": stored}))


def test_the_command_prints_the_table_stores_the_numbers_and_draws(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
):
    kept: dict = {"settings": {}, "mistakes": {"old": {}}}
    found = {f"{widths.name_of(pair)}: {measure}": [0.5, 0.75] for pair in widths.PAIRS for measure in widths.MEASURES}
    monkeypatch.setattr("replication.__main__.read_results", lambda: kept)
    monkeypatch.setattr("replication.__main__.write_results", json.dumps)
    monkeypatch.setattr("replication.__main__.measure_widths", lambda: found)
    assert main(["sigma", "--figure", str(tmp_path / "drawn.png")]) == 0
    assert kept == {"settings": {}, "mistakes": {"old": {}}, "widths": found}
    assert "| 0.2 | 1.2 | 0.625 ± 0.18 (n = 2) |" in capsys.readouterr().out
    assert (tmp_path / "drawn.png").stat().st_size > 1000
