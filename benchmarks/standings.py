"""Simulates sweeps: how often standings are wrong, and what they find. Prints the tables of docs/statistics.md.

    python benchmarks/standings.py errors      # how often the best setting is ruled out
    python benchmarks/standings.py power       # how many worse settings are ruled out
    python benchmarks/standings.py looks       # the same, if a person looks more than once
    python benchmarks/standings.py unstable    # how often noise is called a collapse, and a collapse is found

All take --sweeps N and --json FILE. The design world has the means and spreads of the sweep in docs/results.md: nine
settings, a correlation of 0.35 between settings with the same seed, and one that collapses in two runs of three.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measure import environment
from numpy.typing import NDArray
from scipy import special
from torch import device

from segsweep.sweeps.looks import next_level
from segsweep.sweeps.scale import Scale
from segsweep.sweeps.statistics import LEVEL, judge, p_best, unstable

Array = NDArray[np.float64]

MEANS = np.array([0.9832, 0.9830, 0.9824, 0.9812, 0.9786, 0.9735, 0.9562, 0.8536, 0.98])
SPREADS = np.array([0.0007, 0.0016, 0.003, 0.0003, 0.0019, 0.004, 0.0026, 0.0098, 0.002])
COLLAPSED, COLLAPSES = 0.487, 8
CORRELATION = 0.35
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


SIMULATIONS = {"errors": errors, "power": power, "looks": looks, "unstable": instability}


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
