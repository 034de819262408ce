"""A sweep directory is untrusted: when a sweep continues, nothing stored in it is resolved or imported."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from sweep_support import GRID, Sweep, content, state, statuses

SECRET = "geheim-4711"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)


def assert_nothing_was_resolved(folder: Path) -> None:
    assert not list(folder.rglob("*MADE*"))
    assert not any(SECRET.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("directory", lambda _: "${new_folder:MADE}"),
        ("directory", lambda _: "x${oc.env:SECRET}"),
        ("overrides", lambda there: [*there, "name=${oc.env:SECRET}"]),
        ("overrides", lambda there: ["optim=$\\{oc.env:SECRET\\}", *there[1:]]),
        ("overrides", lambda there: ["optim=../../MADE", *there[1:]]),
    ],
)
def test_an_interpolation_in_a_stored_sweep_is_refused_by_name(
    grid: Path, sweep: Sweep, tmp_path: Path, key: str, change: Callable
):
    stored = content(grid)
    stored["jobs"][0][key] = change(stored["jobs"][0][key])
    (grid / "sweep.json").write_text(json.dumps(stored))
    before = state(grid)
    # A new value makes the command compare the stored jobs with its own.
    outcome = sweep("optim=sgd,adam", "lr=0.1", "name=grid")
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1, outcome.err
    assert "sweep.json: " in outcome.err
    assert {name: file for name, file in state(grid).items() if name in before} == before
    assert_nothing_was_resolved(tmp_path)


def test_no_module_that_a_stored_sweep_names_is_imported(grid: Path, sweep: Sweep, tmp_path: Path, monkeypatch):
    (tmp_path / "strange.py").write_text("import pathlib\npathlib.Path('MADE').touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    stored = content(grid)
    stored["axes"].append("model._target_")
    for job in stored["jobs"]:
        job["overrides"].append("model._target_=strange.Net")
    (grid / "sweep.json").write_text(json.dumps(stored))
    outcome = sweep("optim=sgd,adam", "lr=0.1", "name=grid")
    assert (outcome.code, len(outcome.error_lines)) == (1, 1), outcome.err
    assert_nothing_was_resolved(tmp_path)


def test_a_job_whose_stored_configuration_is_not_plain_starts_again_from_scratch(
    grid: Path, sweep: Sweep, tmp_path: Path
):
    job = next(path.parent for path in sorted(grid.glob("*/run.json")))
    record = json.loads((job / "run.json").read_text())
    (job / "run.json").write_text(json.dumps(record | {"status": "interrupted"}))
    settings = yaml.safe_load((job / "config.yaml").read_text())
    (job / "config.yaml").write_text(yaml.safe_dump(settings | {"name": "${oc.env:SECRET}"}))
    outcome = sweep(*GRID, "name=grid")
    assert outcome.code == 0, outcome.err
    assert statuses(grid)[job.name] == "completed"
    assert yaml.safe_load((job / "config.yaml").read_text()) == settings
    assert_nothing_was_resolved(tmp_path)


def test_a_sweep_whose_command_has_interpolations_continues(sweep: Sweep, tmp_path: Path):
    asked = ["lr=${base}", "data.sigma1='${base}'", "name=mine"]
    assert sweep("+base=0.1,0.2", *asked).code == 0
    folder = tmp_path / "multirun/mine"
    before = {name: file for name, file in state(folder).items() if name.endswith(("ckpt", "run.json"))}
    outcome = sweep("+base=0.1,0.2,0.3", *asked)
    assert outcome.code == 0, outcome.err
    assert list(statuses(folder).values()) == ["completed"] * 3
    assert {name: file for name, file in state(folder).items() if name in before} == before
    assert [job["settings"]["lr"] for job in content(folder)["jobs"]] == [0.1, 0.2, 0.3]
    assert "${" not in json.dumps(content(folder)["jobs"])
    stored = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*/.hydra/overrides.yaml"))]
    assert [[text for text in each if "lr=" in text] for each in stored] == [["lr=0.1"], ["lr=0.2"], ["lr=0.3"]]


@pytest.mark.parametrize("directory", ["../../precious", "{folder}/precious", "", "."])
def test_a_job_in_a_folder_outside_of_its_sweep_is_refused_by_name(
    grid: Path, sweep: Sweep, tmp_path: Path, directory: str
):
    stored = content(grid)
    stored["jobs"][0] |= {"directory": directory.format(folder=tmp_path), "status": "failed"}
    (grid / "sweep.json").write_text(json.dumps(stored))
    precious = tmp_path / "precious"
    (precious / "checkpoints").mkdir(parents=True)
    (precious / "run.json").write_text("{}")
    before = state(precious)
    outcome = sweep(*GRID, "name=grid")
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1, outcome.err
    assert "sweep.json: jobs.0.directory=" in outcome.err
    assert state(precious) == before
