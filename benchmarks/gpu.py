"""Everything to measure on a GPU, within minutes: tests, steps, host work, and sweeps in one process and in several.

    python benchmarks/gpu.py --json gpu.json --page gpu.md
    python benchmarks/gpu.py --device cpu --quick --json gpu.json --page gpu.md

Each stage runs in its own process with a time limit. If one fails or takes too long, its error and its numbers so far are
kept, and the next one begins. The JSON file and the page are written after every stage. `--quick` does the same with
tiny images and few steps, to try the script; its numbers mean nothing.
"""

import importlib.util
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from gpu_page import Result, number, page
from measure import CONF, arguments, cpu_name, environment, pick_device

from segsweep.errors import first_line
from segsweep.runs.files import write_json, write_text

ROOT = CONF.parent
BENCHMARKS = ROOT / "benchmarks"
GRID = ["optim=sgd,adam,rmsprop", "lr=0.001,0.01,0.1"]
TINY = ["debug=fast", "data.image_size=32", "callbacks.graph=null"]
OUTCOMES = {"passed": "PASSED", "failed": "FAILED", "broken": "ERROR", "skipped": "SKIPPED"}
LEAST = 10.0
"""A stage begins only if so many seconds are left."""


@dataclass(frozen=True)
class Place:
    """Where a stage runs.

    Args:
        device: "cpu" or "cuda".
        quick: tiny sizes.
        repeats: rounds of a measurement.
        folder: an empty folder of its own.
        limit: seconds it may take.
    """

    device: str
    quick: bool
    repeats: int
    folder: Path
    limit: float


