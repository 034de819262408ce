"""The order in which a sweep trains its settings: all combinations, one axis after the other, or a race."""

import shlex
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from segsweep.console import hydra_value, quoted, shell_word
from segsweep.errors import UserError
from segsweep.sweeps.grouping import Key, setting_key
from segsweep.sweeps.plan import key_of
from segsweep.sweeps.race import SCREENING_SEED, planned
from segsweep.sweeps.ranking import values_key
from segsweep.sweeps.report_text import setting_name
from segsweep.sweeps.results import comparison
from segsweep.sweeps.runner import SweepRunner
from segsweep.sweeps.state import FINAL, FOLD, REPLICATES, Job, Race, is_diverged


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


def race(runner: SweepRunner, choices: dict[str, list[str]], final: Sequence[str] = (), **plan: Any) -> None:
    """Trains every combination with one seed, keeps the best, and trains these with other seeds until the looks decide.

    Args:
        runner: of the sweep.
        choices: the overrides of each key, without the seed.
        final: see `grid`; its seed is the first that did not race, unless it names one.
        plan: `keep`, `looks` and `margin` of `planned`.

    Raises:
        UserError: the plan is wrong, an axis changes the images that are scored, the command asks for other settings than
            those of the cut, or the screening leaves fewer than two settings.
    """
    if any(key_of(values[0]) == FOLD for values in choices.values()):
        raise UserError(f"{FOLD}: a race compares seeds, not folds; leave it out, or give hydra/sweeper=grid")
    combinations = [list(combination) for combination in product(*choices.values())]
    jobs = runner.composed([[*overrides, f"seed={SCREENING_SEED}"] for overrides in combinations])
    axes = runner.record.settings_axes
    overrides = {values_key(runner.record, job, axes): typed for job, typed in zip(jobs, combinations, strict=True)}
    wanted = planned(**plan, settings=len(overrides))
    known = runner.record.race
    if known is not None and known.kept:
        _require_same_race(runner, known, wanted, set(overrides))
    else:
        _require_one_scoring(runner, choices)
        known = runner.record.race = wanted
        if wanted.keep < len(overrides):
            _try_twice(runner, [[*typed, f"seed={SCREENING_SEED}"] for typed in overrides.values()], "screening")
            if runner.stopped:
                return
        _cut(runner, {values_key(runner.record, job, axes): job for job in jobs})
    left = [setting_key(values, axes) for values in known.kept]
    for number, seeds in enumerate(known.looks, start=1):
        asked = [[*overrides[key], f"seed={SCREENING_SEED + seed}"] for key in left for seed in range(1, seeds + 1)]
        _try_twice(runner, asked, f"look {number}")
        if runner.stopped:
            return
        course = runner.results.course
        assert course is not None
        look = course.looks[number - 1]
        print(look.line, flush=True)
        if look.over:
            break
        left = [key for key in left if key in look.left]
    if final and (compared := runner.results.compared) is not None and compared.best is not None:
        best = overrides[setting_key(compared.best, axes)]
        _train_best_again(runner, best, [[f"seed={SCREENING_SEED + known.looks[-1] + 1}"]], final)


def _require_same_race(runner: SweepRunner, known: Race, wanted: Race, asked: set[tuple[Key, ...]]) -> None:
    """Refuses a command that changes a race after its cut."""
    name = runner.record.name or runner.sweep.path
    again = f"python train.py -m {shlex.join(runner.sweep.read().overrides)}"
    axes = runner.record.settings_axes
    settings = [*known.kept, *known.screened_out]
    if any(values.keys() != set(axes) for values in settings) or {setting_key(v, axes) for v in settings} != asked:
        raise UserError(
            f"{name}: this race is cut, so its settings are final; {again} continues it, another name= starts another race"
        )
    for key in ("keep", "looks", "margin"):
        if (one := getattr(known, key)) != getattr(wanted, key):
            typed = shell_word(quoted(f"hydra.sweeper.{key}", getattr(wanted, key)))
            raise UserError(
                f"{typed}: {name} is cut with {key}={hydra_value(one)}, and that is final; {again} continues it"
            )


def _cut(runner: SweepRunner, settings: Mapping[tuple[Key, ...], Job]) -> None:
    """Chooses the settings that race: the best of the screening, or all if there was none."""
    record, race = runner.record, runner.record.race
    assert race is not None
    values = {key: {axis: record.value_of(job, axis) for axis in record.settings_axes} for key, job in settings.items()}
    kept = list(values)
    if race.keep < len(values):
        compared = runner.results.compared
        rows = {} if compared is None else compared.by_setting()
        kept = [key for key, row in rows.items() if key in values and row["n"] and not row["missing"]][: race.keep]
        if len(kept) < 2:
            raise UserError(
                f"{len(kept)} of {len(values)} settings completed the screening, so there is no race; summary.md has the "
                "reasons, and the same command with the same name= tries again"
            )
        names = "; ".join(setting_name(values[key], record.settings_axes) for key in kept)
        print(f"screening with seed {SCREENING_SEED}: {len(kept)} of {len(values)} settings race: {names}", flush=True)
    race.kept = [values[key] for key in kept]
    race.screened_out = [values[key] for key in values if key not in kept]


def _try_twice(runner: SweepRunner, asked: Sequence[Sequence[str]], stage: str) -> None:
    """Trains jobs of a race, and tries those that failed once more. A job that diverged would only diverge again."""
    jobs = runner.run(asked, stage)
    failed = [job for job in jobs if job.status == "failed" and job.settings and not is_diverged(job.error)]
    if failed and not runner.stopped:
        print(f"trying again what failed: {'; '.join(job.name for job in failed)}", flush=True)
        runner.run([job.overrides for job in failed], stage)


def _require_one_scoring(runner: SweepRunner, choices: dict[str, list[str]]) -> None:
    """Refuses, before any training, an axis that changes the images that are scored: such an axis has no best value."""
    for axis, values in choices.items():
        if len(values) < 2 or key_of(axis) in REPLICATES:
            continue
        fixed = [overrides[0] for key, overrides in choices.items() if key != axis]
        if why := runner.scoring([[*fixed, value] for value in values]).why:
            raise UserError(
                f"{key_of(axis)}: has no best value to search for, because {why.partition(':')[0]}; sweep it with "
                "hydra/sweeper=grid, without hydra.sweeper.final"
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
