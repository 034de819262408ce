"""Tests the comparison of settings against scipy, by its invariances, and by how often it is wrong."""

import itertools
import json
import math
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import special, stats
from support import ROOT

from segsweep.sweeps import statistics
from segsweep.sweeps.grouping import Group, common_seeds, entry_key
from segsweep.sweeps.looks import last_look, look_now, next_level, ranges
from segsweep.sweeps.ranking import COLUMNS, Comparison, compare
from segsweep.sweeps.scale import Scale, scale_of
from segsweep.sweeps.scored import compare_apart
from segsweep.sweeps.state import Job, SweepRecord
from segsweep.sweeps.statistics import LEVEL, SHAFFER_UP_TO, equal_pairs, judge, p_best, unstable


def jobs(values: Iterable[Iterable[float | str | None]]) -> pd.DataFrame:
    """Makes a table of jobs: a row per setting, a value per seed. Text is another status than completed; None is no job."""
    rows = []
    for lr, row in enumerate(values):
        for seed, value in enumerate(row):
            if value is not None:
                status, number = (value, math.nan) if isinstance(value, str) else ("completed", value)
                rows.append({"lr": lr, "seed": seed, "objective": number, "status": status})
    return pd.DataFrame(rows)


def verdicts(comparison: Comparison) -> dict[Any, str]:
    return dict(zip(comparison.table["lr"], comparison.table["verdict"], strict=True))


def drawn(seed: int, k: int, n: int, step: float = 3.0) -> np.ndarray:
    """Random values of k settings. Each is worse than the one before by `step` paired standard deviations."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal((k, n)) / np.sqrt(2) + generator.standard_normal(n) - step * np.arange(k)[:, None]


def shaffer_by_hand(values: np.ndarray) -> dict[tuple[int, int], float]:
    """Adjusted p of every pair, from scipy's t-test and all partitions of the settings."""
    k = len(values)
    p = {pair: stats.ttest_rel(values[pair[0]], values[pair[1]]).pvalue for pair in itertools.combinations(range(k), 2)}
    classes = itertools.product(range(k), repeat=k)  # the class of each setting; equal settings share one
    equal = {sum(a == b for a, b in itertools.combinations(labels, 2)) for labels in classes}
    adjusted, largest = {}, 0.0
    for rejected, (pair, value) in enumerate(sorted(p.items(), key=lambda item: item[1])):
        count = max([1, *(entry for entry in equal if entry <= len(p) - rejected)])
        largest = max(largest, min(1.0, value * count))
        adjusted[pair] = largest
    return adjusted


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("k", "n"), [(2, 2), (2, 5), (3, 3), (4, 4), (5, 3)])
def test_p_values_are_those_of_scipys_paired_t_test_corrected_over_all_pairs(seed: int, k: int, n: int) -> None:
    values = drawn(seed, k, n)
    comparison = compare(jobs(values), ["lr"], mode="max")
    adjusted = shaffer_by_hand(values)
    best = int(values.mean(axis=1).argmax())
    assert comparison.best == {"lr": best}
    for _, row in comparison.table.iloc[1:].iterrows():
        p = adjusted[min(best, row["lr"]), max(best, row["lr"])]
        assert row["p"] == pytest.approx(p, rel=1e-9)
        assert row["verdict"] == ("worse" if p <= LEVEL else "not distinguishable")
    assert comparison.pairs == k * (k - 1) // 2


