"""Registers our sweepers. Hydra imports this package at the start of every program, so it imports nothing heavy."""

from typing import Any

from hydra.core.config_store import ConfigStore

from hydra_plugins.segsweep_sweepers.sweepers import CoordinateSweeper, GridSweeper, RaceSweeper

__all__ = ["CoordinateSweeper", "GridSweeper", "RaceSweeper"]

for _sweeper in (GridSweeper, CoordinateSweeper, RaceSweeper):
    _node: dict[str, Any] = {"_target_": f"{_sweeper.__module__}.{_sweeper.__name__}", "params": None, "final": None}
    if _sweeper is RaceSweeper:
        _node |= {"keep": None, "looks": [3, 5, 8], "margin": None}
    ConfigStore.instance().store(group="hydra/sweeper", name=_sweeper.name, provider="segsweep", node=_node)
