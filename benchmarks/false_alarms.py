"""False alarms and power of the comparison of a sweep's settings, by simulation.

    python benchmarks/false_alarms.py --json docs/measured/statistics.json

Draws sweeps of k settings and n seeds from known distributions. Our verdicts come from `judge` in
segsweep.sweeps.statistics; the other tests are computed here. In a false alarm, the sweep calls a setting worse than the
best one although its true mean is not lower. The power is the probability that a setting which is truly worse, by a given
number of standard deviations of the paired difference, is called worse. Prints the tables of docs/statistics.md.
"""

import argparse
import json
import platform
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from segsweep.sweeps.statistics import LEVEL, judge

Array = NDArray[np.float64]

SETTINGS = (2, 3, 9, 30)
SEEDS = (2, 3, 5, 10)
DIFFERENCES = (1, 2, 3, 5, 10, 20, 50)
OURS = "Holm-Shaffer over all pairs"


def spread(kind: str, k: int) -> Array:
    """Standard deviations of k settings, [k, 1]."""
    sigma = np.ones((k, 1))
    if kind == "1 to 10":
        sigma[:, 0] = np.logspace(0, 1, k)
    elif kind == "1 to 1000":
        sigma[:, 0] = np.logspace(0, 3, k)
    elif kind == "one 100 times larger":
        sigma[0] = 100
    elif kind == "one 100 times smaller":
        sigma[0] = 0.01
    elif kind == "half 30 times larger":
        sigma[: k // 2] = 30
    return sigma


SPREADS = ("equal", "1 to 10", "1 to 1000", "one 100 times larger", "one 100 times smaller", "half 30 times larger")


def normal(kind: str) -> Callable[[np.random.Generator, int, int, int], tuple[Array, Array]]:
    """Draws sweeps of settings with equal means."""

    def draw(generator: np.random.Generator, sweeps: int, k: int, n: int) -> tuple[Array, Array]:
        return generator.standard_normal((sweeps, k, n)) * spread(kind, k), np.zeros(k)

    return draw


def half_worse(generator: np.random.Generator, sweeps: int, k: int, n: int) -> tuple[Array, Array]:
    """Half of the settings, with spreads from 1 to 10, are worse by 20; the rest are equal."""
    mean = np.where(np.arange(k) % 2, -20.0, 0.0)
    return generator.standard_normal((sweeps, k, n)) * spread("1 to 10", k) + mean[:, None], mean


def heavy(generator: np.random.Generator, sweeps: int, k: int, n: int) -> tuple[Array, Array]:
    """Student's t with three degrees of freedom."""
    return generator.standard_t(3, (sweeps, k, n)), np.zeros(k)


def skewed(generator: np.random.Generator, sweeps: int, k: int, n: int) -> tuple[Array, Array]:
    """Exponential towards the bad side, with spreads from 1 to 10 and equal means."""
    return (1 - generator.exponential(size=(sweeps, k, n))) * spread("1 to 10", k), np.zeros(k)


WORLDS = {f"normal, spread {kind}": normal(kind) for kind in SPREADS} | {
    "normal, half truly worse": half_worse,
    "heavy tails": heavy,
    "skewed, spread 1 to 10": skewed,
}
NORMAL = tuple(name for name in WORLDS if name.startswith("normal"))


def worse_by_ours(scores: Array) -> NDArray[np.bool_]:
    """Whether `judge` calls each setting worse, [sweeps, k]; `scores` has the best setting first."""
    return np.array([[said["verdict"] == "worse" for said in judge(values)] for values in scores])


def best_first(scores: Array) -> tuple[Array, NDArray[np.intp]]:
    """Moves the setting with the best mean to the front; also returns each setting's earlier position."""
    best = scores.mean(axis=2).argmax(axis=1)
    order = np.argsort(np.arange(scores.shape[1])[None] != best[:, None], axis=1, kind="stable")
    return np.take_along_axis(scores, order[:, :, None], axis=1), order


def paired_t(scores: Array) -> Array:
    """t of each setting but the first against the first, [sweeps, k - 1]."""
    differences = scores[:, :1] - scores[:, 1:]
    return differences.mean(axis=2) / differences.std(axis=2, ddof=1) * np.sqrt(scores.shape[2])


def holm(p: Array, comparisons: int) -> NDArray[np.bool_]:
    """Which p of each sweep Holm's test rejects, if the smallest p is one of `comparisons`."""
    order = np.argsort(p, axis=1)
    adjusted = np.maximum.accumulate(np.take_along_axis(p, order, 1) * (comparisons - np.arange(p.shape[1])), axis=1)
    result = np.empty(p.shape, bool)
    np.put_along_axis(result, order, adjusted <= LEVEL, 1)
    return result


@lru_cache
def simulated_t(k: int, n: int) -> float:
    """The 95th percentile of the largest t against the best, for k equal normal settings with equal spread."""
    generator = np.random.default_rng(k * 100 + n)
    return float(np.quantile(paired_t(best_first(generator.standard_normal((40_000, k, n)))[0]).max(axis=1), 1 - LEVEL))


@lru_cache
def tukey_q(k: int, n: int) -> float:
    return float(stats.studentized_range.isf(LEVEL, k, (k - 1) * (n - 1)))


def rivals(scores: Array) -> dict[str, NDArray[np.bool_]]:
    """Whether other tests call each setting but the first worse: [sweeps, k - 1]."""
    _, k, n = scores.shape
    t = paired_t(scores)
    p = 2 * special.stdtr(n - 1, -t)
    mean, variance = scores.mean(axis=2), scores.var(axis=2, ddof=1) / n
    error = variance[:, :1] + variance[:, 1:]
    freedom = error**2 * (n - 1) / (variance[:, :1] ** 2 + variance[:, 1:] ** 2)
    welch = 2 * special.stdtr(freedom, -(mean[:, :1] - mean[:, 1:]) / np.sqrt(error))
    rest = scores - mean[:, :, None] - scores.mean(axis=1, keepdims=True) + mean.mean(axis=1)[:, None, None]
    pooled = np.sqrt((rest**2).sum(axis=(1, 2)) / ((k - 1) * (n - 1)) / n)
    return {
        "Bonferroni over all pairs": p <= LEVEL / (k * (k - 1) / 2),
        "Holm over the k - 1 with the best": holm(p, k - 1),
        "uncorrected": p <= LEVEL,
        "unpaired (Welch), Bonferroni over all pairs": welch <= LEVEL / (k * (k - 1) / 2),
        "pooled variance (blocks, Tukey)": (mean[:, :1] - mean[:, 1:]) / pooled[:, None] > tukey_q(k, n),
        "critical t simulated for equal spread": t > simulated_t(k, n),
    }


def false_alarms(sweeps: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """A row per world, k and n: the fraction of sweeps with a false alarm, by test."""
    rows = []
    for world, draw in WORLDS.items():
        for k in SETTINGS:
            for n in SEEDS:
                scores, true = draw(generator, sweeps, k, n)
                scores, order = best_first(scores)
                mistaken = true[order][:, 1:] >= true[order][:, :1]
                called = {OURS: worse_by_ours(scores)[:, 1:]} | rivals(scores)
                rate = {test: float((worse & mistaken).any(axis=1).mean()) for test, worse in called.items()}
                rows.append({"world": world, "settings": k, "seeds": n, "false_alarms": rate})
    return rows


def power(sweeps: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """A row per case, k, n and difference: the fraction of the truly worse settings that are called worse, by test.

    "one worse": k - 1 equal settings and one that is worse by the difference. "ladder": each is worse than the one before.
    """
    rows = []
    for k in SETTINGS:
        for n in SEEDS:
            for difference in DIFFERENCES:
                for case in ("one worse", "ladder"):
                    true = -difference * (np.arange(k) if case == "ladder" else np.arange(k) == k - 1).astype(float)
                    # Makes the standard deviation of the difference of two settings 1.
                    scores = generator.standard_normal((sweeps, k, n)) / np.sqrt(2) + true[:, None]
                    scores, order = best_first(scores)
                    here = true[order][:, 1:] < 0
                    called = {OURS: worse_by_ours(scores)[:, 1:]} | rivals(scores)
                    power = {
                        test: float((worse & here).sum() / (true < 0).sum() / sweeps) for test, worse in called.items()
                    }
                    rows.append({"case": case, "settings": k, "seeds": n, "difference": difference, "power": power})
    return rows


def markdown(alarms: list[dict[str, Any]], powers: list[dict[str, Any]]) -> str:
    """The tables of docs/statistics.md, in percent."""
    tests = list(alarms[0]["false_alarms"])
    lines = ["| settings | " + " | ".join(f"{n} seeds" for n in SEEDS) + " |", "| --- |" + " --- |" * len(SEEDS)]
    for k in SETTINGS:
        worst = [
            max(
                row["false_alarms"][OURS]
                for row in alarms
                if row["settings"] == k and row["seeds"] == n and row["world"] in NORMAL
            )
            for n in SEEDS
        ]
        lines.append(f"| {k} | " + " | ".join(f"{100 * rate:.1f}" for rate in worst) + " |")
    kinds = {"normal": NORMAL} | {world: (world,) for world in WORLDS if world not in NORMAL}
    lines += ["", "| test | " + " | ".join(kinds) + " | power |", "| --- |" + " --- |" * (len(kinds) + 1)]
    shown = {("one worse", 9, 3, 10), ("one worse", 9, 5, 3), ("ladder", 9, 3, 3)}
    for test in tests:
        worst = [
            max(row["false_alarms"][test] for row in alarms if row["world"] in worlds) for worlds in kinds.values()
        ]
        reached = [
            row["power"][test]
            for row in powers
            if (row["case"], row["settings"], row["seeds"], row["difference"]) in shown
        ]
        cells = [f"{100 * rate:.1f}" for rate in worst] + [", ".join(f"{100 * entry:.0f}" for entry in reached)]
        lines.append(f"| {test} | " + " | ".join(cells) + " |")
    for case in ("one worse", "ladder"):
        lines += ["", f"| {case}: settings | seeds | " + " | ".join(map(str, DIFFERENCES)) + " |"]
        lines += ["| --- | --- |" + " --- |" * len(DIFFERENCES)]
        for k in SETTINGS:
            for n in SEEDS:
                found = [row for row in powers if (row["case"], row["settings"], row["seeds"]) == (case, k, n)]
                cells = [f"{100 * row['power'][OURS]:.0f}" for row in found]
                lines.append(f"| {k} | {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sweeps", type=int, default=10_000, help="sweeps for each cell of a table (default 10,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to FILE")
    options = parser.parse_args()
    if options.sweeps < 1:
        parser.error(f"--sweeps {options.sweeps}: must be at least 1")
    generator = np.random.default_rng(options.seed)
    alarms = false_alarms(options.sweeps, generator)
    powers = power(max(1, options.sweeps // 5), generator)
    print(markdown(alarms, powers))
    if options.json is not None:
        versions = {name: metadata.version(name) for name in ("numpy", "scipy")}
        machine = {"python": platform.python_version()} | versions | {"date": date.today().isoformat()}
        drawn = {"sweeps": options.sweeps, "seed": options.seed}
        content = {"benchmark": "statistics", "environment": machine, "rows": []} | drawn
        content |= {"false_alarms": alarms, "power": powers}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
