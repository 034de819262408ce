"""Reports of sweeps with made-up results: tables that fit a terminal, pictures that state what they leave out."""

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from support import ROOT
from sweep_support import DIVERGED, Made, Values

from segsweep.errors import UserError
from segsweep.runs import RunRecord
from segsweep.sweeps.figures import MOST_VALUES
from segsweep.sweeps.load import Sweep, load_sweep
from segsweep.sweeps.report import report_lines, write_report
from segsweep.sweeps.report_text import Tally, count_missing, decimals, job_line
from segsweep.sweeps.results import Results


def noisy(values: Values, spread: float = 0.002) -> float:
    """A score that is higher the nearer the rate is to 0.01; the seed changes it a little."""
    near = 1 / (1 + abs(np.log10(values.get("lr", 0.01)) + 2))
    return float(near * (0.9 if values.get("optim") == "sgd" else 0.95) + spread * np.sin(sum(map(ord, str(values)))))


def lines(sweep: Sweep, width: int) -> list[str]:
    return [part.plain for part in report_lines(sweep.results, width)]


def texts(figure: Figure) -> list[str]:
    """All text in a picture."""
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    suptitle = [] if figure._suptitle is None else [figure._suptitle.get_text()]
    return suptitle + found


THREE_WAY = {"optim": ["sgd", "adam", "rmsprop"], "lr": [0.001, 0.01, 0.1], "seed": [0, 1, 2]}


# Tables


def test_each_setting_has_one_line_of_at_most_100_letters(made: Made):
    axes = {**THREE_WAY, "momentum": [None, 0.9]}
    sweep = made(axes, lambda values: None if values["lr"] == 0.1 and values["optim"] == "adam" else noisy(values))
    table = lines(sweep, 100)[: 2 + 18]
    assert max(map(len, table)) <= 100
    assert [line.split()[0] for line in table[2:]] == [str(rank) for rank in range(1, 19)]
    assert all(line.endswith(("leader", "contender", "ruled out", "3 diverged")) for line in table[2:])


def test_a_narrow_terminal_loses_columns_and_no_setting(made: Made):
    sweep = made(THREE_WAY, noisy)
    narrow, wide = lines(sweep, 50)[:11], lines(sweep, 100)[:11]
    assert max(map(len, narrow)) <= 50
    assert "± std" in wide[0]
    assert "± std" not in narrow[0]
    for line in narrow[2:]:
        assert line.split()[1] in THREE_WAY["optim"]
        assert float(line.split()[2]) in THREE_WAY["lr"]


def test_more_than_30_rows_are_left_to_summary_md(made: Made):
    sweep = made({"lr": [1 / (rate + 1) for rate in range(40)]}, noisy)
    assert "and 10 more in summary.md" in lines(sweep, 100)
    assert sweep.path.joinpath("summary.md").read_text().count("| completed |") == 40


def test_jobs_that_failed_with_the_same_error_share_a_line(made: Made):
    sweep = made(THREE_WAY, lambda values: None if values["lr"] == 0.1 else noisy(values))
    failed = [line for line in lines(sweep, 100) if line.startswith("failed: ")]
    assert failed == [
        "failed: optim=sgd, lr=0.1, seed=0; optim=sgd, lr=0.1, seed=1; optim=sgd, lr=0.1, seed=2; and 6 more: "
        + DIVERGED
    ]
    assert f"- {failed[0].removeprefix('failed: ')}\n" in sweep.path.joinpath("summary.md").read_text()


def test_columns_have_the_decimals_that_their_best_value_needs():
    assert [decimals([value, 0.5]) for value in (0.97, 0.0134, 0.00042, 2.0, 12345.0, 0.0, float("nan"))] == [
        4, 5, 7, 4, 4, 4, 4,
    ]  # fmt: skip
    assert decimals([None, float("inf")]) == 4
    assert count_missing("seed=0 diverged, seed=2 diverged, seed=3 not run") == "2 diverged, 1 not run"