@pytest.mark.parametrize("seed", range(5))
def test_with_many_settings_p_values_are_corrected_by_holm(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = drawn(seed, 5, 3)
    by_shaffer = compare(jobs(values), ["lr"], mode="max")
    assert "Holm-Shaffer correction over all 10 pairs" in by_shaffer.verdict
    monkeypatch.setattr(statistics, "SHAFFER_UP_TO", 4)
    comparison = compare(jobs(values), ["lr"], mode="max")
    best = int(values.mean(axis=1).argmax())
    p = [stats.ttest_rel(values[one], values[other]).pvalue for one, other in itertools.combinations(range(5), 2)]
    adjusted = dict(zip(itertools.combinations(range(5), 2), statistics.holm(np.array(p)), strict=True))
    for _, row in comparison.table.iloc[1:].iterrows():
        assert row["p"] == pytest.approx(adjusted[min(best, row["lr"]), max(best, row["lr"])], rel=1e-9)
    assert (comparison.table["p"].iloc[1:] >= by_shaffer.table["p"].iloc[1:]).all()
    assert "Holm correction over all 10 pairs" in comparison.verdict


def test_hundreds_of_settings_are_compared_in_seconds() -> None:
    values = drawn(0, SHAFFER_UP_TO + 1, 3, step=0.1)
    started = time.process_time()
    assert compare(jobs(values), ["lr"], mode="max").compared == SHAFFER_UP_TO + 1
    assert time.process_time() - started < 5


@pytest.mark.parametrize("block", [1, 4, 10])
def test_pairs_are_tested_in_blocks_of_any_size(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = judge(drawn(0, 5, 3))
    monkeypatch.setattr(statistics, "_BLOCK", block)
    assert judge(drawn(0, 5, 3)) == expected


def test_mean_deviation_and_interval_are_scipys() -> None:
    values = drawn(0, 4, 5)
    table = compare(jobs(values), ["lr"], mode="min").table
    assert list(table["mean"]) == sorted(table["mean"])
    for _, row in table.iterrows():
        own = values[int(row["lr"])]
        low, high = stats.t.interval(0.95, 4, own.mean(), stats.sem(own))
        assert row[["mean", "std", "low", "high"]].tolist() == pytest.approx([own.mean(), own.std(ddof=1), low, high])
        assert row["difference"] == pytest.approx(own.mean() - table["mean"].iloc[0])


def test_equal_pairs_are_those_that_partitions_allow() -> None:
    assert equal_pairs(2) == (1,)
    assert equal_pairs(3) == (3, 1, 1)
    assert equal_pairs(4) == (6, 3, 3, 3, 2, 1)
    assert equal_pairs(1) == ()
    for k in (9, 30):
        pairs = k * (k - 1) // 2
        assert all(1 <= count <= pairs - rejected for rejected, count in enumerate(equal_pairs(k)))


@pytest.mark.parametrize("seed", range(20))
def test_from_the_detectable_difference_on_a_setting_is_ruled_out(seed: int) -> None:
    table = compare(jobs(drawn(seed, 6, 3)), ["lr"], mode="max").table.iloc[1:]
    shown = table["difference"].abs() >= table["detectable"]
    assert (table["standing"][shown] == "ruled out").all()
    pair = compare(jobs(drawn(seed, 2, 3)), ["lr"], mode="max").table.iloc[1]
    assert (abs(pair["difference"]) >= pair["detectable"]) == (pair["standing"] == "ruled out")


# Sums of these values and their products with powers of two are exact, so the laws hold bit for bit.
exact = st.integers(-40, 40).map(lambda number: number / 16)
sweeps = st.tuples(st.integers(2, 5), st.integers(1, 5)).flatmap(
    lambda shape: st.lists(st.lists(exact, min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0])
)


anything = st.one_of(exact, st.sampled_from(["failed", "diverged", "running", "pending", None, math.nan]))


@given(st.lists(st.lists(anything, min_size=1, max_size=4), min_size=1, max_size=5), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_jobs_does_not_matter(values: list[list[float | str | None]], random: Any) -> None:
    table = jobs(values)
    assume(len(table))
    order = list(range(len(table)))
    random.shuffle(order)
    expected, shuffled = (compare(rows, ["lr"], mode="max") for rows in (table, table.iloc[order]))
    pd.testing.assert_frame_equal(expected.table, shuffled.table)
    assert expected.verdict == shuffled.verdict
    compared = expected.table["missing"] == ""
    assert compared.sum() == expected.compared == compared.iloc[: expected.compared].sum()
    assert (expected.table["verdict"][~compared] == "no statement").all()
    assert (expected.table["n"][compared] == expected.replicates).all()


@given(sweeps, st.permutations(range(5)))
@settings(max_examples=100, deadline=None)
def test_names_of_seeds_and_settings_do_not_matter(values: list[list[float]], names: list[int]) -> None:
    table = jobs(values)
    renamed = table.assign(seed=[100 + names[seed] for seed in table["seed"]])
    expected = compare(table, ["lr"], mode="max")
    pd.testing.assert_frame_equal(expected.table, compare(renamed, ["lr"], mode="max").table)
    renamed = table.rename(columns={"lr": "optim.lr"}).assign(**{"optim.lr": [f"x{lr}" for lr in table["lr"]]})
    again = compare(renamed, ["optim.lr"], mode="max").table
    assert [f"x{lr}" for lr in expected.table["lr"]] == again["optim.lr"].tolist()
    pd.testing.assert_frame_equal(expected.table[list(COLUMNS)], again[list(COLUMNS)])


@given(sweeps, st.sampled_from([0.25, 1.0, 8.0]), st.integers(-3, 3))
@settings(max_examples=100, deadline=None)
def test_unit_and_origin_of_the_objective_do_not_matter(values: list[list[float]], scale: float, shift: int) -> None:
    expected = compare(jobs(values), ["lr"], mode="max").table
    scaled = compare(jobs(scale * np.array(values) + shift), ["lr"], mode="max").table
    assert expected[["lr", "n", "verdict"]].equals(scaled[["lr", "n", "verdict"]])
    np.testing.assert_allclose(scaled["p"], expected["p"], rtol=1e-6)
    for column in ("std", "difference", "detectable"):
        np.testing.assert_allclose(scaled[column], scale * expected[column], rtol=1e-6, atol=1e-12)


@given(sweeps)
@settings(max_examples=100, deadline=None)
def test_min_is_max_of_the_negated_values(values: list[list[float]]) -> None:
    least = compare(jobs(values), ["lr"], mode="min").table
    most = compare(jobs(-np.array(values)), ["lr"], mode="max").table
    same = ["lr", "n", "std", "p", "detectable", "verdict"]
    pd.testing.assert_frame_equal(least[same], most[same])
    np.testing.assert_array_equal(least["difference"], -most["difference"])


def test_an_effect_of_the_seed_that_all_settings_share_does_not_matter() -> None:
    values = drawn(0, 5, 4)
    shared = values + 100 * np.random.default_rng(1).standard_normal(4)
    plain, shifted = (compare(jobs(entry), ["lr"], mode="max").table for entry in (values, shared))
    np.testing.assert_allclose(shifted["p"], plain["p"], rtol=1e-6)
    assert shifted["verdict"].equals(plain["verdict"])


def false_alarms(k: int, n: int, sigma: np.ndarray, sweeps: int = 2000) -> int:
    generator = np.random.default_rng(k * 1000 + n)
    alarms = 0
    for values in generator.standard_normal((sweeps, k, n)) * sigma[:, None] + generator.standard_normal(
        (sweeps, 1, n)
    ):
        best_first = values[np.argsort(-values.mean(axis=1))]
        alarms += any(row["verdict"] == "worse" for row in judge(best_first))
    return alarms


@pytest.mark.quick
@pytest.mark.parametrize("spread", ["equal", "unequal"])
@pytest.mark.parametrize(("k", "n"), [(2, 2), (2, 3), (3, 3), (3, 10), (9, 3), (9, 10), (30, 5)])
def test_of_equal_settings_any_is_called_worse_in_at_most_5_percent_of_sweeps(k: int, n: int, spread: str) -> None:
    sigma = np.ones(k) if spread == "equal" else np.logspace(0, 3, k)
    bound = stats.binom.isf(1e-3, 2000, LEVEL)  # a true rate of 5 % exceeds this in one of 1,000 tries
    assert false_alarms(k, n, sigma) <= bound


def test_the_simulation_can_fail() -> None:
    """A correction over the comparisons with the best alone fails, because the same data chose the best."""
    generator = np.random.default_rng(0)
    alarms = 0
    for values in generator.standard_normal((500, 9, 10)):
        values = values[np.argsort(-values.mean(axis=1))]
        alarms += stats.ttest_rel(values[:1].repeat(8, axis=0), values[1:], axis=1).pvalue.min() * 8 <= LEVEL
    assert alarms > stats.binom.isf(1e-3, 500, LEVEL)


def test_large_differences_are_found() -> None:
    called = [verdicts(compare(jobs(drawn(seed, 3, 3, step=20)), ["lr"], mode="max")) for seed in range(50)]
    assert all(entry == {0: "best", 1: "worse", 2: "worse"} for entry in called)


def test_with_one_replicate_there_is_no_statement() -> None:
    comparison = compare(jobs([[0.1], [0.9], [0.5]]), ["lr"], mode="max", name="val/iou")
    assert comparison.table["lr"].tolist() == [1, 2, 0]
    assert set(comparison.table["verdict"]) == {"no statement"}
    assert comparison.table[["std", "low", "high", "p", "detectable"]].isna().all(axis=None)
    assert comparison.table["difference"].tolist() == pytest.approx([0, -0.4, -0.8])
    assert set(comparison.table["standing"]) == {"untested"}
    (line,) = comparison.sentences()
    assert all(part in line for part in ("lr=1 has the highest val/iou 0.9", "One seed", "seeds that had no part"))


def test_settings_with_the_same_values_are_not_distinguishable() -> None:
    comparison = compare(jobs([[0.4, 0.5, 0.45]] * 3), ["lr"], mode="max")
    assert verdicts(comparison) == {0: "best", 1: "not distinguishable", 2: "not distinguishable"}
    assert comparison.table["p"].tolist()[1:] == [1, 1]
    assert comparison.table["standing"].tolist() == ["leader", "contender", "contender"]
    assert "lr=1 (the same values); lr=2 (the same values)." in comparison.verdict


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_a_difference_that_is_the_same_for_every_seed_is_not_called_real(seeds: int) -> None:
    best = np.linspace(0.9, 0.97, seeds)
    comparison = compare(jobs([best, best - 0.1]), ["lr"], mode="max")
    assert verdicts(comparison) == {0: "best", 1: "no statement"}
    assert math.isnan(comparison.table["p"].iloc[1])
    assert comparison.table["standing"].tolist() == ["leader", "untested"]
    assert comparison.sentences()[1] == "Not tested: lr=1 (-0.1 for every seed, so chance cannot be judged)."


@pytest.mark.parametrize("ended", ["failed", "diverged", math.nan, math.inf])
def test_a_setting_that_lost_a_replicate_is_last_and_named_however_good_its_mean(ended: str | float) -> None:
    comparison = compare(jobs([[0.99, ended, 0.99], [0.5, 0.51, 0.53], [0.1, 0.2, 0.1]]), ["lr"], mode="max")
    assert comparison.table["lr"].tolist() == [1, 2, 0]
    last = comparison.table.iloc[-1]
    assert (last["n"], last["mean"], last["verdict"]) == (2, pytest.approx(0.99), "no statement")
    assert last["difference"] == pytest.approx(0.99 - 0.515)
    why = ended if isinstance(ended, str) else "has no finite value"
    assert last["missing"] == f"seed=1 {why}"
    assert (last["standing"], last["unstable"]) == ("unstable", True)
    assert f"Unstable: lr=0 (seed=1 {why})." in comparison.sentences()


def test_the_objective_of_a_job_that_did_not_complete_is_not_used() -> None:
    table = jobs([[0.5, 0.6], [0.1, 0.2]])
    table.loc[0, ["status", "objective"]] = ["diverged", 0.99]
    comparison = compare(table, ["lr"], mode="max")
    assert comparison.table["lr"].tolist() == [1, 0]
    assert comparison.table["mean"].tolist() == pytest.approx([0.15, 0.6])


def test_unfinished_settings_come_before_those_that_lost_a_replicate() -> None:
    values = [
        [0.9, 0.9, "failed"],
        ["diverged", "failed", 0.9],
        [0.1, None, "pending"],
        [0.3, 0.2, 0.1],
        [0.4, 0.5, 0.4],
    ]
    comparison = compare(jobs(values), ["lr"], mode="max")
    assert comparison.table["lr"].tolist() == [4, 3, 2, 0, 1]
    assert comparison.compared == 2


def test_an_interrupted_sweep_is_compared_over_the_seeds_that_most_settings_have() -> None:
    seeds_last = [[0.1, 0.2, 0.4, 0.3], [0.2, 0.4, 0.3, None], [0.1, 0.1, 0.3, None], [0.3, 0.4, 0.1, "running"]]
    comparison = compare(jobs(seeds_last), ["lr"], mode="max")
    assert (comparison.compared, comparison.replicates, comparison.left_out) == (4, 3, ("seed=3",))
    assert comparison.table["n"].tolist() == [3] * 4
    assert any(line.startswith("Not used") and "seed=3" in line for line in comparison.sentences())

    seeds_first = [[0.1, 0.2, 0.4], [0.2, 0.4, 0.3], [0.9, None, None], [None, None, "pending"]]
    comparison = compare(jobs(seeds_first), ["lr"], mode="max")
    assert (comparison.compared, comparison.replicates, comparison.left_out) == (2, 3, ())
    assert comparison.table["lr"].tolist() == [1, 0, 2, 3]
    assert comparison.table["missing"].tolist()[2:] == [
        "seed=1 not run, seed=2 not run",
        "seed=0 not run, seed=1 not run, seed=2 pending",
    ]


@given(st.lists(st.tuples(st.frozensets(st.integers(0, 4)), st.booleans()), min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_common_seeds_keep_the_most_runs_of_all_choices(have: list[tuple[frozenset[int], bool]]) -> None:
    groups = [
        Group((), {}, {entry_key(seed): 0.5 for seed in seeds}, {entry_key(9): "failed"} if lost else {})
        for seeds, lost in have
    ]
    whole = [seeds for seeds, lost in have if seeds and not lost]
    kept = {
        seeds: len(seeds) * sum(seeds <= own for own in whole)
        for seeds in {one & other for one in whole for other in whole} - {frozenset()}
    }
    found = frozenset(int(number) for _, number, _ in common_seeds(groups))
    if kept:
        assert kept[found] == max(kept.values())
        assert all(len(seeds) <= len(found) for seeds in kept if kept[seeds] == kept[found])
    else:
        assert found == frozenset().union(*(seeds for seeds, _ in have))


def test_without_a_complete_setting_nothing_is_best() -> None:
    comparison = compare(jobs([[0.9, "failed"], ["diverged", 0.5]]), ["lr"], mode="max")
    assert comparison.best is None
    assert set(comparison.table["verdict"]) == {"no statement"}
    assert "lr=" not in comparison.sentences()[0]
    assert compare(jobs([["pending", "pending"], ["failed", "pending"]]), ["lr"], mode="max").best is None


def test_a_single_setting_has_nothing_to_compare_it_with() -> None:
    comparison = compare(jobs([[0.1, 0.2]]), [], mode="max", name="val/iou")
    (only,) = comparison.sentences()
    assert all(part in only for part in ("One setting only", "val/iou 0.150 ± 0.071 over 2 seeds"))
    use, unstable = compare(jobs([[0.18, 0.2], ["failed", 0.3]]), ["lr"], mode="max").sentences()
    assert use == "Use: lr=0 (objective 0.190 ± 0.014 over 2 seeds)."
    assert unstable == "Unstable: lr=1 (seed=0 failed)."


def test_the_verdict_says_what_to_use_what_may_be_as_good_and_what_to_drop() -> None:
    values = [
        [0.98, 0.981, 0.982],
        [0.9801, 0.9807, 0.9813],
        [0.2, 0.2011, 0.2018],
        [0.98, 0.2, 0.98],
        [0.1, "failed", 0.1],
    ]
    said = compare(jobs(values), ["lr"], mode="max", name="val/iou").sentences()
    use, equal, unstable, out, how, worse, limit = said
    assert use == "Use: lr=0 (val/iou 0.9810 ± 0.0010 over 3 seeds)."
    assert equal == "May be as good: lr=1 (-0.0003)."
    assert unstable == "Unstable: lr=3 (val/iou 0.72 ± 0.45 over 3 seeds); lr=4 (seed=1 failed)."
    assert out == "Ruled out: lr=2 (-0.78)."
    assert all(part in how for part in ("one-sided paired t-tests", "4 settings", "5 %"))
    assert worse == "Worse than lr=0 (two-sided paired t-tests, Holm-Shaffer correction over all 6 pairs, 5 %): lr=2."
    assert limit.startswith("With 3 seeds, only a difference to the leader of about 0.001")
    (first, *_) = compare(jobs(values[:3]), ["lr"], mode="min").sentences()
    assert first.startswith("Use: lr=2 (objective 0.20097 ± 0.00091")


def test_settings_differ_by_value_not_by_type() -> None:
    rows = [
        {"momentum": momentum, "nesterov": nesterov, "seed": seed, "objective": 0.5 + seed / 10}
        for momentum, nesterov in [(None, True), (0.9, True), (1, True), (1.0, False), ("auto", False)]
        for seed in (0, 1)
    ]
    comparison = compare(pd.DataFrame(rows), ["momentum", "nesterov"], mode="max", status=None)
    assert comparison.compared == 5
    assert comparison.table["momentum"].tolist() == [0.9, 1, 1, "auto", None]  # equal means: by their values
    assert "Use: momentum=0.9, nesterov=true (" in comparison.verdict
    assert "momentum=null, nesterov=true (the same values)" in comparison.verdict


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="objective"), "'objective'.*: lr, seed, status$"),
        (lambda table: table.drop(columns="status"), "'status'"),
        (lambda table: table.iloc[:0], "no rows"),
        (lambda table: pd.concat([table, table.iloc[:1]]), "lr=0 .*seed=0"),
        (lambda table: table.assign(seed=[0, 1, 0, None]), "lr=1 .*'seed'"),
        (lambda table: table.assign(objective="high"), "'objective'"),
    ],
)
def test_a_table_that_cannot_be_compared_is_refused(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(change(jobs([[0.1, 0.2], [0.3, 0.4]])), ["lr"], mode="max")


def test_names_that_clash_and_unknown_modes_are_refused() -> None:
    table = jobs([[0.1, 0.2], [0.3, 0.4]])
    with pytest.raises(ValueError, match="'n'"):
        compare(table.rename(columns={"lr": "n"}), ["n"], mode="max")
    with pytest.raises(ValueError, match="'seed'"):
        compare(table, ["lr", "seed"], mode="max")
    with pytest.raises(ValueError, match="mode='maximum': "):
        compare(table, ["lr"], mode="maximum")  # type: ignore[arg-type]


# Jobs scored on different images


@given(st.lists(st.lists(anything, min_size=2, max_size=3), min_size=2, max_size=5), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_a_group_is_compared_as_if_the_others_were_not_there(
    values: list[list[float | str | None]], random: Any
) -> None:
    table = jobs(values)
    assume(len(table))
    table["split"] = table["lr"] % 2
    order = list(range(len(table)))
    random.shuffle(order)
    apart = compare_apart(
        table.iloc[order].assign(on=[f"split={split}" for split in table["split"].iloc[order]]), ["split", "lr"],
        scored="on", why="split parts", apart=["split"], mode="max",
    )  # fmt: skip
    alone = {f"split={split}": compare(rows, ["split", "lr"], mode="max") for split, rows in table.groupby("split")}
    if len(alone) == 1:
        pd.testing.assert_frame_equal(apart.table, next(iter(alone.values())).table)
        return
    assert apart.best is None
    assert (apart.compared, apart.left_out, apart.identical) == (0, (), ())
    assert list(apart.parts) == list(alone)
    for name, part in apart.parts.items():
        pd.testing.assert_frame_equal(part.table, alone[name].table)
        assert part.best == alone[name].best
    assert len(apart.table) == sum(len(part.table) for part in apart.parts.values())
    assert apart.pairs == sum(part.pairs for part in alone.values())
    assert list(dict.fromkeys(line.partition(": ")[0] for line in apart.sentences())) == ["split parts.", *alone]


# Settings without effect


def without_effect(comparison: Comparison) -> list[str]:
    return [sentence for sentence in comparison.sentences() if "no effect here" in sentence]


@given(sweeps, st.integers(0, 4), st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_a_key_without_effect_is_named_only_if_all_values_are_equal(
    values: list[list[float]], place: int, seed: int
) -> None:
    values = [[value + 100 * lr for value in row] for lr, row in enumerate(values)]  # no two are equal
    assert not without_effect(compare(jobs(values), ["lr"], mode="max"))
    once = jobs(values).assign(optim="sgd")
    twice = pd.concat([once, once[once["lr"] == place % len(values)].assign(optim="adam")], ignore_index=True)
    (said,) = without_effect(compare(twice, ["optim", "lr"], mode="max"))
    assert said.startswith("optim has no effect here: ")
    assert f"optim=adam, lr={place % len(values)}; optim=sgd, lr={place % len(values)}" in said
    row = len(once) + seed % len(values[0])
    for other in (twice["objective"][row] + 2**-20, math.inf):
        changed = twice.copy()
        changed.loc[row, "objective"] = other
        enough = math.isinf(other) and len(values[0]) > 1  # equal for the seeds that both completed
        assert len(without_effect(compare(changed, ["optim", "lr"], mode="max"))) == enough


def test_settings_without_a_common_seed_are_not_called_identical() -> None:
    assert not without_effect(compare(jobs([[0.5, None], [None, 0.5]]), ["lr"], mode="max"))
    assert not without_effect(compare(jobs([[math.nan, math.nan]] * 2), ["lr"], mode="max"))
    # They differ for a seed that the comparison leaves out.
    values = [[0.5, 0.5, 0.7], [0.5, 0.5, 0.6], [0.1, 0.2, None], [0.2, 0.1, None], [0.3, 0.1, None], [0.4, 0.1, None]]
    comparison = compare(jobs(values), ["lr"], mode="max")
    assert comparison.left_out == ("seed=2",)
    assert not without_effect(comparison)


def test_pairs_without_effect_share_a_sentence() -> None:
    rows = [
        {"optim": optim, "nesterov": nesterov, "lr": lr, "seed": seed, "objective": lr + 0.1 * seed}
        | ({"objective": lr + 0.2 * seed - nesterov} if optim == "sgd" else {})
        for optim in ("sgd", "adam") for nesterov in (False, True) for lr in (0.1, 0.2, 0.3) for seed in (0, 1)
    ]  # fmt: skip
    (said,) = without_effect(compare(pd.DataFrame(rows), ["optim", "nesterov", "lr"], mode="max", status=None))
    assert said.startswith("nesterov has no effect here: ")
    assert "2 more cases" in said


# The set of the best


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("k", "n"), [(2, 2), (3, 3), (5, 4), (9, 10)])
def test_p_best_is_scipys_smallest_one_sided_p_times_the_number_of_others(seed: int, k: int, n: int) -> None:
    values = drawn(seed, k, n, step=1.0)
    means = values.mean(axis=1)
    found = p_best(values, means)
    for place in range(k):
        better = [other for other in range(k) if means[other] > means[place]]
        p = [stats.ttest_rel(values[other], values[place], alternative="greater").pvalue for other in better]
        assert found[place] == pytest.approx(min(1, *((k - 1) * each for each in p), 1), rel=1e-9)


@given(sweeps, st.integers(0, 4))
@settings(max_examples=100, deadline=None)
def test_the_best_mean_is_never_ruled_out_and_more_settings_make_p_best_no_smaller_alone(
    values: list[list[float]], place: int
) -> None:
    scores = np.array(values)
    if scores.shape[1] < 2:
        assert np.isnan(p_best(scores, scores.mean(axis=1))).all()
        return
    found = p_best(scores, scores.mean(axis=1))
    assert found[int(scores.mean(axis=1).argmax())] == 1
    # A copy of a setting beats nobody that the setting does not beat: only the correction grows.
    more = np.vstack([scores, scores[place % len(scores)]])
    again = p_best(more, more.mean(axis=1))[: len(scores)]
    known = ~np.isnan(found) & ~np.isnan(again)
    assert (again[known] >= found[known] - 1e-12).all()


@given(sweeps)
@settings(max_examples=100, deadline=None)
def test_standings_follow_from_p_best_and_instability(values: list[list[float]]) -> None:
    table = compare(jobs(values), ["lr"], mode="max").table
    out = table["p_best"] <= LEVEL
    assert (out == (table["standing"] == "ruled out")).all()
    assert (table["p_best"].isna() == (table["standing"] == "untested")).all()
    left = table[~out & table["p_best"].notna()]
    assert (left["standing"] == "leader").tolist() == [True, *[False] * (len(left) - 1)][: len(left)]
    others = left[left["standing"] != "leader"]
    assert (others["unstable"] == (others["standing"] == "unstable")).all()


def test_the_seven_settings_of_the_design_sweep_have_the_p_best_that_was_recomputed_independently() -> None:
    stored = json.loads((ROOT / "docs/measured/replication.json").read_text())["settings"]
    names = [
        "texture_rates: Adam 0.001", "texture_rates: Adam 0.01", "texture_rates: Adam 0.1", "texture_optimizers: RMSprop",
        "texture_sgd_rates: 0.001", "texture_sgd_rates: 0.01", "texture_sgd_rates: 0.1",
    ]  # fmt: skip
    values = np.array([[run["metrics"]["val/iou"] for run in stored[name]["runs"][:3]] for name in names])
    found = p_best(values, values.mean(axis=1)) * 8 / 6  # corrected for the nine settings of the sweep
    assert found[[2, 4, 5]] == pytest.approx([0.045, 0.0076, 0.0033], abs=5e-4)


def ruled_out_wrongly(k: int, n: int, sigma: np.ndarray, sweeps: int = 2000) -> int:
    """In how many sweeps of equal settings the first is ruled out."""
    generator = np.random.default_rng(k * 1000 + n)
    drawn = generator.standard_normal((sweeps, k, n)) * sigma[:, None] + generator.standard_normal((sweeps, 1, n))
    return sum(p_best(values, values.mean(axis=1))[0] <= LEVEL for values in drawn)


@pytest.mark.quick
@pytest.mark.parametrize("spread", ["equal", "unequal"])
@pytest.mark.parametrize(("k", "n"), [(4, 3), (2, 2), (9, 3), (9, 10), (36, 5)])
def test_a_best_setting_is_ruled_out_in_at_most_5_percent_of_sweeps(k: int, n: int, spread: str) -> None:
    sigma = np.ones(k) if spread == "equal" else np.logspace(0, 3, k)
    assert ruled_out_wrongly(k, n, sigma) <= stats.binom.isf(1e-3, 2000, LEVEL)


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_collapse_is_unstable_and_noise_is_not(seeds: int) -> None:
    calm = 0.98 + 0.003 * np.random.default_rng(seeds).standard_normal((4, seeds))
    assert not unstable(calm, "max").any()
    assert not unstable(calm, "min").any()
    broken = calm.copy()
    broken[1:3, 0] /= 2
    assert unstable(broken, "max").tolist() == [False, True, True, False]
    broken[1:3, 0] *= 10
    assert unstable(broken, "min").tolist() == [False, True, True, False]


@pytest.mark.parametrize("constant", [2, 3])
def test_a_setting_behind_a_constant_difference_is_not_tested_and_the_leader_is(constant: int) -> None:
    table = compare(jobs([[0.9] * 3, *[[0.8] * 3] * constant]), ["lr"], mode="max").table
    assert table["standing"].tolist() == ["leader", *["untested"] * constant]


def test_a_setting_with_a_better_mean_is_not_ruled_out_by_an_unstable_one() -> None:
    """On the logit scale the second is better, though its mean is not."""
    steady = 0.95 + 0.0008 * np.linspace(-1, 1, 10)
    values = [steady, [*[0.999] * 9, 0.5]]
    table = compare(jobs(values), ["lr"], mode="max", scale="logit").table
    assert table["lr"].tolist() == [0, 1]
    assert table["standing"].tolist() == ["leader", "unstable"]


# Scales


@given(st.lists(st.floats(0, 1), min_size=2, max_size=5))
@settings(deadline=None)
def test_the_interval_of_a_share_stays_within_0_and_1(values: list[float]) -> None:
    row = compare(jobs([values]), [], mode="max", scale="logit", pixels=1000).table.iloc[0]
    assert 0 <= row["low"] <= row["high"] <= 1


@given(st.floats(1e-3, 1 - 1e-3))
def test_scales_and_their_inverses_cancel(value: float) -> None:
    for name in ("raw", "log", "logit"):
        scale = Scale(name)
        assert float(scale.back(scale.forward(value))) == pytest.approx(value)
        assert scale.step(value, float(scale.forward(value / 2) - scale.forward(value))) == pytest.approx(value / 2)


def test_a_difference_beyond_what_is_possible_could_not_have_shown() -> None:
    values = [[0.98, 0.981], [0.9999, 0.3]]
    comparison = compare(jobs(values), ["lr"], mode="max", scale="logit")
    assert math.isinf(comparison.table["detectable"].iloc[1])
    assert "no difference could have shown for lr=1" in comparison.verdict


def test_on_a_scale_the_tests_are_those_of_the_transformed_values() -> None:
    values = 1 / (1 + np.exp(-drawn(3, 5, 4)))
    on_scale, raw = (
        compare(jobs(entry), ["lr"], mode="max", scale=scale).table.set_index("lr").sort_index()
        for entry, scale in ((values, "logit"), (special.logit(values), "raw"))
    )
    np.testing.assert_allclose(on_scale["p_best"], raw["p_best"], rtol=1e-6)
    np.testing.assert_allclose(on_scale["p"], raw["p"], rtol=1e-6)
    np.testing.assert_allclose(on_scale["mean"], values.mean(axis=1))


def test_the_scale_follows_the_metric() -> None:
    assert scale_of("val/iou", [0.5, 1.0]) == "logit"
    assert scale_of("val/loss", [0.5, 10.0]) == "log"
    assert scale_of("val/iou", [0.5, math.nan, 1.5]) == "raw"


# Looks


def record_of(
    statuses: list[str], looks: list[dict[str, Any]] | None = None, asked: list[int] | None = None
) -> SweepRecord:
    made = [
        Job(str(number), number, [], str(number), {}, {"lr": number}, status=status)
        for number, status in enumerate(statuses)
    ]
    keys = [str(number) for number in (range(len(statuses)) if asked is None else asked)]
    return SweepRecord([], {"name": "val/iou", "mode": "max"}, made, asked=keys, looks=looks or [])


@given(st.integers(1, 30))
def test_all_looks_together_stay_below_5_percent_and_each_has_half_of_what_is_left(number: int) -> None:
    levels: list[float] = []
    for _ in range(number):
        levels.append(next_level(levels))
    assert levels[:4] == pytest.approx([0.04, 0.005, 0.0025, 0.00125][:number])
    assert sum(levels) < LEVEL


def test_a_look_is_over_when_all_jobs_that_were_asked_for_have_ended() -> None:
    assert look_now(record_of(["completed", "running"])) is None
    first = look_now(record_of(["completed", "failed"]))
    assert (first.number, first.level, first.completed, first.failed) == (1, 0.04, {0}, {1})
    assert last_look(record_of(["completed", "failed"])) is None
    stored = [first.to_dict()]
    ended = ["completed", "failed"]
    for statuses, asked in ((ended, None), ([*ended, "pending"], None), ([*ended, "pending"], [0])):
        assert look_now(record_of(statuses, stored, asked)) == last_look(record_of(statuses, stored, asked)) == first
    again = look_now(record_of(["completed", "completed"], stored))
    assert (again.number, again.level) == (2, pytest.approx(0.005))


def test_an_interrupted_trial_of_a_foreign_sweeper_does_not_keep_it_from_a_verdict() -> None:
    record = record_of(["completed", "interrupted"])
    assert look_now(record) is None
    for job in record.jobs:
        job.stage = "other"
    assert look_now(record).completed == {0}


@given(st.sets(st.integers(0, 50)))
def test_ranges_of_job_numbers_are_whole(numbers: set[int]) -> None:
    found = ranges(numbers)
    assert {number for first, last in found for number in range(first, last + 1)} == numbers
    assert all(one[1] + 1 < other[0] for one, other in itertools.pairwise(found))
