"""Simulates sweeps: how often standings are wrong, and what they find. Prints the tables of docs/statistics.md.

    python benchmarks/standings.py errors      # how often the best setting is ruled out
    python benchmarks/standings.py power       # how many worse settings are ruled out
    python benchmarks/standings.py looks       # the same, if a person looks more than once
    python benchmarks/standings.py unstable    # how often noise is called a collapse, and a collapse is found
    python benchmarks/standings.py race        # what grids and races cost, and what they leave
    python benchmarks/standings.py race_errors # how often a race rules out a best setting, or calls unequal ones equivalent

All take --sweeps N and --json FILE. The design world has the means and spreads of the sweep in docs/results.md: nine
settings, a correlation of 0.35 between settings with the same seed, and one that collapses in two runs of three.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from measure import environment
from numpy.typing import NDArray
from scipy import special
from torch import device

from segsweep.fingerprint import Leaf
from segsweep.sweeps.looks import next_level
from segsweep.sweeps.race import follow, level_of
from segsweep.sweeps.scale import Scale
from segsweep.sweeps.state import Race
from segsweep.sweeps.statistics import LEVEL, equivalent, judge, p_best, unstable

Array = NDArray[np.float64]

MEANS = np.array([0.9832, 0.9830, 0.9824, 0.9812, 0.9786, 0.9735, 0.9562, 0.8536, 0.98])
SPREADS = np.array([0.0007, 0.0016, 0.003, 0.0003, 0.0019, 0.004, 0.0026, 0.0098, 0.002])
COLLAPSED, COLLAPSES = 0.487, 8
CORRELATION = 0.35
TRUE_MEANS = np.array([*MEANS[:COLLAPSES], MEANS[COLLAPSES] / 3 + COLLAPSED * 2 / 3])
WORSE = TRUE_MEANS.max() - TRUE_MEANS > 0.002 - 1e-9
RAW, LOGIT = Scale(), Scale("logit", 256 * 128 * 128)


def noise(generator: np.random.Generator, sweeps: int, spreads: Array, seeds: int, correlation: float) -> Array:
    """Normal noise [sweeps, k, seeds]; settings share a part of it by seed."""
    shared = generator.standard_normal((sweeps, 1, seeds))
    own = generator.standard_normal((sweeps, len(spreads), seeds))
    return spreads[:, None] * (np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own)


def design(generator: np.random.Generator, sweeps: int, seeds: int) -> Array:
    """Values of the design world [sweeps, 9, seeds]."""
    values = MEANS[:, None] + noise(generator, sweeps, SPREADS, seeds, CORRELATION)
    collapsed = generator.random((sweeps, seeds)) < 2 / 3
    low = COLLAPSED + 1e-4 * generator.standard_normal((sweeps, seeds))
    values[:, COLLAPSES] = np.where(collapsed, low, values[:, COLLAPSES])
    return values


def p_of_all(values: Array, scale: Scale = RAW) -> Array:
    """`p_best` of many sweeps at once: [sweeps, k] from [sweeps, k, n]. Without equal values, which noise does not have."""
    _, k, n = values.shape
    means, values = values.mean(axis=2), scale.forward(values)
    largest = np.full(values.shape[:2], -np.inf)
    for place in range(k):
        others = np.delete(values, place, axis=1) - values[:, place : place + 1]
        t = others.mean(axis=2) / (others.std(axis=2, ddof=1) / np.sqrt(n))
        better = np.delete(means, place, axis=1) > means[:, place : place + 1]
        largest[:, place] = np.where(better, t, -np.inf).max(axis=1)
    return np.minimum(1, (k - 1) * special.stdtr(n - 1, -largest))


def worse_than_leader(values: Array, level: float = LEVEL) -> NDArray[np.bool_]:
    """Which settings `judge` calls worse than the one with the best mean: [sweeps, k]."""
    found = np.zeros(values.shape[:2], bool)
    for sweep, scores in enumerate(values):
        order = np.argsort(-scores.mean(axis=1))
        found[sweep, order] = [row["verdict"] == "worse" for row in judge(scores[order], level)]
    return found


def errors(sweeps: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """How often a given setting is ruled out if all means are equal, so that each is a best one."""
    rows = []
    worlds: dict[str, Callable[[int, int], Array]] = {
        "the same spread as the others": lambda k, n: noise(generator, sweeps, np.ones(k), n, CORRELATION),
        "the smallest spread, 0.0003 to 0.0098": lambda k, n: noise(
            generator, sweeps, np.geomspace(3e-4, 98e-4, k), n, CORRELATION
        ),
        "the largest spread": lambda k, n: noise(generator, sweeps, np.geomspace(98e-4, 3e-4, k), n, CORRELATION),
        "the smallest spread, 0.0003 to 0.0098 about 0.98, on the logit scale": lambda k, n: (
            0.98 + noise(generator, sweeps, np.geomspace(3e-4, 98e-4, k), n, CORRELATION)
        ),
        "heavy tails, as the others": lambda k, n: generator.standard_t(3, (sweeps, k, n)),
        "the smallest spread, 1 to 10, noise skewed to the bad side": lambda k, n: (
            (1 - generator.exponential(size=(sweeps, k, n))) * np.geomspace(1, 10, k)[:, None]
        ),
    }
    for world, draw in worlds.items():
        row: dict[str, Any] = {"the best has": world}
        scale = LOGIT if "logit" in world else RAW
        for k in (2, 4, 9, 36):
            for n in (3, 10):
                row[f"{k} settings, {n} seeds"] = float((p_of_all(draw(k, n), scale)[:, 0] <= LEVEL).mean())
        rows.append(row)
    return rows


def power(sweeps: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Share of the truly worse settings that are ruled out, and that are called worse than the leader."""
    rows = []
    for n in (3, 5, 10):
        values = design(generator, sweeps, n)
        rows.append(
            {
                "seeds": n,
                "ruled out, raw": float((p_of_all(values)[:, 1:] <= LEVEL).mean()),
                "ruled out, logit": float((p_of_all(values, LOGIT)[:, 1:] <= LEVEL).mean()),
                "best ruled out, logit": float((p_of_all(values, LOGIT)[:, 0] <= LEVEL).mean()),
                "worse than the leader, raw": float(worse_than_leader(values)[:, 1:].mean()),
            }
        )
    return rows