def test_summary_md_has_settings_where_there_are_replicates_and_always_the_jobs(made: Made):
    with_seeds = made(THREE_WAY, noisy).path.joinpath("summary.md").read_text()
    assert with_seeds.index("\n**") < with_seeds.index("## Settings") < with_seeds.index("## Jobs")
    assert "](curves.png)" in with_seeds
    assert "](heatmap.png)" in with_seeds


def test_summary_md_without_replicates_has_the_jobs_alone(made: Made):
    text = made({"lr": [0.1, 0.01]}, noisy).path.joinpath("summary.md").read_text()
    assert "## Settings" not in text
    assert "The run to take: `lr=0.01`" in text


@pytest.mark.parametrize("value", [None, "pending"])
def test_a_sweep_without_a_result_says_so_everywhere(made: Made, value: str | None):
    sweep = made({"lr": [0.1, 0.01]}, lambda _: value)
    assert len(lines(sweep, 100)[2:4]) == 2
    for ask in (sweep.curves, sweep.best, lambda: sweep.comparison):
        with pytest.raises(UserError):
            ask()


def test_while_jobs_run_settings_are_ranked_and_not_tested(made: Made):
    sweep = made(THREE_WAY, noisy)
    live = Results(sweep.directory, sweep.record, sweep.results.runs)
    assert set(live.compared.table["standing"]) == {"untested"}
    assert live.compared.table[["p_best", "p"]].isna().all(axis=None)
    assert live.compared.table["mean"].tolist() == sweep.comparison.table["mean"].tolist()
    (line,) = live.compared.sentences()
    assert line.startswith("So far ")


def test_settings_csv_has_the_rows_of_the_comparison(made: Made):
    sweep = made(THREE_WAY, noisy)
    stored = pd.read_csv(sweep.path / "settings.csv", keep_default_na=False, na_values=[""])
    assert len(stored) == 9
    assert stored["standing"].tolist() == sweep.comparison.table["standing"].tolist()
    np.testing.assert_allclose(stored["p_best"], sweep.comparison.table["p_best"])


def test_a_report_over_the_same_jobs_is_the_same_look(made: Made):
    sweep = made(THREE_WAY, noisy)
    looks = [{"level": 0.04, "completed": [[0, 26]], "failed": []}]
    assert sweep.directory.read().looks == looks
    assert write_report(sweep.directory).look.number == 1
    assert sweep.directory.read().looks == looks
    # With new jobs that have not ended, the verdict stays that of the last look.
    record = sweep.directory.read()
    job = copy.deepcopy(record.jobs[0])
    job.key, job.number, job.directory, job.status = "new", 27, "new", "pending"
    job.values |= {"seed": 3}
    job.settings |= {"seed": 3}
    record.jobs.append(job)
    record.asked = ["new"]
    sweep.directory.write(record)
    again = load_sweep(sweep.path)
    pd.testing.assert_frame_equal(again.comparison.table, sweep.comparison.table)
    assert "This is verdict 1 over this sweep, at level 4 %" in again.comparison.verdict


def test_jobs_that_end_after_the_last_look_do_not_change_its_verdict(made: Made):
    """One job that failed completes when it is tried again, and one more ends, while another is interrupted."""
    sweep = made(THREE_WAY, lambda values: None if values == {"optim": "sgd", "lr": 0.1, "seed": 0} else noisy(values))
    record = sweep.directory.read()
    for number in (27, 28):
        job = copy.deepcopy(record.jobs[0])
        job.key, job.number, job.directory = f"new {number}", number, f"new {number}"
        job.values |= {"seed": number}
        job.settings |= {"seed": number}
        record.jobs.append(job)
    record.asked = [job.key for job in record.jobs]
    good = sweep.directory.run(record.jobs[0]).record.read_text()
    (lost,) = (job for job in record.jobs if job.status == "failed")
    for job in (lost, record.jobs[27]):
        sweep.directory.run(job).path.mkdir(exist_ok=True)
        sweep.directory.run(job).record.write_text(good)
    sweep.directory.write(record)
    again = load_sweep(sweep.path)
    columns = [name for name in sweep.comparison.table if name != "missing"]
    pd.testing.assert_frame_equal(again.comparison.table[columns], sweep.comparison.table[columns])
    assert "Not counted yet: 1 job that ended after this verdict" in again.comparison.verdict


