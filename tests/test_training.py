"""A training writes the documented files, ends with the documented status, and is reproducible."""

import contextlib
import json
import logging
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from support import ROOT, SMALL
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segsweep import load_run
from segsweep.callbacks import WholeCheckpointIO
from segsweep.console import LogFile
from segsweep.data import Textures
from segsweep.errors import UserError
from segsweep.runs import read_metrics
from segsweep.training_setup import build_data

Train = Callable[..., Path]


def record(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    content = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return {key: value for key, value in content["state_dict"].items() if key.startswith("net.")}


def same_weights(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.quick
def test_a_run_directory_holds_what_the_contract_says(train: Train):
    run = train("seed=3")
    for name in ("config.yaml", "run.json", "metrics.csv", "train.log", ".hydra/config.yaml", "checkpoints/best.ckpt"):
        assert (run / name).is_file()
    assert (run / "checkpoints/last.ckpt").is_file()
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    assert not list(run.rglob("*.tmp"))
    content = record(run)
    assert content["status"] == "completed"
    assert content["seed"] == 3
    assert "seed=3" in content["overrides"]
    objective = content["objective"]
    assert (objective["name"], objective["mode"], objective["at"]) == ("val/iou", "max", "best")
    assert objective["value"] == objective["best"] == content["metrics"]["val/iou"]
    assert content["best_checkpoint"] == "checkpoints/best.ckpt"
    assert content["steps"] == 4
    assert content["parameters"] == 13_681
    assert content["seconds"] > 0
    assert content["steps_per_second"] > 0
    assert content["device"].startswith("CPU")
    assert content["versions"]["torch"] == torch.__version__
    assert {"commit", "dirty"} == set(content["git"])
    assert content["error"] is None
    for name in ("train/loss", "train/loss_running", "train/confident_accuracy_running", "val/loss", "test/iou"):
        assert np.isfinite(content["metrics"][name])
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["optim"]["lr"] == settings["lr"] == 0.001


def test_metrics_csv_has_a_row_a_logged_step_and_agrees_with_run_json(train: Train):
    run = train("trainer.log_every_n_steps=1")
    table = read_metrics(run / "metrics.csv")
    assert table["step"].tolist() == [1, 2, 3, 4]
    assert table["epoch"].tolist() == [0, 0, 1, 1]
    metrics = record(run)["metrics"]
    best = table.loc[table["val/iou"].idxmax()]
    assert best["val/iou"] == metrics["val/iou"]
    assert best["val/loss"] == metrics["val/loss"]
    assert table["test/iou"].dropna().tolist() == [metrics["test/iou"]]
    # The published figures are running means over single steps.
    assert table["train/loss_running"].iloc[-1] == pytest.approx(table["train/loss"].mean(), rel=1e-12)
    assert metrics["train/loss_running"] == table["train/loss_running"].iloc[-1]


def test_a_training_shorter_than_an_epoch_ends_with_validation_test_and_both_checkpoints(train: Train):
    run = train("trainer.max_steps=3", "data.limit_samples=8")
    content = record(run)
    assert content["steps"] == 3
    assert content["best_step"] == 3
    assert {"val/iou", "test/iou"} <= set(content["metrics"])
    assert weights(run, "best").keys() == weights(run, "last").keys()


def test_a_training_of_whole_epochs_validates_once_after_each(train: Train):
    table = read_metrics(train("trainer.max_steps=-1", "trainer.max_epochs=3") / "metrics.csv")
    assert table.loc[table["val/iou"].notna(), "step"].tolist() == [2, 4, 6]


def test_validation_every_few_steps_and_at_the_end(train: Train):
    table = read_metrics(train("trainer.max_steps=5", "trainer.val_every_n_steps=2") / "metrics.csv")
    assert table.loc[table["val/iou"].notna(), "step"].tolist() == [2, 4, 5]


@pytest.mark.quick
def test_checkpoints_hold_plain_data_and_all_that_is_needed(train: Train):
    run = train()
    for name in ("best", "last"):
        content = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert content["segsweep"]["format"] == 1
        assert content["segsweep"]["config"]["model"]["channels"] == 16
        assert content["segsweep"]["kind"] == "binary"


@pytest.mark.quick
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(train: Train):
    runs = [train(f"seed={seed}", folder=name) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    assert same_weights(runs[0], runs[1])
    assert not same_weights(runs[0], runs[2])


@pytest.mark.slow
def test_weights_do_not_depend_on_workers_logging_or_validation(train: Train):
    reference = train("trainer.max_steps=6", folder="reference")
    variants = {
        "workers": ["data.num_workers=2"],
        "logging": ["trainer.log_every_n_steps=1", "logger=csv"],
        "validation": ["data.limit_samples=8", "trainer.val_every_n_steps=1"],
        "callbacks": ["callbacks.panel=null", "callbacks.last_checkpoint.every_n_steps=1"],
    }
    for name, overrides in variants.items():
        run = train("trainer.max_steps=6", *overrides, folder=name)
        parameters = [key for key in weights(run) if "running" not in key and "tracked" not in key]
        assert all(torch.equal(weights(run)[key], weights(reference)[key]) for key in parameters), name


def test_seed_zero_is_a_seed(train: Train):
    assert record(train("seed=0"))["seed"] == 0


@pytest.mark.parametrize("optim", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("scheduler", ["none", "onecycle"])
def test_every_optimizer_trains_with_a_schedule_and_without(train: Train, optim: str, scheduler: str):
    assert record(train(f"optim={optim}", f"scheduler={scheduler}", "momentum=0.5"))["status"] == "completed"


@pytest.mark.parametrize("loss", ["mse", "bce", "dice", "bce_dice"])
def test_every_binary_loss_trains(train: Train, loss: str):
    assert record(train(f"loss={loss}"))["status"] == "completed"


def test_cosine_and_exponential_move_the_learning_rate_as_they_say(train: Train):
    steps = ["trainer.log_every_n_steps=1", "trainer.max_steps=6"]
    exponential = read_metrics(train("scheduler=exponential", *steps, folder="a") / "metrics.csv")["lr"]
    # The rate is read after the step, when the schedule has moved on.
    assert exponential.tolist() == pytest.approx([1e-3 * 0.95**epoch for epoch in (0, 1, 1, 2, 2, 3)])
    cosine = read_metrics(train("scheduler=cosine", *steps, folder="b") / "metrics.csv")["lr"]
    assert cosine.is_monotonic_decreasing
    assert cosine.iloc[-1] == pytest.approx(0, abs=1e-9)


@pytest.mark.quick
def test_a_diverging_run_stops_with_status_failed_and_keeps_what_it_saved(command, tmp_path: Path):
    # The first step is saved; its weights make the loss of a later step overflow.
    overrides = [
        "optim=sgd",
        "lr=1e38",
        "loss=bce",
        "callbacks.last_checkpoint.every_n_steps=1",
        "trainer.max_steps=50",
    ]
    outcome = command("train.py", *SMALL, "hydra.run.dir=run", *overrides)
    assert outcome.code == 1
    content = record(tmp_path / "run")
    assert content["status"] == "failed"
    assert re.search(r"^error: .* step \d+ .*lower lr", outcome.error_lines[-1])
    assert "DivergedError" in content["error"]
    assert "Traceback" in content["traceback"]
    assert "Traceback" in (tmp_path / "run/train.log").read_text()
    assert "Traceback" not in outcome.out + outcome.err
    for path in (tmp_path / "run").glob("checkpoints/*.ckpt"):
        assert all(value.isfinite().all() for value in weights(tmp_path / "run", path.stem).values())


def test_a_run_that_diverges_in_its_last_step_has_failed_and_saves_nothing(command, tmp_path: Path):
    outcome = command(
        "train.py", *SMALL, "hydra.run.dir=run", "optim=sgd", "lr=1e38", "loss=bce", "trainer.max_steps=1"
    )
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert record(tmp_path / "run")["status"] == "failed"
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_a_training_that_ends_by_epochs_between_validations_ends_with_one(train: Train):
    run = train("trainer.max_steps=-1", "trainer.max_epochs=2", "trainer.val_every_n_steps=3")
    table = read_metrics(run / "metrics.csv")
    assert table.loc[table["val/iou"].notna(), "step"].tolist() == [3, 4]
    assert record(run)["status"] == "completed"


def test_a_mistake_found_while_building_leaves_no_folder(command, tmp_path: Path):
    outcome = command("train.py", *SMALL, "hydra.run.dir=run", "data.sigma1=-1")
    assert outcome.code == 1
    assert "data.sigma1=-1" in outcome.error_lines[0]
    assert not (tmp_path / "run").exists()


def test_overfit_learns_its_two_samples(train: Train):
    run = train("debug=overfit", "data.image_size=32", "callbacks=default", "trainer.max_steps=150", "lr=0.01")
    assert record(run)["metrics"]["val/iou"] > 0.9


def test_profile_says_where_the_time_went(train: Train):
    run = train("trainer.profile=true")
    assert "run_training_batch" in (run / "fit-profile.txt").read_text()


@pytest.mark.quick
def test_tensorboard_holds_losses_metrics_rate_speed_pictures_and_graph(train: Train):
    run = train("+callbacks.drawn._target_=segsweep.callbacks.NetGraph")
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
    tags = events.Tags()
    table = read_metrics(run / "metrics.csv")
    names = {
        "train/loss": "1: train/loss", "val/iou": "2: val/iou", "test/iou": "3: test/iou", "lr": "1: train/lr",
        "steps_per_second": "1: train/steps_per_second", "gradient_norm": "1: train/gradient_norm",
        "epoch_seconds": "1: train/epoch_seconds",
    }  # fmt: skip
    for name, tag in names.items():
        assert tag in tags["scalars"]
        logged = [(event.step, event.value) for event in events.Scalars(tag)]
        written = table.loc[table[name].notna(), ["step", name]].to_numpy()
        np.testing.assert_allclose(logged, written, rtol=1e-6)
    assert len([name for name in tags["images"] if name.startswith("samples/")]) == 4
    assert [event.step for event in events.Images(tags["images"][0])] == [2, 4]
    assert tags["graph"]
    text = events.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0].decode()
    assert yaml.safe_load(textwrap.dedent(text)) == yaml.safe_load((run / "config.yaml").read_text())
    assert b"callbacks.drawn" in events.Tensors("typed/text_summary")[0].tensor_proto.string_val[0]


@pytest.mark.quick
def test_the_logged_gradient_norm_is_how_far_plain_sgd_moves_the_weights(train: Train):
    """Before clipping."""
    rate, every = 0.5, "trainer.log_every_n_steps=1"
    same = ["optim=sgd", f"lr={rate}", "trainer.precision=32-true", "trainer.test=false", every]
    runs = [train(*same, f"trainer.max_steps={steps}", folder=f"{steps}") for steps in (2, 3)]
    before, after = (load_run(run / "checkpoints/last.ckpt").net for run in runs)
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    moved = torch.cat([(new - old).detach().double().flatten() for old, new in pairs]).norm()
    logged = read_metrics(runs[1] / "metrics.csv").set_index("step")["gradient_norm"]
    assert logged[3] == pytest.approx(float(moved) / rate, rel=1e-3)
    clipped = train(*same, "trainer.max_steps=1", "trainer.gradient_clip_val=1e-6", folder="clipped")
    assert read_metrics(clipped / "metrics.csv")["gradient_norm"].iloc[0] == logged[1]


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.quick
def test_a_run_leaves_its_curves_and_samples_of_several_classes(train: Train):
    run = train("data.val_size=12", "data.limit_samples=12")
    for name in ("curves.png", "samples.png"):
        assert 300 < pixels(run / name).shape[1] < 1500
        assert len(np.unique(pixels(run / name).reshape(-1, 3), axis=0)) > 20
    data = build_data(yaml.safe_load((run / "config.yaml").read_text())["data"])
    batch = data.shown_batch(4)
    classes = [len(mask.unique()) for mask in data.samples("val", range(12)).mask]
    several = [index for index, number in enumerate(classes) if number > 1]
    others = [index for index, number in enumerate(classes) if number == 1]
    assert batch.indices.tolist() == sorted([*several, *others][:4])


def test_a_picture_that_cannot_be_written_fails_no_run(train: Train, tmp_path: Path):
    (tmp_path / "run/curves.png").mkdir(parents=True)
    run = train()
    assert record(run)["status"] == "completed"
    assert (run / "samples.png").is_file()
    assert "curves: not drawn" in (run / "train.log").read_text()


def test_a_checkpoint_answers_without_its_run_directory(train: Train, tmp_path: Path):
    run = train()
    moved = tmp_path / "elsewhere.ckpt"
    (run / "checkpoints/best.ckpt").rename(moved)
    loaded = load_run(moved)
    assert not loaded.net.training
    assert loaded.labels.names == ["texture 2", "texture 1"]
    image = np.random.default_rng(0).random((1, 40, 56), dtype=np.float32)
    assert loaded.predict(image).shape == (40, 56)
    probabilities = loaded.probabilities(image)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(probabilities.argmax(0), loaded.predict(image))
    np.testing.assert_array_equal(loaded.predict(image[0]), loaded.predict(image))


def test_a_run_answers_for_its_history_and_its_summary(train: Train):
    run = train("seed=2")
    loaded = load_run(run)
    assert loaded.summary.seed == 2
    assert loaded.config["seed"] == 2
    assert loaded.history["step"].tolist() == [2, 4]
    assert loaded.step == loaded.summary.best_step


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04truncated"])
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path, content: bytes):
    path = tmp_path / "some.ckpt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"some\.ckpt: ") as caught:
        load_run(path)
    assert "\n" not in str(caught.value)


@pytest.mark.quick
def test_a_checkpoint_runs_no_code_and_imports_nothing_that_it_names(train: Train, tmp_path: Path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    bomb = tmp_path / "bomb.ckpt"
    torch.save({"segsweep": Bomb()}, bomb)
    with pytest.raises(UserError, match="plain data"):
        load_run(bomb)
    content = torch.load(train() / "checkpoints/best.ckpt", weights_only=True)
    content["segsweep"]["config"]["model"]["_target_"] = "antigravity.open"
    torch.save(content, tmp_path / "stranger.ckpt")
    with pytest.raises(UserError, match=r"antigravity\.open"):
        load_run(tmp_path / "stranger.ckpt")
    assert not (tmp_path / "exploded").exists()
    assert "antigravity" not in sys.modules


def test_evaluation_gives_the_numbers_of_the_training_s_own_test(train: Train, command):
    run = train("data.limit_samples=5")
    outcome = command("evaluate.py", "run=run", "hydra.run.dir=evaluation", "accelerator=cpu")
    assert outcome.code == 0, outcome.err
    scored = json.loads((run.parent / "evaluation/evaluation.json").read_text())
    trained = {name.removeprefix("test/"): value for name, value in record(run)["metrics"].items() if "test/" in name}
    assert scored["metrics"] == trained


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_cleanly_with_a_checkpoint(tmp_path: Path, signum: int, code: int):
    arguments = [*SMALL, "hydra.run.dir=run", "trainer.max_steps=100000", "trainer.log_every_n_steps=50"]
    arguments += ["data.samples_per_epoch=4000", "data.limit_samples=null", "data.val_size=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), *arguments], cwd=tmp_path, env=environment,
                               stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "run/metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signum)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert "Traceback" not in error
    content = record(tmp_path / "run")
    assert content["status"] == "interrupted"
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == content["steps"] > 0


@pytest.mark.slow
def test_a_signal_during_the_last_validation_interrupts_too(tmp_path: Path):
    arguments = [
        *SMALL,
        "hydra.run.dir=run",
        "trainer.max_steps=2",
        "trainer.test=false",
        "data.val_size=2500",
        "data.limit_samples=2500",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), *arguments], cwd=tmp_path, env=environment,
                               stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "run/metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=200)
    assert (process.returncode, record(tmp_path / "run")["status"]) == (143, "interrupted"), error


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for the CPU needs a C++ compiler")
def test_a_compiled_net_trains_with_every_callback_and_leaves_ordinary_checkpoints(train: Train):
    run = train("trainer.compile=true", "+callbacks.drawn._target_=segsweep.callbacks.NetGraph")
    assert record(run)["status"] == "completed"
    assert set(weights(run)) == set(weights(train(folder="plain")))
    assert not any("_orig_mod" in name for name in weights(run))


def test_each_job_of_a_sweep_is_compiled_however_many_were_before(command, monkeypatch: pytest.MonkeyPatch):
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda net: compiled(net, backend="eager"))
    monkeypatch.setattr(shutil, "which", lambda name: name)
    # Otherwise a net beyond the limit would run uncompiled, after a warning.
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 6)
    few = ["callbacks.panel=null", "callbacks.confusion=null", "trainer.max_steps=1", "name=compiled"]
    outcome = command("train.py", "-m", *SMALL, *few, "trainer.compile=true", "model.channels=3,4,5,6")
    assert outcome.code == 0, outcome.out


def test_compiling_without_a_compiler_is_refused(command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    outcome = command("train.py", *SMALL, "trainer.compile=true", "hydra.run.dir=run")
    (line,) = outcome.error_lines
    assert line.startswith("error: trainer.compile=true: ")
    assert "g++ or clang++" in line


@pytest.mark.slow
def test_two_processes_train_together_and_write_one_run(train: Train, tmp_path: Path):
    arguments = [*SMALL, "trainer=ddp", "trainer.devices=2", "hydra.run.dir=run", "data.num_workers=0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(ROOT / "train.py"), *arguments], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, timeout=240)  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = record(tmp_path / "run")
    assert content["status"] == "completed"
    assert content["device"].startswith("2 x CPU")
    assert content["steps"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    alone = train(folder="alone")
    # Each process has half of every batch, so batch norms and weights differ a little.
    for name in ("val/loss", "test/loss", "train/loss_running"):
        assert content["metrics"][name] == pytest.approx(record(alone)["metrics"][name], abs=0.05)


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[None]:
    """Makes every write beyond `size` bytes of a file fail, as on a full disk, in pytest too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.quick
def test_a_full_disk_ends_a_run_in_one_line_and_leaves_no_part_of_a_file(command, tmp_path: Path):
    with small_disk(100_000):  # a checkpoint has 180 kB, everything else less than 100
        outcome = command("train.py", *SMALL, "hydra.run.dir=run", "callbacks.panel=null")
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert outcome.error_lines[0].endswith("best.ckpt: File too large")
    assert record(tmp_path / "run")["status"] == "failed"
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == []


def test_a_full_disk_that_tensorboard_meets_first_ends_in_one_line_too(command, tmp_path: Path):
    with small_disk(8_000):
        outcome = command("train.py", *SMALL, "hydra.run.dir=run")
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1, outcome.err
    assert "File too large" in outcome.error_lines[0]


def test_on_a_full_disk_train_log_loses_lines_silently(tmp_path: Path, capsys):
    log = LogFile(tmp_path / "train.log")
    line = logging.LogRecord("segsweep", logging.INFO, __file__, 1, "%s", ("long " * 1000,), None)
    with small_disk(1_000):
        log.emit(line)
        with contextlib.suppress(OSError):
            log.close()  # as logging does in the end
    assert capsys.readouterr().err == ""
    wrong = logging.LogRecord("segsweep", logging.INFO, __file__, 1, "%d", ("no number",), None)
    LogFile(tmp_path / "other.log").emit(wrong)
    assert "Logging error" in capsys.readouterr().err, "other errors are still printed"


def test_a_full_disk_leaves_the_checkpoint_that_was_there(tmp_path: Path):
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"weights": torch.ones(10)}, path)
    with small_disk(10_000), pytest.raises(OSError, match=r"last\.ckpt"):
        WholeCheckpointIO().save_checkpoint({"weights": torch.ones(10_000)}, path)
    assert torch.equal(torch.load(path, weights_only=True)["weights"], torch.ones(10))
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.slow
def test_the_texture_net_is_as_good_in_eval_mode_as_in_training_for_a_batch_and_for_one_image(train: Train):
    small = [
        "data.image_size=64",
        "data.batch_size=8",
        "data.limit_samples=320",
        "data.val_size=32",
        "data.test_size=2",
    ]
    run = load_run(train(*small, "trainer.max_steps=80", "lr=0.003", "callbacks.precise_bn.batches=16"))
    images, masks = Textures(image_size=64).make(range(32), "val")

    def iou(prediction: torch.Tensor) -> float:
        return float((prediction & (masks == 1)).sum() / (prediction | (masks == 1)).sum())

    with torch.no_grad():
        in_batches = iou(run.net(images)[:, 0] > 0)
        alone = iou(torch.cat([run.net(image[None])[:, 0] > 0 for image in images]))
        run.net.train()
        in_training = iou(torch.cat([run.net(batch)[:, 0] > 0 for batch in images.split(8)]))
    assert in_training > 0.85
    assert in_batches == pytest.approx(in_training, abs=0.015)
    assert alone == pytest.approx(in_batches, abs=1e-3)
