"""The search along one axis after the other."""

from collections.abc import Sequence
from itertools import product

from segsweep.errors import UserError
from segsweep.sweeps.ranking import comparison, summary
from segsweep.sweeps.record import Job
from segsweep.sweeps.session import SweepSession


def search(session: SweepSession, choices: dict[str, list[str]], final: Sequence[str] = ()) -> None:
    """Runs the jobs along each axis at the best values of the axes before it.

    Args:
        session: the sweep.
        choices: the overrides that each key may have, in the order of the search.
        final: overrides of one more training with the best values, with every seed unless they name one.

    Raises:
        UserError: every job of an axis failed, so there is no best value to go on with.
    """
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
        session.run([[*chosen.values(), *seed, *final] for seed in replicates], stage="final")


def _best(session: SweepSession, jobs: Sequence[Job], axis: str) -> str:
    directories = {job.directory for job in jobs}
    table = summary(session.sweep, session.record)
    table = table[table["directory"].isin(directories)]
    compared = comparison(session.record, table)
    if compared is None:
        raise UserError(f"{axis}: no job of this axis was completed, so there is no best value to go on with")
    # A setting that lost a replicate comes behind all that have theirs.
    best = compared.table.iloc[0]
    job = next(job for job in jobs if all(_same(job.values.get(key), best[key]) for key in compared.settings))
    key = axis.lstrip("+")
    return next(override for override in job.overrides if override.lstrip("+").split("=", 1)[0] == key)


def _same(one: object, other: object) -> bool:
    return one == other or (one is None and other != other) or str(one) == str(other)
