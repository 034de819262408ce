"""Builds a training from a configuration: data, net, task, callbacks and trainer, checked to fit together."""

import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from hydra.utils import get_object
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch import nn

from segsweep.callbacks import (
    BestCheckpoint,
    ConsoleProgress,
    EndOfTraining,
    RunConfiguration,
    ScoringProgress,
    StepSeed,
    StopOnSignal,
    TrainingLog,
    skip_empty_hooks,
)
from segsweep.data import Source
from segsweep.data.check_report import balanced_weights
from segsweep.datamodule import LOADING_KEYS, SegmentationDataModule
from segsweep.errors import UserError
from segsweep.initial_weights import load_initial_weights
from segsweep.instantiate import build, naming_keys
from segsweep.keys import FOLDS, alike, no_folds, unknown
from segsweep.loggers import TRACKERS, build_trackers, tracker_settings
from segsweep.runs import MetricsCSV, RunDirectory, objective_mode
from segsweep.tasks import LOSSES, TASKS, Exponential, LengthSchedule, Loss, SegmentationTask, TimeBudget
from segsweep.tasks.losses import WeightedLoss
from segsweep.trainer_settings import TrainerSettings, build_trainer
from segsweep.user_code import is_known

log = logging.getLogger(__name__)

TEST_FILE = ".test"
"""The end of the name of TensorBoard's file with the values of the test."""


@dataclass(frozen=True)
class Session:
    """Everything a training needs, built and checked."""

    settings: TrainerSettings
    data: SegmentationDataModule
    task: SegmentationTask
    trainer: L.Trainer
    training_log: TrainingLog


def assemble(
    settings: dict[str, Any], run: RunDirectory, stop: StopOnSignal | None = None, step: int | None = None
) -> Session:
    """Builds data, net, task and trainer, and refuses settings that do not fit together.

    Args:
        settings: the configuration as plain data.
        run: the directory to write to.
        stop: ends the training at a signal.
        step: the step to resume at; metrics logged after it are dropped.
    """
    require_known_settings(settings)
    L.seed_everything(settings["seed"], workers=True, verbose=False)
    trainer_settings: TrainerSettings = build(settings["trainer"], "trainer")
    settings["data"] = data_for_loss(settings["data"], settings["loss"])
    data = build_data(settings["data"], trainer_settings.accumulate)
    if "task" in settings["data"]:
        settings["data"]["task"] = data.source.kind  # for the checkpoint: what reads it need not ask the folder
    processes = trainer_settings.processes
    if data.batch_size % processes:
        raise UserError(
            f"data.batch_size={data.batch_size}: must be divisible by the {processes} processes that share it"
        )
    task = build_task(settings, data.source, trainer_settings)
    if settings.get("init") is not None and step is None:
        load_initial_weights(settings["init"], task, lambda channels: build_net(settings, data.source, channels))
    data.source = data.source.for_net(task.net)
    objective = settings["objective"]
    if objective not in task.metric_names:
        raise UserError(f"objective={objective}: no such metric; there are {', '.join(task.metric_names)}")
    training_log = TrainingLog(trainer_settings.log_every_n_steps, objective, objective_mode(objective))
    source = data.source
    content = {"config": settings, "labels": source.labels.to_dict(), "channels": source.channels, "kind": task.kind}
    nodes = {name: node for name, node in settings["callbacks"].items() if node is not None}
    last_checkpoint = nodes.pop("last_checkpoint", None)
    if last_checkpoint is None:
        raise UserError(
            "callbacks.last_checkpoint=null: cannot be left out; every_n_steps and every_n_minutes say how often it saves"
        )
    # EndOfTraining comes before callbacks that use `validation_due`. LastCheckpoint comes last: it saves the others' state.
    callbacks = [
        *(build(node, f"callbacks.{name}") for name, node in nodes.items()),
        training_log,
        ConsoleProgress(training_log, objective, trainer_settings.progress_bar, task.time_budget),
        ScoringProgress(),
        StepSeed(settings["seed"]),
        EndOfTraining(task.time_budget),
        RunConfiguration(content),
        *([stop] if stop is not None else []),
        BestCheckpoint(run.checkpoints, objective, objective_mode(objective)),
        build(last_checkpoint, "callbacks.last_checkpoint", path=run.last),
    ]
    loggers: list[Logger] = [MetricsCSV(run.metrics, keep_to_step=step)]
    if settings["logger"].get("tensorboard", True):
        # Points after the checkpoint are written again. TensorBoard's Python loader ignores the first mark to drop such
        # points, so the first session writes one too.
        loggers.append(tensorboard_logger(run, purge_step=0 if step is None else step + 1))
    loggers += build_trackers(settings["logger"], run, settings["name"])
    skip_empty_hooks(task, callbacks)
    trainer = build_trainer(trainer_settings, run.path, callbacks, loggers)
    if trainer_settings.compile:
        # Jobs of a sweep share a process, and after a number of nets dynamo would run further ones uncompiled.
        torch._dynamo.reset()
        task.net.compile()
    return Session(trainer_settings, data, task, trainer, training_log)


