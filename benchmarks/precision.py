"""Tests whether bf16-mixed and 32-true give the same iou, from sweeps with both precisions and several seeds.

    python train.py study=precision name=precision
    python benchmarks/precision.py multirun/precision --bound 0.002

Two one-sided paired t-tests at 5 %: the precisions are equivalent if the 90 % interval of the mean difference lies
within the bound. Source: Schuirmann 1987, A comparison of the two one-sided tests procedure.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measure import environment
from scipy import stats

METRIC = "test/iou"


@dataclass(frozen=True)
class Equivalence:
    """The difference in iou between bf16-mixed and 32-true, paired by seed.

    Args:
        seeds: seeds with both trainings.
        mean_32: mean iou of 32-true.
        difference: mean of bf16-mixed minus 32-true.
        low, high: 90 % confidence interval of the difference.
        bound: largest difference that counts as none.
    """

    seeds: int
    mean_32: float
    difference: float
    low: float
    high: float
    bound: float

    @property
    def shown(self) -> bool:
        """Whether the precisions are shown to be equivalent."""
        return -self.bound < self.low and self.high < self.bound


def equivalence(summary: pd.DataFrame, bound: float) -> Equivalence:
    """Compares the precisions in a sweep's summary.csv; seeds that lack one of the two are left out."""
    done = summary[summary["status"] == "completed"]
    table = done.pivot_table(METRIC, "seed", "trainer.precision").dropna()
    differences = (table["bf16-mixed"] - table["32-true"]).to_numpy()
    mean, error = float(np.mean(differences)), float(stats.sem(differences))
    half = float(stats.t.ppf(0.95, len(table) - 1)) * error
    return Equivalence(len(table), float(table["32-true"].mean()), mean, mean - half, mean + half, bound)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sweep", type=Path, help="a sweep directory")
    parser.add_argument("--bound", type=float, required=True, help="largest difference in iou that counts as none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result to FILE")
    options = parser.parse_args()
    found = equivalence(pd.read_csv(options.sweep / "summary.csv"), options.bound)
    print(
        f"{found.seeds} seeds: {METRIC} {found.mean_32:.4f} in 32-true, bf16-mixed differs by {found.difference:+.5f} "
        f"({found.low:+.5f} to {found.high:+.5f}): {'equivalent' if found.shown else 'not shown to be equivalent'} "
        f"within {found.bound:g}"
    )
    if options.json is not None:
        content = {"benchmark": "precision", "sweep": options.sweep.name, **asdict(found), "shown": found.shown}
        content["environment"] = environment(torch.device("cpu"))
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
