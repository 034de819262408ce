"""Every study has the settings of its source, and runs with all its jobs, made small."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from support import ROOT, SMALL, Command
from tiles import write_tiles

from segsweep import cli  # noqa: F401  (registers resolvers)
from segsweep.data.demo import write_demo_folder
from segsweep.fingerprint import result_settings
from segsweep.instantiate import to_plain

CONF = ROOT / "conf"
TINY = [*SMALL, "callbacks.panel=null", "callbacks.confusion=null", "name=study"]
# Without debug=fast: a folder is scored on all its images.
TINY_RGB = [
    *TINY[1:], "model.widths=[4,4,8]", "model.head_width=4", "data.image_size=32", "data.batch_size=2",
    "trainer.max_epochs=1", "data.samples_per_epoch=8",
]  # fmt: skip
SCENES = ["data.root=demo", "data.scene_size=48", "data.scenes=[2,1,1]"]


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return to_plain(compose("train", overrides=list(overrides)))


def params(study: str) -> dict[str, str]:
    """The swept values of a study, by key."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=[f"study={study}"], return_hydra_config=True)
        return dict(OmegaConf.to_container(config.hydra.sweeper.params))


def jobs(sweep: Path) -> list[dict[str, Any]]:
    """The jobs of a sweep with all their settings."""
    content = json.loads((sweep / "sweep.json").read_text())
    assert {job["status"] for job in content["jobs"]} == {"completed"}
    return [{**job, "settings": content["shared"]["settings"] | job["settings"]} for job in content["jobs"]]


def printed_rates() -> list[str]:
    """The learning rates of the texture notebook's section 4.1, from docs/sources.md."""
    text = (ROOT / "docs/sources.md").read_text()
    (row,) = re.findall(r"^\| learning rate \| (.*) \|$", text, re.MULTILINE)
    return row.split(" | ")


def test_there_is_a_test_for_every_study():
    here = Path(__file__).read_text()
    for path in (CONF / "study").glob("*.yaml"):
        assert f'"study={path.stem}"' in here, path.stem


def test_texture_rates_are_the_printed_ones_with_adam_for_1000_steps(command: Command, tmp_path: Path):
    rates = [float(rate) for rate in printed_rates()]
    assert rates == [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 1.0, 5.0]
    assert {key: [float(rate) for rate in value.split(",")] for key, value in params("texture_rates").items()} == {
        "lr": rates
    }
    settings = composed("study=texture_rates")
    assert settings["trainer"]["max_steps"] == 1_000
    assert settings["optim"]["_target_"] == "segsweep.tasks.Adam"
    assert settings == composed("experiment=texture_adam")
    outcome = command("train.py", "-m", "study=texture_rates", *TINY)
    assert outcome.code == 0, outcome.err
    assert [job["values"] for job in jobs(tmp_path / "multirun/study")] == [{"lr": rate} for rate in rates]


def test_texture_optimizers_are_the_four_of_the_notebook(command: Command, tmp_path: Path):
    outcome = command("train.py", "-m", "study=texture_optimizers", *TINY)
    assert outcome.code == 0, outcome.err
    found = jobs(tmp_path / "multirun/study")
    keys = ("optim._target_", "momentum", "lr", "seed")
    ran = [tuple(job["settings"][key] for key in keys) for job in found]
    optimizers = [("Adam", None), ("RMSprop", None), ("SGD", 0.9), ("SGD", None)]
    assert ran == [
        (f"segsweep.tasks.{name}", momentum, 0.001, seed) for name, momentum in optimizers for seed in (0, 1, 2)
    ]
    assert len({job["key"] for job in found}) == 12
    for name in params("texture_optimizers")["experiment"].split(","):
        assert composed("study=texture_optimizers", f"experiment={name}")["trainer"]["max_steps"] == 1_000


