"""Coordinate search: one axis after the other, at the best values of the axes before it, by the mean over the seeds."""

from pathlib import Path

import pandas as pd
import pytest
from sweep_support import TRAP, Sweep, content, run_record, same_weights, state, statuses

from segsweep.sweeps.load import load_sweep

COORDINATE = "hydra/sweeper=coordinate"
SHORT = "trainer.max_steps=2"


def values(sweep: Path) -> list[tuple]:
    return [tuple(job["values"].values()) for job in content(sweep)["jobs"]]


@pytest.mark.slow
def test_the_search_chooses_by_the_results_of_the_whole_grid_and_continues(sweep: Sweep, tmp_path: Path):
    axes = ["lr=0.1,0.001,0.02", "optim=sgd,adam", "seed=0,1", SHORT]
    assert sweep(*axes, "name=grid").code == 0
    table = pd.read_csv(tmp_path / "multirun/grid/summary.csv")
    means = table.groupby(["lr", "optim"])["objective"].mean()
    lr = max([0.1, 0.001, 0.02], key=lambda lr: means[lr, "sgd"])
    optim = max(["sgd", "adam"], key=lambda optim: means[lr, optim])
    final = 'hydra.sweeper.final=["trainer.max_steps=3"]'
    outcome = sweep(*axes, COORDINATE, final, "name=search")
    assert outcome.code == 0, outcome.err
    assert f"best of lr: lr={lr}" in outcome.out
    assert f"best of optim: optim={optim}" in outcome.out
    search = tmp_path / "multirun/search"
    first = [(rate, "sgd", seed) for rate in (0.1, 0.001, 0.02) for seed in (0, 1)]
    second = [(lr, "adam", seed) for seed in (0, 1)]
    assert values(search) == [*first, *second, (lr, optim, 0), (lr, optim, 1)]
    assert set(statuses(search).values()) == {"completed"}
    for job in content(search)["jobs"][:-2]:
        assert same_weights(search / job["directory"], tmp_path / "multirun/grid" / job["directory"])
    for job in content(search)["jobs"][-2:]:
        assert run_record(search / job["directory"])["steps"] == 3
    scored = pd.read_csv(search / "summary.csv")
    assert len(scored) == 10
    for name in ("summary.md", "curves.png", "heatmap.png"):
        assert (search / name).is_file()
    # The same command trains nothing. With another rate it trains what is new on that axis, and what follows from it.
    before = {name: entry for name, entry in state(search).items() if "/" in name}
    again = sweep(*axes, COORDINATE, final, "name=search")
    assert again.code == 0, again.err
    more = sweep("lr=0.1,0.001,0.02,0.0001", *axes[1:], COORDINATE, final, "name=search")
    assert more.code == 0, more.err
    assert (0.0001, "sgd", 0) in values(search)
    after = state(search)
    assert [name for name in before if before[name] != after[name]] == []


def test_a_setting_that_lost_a_replicate_ranks_behind_complete_ones(sweep: Sweep, tmp_path: Path):
    outcome = sweep(
        TRAP, "+callbacks.trap.kind=raise,nothing", "lr=0.1,0.2", "seed=0,1", SHORT, COORDINATE, "name=lost"
    )
    assert outcome.code == 1
    assert "best of +callbacks.trap.kind: +callbacks.trap.kind=nothing" in outcome.out
    lost = tmp_path / "multirun/lost"
    assert [job["status"] for job in content(lost)["jobs"]] == ["failed"] * 2 + ["completed"] * 4


def test_the_search_stops_with_one_line_if_every_job_of_an_axis_failed(sweep: Sweep, tmp_path: Path):
    outcome = sweep(TRAP, "+callbacks.trap.kind=raise", "lr=0.1,0.2", "optim=sgd,adam", COORDINATE, "name=failed")
    assert outcome.code == 1
    assert outcome.error_lines[-1].startswith("error: lr: ")
    assert "Traceback" not in outcome.err
    folder = tmp_path / "multirun/failed"
    assert list(statuses(folder).values()) == ["failed", "failed"]
    assert "2 failed" in (folder / "summary.md").read_text()


