"""The page of printed figures: what it is made from, what it says of them, and that nothing in it is typed by hand."""

import itertools
import json
import math
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support import ROOT, SMALL, Command

from segsweep.data import Textures
from segsweep.nets import TextureCNN
from segsweep.replication import ablation, mistakes, texts
from segsweep.replication.__main__ import main
from segsweep.replication.collect import RESULTS, _curve, collect, overrides_of, read_results, values, values_at
from segsweep.replication.figures import draw, sample_panels
from segsweep.replication.finished import FinishedRuns, composed, key_without_seed
from segsweep.replication.page import (
    PAGE,
    as_printed,
    difference_of_two,
    page,
    prediction_half_width,
    spread,
    within,
)
from segsweep.replication.published import (
    FIRST_LOSSES,
    LOSS,
    MOMENTUM_SGD,
    RATE_LOSSES,
    STUDIES,
    UNET_INPUT,
    UNET_SHAPES,
    VARIANTS,
    Setting,
    Study,
)
from segsweep.replication.sizes import sizes, unet_shapes
from segsweep.replication.verdicts import CLAIMS, Claim, judge_claim
from segsweep.sweeps.statistics import holm

Train = Callable[..., Path]
NO_FOLDER = {name: study for name, study in STUDIES.items() if not study.needs_folder}


def test_the_page_is_what_the_collected_numbers_say():
    assert page(read_results(RESULTS), PAGE.parent / "images/replication") == PAGE.read_text(encoding="utf-8")


def test_printed_figures_are_those_of_the_sources():
    text = (ROOT / "docs/sources.md").read_text(encoding="utf-8").replace(",", "")
    for value in (*FIRST_LOSSES.values(), *RATE_LOSSES.values()):
        assert re.search(rf"{value:.10g}0?\b", text), value
    for study in STUDIES.values():
        for setting in study.settings:
            for value in setting.printed.values():
                assert f"{value:.10g}" in text or f"{100 * value:.10g}" in text, (setting.name, value)


def test_every_printed_shape_is_that_of_our_net():
    assert unet_shapes() == {"input": UNET_INPUT, **dict(UNET_SHAPES)}


def test_every_printed_size_is_ours():
    rows = sizes()
    assert len(rows) > 30
    assert [row for row in rows if row[1] != row[2]] == []


def expanded(study: Study) -> list[tuple[str, ...]]:
    """The overrides of every job of a study's command."""
    choices: list[list[str]] = []
    for override in study.command:
        key, value = override.split("=", 1)
        if key == "study":
            defaults = yaml.safe_load((ROOT / f"conf/study/{value}.yaml").read_text())
            choices += [[f"{k}={v}" for entry in defaults["defaults"] for k, v in entry.items()]]
            choices[-1] = [choices[-1][0].removeprefix("override /")]
            if "trainer" in defaults:
                choices += [[f"trainer.{k}={v}"] for k, v in defaults["trainer"].items()]
            for name, listed in defaults["hydra"]["sweeper"]["params"].items():
                if name != "seed":
                    choices.append([f"{name}={each.strip()}" for each in str(listed).split(",")])
        else:
            choices.append([override] if "[" in value else [f"{key}={each}" for each in value.split(",")])
    return list(itertools.product(*choices))


@pytest.mark.parametrize("name", NO_FOLDER)
def test_a_study_trains_exactly_the_settings_that_the_page_shows(name: str):
    wanted = {key_without_seed(composed(setting.overrides)) for setting in STUDIES[name].settings}
    # The later of two equal keys wins, as on the command line of an experiment in another one.
    trained = {key_without_seed(composed(_last_wins(job))) for job in expanded(STUDIES[name])}
    assert trained == wanted
    assert len(wanted) == len(STUDIES[name].settings)


def _last_wins(job: tuple[str, ...]) -> list[str]:
    return list({override.split("=", 1)[0]: override for override in job}.values())


