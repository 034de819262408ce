"""A run directory of a stranger: each command gives one line in 10 seconds and 1 GiB, and writes nothing outside."""

import json
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import ROOT, SMALL, Command

from segsweep import cli
from segsweep.errors import UserError
from segsweep.runs.files import open_file, write_json
from segsweep.runs.load import load_run
from segsweep.runs.stored import read_json

STEPS = [*SMALL, "trainer.max_steps=6", "data.limit_samples=6", "callbacks.panel=null", "optim=adam"]
SECONDS, MEMORY = 10, 1 << 30


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory of 6 steps; tests must not change it."""
    folder = tmp_path_factory.mktemp("stranger")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(ROOT))
        patch.setattr(sys, "argv", [str(ROOT / "train.py"), *STEPS, "hydra.run.dir=run"])
        import train as entry

        cli.run(entry.main)
        os.environ.pop("HYDRA_FULL_ERROR", None)
    return folder / "run"


@pytest.fixture
def run(stranger: Path, tmp_path: Path) -> Path:
    """A copy of the run to spoil, as if it had been interrupted."""
    copy = Path(shutil.copytree(stranger, tmp_path / "run"))
    record = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(record | {"status": "interrupted"}))
    return copy


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    """Fails a test that takes more than `SECONDS`, or `MEMORY` more than before it."""

    def late(*_: object) -> None:
        raise AssertionError(f"more than {SECONDS} s")

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))

    measured = Path("/proc/self/clear_refs").exists()
    if measured:
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = status("VmRSS:")
    handler = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
    if measured:
        assert status("VmHWM:") - before < MEMORY


@pytest.fixture
def resume(command: Command, run: Path) -> Callable[..., str]:
    """Resumes the spoilt run; asserts that it is refused in one line, which it returns."""

    def resumes(*typed: str) -> str:
        outcome = command("train.py", "resume=run", "trainer.max_steps=8", *typed)
        assert outcome.code == 1, outcome.out
        assert len(outcome.error_lines) == 1, outcome.err
        assert outcome.err.isprintable() or outcome.err.rstrip("\n").isprintable()
        return outcome.error_lines[0]

    return resumes


def put_special(path: Path, kind: str) -> None:
    """Replaces a path by something that is no file."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        folder = os.open(path.parent, os.O_RDONLY)
        try:  # the address of a socket is short
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()


SPECIAL = ["fifo", "socket", "device", "folder"]
FILES = ["config.yaml", ".hydra/overrides.yaml", "metrics.csv", "run.json", "checkpoints/last.ckpt", "train.log"]


@pytest.mark.quick
@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file_is_refused_by_name(run: Path, resume: Callable[..., str], name: str, kind: str):
    put_special(run / name, kind)
    line = resume()
    assert Path(name).name in line or "resume=run: no run there" in line


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", ["checkpoints/best.ckpt", "metrics.csv", "run.json"])
def test_load_run_refuses_what_is_no_file_by_name(run: Path, name: str, kind: str):
    put_special(run / name, kind)
    with pytest.raises(UserError, match=re.escape(Path(name).name)):
        getattr(load_run(run), {"metrics.csv": "history"}.get(name, "summary"))


@pytest.mark.parametrize("script", ["evaluate.py", "predict.py", "export.py"])
@pytest.mark.parametrize("kind", SPECIAL)
def test_a_checkpoint_that_is_no_file_is_refused_by_every_command(command: Command, run: Path, script: str, kind: str):
    put_special(run / "checkpoints/best.ckpt", kind)
    more = ["input=run", "output=masks"] if script == "predict.py" else []
    outcome = command(script, "run=run", *more)
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1, outcome.err
    assert "best.ckpt" in outcome.err


def test_a_file_is_opened_and_nothing_else(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"whole")
    with open_file(tmp_path / "file") as file:
        assert file.read() == b"whole"
    for kind in SPECIAL:
        put_special(tmp_path / "other", kind)
        with pytest.raises(OSError, match="other"):
            open_file(tmp_path / "other")


# YAML and JSON

NESTED = "[" * 100_000
BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{at}: &a{at} [{','.join([f'*a{at - 1}'] * 9)}]\n" for at in range(1, 10)
)


