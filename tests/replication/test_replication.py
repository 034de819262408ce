"""docs/replication.md: its printed figures, the collected runs, and the text made from them."""

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
from made_up import BAD, CLEAR, made_up
from scipy import stats
from support import ROOT, SMALL, Command

from replication import mistakes, prose
from replication.__main__ import main
from replication.figures import draw, sample_panels
from replication.intervals import as_printed, difference_of_two, prediction_interval, spread, within
from replication.page import PAGE, page
from replication.page_found import found_section
from replication.prose import FOUND_CONCLUSIONS
from replication.published import (
    CONFIDENT,
    FIRST,
    FIRST_LOSSES,
    LOSS,
    MOMENTUM_SGD,
    RATE_LOSSES,
    STUDIES,
    UNET_INPUT,
    UNET_SHAPES,
    Setting,
    Study,
)
from replication.results import (
    RESULTS,
    _curve,
    collect,
    last_values,
    overrides_of,
    read_results,
    values,
    values_at,
)
from replication.runs import FinishedRuns, composed, key_without_seed
from replication.sizes import sizes, unet_shapes
from segsweep.data import Textures
from segsweep.nets import TextureCNN

Train = Callable[..., Path]
NO_FOLDER = {name: study for name, study in STUDIES.items() if not study.needs_folder}


def test_the_installed_package_does_not_import_it():
    found = re.compile(r"^\s*(from|import) replication\b", re.MULTILINE)
    assert [path for path in (ROOT / "src").rglob("*.py") if found.search(path.read_text(encoding="utf-8"))] == []


def test_the_page_is_made_from_the_collected_numbers():
    assert page(read_results(RESULTS), PAGE.parent / "images/replication") == PAGE.read_text(encoding="utf-8")


def test_the_findings_count_what_the_tables_below_say():
    text = PAGE.read_text(encoding="utf-8")
    found, _, tables = text.partition("## How to read this page")
    said = {answer: tables.count(f"| **{answer}** |") for answer in ("holds", "does not hold", "cannot be told")}
    numbers = re.search(r"Of (\d+) tests .*? (\d+) hold, (\d+) do not, and (\d+)", found, re.DOTALL)
    assert numbers
    assert [int(number) for number in numbers.groups()] == [sum(said.values()), *said.values()]
    within = {answer: tables.count(f"| {answer}") for answer in ("yes (", "no (", "not said: ")}
    within["yes ("] -= 1  # the loss of plain SGD after 1,000 steps is printed once and stands in two tables
    figures = re.search(
        r"Of (\d+) printed figures, (\d+) could .*? (\d+) could not,\s+and\s+for\s+(\d+)", found, re.DOTALL
    )
    assert figures
    assert [int(number) for number in figures.groups()] == [sum(within.values()), *within.values()]
    assert len(re.findall(r"^- ", found, re.MULTILINE)) == 10


def test_findings_without_numbers_are_left_out():
    assert found_section({"settings": {}, "mistakes": {}}, [])[2:-1] == [
        "- **Sizes.** 35 of 35 printed sizes and settings equal ours.",
        f"- {FOUND_CONCLUSIONS.format(all=34, holds=0, fails=0, open=34)}",
    ]


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
    """The overrides of every job in a study's command."""
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


@pytest.mark.quick
@pytest.mark.parametrize("name", NO_FOLDER)
def test_a_study_trains_exactly_the_settings_that_the_page_shows(name: str):
    wanted = {key_without_seed(composed(setting.overrides)) for setting in STUDIES[name].settings}
    # The later of two equal keys wins, as on the command line.
    trained = {key_without_seed(composed(_last_wins(job))) for job in expanded(STUDIES[name])}
    assert trained == wanted
    assert len(wanted) == len(STUDIES[name].settings)


def _last_wins(job: tuple[str, ...]) -> list[str]:
    return list({override.split("=", 1)[0]: override for override in job}.values())


PIN = "trainer.precision=32-true"  # as every published setting