@pytest.mark.slow
def test_a_run_is_found_by_its_settings_wherever_it_was_trained(
    train: Train, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    alone = train("seed=3", folder="deep/below/alone")
    assert command("train.py", "-m", *SMALL, "seed=0,1", "lr=0.001,0.1", "name=swept").code == 0
    train("seed=4", "callbacks.panel=null", "trainer.threads=1", folder="deep/watched")
    train("seed=5", "model.channels=4", folder="deep/other")
    train("seed=8", "trainer.test=false", folder="deep/untested")
    with pytest.raises(RuntimeError):
        command("train.py", *SMALL, "seed=6", "hydra.run.dir=deep/failed", "+callbacks.trap._target_=traps.Trap",
                "+callbacks.trap.kind=raise")  # fmt: skip
    command("train.py", *SMALL, "seed=7", "lr=1e30", "optim=sgd", "hydra.run.dir=deep/diverged")
    found = FinishedRuns([tmp_path])
    assert [run.record.seed for run in found.of(SMALL)] == [0, 1, 3, 4]
    assert found.of(SMALL)[2].directory == alone
    untested = found.of([*SMALL, "trainer.test=false"])
    assert [run.record.seed for run in untested] == [0, 1, 3, 4, 8], "a test at the end changes nothing before it"
    (diverged,) = found.of([*SMALL, "lr=1e30", "optim=sgd"])
    assert diverged.diverged

    tiny = Study((), (Setting("small", tuple(SMALL), {LOSS: 0.1}), Setting("wild", (*SMALL, "lr=1e30", "optim=sgd"))))
    monkeypatch.setattr("segsweep.replication.collect.STUDIES", {"tiny": tiny})
    old = {"seed": 9, "diverged": False, "metrics": {LOSS: 5.0}, "curve": {}}
    key = key_without_seed(composed(SMALL))
    results = {"settings": {"tiny: small": {"overrides": [], "key": key, "runs": [old]}}, "mistakes": {}}
    collect(FinishedRuns([tmp_path]), None, results)
    kept = values(results, "tiny: small", LOSS)
    assert list(kept) == [0, 1, 3, 4, 9], "what was collected before stays"
    written = json.loads((alone / "run.json").read_text())["metrics"][LOSS]
    assert kept[3] == pytest.approx(written, rel=1e-5)
    del results["settings"]["tiny: small"]["runs"][-1]
    assert values_at(results, "tiny: small", LOSS, 4)[3] == kept[3]
    assert results["settings"]["tiny: wild"]["runs"][0]["diverged"]
    assert np.isnan(values(results, "tiny: wild", LOSS)[7])
    assert json.loads(json.dumps(results, allow_nan=False)) == results

    # Runs from before a preset changed: kept as long as there are no others, and never beside others.
    changed = {"settings": {"tiny: small": {"overrides": [], "key": "other", "runs": [old]}}, "mistakes": {}}
    said = collect(FinishedRuns([tmp_path / "nothing"]), None, changed)
    assert list(values(changed, "tiny: small", LOSS)) == [9]
    assert said[0] == "tiny: small: 0 found, 1 in all, of other settings than now"
    changed["settings"]["tiny: renamed"] = {"overrides": [], "key": "x", "runs": [old]}
    said = collect(FinishedRuns([tmp_path]), None, changed)
    assert list(values(changed, "tiny: small", LOSS)) == [0, 1, 3, 4]
    assert said[0] == "tiny: renamed: is no setting of any study now, 1 dropped"
    assert said[1] == "tiny: small: 4 found, 4 in all, 1 replaced"


def made_up(study: str, numbers: dict[str, list[float | None]], metric: str) -> dict:
    return {"mistakes": {}, "settings": {
        f"{study}: {name}": {"overrides": [], "runs": [
            {"seed": seed, "diverged": value is None, "metrics": {} if value is None else {metric: value}}
            for seed, value in enumerate(each)
        ]}
        for name, each in numbers.items()
    }}  # fmt: skip


CLEAR = [0.9, 0.91, 0.92, 0.9, 0.91]
NEAR = [0.91, 0.9, 0.91, 0.91, 0.9]
BAD = [0.5, 0.52, 0.51, 0.49, 0.5]


FAR = [0.1, 0.12, 0.1, 0.1, 0.1]


@pytest.mark.parametrize(
    ("numbers", "answer", "reason"),
    [
        ({"a": CLEAR, "b": BAD}, "holds", "all others are worse than a"),
        ({"a": BAD, "b": CLEAR}, "does not hold", "it is worse than b"),
        ({"a": CLEAR, "b": NEAR}, "cannot be told", "it leads, and b may be as good"),
        ({"a": NEAR, "b": CLEAR}, "cannot be told", "b leads, and a may be as good"),
        ({"a": CLEAR[:4], "b": BAD}, "cannot be told", "4 of 5 seeds so far"),
        ({"a": CLEAR}, "cannot be told", "not trained yet: b"),
        ({"a": CLEAR, "b": [x - 0.25 for x in CLEAR]}, "cannot be told", "it differs from b by the same in every seed"),
        ({"a": [x - 0.25 for x in CLEAR], "b": CLEAR}, "cannot be told", "it differs from b by the same in every seed"),
        # What diverges sometimes is compared by its other runs: it can be worse, but not better.
        ({"a": CLEAR, "b": [None] * 5}, "holds", "all others diverge (diverged: b in 5 of 5)"),
        ({"a": CLEAR, "b": BAD, "c": [None, *FAR[1:]]}, "holds", "a is better than b and c (diverged: c in 1 of 5)"),
        ({"a": CLEAR, "b": BAD, "c": [None, *[0.99] * 4]}, "cannot be told",
         "c is ahead of a where it does not diverge (diverged: c in 1 of 5)"),
        ({"a": CLEAR, "b": [None, *NEAR[1:]]}, "cannot be told", "b may be as good as a (diverged: b in 1 of 5)"),
        ({"a": [None, *CLEAR[1:]], "b": BAD}, "cannot be told",
         "better than b where it does not diverge (diverged: a in 1 of 5)"),
        ({"a": [None, *BAD[1:]], "b": CLEAR}, "does not hold", "a is worse than b (diverged: a in 1 of 5)"),
        ({"a": [None] * 5, "b": CLEAR}, "does not hold", "a never learns (diverged: a in 5 of 5)"),
        ({"a": [None] * 5, "b": [None] * 5}, "cannot be told", "all diverge (diverged: a in 5 of 5 and b in 5 of 5)"),
        ({"a": [None, *CLEAR[1:]], "b": [None] * 5}, "cannot be told",
         "all diverge (diverged: a in 1 of 5 and b in 5 of 5)"),
    ],
)  # fmt: skip
def test_a_conclusion_holds_does_not_or_cannot_be_told(numbers: dict, answer: str, reason: str):
    claim = Claim("a is the best", "study", "a", "score", "max")
    verdict = judge_claim(claim, sorted({"a", "b", *numbers}), made_up("study", numbers, "score"))
    assert (verdict.answer, verdict.reason) == (answer, reason)


def test_less_is_better_where_the_claim_says_so():
    claim = Claim("a is the best", "study", "a", "loss", "min")
    assert judge_claim(claim, ["a", "b"], made_up("study", {"a": BAD, "b": CLEAR}, "loss")).answer == "holds"


def test_every_claim_is_about_a_study_and_some_of_its_settings():
    for claim in CLAIMS:
        claimed = {claim.claimed} if isinstance(claim.claimed, str) else set(claim.claimed)
        assert claimed < {setting.name for setting in STUDIES[claim.study].settings}


@pytest.mark.parametrize(
    ("numbers", "answer", "reason"),
    [
        ({"a": CLEAR, "b": NEAR, "c": BAD, "d": BAD}, "holds", "each is better than c and d"),
        ({"a": CLEAR, "b": BAD, "c": NEAR, "d": FAR}, "does not hold", "b is worse than c"),
        ({"a": CLEAR, "b": CLEAR, "c": NEAR, "d": BAD}, "cannot be told", "c may be as good as a and b"),
        ({"a": FAR, "b": [0.91] * 5, "c": [0.9, 0.93, 0.91, 0.9, 0.92], "d": [0.05, 0.2, 0.05, 0.2, 0.1]}, "does not hold",
         "a is worse than c"),
        ({"a": CLEAR, "b": FAR, "c": [0.1, 0.2, 0.1, 0.1, 0.1], "d": [0.08, 0.1, 0.11, 0.13, 0.09]}, "cannot be told",
         "c leads, and b may be as good"),
        ({"a": CLEAR, "b": [0.4, 0.45, 0.4, 0.5, 0.42], "c": [0.1, 0.99, 0.1, 0.1, 0.1],
          "d": [0.39, 0.44, 0.41, 0.5, 0.4]},
         "cannot be told", "c and d may be as good as some of a and b"),
        ({"a": CLEAR, "b": NEAR, "c": [None, *BAD[1:]], "d": BAD}, "holds",
         "each is better than c and d (diverged: c in 1 of 5)"),
        ({"a": CLEAR, "b": NEAR, "c": [None] * 5, "d": [None] * 5}, "holds",
         "all others diverge (diverged: c in 5 of 5 and d in 5 of 5)"),
        ({"a": [None, *CLEAR[1:]], "b": NEAR, "c": BAD, "d": BAD}, "cannot be told",
         "better than c and d where it does not diverge (diverged: a in 1 of 5)"),
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


@pytest.mark.parametrize("n", [2, 3, 5])
def test_one_further_run_lies_within_in_95_of_100_cases(n: int):
    draws = np.random.default_rng(0).normal(3.0, 0.2, size=(4000, n + 1))
    inside = [within(row[-1], dict(enumerate(row[:-1]))) == "yes" for row in draws]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)
    assert prediction_half_width(draws[0, :n]) > 0


def test_of_one_seed_nothing_is_said():
    assert within(1.0, {0: 1.0}) == ""
    assert spread({0: 0.25}) == "0.25 (n = 1)"
    assert spread({}) == "not trained yet"
    assert spread({0: 0.1, 1: 0.3}) == "0.2 ± 0.14 (n = 2)"


def test_overrides_of_a_setting_that_needs_a_folder():
    setting = Setting("x", ("data=folder",))
    assert overrides_of(setting, Path("some where")) == ("data=folder", "data.root=some where")
    with pytest.raises(ValueError, match="needs a folder"):
        overrides_of(setting, None)


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
        }
    )
    said = {entry.name: (entry.seeds, entry.said) for entry in found}
    assert said == {
        "good": (5, "better"), "bad": (4, "worse"), "alike": (5, "no difference shown"), "once": (1, "cannot be told"),
        "shifted": (5, "cannot be told"), "lost": (5, "cannot be told"),
    }  # fmt: skip
    assert [entry.name for entry in found] == ["once", "good", "alike", "shifted", "bad", "lost"]
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


