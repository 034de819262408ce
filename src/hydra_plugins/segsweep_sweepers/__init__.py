"""Registers our sweepers. Hydra imports this package at the start of every program, so it imports nothing heavy."""

from hydra.core.config_store import ConfigStore

from hydra_plugins.segsweep_sweepers.sweepers import CoordinateSweeper, GridSweeper

__all__ = ["CoordinateSweeper", "GridSweeper"]

_HERE = "hydra_plugins.segsweep_sweepers.sweepers"
_store = ConfigStore.instance()
_store.store(
    group="hydra/sweeper", name="grid", provider="segsweep",
    node={"_target_": f"{_HERE}.GridSweeper", "params": None, "final": None},
)  # fmt: skip
_store.store(
    group="hydra/sweeper", name="coordinate", provider="segsweep",
    node={"_target_": f"{_HERE}.CoordinateSweeper", "params": None, "final": None},
)  # fmt: skip
