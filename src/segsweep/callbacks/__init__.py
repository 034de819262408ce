"""Lightning callbacks: checkpoints, logs, pictures, batch-norm statistics, seeds and the end of a training."""

from segsweep.callbacks.checkpoints import BestCheckpoint, LastCheckpoint, RunConfiguration, WholeCheckpointIO
from segsweep.callbacks.control import EndOfTraining, PreciseBN, StepSeed, StopOnSignal, skip_empty_hooks
from segsweep.callbacks.early_stopping import EarlyStopping
from segsweep.callbacks.tensorboard import ConfusionPicture, NetGraph, PrecisionRecall, SamplePanel
from segsweep.callbacks.training_log import ConsoleProgress, ScoringProgress, TrainingLog

__all__ = [
    "BestCheckpoint", "ConfusionPicture", "ConsoleProgress", "EarlyStopping", "EndOfTraining", "LastCheckpoint", "NetGraph",
    "PreciseBN", "PrecisionRecall", "RunConfiguration", "SamplePanel", "ScoringProgress", "StepSeed", "StopOnSignal",
    "TrainingLog", "WholeCheckpointIO", "skip_empty_hooks",
]  # fmt: skip