@pytest.mark.slow
def test_a_run_is_found_by_its_settings_wherever_it_was_trained(
    train: Train, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    small = [*SMALL, PIN]
    alone = train(PIN, "seed=3", folder="deep/below/alone")
    assert command("train.py", "-m", *small, "seed=0,1", "lr=0.001,0.1", "name=swept").code == 0
    train(PIN, "seed=4", "callbacks.panel=null", "trainer.threads=1", folder="deep/watched")
    train(PIN, "seed=5", "model.channels=4", folder="deep/other")
    train(PIN, "seed=8", "trainer.test=false", folder="deep/untested")
    with pytest.raises(RuntimeError):
        command("train.py", *small, "seed=6", "hydra.run.dir=deep/failed", "+callbacks.trap._target_=traps.Trap",
                "+callbacks.trap.kind=raise")  # fmt: skip
    command("train.py", *small, "seed=7", "lr=1e30", "optim=sgd", "hydra.run.dir=deep/diverged")
    found = FinishedRuns([tmp_path])
    assert [run.record.seed for run in found.of(small)] == [0, 1, 3, 4]
    assert found.of(small)[2].directory == alone
    untested = found.of([*small, "trainer.test=false"])
    assert [run.record.seed for run in untested] == [0, 1, 3, 4, 8], "the test comes last, so it changes nothing else"
    (diverged,) = found.of([*small, "lr=1e30", "optim=sgd"])
    assert diverged.diverged

    tiny = Study((), (Setting("small", tuple(small), {LOSS: 0.1}), Setting("wild", (*small, "lr=1e30", "optim=sgd"))))
    monkeypatch.setattr("replication.results.STUDIES", {"tiny": tiny})
    old = {"seed": 9, "diverged": False, "metrics": {LOSS: 5.0}, "curve": {}}
    key = key_without_seed(composed(small))
    results = {"settings": {"tiny: small": {"overrides": [], "key": key, "runs": [old]}}, "mistakes": {}}
    collect(FinishedRuns([tmp_path]), None, results)
    kept = values(results, "tiny: small", LOSS)
    assert list(kept) == [0, 1, 3, 4, 9], "runs that were collected before stay"
    written = json.loads((alone / "run.json").read_text())["metrics"][LOSS]
    assert kept[3] == pytest.approx(written, rel=1e-5)
    del results["settings"]["tiny: small"]["runs"][-1]
    assert values_at(results, "tiny: small", LOSS, 4)[3] == kept[3]
    assert results["settings"]["tiny: wild"]["runs"][0]["diverged"]
    assert np.isnan(values(results, "tiny: wild", LOSS)[7])
    assert json.loads(json.dumps(results, allow_nan=False)) == results

    assert [run["seconds"] is None for run in results["settings"]["tiny: small"]["runs"]] == [False] * 4
    content = json.loads((alone / "run.json").read_text())
    (alone / "run.json").write_text(json.dumps(content | {"continued_at": [1]}))
    collect(FinishedRuns([tmp_path]), None, results)
    assert [run["seconds"] is None for run in results["settings"]["tiny: small"]["runs"]] == [False, False, True, False]

    # Runs from before a preset changed are kept until new ones are found, and never mixed with them.
    changed = {"settings": {"tiny: small": {"overrides": [], "key": "other", "runs": [old]}}, "mistakes": {}}
    said = collect(FinishedRuns([tmp_path / "nothing"]), None, changed)
    assert list(values(changed, "tiny: small", LOSS)) == [9]
    assert said[0] == "tiny: small: 0 found, 1 in all, of other settings than now"
    changed["settings"]["tiny: renamed"] = {"overrides": [], "key": "x", "runs": [old]}
    said = collect(FinishedRuns([tmp_path]), None, changed)
    assert list(values(changed, "tiny: small", LOSS)) == [0, 1, 3, 4]
    assert said[0] == "tiny: renamed: is no setting of any study now, 1 dropped"
    assert said[1] == "tiny: small: 4 found, 4 in all, 1 replaced"


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("metric", [LOSS, "val/iou"])
def test_one_further_run_lies_within_in_95_of_100_cases(n: int, metric: str):
    # Values far below 1: an interval beyond 1 would give no answer.
    draws = np.random.default_rng(0).normal(-300.0, 0.5, size=(4000, n + 1))
    draws = np.exp(draws) if metric == LOSS else draws
    said = [within(row[-1], dict(enumerate(row[:-1])), metric).split()[0] for row in draws]
    assert said.count("yes") / len(said) == pytest.approx(0.95, abs=0.015)


def test_within_shows_the_interval_that_the_figure_lies_in_or_not():
    each = {0: 0.9, 1: 0.91, 2: 0.92}
    low, high = prediction_interval(np.array([0.9, 0.91, 0.92]))
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 2, 0.91, 0.01 * math.sqrt(4 / 3)))
    assert within(0.95, each, "val/iou") == "yes (0.86 to 0.96)"
    assert within(0.97, each, "val/iou") == "no (0.86 to 0.96)"
    losses = {0: 0.001, 1: 0.002, 2: 0.004}
    assert prediction_interval(np.array(list(losses.values())))[0] < 0
    assert within(0.01, losses, LOSS) == "yes (0.0000639 to 0.0626)", "the interval of a loss is never negative"


def test_runs_that_are_not_normally_distributed_are_listed_without_an_answer():
    assert within(0.04, dict(enumerate([0.5, 0.04, 0.0425, 0.036])), LOSS) == "not said: 0.036, 0.04, 0.0425, 0.5"
    assert within(0.9, {0: 0.99, 1: 0.9}, CONFIDENT) == "not said: 0.9, 0.99"
    assert within(0.9, {0: 0.901, 1: 0.9}, CONFIDENT).startswith("yes")


