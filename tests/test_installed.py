"""An installation without the clone: the wheel has everything, and `segsweep train` is what `python train.py` is."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import ROOT, SMALL

from segsweep.__main__ import COMMAND_HELP, main
from segsweep.invocation import COMMANDS, called, conf_folder, to_type
from segsweep.keys import KEYS

NEEDED = ("pyproject.toml", "README.md", "conf", "src")
"""All that a wheel is built from."""
COMMAND_WORDS = st.lists(st.sampled_from(["lr=0.1", "-m", "name=a b", "train", "--help"]), max_size=3)


def copied(folder: Path, *more: str) -> Path:
    """A copy of the clone, because a build leaves folders behind."""
    folder.mkdir()
    for name in (*NEEDED, *more):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    code = f"import setuptools.build_meta as backend; backend.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=copied(folder / "clone"), check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


def environment(folder: Path, *install: str) -> Path:
    """A new virtual environment with segsweep; the packages it needs are those of this process."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    here = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "needed.pth").write_text("\n".join(here))
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install", "--no-deps", "--no-index"]
    pip += ["--ignore-installed", "--no-build-isolation"]
    subprocess.run([*pip, *install], check=True, capture_output=True, env=variables())
    return folder / "bin"


def variables() -> dict[str, str]:
    """The environment variables without those that lead to the clone."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "PIP_"))}


def typed(bin_folder: Path, line: str, folder: Path) -> str:
    """What a line prints that is typed into a shell in a folder."""
    path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        line, shell=True, cwd=folder, env=variables() | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def printed(out: str, command: str) -> str:
    """The printed line that begins with a command."""
    (line,) = [line.strip() for line in out.splitlines() if line.strip().startswith(command)]
    return line


def test_the_wheel_has_the_configuration_tree_and_every_module(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    configurations = {
        f"segsweep/{path.relative_to(ROOT).as_posix()}": path.read_bytes()
        for path in (ROOT / "conf").rglob("*") if path.is_file()
    }  # fmt: skip
    modules = {
        path.relative_to(ROOT / "src").as_posix(): path.read_bytes()
        for kind in ("*.py", "py.typed") for path in (ROOT / "src").rglob(kind)
    }  # fmt: skip
    assert found == configurations | modules
    assert len(configurations) > 50


def test_every_command_is_a_script_and_a_configuration():
    assert COMMANDS.keys() == KEYS.keys()
    assert [*COMMANDS.values(), "runs", "report"] == list(COMMAND_HELP)
    assert conf_folder() == ROOT / "conf"
    for command in COMMANDS:
        assert (ROOT / f"{command}.py").is_file()
        assert (ROOT / f"conf/{command}.yaml").is_file()


@given(command=st.sampled_from(sorted(COMMANDS)), words=COMMAND_WORDS)
def test_a_command_is_the_same_however_it_is_typed(command: str, words: list[str]):
    word = COMMANDS[command]
    by_script = {other: f"python {shlex.quote(f'{ROOT}/{other}.py')}" for other in COMMANDS}
    by_name = {other: f"segsweep {name}" for other, name in COMMANDS.items()}
    with pytest.MonkeyPatch.context() as patch:
        for lines, argv in (
            (by_script, [f"{ROOT}/{command}.py"]),
            (by_name, ["/a b/bin/segsweep", word]),
            (by_name, [f"/a b/bin/segsweep {word}"]),  # as Hydra gets it
            (by_name, ["/lib/segsweep/__main__.py", word]),
            (by_name, [f"/lib/segsweep/__main__.py {word}"]),
        ):
            patch.setattr(sys, "argv", [*argv, *words])
            assert called() == (command, words)
            assert {other: to_type(other) for other in COMMANDS} == lines
            assert to_type() == lines[command]


@pytest.mark.parametrize("program", ["/lib/pytest/__main__.py", "train", "/elsewhere/train.py", "/my/own.py"])
def test_another_program_is_told_to_type_segsweep(program: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", [program, "train"])
    assert to_type("check_data") == "segsweep check"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("nonsense", ["train, evaluate, predict, export, check, runs, report"]),
        ("trian lr=1", ["did you mean train?"]),
        ("check_data", ["did you mean check?"]),
        ("-m lr=1,2", ["type segsweep train -m lr=1,2"]),
        ("lr=1", ["type segsweep train lr=1"]),
    ],
)
def test_what_is_no_command_ends_in_one_line(words: str, parts: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: {words.split()[0]}: ")
    assert all(part in err for part in parts)


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(COMMAND_HELP)
    assert len(lines) < 15


@pytest.mark.slow
def test_the_help_of_a_command_is_that_of_its_script():
    for command, word in COMMANDS.items():
        one, other = (
            subprocess.run(
                [sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout
            for words in (["-m", "segsweep", word], [f"{command}.py"])
        )
        assert f"segsweep {word} " in one
        assert re.sub(rf"\bsegsweep {word}\b", f"python {command}.py", one) == other


@pytest.mark.slow
def test_a_mistake_is_answered_without_importing_torch(tmp_path: Path):
    code = "import sys; sys.argv = ['segsweep', 'train', 'lr=-1']\nfrom segsweep.__main__ import main\n"
    code += "try: main()\nexcept SystemExit as e: print(e.code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.stdout, done.stderr.count("\n")) == ("1 False\n", 1), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_installed_wheel_does_all_from_an_empty_folder(wheel: Path, tmp_path: Path):
    bin_folder, work = environment(tmp_path / "venv", str(wheel)), tmp_path / "work"
    work.mkdir()
    where = typed(bin_folder, "python -c 'import segsweep; print(segsweep.__file__)'", work)
    assert Path(where.strip()).is_relative_to(tmp_path / "venv")
    small = shlex.join([*SMALL, "trainer.max_steps=10"])
    out = typed(bin_folder, f"segsweep train {small}", work)
    assert [path.name for path in work.iterdir()] == ["outputs"]
    (run,) = work.glob("outputs/*/*/run.json")
    record = json.loads(run.read_text())
    assert (record["steps"], record["status"], record["git"]) == (10, "completed", None)
    assert (run.parent / "train.log").is_file()
    typed(bin_folder, f"{printed(out, 'segsweep evaluate')} accelerator=cpu output=scores", work)
    assert (work / "scores/evaluation.json").is_file()
    out = typed(bin_folder, f"python -m segsweep train -m {small} lr=0.1,0.01 name=rates", work)
    sweep = work / "multirun/rates"
    following = printed(out, "segsweep train -m settings_of=multirun/rates")
    before = (sweep / "summary.md").read_text()
    assert f"    segsweep train -m {small} lr=0.1,0.01 name=rates\n" in before
    typed(bin_folder, f"{following.partition(' seed=')[0]} seed=7 {small} trainer.max_steps=1 name=next", work)
    assert (work / "multirun/next/sweep.json").is_file()
    (sweep / "summary.md").unlink()
    typed(bin_folder, "segsweep report multirun/rates", work)
    assert (sweep / "summary.md").read_text() == before
    listed = json.loads(typed(bin_folder, "segsweep runs --json", work))
    assert [(entry["kind"], entry["status"]) for entry in listed] == [
        ("run", "completed"), ("sweep", "2 completed"), ("sweep", "2 completed"),
    ]  # fmt: skip
    assert "segsweep 0." in typed(bin_folder, "segsweep --version", work)


@pytest.mark.slow
def test_an_editable_installation_finds_sweepers_and_configuration(tmp_path: Path):
    pytest.importorskip("setuptools", minversion="77")
    clone = copied(tmp_path / "clone", *(f"{command}.py" for command in COMMANDS))
    bin_folder = environment(tmp_path / "venv", "--editable", str(clone))
    small = shlex.join([*SMALL, "trainer.max_steps=2"])
    assert "  python evaluate.py run=outputs/" in typed(bin_folder, f"python train.py {small}", clone)
    assert "2 completed" in typed(bin_folder, f"segsweep train -m {small} seed=0,1 name=seeds; segsweep runs", clone)
