"""benchmarks/gpu.py: its stages end in time and leave what they found, and its page shows all of it."""

import importlib
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from support import ROOT


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delitem(sys.modules, "gpu", raising=False)
    return importlib.import_module("gpu")


def step(way: str, speed: float, **more: Any) -> dict[str, Any]:
    what = {"net": "texture", "batch_size": 8, "precision": "32-true", "way": way, "seconds": [1 / speed]}
    return what | {"steps_per_second": speed, "images_per_second": 8 * speed, "peak_bytes": 3 << 29} | more


def job(name: str, seconds: float, status: str = "completed") -> dict[str, Any]:
    return {"name": name, "status": status, "device": "a GPU", "precision": "32-true", "steps": 1000,
            "steps_per_second": 400.0, "seconds": seconds}  # fmt: skip


def results() -> dict[str, Any]:
    failed = {
        "net": "unet",
        "batch_size": 128,
        "precision": "16-mixed",
        "way": "graph",
        "error": "OutOfMemoryError: full",
    }
    host = {"what": "ours", "against": "plain", "ours": [2e-3], "baseline": [1e-3], "sense": "cost", "target": 1.12,
            "unit": "step"}  # fmt: skip
    repeated = {"net": "texture", "precision": "32-true", "deterministic": False, "equal": False, "apart": 3.5e-8}
    typed = ["-m", "lr=0.1,0.01"]
    stages = {
        "steps": {
            "steps": [step("eager", 515.0), step("graph", 2345.0, weights_apart=1.5e-7), step("trainer", 407.0), failed],
            "made": [{"batch_size": 8, "seconds": [321e-6]}], "repeated": [repeated], "left_out": ["steps: the last one"],
            "seconds": 61.0,
        },
        "sweep": {"seconds": 47.0, "typed": typed, "jobs": [job("lr=0.1", 6.25), job("lr=0.01", 7.75, "failed")]},
        "sweep in 2 processes": {"seconds": 31.0, "typed": [*typed, "-v"], "jobs": [job("lr=0.1", 9.5)]},
        "tests": {"seconds": 90.0, "passed": ["one", "two"], "failed": ["test_three"], "broken": [], "skipped": []},
        "host work": {"seconds": 20.0, "environment": {"device": "cuda (a GPU)"}, "rows": [host]},
        "compiled steps": {"seconds": 50.0, "steps": [step("compiled", 777.0)], "left_out": []},
    }  # fmt: skip
    return {"environment": {"device": "cuda (a GPU)", "driver": "580.1"}, "quick": False, "stages": stages}


def test_the_page_shows_every_number_and_is_the_same_from_the_file(gpu: ModuleType):
    content = results()
    text = gpu.page(content)
    assert text == gpu.page(json.loads(json.dumps(content)))
    for shown in (
        "580.1",
        "train.py -m lr=0.1,0.01`",
        "515 steps/s", "4,120 images/s", "1.50 GiB", "2,345 steps/s", "1.5e-07", "407 steps/s", "777 steps/s",
        "OutOfMemoryError: full", "321 µs", "3.5e-08", "no time for steps: the last one", "47 s", "14 s", "5 s", "31 s",
        "6.25 s", "7.75 s", "failed", "9.5 s", "2 passed, 1 failed", "- test_three", "2.00 (2.00 to 2.00)",
    ):  # fmt: skip
        assert shown in text, shown
    widths = [{line.count("|") for line in block.splitlines() if line.startswith("|")} for block in text.split("\n\n")]
    assert all(len(found) <= 1 for found in widths)


def test_an_error_of_any_stage_is_on_the_page(gpu: ModuleType):
    for name in gpu.STAGES:
        content = results() | {"stages": {name: {"error": "RuntimeError: snapped", "seconds": 1.5}}}
        assert f"| {name} | 1.5 | RuntimeError: snapped |" in gpu.page(content)


def test_a_stage_that_raises_leaves_its_error_and_one_without_time_does_not_begin(gpu: ModuleType):
    device = torch.device("cpu")
    result = gpu.timed(lambda place: {}[place.device], device, True, 1, 60.0)
    assert result["error"] == "KeyError: 'cpu'"
    assert gpu.timed(lambda place: {}[place.device], device, True, 1, 1.0)["error"] == "no time left"


def test_a_command_that_takes_too_long_is_ended_with_its_children(gpu: ModuleType, tmp_path: Path):
    place = gpu.Place("cpu", True, 1, tmp_path, 0.5)
    result = gpu.run(["sh", "-c", "echo begun; sleep 60 & echo $!; wait"], place)
    assert result["error"] == "took longer than 0.5 s"
    begun, child = result["output"]
    assert begun == "begun"
    for _ in range(100):
        if not running(int(child)):
            break
        time.sleep(0.05)
    assert not running(int(child))
    assert gpu.run(["sh", "-c", "echo no; exit 3"], place)["error"] == "ended with 3: no"
    assert "error" not in gpu.run(["true"], place)


def running(pid: int) -> bool:
    """Whether a process runs; one that ended may wait for its parent."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.parametrize(
    ("typed", "named"), [("--minutes 0", "--minutes"), ("--stages naps", "naps"), ("--device tpu", "tpu")]
)
def test_a_wrong_argument_is_named(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, named: str
):
    monkeypatch.setattr(sys, "argv", ["gpu.py", *typed.split()])
    with pytest.raises(SystemExit) as raised:
        gpu.main()
    assert raised.value.code == 2
    assert named in capsys.readouterr().err