def test_one_seed_gives_no_answer():
    assert within(1.0, {0: 1.0}, LOSS) == ""
    assert spread({0: 0.25}) == "0.25 (n = 1)"
    assert spread({}) == "not trained yet"
    assert spread({0: 0.1, 1: 0.3}) == "0.2 ± 0.14 (n = 2)"
    assert spread(dict.fromkeys(range(5), 0.997623)) == "0.9976 ± 0 (n = 5)"
    assert spread({0: 0.1, 1: math.nan, 2: 0.3}) == "diverged in 1 of 3, else 0.2 ± 0.14 (n = 2)"
    assert spread({0: math.nan, 1: 0.3}) == "diverged in 1 of 2, else 0.3 (n = 1)"


def test_overrides_of_a_setting_that_needs_a_folder():
    setting = Setting("x", ("data=folder",))
    assert overrides_of(setting, Path("some where")) == ("data=folder", "data.root=some where")
    with pytest.raises(ValueError, match="needs a folder"):
        overrides_of(setting, None)


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
    assert "| blocks_1 | One block instead of three | 1,234 | 0.504 ± 0.011 (n = 5) |" in text
    lost = "diverged in 1 of 5, else 0.91 ± 0.0082 (n = 4)"
    assert f"| norm_none | No batch norm | 1,234 | {lost} | diverged in 1 of 5, else 0.9 ± 0 (n = 4) |" in text
    assert "Beside the published net: worse: blocks_1; cannot be told: norm_none." in text
    assert "Not trained yet: blocks_2," in text
    assert "| 15 | | 1.0 min | 1.5 | CPU, torch 2.0, 2026-01-01 |" in text
    figures = text[text.index("## Their figures") :]
    assert figures.count("| not drawn yet |") == len([name for _, _, name in prose.FIGURES if name])


def test_times_leave_out_interrupted_runs():
    results = as_collected(made_up("texture_first", {FIRST.name: CLEAR}, LOSS))
    runs = next(iter(results["settings"].values()))["runs"]
    runs[0] |= {"seconds": 6.0}
    assert "| 5 | 3 min 11 s, 52.1 steps/s | 1.0 min (0.1 to 1.0) | 1.5 | CPU," in page(results)
    runs[0] |= {"diverged": True}  # ended early
    assert "| 5 | 3 min 11 s, 52.1 steps/s | 1.0 min | 1.5 | CPU," in page(results)
    runs[0] |= {"seconds": None, "diverged": False}
    assert "| 5 | 3 min 11 s, 52.1 steps/s | 1.0 min | 1.5 | CPU," in page(results)
    for run in runs:
        run |= {"seconds": None}
    assert "| 5 | 3 min 11 s, 52.1 steps/s |  |  | CPU," in page(results)


def test_diverged_runs_are_always_counted():
    results = as_collected(made_up("texture_rates", {"Adam 5": [0.5, None, 0.4], "Adam 1": [None] * 3}, LOSS))
    text = page(results)
    lost = "diverged in 1 of 3, else"
    assert f"| 5 | 0.50313 | {lost} 0.45 ± 0.071 (n = 2) |  | {lost} 0.9 ± 0 (n = 2) |" in text
    assert "| 1 | 0.072490 | diverged in 3 of 3 |  | diverged in 3 of 3 |" in text


def test_a_printed_figure_keeps_all_its_digits():
    assert [as_printed(0.0394400), as_printed(0.13820), as_printed(0.498, 3)] == ["0.039440", "0.13820", "0.498"]


def test_two_runs_differ_by_less_in_95_of_100_cases():
    draws = np.random.default_rng(0).normal(3.0, 0.2, size=(4000, 7))
    inside = [abs(row[5] - row[6]) < difference_of_two(row[:5]) for row in draws]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)
    results = as_collected(made_up("texture_optimizers", {MOMENTUM_SGD: CLEAR}, LOSS))
    assert f"| running loss | 0.006812 | {difference_of_two(np.array(CLEAR)):.4g} (n = 5) | 0.02 |" in page(results)


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
    assert main(["run"]) == 137, "killed: the next studies do not start"
    assert len(typed) == 3
    assert main(["run", "--only", "demo"]) == 1
    assert capsys.readouterr().err.startswith("error: --only demo: no such study; there are texture_rates,")


