"""settings_of=SWEEP trains the best settings of another sweep, and the report prints the line that does so."""

import dataclasses
import itertools
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import nct, t
from support import ROOT, Command
from sweep_support import TRAP, Made, Sweep, content, run_record, same_weights, state, statuses

from segsweep import user_code
from segsweep.keys import opened
from segsweep.sweeps.load import load_sweep
from segsweep.sweeps.looks import FIRST_LEVEL, look_now
from segsweep.sweeps.next_steps import NextTraining, next_training
from segsweep.sweeps.results import Results
from segsweep.sweeps.settings_of import take
from segsweep.sweeps.state import SweepDirectory
from segsweep.sweeps.statistics import MOST_SEEDS, POWER, seeds_to_decide

SHORT = "trainer.max_steps=1"


def jobs(sweep: Path) -> list[tuple]:
    return [tuple(job["values"].values()) for job in content(sweep)["jobs"]]


def plain_settings(sweep: Path) -> list[dict]:
    shared = content(sweep)["shared"]["settings"]
    return [shared | job["settings"] for job in content(sweep)["jobs"]]


# The joint axis


@pytest.mark.quick
def test_the_jobs_are_the_best_settings_with_their_unswept_overrides_times_the_other_axes(
    grid: Path, command: Command, tmp_path: Path
):
    best = load_sweep(grid).comparison.table[["optim", "lr"]][:3]
    outcome = command("train.py", "-m", "settings_of=multirun/grid", "keep=3", "seed=1,2", SHORT, "name=second")
    assert outcome.code == 0, outcome.err
    second = tmp_path / "multirun/second"
    assert jobs(second) == [(*row, seed) for row in best.itertuples(index=False) for seed in (1, 2)]
    assert content(second)["axes"] == ["optim", "lr", "seed"]
    first = {(job["optim._target_"], job["lr"]): job for job in plain_settings(grid)}
    for found in plain_settings(second):
        there = first[found["optim._target_"], found["lr"]]
        differing = {key for key in found.keys() | there.keys() if found.get(key) != there.get(key)}
        assert differing == {"seed", "data.seed", "trainer.max_steps"}
    assert found["trainer.max_steps"] == 1
    for name in ("heatmap.png", "settings.csv", "summary.md"):
        assert (second / name).is_file()
    assert "python train.py -m settings_of=multirun/grid keep=3 " in (second / "summary.md").read_text()


@pytest.mark.slow
def test_a_job_has_the_weights_of_the_same_job_typed_by_hand(
    grid: Path, command: Command, sweep: Sweep, tmp_path: Path
):
    best = load_sweep(grid).comparison.table.iloc[0]
    assert command("train.py", "-m", "settings_of=multirun/grid", "keep=1", "seed=7,8", "name=taken").code == 0
    assert sweep(f"optim={best['optim']}", f"lr={best['lr']}", "seed=7,8", "name=typed").code == 0
    taken, typed = tmp_path / "multirun/taken", tmp_path / "multirun/typed"
    for seed in (7, 8):
        (one,) = (name for name in statuses(taken) if name.endswith(f"seed={seed}"))
        assert same_weights(taken / one, typed / f"seed={seed}")


@pytest.mark.slow
def test_the_same_command_continues_with_the_settings_of_the_first_time(grid: Path, command: Command, tmp_path: Path):
    asked = ["train.py", "-m", "settings_of=multirun/grid", "keep=2", SHORT, "name=second"]
    assert command(*asked, "seed=1").code == 0
    second = tmp_path / "multirun/second"
    before, kept = jobs(second), {name: entry for name, entry in state(second).items() if name.endswith("ckpt")}
    worst = json.loads(json.dumps(content(grid)))
    for number, job in enumerate(worst["jobs"]):  # now the last setting is the best
        record = run_record(grid / job["directory"])
        record["objective"]["value"] = number / 10
        (grid / job["directory"] / "run.json").write_text(json.dumps(record))
    outcome = command(*asked, "seed=1,2")
    assert outcome.code == 0, outcome.err
    assert {values[:2] for values in jobs(second)} == {values[:2] for values in before}
    assert len(jobs(second)) == 4
    assert {name: entry for name, entry in state(second).items() if name in kept} == kept
    shutil.rmtree(grid)
    assert "4 completed before" in command(*asked, "seed=1,2").out
    for other in (["settings_of=multirun/grid", "keep=1"], ["settings_of=multirun/other", "keep=2"]):
        outcome = command("train.py", "-m", *other, SHORT, "name=second", "seed=1")
        assert (outcome.code, len(outcome.error_lines)) == (1, 1), outcome.err
        assert "settings_of=multirun/grid keep=2" in outcome.err


