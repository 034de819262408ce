"""The processes of all combinations of speed settings, their turns, and what was measured of them.

Each combination trains in processes of its own, so its peak memory and its compiled code are its own. All take turns, round
by round: what else the machine does falls on all. A ratio compares turns of the same round.
"""

import copy
import dataclasses
import logging
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segsweep.errors import UserError
from segsweep.speed.worker import Worker

log = logging.getLogger(__name__)

NOISE = 1.03
"""A combination must be this many times as fast as the given settings to be recommended."""
NEAR = 1e-2
"""Largest relative difference of the loss at which a combination is recommended."""
HOPELESS = 0.5
"""A combination that is slower than this fraction of the fastest takes no turns after its first steps."""
TURN_SECONDS = 0.5
ROUNDS, FEWEST_ROUNDS = 5, 2
STAGE_SECONDS = 25.0
"""No round begins later than this after the first one, beyond the fewest."""
_FIRST_STEPS = 2


@dataclass(frozen=True, kw_only=True)
class Combination:
    """Settings that change the speed of a training; `threads` is of each job, `batch_size` as configured."""

    precision: str
    channels_last: bool
    compile: bool
    threads: int
    batch_size: int
    jobs: int = 1

    def __str__(self) -> str:
        flags = " channels_last" * self.channels_last + " compile" * self.compile
        jobs = f"{self.jobs} jobs of " if self.jobs > 1 else ""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.precision}{flags}, {jobs}{threads}, batch {self.batch_size}"

    @property
    def settings(self) -> dict[str, Any]:
        """Its values by the key to type; without the jobs."""
        values = dataclasses.asdict(self)
        keys = {f"trainer.{name}": values[name] for name in ("precision", "channels_last", "compile", "threads")}
        return keys | {"data.batch_size": self.batch_size}

    def changes(self, given: "Combination") -> dict[str, Any]:
        """The settings that differ from the given ones."""
        return {key: value for key, value in self.settings.items() if value != given.settings[key]}


@dataclass(kw_only=True)
class Row:
    """What was measured of a combination. `speeds` are steps/s of all its jobs, one of each round."""

    combination: Combination
    first_step_seconds: float | None = None
    first_speed: float | None = None
    """steps/s in the first steps."""
    speeds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    """Each of `speeds`, divided by that of the given settings in the same round."""
    losses: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    loss_difference: float | None = None
    """Largest relative difference of the loss from the reference, over the steps that are compared."""
    note: str | None = None
    """Why it took no turns."""

    @property
    def speed(self) -> float | None:
        return statistics.median(self.speeds) if self.speeds else self.first_speed

    @property
    def ratio(self) -> float:
        """Median ratio to the given settings; 0 if it took no turns."""
        return statistics.median(self.ratios) if self.ratios else 0.0


class GivenFailedError(UserError):
    """The given settings failed after their first turn, perhaps because the other processes hold the memory."""