def check_report_protocol(sweep: Path) -> None:
    """First the rate at momentum 0.9, then the momentum at the best rate, then one more net; only that is tested."""
    found = jobs(sweep)
    table = pd.read_csv(sweep / "summary.csv").set_index("directory")
    tried = [(job["stage"], job["values"]["lr"], job["values"]["momentum"]) for job in found]
    best_rate = min(found[:3], key=lambda job: table["objective"][job["directory"]])["values"]["lr"]
    assert tried[:3] == [("lr", rate, 0.9) for rate in (0.001, 0.01, 0.1)]
    assert tried[3:5] == [("momentum", best_rate, momentum) for momentum in (0.5, 0.1)]
    best = min(found[:5], key=lambda job: table["objective"][job["directory"]])["values"]
    assert tried[5:] == [("final", best["lr"], best["momentum"])]
    assert [job["settings"]["seed"] for job in found] == [0, 0, 0, 0, 0, 1]
    assert {job["settings"]["objective"] for job in found} == {"val/loss"}
    tested = table["test/iou"].notna()
    assert list(table.index[tested]) == [found[-1]["directory"]]
    assert pd.isna(table["rank"][found[-1]["directory"]])


def test_rgb_rates_searches_as_the_report_did_and_tests_once(command: Command, tmp_path: Path):
    settings = composed("study=rgb_rates")
    assert settings["trainer"]["max_epochs"] == 10
    assert settings["optim"]["_target_"] == "segsweep.tasks.SGD"
    assert settings["model"]["_target_"] == "segsweep.nets.UNet"
    outcome = command("train.py", "-m", "study=rgb_rates", *TINY_RGB, *SCENES)
    assert outcome.code == 0, outcome.err
    check_report_protocol(tmp_path / "multirun/study")
    assert "Final training with lr=" in outcome.out


def test_rgb_rates_runs_on_somebodys_folder(command: Command, tmp_path: Path):
    write_demo_folder(tmp_path / "scenes", scenes=(2, 1, 1), size=48)
    outcome = command("train.py", "-m", "study=rgb_rates", *TINY_RGB, "data=folder", "data.root=scenes")
    assert outcome.code == 0, outcome.err
    check_report_protocol(tmp_path / "multirun/study")


def test_cross_validation_trains_two_rates_on_every_fold_of_somebodys_folder(command: Command, tmp_path: Path):
    assert params("cross_validation") == {"lr": "0.001,0.003", "data.fold": "0,1,2,3,4"}
    settings = composed("study=cross_validation", "data.root=scenes", "data.fold=0")
    assert (settings["data"]["_target_"], settings["data"]["folds"]) == ("segsweep.data.FolderSource", 5)
    experiment = composed("study=cross_validation", "experiment=dubai", "data.root=scenes", "data.fold=0")
    assert (experiment["data"]["labels"], experiment["data"]["folds"]) == ("dubai", 5)
    write_demo_folder(tmp_path / "scenes", scenes=(2, 1, 2), size=48)
    outcome = command("train.py", "-m", "study=cross_validation", *TINY_RGB, "data.root=scenes")
    assert outcome.code == 0, outcome.err
    found = [(job["values"]["lr"], job["values"]["data.fold"]) for job in jobs(tmp_path / "multirun/study")]
    assert found == [(lr, fold) for lr in (0.001, 0.003) for fold in range(5)]
    assert "Folds share training images" in outcome.out


