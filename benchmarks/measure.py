"""Timing of alternatives in turn in one process, and the ratios: printed and stored."""

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

from segsweep.runs.files import write_text

CONF = Path(__file__).resolve().parents[1] / "conf"

Measure = Callable[[], float]
"""Takes one measurement and returns seconds; `Row.unit` says for what."""


@dataclass(frozen=True)
class Row:
    """A comparison of two timings, with a target for their ratio.

    Args:
        what, against: descriptions of ours and of the baseline.
        ours, baseline: measured seconds, in the order of the measurements.
        sense: "speedup" is baseline / ours, at least `target`; "cost" is ours / baseline, at most `target`.
        target: None if this device has no target.
        unit: the seconds are for one of these.
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
        """Ratio of each round; a baseline that was measured in fewer rounds is taken from the nearest one."""
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
        """Both medians, and the ratio with its range, as text."""
        low, high = _number(min(self.ratios)), _number(max(self.ratios))
        ours, baseline = (_seconds(statistics.median(times)) for times in (self.ours, self.baseline))
        article = "an" if self.unit[0] in "aeiou" else "a"
        return f"{ours} {article} {self.unit}", f"{baseline}", f"{_number(self.ratio)} ({low} to {high})"

    def __str__(self) -> str:
        ours, baseline, ratio = self.cells()
        text = f"{self.what}: {ours}; {self.against}: {baseline}\n    ratio {ratio}"
        text += f" from {len(self.ours)} of ours and {len(self.baseline)} of the baseline"
        if self.target is not None:
            bound = "at least" if self.sense == "speedup" else "at most"
            text += f"; target {bound} {self.target:,g}: {'met' if self.met else 'NOT MET'}"
        return text


def timing(action: Callable[[], object], device: torch.device, warm_up: bool = True, seconds: float = 0.3) -> Measure:
    """A measure of the mean seconds of a call of `action`, work on the device included.

    Args:
        action: the function to time.
        device: device that it runs on.
        warm_up: call it a few times first and choose the calls in a measurement; False measures a single call.
        seconds: approximate length of a measurement.
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
    """Takes all measures in turn, round by round, so that other load on the machine affects all of them.

    Args:
        measures: measures by name.
        repeats: number of rounds.
        rarely: names of very slow measures, taken only in the first and the last round.
    """
    times: dict[str, list[float]] = defaultdict(list)
    for turn in range(repeats):
        for name, measure in measures.items():
            if name not in rarely or turn in (0, repeats - 1):
                times[name].append(measure())
    return dict(times)


def synchronize(device: torch.device) -> None:
    """Waits until a GPU has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def arguments(description: str | None, repeats: int = 5) -> argparse.ArgumentParser:
    """The options of every benchmark. OMP_NUM_THREADS sets the number of threads."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument("--repeats", type=_positive, default=repeats, help=f"rounds (default {repeats})")
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to FILE")
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
    """The override to train on `device`."""
    return "trainer=gpu" if device.type == "cuda" else "trainer=cpu"


def environment(device: torch.device) -> dict[str, str]:
    """Device with its vector instructions, threads, torch version and date of the measurements."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {
        "device": f"{device.type} ({name})",
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()}",
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


def cpu_name() -> str:
    """Name of the processor, and which of the instructions that decide the speed it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", "").split()
    instructions = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return " ".join([fields.get("model name", platform.machine()), *instructions])


def report(name: str, rows: Sequence[Row], device: torch.device, file: Path | None) -> None:
    """Prints the rows, and writes them to `file` if given."""
    machine = environment(device)
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    for row in rows:
        print(row)
    if file is not None:
        content = {"benchmark": name, "environment": machine, "rows": [row.to_dict() for row in rows]}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def put_in(page: Path, name: str, text: str) -> None:
    """Puts text between the marks `<!-- name -->` and `<!-- end of name -->` of a page.

    Raises:
        SystemExit: the page lacks the marks.
    """
    start, close = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, found, rest = page.read_text(encoding="utf-8").partition(start)
    _, closed, after = rest.partition(close)
    if not found or not closed:
        raise SystemExit(f"{page}: has no line {start.strip()} before {close.strip()}; add both")
    write_text(page, f"{before}{start}{text}{close}{after}")


def _seconds(value: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{_number(value / scale)} {unit}"
    return f"{_number(value / 1e-9)} ns"


def _number(value: float) -> str:
    """Three significant digits; two below 0.1."""
    if value < 0.1:
        return f"{value:.2g}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 10 else f"{value:.2f}"