def test_on_error_stop_stops_the_search_too(sweep: Sweep, tmp_path: Path):
    outcome = sweep(
        TRAP, "+callbacks.trap.kind=nothing,raise", "lr=0.1,0.2", SHORT, COORDINATE, "on_error=stop", "name=s"
    )
    assert outcome.code == 1
    assert "on_error=stop" in outcome.err
    assert list(statuses(tmp_path / "multirun/s").values()) == ["completed", "failed"]


@pytest.mark.slow
def test_an_interrupted_search_resumes(sweep: Sweep, tmp_path: Path):
    asked = [
        TRAP, "+callbacks.trap.kind=SIGTERM", "+callbacks.trap.flag=stop", "lr=0.1,0.2", "optim=sgd,adam",
        "trainer.max_steps=3", COORDINATE,
    ]  # fmt: skip
    assert sweep(*asked, "name=whole").code == 0
    (tmp_path / "stop").touch()
    assert sweep(*asked, "name=cut").code == 143
    assert sweep(*asked, "name=cut").code == 0
    whole, cut = tmp_path / "multirun/whole", tmp_path / "multirun/cut"
    assert statuses(whole) == statuses(cut)
    assert all(same_weights(whole / name, cut / name) for name in statuses(whole))
    tables = [pd.read_csv(folder / "summary.csv").drop(columns="seconds") for folder in (whole, cut)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_one_setting_with_seeds_and_a_final_training(sweep: Sweep, tmp_path: Path):
    outcome = sweep("seed=0,1", SHORT, COORDINATE, 'hydra.sweeper.final=["trainer.max_steps=3"]', "name=one")
    assert outcome.code == 0, outcome.err
    steps = [run_record(tmp_path / "multirun/one" / name)["steps"] for name in statuses(tmp_path / "multirun/one")]
    assert steps == [2, 2, 3, 3]


def test_a_grid_trains_its_best_setting_again_if_final_asks_for_it(sweep: Sweep, tmp_path: Path):
    outcome = sweep("optim=sgd,adam", "lr=0.001,0.01", "seed=0,1", SHORT, "hydra.sweeper.final=['seed=7']", "name=grid")
    assert outcome.code == 0, outcome.err
    jobs = content(tmp_path / "multirun/grid")["jobs"]
    (final,) = (job for job in jobs if job["stage"] == "final")
    assert len(jobs) == 9
    best = load_sweep(tmp_path / "multirun/grid").comparison.table.iloc[0]
    assert {key: final["values"][key] for key in ("optim", "lr", "seed")} == {
        "optim": best["optim"], "lr": best["lr"], "seed": 7,
    }  # fmt: skip


def test_a_final_training_that_a_later_search_asks_for_is_compared(sweep: Sweep, tmp_path: Path):
    final = "hydra.sweeper.final=['seed=2']"
    assert sweep("lr=0.001,0.01", "seed=0,1", SHORT, final, "name=grid").code == 0
    grid = tmp_path / "multirun/grid"
    assert [job["stage"] for job in content(grid)["jobs"]] == [None] * 4 + ["final"]
    before = {name: entry for name, entry in state(grid).items() if "/" in name}
    outcome = sweep("lr=0.001,0.01", "seed=0,1,2", SHORT, final, "name=grid")
    assert outcome.code == 0, outcome.err
    assert [name for name in before if state(grid)[name] != before[name]] == []
    assert [job["stage"] for job in content(grid)["jobs"]] == [None] * 6
    assert load_sweep(grid).comparison.replicates == 3
    assert load_sweep(grid).comparison.compared == 2
    assert "no final training of lr=" in outcome.out
    assert "hydra.sweeper.final" in outcome.out
