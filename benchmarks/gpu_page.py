"""The results of gpu.py as Markdown."""

import re
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from report import table

Result = dict[str, Any]


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def rows(title: str, head: Sequence[str], body: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table below its title; nothing if it has no rows."""
    lines = [[str(cell).replace("|", "\\|") for cell in line] for line in [head, ["---"] * len(head), *body]]
    return [title, "", *(f"| {' | '.join(line)} |" for line in lines), ""] if body else []


class Errors:
    """Numbers the errors of single measurements, for a list below the tables."""

    def __init__(self) -> None:
        self.texts: dict[str, int] = {}

    def cell(self, row: Result | None, text: Callable[[Result], str]) -> str:
        """The text of a measurement, the number of its error, or nothing if it was not taken."""
        if row is None:
            return ""
        return f"error {self.texts.setdefault(row['error'], len(self.texts) + 1)}" if "error" in row else text(row)


def step_tables(stages: dict[str, Result]) -> list[str]:
    errors, steps = Errors(), stages.get("steps", {})
    found = [row for name in ("steps", "compiled steps") for row in stages.get(name, {}).get("steps", [])]
    cases: dict[tuple[object, ...], dict[str, Result]] = {}
    for row in found:
        if not row["way"].startswith("trainer"):
            cases.setdefault((row["net"], row["batch_size"], row["precision"]), {})[row["way"]] = row
    ways = list(dict.fromkeys(way for case in cases.values() for way in case))
    each = [[*case, *(errors.cell(row.get(way), speed) for way in ways)] for case, row in cases.items()]
    lines = rows("Without Lightning, on a fixed batch:", ["net", "images a step", "precision", *ways], each)
    through = [
        [row["precision"], row["way"], errors.cell(row, speed)] for row in found if row["way"].startswith("trainer")
    ]
    title = "Through train.py's own Trainer, with batches, metrics, logs and progress bar, 8 images a step:"
    lines += rows(title, ["precision", "way", "texture"], through)
    made = [[row["batch_size"], errors.cell(row, time_to_make)] for row in steps.get("made", [])]
    lines += rows("To make a batch of textures:", ["images", "time"], made)
    repeated = [
        [
            row["net"],
            row["precision"],
            "deterministic" if row["deterministic"] else "default",
            errors.cell(row, equality),
        ]
        for row in steps.get("repeated", [])
    ]
    title = "Two trainings from one seed, weights compared bit for bit:"
    lines += rows(title, ["net", "precision", "cuDNN's algorithms", "weights"], repeated)
    left = [entry for name in ("steps", "compiled steps") for entry in stages.get(name, {}).get("left_out", [])]
    return [
        *lines,
        *(f"- error {at}: {text}" for text, at in errors.texts.items()),
        *(f"- no time for {entry}" for entry in left),
    ]


def speed(row: Result) -> str:
    text = f"{number(row['steps_per_second'])} steps/s, {number(row['images_per_second'])} images/s"
    text += "" if row["peak_bytes"] is None else f", {row['peak_bytes'] / 2**30:.2f} GiB"
    return text + (f", weights apart by {row['weights_apart']:.1e}" if "weights_apart" in row else "")


def time_to_make(row: Result) -> str:
    return f"{1e6 * statistics.median(row['seconds']):.0f} µs"


def equality(row: Result) -> str:
    return "equal" if row["equal"] else f"apart by {row['apart']:.1e} at most"


def sweep_tables(stages: dict[str, Result]) -> list[str]:
    found = {name: result for name, result in stages.items() if result.get("jobs")}
    if not found:
        return []

    def training(job: Result) -> float:
        return job["steps"] / job["steps_per_second"] if job["steps_per_second"] else 0.0

    totals = [
        [name, f"{number(result['seconds'])} s", f"{number(sum(job['seconds'] for job in result['jobs']))} s",
         f"{number(sum(map(training, result['jobs'])))} s", len(result["jobs"])]
        for name, result in found.items()
    ]  # fmt: skip
    title = f"`python train.py {' '.join(next(iter(found.values()))['typed'])}`, from the start of Python to its end:"
    lines = rows(title, ["", "the command", "sum of its jobs", "of these, training steps", "jobs"], totals)
    names = list(dict.fromkeys(job["name"] for result in found.values() for job in result["jobs"]))
    jobs = {name: {job["name"]: job for job in result["jobs"]} for name, result in found.items()}

    def cell(job: Result | None) -> str:
        if job is None:
            return ""
        speed = f", {number(job['steps_per_second'])} steps/s" if job["steps_per_second"] else ""
        return f"{number(job['seconds'])} s{speed}{'' if job['status'] == 'completed' else ', ' + job['status']}"

    each = [[name, *(cell(jobs[column].get(name)) for column in found)] for name in names]
    return [*lines, *rows("Each job:", ["job", *found], each)]


def page(content: Result) -> str:
    """The results as Markdown."""
    stages: dict[str, Result] = content["stages"]
    lines = ["# Measured on a GPU" if content["environment"]["device"].startswith("cuda") else "# Tried on a CPU", ""]
    if content["quick"]:
        lines += ["With tiny images and few steps, to try the script: these numbers mean nothing.", ""]
    machine = ", ".join(f"{key} {value}" for key, value in content["environment"].items())
    ended = [[name, number(result["seconds"]), result.get("error", "")] for name, result in stages.items()]
    lines += rows(machine, ["stage", "seconds", "error"], ended)
    if "tests" in stages and "passed" in stages["tests"]:
        tests = stages["tests"]
        counts = ", ".join(f"{len(tests[outcome])} {outcome}" for outcome in ("passed", "failed", "broken", "skipped"))
        lines += ["## Tests", "", f"{counts}.", "", *(f"- {name}" for name in [*tests["failed"], *tests["broken"]]), ""]
    if stages.get("steps", {}).get("steps") or stages.get("compiled steps", {}).get("steps"):
        lines += ["## Steps", "", *step_tables(stages), ""]
    if stages.get("host work", {}).get("rows"):
        lines += ["## Host work", "", table([stages["host work"]]), ""]
    if sweeps := sweep_tables(stages):
        lines += ["## Sweeps", "", *sweeps]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"
