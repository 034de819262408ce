"""From a folder of images and masks to a trained and scored U-Net, on the command line."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import ROOT, SMALL
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segsweep import load_run
from segsweep.classes.table import hex_color
from segsweep.data.demo import DEMO_LABELS, demo_scene, write_demo_folder

TINY = ["data=folder", "data.root=scenes", "data.image_size=32", "data.samples_per_epoch=4"]
FAST = [entry for entry in SMALL if entry != "debug=fast"]
FAST += ["trainer.max_steps=4", "trainer.log_every_n_steps=2", "data.batch_size=2", "model.widths=[4,4,8]"]


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """A folder with the splits train, val and test, and a class table."""
    write_demo_folder(tmp_path / "scenes", scenes=(3, 2, 2), size=48)
    return tmp_path / "scenes"


def record(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


@pytest.mark.quick
def test_a_folder_alone_decides_net_loss_and_task(command, scenes: Path, tmp_path: Path):
    outcome = command("train.py", *TINY, *FAST, "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    for part in (
        "6 classes",
        "Ground, Grass, Forest, Water, Sand, Rock",
        "scenes/classes.csv",
        "train 3, val 2, test 2",
    ):
        assert part in outcome.out
    run = load_run(tmp_path / "run")
    assert type(run.net).__name__ == "UNet"
    assert run.kind == "multiclass"
    metrics = record(tmp_path / "run")["metrics"]
    for name in ("iou", "iou_micro", "iou_image", "accuracy", "f1", "precision", "recall", "iou/Water"):
        assert f"val/{name}" in metrics
        assert f"test/{name}" in metrics
    image = np.asarray(Image.open(scenes / "test/images/scene_000.png")).transpose(2, 0, 1)
    assert run.predict(image).shape == image.shape[1:]


@pytest.fixture
def without_water(scenes: Path) -> Path:
    """`scenes` without a pixel of Water in val."""
    for path in scenes.glob("val/masks/*.png"):
        mask = np.asarray(Image.open(path).convert("RGB")).copy()
        mask[(mask == DEMO_LABELS.colors[DEMO_LABELS.index("Water")]).all(-1)] = DEMO_LABELS.colors[0]
        Image.fromarray(mask).save(path)
    return scenes


@pytest.mark.slow
def test_a_sweep_says_once_before_its_first_job_ends_that_val_lacks_a_class(command, without_water: Path):
    outcome = command("train.py", "-m", *TINY, *FAST, "seed=0,1")
    assert outcome.code == 0, outcome.err
    before, first, _ = outcome.out.partition("[1/2]")
    assert first
    for line in ("Water has no pixel in val: ", "objective=val/iou: "):
        assert before.count(line) == 1
    assert outcome.out.count("objective=val/iou: ") == 1
    assert "val/iou *" in outcome.out


@pytest.mark.slow
def test_a_class_without_a_pixel_in_val_is_named_before_training_and_beside_every_number(
    command, without_water: Path, tmp_path: Path
):
    line = "Water has no pixel in val: "
    outcome = command("train.py", *TINY, *FAST, "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    before, _, after = outcome.out.partition("step 4/4")
    assert line in before
    assert "objective=val/iou: " in before
    assert f"* {line}" in after
    assert record(tmp_path / "run")["absent_classes"] == {"val": ["Water"], "test": []}
    val, test = (row.split("│")[3:5] for row in after.splitlines() if row.startswith("│ iou ")).__next__()
    assert val.rstrip().endswith("*")
    assert not test.rstrip().endswith("*")
    scored = command("evaluate.py", "run=run", "split=val", "hydra.run.dir=evaluation", "accelerator=cpu")
    assert f"* {line}" in scored.out
    assert "*" not in command("evaluate.py", "run=run", "hydra.run.dir=tested", "accelerator=cpu").out


@pytest.mark.slow
def test_an_ignored_class_is_missed_nowhere_and_its_weight_changes_nothing(command, scenes: Path, tmp_path: Path):
    water = DEMO_LABELS.index("Water")
    ignored = ["data.by=color", f"data.ignore_colors=['{hex_color(DEMO_LABELS.classes[water].color)}']"]
    runs = []
    for weight in (1, 7):
        weights = [weight if at == water else 1 for at in range(len(DEMO_LABELS))]
        settings = [*ignored, f"loss.weights={weights}".replace(" ", ""), f"hydra.run.dir=weight-{weight}"]
        outcome = command("train.py", *TINY, *FAST, *settings)
        assert outcome.code == 0, outcome.err
        assert "; ignored: Water" in outcome.out
        assert not any(text in outcome.out for text in ("no pixel", "objective=val/iou: ", "*"))
        runs.append(record(tmp_path / f"weight-{weight}"))
    assert runs[0]["metrics"] == runs[1]["metrics"]
    assert runs[0]["metrics"]["test/iou/Water"] is None
    assert not any(runs[0]["absent_classes"].values())
    assert "*" not in command("evaluate.py", "run=weight-1", "hydra.run.dir=tested", "accelerator=cpu").out


@pytest.mark.slow
def test_an_objective_without_a_value_fails_the_run_and_no_other_job(command, without_water: Path, tmp_path: Path):
    outcome = command("train.py", *TINY, *FAST, "objective=val/iou/Water", "hydra.run.dir=run")
    assert outcome.code == 1
    assert "objective=val/iou/Water: " in outcome.out  # before training
    (error,) = outcome.error_lines
    assert error.startswith("error: objective=val/iou/Water: ")
    found = record(tmp_path / "run")
    assert found["status"] == "failed"
    assert "best.ckpt" in found["error"]
    assert found["objective"]["value"] is None
    assert (tmp_path / "run" / found["best_checkpoint"]).is_file()
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()
    again = command("train.py", "resume=run")
    assert (again.code, again.error_lines) == (1, [error])
    shutil.copytree("scenes", tmp_path / "whole")
    for path in sorted(tmp_path.glob("whole/val/masks/*.png")):
        shutil.copy(tmp_path / "whole/train/masks" / path.name, path)
    swept = command(
        "train.py", "-m", *TINY[:1], *TINY[2:], *FAST, "objective=val/iou/Water", "data.root=scenes,whole", "name=two"
    )
    assert swept.code == 1
    statuses = [job["status"] for job in json.loads((tmp_path / "multirun/two/sweep.json").read_text())["jobs"]]
    assert statuses == ["failed", "completed"]


@pytest.mark.parametrize("loss", ["cross_entropy loss.weights=balanced", "dice", "ce_dice loss.weights=balanced"])
def test_every_multiclass_loss_trains_and_scores_itself_again(command, scenes: Path, tmp_path: Path, loss: str):
    choice, *settings = loss.split()
    outcome = command("train.py", *TINY, *FAST, f"loss={choice}", *settings, "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert command("evaluate.py", "run=run", "hydra.run.dir=evaluation", "accelerator=cpu").code == 0
    scored = json.loads((tmp_path / "evaluation/evaluation.json").read_text())["metrics"]
    trained = record(tmp_path / "run")["metrics"]
    assert scored == {name.removeprefix("test/"): trained[name] for name in trained if name.startswith("test/")}


def test_balanced_weights_are_computed_from_the_training_masks_and_kept_in_the_checkpoint(command, scenes, tmp_path):
    outcome = command("train.py", *TINY, *FAST, "loss.weights=balanced", "hydra.run.dir=run")
    assert "class weights: Ground " in outcome.out
    weights = load_run(tmp_path / "run").config["loss"]["weights"]
    counts = np.zeros(6)
    for scene in range(3):
        counts += np.bincount(demo_scene(48, scene)[1].ravel(), minlength=6)
    present = counts > 0
    np.testing.assert_allclose(np.array(weights)[present], counts.sum() / (present.sum() * counts[present]))


def test_weights_do_not_depend_on_workers(command, scenes: Path, tmp_path: Path):
    for workers in (0, 2):
        outcome = command("train.py", *TINY, *FAST, f"data.num_workers={workers}", f"hydra.run.dir=run{workers}")
        assert outcome.code == 0, outcome.err
    states = [
        torch.load(tmp_path / f"run{workers}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for workers in (0, 2)
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_tensorboard_shows_overlays_and_the_confusion_matrix(command, scenes: Path, tmp_path: Path):
    assert command("train.py", *TINY, *FAST, "hydra.run.dir=run").code == 0
    events = EventAccumulator(str(tmp_path / "run/tensorboard"), size_guidance={"images": 0}).Reload()
    tags = events.Tags()["images"]
    assert {"confusion/1: val", "confusion/2: test"} <= set(tags)
    assert "samples/0: image, mask, prediction, error, overlay" in tags


def test_the_overfit_check_says_whether_two_samples_were_learnt(command, scenes: Path, tmp_path: Path):
    learn = ["debug=overfit", "data=folder", "data.root=scenes", "data.image_size=32", "optim=adam", "lr=0.01"]
    small = [entry for entry in FAST if "max_steps" not in entry and "widths" not in entry]
    outcome = command("train.py", *learn, *small, "hydra.run.dir=learnt", "trainer.max_steps=300")
    assert outcome.code == 0, outcome.out
    assert "overfit check passed: iou " in outcome.out
    assert record(tmp_path / "learnt")["overfit_check"] == "passed"
    assert Image.open(tmp_path / "learnt/loss_curve.png").size[0] > 300
    outcome = command("train.py", *learn, *small, "hydra.run.dir=not_learnt", "trainer.max_steps=2")
    assert outcome.code == 1
    assert "overfit check failed" in outcome.out
    assert record(tmp_path / "not_learnt")["overfit_check"] == "failed"


def test_the_demo_writes_its_folder_once_and_trains_from_it(command, tmp_path: Path):
    small = ["experiment=rgb_demo", "data.scenes=[2,1,1]", "data.scene_size=48", "data.image_size=32"]
    assert command("train.py", *small, *FAST, "data.samples_per_epoch=4", "hydra.run.dir=a").code == 0
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs/rgb_demo").rglob("*.png")}
    assert len(files) == 8
    assert command("train.py", *small, *FAST, "data.samples_per_epoch=4", "hydra.run.dir=b").code == 0
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs/rgb_demo").rglob("*.png")}


def test_check_data_passes_a_right_folder_and_draws_it(command, scenes: Path, tmp_path: Path):
    outcome = command("check_data.py", "data.root=scenes", "hydra.run.dir=check", "data.image_size=32")
    assert outcome.code == 0, outcome.out
    report = json.loads((tmp_path / "check/check.json").read_text())
    assert report["ok"]
    assert len(report["pairs"]) == 7
    assert set(report["class_weights"]) == set(DEMO_LABELS.names)
    assert Image.open(tmp_path / "check/contact_sheet.png").size[0] > 300


def test_one_class_alone_is_nothing_to_learn(command, scenes: Path, tmp_path: Path):
    """If all other colours are ignored, every pixel that counts is right from the start."""
    (scenes / "classes.csv").write_text("name,r,g,b\nWater,1,2,3\n")
    for path in scenes.glob("*/masks/*.png"):
        pixels = np.array(Image.open(path).convert("RGB"))
        pixels[:5, :5] = (1, 2, 3)
        Image.fromarray(pixels).save(path)
    ignored = f"data.ignore_colors={[hex_color(entry.color) for entry in DEMO_LABELS.classes]}"
    outcome = command("check_data.py", "data.root=scenes", ignored, "hydra.run.dir=check")
    assert outcome.code == 1
    (error,) = json.loads((tmp_path / "check/check.json").read_text())["errors"]
    assert error.startswith("data.labels (from scenes/classes.csv): ")
    assert "Water" in error
    outcome = command("train.py", *TINY, *FAST, ignored, "hydra.run.dir=run")
    assert outcome.code == 1
    assert outcome.error_lines == [f"error: {error}"]


def test_without_a_test_split_the_test_is_skipped_with_a_message(command, scenes: Path, tmp_path: Path):
    shutil.rmtree(scenes / "test")
    outcome = command("train.py", *TINY, *FAST, "hydra.run.dir=run")
    assert (outcome.code, outcome.err) == (0, "")
    assert "no test: the test split is empty" in outcome.out
    assert not any(name.startswith("test/") for name in record(tmp_path / "run")["metrics"])
    (line,) = [line for line in outcome.out.splitlines() if "evaluate.py" in line]
    assert line == f"  python {ROOT}/evaluate.py run=run split=val"
    assert command(*line.split()[1:], "output=out").code == 0
    outcome = command("train.py", "-m", *TINY, *FAST, "seed=0,1", "name=two")
    (line,) = [line for line in outcome.out.splitlines() if "evaluate.py" in line]
    assert line.endswith(" split=val")
    outcome = command("evaluate.py", "run=run")
    assert all(part in outcome.error_lines[0] for part in ("split=val", "split=all"))


MISTAKES = {
    "an unlisted colour": ("train/masks/scene_000.png", "no class"),
    "a truncated image": ("train/images/scene_001.png", ""),
    "an empty mask file": ("val/masks/scene_000.png", ""),
    "a missing mask": ("test/masks/scene_000.png", ""),
}


def spoil(scenes: Path, mistake: str) -> Path:
    path = scenes / MISTAKES[mistake][0]
    if mistake == "an unlisted colour":
        picture = Image.new("RGB", Image.open(path).size, (1, 2, 3))
        picture.save(path)
    elif mistake == "a truncated image":
        path.write_bytes(path.read_bytes()[:200])
    elif mistake == "an empty mask file":
        path.write_bytes(b"")
    else:
        path.unlink()
    return path


@pytest.mark.quick
@pytest.mark.parametrize("mistake", MISTAKES)
def test_check_data_and_training_refuse_a_wrong_folder_and_name_the_file(command, scenes, tmp_path, mistake: str):
    path = spoil(scenes, mistake)
    outcome = command("check_data.py", "data.root=scenes", "hydra.run.dir=check", "data.image_size=32")
    assert outcome.code == 1
    assert path.stem in outcome.out
    assert not json.loads((tmp_path / "check/check.json").read_text())["ok"]
    outcome = command("train.py", *TINY, *FAST, "hydra.run.dir=run")
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert path.stem in outcome.error_lines[0]
    assert MISTAKES[mistake][1] in outcome.error_lines[0]
    assert not (tmp_path / "run").exists()  # it never began


@pytest.mark.parametrize("name", ["test/masks/scene_001.png", "val/masks/scene_001.png"])
def test_a_wrong_file_is_refused_before_the_training_whatever_it_is_for(command, scenes, tmp_path: Path, name: str):
    (scenes / name).write_bytes(b"")
    outcome = command("train.py", *TINY, *FAST, "hydra.run.dir=run")
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert name in outcome.error_lines[0]
    assert not (tmp_path / "run").exists()


def test_a_wrong_file_that_is_not_used_is_not_looked_at(command, scenes: Path):
    (scenes / "test/masks/scene_001.png").write_bytes(b"")
    assert command("train.py", *TINY, *FAST, "trainer.test=false", "hydra.run.dir=run").code == 0


@pytest.mark.parametrize(
    ("typed", "part"),
    [
        ("data.root=nowhere", "nowhere"),
        ("data.labels=atlantis", "atlantis"),
        ("loss=bce", "binary"),
        ("data.fractions=[1,1,1]", "fractions"),
        ("data.image_size=0", "data.image_size=0"),
        ("loss.weights=[1,2]", "weights"),
        ("loss.weights=often", "weights"),
        ("model.widths=[8,8]", "model.widths"),
    ],
)
def test_a_mistake_in_the_settings_ends_in_one_line(command, scenes: Path, typed: str, part: str):
    outcome = command("train.py", *TINY, *FAST, typed, "hydra.run.dir=run")
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1, outcome.err
    assert part in outcome.error_lines[0]


def test_a_folder_must_be_named(command):
    outcome = command("train.py", "data=folder", *FAST)
    assert outcome.code == 1
    assert outcome.error_lines[0].startswith("error: data.root: needs a value")


@pytest.mark.slow
@pytest.mark.skipif("SEGSWEEP_DUBAI" not in os.environ, reason="SEGSWEEP_DUBAI does not name the folder of Dubai tiles")
def test_the_real_folder_is_right_and_trains(command, tmp_path: Path):
    root = os.environ["SEGSWEEP_DUBAI"]
    assert command("check_data.py", f"data.root={root}", "data.labels=dubai", "hydra.run.dir=check").code == 0
    small = ["experiment=dubai", "model=unet", f"data.root={root}", "data.samples_per_epoch=8", "data.image_size=64"]
    outcome = command("train.py", *small, *FAST, "hydra.run.dir=run", "trainer.max_steps=2")
    assert outcome.code == 0, outcome.err
    assert "train 36, val 9, test 9" in outcome.out
    assert np.isfinite(record(tmp_path / "run")["metrics"]["test/iou"])
