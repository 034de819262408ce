"""Runs trained in a second, for tests that evaluate, predict or export them."""

from pathlib import Path

from support import SMALL, Command

from segsweep.data.demo import write_demo_folder

FOLDER_RUN = [
    *(entry for entry in SMALL if entry != "debug=fast"), "data=folder", "data.root=scenes", "data.image_size=32",
    "data.samples_per_epoch=4", "data.batch_size=2", "trainer.max_steps=4", "trainer.log_every_n_steps=2",
    "model.widths=[4,4,8]",
]  # fmt: skip


def train_on_scenes(command: Command, tmp_path: Path, *overrides: str, run: str = "run") -> Path:
    """Trains a run of six classes on `scenes`, which is made if missing; returns the run directory."""
    if not (tmp_path / "scenes").exists():
        write_demo_folder(tmp_path / "scenes", scenes=(3, 2, 3), size=48)
    outcome = command("train.py", *FOLDER_RUN, f"hydra.run.dir={run}", *overrides)
    assert outcome.code == 0, outcome.err
    return tmp_path / run
