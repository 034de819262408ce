"""`python -m segsweep runs` lists what there is, whatever the files hold."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import SMALL, Command

from segsweep.__main__ import main
from segsweep.errors import UserError
from segsweep.listing import find, read_run, read_sweep
from segsweep.runs import RunDirectory

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_runs_and_sweeps_are_listed_with_what_they_are(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert command("train.py", *SMALL, "name=mine").code == 0
    assert command("train.py", "-m", *SMALL, "lr=0.1,0.01", "trainer.max_steps=1", "name=rates").code == 0
    (run,) = (tmp_path / "outputs").glob("*/*-mine")
    sweep = tmp_path / "multirun/rates"
    main(["runs", "--json"])
    first, second = json.loads(capsys.readouterr().out)
    record = json.loads((run / "run.json").read_text())
    assert first["changed"] == SMALL
    assert (first["kind"], first["name"], first["status"]) == ("run", "mine", "completed")
    assert (first["objective"], first["value"]) == ("val/iou", record["objective"]["value"])
    assert first["path"] == str(run.relative_to(tmp_path))
    jobs = [json.loads((sweep / name / "run.json").read_text())["objective"]["value"] for name in ("lr=0.1", "lr=0.01")]
    assert (second["kind"], second["name"], second["status"]) == ("sweep", "rates", "2 completed")
    assert (second["value"], second["path"]) == (max(jobs), "multirun/rates")
    # A job that was killed, and a run that trains now.
    job = sweep / "lr=0.1/run.json"
    job.write_text(json.dumps(json.loads(job.read_text()) | {"status": "running"}))
    (run / "run.json").write_text(json.dumps(record | {"status": "running"}))
    with RunDirectory(run).locked():
        assert [entry.status for entry in find([tmp_path])] == ["running", "1 interrupted, 1 completed"]
    assert {entry.path for entry in find([sweep])} == {"multirun/rates/lr=0.1", "multirun/rates/lr=0.01"}
    main(["runs"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "completed" in line or "interrupted" in line]
    assert [f" {entry['path']} " in line for entry, line in zip((first, second), lines, strict=True)] == [True, True]


def test_no_file_outside_a_sweep_and_no_pipe_is_read(tmp_path: Path):
    sweep = tmp_path / "sweep"
    for place in (tmp_path / "victim", sweep / "pipe", sweep / "job"):
        place.mkdir(parents=True)
    record = {"status": "completed", "objective": {"name": "val/iou", "mode": "max", "value": 0.5, "at": "last"}}
    for place in (tmp_path / "victim", sweep / "job"):
        (place / "run.json").write_text(json.dumps(record))
    os.mkfifo(sweep / "pipe/run.json")
    jobs = [{"directory": name} for name in ("job", "pipe", "../victim", str(tmp_path / "victim"))]
    (sweep / "sweep.json").write_text(json.dumps({"jobs": jobs, "objective": record["objective"]}))
    entry = read_sweep(sweep)
    assert (entry.status, entry.objective, entry.value) == ("3 pending, 1 completed", "val/iou (last)", 0.5)
    (tmp_path / "alone").mkdir()
    os.mkfifo(tmp_path / "alone/run.json")
    assert read_run(tmp_path / "alone").status == "unreadable"


def test_a_folder_that_is_not_there_is_named_and_an_empty_one_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^nowhere: no such folder"):
        find([Path("nowhere")])
    main(["runs"])
    assert capsys.readouterr().out == "no runs in outputs and multirun\n"


@given(ANYTHING | st.fixed_dictionaries({}, optional=dict.fromkeys(
    ("status", "name", "started", "overrides", "objective", "jobs"), ANYTHING
)) | st.fixed_dictionaries({"jobs": st.lists(st.fixed_dictionaries({"directory": ANYTHING}), max_size=2)}))  # fmt: skip
def test_any_content_is_listed(tmp_path_factory: pytest.TempPathFactory, content: object):
    folder = tmp_path_factory.mktemp("run")
    for name, read in (("run.json", read_run), ("sweep.json", read_sweep)):
        (folder / name).write_text(json.dumps(content))
        assert read(folder).path == str(folder)
        assert read(folder).status.isprintable()


@pytest.mark.slow
def test_the_list_needs_no_torch(tmp_path: Path):
    code = "import sys; from segsweep.__main__ import main; main(['runs']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.splitlines()[-1] == "False"
