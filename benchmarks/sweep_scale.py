"""What a sweep costs beside its trainings when it has hundreds or thousands of jobs: the end of a job, and the report.

    python benchmarks/sweep_scale.py --json docs/measured/sweep_scale.json
    python benchmarks/sweep_scale.py --jobs 200 2000

A sweep of one tiny job is trained by the documented command, and its run directory is copied as many times, without
checkpoints. Each copy has another result: two optimizers, three seeds, the rest learning rates. All times are CPU seconds
of this process. It measures the end of a job (everything after run.json is written), reading every run.json (when a sweep
goes on), sweep.json and the tables (written again after 50 times as long), and the whole report.
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

from segsweep.sweeps.report import finish
from segsweep.sweeps.running import RunningSweep
from segsweep.sweeps.state import SweepDirectory

SEEDS, OPTIMIZERS = (0, 1, 2), ("sgd", "adam")


def one_job(folder: Path) -> Path:
    """Trains a sweep of one job; gives its directory."""
    typed = ["debug=fast", "callbacks.graph=null", "callbacks.panel=null", "callbacks.confusion=null", "trainer=cpu"]
    subprocess.run(
        [sys.executable, str(CONF.parent / "train.py"), "-m", *typed, "optim=adam", "lr=0.01", "name=one"],
        cwd=folder, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    return folder / "multirun/one"


def many_jobs(one: Path, sweep: Path, jobs: int) -> None:
    """Makes a sweep of so many completed jobs of copies of `one`'s."""
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
    """CPU seconds that a call takes in this process. Its output is dropped."""
    started = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        action()
    return time.process_time() - started


def measured(sweep: SweepDirectory, ends: int) -> dict[str, Any]:
    """CPU seconds of what happens while the jobs of a sweep run, and when all have ended.

    Args:
        sweep: of completed jobs.
        ends: how many of its jobs end once more; a part of a millisecond each, so the median is taken.
    """
    record = sweep.read()
    started = time.process_time()
    here = RunningSweep(sweep, record)
    opened = time.process_time() - started
    written = cpu(here.save_planned)
    # The next one is due after 50 times as long, so none of these ends brings the files up to date.
    each = [cpu(partial(here.ended, job)) for job in record.jobs[:ends]]
    assert here.results.compared is not None
    return {
        "jobs": len(record.jobs), "settings": len(here.results.compared.table), "end_of_a_job": statistics.median(each),
        "reading_all": opened, "sweep_json_and_tables": written, "report": cpu(lambda: finish(sweep)),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[200, 2_000, 10_000])
    parser.add_argument("--ends", type=int, default=50, help="jobs that end once more, of which the median is taken")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
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
