"""Unknown keys are refused by name, with or without +, before any folder is made."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from support import ROOT, SMALL, Command

from segsweep import cli  # noqa: F401  (registers resolvers)
from segsweep.data.images import ImageRule
from segsweep.errors import UserError
from segsweep.instantiate import to_plain
from segsweep.keys import KEYS, OPEN, READING, SYNONYMS, nearest, opened, require_known, unknown
from segsweep.training_setup import require_known_settings


def composed(command: str, *overrides: str, folder: Path = ROOT / "conf") -> DictConfig:
    with initialize_config_dir(str(folder), version_base="1.3"):
        return compose(command, overrides=list(overrides), return_hydra_config=True)


MEANT = {
    "optimizer=sgd": "optim (adam, adamw, rmsprop, sgd)",
    "learning_rate=0.1": "lr",
    "batch_size=4": "data.batch_size",
    "data.batchsize=4": "data.batch_size",
    "data.root=images": "python {script} data=folder data.root=images",
    "root=images": "python {script} data=folder data.root=images",
    "max_steps=4": "trainer.max_steps",
    "epochs=4": "trainer.max_epochs",
    "num_workers=4": "data.num_workers",
    "optimizer.weight_decay=0.1": "optim.weight_decay",
    "lrr=0.1": "lr",
    "tile_size=512": "python {script} data=folder data.tile_size=512",
    "white=4095": "python {script} data=folder data.white=4095",
}


@pytest.mark.quick
@pytest.mark.parametrize("plus", ["", "+"])
@pytest.mark.parametrize("typed", MEANT)
def test_an_unknown_key_is_refused_and_the_nearest_known_key_is_named(
    command: Command, tmp_path: Path, typed: str, plus: str
):
    outcome = command("train.py", plus + typed)
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1, outcome.err
    assert outcome.err.startswith(f"error: {typed.partition('=')[0]}: no such ")
    assert MEANT[typed].format(script=ROOT / "train.py") in outcome.err
    if "data." not in typed:  # keys below a group are checked only after the run has its folder
        assert list(tmp_path.iterdir()) == []


ADVICE = [
    ("predict", "data.root", None), ("predict", "data.labels", None), ("predict", "root", None),
    ("predict", "labels", None), ("predict", "workers", None), ("predict", "batch_size", None),
    ("predict", "white", "data.white"), ("predict", "data.whit", "data.white"), ("predict", "device", "accelerator"),
    ("evaluate", "model.lr", None), ("evaluate", "workers", "data.num_workers"), ("evaluate", "root", "data.root"),
    ("evaluate", "tile_size", "data.tile_size"), ("evaluate", "checkpoint", "run"), ("export", "root", None),
    ("check_data", "root", "data.root"), ("check_data", "tile_size", "data.tile_size"), ("check_data", "dropout", None),
    ("train", "pretrained", None), ("train", "dropout", None), ("train", "levels", None), ("train", "model.lrr", "lr"),
    ("train", "epoch", "trainer.max_epochs"), ("train", "test_size", "data.test_size"), ("export", "fmt", "format"),
    ("train", "val_check_interval", "trainer.val_every_n_steps"), ("predict", "force", "overwrite"),
    ("check_data", "mask_dir", "data.masks"), ("predict", "dest", "output"), ("export", "epochs", None),
]  # fmt: skip


@pytest.mark.parametrize(("command_name", "typed", "meant"), ADVICE)
def test_advice_names_a_key_that_the_command_has_or_none(command_name: str, typed: str, meant: str | None):
    line = unknown(typed, composed(command_name))
    assert line.startswith(f"{typed}: no such key; ")
    assert (f"did you mean {meant}?" in line) if meant else ("did you mean" not in line and "--help" in line)


def test_predict_takes_how_images_are_read():
    assert set(READING) == {entry.name for entry in fields(ImageRule)} - {"channels"}


@pytest.mark.parametrize("command_name", KEYS)
@pytest.mark.parametrize("typed", ["nothing=1", "+nothing=1", "++nothing.below=1"])
def test_every_command_refuses_an_unknown_key(command: Command, tmp_path: Path, command_name: str, typed: str):
    outcome = command(f"{command_name}.py", typed)
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert outcome.err.startswith("error: nothing")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.quick
@pytest.mark.parametrize(
    ("sweeper", "swept"),
    [
        ("grid", "+optimizer=sgd,adam"), ("grid", "optimizer=sgd,adam"), ("grid", "+optimizer=sgd lr=0.1,0.2"),
        ("coordinate", "+optimizer=sgd,adam"), ("race", "+optimizer=sgd,adam"), ("optuna", "+optimizer=choice(sgd,adam)"),
    ],
)  # fmt: skip
def test_a_sweep_with_an_unknown_key_is_refused_once(command: Command, tmp_path: Path, swept: str, sweeper: str):
    outcome = command("train.py", "-m", f"hydra/sweeper={sweeper}", *SMALL, *swept.split())
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1, outcome.err
    assert outcome.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_over_settings_that_no_part_takes_is_refused_once(command: Command, tmp_path: Path):
    outcome = command("train.py", "-m", *SMALL, "+data.batchsize=2,4")
    assert (outcome.code, len(outcome.error_lines)) == (1, 1)
    assert "data.batch_size" in outcome.err
    assert not any(tmp_path.rglob("run.json"))


@pytest.mark.parametrize("command_name", KEYS)
def test_the_known_keys_are_those_of_the_configuration(command_name: str):
    keys = set(map(str, composed(command_name))) - {"hydra"}
    assert keys == set(KEYS[command_name])


@pytest.mark.parametrize(
    "typed",
    [
        ["+base=0.1", "lr=${base}"],
        ["+my.base=0.1", "lr=${my.base}"],
        ["+rates=[0.1,0.2]", "lr=${rates[1]}"],
        ["+base=0.1", "+other=${base}", "lr=${other}"],
        ["+base=0.1", "data.sigma1=${..base}"],
        ["+base=0.1", "lr='${oc.select:base,0.2}'"],
        ["+tag=a", "name='run ${tag}'"],
        ["+tag=a", "hydra.run.dir='outputs/${tag}'"],
    ],
)
def test_a_key_that_an_interpolation_names_is_known(typed: list[str]):
    require_known(composed("train", *typed), "train")
    with pytest.raises(UserError, match=rf"^{typed[0][1:].split('=')[0].split('.')[0]}: no such key"):
        require_known(composed("train", typed[0]), "train")


def test_a_key_in_a_user_s_config_file_is_known_if_it_is_used(tmp_path: Path, command: Command):
    (tmp_path / "mine/experiment").mkdir(parents=True)
    for name, used in (("used", "${base}"), ("unused", "0.2")):
        path = tmp_path / f"mine/experiment/{name}.yaml"
        path.write_text(f"# @package _global_\nbase: 0.1\nlr: {used}\n")
    outcome = command("train.py", "--config-dir", "mine", "experiment=unused", *SMALL)
    assert (outcome.code, len(outcome.error_lines)) == (1, 1), outcome.err
    assert outcome.err.startswith("error: base: no such key")
    outcome = command("train.py", "--config-dir", "mine", "experiment=used", *SMALL, "optim=sgd", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert OmegaConf.load(tmp_path / "run/config.yaml").optim.lr == 0.1


def test_a_swept_key_that_an_interpolation_names_is_swept(command: Command, tmp_path: Path):
    outcome = command("train.py", "-m", *SMALL, "+base=0.1,0.2", "lr=${base}", "name=mine")
    assert outcome.code == 0, outcome.err
    configs = sorted((tmp_path / "multirun/mine").glob("*/config.yaml"))
    assert [OmegaConf.load(path).optim.lr for path in configs] == [0.1, 0.2]


@pytest.mark.parametrize(
    "typed",
    [
        "data.nothing=1", "model.nothing=1", "loss.nothing=1", "optim.nothing=1", "scheduler.nothing=1",
        "trainer.nothing=1", "logger.nothing=1", "callbacks.panel.nothing=1", "callbacks.last_checkpoint.nothing=1",
        "callbacks.nothing=1",
    ],
)  # fmt: skip
def test_every_group_refuses_a_setting_that_it_does_not_take(typed: str):
    config = OmegaConf.masked_copy(composed("train", f"+{typed}"), KEYS["train"])
    with pytest.raises(UserError, match=rf"^{typed.rpartition('=')[0]}\b"):
        require_known_settings(to_plain(config))


@pytest.mark.parametrize("group", ["optim", "trainer", "lr"])
def test_a_group_that_is_left_out_is_refused(command: Command, group: str):
    outcome = command("train.py", f"~{group}")
    assert (outcome.code, len(outcome.error_lines)) == (1, 1)
    assert outcome.err.startswith(f"error: {group}: ")


TYPED = {
    "data.root='a b'": {"root": "a b"},
    "data.train=[Tile 1,b]": {"train": ["Tile 1", "b"]},
    "data.map_ids={7:sea}": {"map_ids": {7: "sea"}},
    "data.white=4095": {"white": 4095},
    "+data.white=4095": {"white": 4095},
    "++data.white=4095": {"white": 4095},
    "data.root=a=b": None,  # = needs quotes, as in every command
}


@pytest.mark.parametrize("command_name", OPEN)
@pytest.mark.parametrize("typed", TYPED)
def test_settings_of_the_data_are_typed_without_a_plus(command: Command, command_name: str, typed: str):
    outcome = command(f"{command_name}.py", "--cfg", "job", "data.alpha=drop", "data.alpha=refuse", typed)
    if TYPED[typed] is None:
        assert outcome.err == f"error: {typed}: needs quotes; type \"data.root='a=b'\"\n"
    else:
        assert yaml.safe_load(outcome.out)["data"] == {"alpha": "refuse", **TYPED[typed]}


def test_a_key_of_a_closed_group_keeps_what_was_typed():
    words = ["data.nothing=1", "-m", "data.root=x", "+data.white=1", "data=folder"]
    assert [opened(name, words) for name in ("train", "check_data", "export")] == [words] * 3
    assert opened("evaluate", words) == ["++data.nothing=1", "-m", "++data.root=x", "+data.white=1", "data=folder"]


@pytest.mark.parametrize("typed", ["+optim=sgd", "+lr=0.1"])
def test_a_plus_before_a_key_that_is_there_is_named(command: Command, typed: str):
    outcome = command("train.py", typed)
    assert (outcome.code, len(outcome.error_lines)) == (1, 1)
    assert f"type {typed[1:].partition('=')[0]}=" in outcome.err


def test_an_empty_folder_is_refused_by_its_key(command: Command):
    for script, typed in (("train.py", ["data=folder"]), ("check_data.py", [])):
        outcome = command(script, *typed, "data.root=")
        assert outcome.code == 1
        assert outcome.error_lines[-1].startswith("error: data.root: needs a value")


SETTINGS = {name: to_plain(OmegaConf.masked_copy(composed(name, *more), KEYS[name])) for name, more in (
    ("train", ["data=folder", "data.root=x"]), ("check_data", ["data.root=x"]),
)}  # fmt: skip
REAL = [
    (name, f"{group}.{key}") for name, content in SETTINGS.items()
    for group, node in content.items() if isinstance(node, dict) for key in node if not key.startswith("_")
]  # fmt: skip


@given(st.sampled_from(REAL), st.sampled_from(["", "_", "-"]), st.booleans())
def test_a_key_spelt_with_other_dashes_or_capitals_is_found(real: tuple[str, str], dash: str, capitals: bool):
    command, key = real
    group, _, name = key.partition(".")
    typed = name.replace("_", dash)
    assert nearest(f"{group}.{typed.upper() if capitals else typed}", SETTINGS[command]) == key


@given(st.sampled_from(REAL))
def test_a_key_without_its_group_is_found(real: tuple[str, str]):
    command, key = real
    name = key.rpartition(".")[2]
    found = nearest(name, SETTINGS[command])
    assert found is not None
    assert found.rpartition(".")[2] == name


@pytest.mark.parametrize("key", SYNONYMS)
def test_every_synonym_stands_for_a_known_key(key: str):
    commands = [command for command, keys in KEYS.items() if key.partition(".")[0] in keys]
    assert commands
    group, _, name = key.partition(".")
    assert not name or any((group, name) == tuple(real.split(".")) for _, real in REAL)


@pytest.mark.slow
@pytest.mark.parametrize("typed", ["lrr=1", "optimizer=sgd", "+optimizer=sgd"])
def test_an_unknown_key_is_answered_without_importing_torch(tmp_path: Path, typed: str):
    code = f"import sys, runpy; sys.argv = ['train.py', {typed!r}]\n"
    code += f"try: runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
    code += "except SystemExit as e: print(e.code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "1 False", done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
