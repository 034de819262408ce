"""metrics.csv: a row per logged step."""

import csv
import io
import math
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from segsweep.errors import UserError
from segsweep.runs.files import read_text, write_whole

if TYPE_CHECKING:
    import pandas as pd


class MetricsCSV(Logger):
    """A Lightning logger that writes one table: step, epoch and a column per metric.

    Metrics of one step share a row. The file is always complete: it is rewritten under a temporary name, at most once a
    second and before every checkpoint. Lightning's own CSVLogger would start a new file when a run is resumed.

    Args:
        path: the file; its folder exists.
        keep_to_step: on resume, the last step whose rows are kept; None starts a new table.
    """

    def __init__(self, path: Path, keep_to_step: int | None = None) -> None:
        super().__init__()
        self.path = path
        self._rows: dict[int, dict[str, float]] = {}
        self._columns = ["step", "epoch"]
        self._dirty = False
        self._last_write = -math.inf
        self._write_seconds = 0.0
        if keep_to_step is None or not path.exists():
            return
        read_metrics(path)  # refuses a damaged file
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            for row in reader:
                if int(row["step"]) <= keep_to_step:
                    self._rows[int(row["step"])] = {name: float(value) for name, value in row.items() if value}
            # A column that only later rows fill is added again when they are logged again.
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
        """Does nothing: config.yaml has them."""

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
        # Writing may take a twentieth of the time: a long table is written less often.
        if time.monotonic() - self._last_write >= max(1.0, 20 * self._write_seconds):
            self.flush()

    @rank_zero_only
    def flush(self) -> None:
        """Rewrites the file if anything was logged since the last time."""

        def write(path: Path) -> None:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self._columns, restval="")
                writer.writeheader()
                for row in self._rows.values():
                    values: dict[str, object] = {
                        name: "nan" if math.isnan(value) else value for name, value in row.items()
                    }
                    writer.writerow(values | {name: int(row[name]) for name in ("step", "epoch") if name in row})

        if self._dirty:
            started = time.monotonic()
            write_whole(self.path, write)
            self._dirty = False
            self._last_write = time.monotonic()
            self._write_seconds = self._last_write - started

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.flush()


LARGEST_FILE = 256 << 20
"""Largest metrics.csv that is read, in bytes; a million rows of ten metrics have some 200 MB."""


def read_metrics(path: Path) -> "pd.DataFrame":
    """metrics.csv as a DataFrame, a row per logged step; a metric that was not logged at a step is NaN.

    Raises:
        OSError: there is no such file, or it cannot be read.
        UserError: it is damaged or not a metrics.csv; names the file.
    """
    import pandas as pd  # here, because a training that starts does without

    # Before 3.1, pandas rounds the last bit unless this is set; since then, setting it is deprecated.
    old = tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1)
    exact: dict[str, Any] = {"float_precision": "round_trip"} if old else {}
    try:
        text = read_text(path, LARGEST_FILE)
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        header, widths = next(rows, []), {len(row) for row in rows}
        if "step" not in header or len(set(header)) < len(header):
            raise ValueError("its first line does not name step and every metric once")
        if widths - {len(header)} or not text.endswith("\n"):
            raise ValueError("its lines are not equally long")
        table = pd.read_csv(io.StringIO(text, newline=""), index_col=False, **exact)
        for name, column in table.items():
            if len(table) and not pd.api.types.is_numeric_dtype(column):
                raise ValueError(f"{name} has values that are not numbers")
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: is cut short, damaged or not a metrics.csv ({error})") from error
    return table
