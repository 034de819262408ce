"""Builds a training from a configuration: data, net, task, callbacks and trainer, checked to fit together."""

import inspect
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from hydra.utils import get_object
from lightning.pytorch.loggers import Logger, TensorBoardLogger

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
from segsweep.fingerprint import NAME
from segsweep.instantiate import build, check_arguments, naming_keys
from segsweep.keys import FOLDS, alike, no_folds, unknown
from segsweep.runs import MetricsCSV, ObjectiveAt, RunDirectory, objective_mode
from segsweep.tasks import TASKS, CrossEntropy, Loss, SegmentationTask
from segsweep.trainer_settings import TrainerSettings, build_trainer
from segsweep.user_code import is_known

log = logging.getLogger(__name__)


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
    data = build_data(settings["data"])
    processes = trainer_settings.processes
    if data.batch_size % processes:
        raise UserError(
            f"data.batch_size={data.batch_size}: must be divisible by the {processes} processes that share it"
        )
    task = build_task(settings, data.source, trainer_settings)
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
        ConsoleProgress(training_log, objective, trainer_settings.progress_bar),
        ScoringProgress(),
        StepSeed(settings["seed"]),
        EndOfTraining(),
        RunConfiguration(content),
        *([stop] if stop is not None else []),
        BestCheckpoint(run.checkpoints, objective, objective_mode(objective)),
        build(last_checkpoint, "callbacks.last_checkpoint", path=run.last),
    ]
    loggers: list[Logger] = [MetricsCSV(run.metrics, keep_to_step=step)]
    if settings["logger"]["tensorboard"]:
        # Points after the checkpoint are written again. TensorBoard's Python loader ignores the first mark to drop such
        # points, so the first session writes one too.
        loggers.append(tensorboard_logger(run, purge_step=0 if step is None else step + 1))
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
    for where, node in nodes.items():
        if not isinstance(node, Mapping):
            raise UserError(f"{where}={node}: must be settings with a _target_")
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
    if where == "logger":
        return ["tensorboard"]
    if (target := node.get("_target_")) is None:
        return [] if where == "scheduler" else None
    if not isinstance(target, str) or not is_known(target):
        return None  # not imported here: the settings may come from a stored sweep, which is untrusted
    parameters = inspect.signature(get_object(target)).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    return [*parameters, *(LOADING_KEYS if where == "data" else ())]


def build_data(node: dict[str, Any]) -> SegmentationDataModule:
    """Builds the source that the `data` group names, and the DataModule around it.

    Stores in `node` what was found in the data without being typed, for the checkpoint.
    """
    loading = {key: node[key] for key in LOADING_KEYS if key in node}
    source: Source = build({key: value for key, value in node.items() if key not in LOADING_KEYS}, "data")
    with naming_keys("data"):
        data = SegmentationDataModule(source, **loading)
        source.prepare()
        node |= source.found_settings()
        size = data.size("train")
        if size < data.batch_size:
            limit = "" if size == source.size("train") else f", by data.limit_samples={size}"
            raise ValueError(
                f"batch_size={data.batch_size}: an epoch has only {size} training samples{limit}"
                f"{f'; set data.batch_size={size} or less' if size else ''}"
            )
    return data


def build_task(settings: dict[str, Any], source: Source, trainer_settings: TrainerSettings) -> SegmentationTask:
    """Builds the task with its net, loss, optimizer and schedule."""
    if wrong := source.unlearnable():
        raise UserError(wrong)
    task_class = TASKS[source.kind]
    channels = {"in_channels": source.channels, "out_channels": task_class.out_channels(source.labels)}
    net = build(settings["model"], "model", **channels)
    loss = build(settings["loss"], "loss")
    schedule = build(settings["scheduler"], "scheduler") if settings["scheduler"].get("_target_") else None
    optimizer = build(settings["optim"], "optim")
    with naming_keys("loss"):
        set_balanced_weights(settings["loss"], loss, source)
        return task_class(net, loss, source.labels, optimizer, schedule, trainer_settings.channels_last)


def set_balanced_weights(node: dict[str, Any], loss: Loss, source: Source) -> None:
    """Computes weights="balanced" from the training split, and stores the numbers in `node`, for the checkpoint.

    Raises:
        ValueError: the number of weights is not the number of classes.
    """
    classes = len(source.labels)
    for part in loss.modules():
        if isinstance(part, CrossEntropy) and part.weight is not None and len(part.weight) != classes:
            raise ValueError(f"weights={part.weight.tolist()}: must be {classes} numbers, one for each class")
    waiting = [part for part in loss.modules() if isinstance(part, CrossEntropy) and part.balanced]
    if waiting:
        node["weights"] = balanced_weights(source.class_counts("train"))
        for part in waiting:
            part.set_weights(node["weights"])
        numbers = (f"{name} {weight:.2f}" for name, weight in zip(source.labels.names, node["weights"], strict=True))
        log.info("class weights: %s", ", ".join(numbers))


def name_of(settings: Mapping[Any, Any]) -> str | None:
    """`name=` as text: Hydra reads a name of digits as a number."""
    name = settings.get("name")
    return None if name is None else str(name)


def check_root(settings: dict[str, Any]) -> None:
    """Refuses a wrong value at the root of the configuration. Turns `name` into text, and sets `objective_at`.

    Raises:
        UserError: names the key, its value and what would be right.
    """
    settings["name"] = name_of(settings)
    settings.setdefault("objective_at", "best")  # runs of earlier versions have none
    check_arguments(_root, {name: settings.get(name) for name in inspect.signature(_root).parameters})
    if not 0 <= settings["seed"] < 1 << 32:
        raise UserError(f"seed={settings['seed']}: must be from 0 to {(1 << 32) - 1}")
    if settings["name"] is not None and not re.fullmatch(NAME, settings["name"]):
        raise UserError(f"name={settings['name']}: must be letters, digits, spaces and . , = + - _ only")


def _root(
    lr: float, momentum: float | None, seed: int, name: str | None, objective: str, objective_at: ObjectiveAt,
    code: str | list[str] | None,
) -> None:  # fmt: skip
    """Its signature declares the types of the keys at the root of the configuration."""
