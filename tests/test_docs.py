"""The documented commands and Python examples run, or at least compose; what is shown is real; links lead somewhere."""

import ast
import importlib.util
import inspect
import json
import re
import shlex
import shutil
import statistics
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
import yaml
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

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "multirun/README.md"]
SCRIPTS = ("evaluate", "predict", "export", "check_data")
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
    needing = ("--help", "--cfg", "resume=", "--config-dir", "hydra/launcher", "optuna", "...", "NAME")
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


def every_command() -> Iterator[tuple[str, str, str]]:
    """Page, file or module, and arguments of every documented `python` command, in a block or inside backticks."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"(?:^    (?:.* && )?|`)python ([^`\n]+)", text, re.MULTILINE):
            first, _, rest = line.partition("  #")[0].strip().partition(" ")
            name, _, arguments = rest.partition(" ") if first == "-m" else (first, "", rest)
            yield page.name, f"-m {name}" if first == "-m" else name, arguments


def test_a_documented_command_names_a_script_or_a_module():
    found = {(page, name) for page, name, _ in every_command()}
    assert len(found) > 40
    for page, name in found:
        module = name.removeprefix("-m ")
        there = (ROOT / name).is_file() if module == name else importlib.util.find_spec(module) is not None
        assert there, (page, name)


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_documented_commands_of_other_scripts_are_composed(script: str, tmp_path: Path):
    lines = {arguments for _, name, arguments in every_command() if name == f"{script}.py"} - {"", "--help"}
    assert lines
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for line in lines:
            if "..." in line or "data.KEY" in line:
                continue
            typed = [word.replace("=PATH", f"={tmp_path}") for word in shlex.split(line.partition(" | ")[0])]
            typed = [word.replace("outputs/<date>/<time>", "outputs/run") for word in typed]
            typed = [word if "=[" in word or "<name>" not in word else "run=outputs/run" for word in typed]
            typed = [word for word in typed if word != "-m"]
            assert compose(script, overrides=opened(script, typed))


def anchors(page: Path) -> set[str]:
    """The anchors that a repository page gives its headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_and_pictures_lead_somewhere(page: Path):
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            linked = page.parent / target if target else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_python_files_that_a_page_names_exist(page: Path):
    places = (ROOT, ROOT / "src/segsweep", ROOT / "benchmarks", ROOT / "docs", ROOT / "tests")
    for name in re.findall(r"`((?:[\w]+/)*[\w]+\.py)`", page.read_text(encoding="utf-8")):
        own = name.startswith("own/") or name in (
            "mine.py",
            "labelme2voc.py",
            "tests/test_x.py",
        )  # a user's or a tool's
        assert own or any((place / name).is_file() for place in places), name


def test_every_page_can_be_reached_from_the_readme():
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        links = re.findall(r"\]\(([^)#]+\.md)", page.read_text(encoding="utf-8"))
        todo += [path for link in links if (path := (page.parent / link).resolve()) not in reached]
    assert set((ROOT / "docs").glob("*.md")) <= reached


def test_every_picture_is_on_a_page():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    pictures = (ROOT / "docs/images").rglob("*.png")
    assert [path.name for path in pictures if f"{path.relative_to(ROOT / 'docs/images')})" not in text] == []


def squeezed(text: str) -> str:
    return " ".join(re.sub(r"^> ?|[*]", "", text, flags=re.MULTILINE).split())


def test_the_readme_is_short_and_shows_what_a_run_printed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    monkeypatch.setenv("COLUMNS", "80")
    import make_images

    from segsweep.runs import RunRecord

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) < 120
    block = readme.partition("<!-- first run -->\n")[2].partition("<!-- end of first run -->\n")[0]
    directory = re.search(r"Everything is in (\S+)", block)
    assert directory
    assert make_images.printed(RunRecord.read(make_images.FIRST_RUN), Path(directory[1])) == block
    assert max(map(len, block.splitlines())) <= 4 + 80


