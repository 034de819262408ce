"""Every file of conf/ composes, and every experiment trains."""

import inspect
import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from support import ROOT, SMALL

from segsweep import cli  # noqa: F401  (registers resolvers)
from segsweep.data import FolderSource, Textures
from segsweep.data.demo import write_demo_folder
from segsweep.datamodule import SegmentationDataModule
from segsweep.instantiate import build, to_plain

CONF = ROOT / "conf"
TEXTURES = sorted(path.stem for path in (CONF / "experiment").glob("texture_*.yaml"))
FOLDERS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml") if path.stem not in TEXTURES)


def composed(*overrides: str) -> dict:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return to_plain(compose("train", overrides=list(overrides)))


@pytest.mark.parametrize("experiment", TEXTURES)
def test_every_texture_experiment_trains(command, tmp_path: Path, experiment: str):
    outcome = command("train.py", f"experiment={experiment}", *SMALL, "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "completed"


@pytest.mark.parametrize("experiment", FOLDERS)
def test_every_folder_experiment_trains(command, tmp_path: Path, experiment: str):
    write_demo_folder(tmp_path / "scenes", scenes=(8, 1, 1), size=48)
    small = ["data.root=scenes", "data.image_size=32", "data.batch_size=2"]
    small += ["model.channels=4"] if experiment == "dubai" else ["model.widths=[4,4,8]"]
    if experiment == "dubai":  # the demo scenes lack its tiles and classes
        small += [
            "data.labels=scenes/classes.csv",
            "data.split=folders",
            "data.train=[]",
            "data.val=[]",
            "data.test=[]",
        ]
    if experiment != "rgb_report":
        small += ["trainer.max_steps=2"]
    outcome = command("train.py", f"experiment={experiment}", *SMALL, *small, "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "completed"


@pytest.mark.parametrize(("data", "source"), [("folder", FolderSource), ("textures", Textures)])
def test_a_data_file_lists_every_setting_of_its_source_with_its_default(data: str, source: type):
    listed = OmegaConf.to_container(OmegaConf.load(CONF / f"data/{data}.yaml"), resolve=False)
    assert listed.pop("_target_") == f"segsweep.data.{source.__name__}"
    signatures = [inspect.signature(target).parameters for target in (source, SegmentationDataModule)]
    defaults = {name: parameter.default for signature in signatures for name, parameter in signature.items()}
    del defaults["source"], defaults["accumulate"]  # of the trainer group
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}
    own = {"seed": "${seed}"} | ({"root": "???", "cache_dir": "outputs/cache"} if data == "folder" else {})
    assert listed == plain | own


@pytest.mark.slow
@pytest.mark.parametrize("data", ["textures", "rgb_demo", "folder"])
def test_debug_fast_limits_every_source(command, tmp_path: Path, data: str):
    write_demo_folder(tmp_path / "scenes", scenes=(8, 6, 6), size=48)
    small = [entry for entry in SMALL if entry != "data.image_size=32"]
    root = [] if data == "textures" else ["data.root=scenes", "data.image_size=32", "model.widths=[4,4,8]"]
    outcome = command("train.py", f"data={data}", *small, *root, "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert json.loads((tmp_path / "run/run.json").read_text())["steps"] == 4
    for split, number in (("test", 4), *([] if data == "textures" else [("all", 20)])):
        outcome = command(
            "evaluate.py", "run=run", f"split={split}", f"output={split}", "pictures=0", "accelerator=cpu"
        )
        assert ("data.limit_samples=4: " in outcome.out) == (split == "test"), outcome.err
        assert len(json.loads((tmp_path / split / "evaluation.json").read_text())["images"]) == number


def test_the_published_settings_are_the_published_ones():
    sgd = composed("experiment=texture_sgd")
    assert (sgd["optim"]["_target_"], sgd["lr"], sgd["momentum"]) == ("segsweep.tasks.SGD", 0.001, None)
    assert sgd["trainer"]["max_steps"] == 10_000
    data = sgd["data"]
    assert (data["image_size"], data["batch_size"], data["sigma1"], data["sigma2"], data["sigma"]) == (
        128,
        8,
        0.2,
        1.2,
        None,  # image_size / 5
    )
    for name, optimizer, momentum in (("adam", "Adam", None), ("rmsprop", "RMSprop", None), ("momentum", "SGD", 0.9)):
        settings = composed(f"experiment=texture_{name}")
        assert settings["optim"]["_target_"] == f"segsweep.tasks.{optimizer}"
        assert (settings["optim"]["momentum"], settings["optim"]["lr"]) == (momentum, 0.001)
        assert settings["trainer"]["max_steps"] == 1_000
        assert settings["data"] == data
    report = composed("experiment=rgb_report", "data.root=x")
    assert (report["lr"], report["momentum"], report["trainer"]["max_epochs"]) == (0.1, 0.9, 10)
    assert (report["data"]["batch_size"], report["data"]["image_size"]) == (8, 320)


def test_momentum_reaches_every_optimizer_and_null_leaves_its_own():
    for optim in ("sgd", "adam", "adamw", "rmsprop"):
        assert composed(f"optim={optim}", "momentum=0.5")["optim"]["momentum"] == 0.5
        assert composed(f"optim={optim}")["optim"]["momentum"] is None


@pytest.mark.quick
@pytest.mark.parametrize("path", sorted(CONF.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_choice_composes(path: Path):
    if path.parent.name != "job_logging":
        read_a_folder = ("folder", "dubai", "rgb_report", "cross_validation", "dubai_folds")
        root = ["data.root=x"] if path.stem in read_a_folder else []
        assert composed(f"{path.parent.name}={path.stem}", *root)


def test_any_dotted_path_can_be_built():
    assert build({"_target_": "fractions.Fraction", "numerator": 3}, "x", denominator=4) == 0.75
    assert build({"_target_": "math.pow", "_partial_": True}, "x")(2, 3) == 8
