"""Simulates cross-validations of settings that are equally good: how often is one of them ruled out?

    python benchmarks/folds.py

Takes --sweeps N and --json FILE. A world has 6 folds of 30 samples. Each setting sees features of its own, which say
as much about the target as those of any other, and learns a ridge regression; its score is the accuracy on val. So
settings are equal over all data sets, and differ on one. Each fold shifts the features, as a tile of its own does,
and each seed adds noise to the weights. Trainings of two folds share most of their data, as real ones do.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from measure import environment
from numpy.typing import NDArray
from torch import device

from segsweep.sweeps.folds import shared_training
from segsweep.sweeps.statistics import LEVEL, p_best

Array = NDArray[np.float64]
FOLDS, SAMPLES, FEATURES = 6, 30, 3
SHIFT, NOISE, RIDGE = 0.5, 0.15, 1.0
"""Spread of a fold's shift and of a seed's noise, where features and weights are of order 1; the ridge penalty."""


def world(generator: np.random.Generator, sweeps: int, settings: int, seeds: int) -> Array:
    """Accuracies on val, [sweeps, settings, folds, seeds], of settings that are equal over all data sets."""
    shape = (sweeps, settings, FOLDS)
    features = generator.standard_normal((*shape, SAMPLES, FEATURES))
    features += SHIFT * generator.standard_normal((*shape, 1, FEATURES))
    target = features.sum(axis=(1, 4)) + generator.standard_normal((sweeps, FOLDS, SAMPLES))
    products = np.einsum("skfni,skfnj->skfij", features, features)
    answers = np.einsum("skfni,sfn->skfi", features, target)
    val = np.roll(np.arange(FOLDS), -1)  # fold f is test, the next one is val
    train = products.sum(axis=2, keepdims=True) - products - products[:, :, val]
    wanted = answers.sum(axis=2, keepdims=True) - answers - answers[:, :, val]
    weights = np.linalg.solve(train + RIDGE * np.eye(FEATURES), wanted[..., None])
    weights = weights + NOISE * generator.standard_normal((*shape, FEATURES, seeds))
    predicted = np.einsum("skfni,skfit->skfnt", features[:, :, val], weights)
    right: Array = (predicted > 0) == (target[:, None, val, :, None] > 0)
    return right.mean(axis=3)


def ruled_out(values: Array, shared: float) -> float:
    """How often the first setting is ruled out, by values [sweeps, settings, replicates]."""
    return float(np.mean([p_best(each, each.mean(axis=1), LEVEL, shared)[0] <= LEVEL for each in values]))


def simulate(sweeps: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """A row for each number of settings and seeds: false alarms of three ways to test them."""
    rows = []
    for settings in (2, 4, 9):
        for seeds in (1, 3, 5):
            values = world(generator, sweeps, settings, seeds)
            averaged = values.mean(axis=3)
            rows.append(
                {
                    "settings": settings,
                    "seeds": seeds,
                    "each fold and seed a replicate": ruled_out(values.reshape(sweeps, settings, -1), 0),
                    "seeds averaged": ruled_out(averaged, 0),
                    "seeds averaged, Nadeau and Bengio": ruled_out(averaged, shared_training(FOLDS)),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sweeps", type=int, default=2000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to FILE")
    options = parser.parse_args()
    rows = simulate(options.sweeps, np.random.default_rng(0))
    print("| " + " | ".join(rows[0]) + " |", "| " + " | ".join("---" for _ in rows[0]) + " |", sep="\n")
    for row in rows:
        cells = (f"{100 * cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row.values())
        print("| " + " | ".join(cells) + " |")
    if options.json is not None:
        content = {"sweeps": options.sweeps, "rows": rows, "environment": environment(device("cpu"))}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