@pytest.mark.slow
def test_a_sweep_of_taken_settings_is_a_sweep_to_take_from(grid: Path, command: Command, tmp_path: Path):
    command("train.py", "-m", "settings_of=multirun/grid", "keep=3", "seed=1,2,3", SHORT, "name=second")
    second = tmp_path / "multirun/second"
    wanted = load_sweep(second).comparison.table[["optim", "lr"]].iloc[0]
    outcome = command("train.py", "-m", "settings_of=multirun/second", "keep=1", "seed=4,5", "name=third")
    assert outcome.code == 0, outcome.err
    assert jobs(tmp_path / "multirun/third") == [(*wanted, 4), (*wanted, 5)]


@pytest.mark.parametrize(
    ("typed", "parts"),
    [
        (["-m", "settings_of=nowhere"], ["settings_of=nowhere: no sweep there"]),
        (["-m", "settings_of=null"], ["settings_of: needs a value", "multirun/first"]),
        (["-m", "settings_of=multirun/grid", "keep=5"], ["keep=5", "4 settings"]),
        (["-m", "settings_of=multirun/grid", "keep=0"], ["keep=0", "at least 1"]),
        (["-m", "settings_of=multirun/grid", "keep=two"], ["keep=two", "whole number"]),
        (["-m", "settings_of=multirun/grid"], ["settings_of=multirun/grid", "keep=4"]),
        (["-m", "keep=2", "lr=0.1,0.2"], ["keep=2", "settings_of="]),
        (["keep=2"], ["keep=2", "settings_of="]),
        (["settings_of=multirun/grid", "keep=2"], ["settings_of=multirun/grid", "-m"]),
        (["-m", "settings_of=multirun/grid", "keep=2", "lr=0.1"], ["lr=0.1", "leave out lr"]),
        (["-m", "settings_of=multirun/grid", "keep=2", "optim=sgd,adam"], ["optim=sgd, optim=adam", "leave out optim"]),
        (["-m", "settings_of=multirun/grid", "keep=2", "hydra/sweeper=coordinate"], ["hydra/sweeper=grid", "coordinate"]),
        (["-m", "settings_of=multirun/grid", "keep=2", "hydra.sweeper.final=[seed=9]"], ["hydra.sweeper.final"]),
        (["-m", "settings_of=multirun/grid", "keep=2", "name=grid"], ["multirun/grid", "another name"]),
        (["-m", "settings_of=["], ["settings_of=[", "is not closed"]),
    ],
)  # fmt: skip
def test_a_mistake_ends_in_one_line_and_leaves_nothing(grid: Path, command: Command, tmp_path: Path, typed, parts):
    before = state(tmp_path)
    outcome = command("train.py", *typed, "seed=1")
    assert outcome.code in (1, 2)
    assert len(outcome.error_lines) == 1, outcome.err
    for part in parts:
        assert part in outcome.err
    assert {name: entry for name, entry in state(tmp_path).items() if "outputs" not in name} == before
    assert [path.name for path in (tmp_path / "multirun").iterdir()] == ["grid"]