def test_the_readme_shows_the_verdict_and_the_numbers_of_the_pages():
    readme = squeezed((ROOT / "README.md").read_text(encoding="utf-8"))
    sweep = json.loads((ROOT / "docs/measured/design_sweep.json").read_text(encoding="utf-8"))
    shown = sweep["verdict"][:4]
    assert squeezed(" - ".join(shown)) in readme
    assert f"python train.py -m {' '.join(sweep['command'][1:])} name=" in readme
    assert f"{len(sweep['jobs'])} jobs" in readme
    ours = re.search(
        r"\| `python train.py experiment=texture_inverse` .* (\S+) \|$", page_text("results"), re.MULTILINE
    )
    assert ours
    assert f"{ours[1]} test iou" in readme
    found = re.search(r"Of (\d+) printed figures, (\d+) could", page_text("replication"))
    assert found
    assert f"{found[2]} of {found[1]} figures" in readme


def page_text(name: str) -> str:
    return (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")


def test_the_page_of_keys_has_every_key_with_its_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import make_keys

    text = page_text("keys")
    assert make_keys.filled(text) == text, "type python docs/make_keys.py"
    with pytest.raises(ValueError, match="lr has no row"):
        make_keys.filled(text.replace("| `lr` |", "| lr |"))


@pytest.mark.parametrize("prefix", ["data", "trainer"])
def test_the_page_of_keys_names_every_choice_of_a_setting(prefix: str):
    from segsweep.data.folder import FolderSettings
    from segsweep.trainer_settings import TrainerSettings

    settings = {"data": FolderSettings, "trainer": TrainerSettings}[prefix]
    rows = dict(re.findall(rf"^\| `{prefix}\.(\w+)` \| (.*) \|$", page_text("keys"), re.MULTILINE))
    for name, hint in get_type_hints(settings).items():
        kinds = [each for each in (hint, *get_args(hint)) if get_origin(each) is Literal]
        missing = [
            word for kind in kinds for word in get_args(kind) if isinstance(word, str) and f"`{word}`" not in rows[name]
        ]
        assert missing == [], name


def test_the_page_of_metrics_has_exactly_the_metrics_that_there_are():
    from segsweep.callbacks import training_log
    from segsweep.tasks import SegmentationMetrics

    both = [SegmentationMetrics(["a", "b"], binary, background=0) for binary in (True, False)]
    names = {re.sub("/[ab]$", "/<class>", name) for metrics in both for name in metrics.names()}
    names |= {"loss", "loss_running", "confident_accuracy_running"}
    text = page_text("metrics")
    table = text.partition("| range | NaN if |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)) == names
    for column in ("lr", "steps_per_second", "epoch_seconds", "gradient_norm"):
        assert f'metrics["{column}"]' in inspect.getsource(training_log)
        assert f"`{column}`" in text


def messages() -> str:
    """Every text in the source, a line each, with `{}` for what is filled in."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_the_page_of_troubles_quotes_messages_that_there_are():
    text, source = page_text("troubles"), messages()
    symptoms = re.findall(r"^\| (`.*?`).*? \| .* \| .* \|$", text, re.MULTILINE)
    assert len(symptoms) > 30
    for symptom in symptoms:
        for part in re.split(r"\s*\.\.\.\s*|[()]", symptom.strip("`")):
            assert part.strip(" ;,:") in source, symptom


def test_the_hooks_before_a_commit_are_what_ci_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert [hook["entry"] for hook in hooks] == [line for line in lines if line.startswith(("ruff", "mypy"))]


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["title"], str(citation["version"])) == (project["name"], project["version"])
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_page_of_benchmarks_has_the_table_of_its_measurements(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import report

    files = sorted((ROOT / "docs/measured").glob("*.json"))
    rows = report.table([json.loads(file.read_text(encoding="utf-8")) for file in files]).splitlines()
    assert len(rows) > 10
    assert set(rows) <= set(page_text("benchmarks").splitlines())


def test_the_page_of_results_has_the_figures_of_the_net_that_undoes_the_filter():
    runs = json.loads((ROOT / "docs/measured/texture_inverse.json").read_text(encoding="utf-8"))["runs"]
    for title, found in (
        ("the preset", runs),
        ("the same nets with `model.symmetries=false`", [run["without symmetries"] for run in runs]),
    ):
        cells = [title]
        for name, digits in (("val/iou", 4), ("test/iou", 4), ("wrong pixels", 1)):
            values = [run[name] for run in found]
            cells.append(f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}")
        assert f"| {' | '.join(cells)} |" in page_text("results").splitlines()
