"""A folder of two classes is a binary task, from its class table to masks, exports and sweeps."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import SMALL, Command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segsweep import load_run
from segsweep.exporting import export_metadata

COLORS = {"crack": (200, 30, 30), "wall": (90, 90, 90), "unsure": (255, 255, 0)}
FAST = [
    *(entry for entry in SMALL if entry != "debug=fast"), "data=folder", "data.root=cracks", "data.image_size=32",
    "data.batch_size=2", "data.samples_per_epoch=4", "trainer.max_steps=4", "trainer.log_every_n_steps=2",
    "trainer.precision=32-true", "model.widths=[4,4,8]",
]  # fmt: skip


def write_cracks(root: Path, rows: str, pictures: int = 8) -> Path:
    """Images of a bright ellipse on a wall, with an unsure stripe in their masks, and a class table of these rows."""
    for number in range(pictures):
        draw = np.random.default_rng(number)
        y, x = np.mgrid[:48, :48]
        top, left = draw.uniform(12, 36, 2)
        crack = ((y - top) / 9) ** 2 + ((x - left) / 13) ** 2 < 1
        image = np.where(crack, 190, 90)[..., None] + draw.normal(0, 20, (48, 48, 3))
        mask = np.where(crack[..., None], COLORS["crack"], COLORS["wall"]).astype(np.uint8)
        if "unsure" in rows:
            mask[:4] = COLORS["unsure"]
        for kind, pixels in (("images", image.clip(0, 255).astype(np.uint8)), ("masks", mask)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / kind / f"{number}.png")
    (root / "classes.csv").write_text(rows)
    return root


OBJECT_FIRST = "id,name,r,g,b\n4,crack,200,30,30\n0,wall,90,90,90\n"
OBJECT_LAST = "id,name,r,g,b\n0,wall,90,90,90\n4,crack,200,30,30\n"
WITH_UNSURE = "name,r,g,b\nunsure,255,255,0\ncrack,200,30,30\nbackground,90,90,90\n"
IGNORED = "data.ignore_colors=['#FFFF00']"


@pytest.fixture
def trained(command: Command, tmp_path: Path) -> Callable[..., Path]:
    def train(rows: str, *overrides: str, run: str = "run") -> Path:
        write_cracks(tmp_path / "cracks", rows)
        outcome = command("train.py", *FAST, *overrides, f"hydra.run.dir={run}")
        assert outcome.code == 0, outcome.err
        (tmp_path / f"{run}.out").write_text(outcome.out)
        return tmp_path / run

    return train


def metrics_of(run: Path) -> dict[str, float]:
    return json.loads((run / "run.json").read_text())["metrics"]


def scores_of(evaluation: Path) -> dict[str, float]:
    return json.loads((evaluation / "evaluation.json").read_text())["metrics"]


@pytest.mark.quick
def test_two_classes_are_an_object_and_its_background(trained, command: Command, tmp_path: Path):
    path = trained(OBJECT_FIRST)
    assert "task: binary: crack against wall" in (tmp_path / "run.out").read_text()
    run = load_run(path)
    assert (run.kind, run.labels.names, run.settings("data")["task"]) == ("binary", ["wall", "crack"], "binary")
    metrics = metrics_of(path)
    assert metrics["val/iou"] == metrics["val/iou/crack"]
    assert {"val/iou/wall", "val/iou_micro", "val/confident_accuracy"} <= metrics.keys()
    tags = EventAccumulator(str(path / "tensorboard")).Reload().Tags()
    assert "precision_recall/1: val" in tags["tensors"]
    assert "crack" in export_metadata(run)["output"]["meaning"]
    assert export_metadata(run)["output"]["shape"][1] == 1
    # The folder need not say again what the task is, and need not be there for predict.
    assert command("evaluate.py", "run=run", "output=scored", "pictures=0", "accelerator=cpu").code == 0
    assert scores_of(tmp_path / "scored") == {
        name.removeprefix("test/"): value for name, value in metrics.items() if name.startswith("test/")
    }
    (tmp_path / "cracks").rename(tmp_path / "moved")
    outcome = command("predict.py", "run=run", "input=moved/images", "output=out", "probabilities=float32")
    assert outcome.code == 0, outcome.err
    for number in range(8):
        picture = Image.open(tmp_path / f"out/masks/{number}.png")
        ids, pixels = np.asarray(picture), np.asarray(picture.convert("RGB"))
        crack = run.predict(np.asarray(Image.open(tmp_path / f"moved/images/{number}.png")).transpose(2, 0, 1)) == 1
        assert np.array_equal(ids, np.where(crack, 4, 0))
        assert np.array_equal(pixels, np.where(crack[..., None], COLORS["crack"], COLORS["wall"]))
        probabilities = np.load(tmp_path / f"out/probabilities/{number}.npy")
        assert np.array_equal(probabilities[1] > 0.5, crack)
        np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-6)
    assert command("evaluate.py", "run=run", "data.root=moved", "output=again", "accelerator=cpu").code == 0
    assert scores_of(tmp_path / "again") == scores_of(tmp_path / "scored")


@pytest.mark.parametrize("loss", ["auto", "bce", "dice", "bce_dice"])
def test_the_order_of_the_rows_changes_no_weight_and_balanced_weights_train(trained, tmp_path: Path, loss: str):
    settings = [f"loss={loss}", "loss.weights=balanced"]
    runs = [trained(rows, *settings, run=run) for rows, run in ((OBJECT_FIRST, "a"), (OBJECT_LAST, "b"))]
    one, other = (torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in runs)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert metrics_of(runs[0]) == metrics_of(runs[1])
    crack = sum((np.asarray(Image.open(path)) == COLORS["crack"]).all(-1).sum() for path in training_masks(runs[0]))
    pixels = 48 * 48 * len(training_masks(runs[0]))
    weights = load_run(runs[0]).settings("loss")["weights"]
    np.testing.assert_allclose(weights, [pixels / 2 / (pixels - crack), pixels / 2 / crack])


def training_masks(run: Path) -> list[Path]:
    from segsweep.data import FolderSource

    source = FolderSource(run.parent / "cracks", image_size=32)
    return [pair.mask for pair in source.splits.train]


def test_an_ignored_class_stays_a_row_without_a_score(trained, command: Command, tmp_path: Path):
    run = load_run(trained(WITH_UNSURE, IGNORED))
    assert (run.kind, run.labels.names, run.labels.background) == (
        "binary",
        ["background", "crack", "unsure"],
        "background",
    )
    metrics = metrics_of(run.directory)
    assert metrics["val/iou/unsure"] is None
    assert metrics["val/foreground_iou"] == metrics["val/iou_image"]
    assert json.loads((run.directory / "run.json").read_text())["absent_classes"] == {"val": [], "test": []}
    assert command("evaluate.py", "run=run", "output=scored", "accelerator=cpu").code == 0
    assert scores_of(tmp_path / "scored")["iou"] == metrics["test/iou"]
    settings = ["run=run", "input=cracks/images/0.png", "output=out", "probabilities=true", "overlays=true"]
    assert command("predict.py", *settings).code == 0
    probabilities = np.load(tmp_path / "out/probabilities/0.npy")
    assert probabilities.shape == (3, 48, 48)
    assert not probabilities[2].any()
    image = np.asarray(Image.open(tmp_path / "cracks/images/0.png")).transpose(2, 0, 1)
    assert run.probabilities(image).shape == (3, 48, 48)
    assert np.asarray(Image.open(tmp_path / "out/masks/0.png")).max() <= 2


@pytest.mark.parametrize(
    "typed", [["data.task=multiclass"], ["loss=cross_entropy"], ["loss=ce_dice"], ["loss=dice", "data.task=multiclass"]]
)
def test_a_multiclass_task_or_loss_gives_each_class_a_channel(trained, command: Command, tmp_path: Path, typed):
    run = load_run(trained(OBJECT_FIRST, *typed))
    assert (run.kind, run.labels.names) == ("multiclass", ["crack", "wall"])
    metrics = metrics_of(run.directory)
    assert metrics["val/iou"] == pytest.approx((metrics["val/iou/crack"] + metrics["val/iou/wall"]) / 2)
    assert command("evaluate.py", "run=run", "output=scored", "accelerator=cpu").code == 0
    assert scores_of(tmp_path / "scored")["loss"] == metrics["test/loss"]


def test_a_sweep_ranks_an_object_and_a_mean_of_classes_apart(command: Command, tmp_path: Path):
    write_cracks(tmp_path / "cracks", OBJECT_FIRST)
    outcome = command("train.py", "-m", *FAST, "loss=bce,dice,cross_entropy", "name=apart")
    assert outcome.code == 0, outcome.err
    assert "loss changes the task" in (tmp_path / "multirun/apart/summary.md").read_text()
    write_cracks(tmp_path / "cracks", WITH_UNSURE)
    outcome = command("train.py", "-m", *FAST, "loss=dice,cross_entropy", "name=together")
    assert outcome.code == 0, outcome.err
    assert "changes the task" not in (tmp_path / "multirun/together/summary.md").read_text()


@pytest.mark.quick
@pytest.mark.parametrize(
    ("rows", "typed", "parts"),
    [
        (WITH_UNSURE, ["loss=bce"], ["loss: bce ", "multiclass", "loss=auto", "loss=cross_entropy"]),
        (OBJECT_LAST, ["loss=cross_entropy", "data.task=binary"], ["loss: cross_entropy ", "loss=bce", "loss=auto"]),
        (WITH_UNSURE, ["data.task=binary"], ["data.task=binary: ", "3 (unsure, crack, background)"]),
        (OBJECT_LAST, ["data.task=ternary"], ["data.task=ternary: must be", "'binary'"]),
        (OBJECT_LAST, ["loss.weights=[1,2,3]"], ["loss.weights=", "2 numbers", "wall, crack"]),
        (OBJECT_LAST, ["loss=dice", "loss.weights=often"], ["loss.weights=often"]),
    ],
)
def test_a_task_that_does_not_fit_ends_in_one_line(command: Command, tmp_path: Path, rows: str, typed, parts):
    write_cracks(tmp_path / "cracks", rows, pictures=3)
    outcome = command("train.py", *FAST, *typed, "hydra.run.dir=run")
    assert outcome.code == 1
    (line,) = outcome.error_lines
    for part in parts:
        assert part in line


def test_the_task_of_a_run_is_not_changed_afterwards(trained, command: Command):
    trained(OBJECT_LAST)
    outcome = command("evaluate.py", "run=run", "data.task=multiclass")
    (line,) = outcome.error_lines
    assert line.startswith("error: data.task: follows from the run, which is binary")
    (line,) = command("train.py", "resume=run", "data.task=multiclass").error_lines
    assert line.startswith("error: data.task: ")
    resumed = command("train.py", "resume=run", "trainer.max_steps=6")
    assert resumed.code == 0, resumed.err
    assert load_run("run").kind == "binary"


def test_a_binary_run_is_not_scored_on_a_folder_of_three_classes(trained, command: Command, tmp_path: Path):
    trained(OBJECT_LAST)
    write_cracks(tmp_path / "three", WITH_UNSURE)
    for more in ([], ["data.labels=three/classes.csv"]):
        (line,) = command("evaluate.py", "run=run", "data.root=three", *more).error_lines
        assert "its classes are not the run's" in line
        assert "'unsure' is not a class of the run" in line