def test_dubai_folds_leaves_each_tile_out_once_for_three_nets_and_fills_its_page(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("monai")
    nets = ["residual_unet_half", "monai_basic_unet", "unet"]
    assert params("dubai_folds") == {"data.fold": "0,1,2,3,4,5", "model": ",".join(nets)}
    for net in nets:
        typed = ["data.root=tiles", "data.fold=0", f"model={net}"]
        study, experiment = composed("study=dubai_folds", *typed), composed("experiment=dubai", "data.folds=6", *typed)
        assert study == experiment | {"trainer": experiment["trainer"] | {"max_steps": 300}}
    write_tiles(tmp_path / "tiles")
    small = ["data.image_size=16", "data.batch_size=2", "data.samples_per_epoch=2", "trainer.max_steps=1"]
    outcome = command("train.py", "study=dubai_folds", *TINY[2:], *small, "data.root=tiles")
    assert outcome.code == 0, outcome.err
    sweep = tmp_path / "multirun/study"
    assert [(job["values"]["data.fold"], job["values"]["model"]) for job in jobs(sweep)] == [
        (fold, net) for fold in range(6) for net in nets
    ]
    splits = {re.findall(r"split: .*", path.read_text())[0] for path in sweep.glob("*/train.log")}
    assert {re.findall(r"\(test is .*?: (.*?);", line)[0] for line in splits} == {f"Tile {at}" for at in range(1, 7)}
    assert all(line.endswith("instead of data.train, data.val, data.test: train 4, val 1, test 1") for line in splits)

    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    make_folds = importlib.import_module("make_folds")
    docs = tmp_path / "docs"
    (docs / "measured").mkdir(parents=True)
    marks = "<!-- sweep dubai_folds -->\n", "<!-- end of sweep dubai_folds -->\n"
    (docs / "results.md").write_text("Not measured yet.\n".join(marks))
    make_folds.main([str(sweep), f"the same={sweep}"], docs)
    stored = json.loads((docs / "measured/dubai_folds.json").read_text())
    again = [entry | {"net": f"the same {entry['net']}"} for entry in stored["jobs"][:18]]
    assert len(stored["jobs"]) == 36
    assert stored["jobs"][18:] == again
    for entry in stored["jobs"][:18]:
        fold = entry["fold"]
        run = sweep / f"data.fold={fold},model={entry['net']}"
        metrics = json.loads((run / "run.json").read_text())["metrics"]
        assert entry["test"] == {key[5:]: value for key, value in metrics.items() if key.startswith("test/")}
        assert f"test is fold {fold}, 1 pair: {stored['tiles'][fold]};" in (run / "train.log").read_text()
    assert (docs / "results.md").read_text() == make_folds.section(stored).join(marks)


def test_design_is_the_three_way_grid_with_three_seeds(command: Command, tmp_path: Path):
    assert params("design") == {"optim": "sgd,adam,rmsprop", "lr": "0.001,0.01,0.1", "seed": "0,1,2"}
    assert composed("study=design") == composed()
    outcome = command("train.py", "-m", "study=design", *TINY, "seed=0")
    assert outcome.code == 0, outcome.err
    assert [job["values"] for job in jobs(tmp_path / "multirun/study")] == [
        {"optim": optim, "lr": lr} for optim in ("sgd", "adam", "rmsprop") for lr in (0.001, 0.01, 0.1)
    ]


def test_precision_pairs_both_precisions_by_seed(command: Command, tmp_path: Path):
    assert params("precision") == {"seed": ",".join(map(str, range(10))), "trainer.precision": "32-true,bf16-mixed"}
    assert composed("study=precision") == composed()
    outcome = command("train.py", "-m", "study=precision", *TINY, "seed=0,1")
    assert outcome.code == 0, outcome.err
    assert [job["values"] for job in jobs(tmp_path / "multirun/study")] == [
        {"trainer.precision": precision, "seed": seed} for precision in ("32-true", "bf16-mixed") for seed in (0, 1)
    ]


def test_limited_time_compares_presets_by_time_alone_and_says_what_that_means(command: Command, tmp_path: Path):
    presets = ["texture_adam", "texture_best", "texture_inverse", "texture_unet"]
    assert params("limited_time") == {
        "experiment": ",".join(presets), "trainer.max_minutes": "1,2,5", "seed": "0,1,2",
    }  # fmt: skip
    for preset in presets:
        settings = composed("study=limited_time", f"experiment={preset}")
        assert settings == composed(f"experiment={preset}", "trainer.max_steps=-1")
    short = ["trainer.max_steps=1", "trainer.max_minutes=1,2", "seed=0"]
    outcome = command("train.py", "-m", "study=limited_time", *TINY, *short)
    assert outcome.code == 0, outcome.err
    found = [
        (job["values"]["experiment"], job["values"]["trainer.max_minutes"]) for job in jobs(tmp_path / "multirun/study")
    ]
    assert found == [(preset, limit) for preset in presets for limit in (1, 2)]
    for text in (outcome.out, (tmp_path / "multirun/study/summary.md").read_text()):
        assert "Time limited these trainings" in text


def test_ablation_has_every_variant_and_is_otherwise_as_the_notebook(command: Command, tmp_path: Path):
    swept = params("ablation")
    variants = swept["model"].split(",")
    assert sorted(variants) == sorted(f"ablation/{path.stem}" for path in (CONF / "model/ablation").glob("*.yaml"))
    assert 12 <= len(variants) == len(set(variants))
    assert swept == {"model": ",".join(variants), "seed": "0,1,2"}
    settings = composed("study=ablation")
    assert settings["trainer"]["max_steps"] == 1_000
    assert (settings["optim"]["_target_"], settings["lr"]) == ("segsweep.tasks.Adam", 0.001)
    assert settings == composed("experiment=texture_adam")
    outcome = command("train.py", "-m", "study=ablation", *TINY, "trainer.max_steps=2", "seed=0")
    assert outcome.code == 0, outcome.err
    found = jobs(tmp_path / "multirun/study")
    assert [job["values"]["model"] for job in found] == variants
    assert [job["directory"] for job in found] == [f"model={name.replace('/', '-')}" for name in variants]
    assert len({job["key"] for job in found}) == len(variants)


def test_the_published_net_of_the_ablation_is_the_same_job_as_texture_cnn():
    one, other = (result_settings(composed(f"model={name}")) for name in ("ablation/published", "texture_cnn"))
    assert one == other


def test_the_command_line_wins_over_a_study_which_sweeps_without_m_too(command: Command, tmp_path: Path):
    outcome = command("train.py", "study=design", *TINY, "optim=adam", "lr=0.5,0.05", "seed=3")
    assert outcome.code == 0, outcome.err
    found = jobs(tmp_path / "multirun/study")
    assert [(job["values"], job["settings"]["seed"]) for job in found] == [({"lr": 0.5}, 3), ({"lr": 0.05}, 3)]


@pytest.mark.parametrize("overrides", [[], ["study=design"]])
def test_hydras_sweeper_is_ours_unless_a_study_or_the_command_line_says_otherwise(overrides: list[str]):
    def target(*more: str) -> str:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("train", overrides=[*overrides, *more], return_hydra_config=True)
            return str(config.hydra.sweeper._target_).rpartition(".")[2]

    assert target() == "GridSweeper"
    assert target("hydra/sweeper=coordinate") == "CoordinateSweeper"
    assert target("hydra/sweeper=race") == "RaceSweeper"
    assert target("hydra/sweeper=basic") == "BasicSweeper" or overrides
    if not overrides:
        assert target("study=rgb_rates") == "CoordinateSweeper"
        assert target("study=rgb_rates", "hydra/sweeper=grid") == "GridSweeper"


def test_a_final_training_keeps_the_seed_of_the_study_whatever_seeds_picked_it(command: Command, tmp_path: Path):
    swept = ["lr=0.01,0.1", "momentum=0.9", "seed=0,2"]
    outcome = command("train.py", "-m", "study=rgb_rates", *TINY_RGB, *SCENES, *swept)
    assert outcome.code == 0, outcome.err
    assert [(job["stage"], job["settings"]["seed"]) for job in jobs(tmp_path / "multirun/study")] == [
        *[("lr", 0), ("lr", 2)] * 2, ("final", 1),
    ]  # fmt: skip
