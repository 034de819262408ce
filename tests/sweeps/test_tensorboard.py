"""`tensorboard --logdir multirun/<sweep>` shows every job by its name, with its swept values and final metrics."""

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support import ROOT
from sweep_support import TINY
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from segsweep.runs import RunDirectory
from segsweep.sweeps.hparams import SUFFIX
from segsweep.sweeps.report import write_report
from segsweep.sweeps.state import SweepDirectory

pytestmark = pytest.mark.slow  # a sweep and a TensorBoard server

Ask = Callable[..., Any]
JOBS = [f"lr={rate},momentum={momentum}" for rate in ("0.01", "1e+30") for momentum in ("null", "0.9")]
RUNS = [f"{job}/tensorboard" for job in JOBS]
ANY_STATUS = ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING", "STATUS_UNKNOWN"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with two completed and two diverged jobs, reported twice."""
    folder = tmp_path_factory.mktemp("tensorboard")
    command = [sys.executable, str(ROOT / "train.py"), "-m", *TINY, "lr=0.01,1e30", "momentum=null,0.9", "name=tb"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 1, ended.stderr
    write_report(SweepDirectory(folder / "multirun/tb"))
    return folder / "multirun/tb"


@pytest.fixture(scope="module")
def ask(swept: Path) -> Iterator[Ask]:
    """Sends a request to a TensorBoard server on the sweep: a path, and data to post as keywords."""
    command = [sys.executable, "-m", "tensorboard.main", "--host", "localhost", "--logdir", str(swept), "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert server.stderr is not None
        said = next((line for line in server.stderr if " at http" in line), "TensorBoard ended without an address")
        address = re.search(r"http://\S+?:\d+/", said)
        assert address is not None, said

        def answer(path: str, **posted: Any) -> Any:
            data = json.dumps(posted).encode() if posted else None
            request = urllib.request.Request(address[0] + path, data, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)

        deadline = time.monotonic() + 60
        while not all_read(rows(answer)) and time.monotonic() < deadline:
            time.sleep(0.5)
        yield answer
    finally:
        server.terminate()
        server.wait(30)


def rows(ask: Ask) -> dict[str, dict[str, Any]]:
    """The table of the HPARAMS tab."""
    groups = ask("data/plugin/hparams/session_groups", allowedStatuses=ANY_STATUS, sliceSize=100)["sessionGroups"]
    return {
        group["name"]: {
            "values": group["hparams"],
            "status": group["sessions"][0]["status"],
            "done": group["sessions"][0]["status"] == "STATUS_SUCCESS",
            "metrics": {value["name"]["tag"]: value["value"] for value in group.get("metricValues", [])},
        }
        for group in groups
    }


def all_read(table: dict[str, dict[str, Any]]) -> bool:
    """Whether the server, which reads in the background, has read every file."""
    return len(table) == len(JOBS) and all(row["metrics"] for row in table.values() if row["done"])


def columns(ask: Ask) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The columns of the HPARAMS tab in order: swept settings by name, and tags of metrics by name."""
    experiment = ask("data/plugin/hparams/experiment", experimentName="")
    settings = {info["name"]: info for info in experiment["hparamInfos"]}
    return settings, {info["displayName"]: info["name"]["tag"] for info in experiment["metricInfos"]}


def test_runs_are_named_by_their_swept_values(ask: Ask):
    assert sorted(ask("data/runs")) == sorted(RUNS)


def test_hparams_has_a_row_for_every_job_even_failed_ones(ask: Ask):
    table = rows(ask)
    assert sorted(table) == sorted(JOBS)
    for name, row in table.items():
        rate, momentum = (part.partition("=")[2] for part in name.split(","))
        ended = "completed" if rate == "0.01" else "diverged"
        assert row["values"] == {"lr": float(rate), "momentum": momentum, "status": ended}
        assert row["status"] == ("STATUS_SUCCESS" if ended == "completed" else "STATUS_FAILURE")


def test_hparams_shows_the_final_metrics_of_summary_csv_and_none_of_a_job_that_diverged(ask: Ask, swept: Path):
    summary = pd.read_csv(swept / "summary.csv").set_index("directory")
    _, tags = columns(ask)
    for name, row in rows(ask).items():
        if not row["done"]:
            assert row["metrics"] == {}
            continue
        assert {metric: row["metrics"][tag] for metric, tag in tags.items()} == {
            metric: pytest.approx(summary[metric][name], abs=1e-6) for metric in tags
        }


def test_hparams_columns_begin_with_settings_that_differ_and_metrics_with_the_objective(ask: Ask, swept: Path):
    settings, tags = columns(ask)
    assert list(settings) == ["lr", "momentum", "status"], "optim and seed are the same in all jobs"
    assert all(info["differs"] for info in settings.values())
    assert settings["lr"]["type"] == "DATA_TYPE_FLOAT64"
    assert settings["momentum"]["domainDiscrete"] == ["0.9", "null"]
    assert list(tags)[:5] == ["val/iou", "val/loss", "test/iou", "test/loss", "train/loss_running"]
    metrics = [name for name in pd.read_csv(swept / "summary.csv") if name.startswith(("val/", "test/"))]
    assert set(metrics) == set(tags) - {"train/loss_running"}


def test_scalars_show_curves_and_no_group_of_single_points(ask: Ask):
    found = ask("data/plugin/scalars/tags")
    for run in RUNS:
        groups = {tag.partition("/")[0] for tag in found.get(run, {})}
        assert groups == ({"1: train", "2: val", "3: test"} if "1e+30" not in run else groups & {"1: train"})
    curve = ask(f"data/plugin/scalars/scalars?tag=2:%20val/iou&run={RUNS[0]}")
    assert [step for _, step, _ in curve] == [2, 4]
    test = ask(f"data/plugin/scalars/scalars?tag=3:%20test/iou&run={RUNS[0]}")
    assert len(test) == 1, "the test was logged, and must not be there twice"
    best = ask(f"data/plugin/scalars/scalars?tag=2:%20val/iou%20(best)&run={RUNS[0]}")
    assert [value for _, _, value in best] == [max(value for _, _, value in curve)]


def test_a_second_report_replaces_the_hparams_files(swept: Path):
    for job in JOBS:
        assert len(list(RunDirectory(swept / job).tensorboard.glob(f"*{SUFFIX}"))) == 1


def test_an_equal_report_leaves_the_hparams_files_untouched(swept: Path):
    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in swept.rglob(f"*{SUFFIX}")}

    before = files()
    write_report(SweepDirectory(swept))
    assert files() == before
    assert len(before) == len(JOBS)


def test_hparams_has_the_metrics_without_the_tensorboard_logger(swept: Path, tmp_path: Path):
    sweep = Path(shutil.copytree(swept, tmp_path / "tb"))
    folder = RunDirectory(sweep / JOBS[0]).tensorboard
    shutil.rmtree(folder)
    write_report(SweepDirectory(sweep))
    (file,) = folder.iterdir()
    values = {value.tag for event in EventFileLoader(str(file)).Load() for value in event.summary.value}
    assert {"2: val/iou (best)", "3: test/iou", "1: train/loss_running"} <= values