def run(command: Sequence[str | Path], place: Place) -> Result:
    """Runs a command in the stage's folder; ends it and its children at the limit.

    Returns:
        Exit code (None at the limit), seconds and the last lines of the output; "error" unless it ended with 0.
    """
    output, started = place.folder / "output.txt", time.perf_counter()
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=place.folder,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(place.limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:  # also its workers, and also at Ctrl-C
            if process.poll() is None or code:
                kill_group(process)
    lines = output.read_text(errors="replace").splitlines()
    result: Result = {
        "code": code,
        "seconds": time.perf_counter() - started,
        "output": lines[-30:] if code == 0 else lines[-300:],
    }
    if code != 0:
        last = next((line for line in reversed(lines) if line.strip()), "no output")
        result["error"] = f"took longer than {number(place.limit)} s" if code is None else f"ended with {code}: {last}"
    return result


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kills a process that leads its session, and its children."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def with_json(command: Sequence[str | Path], place: Place) -> Result:
    """Runs a benchmark of this folder, and adds the file that it wrote with --json."""
    file = place.folder / "result.json"
    options = ["--device", place.device, "--repeats", str(place.repeats), "--json", str(file)]
    result = run([sys.executable, *command, *options], place)
    return result | (json.loads(file.read_text(encoding="utf-8")) if file.exists() else {})


def steps(place: Place, *more: str) -> Result:
    quick = ["--quick"] if place.quick else []
    # Stops before the limit, to list the measurements that are left.
    return with_json([BENCHMARKS / "gpu_steps.py", *quick, *more, "--seconds", f"{place.limit - LEAST:.0f}"], place)


def compiled(place: Place) -> Result:
    return steps(place, "--compiled")


def host_work(place: Place) -> Result:
    script = BENCHMARKS / "host_work.py"
    if not script.exists():
        return {"error": "benchmarks/host_work.py is not there"}
    return with_json([script], place)


def tests(place: Place) -> Result:
    """The tests marked gpu; on the CPU the quick ones of the same folder."""
    if importlib.util.find_spec("pytest") is None:
        return {"error": "pytest is not installed"}
    # Without the project's options, which need plugins.
    chosen = "gpu" if place.device == "cuda" else "not slow"
    options = [
        "-m",
        chosen,
        "-v",
        "-rfE",
        "--tb=short",
        "-o",
        "addopts=",
        "-p",
        "no:cacheprovider",
        f"--rootdir={ROOT}",
    ]
    files = [ROOT / f"tests/gpu/test_{name}.py" for name in ("numbers", "steps", "commands")]  # the slowest last
    result = run([sys.executable, "-m", "pytest", *files, *options], place)
    text = (place.folder / "output.txt").read_text(errors="replace")
    found = re.findall(r"::(\S+) (PASSED|FAILED|ERROR|SKIPPED)", text)
    for key, word in OUTCOMES.items():
        result[key] = [name for name, outcome in found if outcome == word]
    return result


def sweep(place: Place, *launcher: str) -> Result:
    """Nine jobs by the documented command: seconds of the command, and of each job."""
    tiny = [*TINY, f"trainer={'gpu' if place.device == 'cuda' else 'cpu'}"] if place.quick else []
    typed = ["-m", *GRID, *launcher, *tiny]
    result = run([sys.executable, ROOT / "train.py", *typed], place) | {"typed": typed}
    records = {
        path.parent.name: json.loads(path.read_text()) for path in sorted(place.folder.glob("multirun/**/run.json"))
    }
    kept = ("status", "device", "precision", "steps", "steps_per_second", "seconds")
    result["jobs"] = [{"name": name} | {key: record[key] for key in kept} for name, record in records.items()]
    return result


def joblib(jobs: int) -> Callable[[Place], Result]:
    def stage(place: Place) -> Result:
        try:
            there = importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is not None
        except ModuleNotFoundError:
            there = False
        if not there:
            return {"error": "hydra-joblib-launcher is not installed"}
        return sweep(place, "hydra/launcher=joblib", f"hydra.launcher.n_jobs={jobs}")

    return stage


STAGES: dict[str, tuple[float, Callable[[Place], Result]]] = {
    "steps": (120, steps),
    "sweep": (90, sweep),
    **{f"sweep in {jobs} processes": (75, joblib(jobs)) for jobs in (2, 4, 9)},
    "tests": (140, tests),
    "host work": (60, host_work),
    "compiled steps": (90, compiled),
}
"""Seconds that each may take on a GPU, and `SLOWER` times as many on a CPU; the most wanted first."""
SLOWER = 4


def machine(device: torch.device) -> dict[str, str]:
    """The environment of the measurements."""
    versions = {name: str(__import__(name).__version__) for name in ("lightning", "torchmetrics", "numpy")}
    found = environment(device) | {"processor": cpu_name(), "python": platform.python_version()} | versions
    if device.type == "cuda":
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            driver = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.split("\n")[0].strip()
        except (OSError, subprocess.TimeoutExpired):
            driver = "unknown"
        memory = f"{torch.cuda.get_device_properties(device).total_memory / 2**30:.0f} GiB"
        found |= {"driver": driver, "memory": memory, "cuda": str(torch.version.cuda)}
        found["cudnn"] = str(torch.backends.cudnn.version())
    return found


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--page", type=Path, metavar="FILE", help="also write the results to FILE as Markdown")
    parser.add_argument("--minutes", type=float, default=8.0, help="no stage goes on for longer (default 8)")
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES), help="only these")
    parser.add_argument("--quick", action="store_true", help="tiny images and few steps, to try the script")
    options = parser.parse_args()
    if options.minutes <= 0:
        parser.error(f"--minutes {options.minutes:g}: must be positive")
    device = pick_device(options.device)
    end = time.monotonic() + 60 * options.minutes
    content: Result = {"benchmark": "gpu", "environment": machine(device), "quick": options.quick, "stages": {}}
    for name in options.stages:
        limit, stage = STAGES[name]
        limit = min(limit * (SLOWER if device.type == "cpu" else 1), end - time.monotonic())
        content["stages"][name] = timed(stage, device, options.quick, options.repeats, limit)
        print(
            f"{name}: {content['stages'][name].get('error', 'done')}, {content['stages'][name]['seconds']:.0f} s",
            flush=True,
        )
        if options.json is not None:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            write_json(options.json, content)
        if options.page is not None:
            options.page.parent.mkdir(parents=True, exist_ok=True)
            write_text(options.page, page(content))
    print(page(content))


def timed(stage: Callable[[Place], Result], device: torch.device, quick: bool, repeats: int, limit: float) -> Result:
    """The result of a stage with its seconds; whatever fails in it becomes its error."""
    if limit < LEAST:
        return {"error": "no time left", "seconds": 0.0}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            result = stage(Place(device.type, quick, repeats, Path(folder).resolve(), limit))
        except Exception as error:  # the next stage must run
            result = {"error": f"{type(error).__name__}: {first_line(error)}"}
    return {"seconds": time.perf_counter() - started} | result


if __name__ == "__main__":
    main()
