"""Compares two runs bit for bit, except times and paths."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer
from torch import Tensor

from segsweep.runs import read_metrics

# TensorBoard reads event files of the same second in the order of their names, which end in a count: the 100th of a process
# would come before the 99th. Only tests train so many runs in one process.
event_file_writer._global_uid = event_file_writer.AtomicCounter(1_000_000)

CLOCK = ["steps_per_second", "epoch_seconds", "1: train/steps_per_second", "1: train/epoch_seconds"]


def leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from leaves(entry, f"{where}/{key}")
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            yield from leaves(entry, f"{where}/{index}")
    else:
        yield where, value


def result_of(checkpoint: Path) -> dict[str, Any]:
    """The state in a checkpoint that decides the result of a training."""
    content = torch.load(checkpoint, weights_only=True)
    kept = {key: content[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step")}
    return dict(leaves(kept))


def table(run: Path) -> pd.DataFrame:
    return read_metrics(run / "metrics.csv").drop(columns=CLOCK, errors="ignore")


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's scalar curves, by its Python loader."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag not in CLOCK]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def assert_same_result(one: Path, other: Path) -> None:
    """Compares weights, optimizer state, metrics.csv and the result in run.json."""
    for name in ("last.ckpt", "best.ckpt"):
        first, second = result_of(one / "checkpoints" / name), result_of(other / "checkpoints" / name)
        assert first.keys() == second.keys()
        unequal = [key for key in first if not _equal(first[key], second[key])]
        assert unequal == [], f"{name}: {unequal}"
    pd.testing.assert_frame_equal(table(one), table(other), check_exact=True)
    records = [json.loads((run / "run.json").read_text()) for run in (one, other)]
    for key in ("status", "objective", "metrics", "best_step", "steps", "best_checkpoint", "error"):
        assert records[0][key] == records[1][key], key
    for record in records:
        # Includes sessions that were killed before they could write their seconds.
        assert record["seconds"] >= record["steps"] / record["steps_per_second"]


def assert_same_run(one: Path, other: Path) -> None:
    """Also compares the curves in TensorBoard."""
    assert_same_result(one, other)
    assert curves(one) == curves(other)


def _equal(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other