def tensorboard_logger(run: RunDirectory, **options: Any) -> TensorBoardLogger:
    """Writes into the run's tensorboard/; `options` go to SummaryWriter."""
    return TensorBoardLogger(run.path, name="", version="", sub_dir="tensorboard", **options)


def tests_in_own_file(trainer: L.Trainer, run: RunDirectory) -> None:
    """Makes TensorBoard's values of the test a file of their own, which replaces that of an earlier test of the run.

    TensorBoard would show the values of both: they belong to one step.
    """
    others = [logger for logger in trainer.loggers if not isinstance(logger, TensorBoardLogger)]
    if len(others) == len(trainer.loggers):
        return
    if trainer.is_global_zero:
        for path in run.tensorboard.glob(f"*{TEST_FILE}"):
            path.unlink()
    trainer.loggers = [*others, tensorboard_logger(run, filename_suffix=TEST_FILE)]


def require_known_settings(settings: Mapping[str, Any]) -> None:
    """Refuses unknown settings before anything is built. `build` checks the values of the others.

    Args:
        settings: the configuration as plain data, or some of its groups. Settings of an unknown target are not checked.

    Raises:
        UserError: names the key, and the nearest one that exists.
    """
    groups = ("data", "model", "loss", "optim", "scheduler", "trainer", "logger")
    nodes = {name: settings[name] for name in groups if name in settings}
    nodes |= {f"callbacks.{name}": node for name, node in settings.get("callbacks", {}).items() if node is not None}
    asked = {f"logger.{name}": node for name, node in settings.get("logger", {}).items() if name in TRACKERS}
    nodes |= {where: node for where, node in asked.items() if node is not None}
    for where, node in nodes.items():
        if not isinstance(node, Mapping):
            raise UserError(f"{where}={node}: must be settings{'' if where in asked else ' with a _target_'}")
        if (names := _allowed_settings(where, node)) is None:
            continue
        for key in node:
            if str(key).startswith("_") or key in names:
                continue
            if where == "data" and key == "root":
                raise UserError(unknown("data.root"))  # says which data has one
            if f"{where}.{key}" in FOLDS:
                raise UserError(no_folds(f"{where}.{key}", str(node.get("_target_"))))
            near = alike(key, [*names, *(f"{where}.{name}" for name in names)])  # `SYNONYMS` has both forms
            meant = "" if near is None else f", did you mean {where}.{near.rpartition('.')[2]}"
            raise UserError(f"{where}.{key}: no such setting{meant}; there are {', '.join(names) or 'none'}")
    if settings.get("data", {}).get("root") == "":
        raise UserError("data.root=: needs a value; give a folder of images and masks, as in data.root=my_images")


def _allowed_settings(where: str, node: Mapping[str, Any]) -> list[str] | None:
    """The settings that a node may have beside `_target_`; None if its target takes any, or is unknown."""
    group, _, tracker = where.partition(".")
    if group == "logger":
        return tracker_settings(tracker) if tracker else ["tensorboard", *TRACKERS]
    if (target := node.get("_target_")) is None:
        return [] if where == "scheduler" else None
    if not isinstance(target, str) or not is_known(target):
        return None  # not imported here: the settings may come from a stored sweep, which is untrusted
    parameters = inspect.signature(get_object(target)).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    return [*parameters, *(LOADING_KEYS if where == "data" else ())]