def test_a_ranking_of_one_seed_is_no_look(made: Made):
    assert made({"lr": [0.1, 0.01]}, noisy).directory.read().looks == []


def test_a_final_training_is_named_and_ranked_with_nothing(made: Made):
    sweep = made({"lr": [0.1, 0.01]}, noisy, final=True)
    said = lines(sweep, 100)
    assert said[4].startswith("final")
    assert any(line.startswith("Final training with lr=0.1, seed=0: val/iou ") for line in said)
    assert len(sweep.comparison.table) == 2
    assert sweep.summary["directory"].iloc[-1] == "final,lr=0.1"
    assert any(text.startswith("final: lr=0.1") for text in texts(sweep.curves()))
    assert sum("0." in text for text in texts(sweep.heatmap())) == 2


def test_the_final_training_of_a_setting_that_is_no_longer_the_best_is_not_the_run_to_take(made: Made):
    # The final training has the first rate, and the second is better.
    behind = made({"lr": [0.1, 0.01]}, lambda values: 0.7 - values["lr"], final=True)
    assert behind.path.joinpath("summary.md").read_text().count("The run to take: `lr=0.01`") == 1


def test_the_final_training_of_the_best_setting_is_the_run_to_take(made: Made):
    sweep = made({"lr": [0.1, 0.01]}, lambda values: values["lr"], final=True)
    assert "The run to take: `final,lr=0.1`" in sweep.path.joinpath("summary.md").read_text()


def by_split(values: Values) -> float:
    """A far higher score on one split than on the other; within a split the first rate is the best."""
    return 0.9 * (values["data.split_seed"] == 1) - values["lr"] + 0.001 * values.get("seed", 0) * values["lr"]


SPLITS = {"data.split_seed": [0, 1], "lr": [0.1, 0.2, 0.3], "seed": [0, 1]}


def test_jobs_scored_on_different_images_are_ranked_in_groups_everywhere(made: Made):
    sweep = made(SPLITS, by_split)
    assert sweep.comparison.best is None
    assert sweep.comparison.table["data.split_seed"].tolist() == [0, 0, 0, 1, 1, 1]
    assert sweep.comparison.table["lr"].tolist() == [0.1, 0.2, 0.3] * 2
    assert (sweep.comparison.table.groupby("data.split_seed")["difference"].max() == 0).all()
    ranks = sweep.summary.groupby("data.split_seed")["rank"].apply(list)
    assert ranks.tolist() == [[1, 2, 3, 4, 5, 6]] * 2
    said = lines(sweep, 100)
    assert [line.split()[:2] for line in said[2:8]] == [
        [f"{rank}", f"{split}"] for split in (0, 1) for rank in (1, 2, 3)
    ]
    text = sweep.path.joinpath("summary.md").read_text()
    for where in ("\n".join(said), text):
        assert where.count("data.split_seed may change the images that are scored: each group is ranked alone.") == 1
        assert where.count("Use: lr=0.1 (") == 2
    assert "The run to take" not in text
    with pytest.raises(UserError, match=r"data\.split_seed"):
        sweep.best()


def test_the_heatmap_of_groups_has_a_row_each_and_no_star(made: Made):
    figure = made(
        {**SPLITS, "momentum": [None, 0.9]}, lambda values: by_split(values) - (values["momentum"] or 0)
    ).heatmap()
    title, *cells = texts(figure)
    assert "★" not in "".join([title, *cells])
    assert "data.split_seed may change" in title
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "data.split_seed=0",
        "data.split_seed=1",
    ]
    drawn = [float(cell) for cell in cells if "." in cell]
    assert drawn == pytest.approx([-0.1, -0.2, -0.3, 0.8, 0.7, 0.6], abs=1e-3)


