"""Verdicts on the documents' conclusions and on the ablation's nets."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import BAD, CLEAR, FAR, NEAR, made_up
from scipy import stats
from support import ROOT

from replication import ablation
from replication.published import STUDIES, VARIANTS
from replication.results import all_settings
from replication.verdicts import CLAIMS, MAJORITY, Claim, judge_claim
from segsweep.sweeps.statistics import holm


@pytest.mark.parametrize(
    ("numbers", "answer", "reason"),
    [
        ({"a": CLEAR, "b": BAD}, "holds", "a is better than b"),
        ({"a": BAD, "b": CLEAR}, "does not hold", "a is worse than b"),
        ({"a": CLEAR, "b": NEAR}, "cannot be told", "a is not shown to be better than b (it is in 3 of 5 seeds)"),
        ({"a": NEAR, "b": CLEAR}, "cannot be told", "a is not shown to be better than b (it is in 2 of 5 seeds)"),
        ({"a": CLEAR[:4], "b": BAD}, "cannot be told", "4 of 5 seeds so far"),
        ({"a": CLEAR}, "cannot be told", "not trained yet: b"),
        ({"a": CLEAR, "b": [x - 0.25 for x in CLEAR]}, "cannot be told",
         "a is not shown to be better than b (it is in 5 of 5 seeds)"),
        ({"a": [x - 0.25 for x in CLEAR], "b": CLEAR}, "cannot be told",
         "a is not shown to be better than b (it is in 0 of 5 seeds)"),
        # A setting with diverged runs is compared by its other runs: it can be worse, but not better.
        ({"a": CLEAR, "b": [None] * 5}, "holds", "all others diverge; diverged: b in 5 of 5"),
        ({"a": CLEAR, "b": BAD, "c": [None, *FAR[1:]]}, "holds", "a is better than b and c; diverged: c in 1 of 5"),
        ({"a": CLEAR, "b": BAD, "c": [None, *[0.99] * 4]}, "cannot be told",
         "c is ahead of a in the runs that did not diverge; diverged: c in 1 of 5"),
        ({"a": CLEAR, "b": [None, *NEAR[1:]]}, "cannot be told",
         "a is not shown to be better than b (it is in 4 of 5 seeds); diverged: b in 1 of 5"),
        ({"a": [None, *CLEAR[1:]], "b": BAD}, "cannot be told",
         "better than b in the runs that did not diverge; diverged: a in 1 of 5"),
        ({"a": [None, *BAD[1:]], "b": CLEAR}, "does not hold", "a is worse than b; diverged: a in 1 of 5"),
        ({"a": [None] * 5, "b": CLEAR}, "does not hold", "a never learns; diverged: a in 5 of 5"),
        ({"a": [None] * 5, "b": [None] * 5}, "cannot be told", "all diverge; diverged: a in 5 of 5 and b in 5 of 5"),
        ({"a": [None, *CLEAR[1:]], "b": [None] * 5}, "cannot be told",
         "all diverge; diverged: a in 1 of 5 and b in 5 of 5"),
    ],
)  # fmt: skip
def test_a_conclusion_holds_does_not_or_cannot_be_told(numbers: dict, answer: str, reason: str):
    claim = Claim("a is the best", "study", "a", "score", "max")
    verdict = judge_claim(claim, sorted({"a", "b", *numbers}), made_up("study", numbers, "score"))
    assert (verdict.answer, verdict.reason) == (answer, reason)


def test_less_is_better_where_the_claim_says_so():
    claim = Claim("a is the best", "study", "a", "loss", "min")
    assert judge_claim(claim, ["a", "b"], made_up("study", {"a": BAD, "b": CLEAR}, "loss")).answer == "holds"


# b is above a by a factor that hardly varies, so the difference varies much.
FACTORS = {"a": [0.01, 0.02, 0.04, 0.08, 0.16], "b": [0.011, 0.023, 0.045, 0.09, 0.184]}


@given(st.floats(0.001, 1000))
def test_a_verdict_on_losses_is_the_same_in_any_unit_and_counts_factors(unit: float):
    claim = Claim("a is the best", "study", "a", "val/loss", "min")
    numbers = {name: [unit * value for value in each] for name, each in FACTORS.items()}
    results = made_up("study", numbers, "val/loss")
    assert judge_claim(claim, ["a", "b"], results).answer == "holds"
    assert judge_claim(claim, ["a", "b"], results, logarithms=False).answer == "cannot be told"


def test_shares_are_compared_as_they_are():
    # On a logarithmic scale the same numbers would decide: see above.
    claim = Claim("b is the best", "study", "b", "val/iou", "max")
    assert judge_claim(claim, ["a", "b"], made_up("study", FACTORS, "val/iou")).answer == "cannot be told"


def test_every_claim_is_about_some_of_the_settings_that_it_compares():
    settings = all_settings()
    for claim in CLAIMS:
        claimed = {claim.claimed} if isinstance(claim.claimed, str) else set(claim.claimed)
        assert claimed < {setting.name for setting in STUDIES[claim.study].settings} | claim.beside.keys()
        assert all(other in settings for other in claim.beside.values() if isinstance(other, str))


@pytest.mark.parametrize(
    ("bar", "answer", "reason"),
    [
        (0.8, "holds", "a and b are each better than the bar"),
        (0.95, "does not hold", "a is worse than the bar; b is worse than the bar"),
        (0.905, "cannot be told", "a is not shown to be better than the bar (it is in 3 of 5 seeds); "
         "b is not shown to be better than the bar (it is in 4 of 5 seeds)"),
    ],
)  # fmt: skip
def test_settings_are_compared_with_a_number(bar: float, answer: str, reason: str):
    results = made_up("study", {"a": CLEAR, "b": [*NEAR[:4], 0.905001]}, "score")
    verdict = judge_claim(
        Claim("over the bar", "study", ("a", "b"), "score", "max", {"the bar": bar}), ["a", "b"], results
    )
    assert (verdict.answer, verdict.reason) == (answer, reason)


def test_a_setting_of_another_study_is_compared_by_seed():
    results = made_up("study", {"a": BAD}, "score")
    results["settings"] |= made_up("other", {"b": CLEAR}, "score")["settings"]
    for claimed, answer in (("better", "holds"), ("a", "does not hold")):
        claim = Claim("it is the best", "study", claimed, "score", "max", {"better": "other: b"})
        assert judge_claim(claim, ["a"], results).answer == answer
    del results["settings"]["other: b"]
    assert judge_claim(claim, ["a"], results).reason == "not trained yet: better"


def test_predicting_one_class_is_compared_by_the_numbers_of_the_results():
    text = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    shown = [f"{MAJORITY[f'test/{name}']:.3f}" for name in ("iou", "accuracy", "iou_micro", "foreground_iou")]
    assert f"| majority class (Land) | {' | '.join(shown)} |" in text


@pytest.mark.parametrize(
    ("numbers", "answer", "reason"),
    [
        ({"a": CLEAR, "b": NEAR, "c": BAD, "d": BAD}, "holds", "a and b are each better than c and d"),
        ({"a": CLEAR, "b": BAD, "c": NEAR, "d": FAR}, "does not hold", "b is worse than c"),
        ({"a": CLEAR, "b": CLEAR, "c": NEAR, "d": BAD}, "cannot be told",
         "a and b are each not shown to be better than c (it is in 3 of 5 seeds)"),
        ({"a": FAR, "b": [0.91] * 5, "c": [0.9, 0.93, 0.91, 0.9, 0.92], "d": [0.05, 0.2, 0.05, 0.2, 0.1]}, "does not hold",
         "a is worse than c"),
        ({"a": CLEAR, "b": FAR, "c": [0.1, 0.2, 0.1, 0.1, 0.1], "d": [0.08, 0.1, 0.11, 0.13, 0.09]}, "cannot be told",
         "b is not shown to be better than c (it is in 0 of 5 seeds) and d (in 3)"),
        ({"a": CLEAR, "b": [0.4, 0.45, 0.4, 0.5, 0.42], "c": [0.1, 0.99, 0.1, 0.1, 0.1],
          "d": [0.39, 0.44, 0.41, 0.5, 0.4]},
         "cannot be told", "a is not shown to be better than c (it is in 4 of 5 seeds); "
         "b is not shown to be better than c (it is in 4 of 5 seeds) and d (in 3)"),
        ({"a": CLEAR, "b": NEAR, "c": [None, *BAD[1:]], "d": BAD}, "holds",
         "a and b are each better than c and d; diverged: c in 1 of 5"),
        ({"a": CLEAR, "b": NEAR, "c": [None] * 5, "d": [None] * 5}, "holds",
         "all others diverge; diverged: c in 5 of 5 and d in 5 of 5"),
        ({"a": [None, *CLEAR[1:]], "b": NEAR, "c": BAD, "d": BAD}, "cannot be told",
         "better than c and d in the runs that did not diverge; diverged: a in 1 of 5"),
        ({"a": CLEAR[:1], "b": NEAR, "c": BAD, "d": BAD}, "cannot be told", "1 of 5 seeds so far"),
        ({"a": CLEAR, "b": NEAR, "c": BAD}, "cannot be told", "not trained yet: d"),
    ],
)  # fmt: skip
def test_several_are_better_than_all_others_or_not_or_it_cannot_be_told(numbers: dict, answer: str, reason: str):
    claim = Claim("a and b are the best", "study", ("a", "b"), "score", "max")
    verdict = judge_claim(claim, ["a", "b", "c", "d"], made_up("study", numbers, "score"))
    assert (verdict.answer, verdict.reason) == (answer, reason)
    upside_down = {name: [None if x is None else -x for x in each] for name, each in numbers.items()}
    mirrored = Claim("a and b are the best", "study", ("a", "b"), "score", "min")
    assert judge_claim(mirrored, ["a", "b", "c", "d"], made_up("study", upside_down, "score")) == verdict


# The ablation


def test_a_net_is_tested_against_the_published_one_over_the_seeds_of_both():
    published = {0: 0.90, 1: 0.91, 2: 0.92, 3: 0.90, 4: 0.93}
    found = ablation.beside_published(
        {
            "published": published,
            "good": {seed: score + 0.05 + 0.001 * (seed % 2) for seed, score in published.items()},
            "bad": {seed: score - 0.2 - 0.01 * seed for seed, score in published.items() if seed != 1} | {7: 0.99},
            "alike": {seed: score + 0.01 * (-1) ** seed for seed, score in published.items()},
            "once": {0: 0.99},
            "shifted": {seed: score - 0.1 for seed, score in published.items()},
            "lost": published | {3: math.nan},
            "lost and bad": {seed: score - 0.3 - 0.01 * seed for seed, score in published.items()} | {3: math.nan},
        }
    )
    said = {entry.name: (entry.seeds, entry.said) for entry in found}
    assert said == {
        "good": (5, "better"), "bad": (4, "worse"), "alike": (5, "no difference shown"), "once": (1, "cannot be told"),
        "shifted": (5, "cannot be told"), "lost": (4, "cannot be told"), "lost and bad": (4, "worse"),
    }  # fmt: skip
    assert [entry.name for entry in found] == ["once", "good", "alike", "lost", "shifted", "bad", "lost and bad"]
    good = found[1]
    test = stats.ttest_rel([published[seed] + 0.05 + 0.001 * (seed % 2) for seed in range(5)], list(published.values()))
    assert good.p == pytest.approx(13 * test.pvalue, rel=1e-6), "of all 13 nets, whether or not they are trained"
    low, high = test.confidence_interval()
    assert (good.mean - good.half_width, good.mean + good.half_width) == pytest.approx((low, high))


def test_among_equal_nets_one_is_called_different_in_at_most_5_of_100_cases():
    rng = np.random.default_rng(0)
    false = 0
    for _ in range(1000):
        scores = {name: dict(enumerate(rng.normal(0.98, 0.01, 5))) for name in VARIANTS}
        false += any(entry.said != "no difference shown" for entry in ablation.beside_published(scores))
    assert 0.01 < false / 1000 < 0.07


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_is_between_the_raw_and_bonferroni(p: list[float]):
    raw = np.array(p)
    adjusted = holm(raw)
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(1, raw * len(raw)) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(raw, kind="stable")]) >= 0).all()
