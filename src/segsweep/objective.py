"""What the objective of a training rests on: classes that val does not show, and whether it ever had a value."""

import math
from typing import Literal

from segsweep.absence import absence, objective_warning, scored_classes
from segsweep.errors import UserError
from segsweep.runs import RunRecord
from segsweep.training_setup import Session


def note_absent_classes(record: RunRecord, session: Session) -> None:
    """Notes the classes that scored splits do not show: as the source says, else as the masks scored so far tell."""
    source, task = session.data.source, session.task
    if session.data.overfit_samples:
        return  # what is scored then are training samples
    splits: tuple[Literal["val", "test"], ...] = ("val", "test") if session.settings.test else ("val",)
    for split in (split for split in splits if split not in record.absent_classes and source.size(split)):
        names = source.absent_classes(split)
        if names is None and split in task.confusions:
            pixels = task.confusions[split].sum(1).tolist()
            names = [name for name, count in zip(source.labels.names, pixels, strict=True) if not count]
        if names is not None:
            counted = scored_classes(source.labels.names, source.kind)
            record.absent_classes[split] = [name for name in names if name in counted]


def absence_lines(record: RunRecord, session: Session) -> list[str]:
    """What to know of absent classes before training."""
    lines = [absence(split, names) for split, names in record.absent_classes.items() if names]
    absent = record.absent_classes.get("val", [])
    warning = objective_warning(record.objective.name, absent, session.data.source.kind)
    return lines if warning is None else [*lines, warning]


def require_objective(record: RunRecord, session: Session) -> None:
    """Fails a run whose objective never had a value: no checkpoint of it is better than another.

    Raises:
        UserError: says which checkpoints there are.
    """
    best = session.training_log.best
    if best is None or not math.isnan(best.metrics[record.objective.name]):
        return
    absent = record.absent_classes.get("val")
    because = f" ({', '.join(absent)} without a pixel in val)" if absent else ""
    raise UserError(
        f"objective={record.objective.name}: is NaN at every validation{because}, so no checkpoint is the best; best.ckpt "
        f"holds the first, of step {best.step}, last.ckpt that of step {record.steps}. Give a split that has every class, "
        "or another objective, as in objective=val/loss"
    )
