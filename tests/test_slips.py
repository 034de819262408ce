"""Common slips end in one line that says what to type, and what it says is right."""

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from support import ROOT, Command

from segsweep import cli  # noqa: F401  (registers resolvers)
from segsweep.cli.slips import refuse_slips, whole_numbers
from segsweep.errors import UserError

SCRIPT = f"python {ROOT}"
SLIPS = {
    ("train", "help"): f"{SCRIPT}/train.py --help",
    ("train", "--lr 0.1"): "lr=0.1",
    ("train", "--lr=0.1"): "lr=0.1",
    ("train", "-lr=0.1"): "lr=0.1",
    ("train", "-m optim=sgd,adam --batch-size 8"): "data.batch_size=8",
    ("train", "--epochs 3"): "trainer.max_epochs=3",
    ("train", "--sweep lr=0.1,1"): "-m",
    ("train", "lr 0.1"): "lr=0.1",
    ("train", "lr = 0.1"): "lr=0.1",
    ("train", "lr =0.1"): "lr=0.1",
    ("train", "lr= 0.1"): "lr=0.1",
    ("train", "lr==0.1"): "lr=0.1",
    ("train", "lr:0.1"): "lr=0.1",
    ("train", "-m lr=0.1, 0.01 seed=0"): "lr=0.1,0.01",
    ("train", "-m lr=0.1,0.01,"): "lr=0.1,0.01",
    ("train", "lr=0.1,0.01"): f"{SCRIPT}/train.py -m lr=0.1,0.01",
    ("train", "data.fractions=[0.8, 0.1, 0.1]"): "'data.fractions=[0.8,0.1,0.1]'",
    ("train", "data.ignore_colors=[#000000]"): "'data.ignore_colors=[\"#000000\"]'",
    ("train", "name=my run"): "\"name='my run'\"",
    ("train", "outputs/2026-01-31/12-00-00"): "resume=outputs/2026-01-31/12-00-00",
    ("train", "my/images"): "data=folder data.root=my/images",
    ("train", "own/net.py"): "code=own/net.py",
    ("train", "old/best.ckpt"): "init=old/best.ckpt",
    ("train", "settings_of multirun/a"): "settings_of=multirun/a",
    ("evaluate", "multirun/a"): "run=multirun/a",
    ("evaluate", "--run=outputs/a"): "run=outputs/a",
    ("evaluate", "outputs/a outputs/b"): "'run=[outputs/a,outputs/b]'",
    ("evaluate", "run=a,b"): "'run=[a,b]'",
    ("evaluate", "run=multirun/x/optim=sgd,lr=1"): "\"run='multirun/x/optim=sgd,lr=1'\"",
    ("predict", "outputs/a input=photos"): "run=outputs/a",
    ("predict", "run=a photos/"): "input=photos/",
    ("predict", "run=a input=b results/"): "output=results/",
    ("predict", "--overwrite"): "overwrite=VALUE",
    ("export", "best.ckpt"): "run=best.ckpt",
    ("check_data", "/path"): "data.root=/path",
}


@pytest.mark.quick
@pytest.mark.parametrize(("name", "typed"), SLIPS)
def test_a_slip_ends_in_one_line_that_says_what_to_type(command: Command, tmp_path: Path, name: str, typed: str):
    outcome = command(f"{name}.py", *typed.split())
    assert (outcome.code, len(outcome.error_lines), outcome.out) == (1, 1, ""), outcome.err
    assert outcome.error_lines[0].endswith(f"; type {SLIPS[name, typed]}") or typed == "help"
    assert SLIPS[name, typed] in outcome.error_lines[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "typed"), [slip for slip in SLIPS if "VALUE" not in SLIPS[slip]])
def test_what_it_says_to_type_is_no_slip(name: str, typed: str):
    refuse_slips(name, shlex.split(SLIPS[name, typed].removeprefix(f"{SCRIPT}/train.py")))


@pytest.mark.parametrize(
    "typed",
    [
        "-m lr=0.1,0.01", "--cfg job --resolve", "--config-dir mine lr=1", "-cd=mine", "--info defaults -m", "-h",
        "~callbacks.graph", "+base=0.1 lr=${base}", "name=", "hydra/sweeper=optuna lr=tag(log,interval(0.0001,1))",
        "optim=choice(sgd,adam)", "data.map_ids={7:sea}", "lr=range(0.1,1,step=0.1)", "run=outputs/*/*",
    ],
)  # fmt: skip
def test_what_hydra_reads_is_no_slip(typed: str):
    refuse_slips("train", typed.split())


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), st.sampled_from(["", " "]))
@example("İ", "")  # these two are letters of [A-Za-z] if capitals do not count
@example("ſ", "")
def test_a_value_that_hydra_cannot_read_is_quoted_so_that_it_can(value: str, space: str):
    typed = f"run=a{space}{value}"
    try:
        refuse_slips("evaluate", [typed])
    except UserError as error:
        _, quotes, advice = str(error).rpartition(f"{typed}: needs quotes; type ")
        if quotes:
            (word,) = shlex.split(advice)
            assert OverridesParser.create().parse_override(word).value() == f"a{space}{value}"


@pytest.mark.parametrize("key", ["trainer.max_steps", "+trainer.max_epochs", "data.batch_size", "++data.val_size"])
def test_whole_numbers_may_have_a_point_or_an_exponent(key: str):
    typed = {"1e3": "1000", "1E+3": "1000", "2.": "2", "2.0": "2", "1.5e1": "15", "1e3,2e3": "1000,2000", "7": "7"}
    same = ["1.5", "1e-3", "1e3x", "null", "abc1e3", "${lr}", "'1.x'", "1e300"]
    words = [f"{key}={value}" for value in [*typed, *same]]
    assert whole_numbers(words) == [f"{key}={value}" for value in [*typed.values(), *same]]


def test_a_sweep_s_folder_is_taken_for_its_settings(tmp_path: Path):
    (tmp_path / "a sweep").mkdir()
    (tmp_path / "a sweep/sweep.json").write_text("{}")
    with pytest.raises(UserError) as error:
        refuse_slips("train", [str(tmp_path / "a sweep")])
    multirun, word = shlex.split(str(error.value).rpartition("; type ")[2])
    assert multirun == "-m"
    assert OverridesParser.create().parse_override(word).value() == str(tmp_path / "a sweep")


@pytest.mark.parametrize("key", ["init", "resume", "data.root"])
def test_a_path_with_a_space_is_quoted_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my runs/a").mkdir(parents=True)
    with pytest.raises(UserError) as error:
        refuse_slips("train", [f"{key}=my", "runs/a"])
    (word,) = shlex.split(str(error.value).rpartition("; type ")[2])
    assert OverridesParser.create().parse_override(word).value() == "my runs/a"


def test_only_counts_are_made_whole():
    words = ["lr=1e3", "-m", "trainer.gradient_clip_val=1.0", "name=1e3", "data.sigma1=2."]
    assert whole_numbers(words) == words
