"""Classes without a pixel in a split: which metrics leave them out, and the lines that say so."""

from collections.abc import Sequence

MEANS = ("iou", "precision", "recall", "f1", "iou_image", "iou_micro", "foreground_iou")
"""Metrics over the classes present or, of a binary task, of the positive class."""
MARK = " *"
"""Behind a number that is not of all classes."""


def absence(split: str, names: Sequence[str]) -> str:
    """One line: "crack has no pixel in val: val/iou says nothing of it"."""
    have, them = ("has", "it") if len(names) == 1 else ("have", "them")
    return f"{', '.join(names)} {have} no pixel in {split}: {split}/iou says nothing of {them}"


def scored_classes(names: Sequence[str], kind: str) -> Sequence[str]:
    """The classes that iou is of: all, or the positive one where the task is "binary"."""
    return names[1:] if kind == "binary" else names


def rests_on(metric: str, absent: Sequence[str]) -> bool:
    """Whether a metric, named without its split, would be another one if absent classes were there."""
    return bool(absent) and (metric in MEANS or metric.removeprefix("iou/") in absent)


def objective_warning(objective: str, absent: Sequence[str], kind: str) -> str | None:
    """What to know before training by an objective that says nothing of classes absent from val; None by one of others."""
    metric = objective.removeprefix("val/")
    if not absent or (metric.startswith("iou/") and not rests_on(metric, absent)):
        return None
    names = ", ".join(absent)
    if metric.startswith("iou/") or (kind == "binary" and metric in MEANS):
        return (
            f"objective={objective}: has no value without a pixel of {names} in val, so the run will end as failed; "
            "give a val split that has every class, or another objective, as in objective=val/loss"
        )
    return (
        f"objective={objective}: says nothing of {names}, nor does the choice of the best checkpoint; "
        "give a val split that has every class"
    )
