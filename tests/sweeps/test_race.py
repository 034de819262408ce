"""A race: its looks as a function of the values, and races with real trainings."""

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
from sweep_support import TRAP, Sweep, content, same_weights, state, statuses

from segsweep.errors import UserError
from segsweep.sweeps.load import load_sweep
from segsweep.sweeps.looks import look_now
from segsweep.sweeps.race import Course, RaceLook, follow, level_of, planned
from segsweep.sweeps.state import Race, SweepRecord
from segsweep.sweeps.statistics import LEVEL, equivalent

RACE = "hydra/sweeper=race"
SHORT = "trainer.max_steps=2"
LOOKS = (3, 5, 8)


def drawn(seed: int, k: int = 5, n: int = 9, step: float = 1.0) -> np.ndarray:
    """Values [k, n] of k settings; column 0 is the screening's."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal((k, n)) + generator.standard_normal(n) - step * np.arange(k)[:, None]


def table(values: np.ndarray, seeds: int = 8) -> pd.DataFrame:
    """The jobs with the seeds up to this; NaN is a job that failed."""
    rows = [
        {"lr": lr, "seed": seed, "objective": value, "status": "failed" if math.isnan(value) else "completed"}
        for lr, row in enumerate(values)
        for seed, value in enumerate(row[: seeds + 1])
    ]
    return pd.DataFrame(rows)


def raced(jobs: pd.DataFrame, keep: int = 4, margin: float | None = None, mode: Any = "max") -> Course:
    """The race of the settings 0 to keep - 1."""
    race = Race(keep, list(LOOKS), margin, [{"lr": lr} for lr in range(keep)])
    return follow(jobs, ["lr"], race, name="val/iou", mode=mode)


def ruled_out(course: Course, look: int) -> set[int]:
    gone = course.looks[look].gone
    return set(gone["lr"][gone["standing"] == "ruled out"])


def left_at(look: RaceLook) -> set[int]:
    return {int(key[0][1]) for key in look.left}


VALUES = st.builds(drawn, st.integers(0, 10_000), step=st.sampled_from([0.0, 0.5, 3.0]))


@given(VALUES, st.integers(0, 100))
@settings(max_examples=15, deadline=None)
def test_looks_depend_neither_on_the_order_of_jobs_nor_on_those_that_came_later(values: np.ndarray, seed: int) -> None:
    whole = raced(table(values))
    assert [look.seeds for look in whole.looks] == list(LOOKS[: len(whole.looks)])
    shuffled = raced(table(values).sample(frac=1, random_state=seed))
    pd.testing.assert_frame_equal(whole.compared.table, shuffled.compared.table)
    for taken, seeds in enumerate((2, 4, 7)):  # a race that is interrupted has taken the same looks
        before = raced(table(values, seeds))
        assert [look.line for look in before.looks] == [look.line for look in whole.looks][:taken]


@given(VALUES)
@settings(max_examples=30, deadline=None)
def test_each_look_corrects_for_all_settings_that_were_kept(values: np.ndarray) -> None:
    course, left = raced(table(values)), set(range(4))
    for look in course.looks:
        rows = look.compared.table.set_index("lr")
        assert set(rows.index) == left
        for one in left:
            against = [
                stats.ttest_rel(values[other, 1 : look.seeds + 1], values[one, 1 : look.seeds + 1]).statistic
                for other in left
                if rows["mean"][other] > rows["mean"][one]
            ]
            p = min(1.0, 3 * stats.t.sf(max(against, default=-math.inf), look.seeds - 1))
            assert rows["p_best"][one] == pytest.approx(p, rel=1e-9, abs=1e-12)
            assert (rows["standing"][one] == "ruled out") == (p <= LEVEL / 3)
        left = left_at(look)
    assert course.looks[-1].over
    best = course.compared.table.iloc[0]
    assert best["standing"] == "leader"
    assert set(course.compared.table["lr"]) == set(range(5))
    assert len(course.compared.table) == 5


@given(VALUES, st.integers(0, 3), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_a_lost_replicate_takes_its_setting_out_and_its_return_takes_no_verdict_back(
    values: np.ndarray, lost: int, seed: int
) -> None:
    without = values.copy()
    without[lost, seed] = math.nan
    before, after = raced(table(without)), raced(table(values))
    row = before.looks[0].compared.table.set_index("lr").loc[lost]
    assert (row["missing"], row["out_at"]) == (f"seed={seed} failed", "look 1")
    assert lost not in left_at(before.looks[0])
    assert ruled_out(before, 0) <= ruled_out(after, 0)


def test_the_race_ends_when_one_setting_is_left_and_says_what_it_cost() -> None:
    values = 1000 + drawn(0, step=100.0)
    course = raced(table(values, 3))
    (look,) = course.looks
    assert (look.over, len(look.left)) == (True, 1)
    assert course.compared.table["out_at"].tolist() == ["", "look 1", "look 1", "look 1", "screening"]
    assert course.compared.table["n"].tolist() == [3, 3, 3, 3, 1]
    verdict = course.compared.verdict
    assert "Use: lr=0 " in verdict
    assert "(-1e+02, at look 1)" in verdict
    assert "screened out by one seed" in verdict
    assert "look 1 of this race, at level 1.67 %" in verdict
    assert "corrected for 4 settings" in verdict
    assert "20 trainings; all 5 settings with 3 seeds would have taken 15" in verdict
    assert "Worse than" not in verdict


def test_the_screened_out_are_ranked_by_their_seed_and_the_kept_by_the_racing_seeds_alone() -> None:
    values = drawn(1, k=7, step=0.0)
    rows = raced(table(values)).compared.table.set_index("lr")
    out = rows[rows["out_at"] == "screening"]
    assert list(out.index) == sorted((4, 5, 6), key=lambda lr: -values[lr, 0])
    assert (out["standing"] == "untested").all()
    for lr, row in rows[rows["out_at"] == ""].iterrows():
        assert row["mean"] == pytest.approx(values[lr, 1:].mean())


def test_a_race_waits_for_all_jobs_of_a_look_and_shows_the_look_before() -> None:
    values, jobs = drawn(2, step=0.0), table(drawn(2, step=0.0))
    jobs.loc[(jobs["lr"] == 0) & (jobs["seed"] == 5), "status"] = "running"
    course = raced(jobs)
    assert (len(course.looks), course.compared.replicates, course.compared.look) == (1, 3, 1)
    assert course.compared.later == 19
    assert "The race is not over" in course.compared.verdict
    first = raced(table(values, 2))
    assert (first.looks, first.compared.tested) == ((), False)
    nothing = raced(jobs.assign(status="pending", objective=math.nan))
    assert nothing == Course((), None)


def test_a_race_in_which_every_setting_is_lost_has_no_leader() -> None:
    values = drawn(3)
    values[:, 2] = math.nan
    course = raced(table(values))
    assert (len(course.looks), course.looks[0].over) == (1, True)
    assert course.compared.best is None
    assert "No setting has all its replicates" in course.compared.verdict
    nothing = raced(table(np.full((4, 9), math.nan)))
    assert ([look.over for look in nothing.looks], nothing.compared) == ([True], None)


@given(VALUES, st.floats(0.01, 5), st.sampled_from(["min", "max"]))
@settings(max_examples=30, deadline=None)
def test_a_margin_ends_the_race_when_the_bounds_are_within_it(values: np.ndarray, margin: float, mode: str) -> None:
    course = raced(table(values), margin=margin, mode=mode)
    for look in course.looks:
        assert look.compared.level == LEVEL / 3 / 2
        left = sorted(left_at(look))
        bounds = [
            stats.ttest_rel(values[i, 1 : look.seeds + 1], values[j, 1 : look.seeds + 1])
            .confidence_interval(1 - 2 * LEVEL / 36)
            .high
            for i in left
            for j in left
            if i != j
        ]
        assert look.equivalent == (len(left) > 1 and max(bounds) <= margin)
        assert look.over == (look.equivalent or len(left) < 2 or look.number == 3)
    if len(course.looks[-1].left) > 1:
        said = "Equivalent: " if course.looks[-1].equivalent else "Not shown: "
        assert any(line.startswith(said) for line in course.compared.sentences())


@given(VALUES, st.floats(0.1, 5), st.floats(-10, 10))
@settings(max_examples=30, deadline=None)
def test_equivalence_knows_neither_the_direction_nor_the_level_of_the_values(
    values: np.ndarray, margin: float, shift: float
) -> None:
    found = equivalent(values, margin, 0.05, pairs=10)
    assert equivalent(-values, margin, 0.05, pairs=10) == found
    moved = values + shift * np.arange(values.shape[1])
    assert equivalent(moved, margin * (1 + 1e-9), 0.05, pairs=10) >= found
    assert not found or equivalent(values, 2 * margin, 0.05, pairs=10)
    assert not found or equivalent(values, margin, 0.05, pairs=1)


def test_a_difference_that_is_the_same_for_every_seed_shows_no_equivalence_but_equal_values_do() -> None:
    one = np.array([0.5, 0.25, 0.75])
    assert equivalent(np.stack([one, one]), 0.0, 0.01, pairs=1)
    assert not equivalent(np.stack([one, one + 0.125]), 1.0, 0.01, pairs=1)


@given(st.sets(st.integers(2, 40), min_size=1, max_size=6), st.sampled_from([None, 0.01]))
def test_all_looks_together_have_five_percent(looks: set[int], margin: float | None) -> None:
    race = planned(None, sorted(looks), margin, 9)
    tests = 1 if margin is None else 2
    assert level_of(race) * len(looks) * tests == pytest.approx(LEVEL)
    record = SweepRecord([], {"name": "val/iou", "mode": "max"}, race=race)
    assert SweepRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    assert look_now(record) is None
    assert planned(None, sorted(looks), margin, 3).keep == 3


@pytest.mark.parametrize(
    ("key", "plan"),
    [
        ("keep", {"keep": 10}), ("keep", {"keep": 1}), ("keep", {"keep": "four"}), ("keep", {"keep": True}),
        ("looks", {"looks": [3, 3]}), ("looks", {"looks": [5, 3]}), ("looks", {"looks": []}), ("looks", {"looks": [1, 2]}),
        ("looks", {"looks": 3}), ("looks", {"looks": "3,5"}), ("looks", {"looks": [3, 4.5]}),
        ("margin", {"margin": -0.1}), ("margin", {"margin": "small"}), ("margin", {"margin": math.nan}),
    ],
)  # fmt: skip
def test_a_plan_that_is_no_plan_is_refused_by_its_key(key: str, plan: dict[str, Any]) -> None:
    with pytest.raises(UserError) as refused:
        planned(**({"keep": None, "looks": [3, 5, 8], "margin": None} | plan), settings=9)
    message = str(refused.value)
    assert message.startswith(f"hydra.sweeper.{key}=")
    assert f"give hydra.sweeper.{key}=" in message.replace("'", "")
    assert "\n" not in message


SMALL_RACE = [RACE, SHORT, "hydra.sweeper.keep=2", "hydra.sweeper.looks=[2,3]"]


def seeds(sweep: Path) -> dict[float, list[int]]:
    """The seeds that each learning rate was trained with."""
    found: dict[float, list[int]] = {}
    for job in content(sweep)["jobs"]:
        found.setdefault(job["values"]["lr"], []).append(job["values"]["seed"])
    return found


@pytest.mark.quick
def test_a_race_trains_the_kept_settings_with_fresh_seeds_and_keeps_its_cut(sweep: Sweep, tmp_path: Path):
    asked, folder = [*SMALL_RACE, "lr=0.001,0.01,0.1", "name=race"], tmp_path / "multirun/race"
    first = sweep(*asked)
    assert first.code == 0, first.err
    loaded = load_sweep(folder)
    scores = {
        job["values"]["lr"]: loaded.results.runs[job["directory"]].objective.value
        for job in content(folder)["jobs"][:3]
    }
    kept = sorted(scores, key=lambda lr: -scores[lr])[:2]
    race = content(folder)["race"]
    assert [values["lr"] for values in race["kept"]] == kept
    assert (race["keep"], race["looks"], race["margin"]) == (2, [2, 3], None)
    raced_seeds = [0, 1, 2, 3] if "look 2 over" in first.out else [0, 1, 2]
    assert seeds(folder) == {lr: raced_seeds if lr in kept else [0] for lr in scores}
    assert loaded.comparison.table["out_at"].tolist()[-1] == "screening"
    assert f"Spent: {len(statuses(folder))} trainings" in first.out
    assert "hydra/sweeper=race" in (folder / "summary.md").read_text()
    before = state(folder)
    again = sweep(*asked)
    assert again.code == 0, again.err
    assert {name: file[1] for name, file in state(folder).items()} == {name: file[1] for name, file in before.items()}
    kept_files = state(folder)
    for more in (["lr=0.001,0.01"], ["momentum=0.1,0.5"], ["hydra.sweeper.looks=[2,4]"], ["hydra/sweeper=grid"]):
        refused = sweep(*asked, *more)
        assert (refused.code, len(refused.error_lines)) == (1, 1), refused.err
        assert state(folder) == kept_files


@pytest.mark.parametrize(
    ("asked", "key"),
    [
        (["lr=0.1,0.2", "seed=0,1"], "seed=0"), (["lr=0.1,0.2", "seed=3"], "seed=3"), (["lr=0.1"], "hydra/sweeper=race"),
        (["lr=0.1,0.2", "hydra.sweeper.keep=3"], "hydra.sweeper.keep=3"),
        (["lr=0.1,0.2", "data.sigma2=1.0,1.2"], "data.sigma2"),
    ],
)  # fmt: skip
def test_a_race_that_cannot_be_is_refused_before_any_training(sweep: Sweep, tmp_path: Path, asked: list[str], key: str):
    outcome = sweep(RACE, *asked)
    assert (outcome.code, len(outcome.error_lines)) == (1, 1), outcome.err
    assert outcome.err.startswith(f"error: {key}: ")
    assert list(tmp_path.glob("multirun/*")) == []


def test_a_grid_is_no_race(grid: Path, sweep: Sweep):
    before = state(grid)
    outcome = sweep(RACE, "optim=sgd,adam", "lr=0.001,0.01", "name=grid")
    assert (outcome.code, len(outcome.error_lines)) == (1, 1), outcome.err
    assert state(grid) == before


def test_the_seeds_of_a_study_are_not_used(sweep: Sweep, tmp_path: Path):
    outcome = sweep(
        *SMALL_RACE, "study=texture_optimizers", "optim=sgd,adam,rmsprop", "hydra.sweeper.looks=[2]", "name=s"
    )
    assert outcome.code == 0, outcome.err
    assert "not used: the study's seed=0,1,2" in outcome.out
    assert {job["values"]["seed"] for job in content(tmp_path / "multirun/s")["jobs"]} == {0, 1, 2}


TRAPPED = [*SMALL_RACE, TRAP, "+callbacks.trap.kind=raise", "+callbacks.trap.flag='${lr}-${seed}'", "lr=0.1,0.2,0.3"]


def same_races(one: Path, other: Path) -> None:
    """Asserts that both have the same jobs, weights and results."""
    assert statuses(one) == statuses(other)
    assert content(one)["race"] == content(other)["race"]
    assert all(same_weights(one / name, other / name) for name in statuses(one))
    for name in ("summary.csv", "settings.csv"):
        tables = [pd.read_csv(folder / name).drop(columns="seconds", errors="ignore") for folder in (one, other)]
        pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_a_job_that_failed_is_tried_once_more_before_the_cut_and_before_a_look(sweep: Sweep, tmp_path: Path):
    whole, tried = tmp_path / "multirun/whole", tmp_path / "multirun/tried"
    assert sweep(*TRAPPED, "name=whole").code == 0
    kept = content(whole)["race"]["kept"][0]["lr"]
    for name in ("0.1-0", "0.2-0", f"{kept}-1"):
        (tmp_path / name).touch()
    outcome = sweep(*TRAPPED, "name=tried")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("trying again what failed") == 2
    same_races(whole, tried)


def test_a_setting_that_lost_a_replicate_leaves_the_race_until_the_job_is_completed(sweep: Sweep, tmp_path: Path):
    whole, lost = tmp_path / "multirun/whole", tmp_path / "multirun/lost"
    assert sweep(*TRAPPED, "hydra.sweeper.keep=3", "name=whole").code == 0
    (tmp_path / "0.2-1").mkdir()  # cannot be deleted as a file, so the job fails each time
    first = sweep(*TRAPPED, "hydra.sweeper.keep=3", "name=lost")
    assert first.code == 1
    assert "lost a replicate: lr=0.2" in first.out
    row = load_sweep(lost).comparison.table.set_index("lr").loc[0.2]
    assert (row["standing"], row["out_at"], row["n"]) == ("unstable", "look 1", 1)
    assert 3 not in seeds(lost)[0.2]
    (tmp_path / "0.2-1").rmdir()
    assert sweep(*TRAPPED, "hydra.sweeper.keep=3", "name=lost").code == 0
    assert {job["values"]["seed"]: job["status"] for job in content(lost)["jobs"] if job["values"]["lr"] == 0.2}[
        1
    ] == "completed"
    assert sorted(statuses(lost)) == sorted(statuses(whole))
    table = [load_sweep(folder).comparison.table for folder in (whole, lost)]
    pd.testing.assert_frame_equal(*table, check_exact=True)


def test_a_screening_in_which_nearly_all_fail_has_no_cut_and_is_tried_again(sweep: Sweep, tmp_path: Path):
    for name in ("0.1-0", "0.2-0"):
        (tmp_path / name).mkdir()
    outcome = sweep(*TRAPPED, "name=r")
    assert outcome.code == 1
    assert outcome.error_lines[-1].startswith("error: 1 of 3 settings completed the screening")
    assert content(tmp_path / "multirun/r")["race"]["kept"] == []
    for name in ("0.1-0", "0.2-0"):
        (tmp_path / name).rmdir()
    assert sweep(*TRAPPED, "name=r").code == 0
    assert len(content(tmp_path / "multirun/r")["race"]["kept"]) == 2


def test_on_error_stop_stops_a_race_and_the_same_command_goes_on(sweep: Sweep, tmp_path: Path):
    whole, stopped = tmp_path / "multirun/whole", tmp_path / "multirun/stopped"
    assert sweep(*TRAPPED, "on_error=stop", "name=whole").code == 0
    kept = content(whole)["race"]["kept"][1]["lr"]
    for name in ("0.2-0", f"{kept}-2"):
        (tmp_path / name).touch()
    assert sweep(*TRAPPED, "on_error=stop", "name=stopped").code == 1
    assert seeds(stopped) == {0.1: [0], 0.2: [0], 0.3: [0]}
    assert sweep(*TRAPPED, "on_error=stop", "name=stopped").code == 1
    assert sweep(*TRAPPED, "on_error=stop", "name=stopped").code == 0
    same_races(whole, stopped)


def test_an_interrupted_race_resumes(sweep: Sweep, tmp_path: Path):
    asked = [part.replace("kind=raise", "kind=SIGTERM") for part in TRAPPED]
    whole, cut = tmp_path / "multirun/whole", tmp_path / "multirun/cut"
    assert sweep(*asked, "name=whole").code == 0
    kept = content(whole)["race"]["kept"][1]["lr"]
    for name in ("0.2-0", f"{kept}-2"):
        (tmp_path / name).touch()
    assert sweep(*asked, "name=cut").code == 143
    assert sweep(*asked, "name=cut").code == 143
    assert sweep(*asked, "name=cut").code == 0
    same_races(whole, cut)


def test_the_winner_is_trained_again_with_a_seed_that_did_not_race(sweep: Sweep, tmp_path: Path):
    asked = [*SMALL_RACE, "lr=0.001,0.01", 'hydra.sweeper.final=["trainer.max_steps=3"]', "name=final"]
    outcome = sweep(*asked)
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "multirun/final"
    last = content(folder)["jobs"][-1]
    assert (last["stage"], last["values"]["seed"]) == ("final", 4)
    assert last["values"]["lr"] == load_sweep(folder).comparison.table["lr"][0]
    assert 0 not in [job["values"]["seed"] for job in content(folder)["jobs"]]  # all settings race: nothing to screen
