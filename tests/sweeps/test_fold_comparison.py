"""Settings are compared fold by fold: seeds within a fold are averaged, and the variance is Nadeau and Bengio's."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support import Command, Outcome
from sweep_support import Made, Values
from test_scored import FOLDER, groups, partition, record

from segsweep.data.demo import write_demo_folder
from segsweep.errors import UserError
from segsweep.sweeps import statistics
from segsweep.sweeps.folds import compare_folds, shared_training
from segsweep.sweeps.ranking import COLUMNS, Comparison, compare
from segsweep.sweeps.report import report_lines
from segsweep.sweeps.scored import scoring

FOLDS = 5
FEW = settings(max_examples=25, deadline=None)
GRIDS = st.tuples(st.integers(2, 4), st.integers(2, FOLDS), st.integers(1, 3), st.integers(0, 10_000))


def grid(shape: tuple[int, int, int, int]) -> np.ndarray:
    """Scores [settings, folds, seeds]."""
    settings, folds, seeds, seed = shape
    return np.random.default_rng(seed).normal(0.7, 0.05, (settings, folds, seeds))


def jobs(scores: np.ndarray, tested: np.ndarray | None = None) -> pd.DataFrame:
    """A row per job of scores [settings, folds, seeds]; NaN failed."""
    rows = []
    for (setting, fold, seed), score in np.ndenumerate(scores):
        row = {"lr": setting, "data.fold": fold, "seed": seed, "data.folds": FOLDS, "objective": score}
        row["status"] = "failed" if math.isnan(score) else "completed"
        rows.append(row | {"test/iou": 0.5 if tested is None else tested[setting, fold, seed]})
    return pd.DataFrame(rows)


def compared(scores: np.ndarray, **options: Any) -> Comparison:
    return compare_folds(jobs(scores), ["lr"], mode="max", **options)


def same(one: Comparison, other: Comparison, columns: tuple[str, ...] = COLUMNS) -> None:
    pd.testing.assert_frame_equal(one.table[["lr", *columns]], other.table[["lr", *columns]], check_dtype=False)


@given(values=st.lists(st.floats(-1, 1), min_size=2, max_size=10), folds=st.integers(3, 12))
def test_the_variance_of_the_mean_is_that_of_nadeau_and_bengio(values: list[float], folds: int) -> None:
    found = statistics.standard_error(np.array(values), shared_training(folds)) ** 2
    # Of `folds` equal parts one is scored and folds - 2 train.
    assert found == pytest.approx((1 / len(values) + 1 / (folds - 2)) * np.var(values, ddof=1))


@FEW
@given(shape=GRIDS)
def test_p_values_and_intervals_are_those_of_a_t_test_on_the_means_of_the_folds(shape: tuple[int, ...]) -> None:
    scores = grid(shape)
    found = compared(scores)
    means = scores.mean(axis=2)
    k, n = means.shape
    order = np.argsort(-means.mean(axis=1))
    assert list(found.table["lr"]) == list(order)
    assert set(found.table["n"]) == {n} == {found.replicates}
    factor = math.sqrt(1 / n + 1 / (FOLDS - 2))
    for place, setting in enumerate(order):
        row = found.table.iloc[place]
        assert row["mean"] == pytest.approx(means[setting].mean())
        assert row["std"] == pytest.approx(means[setting].std(ddof=1))
        half = stats.t.ppf(0.975, n - 1) * means[setting].std(ddof=1) * factor
        assert (row["low"], row["high"]) == pytest.approx((row["mean"] - half, row["mean"] + half))
        t = [
            difference.mean() / (difference.std(ddof=1) * factor)
            for difference in (means[better] - means[setting] for better in order[:place])
        ]
        expected = min(1.0, (k - 1) * stats.t.sf(max(t), n - 1)) if t else 1.0
        assert row["p_best"] == pytest.approx(expected)


@FEW
@given(shape=GRIDS)
def test_seeds_that_repeat_the_values_of_a_fold_change_nothing(shape: tuple[int, ...]) -> None:
    scores = grid(shape)[:, :, :1]
    one = compared(scores)
    same(one, compared(np.repeat(scores, 3, axis=2)))
    plain = jobs(scores).drop(columns="seed")
    same(one, compare(plain, ["lr"], mode="max", seed="data.fold", shared=shared_training(FOLDS)))


@FEW
@given(shape=GRIDS, random=st.randoms(use_true_random=False))
def test_the_order_of_jobs_and_the_difficulty_of_a_fold_do_not_matter(shape: tuple[int, ...], random: Any) -> None:
    scores = grid(shape)
    table = jobs(scores)
    order = list(range(len(table)))
    random.shuffle(order)
    same(compared(scores), compare_folds(table.iloc[order], ["lr"], mode="max"))
    harder = scores - np.linspace(0, 0.3, scores.shape[1])[:, None]
    columns = ("difference", "p_best", "p")
    pd.testing.assert_frame_equal(
        compared(scores).table[["lr", *columns]], compared(harder).table[["lr", *columns]], rtol=1e-6
    )


@FEW
@given(shape=GRIDS)
def test_test_is_reported_over_folds_and_ranks_nothing(shape: tuple[int, ...]) -> None:
    scores = grid(shape)
    tested = np.random.default_rng(shape[3] + 1).random(scores.shape)
    found = compare_folds(jobs(scores, tested), ["lr"], mode="max")
    same(found, compared(scores))
    means = tested.mean(axis=2)
    for _, row in found.table.iterrows():
        own = means[int(row["lr"])]
        assert (row["test/iou mean"], row["test/iou std"]) == pytest.approx((own.mean(), own.std(ddof=1)))


def test_folds_and_seeds_that_not_every_setting_has_are_left_out_and_named() -> None:
    scores = grid((2, FOLDS, 2, 0))
    table = jobs(scores)
    extra = table[(table["lr"] == 0) & (table["seed"] == 1)].assign(seed=7, objective=0.99)
    found = compare_folds(pd.concat([table, extra]), ["lr"], mode="max")
    same(found, compared(scores))
    assert found.left_out == tuple(f"data.fold={fold},seed=7" for fold in range(FOLDS))


def test_a_setting_that_lost_a_fold_is_last_and_the_fold_is_named() -> None:
    scores = grid((3, FOLDS, 2, 0))
    best = int(scores.mean(axis=(1, 2)).argmax())
    scores[best, 3, 1] = math.nan
    last = compared(scores).table.iloc[-1]
    assert (last["lr"], last["missing"], last["standing"]) == (best, "data.fold=3 failed", "unstable")
    assert last["n"] == FOLDS - 1


def test_jobs_that_could_not_be_composed_or_have_no_fold_are_named_and_change_nothing_else() -> None:
    table = jobs(grid((3, FOLDS, 1, 0)))
    broken = table["lr"] == 2
    table.loc[broken, ["data.folds", "objective", "status"]] = [math.nan, math.nan, "failed"]
    table.loc[broken & (table["data.fold"] == 4), "data.fold"] = math.nan
    found = compare_folds(table, ["lr"], mode="max")
    assert (found.compared, found.replicates) == (2, FOLDS)
    missing = found.table["missing"].iloc[2].split(", ")
    assert {"data.fold=0 failed", "data.fold=none failed"} <= set(missing)
    assert compare_folds(table[broken], ["lr"], mode="max").compared == 0


def test_a_fold_that_is_hard_for_every_setting_is_no_collapse_and_one_for_a_single_setting_is() -> None:
    scores = grid((3, FOLDS, 1, 0))
    scores[:, 2] /= 3
    assert not compared(scores).table["unstable"].any()
    scores[1, 4] /= 2
    assert list(compared(scores).table.set_index("lr")["unstable"].sort_index()) == [False, True, False]


def test_the_verdict_of_folds_promises_no_level_and_counts_folds() -> None:
    verdict = compared(grid((2, FOLDS, 2, 0))).at_look(2, 0).verdict
    assert "over 5 folds" in verdict
    assert "Folds share training images, so the level is only approximate" in verdict
    assert not any(words in verdict for words in ("seed", "at most", "verdict 2"))


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_a_swept_fold_makes_no_groups_and_another_division_does(seeds: list[int]) -> None:
    settings = {"data._target_": FOLDER, "data.folds": 3}
    axes = {"data.fold": [0, 1, 2], "lr": [0.1, 0.2], "seed": seeds}
    assert not groups(record(axes, settings)).why
    found = groups(record({**axes, "data.split_seed": [4, 5]}, settings))
    assert found.axes == ("data.split_seed",)
    assert len(set(found.group.values())) == 2
    assert not groups(record({"data.fold": [0, 1, 2]}, settings)).why


def test_different_numbers_of_folds_make_groups() -> None:
    found = groups(record({"data.folds": [3, 4], "data.fold": [0, 1, 2]}, {"data._target_": FOLDER}))
    assert partition(found) == [0] * 3 + [1] * 3
    assert "sweep data.folds" not in found.why


@pytest.mark.parametrize(("key", "named"), [("data.split_seed", True), ("data.fractions", True), ("data.snap", False)])
def test_the_line_that_ranks_divisions_apart_names_folds_as_the_way(key: str, named: bool) -> None:
    why = groups(record({key: [0, 1]}, {"data._target_": FOLDER})).why
    assert ("sweep data.folds=5 data.fold=0,1,2,3,4" in why) == named


def test_settings_with_other_folds_are_not_compared() -> None:
    sweep = record({"lr": [0.1, 0.2], "data.fold": [0, 1, 2, 3]}, {"data._target_": FOLDER, "data.folds": 4})
    kept = [job for job in sweep.jobs if (job.settings["lr"] == 0.1) == (job.settings["data.fold"] < 2)]
    assert not scoring(sweep, kept).why
    table = jobs(grid((2, 4, 1, 0)))
    found = compare_folds(table[(table["lr"] == 0) == (table["data.fold"] < 2)], ["lr"], mode="max")
    assert found.compared == 1
    assert found.table["missing"].iloc[1] == "data.fold=2 not run, data.fold=3 not run"


def score(values: Values) -> float:
    return 0.9 - 0.1 * values["data.fold"] - values["lr"] + 0.01 * math.sin(7 * values["data.fold"] / values["lr"])


AXES = {"lr": [0.1, 0.2], "data.fold": [0, 1, 2], "seed": [0, 1]}


def test_jobs_are_ranked_within_their_fold_and_none_is_the_best(made: Made) -> None:
    sweep = made(AXES, score, common={"data.folds": 3})
    ranks = sweep.summary.groupby("data.fold")["rank"].apply(list)
    assert list(ranks) == [[1, 2, 3, 4]] * 3
    for _, own in sweep.summary.groupby("data.fold"):
        assert own["objective"].is_monotonic_decreasing
    with pytest.raises(UserError, match="fold"):
        sweep.best()
    assert "run to take" not in sweep.directory.summary_md.read_text()
    assert sweep.comparison.best == {"lr": 0.1}
    settings = pd.read_csv(sweep.directory.settings_csv)
    assert list(settings["n"]) == [3, 3]
    assert {"test/iou mean", "test/iou std"} <= set(settings)
    text = "\n".join(line.plain for line in report_lines(sweep.results, width=100))
    assert "test/iou ± std" in text
    assert "0.9000 ± 0.0000" in text
    assert max(map(len, text.split("\n\n")[0].splitlines())) <= 100
    assert "over 3 folds" in sweep.heatmap().get_suptitle()
    sweep.curves()


def test_a_final_training_is_the_run_to_take(made: Made) -> None:
    assert made(AXES, score, final=True, common={"data.folds": 3}).results.best is not None


def test_one_setting_has_its_mean_and_spread_over_folds_on_val_and_test(made: Made) -> None:
    sweep = made({"data.fold": [0, 1, 2]}, lambda values: score({"lr": 0.1, **values}), common={"data.folds": 3})
    verdict = sweep.comparison.verdict
    assert "over 3 folds" in verdict
    assert "test/iou 0.9" in verdict


def test_a_class_that_a_fold_lacks_is_named_with_the_fold(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = made(AXES, score, common={"data.folds": 3})
    for job in sweep.record.jobs:
        sweep.results.runs[job.directory].absent_classes = {"val": ["Car"]} if job.settings["data.fold"] == 1 else {}
    assert list(sweep.results.absent) == ["data.fold=1"]


TINY = [
    "data=folder", "data.root=scenes", "data.image_size=16", "data.batch_size=2", "data.samples_per_epoch=2",
    "model.widths=[4,4,8]", "model.head_width=4", "trainer.max_steps=1", "trainer.accelerator=cpu",
    "trainer.progress_bar=false", "callbacks.panel=null", "callbacks.confusion=null", "callbacks.graph=null",
    "callbacks.precision_recall=null", "logger=csv", "data.cache_dir=cache",
]  # fmt: skip


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    write_demo_folder(tmp_path / "scenes", scenes=(1, 1, 1), size=32)
    return tmp_path / "scenes"


@pytest.mark.quick
def test_a_sweep_over_folds_tests_each_image_once_and_ranks_settings(command: Command, scenes: Path, tmp_path: Path):
    outcome = command("train.py", "-m", *TINY, "data.folds=3", "data.fold=0,1,2", "lr=0.001,0.01", "name=cv")
    assert outcome.code == 0, outcome.err
    assert "Folds share training images" in outcome.out
    sweep = json.loads((tmp_path / "multirun/cv/sweep.json").read_text())
    assert [job["values"] for job in sweep["jobs"]] == [
        {"data.fold": fold, "lr": lr} for fold, lr in itertools.product(range(3), (0.001, 0.01))
    ]
    settings = pd.read_csv(tmp_path / "multirun/cv/settings.csv")
    table = pd.read_csv(tmp_path / "multirun/cv/summary.csv").groupby("lr")
    for name, column in (("mean", "objective"), ("test/iou mean", "test/iou")):
        assert dict(zip(settings["lr"], settings[name], strict=True)) == pytest.approx(dict(table[column].mean()))


def one_line(outcome: Outcome) -> str:
    assert outcome.code in (1, 2)
    (line,) = outcome.error_lines
    return line


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["data.fold=0,1"], "add data.folds=5"),
        (["data.folds=3", "lr=0.1,0.2"], "-m data.fold=0,1,2"),
        (["data.folds=2", "data.fold=0,1"], "type data.folds=3"),
        (["data.folds=three", "data.fold=0,1"], "data.folds=three"),
    ],
)
def test_a_cross_validation_that_cannot_be_is_refused_before_any_job(
    command: Command, scenes: Path, tmp_path: Path, typed: list[str], words: str
):
    assert words in one_line(command("train.py", "-m", *TINY, *typed))
    assert not list(tmp_path.glob("multirun/*"))


@pytest.mark.parametrize(
    "typed", [["data.folds=3"], ["data=rgb_demo", "data.fold=0"], ["+data.folds=3", "data.seed=1"]]
)
def test_images_that_are_made_have_no_folds_and_one_line_says_what_to_type(command: Command, typed: list[str]):
    line = one_line(command("train.py", *typed))
    assert "data=folder data.root=PATH" in line
    assert ("outputs/rgb_demo" if "data=rgb_demo" in typed else "seed=0,1,2") in line


def test_an_evaluation_on_a_folder_with_too_few_groups_names_split_all(command: Command, scenes: Path, tmp_path: Path):
    assert command("train.py", *TINY, "data.folds=3", "data.fold=2", "hydra.run.dir=run").code == 0
    assert command("evaluate.py", "run=run", "split=val").code == 0
    line = one_line(command("evaluate.py", "run=run", "data.folds=9"))
    assert "data.folds=9" in line
    assert "split=all" in line
    assert command("evaluate.py", "run=run", "data.fold=0").code == 0


def test_a_final_training_may_leave_the_folds(command: Command, scenes: Path, tmp_path: Path):
    final = 'hydra.sweeper.final=["data.folds=null","data.fold=null","seed=9"]'
    swept = [
        "data.folds=3",
        "data.fold=0,1,2",
        "lr=0.001,0.01",
        "data.fractions=[0.34,0.33,0.33]",
        "data.split=fraction",
    ]
    for search in ("grid", "coordinate"):
        outcome = command("train.py", "-m", *TINY, *swept, f"hydra/sweeper={search}", final, f"name={search}")
        assert outcome.code == 0, outcome.err
        (last,) = [
            job for job in json.loads((tmp_path / f"multirun/{search}/sweep.json").read_text())["jobs"]
            if job["stage"] == "final"
        ]  # fmt: skip
        assert last["status"] == "completed"
        assert last["values"]["data.fold"] is None
        assert "evaluate.py" in outcome.out
