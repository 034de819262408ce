"""Scoring trained runs, by class and by image, on the data of the training or on other data."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from support import ROOT, Command, Outcome
from tool_folders import TOOLS
from using_runs import train_on_scenes

from segsweep import load_run
from segsweep.classes import MaskRule, read_mask
from segsweep.data import FolderSource
from segsweep.data.demo import DEMO_LABELS, write_demo_folder
from segsweep.evaluation import Evaluator, evaluate
from segsweep.evaluation_data import data_of
from segsweep.tasks.metrics import class_iou


def own_test(run: Path) -> dict[str, float]:
    """The test metrics of the best checkpoint, as the training wrote them."""
    metrics = json.loads((run / "run.json").read_text())["metrics"]
    return {name.removeprefix("test/"): value for name, value in metrics.items() if name.startswith("test/")}


Color = tuple[int, int, int]


def written(folder: Path) -> dict:
    return json.loads((folder / "evaluation.json").read_text())


@pytest.mark.quick
@pytest.mark.parametrize(
    "how",
    [
        "textures",
        "textures trainer.precision=bf16-mixed data.limit_samples=5",
        "scenes",
        "scenes data.tile_size=40 data.tile_margin=4",
        "scenes loss=ce_dice loss.weights=balanced trainer.channels_last=false",
    ],
)
def test_metrics_equal_those_of_the_training_s_own_test(command, train, tmp_path: Path, how: str):
    kind, *overrides = how.split()
    run = train(*overrides) if kind == "textures" else train_on_scenes(command, tmp_path, *overrides)
    outcome = command("evaluate.py", "run=run", "output=out", "accelerator=cpu")
    assert (outcome.code, outcome.err) == (0, "")
    assert written(tmp_path / "out")["metrics"] == own_test(run)
    cut = re.compile(r"data\.tile_margin=7 data\.tile_size=46\b.*data\.tile_size=48\b")
    cautioned = [cut.search(text) is not None for text in (outcome.out, (run / "train.log").read_text())]
    assert cautioned == ["tile_size=40" in how] * 2


@pytest.mark.parametrize("script", ["evaluate.py", "predict.py"])
@pytest.mark.parametrize(
    ("accelerator", "choices"), [("gpu", "accelerator=auto or accelerator=cpu"), ("tpu", "'auto', 'cpu' or 'gpu'")]
)
def test_a_missing_accelerator_is_named_by_the_key_that_was_typed(
    command, train, monkeypatch: pytest.MonkeyPatch, script: str, accelerator: str, choices: str
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    train()
    where = ["output=out"] if script == "evaluate.py" else ["input=.", "output=out"]
    outcome = command(script, "run=run", *where, f"accelerator={accelerator}")
    assert (outcome.code, len(outcome.error_lines)) == (1, 1)
    assert outcome.error_lines[0].startswith(f"error: accelerator={accelerator}: ")
    assert outcome.error_lines[0].endswith(choices)


def test_a_run_in_half_precision_is_scored_on_the_cpu_of_a_machine_with_a_gpu(train, monkeypatch: pytest.MonkeyPatch):
    run = load_run(train("trainer.precision=32-true"))
    whole = evaluate(run, accelerator="cpu").metrics
    run.config["trainer"]["precision"] = "16-mixed"
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        evaluator = Evaluator(run, accelerator="cpu")
    assert evaluator.score().metrics == whole


def test_files_and_tables_agree_with_each_other(command, tmp_path: Path):
    train_on_scenes(command, tmp_path)
    outcome = command("evaluate.py", "run=run", "output=out", "accelerator=cpu", "pictures=2")
    content = written(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "best.png", "confusion.png", "evaluation.json", "worst.png",
    ]  # fmt: skip
    confusion = np.array(content["confusion"])
    assert confusion.sum() == 3 * 48 * 48
    for at, (name, scores) in enumerate(content["classes"].items()):
        hits, true, predicted = confusion[at, at], confusion[at].sum(), confusion[:, at].sum()
        assert (scores["pixels"], scores["predicted_pixels"]) == (true, predicted)
        assert scores["iou"] == content["metrics"][f"iou/{name}"]
        if true:
            assert scores["recall"] == hits / true
        assert f"│ {name}" in outcome.out
    images = content["images"]
    assert [image["name"] for image in images] == ["test/scene_000", "test/scene_001", "test/scene_002"]
    assert np.mean([image["iou"] for image in images]) == pytest.approx(content["metrics"]["iou_image"], abs=1e-12)
    assert np.mean([image["wrong"] for image in images]) == pytest.approx(1 - content["metrics"]["accuracy"], abs=1e-12)
    for name in content["metrics"]:
        assert "/" in name or f"│ {name} " in outcome.out
    for name in ("best", "worst", "confusion"):
        assert min(Image.open(tmp_path / f"out/{name}.png").size) > 300


def test_images_are_ranked_by_their_own_iou(command, tmp_path: Path):
    run = load_run(train_on_scenes(command, tmp_path))
    evaluator = Evaluator(run, accelerator="cpu")
    ranked = evaluator.score().ranked()
    assert [image.iou for image in ranked] == sorted((image.iou for image in ranked), reverse=True)
    for image in ranked:
        sample = evaluator.sample(image.index)
        confusion = torch.zeros(6, 6, dtype=torch.int64)
        np.add.at(confusion.numpy(), (sample.mask, sample.prediction), 1)
        assert sample.iou == image.iou == pytest.approx(float(class_iou(confusion).nanmean()), abs=1e-12)


def test_one_image_is_drawn_alone(command, tmp_path: Path):
    train_on_scenes(command, tmp_path)
    outcome = command("evaluate.py", "run=run", "index=[2,0]", "split=test", "output=out")
    assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["sample_0.png", "sample_2.png"]
    assert "test/scene_002: iou " in outcome.out
    width, height = Image.open(tmp_path / "out/sample_2.png").size
    assert width > 2 * height  # four panels side by side


def test_several_runs_give_one_table(command, train, tmp_path: Path):
    for name in ("a", "b"):
        train(f"seed={ord(name)}", folder=f"sweep/{name}")
    (tmp_path / "sweep/no_run").mkdir()
    alone = {}
    for name in ("a", "b"):
        command("evaluate.py", f"run=sweep/{name}", f"output=alone/{name}", "accelerator=cpu", "pictures=0")
        alone[name] = written(tmp_path / f"alone/{name}")
    for at, typed in enumerate(["run=[sweep/a,sweep/b]", "run=sweep/*", "run=[sweep/b,sweep/*]"]):
        outcome = command("evaluate.py", typed, f"output=out{at}", "accelerator=cpu", "pictures=1")
        assert outcome.code == 0, outcome.err
        names = ["b", "a"] if at == 2 else ["a", "b"]
        together = written(tmp_path / f"out{at}")
        assert together == {"split": "test", "runs": [alone[name] for name in names]}
        table = pd.read_csv(tmp_path / f"out{at}/evaluation.csv")
        assert table["run"].tolist() == names
        assert table["iou"].tolist() == [alone[name]["metrics"]["iou"] for name in names]
        assert (tmp_path / f"out{at}/a/confusion.png").is_file()
        (header,) = [line for line in outcome.out.splitlines() if "metric (test)" in line]
        assert [word for word in header.split() if word in names] == names
    # Too many runs for columns: each has a row.
    copies = [shutil.copy(tmp_path / "sweep/a/checkpoints/best.ckpt", tmp_path / f"{at}.ckpt") for at in range(7)]
    outcome = command(
        "evaluate.py", "run=[" + ",".join(f"{at}.ckpt" for at in range(7)) + "]", "output=many", "pictures=0"
    )
    assert len([line for line in outcome.out.splitlines() if ".ckpt" in line and line[0] in "│┃"]) == len(copies)


def test_another_folder_of_the_same_classes_is_scored(command, tmp_path: Path):
    train_on_scenes(command, tmp_path)
    command("evaluate.py", "run=run", "output=own", "accelerator=cpu")
    shutil.copytree(tmp_path / "scenes", tmp_path / "moved")
    outcome = command(
        "evaluate.py", "run=run", "data.root=moved", "output=there", "accelerator=cpu", "data.num_workers=1"
    )
    assert outcome.code == 0, outcome.err
    assert "train 3, val 2, test 3" in outcome.out
    assert written(tmp_path / "there")["metrics"] == written(tmp_path / "own")["metrics"]
    outcome = command("evaluate.py", "run=run", "data.root=moved", "split=all", "output=all", "accelerator=cpu")
    assert outcome.code == 0, outcome.err
    assert len(written(tmp_path / "all")["images"]) == 8
    assert sum(np.array(written(tmp_path / "all")["confusion"]).ravel()) == 8 * 48 * 48


def test_a_folder_without_splits_or_table_of_its_own_is_scored_whole_when_asked(command, tmp_path: Path):
    train_on_scenes(command, tmp_path)
    for kind in ("images", "masks"):
        shutil.copytree(tmp_path / f"scenes/test/{kind}", tmp_path / f"plain/{kind}")
    command("evaluate.py", "run=run", "output=own", "accelerator=cpu")
    outcome = command("evaluate.py", "run=run", "data.root=plain", "split=all", "output=out", "accelerator=cpu")
    assert outcome.code == 0, outcome.err
    assert written(tmp_path / "out")["confusion"] == written(tmp_path / "own")["confusion"]


def test_a_folder_with_other_names_than_the_run_s_is_read_like_it(command, tmp_path: Path):
    TOOLS["labelme"](tmp_path / "scenes")  # its masks are read by number, as its table of names says
    train_on_scenes(command, tmp_path)
    own = command("evaluate.py", "run=run", "split=all", "output=own", "accelerator=cpu")
    assert own.code == 0, own.err
    for kind, folder in (("images", "photos"), ("masks", "photos/labels")):
        for pair in FolderSource(tmp_path / "scenes").found.pairs:
            file = pair.image if kind == "images" else pair.mask
            (tmp_path / "other" / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, tmp_path / "other" / folder / f"{pair.name.replace('/', '_')}{file.suffix}")
    outcome = command("evaluate.py", "run=run", "data.root=other", "split=all", "output=out", "accelerator=cpu")
    assert outcome.code == 0, outcome.err
    assert written(tmp_path / "out")["confusion"] == written(tmp_path / "own")["confusion"]


def test_a_texture_run_is_scored_on_gray_files(command, train, tmp_path: Path):
    train()
    run = load_run(tmp_path / "run")
    data = data_of(run)
    batch = data.module().samples("test", [0, 1])
    for kind in ("images", "masks"):
        (tmp_path / f"files/{kind}").mkdir(parents=True)
    for at in range(2):
        pixels = (batch.image[at, 0] * 255).round().byte().numpy()
        Image.fromarray(pixels).save(tmp_path / f"files/images/{at}.png")
        Image.fromarray(batch.mask[at].byte().numpy()).save(tmp_path / f"files/masks/{at}.png")
    outcome = command("evaluate.py", "run=run", "data.root=files", "split=all", "output=out", "accelerator=cpu")
    assert outcome.code == 0, outcome.err
    scores = written(tmp_path / "out")
    assert sum(np.array(scores["confusion"]).ravel()) == batch.mask.numel()
    assert scores["classes"]["texture 1"]["pixels"] == int(batch.mask.sum())


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda names: [*names[:-1], "Lava"], ["'Rock' is missing", "'Lava' is not a class of the run"]),
        (lambda names: names[:-1], ["'Rock' is missing"]),
        (lambda names: [*names, "Lava"], ["'Lava' is not a class of the run"]),
        (lambda names: [names[1], names[0], *names[2:]], ["class 0 is 'Grass', and 'Ground' in the run"]),
    ],
)
def test_other_classes_are_refused_with_the_difference(command, tmp_path: Path, change, parts):
    train_on_scenes(command, tmp_path)
    shutil.copytree(tmp_path / "scenes", tmp_path / "other")
    rows = [f"{name},{at},{at + 1},{at + 2}" for at, name in enumerate(change(DEMO_LABELS.names))]
    (tmp_path / "other/classes.csv").write_text("\n".join(["name,r,g,b", *rows]) + "\n")
    outcome = command("evaluate.py", "run=run", "data.root=other", "output=out")
    assert len(outcome.error_lines) == 1
    for part in ["other/classes.csv", "its classes are not the run's", *parts]:
        assert part in outcome.error_lines[0]
    # The table beside the run's own images may have changed since.
    (tmp_path / "scenes/classes.csv").write_text((tmp_path / "other/classes.csv").read_text())
    outcome = command("evaluate.py", "run=run", "output=out")
    for part in ["its classes are not the run's", *parts]:
        assert part in outcome.error_lines[0]
    assert not (tmp_path / "out").exists()


def with_table(root: Path, colors: Sequence[Color], repaint: bool = False) -> None:
    """Writes a class table of these colours into a folder of the demo scenes; `repaint` also changes its masks to them."""
    rows = [f"{name},{red},{green},{blue}" for name, (red, green, blue) in zip(DEMO_LABELS.names, colors, strict=True)]
    (root / "classes.csv").write_text("\n".join(["name,r,g,b", *rows]) + "\n")
    if repaint:
        for path in root.glob("*/masks/*.png"):
            mask = read_mask(path, DEMO_LABELS, MaskRule(by="color")).mask
            Image.fromarray(np.array(colors, dtype=np.uint8)[mask]).save(path)


OTHER_COLORS = [(at, 200, at) for at in range(len(DEMO_LABELS))]
SWAPPED = [entry.color for entry in (DEMO_LABELS.classes[1], DEMO_LABELS.classes[0], *DEMO_LABELS.classes[2:])]


def test_the_same_classes_in_other_colours_are_read_by_the_folder_s_own_table(command, tmp_path: Path):
    train_on_scenes(command, tmp_path)
    command("evaluate.py", "run=run", "output=own", "accelerator=cpu")
    shutil.copytree(tmp_path / "scenes", tmp_path / "other")
    with_table(tmp_path / "other", OTHER_COLORS, repaint=True)
    outcome = command("evaluate.py", "run=run", "data.root=other", "output=out", "accelerator=cpu")
    assert outcome.code == 0, outcome.err
    assert "ids or colours of Ground, Grass, Forest, Water, Sand, Rock are not the run's" in outcome.out
    assert written(tmp_path / "out")["metrics"] == written(tmp_path / "own")["metrics"]


def test_a_run_with_data_labels_is_scored_by_them_if_the_folder_s_table_is_wrong(command, tmp_path: Path):
    write_demo_folder(tmp_path / "scenes", scenes=(3, 2, 3), size=48)
    shutil.copy(tmp_path / "scenes/classes.csv", tmp_path / "right.csv")
    with_table(tmp_path / "scenes", OTHER_COLORS)
    run = train_on_scenes(command, tmp_path, "data.labels=right.csv")
    shutil.copytree(tmp_path / "scenes", tmp_path / "moved")
    for at, where in enumerate([[], ["data.root=scenes"], ["data.root=moved"], ["data.root=moved", "split=all"]]):
        outcome = command("evaluate.py", "run=run", *where, f"output=out{at}", "accelerator=cpu")
        assert outcome.code == 0, outcome.err
        assert at == 3 or written(tmp_path / f"out{at}")["metrics"] == own_test(run)
        assert at == 0 or "from right.csv" in outcome.out
        note = re.search(r"^labels: .*data\.labels=right\.csv.*moved/classes\.csv", outcome.out, re.MULTILINE)
        assert (note is not None) == (at > 1)


def scored_with_two_tables(command: Command, tmp_path: Path, table: Sequence[Color]) -> tuple[Path, Outcome]:
    """A run with data.labels, and the outcome of scoring it on the same scenes, painted in the colours of another table."""
    write_demo_folder(tmp_path / "scenes", scenes=(3, 2, 3), size=48)
    shutil.copy(tmp_path / "scenes/classes.csv", tmp_path / "told.csv")
    run = train_on_scenes(command, tmp_path, "data.labels=told.csv")
    shutil.copytree(tmp_path / "scenes", tmp_path / "other")
    with_table(tmp_path / "other", table, repaint=True)
    return run, command("evaluate.py", "run=run", "data.root=other", "output=out", "accelerator=cpu")


def test_a_run_with_data_labels_is_scored_by_the_folder_s_table_if_only_that_fits(command, tmp_path: Path):
    run, outcome = scored_with_two_tables(command, tmp_path, OTHER_COLORS)
    assert outcome.code == 0, outcome.err
    assert "ids or colours of Ground, Grass, Forest, Water, Sand, Rock are not the run's" in outcome.out
    assert "from other/classes.csv" in outcome.out
    assert written(tmp_path / "out")["metrics"] == own_test(run)


def test_masks_that_two_tables_read_differently_are_refused(command, tmp_path: Path):
    run, outcome = scored_with_two_tables(command, tmp_path, SWAPPED)
    (line,) = outcome.error_lines
    assert line.startswith("error: other/classes.csv: ")
    assert "Ground, Grass" in line
    assert line.endswith(": data.labels=told.csv or data.labels=other/classes.csv")
    assert not (tmp_path / "out").exists()
    command(
        "evaluate.py", "run=run", "data.root=other", "output=own", "data.labels=other/classes.csv", "accelerator=cpu"
    )
    assert written(tmp_path / "own")["metrics"] == own_test(run)
    command("evaluate.py", "run=run", "data.root=other", "output=told", "data.labels=told.csv", "accelerator=cpu")
    own, told = (np.array(written(tmp_path / name)["confusion"]) for name in ("own", "told"))
    assert np.array_equal(told, own[[1, 0, 2, 3, 4, 5]])


def test_training_images_of_a_moved_folder_are_not_scored(command, tmp_path: Path):
    write_demo_folder(tmp_path / "scenes", scenes=(6, 2, 2), size=48)
    groups = ["data.split=groups", "data.train=[train]", "data.val=[test]", "data.test=[val]"]
    train_on_scenes(command, tmp_path, *groups)
    shutil.move(tmp_path / "scenes", tmp_path / "moved")
    command("evaluate.py", "run=run", "data.root=moved", "output=out", "accelerator=cpu")
    assert [image["name"] for image in written(tmp_path / "out")["images"]] == ["val/scene_000", "val/scene_001"]
    shutil.move(tmp_path / "moved/val", tmp_path / "moved/new")
    outcome = command("evaluate.py", "run=run", "data.root=moved", "output=out2", "accelerator=cpu")
    assert "there is no group 'val'" in outcome.error_lines[0]
    assert "split=all scores every image" in outcome.error_lines[0]


MISTAKES = {
    "": "run: needs a value",
    "run=[]": "run: needs a value",
    "run=nowhere": "nowhere: no checkpoint there",
    "run=no*where": "no*where: matches nothing",
    "run=unfinished": "unfinished: this run has no checkpoint (status failed: UserError: broken)",
    "run=sweep": "sweep: is a sweep of 1 run; give one of its runs, as in \"run='sweep/lr=0.1'\"",
    "run=folder": "folder: is not a run, but a folder with 1 run",
    "run=run split=train": "split=train: must be 'val', 'test' or 'all'",
    "run=run split=all": "split=all: only a folder",
    "run=run accelerator=foo": "accelerator=foo",
    "run=run index=16": "index=16: test has 4 images, 0 to 3",
    "run=run index=-1": "index=-1",
    "run=run index=first": "index=first",
    "run=run pictures=-1": "pictures=-1",
    "run=run data.root=nowhere": "data.root=nowhere: no such folder",
    "run=run data.sigma1=0": "data.sigma1=0",
    "run=run data.tile_size=64": "data.tile_size: no such setting",
    "run=run data.samples_per_epoch=8": "data.samples_per_epoch: only changes training samples",
    "run=run data.overfit_samples=2": "data.overfit_samples: ",
    "run=run data.eval_sed=1": "did you mean data.eval_seed",
    "run=run data=folder": "data: has no choices here",
    "run=run data.rooot=x": "rooot",
    "run=run output=used": "used: holds an evaluation already",
    "run=run hydra.run.dir=made split=no": "split=no",
}


@pytest.mark.quick
@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_ends_in_one_line_and_leaves_no_folder(command, train, tmp_path: Path, typed: str):
    run = train()
    (tmp_path / "unfinished").mkdir()
    record = json.loads((run / "run.json").read_text()) | {"status": "failed", "error": "UserError: broken"}
    (tmp_path / "unfinished/run.json").write_text(json.dumps(record))
    for folder, job in (("sweep", "lr=0.1"), ("folder", "one")):
        shutil.copytree(run, tmp_path / folder / job)
    (tmp_path / "sweep/multirun.yaml").write_text("")
    (tmp_path / "used").mkdir()
    (tmp_path / "used/evaluation.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    outcome = command("evaluate.py", *typed.split())
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1, outcome.err
    assert outcome.error_lines[0].startswith("error: ")
    assert MISTAKES[typed] in outcome.error_lines[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_without_an_output_a_new_folder_is_made(command, train, tmp_path: Path):
    train()
    outcome = command("evaluate.py", "run=run", "accelerator=cpu", "pictures=0")
    (folder,) = (tmp_path / "outputs").glob("*/*")
    assert f"Everything is in {folder.relative_to(tmp_path)}" in outcome.out
    assert {path.name for path in folder.iterdir()} == {"evaluation.json", "confusion.png"}


def test_runs_of_different_tasks_have_tables_of_their_own_and_runs_that_are_left_out_are_named(
    command, train, tmp_path: Path
):
    train(folder="all/textures")
    train_on_scenes(command, tmp_path).rename(tmp_path / "all/scenes")
    shutil.copytree(tmp_path / "all/textures", tmp_path / "all/cut")
    (tmp_path / "all/cut/checkpoints/best.ckpt").unlink()
    (tmp_path / "all/sweep").mkdir()
    (tmp_path / "all/sweep/sweep.json").write_text("{}")
    outcome = command("evaluate.py", "run=all/*", "output=out", "accelerator=cpu", "pictures=1")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert [line.split(" ")[2] for line in lines if line.startswith("left out: ")] == ["all/cut", "all/sweep"]
    assert sum(line.endswith("; iou is their mean:") for line in lines) == 1
    assert sum(line.endswith("; iou is that of texture 1:") for line in lines) == 1
    assert not any("textures" in line and "scenes" in line for line in lines)
    assert set(pd.read_csv(tmp_path / "out/evaluation.csv")["task"]) == {"binary", "6 classes"}
    for path in (tmp_path / "out").rglob("*.*"):
        assert path.name in lines[-1]
    both = command("evaluate.py", "run=[all/textures,all/cut/checkpoints/last.ckpt]", "accelerator=cpu", "pictures=0")
    assert "their mean" not in both.out
    assert "left out" not in both.out


def test_evaluation_from_python(train):
    run = load_run(train())
    evaluation = evaluate(run, data_of(run, {"test_size": 3}), accelerator="cpu")
    assert [image.index for image in evaluation.images] == [0, 1, 2]
    assert evaluation.per_class["texture 1"]["iou"] == evaluation.metrics["iou"]


def test_the_documented_python_works(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train_on_scenes(command, tmp_path)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tmp_path / "scenes/test/images", tmp_path / "photos")
    shutil.copy(min((tmp_path / "photos").iterdir()), tmp_path / "photos/a.png")
    document = (ROOT / "docs/using_a_run.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    names = {"image": np.zeros((3, 20, 30), dtype=np.uint8), "mask": np.zeros((20, 30), dtype=np.uint8)}
    exec(code.replace("outputs/<date>/<time>", "run"), names)
    assert len(list((tmp_path / "result/masks").iterdir())) == 4


def test_a_doubt_about_white_is_one_plain_warning_on_stderr(command: Command, tmp_path: Path):
    train_on_scenes(command, tmp_path)
    shutil.copytree(tmp_path / "scenes", tmp_path / "deep")
    for path in (tmp_path / "deep").rglob("images/*.png"):
        with Image.open(path) as image:
            values = np.asarray(image.convert("L")).astype(np.uint16) * 16
        Image.fromarray(values).save(path)
    run = ["run=run", "accelerator=cpu", "output=out"]
    for script, given in (("evaluate.py", ["data.root=deep", "split=all"]), ("predict.py", ["input=deep"])):
        outcome = command(script, *run, *given)
        assert outcome.code == 0, outcome.err
        assert len(outcome.error_lines) == 1, outcome.err
        assert re.match(r"warning: \S+\.png: .*data\.white=4095 ", outcome.err)
        assert "HYDRA" not in outcome.out
        shutil.rmtree(tmp_path / "out")
