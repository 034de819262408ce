"""The command line: one line for a mistake, complete help, arguments to paste."""

import gc
import re
import subprocess
import sys

import pytest
from support import ROOT, SMALL

from segsweep.cli.start import importing
from segsweep.console import explain, hydra_argument, quoted

MISTAKES = {
    "optim=foo": ["optim=foo", "adam, adamw, rmsprop, sgd"],
    "experiment=foo": ["experiment=foo", "texture_sgd"],
    "optm=sgd": ["optm"],
    "data.sigma_1=2": ["sigma_1"],
    "trainer.max_stepz=2": ["max_stepz"],
    "lr=abc": ["lr=abc"],
    "lr=0": ["lr=0"],
    "lr=-0.1": ["lr=-0.1"],
    "lr=nan": ["lr=nan"],
    "lr=inf": ["lr=inf"],
    "lr=null": ["lr"],
    "momentum=1.0": ["momentum=1.0"],
    "momentum=-0.1": ["momentum=-0.1"],
    "seed=zero": ["seed=zero"],
    "data.sigma1=0": ["data.sigma1=0"],
    "data.sigma2=-1.5": ["data.sigma2=-1.5"],
    "data.sigma=[3,2]": ["data.sigma=[3, 2]"],
    "data.image_size=8": ["data.image_size=8", "16"],
    "data.image_size=32.5": ["data.image_size=32.5"],
    "data.batch_size=0": ["data.batch_size=0"],
    "data.batch_size=many": ["data.batch_size=many"],
    "data.batch_size=4096": ["data.batch_size=4096"],
    "data.num_workers=-1": ["data.num_workers=-1"],
    "trainer.max_steps=0": ["trainer.max_steps=0"],
    "trainer.precision=64": ["trainer.precision=64", "bf16-mixed"],
    "trainer.log_every_n_steps=0": ["trainer.log_every_n_steps=0"],
    "model.channels=0": ["model.channels=0"],
    "model.kernel_size=4": ["model.kernel_size=4"],
    "model.norm=layer": ["model.norm=layer", "'shared'"],
    "loss=cross_entropy": ["cross_entropy", "binary", "loss=bce"],
    "loss.smooth=1": ["smooth"],
    "objective=val/iuo": ["objective=val/iuo", "val/iou"],
    "scheduler=exponential scheduler.gamma=2": ["scheduler.gamma=2"],
    "callbacks.precise_bn.batches=0": ["callbacks.precise_bn.batches=0"],
    "model._target_=nobody.Net": ["model._target_=nobody.Net", "code=nobody.py"],
    "logger=null": ["logger=null", "--help"],
    "seed=-1": ["seed=-1"],
    "seed=99999999999999": ["seed=99999999999999"],
    "name=a/b": ["name=a/b"],
    "callbacks.last_checkpoint=null": ["callbacks.last_checkpoint=null"],
    "trainer=ddp trainer.devices=3": ["data.batch_size=2", "3 processes"],
    "data.image_size=1000000": ["memory", "data.image_size"],
    "data.num_workers=[": ["num_workers=["],
}


@pytest.mark.quick
@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_ends_in_one_line_that_names_key_and_value_and_leaves_no_folder(command, tmp_path, typed):
    outcome = command("train.py", *SMALL, *typed.split())
    assert outcome.code in (1, 2)
    assert len(outcome.error_lines) == 1, outcome.err
    assert outcome.error_lines[0].startswith("error: ")
    for part in MISTAKES[typed]:
        assert part in outcome.error_lines[0]
    # That one begins, and then lacks the memory.
    assert list(tmp_path.iterdir()) == [] or typed == "data.image_size=1000000"


@pytest.mark.quick
@pytest.mark.parametrize("typed", ["optm=sgd", "lr=0", "lr=abc", "trainer=ddp trainer.devices=3", "name=a/b"])
def test_a_mistake_leaves_the_folders_that_were_there(command, tmp_path, typed):
    (tmp_path / "mine/run").mkdir(parents=True)
    for folder in ("mine/run", "mine/new/run"):
        assert command("train.py", *SMALL, *typed.split(), f"hydra.run.dir={folder}").code in (1, 2)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["run"]