def test_experiments_are_kept_with_the_time_they_take(monkeypatch: pytest.MonkeyPatch):
    kept = {"settings": {"a": 1}, "mistakes": {"old": {"x": [1.0]}}}
    monkeypatch.setattr("replication.__main__.read_results", lambda: kept)
    monkeypatch.setattr("replication.__main__.write_results", lambda results: None)
    tried = {name: mistakes.EXPERIMENTS[name] for name in ("precision that is none", "cross-entropy of one channel")}
    monkeypatch.setattr("replication.__main__.EXPERIMENTS", tried)
    assert main(["mistakes"]) == 0
    assert set(kept["seconds"]) == set(tried)
    assert set(kept["mistakes"]) == {"old", *tried}
    assert kept["settings"] == {"a": 1}
    text = page({"settings": {}, "mistakes": {}, "seconds": {"a": 60.0, "b": 125.0}})
    assert text.endswith("took 3 min in all, on the same two cores.\n")


@pytest.mark.slow
def test_report_writes_page_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    written: dict[str, str] = {}
    monkeypatch.setattr("replication.__main__.write_results", lambda results: written.update(numbers=results))
    monkeypatch.setattr("replication.__main__.write_text", lambda path, text: written.update({path.name: text}))
    monkeypatch.setattr("replication.__main__.PICTURES", tmp_path / "images/replication")
    assert main(["report", str(tmp_path)]) == 0
    assert "texture_rates: Adam 0.001: 0 found, 5 in all" in capsys.readouterr().out
    assert written["numbers"] == read_results(RESULTS)
    assert written["replication.md"].startswith("# Replication")


def test_last_values_of_curves():
    curves = ([3.0, None, 2.0], [1.0, None], [None], [5.0])
    each = [{"seed": seed, "diverged": seed == 3, "curve": {"val/loss": curve}} for seed, curve in enumerate(curves)]
    results = {"settings": {"a": {"runs": [*each, {"seed": 4, "diverged": False, "curve": {}}]}}}
    assert last_values(results, "a", "val/loss") == {0: 2.0, 1: 1.0, 3: pytest.approx(math.nan, nan_ok=True)}


def test_every_figure_that_the_page_names_is_drawn_or_there():
    drawn = (ROOT / "replication/figures.py").read_text(encoding="utf-8")
    for _, _, name in prose.FIGURES:
        if name.startswith("replication/"):
            short = name.removeprefix("replication/")
            assert short in drawn or short.partition("_")[2] in drawn, name
        elif name:
            assert (ROOT / "docs/images" / name).is_file(), name


# The documents' mistakes


def test_the_published_module_is_trained_as_ours_is():
    """In training mode a batch norm uses only the batch, so one module in three places gives the same weights."""
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


def test_a_net_that_is_not_reset_continues_from_its_weights():
    found = mistakes.not_reset_between_rates(steps=8, size=16)
    assert found["the same, upwards as in the report: 0.001, 1"] == found["a new one for each rate: 0.001, 1"]
    assert found["the same, downwards: 0.1, 1"] == found["a new one for each rate: 0.1, 3"]
    assert found["the same, upwards as in the report: 0.1, 3"] != found["a new one for each rate: 0.1, 3"]


def test_the_page_says_which_rate_leads_in_how_many_seeds():
    found = {
        "up: 0.1, 1": [0.5, 0.2, 0.2],
        "up: 0.2, 2": [0.3, 0.3, 0.3],
        "one: 1, 1": [2.0] * 3,
        "one: 1, 2": [1.0] * 3,
    }
    text = page({"settings": {}, "mistakes": {"not reset between rates": found}})
    assert "| up | 0.1: 0.3 ± 0.17 (n = 3) | 0.2: 0.3 ± 0 (n = 3) | 0.1 in 2 of 3, 0.2 in 1 of 3 |" in text
    assert "| one | 1: 2 ± 0 (n = 3) | 1: 1 ± 0 (n = 3) | the second in 3 of 3 |" in text


def test_the_page_says_how_many_learnt_two_samples_by_heart():
    results = as_collected(made_up("demo_overfit", {"0.9": [0.95, 0.3], "0.1": [0.2, 0.99]}, "val/iou"))
    results["settings"]["demo_overfit: 0.1"]["runs"][1]["metrics"]["val/iou/Water"] = 0.99
    text = " ".join(page(results).split())
    assert "2 of 4 trainings on two samples reach an iou of 0.9 in 50 steps" in text
    assert "in 1 of these the two crops hold only one class" in text


def test_the_published_measures_reward_what_is_wrong_and_punish_what_is_right():
    precision, iou = mistakes.precision_that_is_none(size=16), mistakes.iou_that_ignores_classes(size=64)
    assert (precision["right, 0.85 sure: precision"], precision["right, 0.85 sure: published"]) == (1.0, 0.0)
    assert (iou["every pixel wrong: published"], iou["every pixel wrong: mean over classes"]) == (1.0, 0.0)
    assert iou["random against random: published"] == pytest.approx(25 / 35, abs=0.02)


def test_most_of_the_published_head_is_never_read():
    found = mistakes.map_that_is_thrown_away(size=16)
    assert found["largest difference of the logits"] < 1e-5
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
