"""logger=wandb and logger=mlflow have the numbers of metrics.csv, go on when a run is resumed, and end as it ends."""

import json
import math
import posixpath
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support import ROOT, SMALL, Command, Outcome, printed_arguments

from segsweep.console import quoted
from segsweep.errors import UserError
from segsweep.loggers import mlflow_name
from segsweep.runs import read_metrics
from segsweep.training_setup import require_known_settings

TEXTURES = [*SMALL, "callbacks.panel=null", "trainer.max_steps=6", "trainer.val_every_n_steps=2"]
WANDB = ["logger=wandb", "logger.wandb.offline=true"]
STORE = "sqlite:///tracked.db"
MLFLOW = ["logger=mlflow", f"logger.mlflow.tracking_uri={STORE}"]
TRAP = [quoted("code", ROOT / "tests/traps.py"), "+callbacks.trap._target_=traps.Trap", "+callbacks.trap.flag=trap"]


def rows_of(run: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv without its empty cells."""
    lines = read_metrics(run / "metrics.csv").to_dict("records")
    return [{str(name): value for name, value in line.items() if not math.isnan(value)} for line in lines]


# Weights & Biases


def wandb_records(file: Path) -> Iterator[Any]:
    """What W&B has written of a session: a LevelDB log behind 7 bytes, of blocks of 32 KiB."""
    records = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    data, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := -place % 32768) < 7 and left:
            place += left
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield records.Record.FromString(whole)
            whole = b""


def sessions(run: Path) -> list[dict[str, Any]]:
    """The sessions of a run in W&B, in order: its id, name and group, the exit code, and the logged rows by step."""
    found = []
    for file in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        session: dict[str, Any] = {"rows": {}}
        for record in wandb_records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                session |= {"id": record.run.run_id, "name": record.run.display_name, "group": record.run.run_group}
            elif kind == "exit":
                session["exit"] = record.exit.exit_code
            elif kind == "history":
                row = {
                    "/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item
                }
                row = {name: value for name, value in row.items() if not name.startswith("_")}
                step = row.pop("trainer/global_step")
                session["rows"].setdefault(step, {"step": step}).update(row)
        found.append(session)
    return found


def stopped_at_step_3(command: Command, tmp_path: Path, logger: list[str]) -> Outcome:
    """Trains the run `cut` until a SIGTERM comes after its third step."""
    (tmp_path / "trap").touch()
    settings = [*TEXTURES, *logger, *TRAP, "+callbacks.trap.kind=SIGTERM", "+callbacks.trap.step=3", "name=mine"]
    stopped = command("train.py", *settings, "hydra.run.dir=cut")
    assert stopped.code == 143, stopped.err
    return stopped


@pytest.mark.slow
def test_wandb_has_the_rows_of_metrics_csv_in_one_run_also_after_an_interruption(command: Command, tmp_path: Path):
    pytest.importorskip("wandb")
    stopped = stopped_at_step_3(command, tmp_path, WANDB)
    again = printed_arguments(stopped)
    assert again[1:] == [*WANDB, TRAP[0]]
    (tmp_path / "cut").rename(tmp_path / "moved")
    continued = command("train.py", "resume=moved", *again[1:])
    assert continued.code == 0, continued.err
    first, second = sessions(tmp_path / "moved")
    assert (first["name"], first["exit"], second["exit"]) == ("mine", 255, 0)
    assert first["id"] == second["id"] == json.loads((tmp_path / "moved/loggers.json").read_text())["wandb"]
    assert list((first["rows"] | second["rows"]).values()) == rows_of(tmp_path / "moved")


@pytest.mark.slow
def test_each_job_of_a_sweep_is_a_run_of_its_own_in_wandb(command: Command, tmp_path: Path):
    pytest.importorskip("wandb")
    assert command("train.py", "-m", *TEXTURES, *WANDB, "lr=0.001,1e30", "name=rates").code == 1
    jobs = {path.name: sessions(path) for path in (tmp_path / "multirun/rates").iterdir() if path.is_dir()}
    assert {name: [(each["name"], each["group"], each["exit"]) for each in found] for name, found in jobs.items()} == {
        "lr=0.001": [("lr=0.001", "rates", 0)],
        "lr=1e+30": [("lr=1e+30", "rates", 1)],
    }
    assert len({found[0]["id"] for found in jobs.values()}) == 2


@pytest.mark.slow
def test_without_login_wandb_ends_in_one_line_and_leaves_no_folder(command: Command, tmp_path: Path, monkeypatch):
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    refused = command("train.py", *TEXTURES, "logger=wandb", "hydra.run.dir=run")
    assert refused.code == 1
    assert refused.error_lines[-1].endswith("; type wandb login, or log on this disk with logger.wandb.offline=true")
    assert not (tmp_path / "run").exists()


# MLflow


def mlflow_runs(folder: Path) -> list[Any]:
    """The runs in the store, by name."""
    client = pytest.importorskip("mlflow").MlflowClient(f"sqlite:///{folder}/tracked.db")
    found = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return sorted(found, key=lambda run: run.info.run_name)


def logged_rows(folder: Path, run: Any) -> list[dict[str, float]]:
    """The rows of a run in the store; a value that was logged twice must be the same."""
    client = pytest.importorskip("mlflow").MlflowClient(f"sqlite:///{folder}/tracked.db")
    rows: dict[int, dict[str, float]] = {}
    for name in run.data.metrics:
        for point in client.get_metric_history(run.info.run_id, name):
            row = rows.setdefault(point.step, {"step": point.step})
            if not name.endswith(("_per_second", "_seconds")):
                assert row.get(name, point.value) == point.value
            row[name] = point.value
    return [rows[step] for step in sorted(rows)]


@pytest.mark.slow
def test_mlflow_has_the_rows_of_metrics_csv_in_one_run_also_after_an_interruption(command: Command, tmp_path: Path):
    pytest.importorskip("mlflow")
    stopped = stopped_at_step_3(command, tmp_path, MLFLOW)
    (cut,) = mlflow_runs(tmp_path)
    assert (cut.info.run_name, cut.info.status) == ("mine", "KILLED")
    assert (cut.data.params["optim.lr"], cut.data.params["momentum"]) == ("0.001", "null")
    continued = command("train.py", *printed_arguments(stopped), "trainer.max_steps=8")
    assert continued.code == 0, continued.err
    (whole,) = mlflow_runs(tmp_path)
    assert (whole.info.run_id, whole.info.status) == (cut.info.run_id, "FINISHED")
    assert logged_rows(tmp_path, whole) == rows_of(tmp_path / "cut")


@pytest.mark.slow
def test_a_run_that_begins_again_stays_one_run_with_the_same_values_in_mlflow(command: Command, tmp_path: Path):
    pytest.importorskip("mlflow")
    (tmp_path / "trap").touch()
    trap = ["+callbacks.trap.kind=raise", "+callbacks.trap.step=5"]
    with pytest.raises(RuntimeError, match="the trap has snapped"):
        command("train.py", *TEXTURES, *MLFLOW, *TRAP, *trap, "hydra.run.dir=cut")
    (failed,) = mlflow_runs(tmp_path)
    assert failed.info.status == "FAILED"
    (tmp_path / "cut/checkpoints/last.ckpt").unlink()  # as if nothing had been saved yet
    assert command("train.py", "resume=cut", *MLFLOW, TRAP[0]).code == 0
    (whole,) = mlflow_runs(tmp_path)
    assert (whole.info.run_id, whole.info.status) == (failed.info.run_id, "FINISHED")
    assert [row["step"] for row in logged_rows(tmp_path, whole)] == [2, 4, 6]


@pytest.mark.slow
def test_a_training_goes_on_when_its_store_is_lost(command: Command, tmp_path: Path):
    pytest.importorskip("mlflow")
    (tmp_path / "losing.py").write_text("""
import sqlite3
import lightning as L

class Loss(L.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3:
            with sqlite3.connect("tracked.db") as store:
                for table in ("metrics", "latest_metrics", "runs"):
                    store.execute(f"drop table {table}")
""")
    own = ["code=losing.py", "+callbacks.lost._target_=losing.Loss"]
    trained = command("train.py", *TEXTURES, *MLFLOW, *own, "hydra.run.dir=run")
    assert trained.code == 0, trained.err
    assert "MLFlowLogger lacks step 4 (" in trained.out + trained.err
    assert [row["step"] for row in rows_of(tmp_path / "run")] == [2, 4, 6]
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "completed"


@pytest.mark.slow
def test_jobs_that_begin_together_are_runs_of_their_own_in_a_new_store(command: Command, tmp_path: Path):
    pytest.importorskip("mlflow")
    pytest.importorskip("joblib")
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=3"]
    swept = command("train.py", "-m", *TEXTURES, *MLFLOW, "lr=0.001,0.01,1e30", "name=rates", *launcher)
    assert swept.code == 1, swept.err
    runs = mlflow_runs(tmp_path)
    assert [(run.info.run_name, run.info.status, run.data.tags["sweep"]) for run in runs] == [
        ("lr=0.001", "FINISHED", "rates"), ("lr=0.01", "FINISHED", "rates"), ("lr=1e+30", "FAILED", "rates"),
    ]  # fmt: skip
    for run in runs[:2]:
        assert logged_rows(tmp_path, run) == rows_of(tmp_path / "multirun/rates" / run.info.run_name)


@given(st.text("a.e4_/ ä\u0e4eß-", min_size=1))
def test_a_class_in_mlflow_can_be_told_from_every_other(name: str):
    shown = mlflow_name(f"val/iou/{name}")
    assert re.sub(r"\.([0-9a-f]+)\.", lambda code: chr(int(code[1], 16)), shown) == f"val/iou/{name}"
    assert posixpath.normpath(shown) == shown  # as MLflow wants it
    assert re.fullmatch("[a-zA-Z0-9_/. -]+", shown)  # the letters that Lightning leaves


# Both


def test_a_missing_package_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch):
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)  # Python's own way to say that there is none
        with pytest.raises(UserError, match=re.escape(f"logger={name}: needs {name}; pip install 'segsweep[{name}]'")):
            require_known_settings({"logger": {name: {}}})


@pytest.mark.parametrize(
    ("name", "key", "words"),
    [
        ("wandb", "ofline", "did you mean logger.wandb.offline;"),
        ("wandb", "id", "there are name, "),
        ("mlflow", "tracking_url", "did you mean logger.mlflow.tracking_uri;"),
        ("mlflow", "run_id", "there are experiment_name, "),
    ],
)
def test_an_unknown_setting_is_refused_by_name(name: str, key: str, words: str):
    pytest.importorskip(name)
    with pytest.raises(UserError, match=re.escape(f"logger.{name}.{key}: no such setting")) as refused:
        require_known_settings({"logger": {name: {key: True}}})
    assert words in str(refused.value)


def test_every_argument_of_the_loggers_is_taken():
    pytest.importorskip("wandb")
    pytest.importorskip("mlflow")
    require_known_settings({"logger": {"wandb": {"entity": "me", "notes": "x"}, "mlflow": {"tags": {"a": "b"}}}})


@pytest.mark.slow
@pytest.mark.parametrize("tracker", ["wandb", "mlflow"])
def test_a_stored_run_does_not_say_where_to_log_to(command: Command, tmp_path: Path, tracker: str):
    assert command("train.py", *TEXTURES, "hydra.run.dir=run").code == 0
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    config["logger"][tracker] = {"tracking_uri": "http://127.0.0.1:9"}
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(config))
    before = (tmp_path / "run/run.json").read_bytes()
    refused = command("train.py", "resume=run", "trainer.max_steps=8")
    assert refused.code == 1
    assert refused.error_lines[-1].endswith("to go on there, or logger=default to leave it out")
    assert (tmp_path / "run/run.json").read_bytes() == before
    assert command("train.py", "resume=run", "trainer.max_steps=8", "logger=default").code == 0


def test_a_stored_sweep_does_not_say_where_to_log_to(command: Command, tmp_path: Path):
    assert command("train.py", "-m", *TEXTURES, "lr=0.001,0.01", "logger=csv", "name=before").code == 0
    taken = ["settings_of=multirun/before", "keep=1", "seed=1", "trainer.accelerator=cpu", "name=after"]
    swept = command("train.py", "-m", *taken)
    assert swept.code == 0, swept.err
    (config,) = (tmp_path / "multirun/after").glob("*/config.yaml")
    assert yaml.safe_load(config.read_text())["logger"] == {"tensorboard": True}


@pytest.mark.slow
def test_no_package_is_imported_unless_it_is_asked_for():
    looking = "import sys, segsweep.training; sys.exit(len({'wandb', 'mlflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", looking], check=False).returncode == 0


@pytest.mark.parametrize("content", ["[]", '{"wandb": "../x"}', '{"mlflow": 1.5}'])
def test_damaged_ids_are_refused_by_file(command: Command, tmp_path: Path, content: str):
    pytest.importorskip("mlflow")
    assert command("train.py", *TEXTURES, "hydra.run.dir=run").code == 0
    (tmp_path / "run/loggers.json").write_text(content)
    refused = command("train.py", "resume=run", "trainer.max_steps=8", *MLFLOW)
    assert refused.code == 1
    assert "loggers.json: is damaged" in refused.error_lines[-1]