def test_the_heatmap_of_groups_without_another_axis_is_a_row(made: Made):
    cells = texts(made({"data.split_seed": [0, 1, 2]}, lambda values: 0.5 + values["data.split_seed"]).heatmap())
    assert {"0.5000", "1.500", "2.500"} <= set(cells)


@pytest.mark.parametrize("axis", ["data.split_seed", "momentum"])
def test_curves_of_groups_name_no_best(made: Made, axis: str):
    axes = {axis: [0, 1], "lr": [0.01 * (rate + 1) for rate in range(10)]}
    figure = made(axes, lambda values: values[axis] - values["lr"]).curves()
    titles = [panel.get_title(loc) for panel in figure.axes for loc in ("left", "center")]
    assert any("best" in title for title in titles) == (axis == "momentum")


@pytest.mark.parametrize(("objective", "marked"), [("val/iou", True), ("val/iou/Car", True), ("val/iou/Tree", False)])
def test_a_class_without_a_pixel_in_val_is_named_and_an_objective_that_leaves_it_out_is_marked(
    made: Made, objective: str, marked: bool
):
    sweep = made({"lr": [0.1, 0.2]}, noisy, objective)
    for job in sweep.record.jobs:
        run = sweep.directory.run(job).record
        record = RunRecord.read(run)
        record.absent_classes = {"val": ["Car"], "test": []}
        record.write(run)
    write_report(sweep.directory)
    for where in ("\n".join(lines(load_sweep(sweep.path), 100)), sweep.path.joinpath("summary.md").read_text()):
        assert where.count("Car has no pixel in val") == 1
        assert (f"{objective} *" in where) == marked


# Pictures


@pytest.mark.parametrize("settings", [1, 20, 100])
def test_up_to_100_jobs_have_a_curve(made: Made, settings: int):
    sweep = made({"lr": [0.5 / (rate + 1) for rate in range(settings)]}, noisy)
    figure = sweep.curves()
    assert len(figure.axes[0].lines) == settings
    assert sweep.path.joinpath("curves.png").stat().st_size > 1000


def test_the_title_of_the_curves_counts_jobs_that_are_not_drawn(made: Made):
    def score(values: Values) -> Any:
        return {0.1: None, 0.2: "pending"}.get(values["lr"], 0.5)

    sweep = made({"lr": [0.01, 0.02, 0.1, 0.2], "seed": [0, 1]}, score)
    title = texts(sweep.curves())[0]
    assert all(part in title for part in ("4 jobs", "2 settings", "2 diverged", "2 pending"))


def test_heatmap_shows_means_over_seeds_and_with_three_axes_the_best_mean(made: Made):
    # At momentum 0.5 one seed is lucky, but the mean is lower; at 0.9 each setting has lost a replicate.
    scores = {None: [0.7, 0.7, 0.7], 0.5: [0.9, 0.3, 0.3], 0.9: [0.99, 0.99, None]}
    axes = {"optim": ["sgd", "adam"], "lr": [0.1, 0.2], "momentum": [None, 0.5, 0.9], "seed": [0, 1, 2]}
    sweep = made(axes, lambda values: scores[values["momentum"]][values["seed"]])
    title, *cells = texts(sweep.heatmap())
    assert "mean val/iou over 3 seeds" in title
    assert "the best over momentum" in title
    assert cells.count("0.7000") == 4
    assert sweep.comparison.best is not None
    assert pd.isna(sweep.comparison.best["momentum"])


