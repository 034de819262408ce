"""Overhead of sweeps with hundreds or thousands of jobs: at the end of a job, and in the report.

    python benchmarks/sweep_scale.py --json docs/measured/sweep_scale.json
    python benchmarks/sweep_scale.py --jobs 200 2000

Trains a sweep of one tiny job by the documented command and copies its run directory, without checkpoints, `--jobs` times.
Each copy gets another result, for one of two optimizers, three seeds and many learning rates. All times are CPU seconds of
this process: for the end of a job (everything after run.json is written), reading every run.json (when a sweep is resumed),
writing sweep.json and the tables (done again after 50 times as long), and the whole report.
"""

import argparse
import contextlib
import io
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import CONF, environment, pick_device

from segsweep.sweeps.report import print_report, write_report
from segsweep.sweeps.running import RunningSweep
from segsweep.sweeps.state import SweepDirectory

SEEDS, OPTIMIZERS = (0, 1, 2), ("sgd", "adam")


def one_job(folder: Path) -> Path:
    """Trains a sweep of one job and returns its directory."""
    typed = ["debug=fast", "callbacks.graph=null", "callbacks.panel=null", "callbacks.confusion=null", "trainer=cpu"]
    subprocess.run(
        [sys.executable, str(CONF.parent / "train.py"), "-m", *typed, "optim=adam", "lr=0.01", "name=one"],
        cwd=folder, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    return folder / "multirun/one"


def many_jobs(one: Path, sweep: Path, jobs: int) -> None:
    """Makes a sweep of completed jobs from copies of the job of `one`."""
    content = json.loads((one / "sweep.json").read_text(encoding="utf-8"))
    (template,) = content["jobs"]
    run = one / template["directory"]
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    generator = np.random.default_rng(0)
    sweep.mkdir()
    content["jobs"], content["axes"] = [], ["optim", "lr", "seed"]
    for number in range(jobs):
        setting, seed = divmod(number, len(SEEDS))
        optim, lr = OPTIMIZERS[setting % len(OPTIMIZERS)], 0.5 / (1 + setting // len(OPTIMIZERS))
        values = {"optim": optim, "lr": lr, "seed": seed}
        directory = ",".join(f"{key}={value}" for key, value in values.items())
        folder = sweep / directory
        folder.mkdir()
        shutil.copy(run / "metrics.csv", folder)
        shutil.copytree(run / "tensorboard", folder / "tensorboard")
        value = 0.9 - 0.1 * abs(np.log10(lr) + 2) + 0.01 * generator.standard_normal()
        metrics = record["metrics"] | {record["objective"]["name"]: value}
        own = {"seed": seed, "objective": record["objective"] | {"value": value}, "metrics": metrics}
        (folder / "run.json").write_text(json.dumps(record | own), encoding="utf-8")
        settings = {"optim._target_": f"segsweep.tasks.{optim}", "lr": lr, "optim.lr": lr, "seed": seed}
        own = {
            "key": f"{number:012x}",
            "number": number,
            "directory": directory,
            "values": values,
            "settings": settings,
        }
        content["jobs"].append(template | own)
    (sweep / "sweep.json").write_text(json.dumps(content), encoding="utf-8")


def cpu(action: Callable[[], object]) -> float:
    """CPU seconds of a call in this process; hides its output."""
    started = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        action()
    return time.process_time() - started


def measured(sweep: SweepDirectory, ends: int) -> dict[str, Any]:
    """CPU seconds of a sweep's work at the end of a job, and after the last job.

    Args:
        sweep: a sweep of completed jobs.
        ends: number of jobs to end once more; each takes less than a millisecond, so the median is returned.
    """
    record = sweep.read()
    started = time.process_time()
    here = RunningSweep(sweep, record)
    opened = time.process_time() - started
    written = cpu(here.save_planned)
    # The files are written again only after 50 times as long, so not at any of these ends.
    each = [cpu(partial(here.ended, job)) for job in record.jobs[:ends]]
    assert here.results.compared is not None
    return {
        "jobs": len(record.jobs), "settings": len(here.results.compared.table), "end_of_a_job": statistics.median(each),
        "reading_all": opened, "sweep_json_and_tables": written, "report": cpu(lambda: print_report(write_report(sweep))),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[200, 2_000, 10_000])
    parser.add_argument("--ends", type=int, default=50, help="number of jobs to end once more; the median is taken")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to FILE")
    options = parser.parse_args()
    sizes = []
    with tempfile.TemporaryDirectory() as folder:
        one = one_job(Path(folder))
        for jobs in options.jobs:
            sweep = Path(folder) / str(jobs)
            many_jobs(one, sweep, jobs)
            sizes.append(measured(SweepDirectory(sweep), options.ends))
            shutil.rmtree(sweep)
            print(json.dumps(sizes[-1]), flush=True)
    least, most = sizes[0], sizes[-1]
    ratio = most["end_of_a_job"] / least["end_of_a_job"]
    print(f"the end of a job at {most['jobs']:,} jobs: {ratio:.2f} times that at {least['jobs']:,}")
    if options.json is not None:
        content = {
            "benchmark": "sweep_scale", "environment": environment(pick_device("cpu")), "rows": [],
            "end_of_a_job_ratio": ratio, "sizes": sizes,
        }  # fmt: skip
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
