"""Evaluation: every metric of a trained run on a split."""

import tempfile
from pathlib import Path
from typing import Any

import torch

from segsweep.arguments import check_arguments
from segsweep.config import naming_keys
from segsweep.data import SOURCES, SegmentationData
from segsweep.data.seeds import Split
from segsweep.errors import UserError
from segsweep.runs.load import Run
from segsweep.tasks import LOSSES, SGD, Loss
from segsweep.trainer import TrainerSettings, build_trainer
from segsweep.training import LOADING_KEYS, quiet_libraries


def evaluate(
    run: Run, split: Split = "test", data: SegmentationData | None = None, accelerator: str = "auto"
) -> dict[str, float]:
    """The metrics of a run's checkpoint, as its own training computes them.

    Args:
        run: from `load_run`.
        split: "val" or "test"; of the data that the run was trained on, unless `data` is given.
        data: other data with the same classes.
        accelerator: "auto", "cpu" or "gpu".

    Returns:
        Metrics by name, without the split: "iou", "loss", ...; NaN where one is undefined.

    Raises:
        UserError: the data or the loss is none of segsweep's own, or the data cannot be found.
    """
    if split not in ("val", "test"):
        raise UserError(f"split={split}: must be val or test")
    data = data or data_of(run)
    trained = run.config.get("trainer", {})
    precision = trained.get("precision", "32-true")
    if precision == "16-mixed" and not torch.cuda.is_available():
        precision = "32-true"  # what a GPU trained in half precision, a CPU can still score
    chosen = {"accelerator": accelerator, "precision": precision, "channels_last": trained.get("channels_last", True)}
    with naming_keys("trainer"):
        check_arguments(TrainerSettings, chosen)
        settings = TrainerSettings(**chosen, progress_bar=False)
    # An optimizer is part of a task, and is not used here.
    task = run.task(run.net, _loss_of(run), run.labels, SGD(lr=1.0), channels_last=settings.channels_last)
    with tempfile.TemporaryDirectory() as folder, quiet_libraries():
        trainer = build_trainer(settings, Path(folder), [], [])
        data.test_split = split
        trainer.test(task, data, verbose=False)
    return {name.removeprefix("test/"): float(value) for name, value in trainer.callback_metrics.items()}


def data_of(run: Run) -> SegmentationData:
    """The data that a run was trained on; built from a table of known sources, whatever the checkpoint names."""
    node = dict(run.config["data"])
    loading = {key: node.pop(key) for key in LOADING_KEYS if key in node}
    source = _known(SOURCES, node, run, "data")
    data = SegmentationData(source, **(loading | {"overfit_samples": 0}))
    source.prepare()
    return data


def _loss_of(run: Run) -> Loss:
    return _known(LOSSES, dict(run.config["loss"]), run, "loss")


def _known(table: dict[str, Any], node: dict[str, Any], run: Run, what: str) -> Any:
    target = node.pop("_target_", None)
    if target not in table:
        raise UserError(
            f"{run.checkpoint}: its {what} {target} is none of segsweep's own, and is not imported from a file"
        )
    with naming_keys(what):
        check_arguments(table[target], node)
        return table[target](**node)
