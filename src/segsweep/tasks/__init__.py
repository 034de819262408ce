"""Segmentation tasks with their losses, metrics, optimizers and schedules."""

from segsweep.tasks.kinds import TASKS, BinaryTask, MulticlassTask
from segsweep.tasks.losses import BCE, LOSS_CHOICES, MSE, AutoLoss, BCEDice, CEDice, CrossEntropy, Dice, Loss, TaskKind
from segsweep.tasks.metrics import RunningMean, SegmentationMetrics
from segsweep.tasks.optimizers import (
    SGD,
    Adam,
    AdamW,
    Cosine,
    Exponential,
    LengthSchedule,
    OneCycle,
    OptimizerFactory,
    RMSprop,
    Schedule,
)
from segsweep.tasks.segmentation import SegmentationTask, Stage
from segsweep.tasks.time_budget import TimeBudget

LOSSES: dict[str, type[Loss]] = {f"segsweep.tasks.{loss.__name__}": loss for loss in LOSS_CHOICES.values()}
"""The losses that a checkpoint may name."""

__all__ = [
    "BCE", "LOSSES", "MSE", "SGD", "TASKS", "Adam", "AdamW", "AutoLoss", "BCEDice", "BinaryTask", "CEDice", "Cosine",
    "CrossEntropy", "Dice", "Exponential", "LengthSchedule", "Loss", "MulticlassTask", "OneCycle", "OptimizerFactory",
    "RMSprop", "RunningMean", "Schedule", "SegmentationMetrics", "SegmentationTask", "Stage", "TaskKind", "TimeBudget",
]  # fmt: skip