def as_collected(results: dict) -> dict:
    for entry in results["settings"].values():
        for run in entry["runs"]:
            run |= {"parameters": 1234, "seconds": 60.0, "steps": 90, "device": "CPU", "date": "2026-01-01", "curve": {},
                    "versions": {"torch": "2.0"}}  # fmt: skip
            if not run["diverged"]:
                run["metrics"] = {"test/iou": 0.9} | run["metrics"]
    return results


def test_the_page_says_which_nets_are_not_trained_and_which_diverged():
    results = as_collected(
        made_up("ablation", {"published": CLEAR, "blocks_1": BAD, "norm_none": [None, *CLEAR[1:]]}, "val/iou")
    )
    text = " ".join(page(results).split())
    assert "| blocks_1 | 1,234 | 0.504 ± 0.011 (n = 5) |" in text
    assert "| norm_none | 1,234 | diverged in 1 of 5 | diverged in 1 of 5 |" in text
    assert "Beside the published net: worse: blocks_1; cannot be told: norm_none." in text
    assert "Not trained yet: blocks_2," in text
    assert "| 15 | | 1.0 min | 1.5 | CPU, torch 2.0, 2026-01-01 |" in text
    figures = text[text.index("## Their figures") :]
    assert figures.count("| not drawn yet |") == len([name for _, _, name in texts.FIGURES if name])


