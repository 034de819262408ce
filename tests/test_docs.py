"""The documented commands and Python examples run, or at least compose."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image
from support import ROOT, SMALL, Command

from segsweep import cli  # noqa: F401  (registers resolvers)
from segsweep.data.demo import write_demo_folder
from segsweep.instantiate import to_plain
from segsweep.keys import opened
from segsweep.nets import TextureCNN

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SEVERAL = ["optim=sgd,adam", "lr=0.001,0.01", "seed=0,1", "name=first"]


def python_of(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("documented")


@pytest.fixture
def documented(made: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run, a sweep, images and weights at the documented paths."""
    if not (made / "outputs").exists():
        assert command("train.py", *SMALL, "data.image_size=48", "hydra.run.dir=outputs/run").code == 0
        assert command("train.py", "-m", *SMALL, "callbacks.panel=null", *SEVERAL).code == 0
        write_demo_folder(tmp_path / "PATH", scenes=(4, 2, 2), size=64)
        (tmp_path / "photos").mkdir()
        for number in range(2):
            pixels = np.random.default_rng(number).integers(256, size=(40, 30), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
        torch.save(TextureCNN().state_dict(), tmp_path / "best_model.pt")
        for path in tmp_path.iterdir():
            shutil.move(path, made / path.name)
    work = shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(work)
    return work


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "docs/api.md", "docs/sweeps.md", "docs/safety.md"])
@pytest.mark.filterwarnings("ignore:this state dict has the same batch-norm statistics")
def test_the_documented_python_runs(documented: Path, name: str):
    import segsweep
    import segsweep.nets

    names = {"image": np.zeros((1, 20, 30), dtype=np.uint8), "segsweep": segsweep}
    blocks = python_of(ROOT / name)
    assert blocks
    for block in blocks:
        exec(block.replace("outputs/<date>/<time>", "outputs/run"), names)


def commands() -> list[tuple[str, str]]:
    """Page and arguments of every documented `python train.py` line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        lines = re.findall(r"^    (?:pip install .* && )?python train\.py *(.*)$", text, re.MULTILINE)
        lines += re.findall(r"`python train\.py *([^`]*)`", text)
        found += [(page.name, line.partition("  #")[0].strip()) for line in lines]
    return found


@pytest.mark.quick
@pytest.mark.parametrize(("page", "line"), commands(), ids=lambda value: value)
def test_a_documented_training_is_composed(page: str, line: str, tmp_path: Path):
    needing = ("--help", "resume=", "--config-dir", "hydra/launcher", "optuna", "...", "NAME")
    if any(word in line for word in needing):
        pytest.skip("needs a run, a plugin or a file; another test runs it")
    typed = [argument for argument in shlex.split(line) if argument != "-m"]
    for word, value in (("=PATH", f"={tmp_path}"), ("=OUT", f"={tmp_path}"), ("outputs/<date>/<time>", "outputs/run")):
        typed = [argument.replace(word, value) for argument in typed]
    typed = opened("train", typed)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = []
        for override in OverridesParser.create().parse_overrides(typed):
            if override.get_key_element().lstrip("+").startswith("hydra"):
                continue
            first = next(iter(override.sweep_string_iterator())) if override.is_sweep_override() else None
            overrides.append(f"{override.get_key_element()}={first}" if first else override.input_line)
        settings = to_plain(compose("train", overrides=overrides))
    assert settings["model"]["_target_"].startswith("segsweep.nets.")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_and_pictures_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