def data_for_loss(node: Mapping[str, Any], loss: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the `data` settings, with task=auto replaced by multiclass if the loss fits nothing else."""
    loss_class = LOSSES.get(str(loss.get("_target_")))
    needs_multiclass = loss_class is not None and "binary" not in loss_class.fits
    return {**node, "task": "multiclass"} if needs_multiclass and node.get("task") == "auto" else dict(node)


def build_data(node: dict[str, Any], accumulate: int = 1) -> SegmentationDataModule:
    """Builds the source that the `data` group names, and the DataModule around it, for steps of `accumulate` batches.

    Stores in `node` what was found in the data without being typed, for the checkpoint.
    """
    loading = {key: node[key] for key in LOADING_KEYS if key in node}
    source: Source = build({key: value for key, value in node.items() if key not in LOADING_KEYS}, "data")
    with naming_keys("data"):
        data = SegmentationDataModule(source, **loading, accumulate=accumulate)
        source.prepare()
        node |= source.found_settings()
        size = data.size("train")
        if size < data.step_size:
            limit = "" if size == source.size("train") else f", by data.limit_samples={size}"
            times = "" if accumulate == 1 else f" times trainer.accumulate={accumulate}"
            way_out = f"; set data.batch_size={size // accumulate} or less" if size >= accumulate else ""
            raise ValueError(
                f"batch_size={data.batch_size}{times}: an epoch has only {size} training samples{limit}{way_out}"
            )
    return data


def build_task(settings: dict[str, Any], source: Source, trainer_settings: TrainerSettings) -> SegmentationTask:
    """Builds the task with its net, loss, optimizer and schedule."""
    if wrong := source.unlearnable():
        raise UserError(wrong)
    task_class = TASKS[source.kind]
    net = build_net(settings, source, task_class.out_channels(source.labels))
    loss = build(settings["loss"], "loss")
    schedule = build(settings["scheduler"], "scheduler") if settings["scheduler"].get("_target_") else None
    minutes = trainer_settings.max_minutes
    if minutes is not None and not isinstance(schedule, LengthSchedule | Exponential | None):
        raise UserError(
            f"trainer.max_minutes={minutes:g}: scheduler {settings['scheduler']['_target_']} knows steps only; derive it "
            "from segsweep.tasks.LengthSchedule, or set trainer.max_minutes=null"
        )
    optimizer = build(settings["optim"], "optim")
    with naming_keys("loss"):
        set_balanced_weights(settings["loss"], loss, source)
        return task_class(
            net, loss, source.labels, optimizer, schedule, trainer_settings.channels_last, trainer_settings.accumulate,
            None if minutes is None else TimeBudget(minutes),
        )  # fmt: skip


def build_net(settings: dict[str, Any], source: Source, out_channels: int) -> nn.Module:
    """Builds the net that the `model` group names, from the source's images to so many channels of logits."""
    net: nn.Module = build(settings["model"], "model", in_channels=source.channels, out_channels=out_channels)
    return net


def set_balanced_weights(node: dict[str, Any], loss: Loss, source: Source) -> None:
    """Computes weights="balanced" from the training split, and stores the numbers in `node`, for the checkpoint.

    Raises:
        ValueError: the number of weights is not the number of classes.
    """
    names = source.labels.names
    weighted = [part for part in loss.modules() if isinstance(part, WeightedLoss)]
    for part in weighted:
        if part.weight is not None and len(part.weight) != len(names):
            needed = f"{len(names)} numbers, one for each class ({', '.join(names)})"
            raise ValueError(f"weights={part.weight.tolist()}: must be {needed}")
    waiting = [part for part in weighted if part.balanced]
    if waiting:
        node["weights"] = balanced_weights(source.class_counts("train"))
        for part in waiting:
            part.set_weights(node["weights"])
        numbers = (f"{name} {weight:.2f}" for name, weight in zip(names, node["weights"], strict=True))
        log.info("class weights: %s", ", ".join(numbers))
