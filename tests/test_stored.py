"""A run directory is untrusted: it holds plain values, and nothing in it is resolved."""

import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from same_runs import assert_same_run
from support import ROOT, SMALL, Command

from segsweep import cli
from segsweep.console import quoted
from segsweep.errors import UserError
from segsweep.runs.stored import plain_overrides, read_plain, require_plain_overrides

SECRET = "geheim-4711"
OWN = quoted("code", ROOT / "tests/traps.py")
STEPS = [*SMALL, "trainer.max_steps=6", "data.limit_samples=6", "callbacks.panel=null"]


@pytest.fixture(scope="module")
def run_of_a_stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory of 4 steps; tests must not change it."""
    folder = tmp_path_factory.mktemp("stranger")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(ROOT))
        patch.setattr(sys, "argv", [str(ROOT / "train.py"), *STEPS, "data.sigma1=[0.2,0.3]", "hydra.run.dir=run"])
        cli.run(importlib.import_module("train").main)
        os.environ.pop("HYDRA_FULL_ERROR", None)
    return folder / "run"


HOSTILE = ["${oc.env:SECRET}", "x${oc.env:SECRET}x", "${new_folder:MADE}", "\\\\${oc.env:SECRET}", "${seed}", "???"]


def put(content: Any, keys: list[Any], value: Any) -> None:
    *before, last = keys
    for key in before:
        content = content[key]
    content[last] = value


@pytest.mark.quick
@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    "keys", [["name"], ["lr"], ["data", "sigma1", 0], ["callbacks", "panel"], ["more"], ["optim", "_target_"]]
)
def test_an_interpolation_in_a_stored_configuration_is_refused_by_name(
    run_of_a_stranger: Path, resumes: Callable[..., str], keys: list[Any], text: str
):
    def spoil(run: Path) -> None:
        content = yaml.safe_load((run / "config.yaml").read_text())
        put(content, keys, text)
        (run / "config.yaml").write_text(yaml.safe_dump(content))

    line = resumes(run_of_a_stranger, spoil)
    assert "config.yaml: " + ".".join(map(str, keys)) in line


@pytest.mark.parametrize(
    "stored",
    [
        *(f"name={text}" for text in HOSTILE[:-1]), "name='${oc.env:SECRET}'", "+more={a:[${oc.env:SECRET}]}",
        "+more={${oc.env:SECRET}:1}", "name=$\\{oc.env:SECRET\\}", "optim=${oc.env:SECRET}", "~name=${oc.env:SECRET}",
        "hydra.searchpath=[file:///tmp]", "hydra.run.dir=MADE", "hydra/launcher=joblib", "experiment=../../MADE",
        "optim=[adam,../x]", "name=[",
    ],
)  # fmt: skip
def test_a_stored_override_that_is_not_plain_is_refused_by_name(
    run_of_a_stranger: Path, resumes: Callable[..., str], stored: str
):
    def spoil(run: Path) -> None:
        path = run / ".hydra/overrides.yaml"
        path.write_text(yaml.safe_dump([*yaml.safe_load(path.read_text()), stored]))

    line = resumes(run_of_a_stranger, spoil)
    assert "overrides.yaml: " in line
    assert stored.lstrip("+~").partition("=")[0] in line


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x\n", "a: !!python/object/apply:os.mkdir [MADE]\n", "a: !!binary aGFsbG8=\n", "a: 2026-01-31\n",
        "a: !!set {b}\n", "[" * 5000, "{a: " * 60 + "}" * 60, "a: 123456789012345678901234567890\n", "\0",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["config.yaml", ".hydra/overrides.yaml"])
def test_yaml_of_more_than_plain_values_is_refused(
    run_of_a_stranger: Path, resumes: Callable[..., str], name: str, text: str
):
    line = resumes(run_of_a_stranger, lambda run: (run / name).write_text(text))
    assert f"{name}: " in line


@pytest.fixture
def resumes(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Resumes a spoilt copy of a run; asserts that nothing changes, and returns the one error line."""

    def resume(stranger: Path, spoil: Callable[[Path], object]) -> str:
        monkeypatch.setenv("SECRET", SECRET)
        run = Path(shutil.copytree(stranger, tmp_path / "run"))
        spoil(run)
        before = {
            path: path.read_bytes()
            for path in run.rglob("*")
            if path.is_file() and path.suffix not in (".lock", ".log")
        }
        outcome = command("train.py", "resume=run", "trainer.max_steps=8")
        assert outcome.code == 1
        assert len(outcome.error_lines) == 1, outcome.err
        assert SECRET not in outcome.err + outcome.out
        assert {path: path.read_bytes() for path in before} == before
        assert not list(tmp_path.rglob("*MADE*"))
        assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        return outcome.error_lines[0]

    return resume


leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
names = st.sampled_from(["a", "b_c", "d1"])
plain = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


def unresolved(node: Any, key: Any) -> bool:
    """Whether OmegaConf itself finds an interpolation or a missing value in an entry."""
    if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key):
        return True
    entry = node[key]
    if OmegaConf.is_dict(entry):
        return any(unresolved(entry, name) for name in entry)
    return OmegaConf.is_list(entry) and any(unresolved(entry, at) for at in range(len(entry)))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plain)
def test_plain_values_are_read_as_they_were_written_and_nothing_else_is(tmp_path: Path, value: Any):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    try:
        read = read_plain(path)
    except UserError:
        assert "${" in str(value) or "???" in str(value)
    else:
        assert read == value
        assert not unresolved(OmegaConf.create({"value": read}), "value")


@settings(deadline=None, max_examples=50)
@given(plain)
def test_a_quoted_value_is_read_by_hydra_as_that_value(value: Any):
    read = OverridesParser.create().parse_override(quoted("key", value)).value()
    assert read == value
    assert type(read) is type(value)


@settings(deadline=None, max_examples=25)
@given(st.text("ab$\\{}'\"[]:, .", max_size=12), st.sampled_from(["name=", "+more=", "name='", "+more={a:"]))
def test_an_accepted_override_holds_no_interpolation(text: str, key: str):
    stored = key + text + {"'": "'", ":": "}"}.get(key[-1], "")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        try:
            require_plain_overrides(Path("overrides.yaml"), [stored])
        except UserError:
            return
        config = compose("train", [stored])
        assert not unresolved(config, stored.lstrip("+").partition("=")[0])


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("lr='${base}'", "lr=0.1"),
        ("data.sigma1=['${base}',0.2]", "data.sigma1=[0.1,0.2]"),
        ("name='it is ${word}, yes'", "name='it is a, b, yes'"),
        ("+more={a:'${word}'}", "+more={a:'a, b'}"),
        ("optim=adam", "optim=adam"),
        ("model='default_for_${data}'", "model=default_for_textures"),
    ],
)
def test_an_override_is_stored_with_the_value_of_its_interpolation(typed: str, stored: str):
    given_ = ["+base=0.1", "+word='a, b'"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", [*given_, typed], return_hydra_config=True)
        assert plain_overrides([*given_, typed], config) == [*given_, stored]
        again = compose("train", [*given_, stored])
    assert OmegaConf.to_container(again, resolve=True) == OmegaConf.to_container(
        OmegaConf.masked_copy(config, list(again)), resolve=True
    )


def test_a_run_whose_user_typed_interpolations_resumes(command: Command, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MY_DATA", "0.3")
    typed = [
        *STEPS, OWN, "+base=0.1", "optim=sgd", "lr=${base}", "data.sigma2='${oc.decode:${oc.env:MY_DATA}}'",
        "+callbacks.trap={_target_:traps.Trap,kind:SIGTERM,step:4,flag:trap}",
    ]  # fmt: skip
    assert command("train.py", *typed, "hydra.run.dir=whole").code == 0
    (tmp_path / "trap").touch()
    assert command("train.py", *typed, "hydra.run.dir=cut").code == 143
    monkeypatch.delenv("MY_DATA")
    outcome = command("train.py", "resume=cut", OWN)
    assert outcome.code == 0, outcome.err
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    for name in ("run.json", ".hydra/overrides.yaml"):
        text = (tmp_path / "cut" / name).read_text()
        assert "${" not in text
        assert "lr=0.1" in text
    # Interpolations typed now are resolved.
    outcome = command("train.py", "resume=cut", OWN, "trainer.max_steps='${oc.decode:${oc.env:MORE}}'")
    assert (outcome.code, len(outcome.error_lines)) == (1, 1)
    monkeypatch.setenv("MORE", "8")
    assert command("train.py", "resume=cut", OWN, "trainer.max_steps='${oc.decode:${oc.env:MORE}}'").code == 0
    written = json.loads((tmp_path / "cut/run.json").read_text())
    assert written["steps"] == 8
    assert "trainer.max_steps=8" in written["overrides"]
