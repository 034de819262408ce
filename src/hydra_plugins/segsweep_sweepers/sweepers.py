"""Sweepers that keep a sweep directory: every combination, one axis after the other, or a race."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from segsweep.sweeps.runner import SweepRunner


class GridSweeper(Sweeper):
    """Trains every combination of the swept values.

    Args:
        params: axes by key, {"lr": "0.001,0.01"}; the command line wins.
        final: overrides of one more training with the best values, at the end; empty for none.
        settings_of: a sweep directory, typed as settings_of=DIR: its best settings are trained instead of all combinations.
        keep: how many of them, typed as keep=N; None takes the leader and the contenders.
    """

    name: ClassVar[str] = "grid"
    """The choice of hydra/sweeper."""
    own_axes: ClassVar[Sequence[str]] = ()
    """Axes that are swept without being typed."""

    def __init__(
        self,
        params: Mapping[str, Any] | None = None,
        final: Sequence[str] | None = None,
        settings_of: str | None = None,
        keep: int | None = None,
    ) -> None:
        self.params, self.final = dict(params or {}), list(final or [])
        self.settings_of, self.keep = settings_of, keep

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Parses the command line into axes and searches them."""
        from segsweep.sweeps.callback import report_at_end
        from segsweep.sweeps.runner import SweepRunner

        assert self.hydra_context is not None
        assert self.task_function is not None
        assert self.config is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        typed = parser.parse_overrides(arguments)
        keys = {override.get_key_element().lstrip("+") for override in typed}
        params = [f"{key}={value}" for key, value in self.params.items() if key not in keys]
        choices: dict[str, list[str]] = {}  # the overrides of each key, as typed: {"lr": ["lr=0.1", "lr=0.2"]}
        for override in [*parser.parse_overrides(params), *typed]:
            if not (key := override.get_key_element()).startswith("hydra"):
                (entries,) = BasicSweeper.split_arguments([override], None)
                choices[key] = [entry[0] for entry in entries]
        axes = [key.lstrip("+") for key, values in choices.items() if len(values) > 1]
        runner = SweepRunner(self.hydra_context, self.task_function, self.config, self.name)
        try:
            with runner.hold([*params, *arguments], [*axes, *self.own_axes]):
                self.search(runner, choices, arguments)
        finally:
            if runner.planned:
                report_at_end(runner.sweep.path)

    def search(self, runner: "SweepRunner", choices: dict[str, list[str]], typed: Sequence[str]) -> None:
        """Trains the jobs; `choices` has the overrides of each key, {"lr": ["lr=0.1", "lr=0.2"]}, `typed` the command's."""
        from segsweep.sweeps.search import grid
        from segsweep.sweeps.settings_of import join_settings

        if self.settings_of is not None:
            grid(runner, choices, joint=join_settings(runner, self.settings_of, self.keep, choices, typed))
        else:
            grid(runner, choices, self.final)


class CoordinateSweeper(GridSweeper):
    """Searches one axis after the other, in the order typed, at the best values of the axes before it.

    An axis that is not searched yet has its first value. A swept seed is no axis: every setting is trained with every
    seed, and the setting with the best mean is the best.
    """

    name = "coordinate"

    def search(self, runner: "SweepRunner", choices: dict[str, list[str]], typed: Sequence[str]) -> None:
        from segsweep.sweeps.search import coordinate

        coordinate(runner, choices, self.final)


class RaceSweeper(GridSweeper):
    """Screens every combination with one seed, and trains the best with more seeds until tests have decided.

    Args:
        params, final: see `GridSweeper`; the seeds of `params` are not used.
        keep: how many settings race; None for 4, or all if there are fewer.
        looks: after how many seeds the settings are tested.
        margin: the race ends if all settings left are within this of each other, in the objective's unit; None for never.
    """

    name = "race"
    own_axes = ("seed",)
    _SEEDS: ClassVar[str] = "seed 0 screens, and seeds 1, 2, ... up to the last of hydra.sweeper.looks race"

    def __init__(
        self,
        params: Mapping[str, Any] | None = None,
        final: Sequence[str] | None = None,
        keep: int | None = None,
        looks: Sequence[int] = (3, 5, 8),
        margin: float | None = None,
    ) -> None:
        super().__init__(params, final)
        self.plan = {"keep": keep, "looks": looks, "margin": margin}

    def sweep(self, arguments: list[str]) -> None:
        if (seed := self.params.pop("seed", None)) is not None:
            print(f"not used: the study's seed={seed}; in a race {self._SEEDS}", flush=True)
        super().sweep(arguments)

    def search(self, runner: "SweepRunner", choices: dict[str, list[str]], typed: Sequence[str]) -> None:
        from segsweep.errors import UserError
        from segsweep.sweeps.search import race

        if seed := next((values for key, values in choices.items() if key.lstrip("+") == "seed"), None):
            raise UserError(
                f"{seed[0]}: a race has seeds of its own: {self._SEEDS}; leave seed= out, or give hydra/sweeper=grid"
            )
        race(runner, choices, self.final, **self.plan)
