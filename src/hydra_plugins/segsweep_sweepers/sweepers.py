"""Sweepers that keep a sweep directory: every combination, or one axis after the other."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class _SegsweepSweeper(Sweeper):
    """Parses the command line into axes; what is done with them, subclasses say.

    Args:
        params: axes as values of a mapping, {"lr": "0.001,0.01"}; the command line wins.
        final: overrides of one more training with the best values, at the end; none where empty.
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
        session = SweepRunner(self.hydra_context, self.task_function, self.config, self.name)
        choices = self._choices(overrides)
        axes = [key.lstrip("+") for key, values in choices.items() if len(values) > 1]
        try:
            with session.begun([*also, *arguments], axes):
                self._search(session, choices)
        finally:
            if session.planned:
                report_at_end(session.sweep.path)

    @staticmethod
    def _choices(overrides: Sequence[Override]) -> dict[str, list[str]]:
        """What each key may be, as overrides, in the order typed: {"lr": ["lr=0.1", "lr=0.2"]}."""
        own = [override for override in overrides if not override.get_key_element().startswith("hydra")]
        found: dict[str, list[str]] = {}
        for override in own:
            (entries,) = BasicSweeper.split_arguments([override], None)
            found[override.get_key_element()] = [entry[0] for entry in entries]
        return found

    def _search(self, session: Any, choices: dict[str, list[str]]) -> None:
        raise NotImplementedError


class GridSweeper(_SegsweepSweeper):
    """Every combination of the swept values."""

    name = "grid"

    def _search(self, session: Any, choices: dict[str, list[str]]) -> None:
        from segsweep.sweeps.search import grid

        grid(session, choices, self.final)


class CoordinateSweeper(_SegsweepSweeper):
    """One axis after the other, in the order typed: each at the best values of those before it.

    An axis that is not searched yet has its first value. A swept seed is no axis: every setting is trained with every
    seed, and the best is the one with the best mean.
    """

    name = "coordinate"

    def _search(self, session: Any, choices: dict[str, list[str]]) -> None:
        from segsweep.sweeps.search import coordinate

        coordinate(session, choices, self.final)