def looks(sweeps: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """How often a best setting is ruled out at any of several looks, if all settings are equal."""
    rows = []
    plans: dict[str, Sequence[int]] = {"3, 5, 8": (3, 5, 8), "each of 3 to 10": range(3, 11)}
    for k in (2, 3, 9):
        values = noise(generator, sweeps, np.ones(k), 10, CORRELATION)
        for plan, seeds in plans.items():
            p = [p_of_all(values[:, :, :n])[:, 0] for n in seeds]
            levels: list[float] = []
            for _ in seeds:
                levels.append(next_level(levels))
            spending = np.any([each <= level for each, level in zip(p, levels, strict=True)], axis=0)
            row = {"settings": k, "looks after seeds": plan, "always 5 %": float((np.min(p, axis=0) <= LEVEL).mean())}
            rows.append(row | {"level spent": float(spending.mean())})
    return rows


def instability(sweeps: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """How often a noisy setting is called unstable at most, and a collapse to half in one run is found at least."""
    rows = []
    for n in (3, 5, 10):
        values = design(generator, sweeps, n)
        noisy = np.array([unstable(each, "max") for each in values])[:, :COLLAPSES].mean(axis=0)
        found = []
        for place in range(COLLAPSES):
            broken = values.copy()
            broken[:, place, 0] /= 2
            found.append(np.mean([unstable(each, "max")[place] for each in broken]))
        rows.append({"seeds": n, "noise called unstable": float(noisy.max()), "collapse found": float(min(found))})
    return rows


def run_race(
    values: Array, plan: Race, screen: int, scale: Scale = RAW
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
    """Many races at once.

    Args:
        values: [sweeps, k, seeds]; the first `screen` seeds screen, the others race.
        plan: how many settings race, and the looks.
        screen: 0 lets all settings race.
        scale: of the tests.

    Returns:
        Trainings spent [sweeps]; the settings left [sweeps, k]; whether they were called equivalent [sweeps]; the leader
        [sweeps].
    """
    sweeps, k, _ = values.shape
    order = np.argsort(-values[:, :, :screen].mean(axis=2), axis=1) if screen else np.tile(np.arange(k), (sweeps, 1))
    kept = order[:, : plan.keep]
    raced = np.take_along_axis(values[:, :, screen:], kept[:, :, None], axis=1)
    left, over, same = np.ones(kept.shape, bool), np.zeros(sweeps, bool), np.zeros(sweeps, bool)
    spent, leader, before = np.full(sweeps, k * screen), np.zeros(sweeps, int), 0
    for seeds in plan.looks:
        spent += np.where(over, 0, left.sum(axis=1) * (seeds - before))
        # A setting that has left rules nothing out: its mean is below all others.
        here = raced[:, :, :seeds] - ~left[:, :, None]
        means = np.where(left, here.mean(axis=2), -np.inf)
        leader = np.where(over, leader, means.argmax(axis=1))
        with np.errstate(invalid="ignore"):  # of settings that have left
            left &= (p_of_all(here, scale) > level_of(plan)) | over[:, None]
        if plan.margin is not None:
            pairs = plan.keep * (plan.keep - 1) // 2
            for sweep in np.flatnonzero(~over & (left.sum(axis=1) > 1)):
                same[sweep] = equivalent(raced[sweep, left[sweep], :seeds], plan.margin, level_of(plan), pairs)
        over |= same | (left.sum(axis=1) < 2)
        before = seeds
    staying = np.zeros((sweeps, k), bool)
    np.put_along_axis(staying, kept, left, axis=1)
    return spent, staying, same, np.take_along_axis(kept, leader[:, None], axis=1)[:, 0]


def left_after(values: Array, plan: Race) -> NDArray[np.bool_]:
    """The settings that a race between values [k, seeds] leaves, by the program itself; seed 0 screens."""
    settings, seeds = (axis.ravel() for axis in np.indices(values.shape))
    jobs = pd.DataFrame({"place": settings, "seed": seeds, "objective": values.ravel(), "status": "completed"})
    kept: list[dict[str, Leaf]] = [{"place": int(place)} for place in np.argsort(-values[:, 0])[: plan.keep]]
    course = follow(
        jobs, ["place"], Race(plan.keep, plan.looks, plan.margin, kept), name="val/iou", mode="max", scale=LOGIT.name,
        pixels=LOGIT.pixels,
    )  # fmt: skip
    return np.isin(np.arange(len(values)), [int(key[0][1]) for key in course.looks[-1].left])


def race(sweeps: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Grids and races in the design world; a grid is a race of all settings without screening, with one look."""
    plans = {
        "grid, 3 seeds": (0, Race(9, [3])),
        "grid, 5 seeds": (0, Race(9, [5])),
        "grid, 8 seeds": (0, Race(9, [8])),
        "all race, looks at 3, 5, 8": (0, Race(9, [3, 5, 8])),
        "keep 3, one look at 5": (1, Race(3, [5])),
        "keep 3, looks at 3, 5, 8": (1, Race(3, [3, 5, 8])),
        "keep 4, looks at 3, 5, 8": (1, Race(4, [3, 5, 8])),
        "keep 4, looks at 3, 5, 8, margin 0.002": (1, Race(4, [3, 5, 8], 0.002)),
        "keep 4, looks at 4, 8": (1, Race(4, [4, 8])),
        "keep 5, looks at 3, 5, 8": (1, Race(5, [3, 5, 8])),
        "screen with 2, keep 4, looks at 3, 5, 8": (2, Race(4, [3, 5, 8])),
    }
    rows = []
    for name, (screen, plan) in plans.items():
        spent, left, same, leader = run_race(design(generator, sweeps, screen + plan.looks[-1]), plan, screen, LOGIT)
        rows.append(
            {
                "plan": name,
                "trainings": f"{spent.mean():.1f}",
                "best is left": float(left[:, 0].mean()),
                "left": f"{left.sum(axis=1).mean():.2f}",
                "worse by 0.002 left": f"{left[:, WORSE].sum(axis=1).mean():.3f}",
                "leader's loss": f"{(TRUE_MEANS.max() - TRUE_MEANS[leader]).mean():.5f}",
                "equivalent": float(same.mean()),
            }
        )
    return rows


def race_errors(sweeps: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """How often a given best setting of equal ones is ruled out in a race, and settings just outside of the margin are
    called equivalent; the settings kept are given.
    """
    rows = []
    for k in (2, 4, 9):
        for margin in (None, 1.0):
            plan = Race(k, [3, 5, 8], margin)
            row: dict[str, Any] = {"settings kept": k, "margin": "none" if margin is None else "1"}
            for world, spreads in {
                "equal spreads": np.ones(k),
                "the best has the smallest": np.geomspace(0.1, 3, k),
            }.items():
                values = noise(generator, sweeps, spreads, 8, CORRELATION)
                row[f"best ruled out, {world}"] = float(1 - run_race(values, plan, 0)[1][:, 0].mean())
            values = noise(generator, sweeps, np.full(k, 0.5), 8, CORRELATION)
            values[:, 0] += 1.001
            _, left, same, _ = run_race(values, plan, 0)
            row["falsely equivalent"] = float((same & left[:, 0] & (left.sum(axis=1) > 1)).mean())
            rows.append(row)
    return rows


SIMULATIONS = {
    "errors": errors,
    "power": power,
    "looks": looks,
    "unstable": instability,
    "race": race,
    "race_errors": race_errors,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=SIMULATIONS)
    parser.add_argument("--sweeps", type=int, default=4000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the result to FILE")
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    check = design(generator, 20, 4)
    expected = [p_best(LOGIT.forward(values), values.mean(axis=1), 1.0) for values in check]
    assert np.allclose(p_of_all(check, LOGIT), expected)
    check, plan = design(generator, 10, 9), Race(4, [3, 5, 8], 0.002)
    assert np.array_equal(run_race(check, plan, 1, LOGIT)[1], [left_after(values, plan) for values in check])
    rows = SIMULATIONS[options.what](options.sweeps, generator)
    header = list(rows[0])
    print("| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |", sep="\n")
    for row in rows:
        cells = (f"{100 * cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row.values())
        print("| " + " | ".join(cells) + " |")
    if options.json is not None:
        known = json.loads(options.json.read_text()) if options.json.exists() else {}
        known[options.what] = {"sweeps": options.sweeps, "rows": rows, "environment": environment(device("cpu"))}
        options.json.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
