"""metrics.csv holds everything that was logged, a row per step, and is readable at any time."""

import math
import os
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segsweep.runs import MetricsCSV, read_metrics
from segsweep.runs import metrics_csv as module

names = st.one_of(
    st.sampled_from(["train/loss", "val/iou", "lr"]),
    # Class names may hold anything printable: commas, quotes, spaces, other scripts.
    st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=8).map("val/iou/{}".format),
)
entries = st.lists(
    st.tuples(st.integers(0, 6), st.dictionaries(names, st.floats(), max_size=4)), min_size=1, max_size=12
)


def merged(logged: list[tuple[int, dict[str, float]]]) -> dict[int, dict[str, float]]:
    rows: dict[int, dict[str, float]] = {}
    for step, metrics in logged:
        rows.setdefault(step, {}).update(metrics)
    return rows


def check_file_holds(path: Path, logged: list[tuple[int, dict[str, float]]]) -> None:
    table = read_metrics(path)
    rows = merged(logged)
    assert list(table["step"]) == list(rows)
    assert set(table.columns) == {"step", "epoch"} | {name for metrics in rows.values() for name in metrics}
    for row, metrics in zip(table.to_dict("records"), rows.values(), strict=True):
        for name, value in row.items():
            expected = metrics.get(str(name), math.nan)
            if name != "step":
                assert value == expected or (math.isnan(value) and math.isnan(expected)), name


@given(entries)
@settings(max_examples=60, deadline=None)
def test_file_holds_every_number_that_was_logged_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, logged: list[tuple[int, dict[str, float]]]
):
    logger = MetricsCSV(tmp_path_factory.getbasetemp() / "all.csv")
    for step, metrics in logged:
        logger.log_metrics(metrics, step)
    logger.finalize("success")
    check_file_holds(logger.path, logged)


@given(entries)
@settings(max_examples=30, deadline=None)
def test_file_is_whole_after_every_flush(
    tmp_path_factory: pytest.TempPathFactory, logged: list[tuple[int, dict[str, float]]]
):
    logger = MetricsCSV(tmp_path_factory.getbasetemp() / "flushed.csv")
    for position, (step, metrics) in enumerate(logged):
        logger.log_metrics(metrics, step)
        logger.flush()
        check_file_holds(logger.path, logged[: position + 1])


def test_rows_of_one_step_are_one_and_the_last_value_holds(tmp_path: Path):
    logger = MetricsCSV(tmp_path / "metrics.csv")
    logger.log_metrics({"train/loss": 1.0, "epoch": 0}, 50)
    logger.log_metrics({"val/iou": 0.5, "epoch": 0}, 50)
    logger.log_metrics({"train/loss": 0.75}, 50)
    logger.log_metrics({"train/loss": 0.5, "epoch": 1}, 100)
    logger.flush()
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "step,epoch,train/loss,val/iou",
        "50,0,0.75,0.5",
        "100,1,0.5,",
    ]


def test_step_and_epoch_are_whole_numbers_and_come_first(tmp_path: Path):
    logger = MetricsCSV(tmp_path / "metrics.csv")
    for step in (0, 1):
        logger.log_metrics({"train/loss": torch.tensor(0.25), "epoch": torch.tensor(float(step))}, step)
    logger.flush()
    table = read_metrics(logger.path)
    assert list(table.columns) == ["step", "epoch", "train/loss"]
    assert list(table.dtypes.astype(str)) == ["int64", "int64", "float64"]


def test_save_writes_at_most_once_a_second_and_finalize_writes_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clock = [1000.0]
    writes = []
    original = module.write_whole
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module, "write_whole", lambda path, write: (writes.append(clock[0]), original(path, write)))
    logger = MetricsCSV(tmp_path / "metrics.csv")
    for step in range(100):
        logger.log_metrics({"train/loss": step}, step)
        logger.save()
        clock[0] += 0.0625
    assert len(read_metrics(logger.path)) < 100
    logger.finalize("success")
    assert len(read_metrics(logger.path)) == 100
    # 100 steps take 6.25 s: a write at once, then one per second, and one at the end.
    assert writes == [1000.0 + second for second in range(7)] + [clock[0]]


def test_without_new_metrics_nothing_is_written(tmp_path: Path):
    logger = MetricsCSV(tmp_path / "metrics.csv")
    logger.flush()
    assert not logger.path.exists()
    logger.log_metrics({"lr": 0.1}, 1)
    logger.flush()
    logger.path.unlink()
    logger.finalize("success")
    assert not logger.path.exists()


def test_write_that_fails_leaves_the_last_file_and_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    logger = MetricsCSV(tmp_path / "metrics.csv")
    logger.log_metrics({"lr": 0.1}, 1)
    logger.flush()
    logger.log_metrics({"lr": 0.2}, 2)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", _full)
        with pytest.raises(OSError, match="full"):
            logger.flush()
    assert list(read_metrics(logger.path)["step"]) == [1]
    assert list(tmp_path.iterdir()) == [logger.path]
    logger.flush()
    assert list(read_metrics(logger.path)["step"]) == [1, 2]


def _full(_: int) -> None:
    raise OSError("the disk is full")


def test_any_reader_of_csv_can_read_it(tmp_path: Path):
    logger = MetricsCSV(tmp_path / "metrics.csv")
    logger.log_metrics({"val/iou": math.nan, "val/loss": math.inf}, 3)
    logger.log_metrics({"val/iou": 0.5}, 4)
    logger.finalize("success")
    table = pd.read_csv(logger.path)
    assert table["val/iou"].isna().tolist() == [True, False]
    assert table["val/loss"].tolist()[0] == math.inf
