"""metrics.csv: a row per logged step."""

import csv
import io
import math
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from segsweep.errors import UserError
from segsweep.runs.files import read_text, write_whole


class MetricsCSV(Logger):
    """A Lightning logger that writes one table: step, epoch and a column per metric.

    What is logged at the same step shares a row. The file is always whole: it is written anew, at most once a second and
    before every checkpoint, under a temporary name. Lightning's own CSVLogger starts it over when a run is continued.

    Args:
        path: the file; its folder exists.
        keep_to_step: the rows of a file that is there are kept up to this step, where a run is continued; None keeps none.
    """

    def __init__(self, path: Path, keep_to_step: int | None = None) -> None:
        super().__init__()
        self.path = path
        self._rows: dict[int, dict[str, float]] = {}
        self._columns = ["step", "epoch"]
        self._dirty = False
        self._last_write = -math.inf
        self._write_seconds = 0.0
        if keep_to_step is not None and path.exists():
            self._take_over(keep_to_step)

    def _take_over(self, last: int) -> None:
        read_metrics(self.path)  # which says what is wrong with it
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            # The columns that only later rows have come again when these do.
            kept = [row for row in reader if int(row["step"]) <= last]
            for row in kept:
                self._rows[int(row["step"])] = {name: float(value) for name, value in row.items() if value}
            filled = {name for row in self._rows.values() for name in row}
            self._columns = [name for name in reader.fieldnames or () if name in filled] or self._columns
        self._dirty = True

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
            for row in self._rows.values():
                plain: dict[str, object] = {name: "nan" if math.isnan(value) else value for name, value in row.items()}
                writer.writerow(plain | {name: int(row[name]) for name in ("step", "epoch") if name in row})

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.flush()


LARGEST_FILE = 256 << 20
"""Bytes of a metrics.csv or run.json that is read; a million rows of ten metrics have some 200 MB."""


def read_metrics(path: Path) -> pd.DataFrame:
    """metrics.csv as a DataFrame, a row per logged step; NaN where a metric was not logged at that step.

    Raises:
        OSError: there is none, or it cannot be read.
        UserError: it is damaged, or no metrics.csv; names the file.
    """
    try:
        return _table(read_text(path, LARGEST_FILE))
    except ValueError as error:
        raise UserError(f"{path}: is cut short, damaged or no metrics.csv ({error})") from error


# Before 3.1, pandas rounds the last bit unless told not to; since then it says not to tell it.
_EXACT: dict[str, Any] = (
    {"float_precision": "round_trip"} if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1) else {}
)


def _table(text: str) -> pd.DataFrame:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(rows, [])
        widths = {len(row) for row in rows}
    except csv.Error as error:
        raise ValueError(str(error)) from error
    if "step" not in header or len(set(header)) < len(header):
        raise ValueError("its first line does not name step and every metric once")
    if widths - {len(header)} or not text.endswith("\n"):
        raise ValueError("its lines are not equally long")
    table = pd.read_csv(io.StringIO(text, newline=""), index_col=False, **_EXACT)
    for name, column in table.items():
        if len(table) and not pd.api.types.is_numeric_dtype(column):
            raise ValueError(f"{name} has values that are no numbers")
    return table
