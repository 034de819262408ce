"""Looks at a sweep. Each verdict spends a part of the 5 % of sweeps in which the best setting may be ruled out.

Without this, training more seeds until something is ruled out would raise the 5 % to 10 % after three looks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from segsweep.sweeps.state import ENDED, SweepRecord
from segsweep.sweeps.statistics import LEVEL

FIRST_LEVEL = 0.04


@dataclass(frozen=True)
class Look:
    """The verdict over certain jobs.

    Args:
        number: 1 for the first look.
        level: of its tests.
        completed, failed: the numbers of the jobs that had ended so.
    """

    number: int
    level: float
    completed: frozenset[int]
    failed: frozenset[int]

    def to_dict(self) -> dict[str, Any]:
        """The entry in sweep.json; job numbers are ranges: [[0, 26]]."""
        return {"level": self.level, "completed": ranges(self.completed), "failed": ranges(self.failed)}


def last_look(record: SweepRecord) -> Look | None:
    """The look that sweep.json stored last; None before the first."""
    looks = _looks(record)
    return looks[-1] if looks else None


def look_now(record: SweepRecord) -> Look | None:
    """The look that a report takes now, by the statuses of the jobs.

    It is a new one if all jobs that were asked for have ended, and no look was over the same jobs with the same statuses.
    Else it is the last one; None before the first, and for a race, whose plan fixes its looks.
    """
    if record.race is not None:
        return None
    known, jobs = _looks(record), record.compared_jobs
    # An interrupted trial of a foreign sweeper, such as Optuna's, is not tried again.
    waiting = {"other": ("pending", "running")}
    asked = (job for job in jobs if not record.asked or job.key in record.asked)
    if any(job.status in waiting.get(job.stage or "", ("pending", "running", "interrupted")) for job in asked):
        return last_look(record)
    completed, failed = (frozenset(job.number for job in jobs if job.status == status) for status in ENDED)
    same = (look for look in known if (look.completed, look.failed) == (completed, failed))
    return next(same, Look(len(known) + 1, next_level(look.level for look in known), completed, failed))


def _looks(record: SweepRecord) -> list[Look]:
    return [
        Look(number, entry["level"], _numbers(entry["completed"]), _numbers(entry["failed"]))
        for number, entry in enumerate(record.looks, start=1)
    ]


def next_level(levels: Iterable[float]) -> float:
    """The level of the next look: 0.04, then half of what is left of 0.05, so all looks together stay below 0.05."""
    spent = sum(levels)
    return (LEVEL - spent) / 2 if spent else FIRST_LEVEL


def ranges(numbers: Iterable[int]) -> list[list[int]]:
    """First and last of each run of consecutive numbers: {0, 1, 2, 5} gives [[0, 2], [5, 5]]."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


def _numbers(found: list[list[int]]) -> frozenset[int]:
    return frozenset(number for first, last in found for number in range(first, last + 1))