@pytest.mark.parametrize(
    "typed", ["lr=0,-1 optm=sgd", "lr=0.1 name=x data=foo", "seed=0,1 objective=a,b", "optim=foo,bar"]
)
@pytest.mark.parametrize("more", [[], ["name=kept"]])
def test_a_sweep_that_never_began_leaves_no_folder(command, tmp_path, typed, more):
    outcome = command("train.py", "-m", *SMALL, *typed.split(), *more)
    if (tmp_path / "multirun").exists():  # the sweeper tried its jobs, and its sweep.json says so
        assert list(tmp_path.glob("multirun/**/sweep.json"))
    assert outcome.code == 1


def test_check_data_without_data_leaves_no_folder(command, tmp_path):
    assert command("check_data.py", "data.root=nowhere").code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.quick
def test_a_run_that_failed_after_it_began_keeps_its_folder(command, tmp_path):
    trap = ["+callbacks.trap._target_=traps.Trap", "+callbacks.trap.kind=raise", f"code={ROOT}/tests/traps.py"]
    with pytest.raises(RuntimeError, match="snapped"):
        command("train.py", *SMALL, *trap, "hydra.run.dir=run")
    assert (tmp_path / "run/run.json").exists()


def test_a_folder_in_which_another_process_trains_is_not_removed(command, tmp_path, monkeypatch):
    from segsweep.cli import unbegun
    from segsweep.runs import RunDirectory

    monkeypatch.setattr(unbegun, "made", [tmp_path / "run"])
    with RunDirectory(tmp_path / "run").locked():
        unbegun.remove_unbegun()
        assert (tmp_path / "run/.lock").exists()
    unbegun.remove_unbegun()
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif("__import__('torch').cuda.is_available()")
def test_a_gpu_that_is_not_there_is_refused(command):
    outcome = command("train.py", "trainer=gpu", *[entry for entry in SMALL if "accelerator" not in entry])
    assert outcome.code == 1
    (line,) = outcome.error_lines
    assert line.startswith("error: trainer.accelerator=gpu: ")
    assert "trainer=cpu" in line


def test_an_output_folder_that_cannot_be_made_is_named(command, tmp_path):
    (tmp_path / "file").write_text("in the way")
    outcome = command("train.py", *SMALL, "hydra.run.dir=file/run")
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert "file" in outcome.error_lines[0]
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_folder_that_holds_a_run_is_not_written_over(command, train):
    run = train()
    before = {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.name in ("run.json", "metrics.csv")}
    outcome = command("train.py", *SMALL, "hydra.run.dir=run", "seed=1")
    assert outcome.code == 1
    assert "resume=" in outcome.error_lines[-1]
    assert {path: path.read_bytes() for path in before} == before


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path):
    from segsweep.cli.start import new_folder

    parent = str(tmp_path / "outputs")
    assert len({new_folder(parent) for _ in range(5)}) == 5


@pytest.mark.quick
def test_help_names_every_group_choice_and_root_key(command):
    outcome = command("train.py", "--help")
    assert outcome.code == 0
    for group in (entry for entry in (ROOT / "conf").iterdir() if entry.is_dir() and entry.name != "hydra"):
        assert f"{group.name}:" in outcome.out
        for choice in group.glob("*.yaml"):
            assert choice.stem in outcome.out
    for key in ("lr", "momentum", "seed", "name", "objective"):
        assert f"\n  {key} " in outcome.out
    assert outcome.out.count(f"python {ROOT}/train.py ") >= 5


@pytest.mark.slow
def test_a_training_starts_without_pandas_and_without_collecting_what_it_imports(tmp_path):
    code = f"import gc, runpy, sys; sys.argv = ['train.py', *{[*SMALL, 'trainer.max_steps=1']!r}]\n"
    code += f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
    code += "print(gc.get_freeze_count() > 100_000, gc.isenabled())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "True True"
    # The pictures at the end need pandas; the start does not.
    code = "import segsweep.training, sys; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip() == "False"


