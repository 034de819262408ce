"""The order in which a sweep trains its settings: all combinations, or one axis after the other."""

from collections.abc import Sequence
from itertools import product

from segsweep.errors import UserError
from segsweep.sweeps.plan import key_of
from segsweep.sweeps.results import comparison
from segsweep.sweeps.runner import SweepRunner
from segsweep.sweeps.state import FINAL, REPLICATES, Job


def grid(
    runner: SweepRunner,
    choices: dict[str, list[str]],
    final: Sequence[str] = (),
    joint: Sequence[Sequence[str]] = ((),),
) -> None:
    """Trains every combination.

    Args:
        runner: of the sweep.
        choices: the overrides of each key: {"lr": ["lr=0.1", "lr=0.2"]}.
        final: overrides of one more training with the best values; it runs with every seed and fold unless it names one.
        joint: the overrides of each setting of a joint axis, see `segsweep.sweeps.settings_of`.

    Raises:
        UserError: a final training is asked for, but an axis has no best value: it changes the images that are scored, or
            all its jobs failed.
    """
    if final:
        _require_one_scoring(runner, choices)
    jobs = runner.run([[*setting, *values] for setting, values in product(joint, product(*choices.values()))])
    if not final or runner.stopped:
        return
    replicates = _pop_replicates(choices)
    best = [_best(runner, jobs, key) if len(overrides) > 1 else overrides[0] for key, overrides in choices.items()]
    _train_best_again(runner, best, replicates, final)


def coordinate(runner: SweepRunner, choices: dict[str, list[str]], final: Sequence[str] = ()) -> None:
    """Trains the values of one axis after the other, at the best values of the axes before it.

    Args:
        runner: of the sweep.
        choices: the overrides of each key, in the order of the search.
        final: see `grid`.

    Raises:
        UserError: an axis has no best value: it changes the images that are scored, or all its jobs failed.
    """
    _require_one_scoring(runner, choices)
    replicates = _pop_replicates(choices)
    chosen = {key: values[0] for key, values in choices.items()}
    axes = [key for key, values in choices.items() if len(values) > 1]
    for axis in axes:
        settings = [{**chosen, axis: value} for value in choices[axis]]
        asked = [[*setting.values(), *replicate] for setting, replicate in product(settings, replicates)]
        jobs = runner.run(asked, stage=axis)
        if runner.stopped:
            return
        chosen[axis] = _best(runner, jobs, axis)
        print(f"best of {axis}: {chosen[axis]}", flush=True)
    if not axes:
        runner.run([[*chosen.values(), *replicate] for replicate in replicates])
    if final and not runner.stopped:
        _train_best_again(runner, list(chosen.values()), replicates, final)


def _pop_replicates(choices: dict[str, list[str]]) -> list[list[str]]:
    """Takes seeds and folds out of `choices`: the overrides of each replicate that every setting is trained with."""
    return [list(each) for each in product(*(choices.pop(key) for key in REPLICATES if key in choices))]


def _require_one_scoring(runner: SweepRunner, choices: dict[str, list[str]]) -> None:
    """Refuses, before any training, an axis that changes the images that are scored: such an axis has no best value."""
    for axis, values in choices.items():
        if len(values) < 2 or key_of(axis) in REPLICATES:
            continue
        fixed = [overrides[0] for key, overrides in choices.items() if key != axis]
        if why := runner.scoring([[*fixed, value] for value in values]).why:
            raise UserError(
                f"{key_of(axis)}: has no best value to search for, because {why.partition(':')[0]}; sweep it without "
                "hydra/sweeper=coordinate and hydra.sweeper.final"
            )


def _train_best_again(
    runner: SweepRunner, best: Sequence[str], replicates: Sequence[Sequence[str]], final: Sequence[str]
) -> None:
    asked = [[*best, *replicate, *final] for replicate in replicates]
    jobs = runner.run(asked, stage=FINAL)
    if searched := [job.name for job in jobs if job.settings and job.stage != FINAL]:
        print(
            f"no final training of {'; '.join(searched)}: the search has trained that already; "
            "give hydra.sweeper.final another seed",
            flush=True,
        )


def _best(runner: SweepRunner, jobs: Sequence[Job], axis: str) -> str:
    """The override of `axis` in the best setting among `jobs`."""
    table = runner.results.table
    compared = comparison(runner.record, table[table["directory"].isin({job.directory for job in jobs})])
    if compared is None:
        raise UserError(f"{axis}: no job of this axis was completed, so it has no best value")
    # Not `compared.best`, which is None if every setting lost a replicate; such settings are ranked last.
    best = compared.table.iloc[0]

    def is_best(job: Job) -> bool:
        pairs = [(job.values.get(key), best[key]) for key in compared.settings]
        # The table has NaN for a job's None, and may have another type than the job: 1.0 for 1.
        return all(one == other or (one is None and other != other) or str(one) == str(other) for one, other in pairs)

    job = next(filter(is_best, jobs))
    return next(override for override in job.overrides if key_of(override) == key_of(axis))
