"""Ratios between things timed in turn in one process, and how they are printed and stored."""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import torch

CONF = Path(__file__).resolve().parents[1] / "conf"

Measure = Callable[[], float]
"""Takes one measurement and gives seconds: per call, per step or per pixel, as its row says."""


@dataclass(frozen=True)
class Row:
    """One comparison: what was timed, against what, and the bound that the ratio should keep.

    Args:
        what, against: in words.
        ours, baseline: seconds, a measurement each, in the order in which they were taken.
        sense: "speedup" gives baseline / ours, which should be at least `target`; "cost" gives ours / baseline, which
            should be at most `target`.
        target: None where there is none on this device.
        unit: what the seconds are for.
    """

    what: str
    against: str
    ours: Sequence[float]
    baseline: Sequence[float]
    sense: Literal["speedup", "cost"]
    target: float | None = None
    unit: str = "call"

    @property
    def ratios(self) -> list[float]:
        """Every measurement of ours with the baseline's of the same round; with the nearest of one measured rarely."""
        rounds = len(self.ours)
        pairs = [(own, self.baseline[i * len(self.baseline) // rounds]) for i, own in enumerate(self.ours)]
        return [base / own if self.sense == "speedup" else own / base for own, base in pairs]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.ratio >= self.target if self.sense == "speedup" else self.ratio <= self.target

    def to_dict(self) -> dict[str, Any]:
        spread = {"ratio": self.ratio, "ratio_min": min(self.ratios), "ratio_max": max(self.ratios), "met": self.met}
        return dataclasses.asdict(self) | spread

    def cells(self) -> tuple[str, str, str]:
        """The two medians, and the ratio with its spread."""
        low, high = _number(min(self.ratios)), _number(max(self.ratios))
        ours, baseline = (_seconds(statistics.median(times)) for times in (self.ours, self.baseline))
        return f"{ours} a {self.unit}", f"{baseline}", f"{_number(self.ratio)} ({low} to {high})"

    def __str__(self) -> str:
        ours, baseline, ratio = self.cells()
        text = f"{self.what}: {ours}; {self.against}: {baseline}\n    ratio {ratio}"
        text += f" from {len(self.ours)} of ours and {len(self.baseline)} of the baseline"
        if self.target is not None:
            bound = "at least" if self.sense == "speedup" else "at most"
            text += f"; target {bound} {self.target:,g}: {'met' if self.met else 'NOT MET'}"
        return text


def timing(action: Callable[[], object], device: torch.device, warm_up: bool = True, seconds: float = 0.3) -> Measure:
    """A measure of the seconds that a call of `action` takes, as a mean over calls that fill `seconds`.

    Args:
        action: what is timed; what it leaves running on `device` is waited for.
        device: where it runs.
        warm_up: call it a few times first, and find out how many calls a measurement takes; else it takes one.
        seconds: least length of a measurement.
    """

    def measure(calls: int) -> float:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(calls):
            action()
        synchronize(device)
        return (time.perf_counter() - start) / calls

    calls = 1
    if warm_up:
        measure(3)
        calls = max(1, round(seconds / measure(2)))
    return lambda: measure(calls)


def interleave(measures: Mapping[str, Measure], repeats: int, rarely: Collection[str] = ()) -> dict[str, list[float]]:
    """Takes every measure in turn, round by round, so that whatever else the machine does falls on all of them.

    Args:
        measures: by name.
        repeats: rounds.
        rarely: the names that are taken in the first and in the last round only, for what takes very long.
    """
    times: dict[str, list[float]] = defaultdict(list)
    for turn in range(repeats):
        for name, measure in measures.items():
            if name not in rarely or turn in (0, repeats - 1):
                times[name].append(measure())
    return dict(times)


def synchronize(device: torch.device) -> None:
    """Waits for what was started on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def arguments(description: str | None, repeats: int = 5) -> argparse.ArgumentParser:
    """The options that every benchmark has. The number of threads is torch's: OMP_NUM_THREADS sets it."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument("--repeats", type=_positive, default=repeats, help=f"rounds (default {repeats})")
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def pick_device(name: str) -> torch.device:
    """The device of `--device`.

    Raises:
        SystemExit: CUDA was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch sees no CUDA GPU on this machine; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def trainer_group(device: torch.device) -> str:
    """The override that has train.py train on `device`."""
    return "trainer=gpu" if device.type == "cuda" else "trainer=cpu"


def environment(device: torch.device) -> dict[str, str]:
    """What the numbers depend on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "device": f"{device.type} ({name})",
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()}",
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def report(name: str, rows: Sequence[Row], device: torch.device, file: Path | None) -> None:
    """Prints the rows, and writes them to `file` where one is given."""
    machine = environment(device)
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    for row in rows:
        print(row)
    if file is not None:
        content = {"benchmark": name, "environment": machine, "rows": [row.to_dict() for row in rows]}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _seconds(value: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{_number(value / scale)} {unit}"
    return f"{_number(value / 1e-9)} ns"


def _number(value: float) -> str:
    """Three digits that count; two of a small one."""
    if value < 0.1:
        return f"{value:.2g}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 10 else f"{value:.2f}"
