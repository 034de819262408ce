"""What to train after a sweep: a line to paste, and about how many seeds would decide between the settings left."""

import shlex
from dataclasses import dataclass

import numpy as np
import pandas as pd

from segsweep.console import hydra_argument, relative, shell_word
from segsweep.sweeps.grouping import Key, entry_key, setting_key
from segsweep.sweeps.looks import next_level
from segsweep.sweeps.plan import key_of, with_interpolations
from segsweep.sweeps.race import KEEP, SCREENING_SEED
from segsweep.sweeps.ranking import Comparison, values_key
from segsweep.sweeps.report_text import setting_name
from segsweep.sweeps.results import Results
from segsweep.sweeps.scale import Scale
from segsweep.sweeps.statistics import MOST_SEEDS, seeds_to_decide

FRESH = 5
"""How many seeds to train them with."""
_LISTED = 10
"""More seeds than this are typed as a range."""
_AFFORDABLE = 20
"""A contender that needs more seeds than this is left aside if another one needs fewer."""
_LARGEST_SEED = (1 << 32) - 1


@dataclass(frozen=True)
class NextTraining:
    """What to train next.

    Args:
        why: a sentence; "" if the verdict says it.
        command: a line to paste into a shell; None if no number of seeds that anybody would train is enough.
    """

    why: str
    command: str | None


def next_training(results: Results) -> NextTraining | None:
    """What to train after the verdict of a report; None if nothing follows from it.

    After one seed: the best settings with other seeds. After several: the leader and the contenders in a sweep of their
    own, with about as many new seeds as decide between them. If only the leader is left, the leader: for its number.
    """
    record, compared = results.record, results.compared
    only_seeds = set(record.axes) <= {*record.settings_axes, "seed"}
    if compared is None or not compared.tested or compared.parts or not only_seeds or compared.compared < 2:
        return None
    if (course := results.course) is not None and not (course.looks and course.looks[-1].over):
        return None  # the same command continues the race
    if compared.replicates == 1:
        keep = min(KEEP, int((compared.table["n"] > 0).sum()))
        return NextTraining("", _command(results, FRESH, keep))
    taken = compared.table[compared.table["standing"].isin(["leader", "contender"])]
    if taken["standing"].tolist() == ["leader"]:
        why = "To report a number, train the leader again: the best of many is partly luck on these seeds."
        return NextTraining(why, _command(results, FRESH))
    if "leader" not in set(taken["standing"]):
        return None
    needed = _seeds_needed(results, compared, taken)
    names = {place: setting_name(row, compared.settings) for place, row in taken.iterrows()}
    about = "; ".join(f"{number or f'more than {MOST_SEEDS}'} for {names[place]}" for place, number in needed.items())
    why = (
        "In a new sweep of the leader and the contenders, about so many seeds would decide (in 80 % of cases, if the "
        f"differences are as they look now): {about}."
    )
    if not (known := sorted(number for number in needed.values() if number is not None)):
        return NextTraining(why, None)
    return NextTraining(why, _command(results, max((n for n in known if n <= _AFFORDABLE), default=known[0])))


def _seeds_needed(results: Results, compared: Comparison, taken: pd.DataFrame) -> "dict[object, int | None]":
    """By the index of each contender's row: how many seeds would rule it out in a new sweep of the rows in `taken`."""
    record, look = results.record, results.look
    scores: dict[tuple[Key, ...], dict[Key, float]] = {}
    for job in record.compared_jobs:
        # In a race the seeds of the screening have picked the settings, so they do not count.
        raced = job.status == "completed" and record.value_of(job, "seed") != SCREENING_SEED
        counts = raced if look is None else job.number in look.completed
        run = results.runs.get(job.directory)  # None if its folder was removed since
        if counts and run is not None and (value := run.objective.value) is not None:
            seeds = scores.setdefault(values_key(record, job, compared.settings), {})
            seeds[entry_key(record.value_of(job, "seed"))] = value
    scale = Scale(compared.scale, results.pixels)
    sign, level = (1 if compared.mode == "max" else -1), next_level(()) / (len(taken) - 1)
    leader, *contenders = ((place, scores[setting_key(row, compared.settings)]) for place, row in taken.iterrows())
    needed: dict[object, int | None] = {}
    for place, own in contenders:
        common = sorted(own.keys() & leader[1].keys())
        best, other = (scale.forward([values[seed] for seed in common]) for values in (leader[1], own))
        differences = sign * (best - other)
        needed[place] = seeds_to_decide(float(differences.mean()), float(np.std(differences, ddof=1)), level)
    return needed


def _command(results: Results, number: int, keep: int | None = None) -> str:
    """The line that trains settings of the sweep with seeds that no job of it has had.

    Args:
        results: of the sweep.
        number: how many seeds.
        keep: how many settings; None takes the leader and the contenders.
    """
    record = results.record
    used = {value for job in record.jobs if isinstance(value := record.value_of(job, "seed"), int)}
    # Above all used ones: a sweep that took its settings from another has no smaller seed than that one.
    first = max(used, default=-1) + 1
    if first + number - 1 > _LARGEST_SEED:
        first = next(start for start in range(_LARGEST_SEED) if not used & set(range(start, start + number)))
    last = first + number
    seeds = ",".join(map(str, range(first, last))) if number <= _LISTED else f"range({first},{last})"
    code = {each: None for job in record.jobs for each in job.overrides if key_of(each) == "code"}
    words = [hydra_argument("settings_of", relative(results.sweep.path)), *([f"keep={keep}"] if keep else [])]
    words += [shell_word(word) for word in [*list(code)[:1], *with_interpolations(record)]]
    return f"python train.py -m {' '.join(words)} {shlex.quote(f'seed={seeds}')}"