def test_a_diverged_run_is_not_left_out_of_a_mean():
    results = as_collected(made_up("texture_rates", {"Adam 5": [0.5, None, 0.4], "Adam 1": [None] * 3}, LOSS))
    text = page(results)
    assert "| 5 | 0.50313 | diverged in 1 of 3 |  | diverged in 1 of 3 |" in text
    assert "| 1 | 0.072490 | diverged in 3 of 3 |  | diverged in 3 of 3 |" in text


def test_a_printed_figure_has_all_its_digits():
    assert [as_printed(0.0394400), as_printed(0.13820), as_printed(0.498, 3)] == ["0.039440", "0.13820", "0.498"]


def test_two_runs_differ_by_less_in_95_of_100_cases():
    draws = np.random.default_rng(0).normal(3.0, 0.2, size=(4000, 7))
    inside = [abs(row[5] - row[6]) < difference_of_two(row[:5]) for row in draws]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)
    results = as_collected(made_up("texture_optimizers", {MOMENTUM_SGD: CLEAR}, LOSS))
    assert f"| running loss | 0.006812 | {difference_of_two(np.array(CLEAR)):.4g} (n = 5) |" in page(results)


@pytest.mark.parametrize(("steps", "every"), [(50, 1), (1000, 50), (9900, 50), (10000, 50), (7, 50)])
def test_a_curve_keeps_some_twenty_points_and_the_last(steps: int, every: int):
    logged = sorted({*range(every, steps + 1, every), steps})
    history = pd.DataFrame({"step": logged, "train/loss": [1 / step for step in logged]})
    kept = _curve(history, steps)
    assert kept["step"][-1] == steps
    assert min(20, len(logged)) <= len(kept["step"]) <= 26
    assert kept["train/loss"] == pytest.approx([1 / step for step in kept["step"]], rel=1e-5)
    if steps == 10000:
        assert set(FIRST_LOSSES) < set(kept["step"])


# The command