@pytest.mark.parametrize("name", ["config.yaml", ".hydra/overrides.yaml"])
@pytest.mark.parametrize(
    "text", [BOMB, f"a: {NESTED}", "a: &a [*a]", "- '+x=" + "[" * 5000 + "'", "- '+x=" + "{a:" * 5000 + "'"],
    ids=["aliases", "nested", "recursive", "nested override", "nested dict override"],
)  # fmt: skip
def test_yaml_that_grows_or_nests_is_refused_by_name(run: Path, resume: Callable[..., str], name: str, text: str):
    (run / name).write_text(text)
    assert Path(name).name in resume()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.yaml", ".hydra/overrides.yaml", "run.json", "metrics.csv"])
def test_a_file_of_300_megabytes_is_refused_by_name(run: Path, resume: Callable[..., str], name: str):
    with (run / name).open("wb") as file:
        file.write(b'"' if name.endswith("json") else b"a: ")
        for _ in range(300):
            file.write(b"x" * 1_000_000)
    assert Path(name).name in resume()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[" * 100_000, "levels"), ("[" * 60 + "]" * 60, "levels"), ("[" + "[]," * 5_000_000 + "1]", "values"),
        ("1" * 5000, "digits"), ('"\\ud800"', "Unicode"), (str(1 << 70), "64 bits"), ("{", "line 1"),
    ],
    ids=["nested", "a little nested", "many lists", "digits", "half a letter", "large", "cut short"],
)  # fmt: skip
def test_json_beyond_the_limits_is_refused(tmp_path: Path, text: str, word: str):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=word):
        read_json(tmp_path / "x.json")


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])) | st.just("\\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8,
)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(plain)
def test_json_that_was_written_is_read_back(tmp_path: Path, value: Any):
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value


GROUPS = ["data", "model", "loss", "optim", "scheduler", "trainer", "callbacks", "logger"]

