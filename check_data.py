"""Looks at every file of a folder before anything is trained on it. `python check_data.py --help` says more."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from segsweep import cli


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parent / "conf"), config_name="check_data")
def main(config: DictConfig) -> None:
    cli.check_data(config)


if __name__ == "__main__":
    cli.run(main)