def test_heatmap_uses_the_same_seeds_as_the_table_and_stars_its_best_setting(made: Made):
    scores = {0.1: [0.9, 0.8, 0.8], 0.2: [0.88, "pending", "pending"], 0.3: [0.99, 0.99, None], 0.4: [0.7, 0.7, 0.7]}
    scores[0.4].append(0.99)  # a seed that no other setting has
    axes = {"optim": ["sgd", "adam"], "lr": [0.1, 0.2, 0.3, 0.4], "seed": [0, 1, 2, 3]}

    def score(values: Values) -> Any:
        if values["optim"] == "adam":
            return 0.5 if values["seed"] < 3 else "pending"
        return [*scores[values["lr"]], "pending"][values["seed"]]

    sweep = made(axes, score)
    figure = sweep.heatmap()
    title, *cells = texts(figure)
    assert "mean val/iou over 3 seeds" in title
    assert sweep.comparison.best == {"optim": "sgd", "lr": 0.1}
    first = cells.index("★")
    assert cells[first - 2 : first] == ["0.8333", "±0.0577 (n=3)"]
    assert "2 pending" in cells
    assert "1 of 3 failed" in cells
    assert "0.7000" in cells
    assert cells.count("★") == 1


def test_heatmap_of_one_axis_and_seeds_is_a_row_of_means(made: Made):
    values = {0.1: [0.9, 0.7], 0.2: [0.99, "pending"]}
    cells = texts(made({"lr": [0.1, 0.2], "seed": [0, 1]}, lambda job: values[job["lr"]][job["seed"]]).heatmap())
    assert cells[cells.index("★") - 2] == "0.8000"
    assert "1 pending" in cells


def test_the_line_of_a_completed_job_without_an_objective_does_not_say_failed(made: Made):
    sweep = made({"lr": [0.1, 0.2]}, lambda values: float("nan") if values["lr"] == 0.1 else 0.5, "val/iou/Car")
    job = sweep.record.jobs[0]
    found = sweep.results.runs[job.directory]
    outcome = job_line(sweep.record, job, found, Tally(1, 1, 9.0)).split(" · ")[1]
    assert "val/iou/Car" in outcome
    assert "failed" not in outcome


def test_heatmap_of_one_axis_is_a_row(made: Made):
    cells = texts(made({"lr": [0.1, 0.01, 5.0]}, lambda values: None if values["lr"] == 5.0 else 0.5).heatmap())
    assert cells.count("0.5000") == 2
    assert cells.count("diverged") == 1


def test_heatmap_has_names_in_the_order_of_the_command(made: Made):
    scores = {"small": 0.5, "large": 0.7, "middle": None, "other": 0.6}
    figure = made({"model": list(scores), "seed": [0, 1]}, lambda values: scores[values["model"]]).heatmap()
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == list(scores)


def test_heatmap_of_three_axes_has_names_in_the_order_of_the_command(made: Made):
    axes = {"model": ["b", "c", "a"], "loss": ["y", "z", "x"], "momentum": [None, 0.5], "seed": [0, 1]}
    figure = made(axes, lambda values: noisy(values, 0.1)).heatmap()
    drawn = figure.axes[0]
    assert [label.get_text() for label in drawn.get_yticklabels()] == axes["model"]
    assert figure.axes[0].get_xlabel() == "momentum"


@pytest.mark.slow
def test_heatmap_of_many_values_shows_the_best_ones_and_the_best_of_all(made: Made):
    rates = [0.01 * 1.1**power for power in range(-30, 31)]
    sweep = made({"lr": rates, "optim": ["sgd", "adam"], "seed": [0, 1]}, noisy)
    figure = sweep.heatmap()
    labels = [float(label.get_text()) for label in figure.axes[0].get_xticklabels()]
    assert len(labels) == MOST_VALUES
    assert min(abs(label / 0.01 - 1) for label in labels) < 1e-3
    assert texts(figure).count("★") == 1
    assert f", {MOST_VALUES} of {len(rates)} lr\n" in texts(figure)[0]
    assert sorted(labels) == labels


