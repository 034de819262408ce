"""One line on the terminal for a job that has ended, wherever it ran."""

from dataclasses import dataclass

from segsweep.fingerprint import typed
from segsweep.runs import RunRecord
from segsweep.sweeps.state import Job, SweepRecord


@dataclass(frozen=True)
class Tally:
    """How many jobs of a sweep are done and left, and the seconds of a completed one in the mean; None without one."""

    done: int
    left: int
    seconds: float | None


def job_line(record: SweepRecord, job: Job, found: RunRecord, tally: Tally) -> str:
    """How a job ended, and how long the others will take: "[2/4] lr=0.1 · val/iou 0.97 · 12 s · about 24 s left".

    Args:
        record: sweep.json.
        job: one of its jobs; has ended.
        found: run.json of the job.
        tally: of all jobs.
    """
    value = found.objective.value
    if found.status == "completed":
        name = found.objective.name
        # A class that no image of the split shows has no IoU; run.json has null for what is no number.
        outcome = f"{name} is not defined on this validation split" if value is None else f"{name} {value:.4f}"
    else:
        reason = " ".join((found.error or "its process has died").split())
        outcome = reason if job.status == "interrupted" else f"failed: {reason[:160]}"
    # Another sweeper than ours does not say how many jobs there will be, and repeats what it does not vary.
    other = job.stage == "other"
    of = "" if other else f"/{len(record.jobs)}"
    axes = [f"{axis}={typed(record.value_of(job, axis))}" for axis in record.axes] if other else []
    parts = [f"[{tally.done}{of}] {', '.join(axes) or job.name}", outcome, clock(found.seconds)]
    if tally.left and tally.seconds is not None and not other:
        parts.append(f"about {clock(tally.seconds * tally.left / min(record.at_once, tally.left))} left")
    return " · ".join(parts)


def clock(seconds: float) -> str:
    """A duration to read: "42 s", "12 min", "3 h 05 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
