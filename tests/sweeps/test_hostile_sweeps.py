"""A sweep directory of a stranger: report and load_sweep give one line or a result, and write nothing outside."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sweep_support import Made, Sweep, content

from segsweep.errors import UserError
from segsweep.sweeps.__main__ import main
from segsweep.sweeps.load import load_sweep

AXES = {"lr": [0.1, 0.2], "seed": [0, 1]}
Report = Callable[[], tuple[int, str, str]]


@pytest.fixture
def folder(made: Made) -> Path:
    """A sweep of four jobs with a report."""
    return made(AXES, lambda values: values["lr"] + values["seed"] / 100).path


@pytest.fixture
def report(folder: Path, capsys: pytest.CaptureFixture[str]) -> Report:
    """Runs the command on the sweep; returns exit code, output and errors, which must be printable."""

    def run() -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["report", str(folder)])
        captured = capsys.readouterr()
        assert all(line.isprintable() for line in (captured.out + captured.err).split("\n"))
        assert (code == 0) == (captured.err == ""), captured.err
        if code:
            assert code == 1
            assert captured.err.count("\n") == 1
        return code, captured.out, captured.err

    return run


def change(folder: Path, keys: list[Any], value: Any) -> None:
    stored = content(folder)
    node = stored
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    (folder / "sweep.json").write_text(json.dumps(stored))


VALUES = [
    None,
    1,
    -1,
    1.5,
    "x",
    "",
    "rank",
    "\x1b[2J",
    [],
    [1],
    [[0, 10**15]],
    [["a"]],
    {},
    {"a": {"b": 1}},
    True,
    10**30,
]
PLACES = [
    ["format"], ["objective"], ["objective", "name"], ["objective", "mode"], ["jobs"], ["jobs", 0], ["axes"], ["axes", 0],
    ["name"], ["overrides"], ["at_once"], ["precision"], ["sweeper"], ["asked"], ["looks"], ["looks", 0],
    ["looks", 0, "level"], ["looks", 0, "completed"], ["shared"], ["shared", "settings"], ["shared", "choices"],
    *(["jobs", 0, key] for key in ("key", "number", "overrides", "directory", "values", "settings", "choices", "scored")),
    *(["jobs", 0, key] for key in ("status", "stage", "error")), ["jobs", 0, "values", "lr"], ["jobs", 0, "values", "seed"],
]  # fmt: skip


@pytest.mark.parametrize("keys", PLACES, ids=lambda keys: ".".join(map(str, keys)))
def test_any_value_at_any_place_of_sweep_json_is_no_traceback(folder: Path, report: Report, keys: list[Any]):
    before = content(folder)
    for value in VALUES:
        change(folder, keys, value)
        report()
        (folder / "sweep.json").write_text(json.dumps(before))


RACE = {"keep": 2, "looks": [2, 3], "margin": None, "kept": [{"lr": 0.1}, {"lr": 0.2}], "screened_out": []}


@pytest.mark.parametrize(
    "changes",
    [
        {"looks": []}, {"looks": [1, 3]}, {"looks": [3, 3]}, {"looks": ["a"]}, {"looks": {}}, {"kept": [{"lr": 0.1}]},
        {"kept": [{"lr": 0.1}, {"optim": "sgd"}]}, {"kept": [{}, {}]}, {"kept": "x"}, {"margin": []}, {"keep": "x"},
        {"more": 1},
    ],
)  # fmt: skip
def test_a_damaged_race_is_refused_by_name(folder: Path, report: Report, changes: dict[str, Any]):
    change(folder, ["race"], RACE)
    assert report()[0] == 0
    change(folder, ["race"], RACE | changes)
    code, _, err = report()
    assert (code, "sweep.json" in err) == (1, True), err


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[" * 200_000, "levels"), ("{}", "sweep.json"), ("[]", "sweep.json"), ("null", "sweep.json"),
        ("[" + "{}," * 5_000_000 + "1]", "values"), ("", "sweep.json"),
    ],
    ids=["nested", "empty", "a list", "null", "many values", "no text"],
)  # fmt: skip
def test_another_sweep_json_is_refused_by_name(folder: Path, report: Report, text: str, word: str):
    (folder / "sweep.json").write_text(text)
    code, _, err = report()
    assert code == 1
    assert "sweep.json" in err
    assert word in err
    with pytest.raises(UserError, match=word):
        load_sweep(folder)


@pytest.mark.parametrize("name", ["sweep.json", ".sweep.lock", "lr=0.1,seed=0", "lr=0.1,seed=0/run.json",
                                  "lr=0.1,seed=0/metrics.csv", "lr=0.1,seed=0/tensorboard"])  # fmt: skip
def test_a_link_that_leaves_the_sweep_is_refused_and_nothing_is_written(
    folder: Path, report: Report, tmp_path: Path, name: str
):
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder / name).touch() if name == ".sweep.lock" else None
    shutil.move(folder / name, outside / "victim")
    (folder / name).symlink_to(outside / "victim")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    code, _, err = report()
    assert code == 1
    assert f"{name}: is a link to" in err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    with pytest.raises(UserError, match="is a link to"):
        load_sweep(folder)


def test_an_event_file_that_is_a_link_or_no_file_is_replaced_and_its_target_kept(
    folder: Path, report: Report, tmp_path
):
    (victim := tmp_path / "victim").write_text("precious")
    linked, pipe = folder / "lr=0.1,seed=0/tensorboard", folder / "lr=0.1,seed=1/tensorboard"
    for place in (linked, pipe):
        for path in place.glob("*.hparams"):
            path.unlink()
    (linked / "a.tfevents.hparams").symlink_to(victim)
    os.mkfifo(pipe / "a.tfevents.hparams")
    assert report()[0] == 0
    assert victim.read_text() == "precious"
    for place in (linked, pipe):
        assert [path.is_file() and not path.is_symlink() for path in place.glob("*.hparams")] == [True]


@pytest.mark.parametrize("name", ["run.json", "metrics.csv"])
@pytest.mark.parametrize("damage", ["empty", "cut short", "nested", "binary"])
def test_a_damaged_file_of_a_job_is_named_and_the_report_goes_on(folder: Path, report: Report, name: str, damage: str):
    path = folder / "lr=0.2,seed=1" / name
    text = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "cut short": text[: len(text) // 2], "nested": b"[" * 100_000, "binary": b"\xff\0"}[damage]
    )
    code, out, _ = report()
    assert code == 0
    assert f"lr=0.2,seed=1/{name}: " in out
    assert f"lr=0.2,seed=1/{name}: " in (folder / "summary.md").read_text()
    loaded = load_sweep(folder)
    assert len(loaded.summary) == 4
    if name == "metrics.csv":
        with pytest.warns(UserWarning, match=r"metrics\.csv"):
            histories = loaded.histories
        assert "lr=0.2,seed=1" not in histories
        assert len(histories) == 3


def test_escapes_in_values_and_errors_are_printed_escaped(folder: Path, report: Report):
    for at in range(4):
        change(folder, ["jobs", at, "values", "lr"], f"\x1b[2J{at // 2}")
    path = folder / "lr=0.1,seed=0/run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "failed", "error": "\x1b]0;pwn\x07"}))
    code, out, _ = report()  # asserts that all is printable
    assert code == 0
    assert "\\x1b[2J" in out
    assert "\\x1b]0;pwn\\x07" in out
    assert "\x1b" not in (folder / "summary.md").read_text()


@pytest.mark.parametrize("name", ["optim=adam,lr=0.1", "optim=sgd,lr=0.001", "multirun.yaml", ".lock"])
def test_a_sweep_that_goes_on_writes_to_no_link_that_leaves_it(grid: Path, sweep: Sweep, tmp_path: Path, name: str):
    (outside := tmp_path / "outside").mkdir()
    if (grid / name).exists():
        shutil.move(grid / name, outside / "victim")
    else:
        (outside / "victim").mkdir()
    (grid / name).unlink(missing_ok=True)
    (grid / name).symlink_to(outside / "victim")
    before = {path: path.read_bytes() if path.is_file() else None for path in tmp_path.rglob("*")}
    outcome = sweep("optim=sgd,adam", "lr=0.001,0.01,0.1", "name=grid")
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1, outcome.err
    assert f"{name}: is a link to" in outcome.err
    assert {path: path.read_bytes() if path.is_file() else None for path in tmp_path.rglob("*")} == before