def test_run_types_every_study_that_is_asked_for_and_stops_when_told(monkeypatch: pytest.MonkeyPatch, capsys):
    typed: list[list[str]] = []
    codes = iter([0, 1, -9])

    def run(command: list[str]):
        typed.append(command[2:])
        return subprocess.CompletedProcess(command, next(codes))

    monkeypatch.setattr(subprocess, "run", run)
    assert main(["run", "--only", "demo_rates,dubai_rates,ablation", "hydra/launcher=joblib"]) == 1
    assert [next(word for word in words if word.startswith("name=")) for words in typed] == [
        "name=replication_demo_rates", "name=replication_ablation"
    ]  # fmt: skip
    assert all(words[0] == "-m" and words[-1] == "hydra/launcher=joblib" for words in typed)
    assert "dubai_rates: left out" in capsys.readouterr().out
    assert main(["run"]) == 137, "killed: the studies behind are not begun"
    assert len(typed) == 3
    assert main(["run", "--only", "demo"]) == 1
    assert capsys.readouterr().err.startswith("error: --only demo: no such study; there are texture_rates,")


def test_report_writes_page_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    written: dict[str, str] = {}
    monkeypatch.setattr("segsweep.replication.__main__.write_results", lambda results: written.update(numbers=results))
    monkeypatch.setattr(
        "segsweep.replication.__main__.write_text", lambda path, text: written.update({path.name: text})
    )
    monkeypatch.setattr("segsweep.replication.__main__.PICTURES", tmp_path / "images/replication")
    assert main(["report", str(tmp_path)]) == 0
    assert "texture_rates: Adam 0.001: 0 found, 5 in all" in capsys.readouterr().out
    assert written["numbers"] == read_results(RESULTS)
    assert written["replication.md"].startswith("# Replication")


def test_every_figure_that_the_page_names_is_drawn_or_there():
    drawn = (ROOT / "src/segsweep/replication/figures.py").read_text(encoding="utf-8")
    for _, _, name in texts.FIGURES:
        if name.startswith("replication/"):
            short = name.removeprefix("replication/")
            assert short in drawn or short.partition("_")[2] in drawn, name
        elif name:
            assert (ROOT / "docs/images" / name).is_file(), name


# What the documents got wrong


def test_the_published_module_is_trained_as_ours_is():
    """Batch norms in training mode know only the batch: one module for three places makes the same weights."""
    torch.manual_seed(0)
    ours = TextureCNN()
    published = mistakes._with_one_norm(ours)
    source = Textures(image_size=32)
    for net in (ours, published):
        mistakes._train(net, source, torch.optim.Adam(net.parameters(), lr=0.001), 3)
    pairs = zip(ours.parameters(), published.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert not torch.equal(ours.conv3[2].running_mean, published.conv3[2].running_mean)


def test_a_cross_entropy_of_one_channel_is_zero_and_teaches_nothing():
    assert mistakes.cross_entropy_of_one_channel(seed=5) == {"loss": 0.0, "largest gradient": 0.0}


def test_what_is_not_reset_goes_on_from_where_it_was():
    found = mistakes.not_reset_between_rates(steps=8, size=16)
    assert found["not reset, upwards, 1: 0.001"] == found["reset: 0.001"]
    assert found["not reset, downwards, 1: 0.1"] == found["reset: 0.1"]
    assert found["not reset, upwards, 3: 0.1"] != found["reset: 0.1"]


def test_the_published_measures_reward_what_is_wrong_and_punish_what_is_right():
    precision, iou = mistakes.precision_that_is_none(size=16), mistakes.iou_that_ignores_classes(size=64)
    assert (precision["right, 0.85 sure: precision"], precision["right, 0.85 sure: published"]) == (1.0, 0.0)
    assert (iou["every pixel wrong: published"], iou["every pixel wrong: mean over classes"]) == (1.0, 0.0)
    assert iou["random against random: published"] == pytest.approx(25 / 35, abs=0.02)


def test_most_of_the_published_head_is_never_read():
    found = mistakes.map_that_is_thrown_away(size=16)
    assert found["largest difference of the logits"] < 1e-6
    assert found["of them without a gradient"] >= found["weights of upconv3"] * 8 / 9
    assert found["multiplications of the head, exact"] < found["multiplications of the head, published"] / 4


@pytest.mark.slow
def test_figures_are_drawn_from_what_there_is(train: Train, tmp_path: Path):
    run = train("trainer.max_steps=6")
    panels = sample_panels(run)
    assert list(panels) == [2, 4, 6]
    assert all(panel.ndim == 3 and panel.dtype == np.uint8 for panel in panels.values())
    assert draw({"settings": {}, "mistakes": {}}, tmp_path / "none", FinishedRuns([tmp_path / "nothing"]), None) == []
    made = draw(read_results(RESULTS), tmp_path / "pictures", FinishedRuns([tmp_path / "nothing"]), None)
    assert all(path.stat().st_size > 1000 for path in made)
