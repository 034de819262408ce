"""A race: settings picked with one seed get fresh seeds, and are dropped at looks, until the tests have decided.

A look is a function of the values alone, and the plan fixes its level and correction. So a race that was interrupted goes
on as if it had not been, and a look that a failed job joins later spends nothing more of the level.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from segsweep.errors import UserError
from segsweep.sweeps.grouping import UNFINISHED, Key, setting_key
from segsweep.sweeps.ranking import Comparison, Mode, compare
from segsweep.sweeps.report_text import setting_name
from segsweep.sweeps.scale import PIXELS, ScaleName
from segsweep.sweeps.state import Race, rising
from segsweep.sweeps.statistics import LEVEL, equivalent

SCREENING_SEED = 0
"""Picks the settings that race. They race with seeds 1, 2, ..., which had no part in picking them."""
KEEP = 4
"""How many settings go on after one seed, if the user does not say."""


@dataclass(frozen=True)
class RaceLook:
    """What a look decided.

    Args:
        number: 1 for the first look.
        seeds: the settings have seeds 1 to this.
        compared: the comparison of the settings that raced up to here. Its table has a column `out_at` more, which names
            the look for those that leave.
        left: the sort keys of the settings that stay.
        equivalent: whether these are within the margin of each other.
        over: whether the race ends here.
    """

    number: int
    seeds: int
    compared: Comparison
    left: frozenset[tuple[Key, ...]]
    equivalent: bool
    over: bool

    @property
    def gone(self) -> pd.DataFrame:
        """The rows of the settings that leave."""
        return self.compared.table[self.compared.table["out_at"] != ""]

    @property
    def line(self) -> str:
        """For the terminal: "look 1 over seeds 1 to 3: ruled out lr=0.1; 3 settings left"."""
        lost = self.gone["missing"] != ""
        parts = [] if len(self.gone) else ["nothing ruled out"]
        for what, rows in (("ruled out", self.gone[~lost]), ("lost a replicate:", self.gone[lost])):
            if len(rows):
                names = (setting_name(row, self.compared.settings) for _, row in rows.iterrows())
                parts.append(f"{what} {'; '.join(names)}")
        parts.append(f"{len(self.left)} setting{'s' if len(self.left) != 1 else ''} left")
        end = ", equivalent" if self.equivalent else ""
        return f"look {self.number} over seeds 1 to {self.seeds}: {'; '.join(parts)}{end}"


@dataclass(frozen=True)
class Course:
    """How a race went so far.

    Args:
        looks: those for which all jobs have ended.
        compared: all settings: those of the last look, then those that left earlier, then those screened out. Column
            `out_at` says where a setting left: "look 1" or "screening"; "" if it did not. The difference of a setting that
            left is to the leader of that look. None before a job is completed.
    """

    looks: tuple[RaceLook, ...]
    compared: Comparison | None


def planned(keep: Any, looks: Any, margin: Any, settings: int) -> Race:
    """The plan of a race between so many settings, from the keys of hydra.sweeper.

    Raises:
        UserError: a value is wrong.
    """

    def is_count(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    if settings < 2:
        raise UserError(
            "hydra/sweeper=race: there is one setting only; sweep two values or more, such as lr=0.001,0.01"
        )
    if keep is not None and (not is_count(keep) or not 2 <= keep <= settings):
        raise UserError(
            f"hydra.sweeper.keep={keep}: must be from 2 to the number of settings, {settings}; give "
            f"hydra.sweeper.keep={min(KEEP, settings)}"
        )
    if not rising(looks):
        shown = str(looks).replace(" ", "")
        raise UserError(
            f"hydra.sweeper.looks={shown}: must be rising numbers of seeds, from 2 on; give 'hydra.sweeper.looks=[3,5,8]'"
        )
    is_number = isinstance(margin, int | float) and not isinstance(margin, bool)
    if margin is not None and not (is_number and 0 <= margin < math.inf):
        raise UserError(
            f"hydra.sweeper.margin={margin}: must be 0 or more, in the objective's unit; give hydra.sweeper.margin=0.002"
        )
    return Race(min(KEEP, settings) if keep is None else keep, list(looks), None if margin is None else float(margin))


def level_of(race: Race) -> float:
    """The level of the tests at each look. All looks together have 5 %; with a margin, equivalence takes half of it."""
    return LEVEL / len(race.looks) / (1 if race.margin is None else 2)


def follow(
    jobs: pd.DataFrame,
    settings: Sequence[str],
    race: Race,
    *,
    name: str,
    mode: Mode,
    scale: ScaleName = "raw",
    pixels: int = PIXELS,
) -> Course:
    """Takes the looks for which all jobs have ended.

    Args:
        jobs: a row per job, in any order, with the columns of `settings`, `seed`, `objective` and `status`.
        settings: the swept columns without the seed.
        race: the plan, with the settings that were kept.
        name, mode, scale, pixels: see `compare`.
    """
    options: dict[str, Any] = {"name": name, "mode": mode, "scale": scale, "pixels": pixels}
    keys = [setting_key(row, settings) for _, row in jobs.iterrows()]
    ended, completed = ~jobs["status"].isin(UNFINISHED), jobs["status"] == "completed"
    left, looks = frozenset(setting_key(values, settings) for values in race.kept), list[RaceLook]()
    kept = np.array([key in left for key in keys], dtype=bool)
    for number, seeds in enumerate(race.looks, start=1):
        here = jobs["seed"].between(SCREENING_SEED + 1, seeds) & np.array([key in left for key in keys])
        if (here & ended).sum() < len(left) * seeds:
            break
        looks.append(look_at(jobs[here], settings, race, number, options))
        left = looks[-1].left
        if looks[-1].over:
            break
    if not completed.any():
        return Course(tuple(looks), None)
    screening = jobs["seed"] == SCREENING_SEED
    if looks:
        later = int((kept & ended & (jobs["seed"] > looks[-1].seeds)).sum())
        now = looks[-1].compared.at_look(looks[-1].number, later)
    else:
        racing = kept & ~screening
        now = compare(jobs[racing if (racing & completed).any() else kept], settings, test=False, **options)
        now.table["out_at"] = ""
    tables = [now.table, *(look.gone for look in looks[-2::-1])]
    if (out := ~kept & screening).any():
        screened = compare(jobs[out], settings, test=False, **options).table
        tables.append(screened.assign(difference=np.nan, out_at="screening"))
    table = pd.concat(tables, ignore_index=True)
    return Course(tuple(looks), replace(now, table=table, notes=tuple(remarks(race, looks, table, name, ended.sum()))))


def look_at(
    jobs: pd.DataFrame, settings: Sequence[str], race: Race, number: int, options: Mapping[str, Any]
) -> RaceLook:
    """Tests the settings that still race.

    A setting that lost a replicate is not tested, and leaves. The tests are corrected for all settings that were kept, also
    when some have left: which of them did depends on the values.

    Args:
        jobs: of these settings, with the seeds up to this look; all have ended.
        settings: the swept columns without the seed.
        race: the plan.
        number: of the look.
        options: the keywords `name`, `mode`, `scale` and `pixels` of `compare`.
    """
    k, seeds, level = len(race.kept), race.looks[number - 1], level_of(race)
    scores: dict[tuple[Key, ...], list[float]] = {}
    for _, job in jobs.sort_values("seed").iterrows():
        if job["status"] == "completed" and math.isfinite(job["objective"]):
            scores.setdefault(setting_key(job, settings), []).append(job["objective"])
    # `compare` corrects for the settings that it tests. With a part of the level it corrects for all k.
    part = max(sum(len(own) == seeds for own in scores.values()) - 1, 0) / (k - 1)
    compared = compare(jobs, settings, level=level * part, **options)
    table = compared.table
    if part:
        table["p_best"] = (table["p_best"] / part).clip(upper=1.0)
    # "Worse than the leader" would need a correction for the pairs that earlier looks have taken out.
    table["p"] = np.nan
    table["verdict"] = ["best" if verdict == "best" else "no statement" for verdict in table["verdict"]]
    leaves = (table["standing"] == "ruled out") | (table["missing"] != "")
    table["out_at"] = np.where(leaves, f"look {number}", "")
    left = [setting_key(row, settings) for _, row in table[~leaves].iterrows()]
    same = False
    if race.margin is not None and len(left) > 1:
        values = np.array([scores[key] for key in left])
        same = equivalent(values, race.margin, level, pairs=k * (k - 1) // 2)
    over = len(left) < 2 or same or number == len(race.looks)
    compared = replace(compared, level=level, corrected_for=k)
    return RaceLook(number, seeds, compared, frozenset(left), same, over)


def remarks(race: Race, looks: Sequence[RaceLook], table: pd.DataFrame, name: str, spent: int) -> list[str]:
    """Sentences about a race: how sure it is, whether the settings left are equivalent, what it has cost.

    Args:
        race: the plan.
        looks: so far.
        table: of all settings.
        name: of the objective.
        spent: jobs that have ended.
    """
    if not looks:
        return []
    last, k = looks[-1], len(race.kept)
    screened = "; the screening by one seed has no such bound" if len(race.kept) < len(table) else ""
    share = level_of(race) * len(race.looks) * 100
    lines = [
        f"In at most {share:g} % of such races, the best of the {k} settings kept is ruled out at a look{screened}."
    ]
    if race.margin is not None and len(last.left) > 1:
        unit = f"{race.margin:g} of each other in {name}"
        lines.append(
            f"Equivalent: the settings left are within {unit} (one-sided confidence bounds, corrected for "
            f"{k * (k - 1) // 2} pairs; wrong in at most {share:g} % of such races)."
            if last.equivalent
            else f"Not shown: that the settings left are within {unit}."
        )
    if not last.over:
        lines.append(
            f"The race is not over: {len(last.left)} settings go on to {race.looks[last.number]} seeds; the same command "
            "trains them."
        )
    whole = len(table) * last.seeds
    lines.append(
        f"Spent: {spent} trainings; all {len(table)} settings with {last.seeds} seeds would have taken {whole}."
    )
    return lines
