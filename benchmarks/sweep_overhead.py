"""Time of a sweep against the sum of its jobs: the overhead of planning, tables, pictures and HPARAMS.

    python benchmarks/sweep_overhead.py --jobs 4 --steps 500
    python benchmarks/sweep_overhead.py --jobs 9 trainer.threads=1

Runs a sweep over `--jobs` learning rates by the documented command, in a temporary folder. The time of a job is the
seconds in its run.json; the time of the sweep is from its first to its last line. Starting Python costs the same for one
job or a hundred; its time is printed apart.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import CONF, Row, arguments, pick_device, report, trainer_group


def swept(folder: Path, jobs: int, steps: int, more: list[str]) -> tuple[float, float, float]:
    """Seconds of a sweep, of all its jobs, and of the time before its first line."""
    rates = ",".join(f"{0.001 * (place + 1):g}" for place in range(jobs))
    typed = [f"lr={rates}", f"trainer.max_steps={steps}", "trainer.progress_bar=false", "name=measured", *more]
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(CONF.parent / "train.py"), "-m", *typed], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    first = last = started
    for line in process.stdout:
        last = time.perf_counter()
        if line.startswith("Sweep: "):
            first = last
    if process.wait() != 0:
        raise SystemExit(f"the sweep ended with {process.returncode}")
    records = [json.loads(path.read_text()) for path in folder.glob("multirun/measured/*/run.json")]
    assert len(records) == jobs
    return last - first, sum(record["seconds"] for record in records), first - started


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=500, help="steps of each job (a default training has 1,000)")
    options, overrides = parser.parse_known_args()
    device = pick_device(options.device)
    whole, parts = [], []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            sweep, jobs, start = swept(Path(folder), options.jobs, options.steps, [trainer_group(device), *overrides])
        print(f"sweep {sweep:.1f} s, jobs {jobs:.1f} s; {start:.1f} s before it", flush=True)
        whole.append(sweep)
        parts.append(jobs)
    what = f"a sweep of {options.jobs} jobs of {options.steps} steps"
    rows = [Row(what, "the sum of its jobs", whole, parts, "cost", 1.02, unit="sweep")]
    report("sweep_overhead", rows, device, options.json)


if __name__ == "__main__":
    main()
