"""Where decoded images are kept, and who decodes them, changes no result."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from same_runs import assert_same_run, result_of
from support import SMALL, Command

from segsweep.data import drawn
from segsweep.data.demo import write_demo_folder

TINY = [entry for entry in SMALL if entry != "debug=fast"]
TINY += ["data=folder", "data.root=scenes", "data.samples_per_epoch=6", "data.batch_size=2", "model.widths=[4,4,8]"]
TINY += ["data.tile_size=40", "data.tile_margin=4", "trainer.max_steps=7", "trainer.val_every_n_steps=4"]
TINY += ["trainer.log_every_n_steps=2"]
SOME = f"data.cache_gib={20_000 / 2**30}"
"""Room for two of four training images."""


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    write_demo_folder(tmp_path / "scenes", scenes=(4, 2, 2), size=48)
    return tmp_path / "scenes"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_every_cache_and_every_number_of_workers_gives_the_same_weights(
    command: Command, scenes: Path, tmp_path: Path, workers: int
):
    reference = command("train.py", *TINY, "data.cache=memory", "hydra.run.dir=reference")
    assert reference.code == 0, reference.err
    for number, cache in enumerate((["memory"], ["disk"], ["disk"], ["none"], ["auto"], ["auto", SOME])):
        run = f"run{number}"
        typed = [f"data.cache={cache[0]}", *cache[1:], f"data.num_workers={workers}", f"hydra.run.dir={run}"]
        outcome = command("train.py", *TINY, *typed)
        assert outcome.code == 0, outcome.err
        assert_same_run(tmp_path / "reference", tmp_path / run)
    assert "4 pairs (0.0 GiB) are decoded when they are drawn; 2 of them stay in memory" in outcome.out


@pytest.mark.slow
def test_a_run_may_be_resumed_with_another_cache(command: Command, scenes: Path, tmp_path: Path):
    outcome = command("train.py", *TINY, "data.cache=none", "trainer.max_steps=4", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    outcome = command("train.py", *TINY, "resume=run", "data.cache=memory", "data.num_workers=2")
    assert outcome.code == 0, outcome.err
    assert command("train.py", *TINY, "hydra.run.dir=reference").code == 0
    one, other = (result_of(tmp_path / run / "checkpoints/last.ckpt") for run in ("reference", "run"))
    assert one.keys() == other.keys()
    weights = [key for key in one if key.startswith("/state_dict/")]
    assert all(torch.equal(one[key], other[key]) for key in weights)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_mask_that_cannot_be_read_when_it_is_drawn_ends_the_run_with_its_name(
    command: Command, scenes: Path, monkeypatch: pytest.MonkeyPatch, workers: int
):
    monkeypatch.setattr(drawn, "TRIED", 1)  # else it is found before training
    path = scenes / "train/masks/scene_002.png"
    mask = np.array(Image.open(path).convert("RGB"))
    mask[5, 7] = (1, 2, 3)
    Image.fromarray(mask).save(path)
    outcome = command("train.py", *TINY, "data.cache=none", f"data.num_workers={workers}", "hydra.run.dir=run")
    assert outcome.code == 1
    (line,) = outcome.error_lines
    assert line.startswith("error: scenes/train/masks/scene_002.png: 1 pixel of colour #010203, which is no class")
    assert "Traceback" not in line


@pytest.mark.slow
def test_a_mistake_in_every_mask_ends_a_run_before_it_trains(command: Command, scenes: Path, tmp_path: Path):
    shutil.copy(scenes / "train/images/scene_000.png", scenes / "train/masks/scene_000.png")
    outcome = command("train.py", *TINY, "data.cache=none", "hydra.run.dir=run")
    assert outcome.code == 1
    assert "scenes/train/masks/scene_000.png: " in outcome.err
    assert not (tmp_path / "run/metrics.csv").exists()
