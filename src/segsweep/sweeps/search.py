"""In which order the settings of a sweep are trained: all of them, or one axis after the other."""

from collections.abc import Sequence
from itertools import product

from segsweep.errors import UserError
from segsweep.sweeps.plan import FINAL, key_of
from segsweep.sweeps.ranking import comparison
from segsweep.sweeps.runner import SweepRunner
from segsweep.sweeps.state import Job


def grid(session: SweepRunner, choices: dict[str, list[str]], final: Sequence[str] = ()) -> None:
    """Runs every combination.

    Args:
        session: the sweep.
        choices: the overrides that each key may have.
        final: overrides of one more training with the best values, with every seed unless they name one.

    Raises:
        UserError: there is to be a final training, and every job failed, or there is no best value of an axis because it
            changes the images that are scored.
    """
    if final:
        _require_one_scoring(session, choices)
    jobs = session.run([list(combination) for combination in product(*choices.values())])
    if not final or session.stopped:
        return
    seeds = choices.pop("seed", [])
    best = [_best(session, jobs, key) if len(overrides) > 1 else overrides[0] for key, overrides in choices.items()]
    _train_finally(session, best, seeds, final)


def coordinate(session: SweepRunner, choices: dict[str, list[str]], final: Sequence[str] = ()) -> None:
    """Runs the jobs along each axis at the best values of the axes before it.

    Args:
        session: the sweep.
        choices: the overrides that each key may have, in the order of the search.
        final: as for `grid`.

    Raises:
        UserError: an axis changes the images that are scored, or every job of it failed, so there is no best value to go
            on with.
    """
    _require_one_scoring(session, choices)
    seeds = choices.pop("seed", [])
    chosen = {key: values[0] for key, values in choices.items()}
    axes = [key for key, values in choices.items() if len(values) > 1]
    replicates = [[seed] for seed in seeds] or [[]]
    for axis in axes:
        settings = [{**chosen, axis: value} for value in choices[axis]]
        asked = [[*setting.values(), *seed] for setting, seed in product(settings, replicates)]
        jobs = session.run(asked, stage=axis)
        if session.stopped:
            return
        chosen[axis] = _best(session, jobs, axis)
        print(f"best of {axis}: {chosen[axis]}", flush=True)
    if not axes:
        session.run([[*chosen.values(), *seed] for seed in replicates])
    if final and not session.stopped:
        _train_finally(session, list(chosen.values()), seeds, final)


def _require_one_scoring(session: SweepRunner, choices: dict[str, list[str]]) -> None:
    """Refuses to look for the best value of an axis whose values are scored on other images; before any training."""
    for axis, values in choices.items():
        if len(values) < 2 or key_of(axis) == "seed":
            continue
        fixed = [overrides[0] for key, overrides in choices.items() if key != axis]
        if why := session.scoring([[*fixed, value] for value in values]).why:
            raise UserError(
                f"{key_of(axis)}: cannot be searched for its best value, because {why.partition(':')[0]}; sweep it without "
                "hydra/sweeper=coordinate and hydra.sweeper.final"
            )


def _train_finally(session: SweepRunner, best: Sequence[str], seeds: Sequence[str], final: Sequence[str]) -> None:
    asked = [[*best, *seed, *final] for seed in ([[seed] for seed in seeds] or [[]])]
    jobs = session.run(asked, stage=FINAL)
    if also := [job.name for job in jobs if job.settings and job.stage != FINAL]:
        print(
            f"no final training: {'; '.join(also)} took part in the search; another seed in final= did not", flush=True
        )


def _best(session: SweepRunner, jobs: Sequence[Job], axis: str) -> str:
    """The override of `axis` in the best setting among `jobs`."""
    directories = {job.directory for job in jobs}
    table = session.results.table
    table = table[table["directory"].isin(directories)]
    compared = comparison(session.record, table)
    if compared is None:
        raise UserError(f"{axis}: no job of this axis was completed, so there is no best value to go on with")
    # A setting that lost a replicate comes behind all that have theirs.
    best = compared.table.iloc[0]
    job = next(job for job in jobs if all(_same(job.values.get(key), best[key]) for key in compared.settings))
    return next(override for override in job.overrides if key_of(override) == key_of(axis))


def _same(one: object, other: object) -> bool:
    return one == other or (one is None and other != other) or str(one) == str(other)
