"""The first 100 losses of both networks equal the recorded ones, bit for bit.

python tests/test_golden.py    records them again, after an intended change
"""

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import ROOT, SMALL

from segsweep.runs import read_metrics

GOLDEN = Path(__file__).parent / "golden"
EVERY_STEP = [
    "trainer.max_steps=100", "trainer.log_every_n_steps=1", "trainer.threads=1", "callbacks.panel=null",
    "trainer.precision=32-true",
]  # fmt: skip
TRAININGS = {
    "texture_cnn": ["data.batch_size=4", "data.samples_per_epoch=400", "data.limit_samples=400", "lr=0.003"],
    "unet": [
        "experiment=rgb_demo", "data.scenes=[3,1,1]", "data.scene_size=64", "data.image_size=32", "data.batch_size=2",
        "data.samples_per_epoch=200", "data.limit_samples=null",
    ],
}  # fmt: skip


def build() -> dict[str, str]:
    """Torch and the processor with its caches: they select the kernels, which determine the last bits of a sum."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    wanted = ("model name", "cpu family", "model", "stepping", "cache size")
    found = dict(line.replace("\t", "").split(":", 1) for line in reversed(lines) if ":" in line)
    cpu = ",".join(found.get(name, "").strip() for name in wanted) or platform.processor()
    return {"torch": torch.__version__, "kernels": torch.backends.cpu.get_cpu_capability(), "cpu": cpu}


def losses(run: Path) -> list[float]:
    return read_metrics(run / "metrics.csv").dropna(subset="train/loss")["train/loss"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("net", TRAININGS)
def test_the_first_hundred_losses_are_those_recorded(train: Callable[..., Path], net: str):
    recorded = json.loads((GOLDEN / f"{net}.json").read_text())
    if recorded["build"] != build():
        pytest.skip("recorded with another torch or processor, which round differently")
    found = losses(train(*TRAININGS[net], *EVERY_STEP))
    assert len(found) == 100
    assert found == recorded["losses"]


def record() -> None:
    for net, overrides in TRAININGS.items():
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            command = [sys.executable, str(ROOT / "train.py"), *SMALL, *overrides, *EVERY_STEP, f"hydra.run.dir={run}"]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            content = {"build": build(), "losses": losses(run)}
            (GOLDEN / f"{net}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    record()
