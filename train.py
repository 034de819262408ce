"""Trains one network, or sweeps many with -m. `python train.py --help` lists what can be set."""

import segsweep.interrupt  # noqa: F401  # first: Ctrl-C ends the other imports in one line

# isort: split
from pathlib import Path

import hydra
from omegaconf import DictConfig

from segsweep import cli


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parent / "conf"), config_name="train")
def main(config: DictConfig) -> float | None:
    return cli.train(config)


if __name__ == "__main__":
    cli.run(main)
