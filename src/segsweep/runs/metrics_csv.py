"""metrics.csv: a row per logged step."""

import csv
import math
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from segsweep.runs.files import write_whole


class MetricsCSV(Logger):
    """A Lightning logger that writes one table: step, epoch and a column per metric.

    What is logged at the same step shares a row. The file is always whole: it is written anew, at most once a second and
    before every checkpoint, under a temporary name. Lightning's own CSVLogger starts it over when a run is continued.

    Args:
        path: the file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._rows: dict[int, dict[str, float]] = {}
        self._columns = ["step", "epoch"]
        self._dirty = False
        self._last_write = -math.inf
        self._write_seconds = 0.0

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        step = int(step or 0)
        self._rows[step] = self._rows.get(step, {"step": step}) | {
            name: float(value) for name, value in metrics.items()
        }
        self._columns += [name for name in metrics if name not in self._columns]
        self._dirty = True

    @rank_zero_only
    def save(self) -> None:
        # A long table takes longer to write; it may take a twentieth of the time.
        if time.monotonic() - self._last_write >= max(1.0, 20 * self._write_seconds):
            self.flush()

    @rank_zero_only
    def flush(self) -> None:
        """Brings the file up to date."""
        if self._dirty:
            started = time.monotonic()
            write_whole(self.path, self._write)
            self._dirty = False
            self._last_write = time.monotonic()
            self._write_seconds = self._last_write - started

    def _write(self, path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            writer.writeheader()
            writer.writerows(_plain(row) for row in self._rows.values())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.flush()


def _plain(row: Mapping[str, float]) -> dict[str, object]:
    whole = {"step", "epoch"}
    return {
        name: int(value) if name in whole else ("nan" if math.isnan(value) else value) for name, value in row.items()
    }


def read_metrics(path: Path) -> pd.DataFrame:
    """metrics.csv as a DataFrame, a row per logged step; NaN where a metric was not logged at that step."""
    return pd.read_csv(path)
