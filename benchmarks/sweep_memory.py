"""Memory of the process of a long sweep: its resident size after each job, and the growth a job.

    python benchmarks/sweep_memory.py --json docs/measured/sweep_memory.json --picture docs/images/sweep_memory.png

Runs one sweep of tiny jobs by the documented command, with all default callbacks, and reads the size of its process when it
prints the end of a job. The first half of the jobs fills caches; the growth is the slope of a line through the second half.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from measure import CONF, environment, pick_device

from segsweep import plots

TARGET = 0.1  # MB a job


def resident(process: int) -> float:
    """Resident size of a process in MB."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1000


def sizes(folder: Path, jobs: int, overrides: list[str]) -> list[float]:
    """Resident size after each job, in MB."""
    tiny = ["trainer.max_steps=2", "data.image_size=64", "data.batch_size=2", "trainer=cpu", *overrides]
    command = [sys.executable, str(CONF.parent / "train.py"), "-m", f"seed=range({jobs})", "name=memory", *tiny]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = [resident(process.pid) for line in process.stdout if line.startswith("[")]
    if process.wait() != 0 or len(found) != jobs:
        raise SystemExit(f"the sweep ended with {process.returncode}, after {len(found)} of {jobs} jobs")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to FILE")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw the curve into FILE")
    options, overrides = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        found = sizes(Path(folder), options.jobs, overrides)
    half = options.jobs // 2
    growth = float(np.polyfit(range(options.jobs - half), found[half:], 1)[0])
    print(f"{found[0]:.0f} MB after the first job, {found[-1]:.0f} MB after {options.jobs}")
    print(f"{growth:.3f} MB a job over the last {options.jobs - half}; target at most {TARGET}: "
          f"{'met' if growth <= TARGET else 'NOT MET'}")  # fmt: skip
    if options.json:
        content = {
            "benchmark": "sweep_memory", "environment": environment(pick_device("cpu")), "rows": [],
            "jobs": options.jobs, "megabytes": [round(size, 1) for size in found], "megabytes_a_job": round(growth, 4),
        }  # fmt: skip
        options.json.write_text(json.dumps(content) + "\n", encoding="utf-8")
    if options.picture:
        table = pd.DataFrame({"job": range(1, options.jobs + 1), "resident size (MB)": found})
        title = f"One process, {options.jobs} jobs of two steps"
        figure = plots.curves(
            {"the sweep's process": table}, "resident size (MB)", "job", title=title, limits=(0, 1.25 * max(found))
        )
        plots.save(figure, options.picture)


if __name__ == "__main__":
    main()
