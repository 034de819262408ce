"""The commands on a device: repeated, resumed, swept, and read on another device.

Weights are compared bit for bit under deterministic algorithms: on a GPU, cuDNN's fastest ones may add in another order in
every run.
"""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from devices import DEVICES, PRECISIONS, accelerator, small
from PIL import Image
from same_runs import assert_same_result, result_of
from support import ROOT, Command
from using_runs import train_on_scenes

from segsweep import load_run
from segsweep.classes import read_mask
from segsweep.prediction import predict

BRIEF = ["data.val_size=4", "data.test_size=4", "callbacks.panel=null"]


def record(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def train(command: Command, device: str, folder: str, *overrides: str) -> Path:
    outcome = command("train.py", *small(device), *BRIEF, f"hydra.run.dir={folder}", *overrides)
    assert outcome.code == 0, outcome.err
    return Path.cwd() / folder


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = (result_of(run / "checkpoints/last.ckpt") for run in (one, other))
    for key, value in first.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, second[key]), key


def fresh_process(folder: Path, *arguments: str, **environment: str) -> str:
    """Standard output of Python in a process of its own."""
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=os.environ | environment, capture_output=True,
                          text=True, timeout=240)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("device", "precision"), PRECISIONS)
@pytest.mark.usefixtures("deterministic")
def test_every_precision_trains_and_is_scored_again_with_the_same_numbers(
    command: Command, tmp_path: Path, device: str, precision: str
):
    run = train(command, device, "run", f"trainer.precision={precision}")
    content = record(run)
    assert (content["status"], content["precision"], content["steps"]) == ("completed", precision, 4)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    assert content["device"].startswith(name)
    outcome = command("evaluate.py", "run=run", "output=out", f"accelerator={accelerator(device)}")
    assert (outcome.code, outcome.err) == (0, "")
    own = {key.removeprefix("test/"): value for key, value in content["metrics"].items() if key.startswith("test/")}
    found = json.loads((tmp_path / "out/evaluation.json").read_text())["metrics"]
    assert found == {key: pytest.approx(value, rel=1e-6, nan_ok=True) for key, value in own.items()}


@pytest.mark.parametrize(("device", "precision"), PRECISIONS)
@pytest.mark.usefixtures("deterministic")
def test_resumed_is_the_same_run_bit_for_bit(command: Command, device: str, precision: str):
    settings = [f"trainer.precision={precision}", "trainer.val_every_n_steps=2", "trainer.test=false"]
    whole = train(command, device, "whole", *settings, "trainer.max_steps=8")
    half = train(command, device, "half", *settings, "trainer.max_steps=4")
    outcome = command("train.py", "resume=half", "trainer.max_steps=8")
    assert outcome.code == 0, outcome.err
    assert_same_result(whole, half)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.usefixtures("deterministic")
def test_the_same_seed_gives_the_same_weights_whatever_the_workers(command: Command, device: str):
    first = train(command, device, "first", "trainer.max_steps=6")
    for name, workers in (("again", 0), ("workers", 2)):
        assert_same_result(first, train(command, device, name, "trainer.max_steps=6", f"data.num_workers={workers}"))
    other = train(command, device, "other", "trainer.max_steps=6", "seed=1")
    assert not torch.equal(load_run(first).net.conv1[0].weight, load_run(other).net.conv1[0].weight)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.usefixtures("deterministic")
def test_a_folder_gives_the_same_weights_whatever_the_workers(command: Command, tmp_path: Path, device: str):
    where = f"trainer.accelerator={accelerator(device)}"
    first = train_on_scenes(command, tmp_path, where, run="first")
    assert_same_weights(first, train_on_scenes(command, tmp_path, where, "data.num_workers=2", run="workers"))


@pytest.mark.parametrize("device", DEVICES)
def test_every_default_callback_and_the_best_texture_settings_train(command: Command, device: str):
    outcome = command(
        "train.py", "experiment=texture_best", "trainer.progress_bar=false", "data.image_size=32", "data.val_size=4",
        "data.test_size=4", "trainer.max_steps=4", f"trainer.accelerator={accelerator(device)}", "hydra.run.dir=run",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    content = record(Path.cwd() / "run")
    assert content["status"] == "completed"
    assert np.isfinite(content["metrics"]["test/loss"])


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_compiled_net_trains_on_a_gpu(command: Command, precision: str):
    run = train(command, "cuda", "run", "trainer.compile=true", f"trainer.precision={precision}")
    plain = train(command, "cuda", "plain", f"trainer.precision={precision}")
    assert load_run(run).net.state_dict().keys() == load_run(plain).net.state_dict().keys()
    assert record(run)["metrics"]["train/loss"] == pytest.approx(record(plain)["metrics"]["train/loss"], rel=0.05)


@pytest.mark.parametrize("device", DEVICES)
def test_one_process_of_ddp_gives_the_weights_of_a_run_without_it(tmp_path: Path, device: str):
    arguments = [*small(device), *BRIEF, "data.num_workers=0", "trainer.max_steps=6"]
    # cuDNN's deterministic algorithms in both, without segsweep's help.
    start = (
        "import sys, torch; sys.path.insert(0, sys.argv.pop(1)); torch.backends.cudnn.deterministic = True; import train;"
        " from segsweep import cli; cli.run(train.main)"
    )
    for name, more in {"alone": [], "ddp": ["trainer=ddp", "trainer.devices=1"]}.items():
        fresh_process(tmp_path, "-c", start, str(ROOT), *more, *arguments, f"hydra.run.dir={name}", OMP_NUM_THREADS="1")
    assert_same_weights(tmp_path / "alone", tmp_path / "ddp")
    assert record(tmp_path / "alone")["device"] == record(tmp_path / "ddp")["device"]


# Several devices


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_is_read_where_there_is_no_gpu(command: Command, tmp_path: Path, device: str):
    run = train(command, device, "run")
    loaded = load_run(run)
    assert {value.device.type for value in loaded.net.state_dict().values()} == {"cpu"}
    image = np.random.default_rng(0).random((1, 40, 40), dtype=np.float32)
    np.save(tmp_path / "image.npy", image)
    code = (
        "import numpy, torch; from segsweep import load_run; assert not torch.cuda.is_available(); "
        "numpy.save('found.npy', load_run('run').probabilities(numpy.load('image.npy')))"
    )
    fresh_process(tmp_path, "-c", code, CUDA_VISIBLE_DEVICES="")
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), loaded.probabilities(image), atol=1e-6)