def test_a_sweep_without_a_completed_job_or_with_groups_has_no_best_settings(
    made: Made, command: Command, tmp_path: Path
):
    made({"lr": [0.1, 0.2]}, lambda _: "pending")
    outcome = command("train.py", "-m", "settings_of=made", "keep=1", "seed=1")
    assert (outcome.code, len(outcome.error_lines)) == (1, 1), outcome.err
    assert "no job of that sweep is completed" in outcome.err
    shutil.rmtree(tmp_path / "made")
    made({"data.sigma1": [1, 2]}, lambda _: 0.5)
    outcome = command("train.py", "-m", "settings_of=made", "keep=1", "seed=1")
    assert (outcome.code, len(outcome.error_lines)) == (1, 1), outcome.err
    assert "data.sigma1 may change the images" in outcome.err


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("+callbacks.strange._target_=strange.Thing", ["strange.Thing", "code=strange.py"]),
        ("+callbacks.strange={_target_:strange.Thing}", ["strange.Thing", "code=strange.py"]),
        ("lr=${oc.env:HOME}", ["sweep.json", "lr"]),
        ("hydra.run.dir=elsewhere", ["sweep.json", "hydra.run.dir"]),
        ("optim=../../elsewhere", ["sweep.json", "optim"]),
    ],
)
def test_a_stored_override_runs_no_code_and_is_not_resolved(
    grid: Path, command: Command, tmp_path: Path, override, parts, monkeypatch
):
    (tmp_path / "strange.py").write_text("import pathlib\npathlib.Path('MADE').touch()\nclass Thing: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    stored = content(grid)
    for job in stored["jobs"]:
        job["overrides"] = [*job["overrides"], override, "code=strange.py", "resume=elsewhere"]
    (grid / "sweep.json").write_text(json.dumps(stored))
    outcome = command("train.py", "-m", "settings_of=multirun/grid", "keep=1", "seed=1", "name=second")
    assert (outcome.code, len(outcome.error_lines)) == (1, 1), outcome.err
    for part in parts:
        assert part in outcome.err
    assert not list(tmp_path.rglob("MADE"))
    assert not (tmp_path / "multirun/second").exists()


@pytest.mark.slow
def test_what_a_stored_sweep_may_not_say_is_typed_again_and_printed(
    sweep: Sweep, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delitem(user_code._loaded, "traps", raising=False)  # another test may have named the file
    asked = [TRAP, "+callbacks.trap.kind=nothing", "data.sigma1=${base}", "+base=2.5"]
    outcome = sweep(*asked, "lr=0.001,0.01", SHORT, "name=first")
    assert outcome.code == 0, outcome.err
    (line,) = (line.strip() for line in outcome.out.splitlines() if "settings_of" in line)
    words = shlex.split(line)
    assert words[:3] == ["python", "train.py", "-m"]
    assert "data.sigma1=${base}" in words
    refused = command("train.py", *(word for word in words[2:] if "sigma1" not in word), TRAP)
    assert (refused.code, len(refused.error_lines)) == (1, 1), refused.err
    assert "data.sigma1" in refused.err
    refused = command("train.py", *words[2:])
    assert (refused.code, len(refused.error_lines)) == (1, 1), refused.err
    assert "traps.Trap" in refused.err
    outcome = command("train.py", *words[2:], TRAP, "name=second")
    assert outcome.code == 0, outcome.err
    assert {job["data.sigma1"] for job in plain_settings(tmp_path / "multirun/second")} == {2.5}


# The line that is printed


def following(sweep: Path) -> NextTraining | None:
    return next_training(Results.read(SweepDirectory(sweep), look_now))


def typed_words(line: str) -> list[str]:
    """The words of a printed line, as bash and `opened` hand them to Hydra."""
    words = shlex.split(line)
    assert words[:3] == ["python", "train.py", "-m"]
    return opened("train", words[3:])


def assert_composes(line: str) -> dict[str, list[str]]:
    """Hydra's parser reads every word, and the configuration composes with each value. Returns the values by key."""
    words, found = typed_words(line), {}
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for override in OverridesParser.create().parse_overrides(words):
            key = override.get_key_element()
            found[key] = [override.value()]
            if override.is_sweep_override():
                found[key] = list(override.sweep_string_iterator())
            for value in found[key] if not key.startswith("++") else ():
                compose("train", overrides=[f"{key}={value}"])
    return found


def test_the_line_after_one_seed_names_the_sweep_and_seeds_that_did_not_pick(made: Made, tmp_path: Path, monkeypatch):
    made({"lr": [0.1, 0.2, 0.3], "seed": [3]}, lambda job: job["lr"])
    monkeypatch.chdir(tmp_path)
    results = Results.read(SweepDirectory(Path("made")), look_now)
    for name in ("made", "a b", "it's", "a,b=c", "[x]", "$HOME", "ü (1)", "7"):
        found = next_training(dataclasses.replace(results, sweep=SweepDirectory(Path(name))))
        assert found is not None
        assert assert_composes(str(found.command)) == {
            "++hydra.sweeper.settings_of": [name], "++hydra.sweeper.keep": [3], "seed": ["4", "5", "6", "7", "8"],
        }  # fmt: skip


def test_the_line_is_printed_and_runs(grid: Path, command: Command, finished, tmp_path: Path):
    (line,) = (line.strip() for line in finished[1].out.splitlines() if "settings_of" in line)
    outcome = command("train.py", *shlex.split(line)[2:], SHORT, "name=second")
    assert outcome.code == 0, outcome.err
    assert len(jobs(tmp_path / "multirun/second")) == 20


def varying(**means: float) -> Callable:
    """Scores of five seeds about these means, by optim: with a spread of 0.01 between settings."""
    noise = np.random.default_rng(0).standard_normal((len(means), 100)) * 0.01
    rows = {name: noise[place] + mean for place, (name, mean) in enumerate(means.items())}
    return lambda job: float(rows[job["optim"]][job["seed"]])


def test_after_several_seeds_the_contenders_are_trained_with_as_many_new_seeds_as_decide(made: Made, tmp_path: Path):
    score = varying(sgd=0.90, adam=0.893, rmsprop=0.6)
    sweep = made({"optim": ["sgd", "adam", "rmsprop"], "seed": [0, 1, 2, 3]}, score)
    table = sweep.comparison.table.set_index("optim")
    assert table["standing"].to_dict() == {"sgd": "leader", "adam": "contender", "rmsprop": "ruled out"}
    found = following(tmp_path / "made")
    number = int(re.search(r"(\d+) for optim=adam", found.why)[1])
    values = {name: np.array([score({"optim": name, "seed": seed}) for seed in range(4)]) for name in ("sgd", "adam")}
    logits = {name: np.log(found / (1 - found)) for name, found in values.items()}
    differences = logits["sgd"] - logits["adam"]
    assert number == seeds_to_decide(differences.mean(), differences.std(ddof=1), FIRST_LEVEL)
    seeds = assert_composes(found.command)["seed"]
    assert seeds == [str(seed) for seed in range(4, 4 + number)]
    assert "keep" not in found.command
    taken = take(tmp_path / "made", None)
    assert len(taken.settings) == 2


def test_a_job_whose_folder_was_removed_does_not_count(made: Made, tmp_path: Path):
    made({"optim": ["sgd", "adam", "rmsprop"], "seed": [0, 1, 2, 3]}, varying(sgd=0.90, adam=0.893, rmsprop=0.6))
    whole = following(tmp_path / "made")
    shutil.rmtree(tmp_path / "made/optim=adam,seed=3")
    assert str(following(tmp_path / "made")) != str(whole)


def test_equal_contenders_get_no_line_and_one_winner_gets_one_for_a_number_to_report(made: Made, tmp_path: Path):
    values = itertools.cycle([0.9, 0.91, 0.92, 0.91, 0.92, 0.9])
    made({"optim": ["sgd", "adam"], "seed": [0, 1, 2]}, lambda _: next(values))
    found = following(tmp_path / "made")
    assert "more than 100" in found.why
    assert found.command is None
    shutil.rmtree(tmp_path / "made")
    made({"optim": ["sgd", "adam"], "seed": [0, 1, 2]}, varying(sgd=0.9, adam=0.6))
    found = following(tmp_path / "made")
    assert assert_composes(found.command)["seed"] == ["3", "4", "5", "6", "7"]
    assert len(take(tmp_path / "made", None).settings) == 1


@pytest.mark.parametrize("axes", [{"seed": [0, 1, 2]}, {"data.sigma1": [1, 2]}])
def test_nothing_is_printed_where_no_setting_is_the_best(made: Made, tmp_path: Path, axes):
    made(axes, lambda job: 0.5 + 0.01 * next(iter(job.values())))
    assert following(tmp_path / "made") is None


def test_the_largest_seed_is_not_passed(made: Made, tmp_path: Path):
    made({"lr": [0.1, 0.2], "seed": [(1 << 32) - 3]}, lambda job: job["lr"])
    assert assert_composes(following(tmp_path / "made").command)["seed"] == ["0", "1", "2", "3", "4"]


# The number of seeds


@settings(max_examples=60, deadline=None)
@given(st.floats(0.05, 20), st.floats(0.0005, 0.05))
def test_the_number_of_seeds_is_the_first_with_enough_power_by_scipy(effect: float, level: float):
    number = seeds_to_decide(effect, 1.0, level)
    n = np.arange(3, MOST_SEEDS + 1)
    power = nct.sf(t.isf(level, n - 1), n - 1, effect * np.sqrt(n))
    assume(np.abs(power - POWER).min() > 1e-6)
    assert number == next((int(each) for each, enough in zip(n, power >= POWER, strict=True) if enough), None)
    assert seeds_to_decide(3 * effect, 3.0, level) == number
    assert seeds_to_decide(-effect, 1.0, level) is None


def test_so_many_simulated_sweeps_find_the_difference():
    rng = np.random.default_rng(1)
    number = seeds_to_decide(1.0, 1.0, 0.01)
    for n, enough in ((number, True), (number - 1, False)):
        values = rng.standard_normal((100_000, n)) + 1.0
        found = values.mean(axis=1) / (values.std(axis=1, ddof=1) / np.sqrt(n)) > t.isf(0.01, n - 1)
        assert (found.mean() >= POWER) == enough


def test_nothing_else_is_given_to_the_sweeper():
    assert opened("train", ["settings_of=a", "keep=2", "data.keep=1", "keep_all=1", "lr=keep"]) == [
        "++hydra.sweeper.settings_of=a", "++hydra.sweeper.keep=2", "data.keep=1", "keep_all=1", "lr=keep",
    ]  # fmt: skip
    assert opened("predict", ["keep=2"]) == ["keep=2"]
