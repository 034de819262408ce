"""Registers our sweepers. Hydra imports this package at the start of every program, so it imports nothing heavy."""

from hydra.core.config_store import ConfigStore

from hydra_plugins.segsweep_sweepers.sweepers import CoordinateSweeper, GridSweeper

__all__ = ["CoordinateSweeper", "GridSweeper"]

for _sweeper in (GridSweeper, CoordinateSweeper):
    _node = {"_target_": f"{_sweeper.__module__}.{_sweeper.__name__}", "params": None, "final": None}
    ConfigStore.instance().store(group="hydra/sweeper", name=_sweeper.name, provider="segsweep", node=_node)