@pytest.mark.parametrize(
    ("device", "then"),
    [("cpu", "cpu"), *(pytest.param(*pair, marks=pytest.mark.gpu) for pair in (("cpu", "cuda"), ("cuda", "cpu")))],
)
def test_a_run_is_resumed_on_another_device(command: Command, device: str, then: str):
    run = train(command, device, "run")
    outcome = command("train.py", "resume=run", "trainer.max_steps=8", f"trainer.accelerator={accelerator(then)}")
    assert outcome.code == 0, outcome.err
    content = record(run)
    assert (content["status"], content["steps"], content["continued_at"]) == ("completed", 8, [4])
    assert content["device"].startswith("CPU") == (then == "cpu")


@pytest.mark.parametrize("device", DEVICES)
def test_predictions_on_a_device_are_those_of_the_run_where_they_are_decided(
    command: Command, tmp_path: Path, device: str
):
    where = f"trainer.accelerator={accelerator(device)}"
    longer = ["lr=0.01", "trainer.max_steps=100", "data.samples_per_epoch=200", "trainer.precision=32-true"]
    run = load_run(train_on_scenes(command, tmp_path, where, *longer))
    photos, images = tmp_path / "photos", {}
    photos.mkdir()
    scene = np.asarray(Image.open(next((tmp_path / "scenes").rglob("images/*"))))
    for place, (height, width) in enumerate([(48, 48), (31, 40), (130, 90)]):
        pixels = np.tile(scene, (3, 3, 1))[:height, :width]
        Image.fromarray(pixels).save(photos / f"{place}.png")
        images[f"{place}"] = pixels.transpose(2, 0, 1)
    for out, tiles in {"whole": {}, "tiles": {"tile": 96, "overlap": 40}}.items():
        result = predict(run, photos, tmp_path / out, probabilities="float32", accelerator=accelerator(device), **tiles)
        assert sorted(result.written) == sorted(images)
        assert result.device == device
        for name, image in images.items():
            expected = run.probabilities(image)
            found = np.load(tmp_path / out / f"probabilities/{name}.npy")
            # cuDNN's convolutions round to TF32.
            np.testing.assert_allclose(found, expected, atol=0.02 if device == "cuda" else 1e-4)
            ordered = np.sort(expected, axis=0)
            decided = ordered[-1] - ordered[-2] > 0.05
            mask = read_mask(tmp_path / out / f"masks/{name}.png", run.labels).mask
            np.testing.assert_array_equal(mask[decided], run.predict(image)[decided])
            assert decided.mean() > 0.5


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.slow
def test_a_job_in_a_process_of_its_own_gets_one_gpu(tmp_path: Path, device: str):
    number = 3
    code = (
        "import torch; from segsweep.sweeps.jobs import take_one_gpu; "
        f"take_one_gpu({number}); count = torch.cuda.device_count(); "
        "print(count, torch.cuda.get_device_properties(0).uuid if count else None)"
    )
    hidden = {} if device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    count, name = fresh_process(tmp_path, "-c", code, **hidden).split()
    gpus = torch.cuda.device_count() if device == "cuda" else 0
    assert int(count) == min(gpus, 1)
    assert name == str(torch.cuda.get_device_properties(number % gpus).uuid if gpus else None)


def alive(device: str) -> tuple[int, int]:
    """Tensors on a device that Python still refers to, and the bytes that torch has allocated on a GPU."""
    gc.collect()
    found = sum(
        1 for entry in gc.get_objects() if issubclass(type(entry), torch.Tensor) and entry.device.type == device
    )
    return found, torch.cuda.memory_allocated() if device == "cuda" else 0


@pytest.mark.parametrize("device", DEVICES)
def test_a_sweep_in_one_process_leaves_nothing_on_its_device(command: Command, device: str):
    few = [*small(device), *BRIEF, "trainer.max_steps=2"]
    found = []
    for name in ("first", "second", "third"):
        outcome = command("train.py", "-m", *few, "lr=0.001,0.01", f"name={name}")
        assert outcome.code == 0, outcome.err
        found.append(alive(device))
    # The first one leaves what every further one uses, such as cuBLAS's workspace.
    assert found[1] == found[2] == found[0]
