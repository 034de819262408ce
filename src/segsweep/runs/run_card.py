"""What a run shows of itself in Python and in Jupyter."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from segsweep.cards import Card
from segsweep.console import relative
from segsweep.errors import UserError
from segsweep.plots import curves
from segsweep.runs.directory import RunRecord

if TYPE_CHECKING:
    import pandas as pd

    from segsweep.runs.load import Run

_CLASSES = 6
"""Most classes that are named."""


def run_card(run: "Run") -> Card:
    """Where a run is, its net and classes, how it was trained, and its scores.

    A checkpoint without its run directory has no scores.
    """
    try:
        record = run.summary
    except UserError:
        record = None
    names = run.labels.names
    classes = ", ".join(names[:_CLASSES]) + (", …" if len(names) > _CLASSES else "")
    parameters = sum(parameter.numel() for parameter in run.net.parameters())
    lines = [
        f"{type(run.net).__name__} with {parameters:,} parameters; {run.kind}: {classes}",
        f"{run.checkpoint.name} of step {run.step:,}",
        settings_line(run.config),
    ]
    if record is None:
        return Card(f"Run {relative(run.checkpoint)}", lines)
    lines[1] += f" of {record.steps:,}, {record.status}"
    lines.append(f"typed: {' '.join(map(str, record.overrides))}" if record.overrides else "typed: nothing")
    chosen = dict.fromkeys([record.objective.name, "val/iou", "test/iou", "test/loss"])
    scores = {name: record.metrics.get(name) for name in chosen}
    lines.append(", ".join(f"{name} {value:.4f}" for name, value in scores.items() if value is not None) or "no scores")
    return Card(f"Run {relative(run.directory)}", lines, ("metric", "val", "test"), score_rows(record))


def run_curves(history: "pd.DataFrame", objective: str, title: str) -> Figure | None:
    """The loss and the objective's metric against steps, in training and in validation; None if neither was logged.

    Args:
        history: from `read_metrics`.
        objective: as in objective=val/iou.
        title: above both panels.
    """
    metric = objective.partition("/")[2]
    logged = {}
    for split in ("train", "val"):
        columns = {column: str(column).removeprefix(f"{split}/") for column in history}
        logged[split] = history.rename(columns=columns)
    names = [name for name in dict.fromkeys(["loss", metric]) if any(name in table for table in logged.values())]
    return curves(logged, names, title=title) if names else None


def score_rows(record: RunRecord) -> list[list[str]]:
    """A row for each metric of val and test, without those of single classes."""
    names = dict.fromkeys(name.partition("/")[2] for name in record.metrics if name.startswith(("val/", "test/")))
    values = {
        name: [record.metrics.get(f"{split}/{name}") for split in ("val", "test")] for name in names if "/" not in name
    }
    return [[name, *("" if value is None else f"{value:.4f}" for value in row)] for name, row in values.items()]


def settings_line(config: Mapping[str, Any]) -> str:
    """Data, loss, optimizer, learning rate, batch size and seed of a stored configuration, which may hold anything."""

    def of(group: str, key: str) -> str:
        node = config.get(group)
        return str(node.get(key)).rpartition(".")[2] if isinstance(node, dict) else "?"

    parts = [of("data", "_target_"), of("loss", "_target_"), of("optim", "_target_")]
    return (
        f"{', '.join(parts)}, lr {config.get('lr')}, batch size {of('data', 'batch_size')}, seed {config.get('seed')}"
    )