class Bench:
    """Keeps the processes of all combinations, and gives them their turns. A context that ends the processes.

    Args:
        settings: the configuration as plain data.
        directory: the run directory; the processes write nothing there.
        given: the combination of the settings as given.
    """

    def __init__(self, settings: dict[str, Any], directory: Path, given: Combination) -> None:
        self.settings = settings
        self.directory = directory
        self.given = given
        self.reference = dataclasses.replace(given, precision="32-true", channels_last=False, compile=False)
        self.rows: dict[Combination, Row] = {}
        self.compared_steps = 0
        """Number of first steps whose losses `best` has compared."""
        self._workers: dict[Combination, list[Worker]] = {}

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for combination in list(self._workers):
            self._end(combination, at_once=kind is not None)

    def start(self, combination: Combination) -> Row:
        """Trains the first steps of a combination. If it fails, or is hopelessly slow, it ends, with a note."""
        row = self.rows[combination] = Row(combination=combination)
        settings = copy.deepcopy(self.settings)
        settings["trainer"] |= {name: getattr(combination, name) for name in ("precision", "channels_last", "compile")}
        settings["data"]["batch_size"] = combination.batch_size
        self._workers[combination] = []
        for _ in range(combination.jobs):
            self._workers[combination].append(Worker(settings, self.directory, combination.threads))
        row.first_speed = self._turn(row, _FIRST_STEPS)
        if row.first_speed is None:
            return row
        log.info("%s: first step %.1f s, then about %.3g steps/s", combination, row.first_step_seconds, row.first_speed)
        images = row.first_speed * combination.batch_size
        fastest = max(each.first_speed * each.combination.batch_size for each in self.rows.values() if each.first_speed)
        if images < HOPELESS * fastest and combination not in (self.given, self.reference):
            row.note = "slower than half the fastest in its first steps"
            self._end(combination)
        return row

    def rounds(self, combinations: Sequence[Combination]) -> None:
        """Lets the given settings and these combinations take turns.

        Raises:
            GivenFailedError: no more can be compared; what was measured stays in `rows`.
        """
        steps = {}
        for combination in dict.fromkeys([self.given, *combinations]):
            if combination in self._workers:
                speed = (self.rows[combination].first_speed or 0) / combination.jobs
                steps[combination] = max(1, round(TURN_SECONDS * speed))
        begun = time.perf_counter()
        for finished in range(ROUNDS):
            if finished >= FEWEST_ROUNDS and time.perf_counter() - begun > STAGE_SECONDS:
                break
            base: float | None = None
            for combination, number in steps.items():
                if combination not in self._workers:
                    continue  # it failed in an earlier round
                row = self.rows[combination]
                measured = self._turn(row, number)
                base = base or measured  # the given settings come first
                if measured is not None and base is not None:
                    row.speeds.append(measured)
                    row.ratios.append(measured / base)

    def keep(self, combination: Combination) -> None:
        """Ends all processes but those of the given settings and of this combination."""
        for other in list(self._workers):
            if other not in (self.given, combination):
                self._end(other)

    def best(self) -> Row:
        """Compares the losses, and chooses what to recommend among single trainings with the given batch size.

        Only combinations that still train are chosen, so that later rounds can compare with the best.
        A candidate is really faster than the given settings, and its loss stays near the reference's. Of the candidates
        that are about as fast as the fastest, it is the one with the fewest changes. Without a candidate, it is the given
        settings.
        """
        measured = [
            row for row in self.rows.values() if row.ratios and row.combination.batch_size == self.given.batch_size
        ]
        reference = self.rows[self.reference]
        if not reference.ratios:  # it needs too much memory, for example
            self.reference, reference = self.given, self.rows[self.given]
        self.compared_steps = min((len(row.losses) for row in measured), default=0)
        for row in measured:
            row.loss_difference = largest_difference(row.losses, reference.losses, self.compared_steps)
        candidates = [
            row
            for row in measured
            if row.combination in self._workers and row.combination.jobs == 1 and row.ratio > NOISE
            if row.loss_difference is not None and row.loss_difference < NEAR
        ]
        fastest = max((row.ratio for row in candidates), default=0)
        near = [row for row in candidates if row.ratio * NOISE >= fastest] or [self.rows[self.given]]
        return min(near, key=lambda row: (len(row.combination.changes(self.given)), -row.ratio))

    def _end(self, combination: Combination, at_once: bool = False) -> None:
        for worker in self._workers.pop(combination, []):
            worker.end(at_once)

    def _turn(self, row: Row, steps: int) -> float | None:
        """One turn of a combination: steps/s of all its jobs; None if it failed.

        Raises:
            UserError: the given settings failed; a `GivenFailedError` after their first turn.
        """
        workers = self._workers[row.combination]
        try:
            for worker in workers:
                worker.ask(steps)
            turns = [worker.answer() for worker in workers]
        except UserError as error:
            if row.combination == self.given and row.first_speed is None:
                raise
            if row.combination == self.given:
                raise GivenFailedError(
                    f"the given settings failed beside the others, so no more was measured: {error}"
                ) from None
            row.note, row.speeds, row.ratios = str(error), [], []
            self._end(row.combination)
            return None
        row.first_step_seconds = max(turn.first_step_seconds for turn in turns)
        row.losses = turns[0].losses
        row.peak_bytes = sum(turn.peak_bytes for turn in turns if turn.peak_bytes is not None) or None
        # A job that ends before the others leaves them its cores: only the slowest tells.
        return row.combination.jobs * steps / max(turn.seconds for turn in turns)


def largest_difference(losses: Sequence[float], reference: Sequence[float], steps: int) -> float:
    """The largest difference of two trainings' losses in their first steps, relative to the reference; may be NaN."""
    own, its = np.array(losses[:steps]), np.array(reference[:steps])
    return float(np.max(np.abs(own - its) / np.maximum(np.abs(its), np.finfo(float).tiny)))
