"""`init=` begins a new run with the weights of another."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from same_runs import assert_same_run, result_of
from support import ROOT, Command
from torch import Tensor
from using_runs import FOLDER_RUN, train_on_scenes

from segsweep import cli  # noqa: F401  (registers resolvers)
from segsweep.console import quoted
from segsweep.initial_weights import contents_of
from segsweep.instantiate import to_plain
from segsweep.root_settings import check_root
from segsweep.runs import RunDirectory
from segsweep.trainer_settings import quiet_libraries
from segsweep.training_setup import assemble

STILL = ["optim=sgd", "lr=1e-30", "trainer.precision=32-true"]
"""Settings that move no weight, so that the first weights are the last."""
TRAP = [
    quoted("code", ROOT / "tests/traps.py"),
    "+callbacks.trap={_target_:traps.Trap,kind:SIGTERM,step:3,flag:trap}",
]


@pytest.fixture
def source(command: Command, tmp_path: Path) -> Path:
    return train_on_scenes(command, tmp_path, "trainer.precision=32-true", run="source")


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())


def parameters(checkpoint: Path) -> dict[str, Tensor]:
    found = result_of(checkpoint)
    names = [
        name for name in found if name.startswith("/state_dict/net.") and "running" not in name and "num_" not in name
    ]
    return {name.removeprefix("/state_dict/net."): found[name] for name in names}


@pytest.mark.quick
def test_before_the_first_step_it_scores_as_its_source(source: Path, tmp_path: Path):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        settings = to_plain(compose("train", [*FOLDER_RUN, "trainer.precision=32-true", f"init={source}", "seed=5"]))
    check_root(settings)
    with quiet_libraries():
        session = assemble(settings, RunDirectory(tmp_path / "new"))
        session.trainer.test(session.task, session.data, verbose=False)
    scored = {name: float(value) for name, value in session.trainer.callback_metrics.items()}
    assert scored == {name: value for name, value in record(source)["metrics"].items() if name.startswith("test/")}


def test_the_new_run_has_its_own_settings_steps_and_optimizer(source: Path, command: Command, tmp_path: Path):
    outcome = command("train.py", *FOLDER_RUN, *STILL, "init=source", "trainer.max_steps=2", "hydra.run.dir=new")
    assert outcome.code == 0, outcome.err
    assert "init: the weights of source/checkpoints/best.ckpt, step 4" in outcome.out
    assert "head" not in outcome.out
    found, first = (parameters(run / "checkpoints/best.ckpt") for run in (tmp_path / "new", source))
    assert found.keys() == first.keys()
    assert all(torch.equal(found[name], first[name]) for name in first)
    assert (record(tmp_path / "new")["steps"], record(tmp_path / "new")["best_step"]) == (2, 2)
    assert torch.load(tmp_path / "new/checkpoints/last.ckpt", weights_only=True)["global_step"] == 2
    # The same as from the file alone, and another seed draws other samples, but has the same first weights.
    settings = [*STILL, "seed=7", "init=source/checkpoints/best.ckpt", "hydra.run.dir=other"]
    assert command("train.py", *FOLDER_RUN, *settings).code == 0
    other = parameters(tmp_path / "other/checkpoints/best.ckpt")
    assert all(torch.equal(other[name], first[name]) for name in first)
    assert record(tmp_path / "other")["contents"]["init"] == record(tmp_path / "new")["contents"]["init"]


def test_other_classes_get_a_new_head_and_every_other_weight(source: Path, command: Command, tmp_path: Path):
    shutil.copytree(tmp_path / "scenes", tmp_path / "two")
    (tmp_path / "two/classes.csv").write_text("name,r,g,b\nGround,128,128,128\nGrass,0,158,115\n")
    ignored = "data.ignore_colors=['#005C3C','#0072B2','#F0E442','#CC79A7']"
    settings = ["data.root=two", ignored, "init=source", "hydra.run.dir=new"]
    outcome = command("train.py", *FOLDER_RUN, *STILL, *settings)
    assert outcome.code == 0, outcome.err
    (line,) = (line for line in outcome.out.splitlines() if line.startswith("init: "))
    assert "Ground, Grass (binary) instead of Ground, Grass, Forest, Water, Sand, Rock (multiclass)" in line
    found, first = (parameters(run / "checkpoints/best.ckpt") for run in (tmp_path / "new", source))
    new = {name for name in first if found[name].shape != first[name].shape}
    assert new
    assert f"the head ({', '.join(name for name in first if name in new)}) is new" in line
    assert all(torch.equal(found[name], first[name]) for name in first if name not in new)


def test_classes_of_other_names_get_a_new_head_too(source: Path, command: Command, tmp_path: Path):
    table = tmp_path / "renamed.csv"
    table.write_text((tmp_path / "scenes/classes.csv").read_text().replace("Water", "Ice"))
    outcome = command("train.py", *FOLDER_RUN, *STILL, "data.labels=renamed.csv", "init=source", "hydra.run.dir=new")
    assert outcome.code == 0, outcome.err
    found, first = (parameters(run / "checkpoints/best.ckpt") for run in (tmp_path / "new", source))
    differing = [name for name in first if not torch.equal(found[name], first[name])]
    assert f"the head ({', '.join(differing)}) is new" in outcome.out


@pytest.mark.quick
@pytest.mark.parametrize(
    ("typed", "parts"),
    [
        (["init=source", "model.widths=[4,4,4]"], ["UNet", "has shape", "source/checkpoints/best.ckpt"]),
        (["init=source", "model=residual_unet"], ["ResidualUNet", "is missing"]),
        (["init=source", "data.channels=1"], ["has shape [4, 3, 3, 3], not [4, 1, 3, 3]"]),
        (["init=nowhere"], ["nowhere", "run directory"]),
        (["init=scenes"], ["scenes", "no checkpoint there"]),
        (["init=scenes/classes.csv"], ["classes.csv", "torch did not save it"]),
        (["init=[source,source]"], ["init="]),
        (["init=source", "resume=source"], ["init=source: ", "resume=source"]),
    ],
    ids=str,
)
def test_what_does_not_fit_ends_in_one_line(source: Path, command: Command, tmp_path: Path, typed: list[str], parts):
    kept = [entry for entry in FOLDER_RUN if not (entry.startswith("model.") and "model=residual_unet" in typed)]
    folder = [] if "resume=source" in typed else ["hydra.run.dir=new"]
    outcome = command("train.py", *kept, *typed, *folder)
    assert outcome.code == 1
    (line,) = outcome.error_lines
    assert line.startswith("error: init")
    for part in parts:
        assert part in line
    assert not (tmp_path / "new/checkpoints").exists()


def test_a_view_of_one_number_as_large_as_any_memory_is_refused(source: Path, command: Command):
    path = source / "checkpoints/best.ckpt"
    content = torch.load(path, weights_only=True)
    name = next(name for name in content["state_dict"] if name.startswith("net.") and name.endswith("weight"))
    content["state_dict"][name] = torch.zeros(1).expand(1 << 20, 1 << 20)
    torch.save(content, path)
    (line,) = command("train.py", *FOLDER_RUN, "init=source", "hydra.run.dir=new").error_lines
    assert line.startswith("error: init: source/checkpoints/best.ckpt: damaged")


@pytest.mark.quick
def test_a_refused_change_on_resume_names_the_command_that_works(source: Path, command: Command, tmp_path: Path):
    (line,) = command("train.py", "resume=source", "lr=0.01").error_lines
    (way_out,) = [word for word in line.split() if word.startswith("init=")]
    assert command("train.py", *FOLDER_RUN, way_out, "lr=0.01", "hydra.run.dir=new").code == 0
    assert record(tmp_path / "new")["contents"]["init"]


def test_it_is_resumed_without_its_source_and_to_the_bit(source: Path, command: Command, tmp_path: Path):
    settings = [*FOLDER_RUN, *TRAP, "init=source", "trainer.max_steps=6"]
    assert command("train.py", *settings, "hydra.run.dir=whole").code == 0
    (tmp_path / "trap").touch()
    assert command("train.py", *settings, "hydra.run.dir=cut").code == 143
    shutil.rmtree(source)
    resumed = command("train.py", "resume=cut", TRAP[0])
    assert resumed.code == 0, resumed.err
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert command("train.py", "resume=cut", TRAP[0]).code == 0


def test_a_sweep_tells_weights_apart_by_their_content(source: Path, command: Command, tmp_path: Path):
    train_on_scenes(command, tmp_path, "seed=3", run="other")
    swept = command("train.py", "-m", *FOLDER_RUN, "init=source,other,null", "name=starts")
    assert swept.code == 0, swept.err
    jobs = json.loads((tmp_path / "multirun/starts/sweep.json").read_text())["jobs"]
    assert len({job["key"] for job in jobs}) == 3
    first = [parameters(tmp_path / "multirun/starts" / job["directory"] / "checkpoints/best.ckpt") for job in jobs]
    assert not any(all(torch.equal(first[0][name], one[name]) for name in one) for one in first[1:])

    typed = ["train.py", "-m", *FOLDER_RUN, "seed=0,1", "name=one"]
    assert command(*typed, "init=source").code == 0
    (tmp_path / "source").rename(tmp_path / "moved")
    again = command(*typed, "init=moved")
    assert again.code == 0, again.err
    jobs = json.loads((tmp_path / "multirun/one/sweep.json").read_text())["jobs"]
    assert len(jobs) == 2
    refused = command(*typed, "init=other")
    assert refused.code == 1
    assert "name=one: that sweep has other settings (init: " in refused.error_lines[0]


def test_the_digest_is_of_the_nets_weights_alone(source: Path):
    path = source / "checkpoints/best.ckpt"

    def digest_after(change: Callable[[dict[str, Any]], object]) -> str:
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)
        return contents_of({"init": str(path)})["init"]

    before = digest_after(lambda content: None)
    assert digest_after(lambda content: content.update(optimizer_states=[], global_step=9)) == before
    assert digest_after(lambda content: content["state_dict"].update({"metrics.more": torch.zeros(1)})) == before
    name = next(name for name in torch.load(path, weights_only=True)["state_dict"] if name.startswith("net."))
    assert digest_after(lambda content: content["state_dict"][name].neg_()) != before
    assert digest_after(lambda content: content["state_dict"][name].neg_()) == before
