"""Sweepers that keep a sweep directory: every combination, or one axis after the other."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class _SegsweepSweeper(Sweeper):
    """Parses the command line into axes; subclasses search them.

    Args:
        params: axes by key, {"lr": "0.001,0.01"}; the command line wins.
        final: overrides of one more training with the best values, at the end; empty for none.
    """

    name: str

    def __init__(self, params: Mapping[str, Any] | None = None, final: Sequence[str] | None = None) -> None:
        self.params, self.final = dict(params or {}), list(final or [])

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        from segsweep.sweeps.callback import report_at_end
        from segsweep.sweeps.runner import SweepRunner

        assert self.hydra_context is not None
        assert self.task_function is not None
        assert self.config is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        typed = parser.parse_overrides(arguments)
        keys = {override.get_key_element().lstrip("+") for override in typed}
        also = [f"{key}={value}" for key, value in self.params.items() if key not in keys]
        overrides = [*parser.parse_overrides(also), *typed]
        runner = SweepRunner(self.hydra_context, self.task_function, self.config, self.name)
        choices: dict[
            str, list[str]
        ] = {}  # the overrides of each key, in the order typed: {"lr": ["lr=0.1", "lr=0.2"]}
        for override in overrides:
            if not (key := override.get_key_element()).startswith("hydra"):
                (entries,) = BasicSweeper.split_arguments([override], None)
                choices[key] = [entry[0] for entry in entries]
        axes = [key.lstrip("+") for key, values in choices.items() if len(values) > 1]
        try:
            with runner.hold([*also, *arguments], axes):
                self._search(runner, choices)
        finally:
            if runner.planned:
                report_at_end(runner.sweep.path)

    def _search(self, runner: Any, choices: dict[str, list[str]]) -> None:
        raise NotImplementedError


class GridSweeper(_SegsweepSweeper):
    """Every combination of the swept values."""

    name = "grid"

    def _search(self, runner: Any, choices: dict[str, list[str]]) -> None:
        from segsweep.sweeps.search import grid

        grid(runner, choices, self.final)


class CoordinateSweeper(_SegsweepSweeper):
    """One axis after the other, in the order typed: each at the best values of those before it.

    An axis that is not searched yet has its first value. A swept seed is no axis: every setting is trained with every
    seed, and the setting with the best mean is the best.
    """

    name = "coordinate"

    def _search(self, runner: Any, choices: dict[str, list[str]]) -> None:
        from segsweep.sweeps.search import coordinate

        coordinate(runner, choices, self.final)
