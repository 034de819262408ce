"""Classes without a pixel in a split: which metrics leave them out, and the warnings about them."""

from collections.abc import Sequence

MEANS = ("iou", "precision", "recall", "f1", "iou_image", "iou_micro", "foreground_iou")
"""Metrics that say nothing of a class without a pixel in the split."""
MARK = " *"
"""Marks a number that leaves out a class."""


def absence(split: str, names: Sequence[str]) -> str:
    """One line: "crack has no pixel in val: val/iou says nothing of it"."""
    have, them = ("has", "it") if len(names) == 1 else ("have", "them")
    return f"{', '.join(names)} {have} no pixel in {split}: {split}/iou says nothing of {them}"


def scored_classes(names: Sequence[str], kind: str, ignored: Sequence[str] = ()) -> Sequence[str]:
    """The classes that iou averages: all that are not ignored, or for kind "binary" the positive one."""
    return names[1:2] if kind == "binary" else [name for name in names if name not in ignored]


def rests_on(metric: str, absent: Sequence[str]) -> bool:
    """Whether a metric, named without its split, leaves out a class of `absent`."""
    return bool(absent) and (metric in MEANS or metric.removeprefix("iou/") in absent)


def objective_warning(objective: str, absent: Sequence[str], kind: str) -> str | None:
    """A warning that the objective leaves out classes absent from val; None if it does not."""
    metric = objective.removeprefix("val/")
    if not absent or (metric.startswith("iou/") and not rests_on(metric, absent)):
        return None
    names = ", ".join(absent)
    if metric.startswith("iou/") or (kind == "binary" and metric in MEANS):
        return (
            f"objective={objective}: is NaN without a pixel of {names} in val, so the run will end as failed; "
            "give a val split that has every class, or another objective, as in objective=val/loss"
        )
    return (
        f"objective={objective}: says nothing of {names}, so these do not affect which checkpoint is the best; "
        "give a val split that has every class"
    )