def test_a_later_job_of_a_process_leaves_its_garbage_to_the_collector():
    assert "torch" in sys.modules
    frozen = gc.get_freeze_count()
    with importing():
        assert gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


@pytest.mark.parametrize(
    "value", ["outputs/a", "a b", "multirun/x/optim=adam,lr=0.01", "it's", "[1]", "ü/∑", "a\\b", "$HOME"]
)
def test_a_printed_argument_means_what_it_says_when_typed(value):
    typed = hydra_argument("run", value)
    code = "import sys; from hydra.core.override_parser.overrides_parser import OverridesParser as P; "
    code += "print(P.create().parse_override(sys.argv[1]).value())"
    shell = subprocess.run(
        ["sh", "-c", f"{sys.executable} -c '{code}' {typed}"], capture_output=True, text=True, check=True
    )
    assert shell.stdout == f"{value}\n"


def test_evaluate_names_the_setting_and_the_way_out(command, train):
    train()
    for typed, key, way_out in (
        ([], "run", "run="),
        (["run=run", "accelerator=foo"], "accelerator=foo", "'auto', 'cpu' or 'gpu'"),
        (["run=run/run.json"], "run/run.json", ".ckpt"),
        (["run=run", "split=everything"], "split=everything", "'val', 'test' or 'all'"),
        (["run=nowhere"], "nowhere", "checkpoints/best.ckpt"),
    ):
        outcome = command("evaluate.py", *typed)
        assert outcome.code == 1
        (line,) = outcome.error_lines
        assert line.startswith(f"error: {key}: ")
        assert way_out in line


def test_errors_that_cause_each_other_do_not_hang_explain():
    one, other = ValueError("one"), RuntimeError("other")
    one.__cause__, other.__cause__ = other, one
    assert explain(one) is None


def test_a_named_run_has_a_folder_with_its_name(command, tmp_path):
    for name in ("mine", "7", "it is"):
        outcome = command("train.py", *SMALL, "trainer.max_steps=1", quoted("name", name))
        assert outcome.code == 0, outcome.err
        (folder,) = (tmp_path / "outputs").glob(f"*/??-??-??-{name}")
        assert outcome.out.splitlines()[0] == f"training in {folder.relative_to(tmp_path)}"


def test_every_command_begins_with_what_it_does_and_where(command, train, tmp_path):
    train()
    first = command("train.py", "resume=run").out.splitlines()
    assert first[0] == "resuming the run in run"
    assert "was complete already" in first[1]
    (tmp_path / "photo").mkdir()
    begins = {
        ("evaluate.py", "run=run", "split=val"): r"evaluating run on val; the results go to (outputs/.*-evaluation)",
        ("evaluate.py", "run=run", "output=there"): r"evaluating run on test; the results go to (there)",
        ("check_data.py", "data.root=photo"): r"checking photo; the report goes to (outputs/.*-check)",
        ("predict.py", "run=run", "input=photo", "output=o"): "predicting masks for photo; they go to o",
        ("export.py", "run=run", "format=torch_export"): "exporting run as torch_export to its folder",
    }
    for typed, line in begins.items():
        found = re.fullmatch(line, command(*typed).out.splitlines()[0])
        assert found, typed
        # A check that finds no image writes nothing, and leaves no folder.
        assert not found.groups() or (tmp_path / found[1]).is_dir() == (typed[0] != "check_data.py")


@pytest.mark.slow
@pytest.mark.parametrize("typed", ["lr=-1", "momentum=1", "seed=-1", "name=a/b", "on_error=later", "-m lr=0 seed=0,1"])
def test_a_wrong_value_at_the_root_is_answered_without_torch_and_leaves_no_folder(tmp_path, typed):
    code = f"import sys, runpy; sys.argv = ['train.py', *{typed.split()!r}]\n"
    code += f"try: runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
    code += "except SystemExit as e: print(e.code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.strip() == "1 False", done.stderr
    assert done.stderr.startswith(f"error: {typed.removeprefix('-m ').split()[0]}: ")
    assert list(tmp_path.iterdir()) == []