def test_a_sweep_over_seeds_alone_has_curves_and_no_heatmap(made: Made):
    sweep = made({"seed": [0, 1, 2]}, noisy)
    assert not sweep.path.joinpath("heatmap.png").exists()
    assert all(part in texts(sweep.curves())[0] for part in ("3 jobs", "1 setting"))
    with pytest.raises(UserError, match="beside the seed"):
        sweep.heatmap()


# From Python


def test_load_sweep_and_every_public_name_are_in_segsweep(made: Made):
    import segsweep

    sweep = segsweep.load_sweep(made(THREE_WAY, noisy).path)
    assert isinstance(sweep, segsweep.Sweep)
    assert sweep.axes == ["optim", "lr", "seed"]
    assert list(sweep.histories) == list(sweep.summary["directory"])
    assert isinstance(sweep.summary, pd.DataFrame)
    assert all(getattr(segsweep, name) is not None for name in segsweep.__all__)


# The page of a sweep in docs/results.md


def page_maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_sweep", ROOT / "docs/make_sweep.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    for folder in ("images", "measured"):
        (tmp_path / "docs" / folder).mkdir(parents=True)
    page = "before\n<!-- sweep mine -->\nold\n<!-- end of sweep mine -->\nafter\n"
    (tmp_path / "docs/results.md").write_text(page)
    return tmp_path / "docs"


def test_a_finished_sweep_is_put_between_the_marks_of_the_page_and_its_numbers_are_kept(made: Made, docs: Path):
    sweep = made(THREE_WAY, noisy)
    pages = []
    for _ in range(2):
        page_maker().main(str(sweep.path), "mine", docs)
        pages.append((docs / "results.md").read_text())
    assert pages[0] == pages[1]
    assert pages[0].startswith("before\n<!-- sweep mine -->\n**")
    assert pages[0].endswith("|\n<!-- end of sweep mine -->\nafter\n")
    assert "old" not in pages[0]
    stored = json.loads((docs / "measured/mine_sweep.json").read_text())
    assert all(sentence in pages[0] for sentence in stored["verdict"])
    assert [row["mean"] for row in stored["settings"]] == pytest.approx(
        sweep.comparison.table["mean"].tolist(), abs=1e-12
    )
    assert len(stored["jobs"]) == 27
    assert sorted(path.name for path in (docs / "images").iterdir()) == ["mine_curves.png", "mine_heatmap.png"]


def test_an_unfinished_sweep_and_a_page_without_marks_are_refused_and_nothing_is_written(made: Made, docs: Path):
    sweep = made(
        {"lr": [0.1, 0.2], "seed": [0, 1]}, lambda values: "pending" if values == {"lr": 0.2, "seed": 1} else 0.5
    )
    before = (docs / "results.md").read_text()
    with pytest.raises(UserError, match="1 of 4 jobs have not ended"):
        page_maker().main(str(sweep.path), "mine", docs)
    with pytest.raises(UserError, match="<!-- sweep other -->"):
        page_maker().put_in(before, "sweep other", "text")
    assert (docs / "results.md").read_text() == before
    assert not [*(docs / "images").iterdir(), *(docs / "measured").iterdir()]


def test_a_sweep_is_a_sequence_of_its_completed_runs_and_shows_itself_briefly(grid: Path):
    sweep = load_sweep(grid)
    completed = sweep.summary[sweep.summary["status"] == "completed"]
    assert len(sweep) == len(sweep.runs) == len(completed) > 1
    directories = [run.directory.name for run in sweep]
    assert directories == list(completed["directory"]) == [run.directory.name for run in sweep.runs]
    assert sweep[-1].directory.name == directories[-1]
    assert [run.directory.name for run in sweep.runs[:2]] == directories[:2]
    with pytest.raises(IndexError):
        sweep[len(sweep)]
    text = repr(sweep)
    assert len(text.splitlines()) <= 6
    assert "swept: optim=sgd,adam lr=0.001,0.01" in text
    assert "grid" in text
    assert "data:image/png" in sweep._repr_html_()
    assert f"<td>{completed['objective'].iloc[0]:.4f}</td>" in sweep._repr_html_()