KEYS = [
    "lr", "seed", "objective", "name", "trainer.max_steps", "trainer.devices", "callbacks.last_checkpoint",
    "optim._target_", "data.sigma1",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("key", [*GROUPS, *KEYS])
@pytest.mark.parametrize("value", [-1, "x", [], {"a": 1}, True])
def test_a_stored_setting_of_any_type_is_no_traceback(command: Command, run: Path, key: str, value: Any):
    content = yaml.safe_load((run / "config.yaml").read_text())
    node, parts = content, key.split(".")
    for part in parts[:-1]:
        node = node[part]
    node[parts[-1]] = value
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    outcome = command("train.py", "resume=run", "trainer.max_steps=8")
    assert outcome.code == 0 or len(outcome.error_lines) == 1, outcome.err


# Links


@pytest.mark.quick
@pytest.mark.parametrize(
    "name",
    ["train.log", "checkpoints", "tensorboard", "metrics.csv", "run.json", "config.yaml", ".lock", ".hydra",
     ".hydra/overrides.yaml", "checkpoints/last.ckpt", "checkpoints/best.ckpt"],
)  # fmt: skip
@pytest.mark.parametrize("typed", [["resume=run"], [*STEPS, "hydra.run.dir=run"]], ids=["resume", "new run"])
def test_a_link_that_leaves_the_run_is_refused_and_nothing_is_written(
    command: Command, run: Path, tmp_path: Path, name: str, typed: list[str]
):
    outside = tmp_path / "out side"
    outside.mkdir()
    shutil.move(run / name, outside / "victim")
    (run / name).symlink_to(outside / "victim")
    before = contents(tmp_path)
    outcome = command("train.py", *typed)
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1, outcome.err
    assert f"run/{name}: is a link to" in outcome.err
    assert contents(tmp_path) == before
    # The line says what to type, and that mends it.
    remedy = outcome.error_lines[0].rpartition("copy: ")[2]
    assert os.system(f"cd '{tmp_path}' && {remedy}") == 0
    assert not (run / name).is_symlink()


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_a_run_behind_a_link_and_links_within_it_are_followed(command: Command, run: Path, tmp_path: Path):
    run.rename(tmp_path / "elsewhere")
    run.symlink_to(tmp_path / "elsewhere")
    (run / "checkpoints").rename(run / "kept")
    (run / "checkpoints").symlink_to("kept")
    outcome = command("train.py", "resume=run", "trainer.max_steps=8")
    assert outcome.code == 0, outcome.err


# last.ckpt


def without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.pop(key)


def first_state(content: dict[str, Any]) -> dict[str, Any]:
    return content["optimizer_states"][0]["state"][0]


def steps(number: Any) -> Callable[[dict[str, Any]], object]:
    def change(content: dict[str, Any]) -> None:
        content["global_step"] = number
        progress = content["loops"]["fit_loop"]["epoch_loop.automatic_optimization.optim_progress"]
        progress["optimizer"]["step"]["total"]["completed"] = number

    return change


SPOILT: dict[str, Callable[[dict[str, Any]], object]] = {
    "no optimizer": without("optimizer_states"),
    "no optimizers": lambda content: content.update(optimizer_states=[]),
    "empty state": lambda content: content["optimizer_states"][0].update(state={}),
    "no moment": lambda content: first_state(content).pop("exp_avg"),
    "another shape": lambda content: first_state(content).update(exp_avg=torch.zeros(3)),
    "a shape that broadcasts": lambda content: first_state(content).update(exp_avg=torch.zeros(1)),
    "terabytes": lambda content: first_state(content).update(exp_avg=torch.zeros(1).expand(10**12)),
    "terabytes elsewhere": lambda content: content.update(more=[torch.zeros(1).expand(10**12)]),
    "state of a parameter beyond": lambda content: content["optimizer_states"][0]["state"].update({999: {}}),
    "a billion": steps(10**9),
    "a billion alone": lambda content: content.update(global_step=10**9),
    "minus five": steps(-5),
    "text": steps("6"),
    "true": steps(True),
    "NaN": lambda content: next(iter(content["state_dict"].values())).fill_(float("nan")),
    "no weights": without("state_dict"),
    "one weight less": lambda content: content["state_dict"].pop(next(iter(content["state_dict"]))),
    "no loops": without("loops"),
    "no schedulers": without("lr_schedulers"),
    "other callbacks": lambda content: content.update(callbacks={key: {"x": 1} for key in content["callbacks"]}),
    "no parameter groups": lambda content: content["optimizer_states"][0].pop("param_groups"),
    "deep settings": lambda content: content["segsweep"]["config"]["model"].update(x=nested(60)),
    "no version": without("pytorch-lightning_version"),
}  # fmt: skip


def nested(levels: int) -> list[Any]:
    return [] if levels == 0 else [nested(levels - 1)]


@pytest.mark.quick
@pytest.mark.parametrize("kind", SPOILT)
def test_a_checkpoint_whose_state_does_not_fit_is_refused_by_name(run: Path, resume: Callable[..., str], kind: str):
    path = run / "checkpoints/last.ckpt"
    content = torch.load(path, weights_only=True)
    SPOILT[kind](content)
    torch.save(content, path)
    before = path.read_bytes()
    assert "checkpoints/last.ckpt: " in resume()
    assert path.read_bytes() == before


@pytest.mark.parametrize("optim", ["sgd", "sgd momentum=0.9", "rmsprop", "rmsprop momentum=0.5", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["none", "onecycle"])
def test_every_optimizer_s_own_state_fits(command: Command, optim: str, schedule: str):
    typed = [f"optim={optim}".split(), f"scheduler={schedule}"]
    assert command("train.py", *STEPS[:-1], *typed[0], typed[1], "hydra.run.dir=own").code == 0
    outcome = command("train.py", "resume=own", "trainer.max_steps=8")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("script", ["evaluate.py", "predict.py", "export.py"])
def test_weights_that_are_not_numbers_are_refused_by_every_command(command: Command, run: Path, script: str):
    path = run / "checkpoints/best.ckpt"
    content = torch.load(path, weights_only=True)
    SPOILT["NaN"](content)
    torch.save(content, path)
    more = ["input=run", "output=masks"] if script == "predict.py" else []
    outcome = command(script, "run=run", *more)
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1, outcome.err
    assert "best.ckpt: " in outcome.err
    assert "NaN" in outcome.err
