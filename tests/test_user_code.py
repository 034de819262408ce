"""A user's own nets, sources and losses work like ours, and no code runs unless the user names its file."""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from support import ROOT, SMALL, Command

import segsweep
from segsweep import user_code
from segsweep.data import SOURCES
from segsweep.errors import UserError
from segsweep.nets import NETS
from segsweep.tasks import LOSSES

PAGE = (ROOT / "docs/your_own.md").read_text(encoding="utf-8")
OWN = ["--config-dir", "own", "code=own/mine.py"]
ALL = ["data=mine", "model=mine", "loss=mine", "optim=mine", "lr=0.1"]
TINY = ["trainer.max_steps=6", "trainer.accelerator=cpu", "trainer.progress_bar=false", "callbacks.graph=null"]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[Callable[[], None]]:
    """Makes this process forget the user's files, like a new process."""
    before = [dict(table) for table in (NETS, SOURCES, LOSSES, user_code._loaded)], list(sys.path), set(sys.modules)

    def forget() -> None:
        for table, content in zip((NETS, SOURCES, LOSSES, user_code._loaded), before[0], strict=True):
            table.clear()
            table.update(content)
        sys.path[:] = before[1]
        for name in ("mine", "other", "beside"):
            sys.modules.pop(name, None)

    yield forget
    forget()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The folder that docs/your_own.md describes, written from its text."""
    folder = tmp_path / "own"
    folder.mkdir()
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (folder / "mine.py").write_text(code, encoding="utf-8")
    for name, content in re.findall(r"^\| `own/(\w+/mine\.yaml)` \| (.*) \|$", PAGE, re.MULTILINE):
        (folder / name).parent.mkdir()
        (folder / name).write_text("\n".join(re.findall(r"`(.*?)`", content)) + "\n", encoding="utf-8")
    assert len(list(folder.glob("*/mine.yaml"))) == 4
    return folder


def test_the_example_is_short():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert sum(bool(line.strip()) for line in code.splitlines()) < 35


@pytest.mark.slow
def test_own_net_source_loss_and_optimizer_are_trained_scored_and_opened(
    own: Path, command: Command, tmp_path: Path, forgotten: Callable[[], None]
):
    outcome = command("train.py", *OWN, *ALL, *TINY, "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    record = json.loads((tmp_path / "run/run.json").read_text())
    forgotten()
    refused = command("evaluate.py", "run=run")
    assert refused.code == 1
    assert len(refused.error_lines) == 1
    assert "mine.Thin" in refused.err
    assert "code=FILE" in refused.err
    with pytest.raises(UserError, match=r"segsweep\.load_code"):
        segsweep.load_run(tmp_path / "run")
    assert "mine" not in sys.modules
    scored = command("evaluate.py", "run=run", "code=own/mine.py", "output=scored")
    assert scored.code == 0, scored.err
    evaluation = json.loads((tmp_path / "scored/evaluation.json").read_text())
    assert evaluation["metrics"]["iou"] == record["metrics"]["test/iou"]
    forgotten()
    segsweep.load_code(own / "mine.py")
    run = segsweep.load_run(tmp_path / "run")
    assert type(run.net).__name__ == "Thin"
    assert run.predict(torch.rand(1, 20, 30)).shape == (20, 30)


@pytest.mark.slow
def test_a_named_sweep_over_an_own_net_and_another_is_continued(own: Path, command: Command, tmp_path: Path):
    typed = ["-m", *OWN, *SMALL, "model=mine,texture_cnn", "name=both"]
    outcome = command("train.py", *typed)
    assert outcome.code == 0, outcome.err
    assert {path.name for path in (tmp_path / "multirun/both").iterdir() if path.is_dir()} == {
        "model=mine", "model=texture_cnn",
    }  # fmt: skip
    again = command("train.py", *typed)
    assert "2 completed" in again.out
    code = own / "mine.py"
    code.write_text(code.read_text().replace("width: int = 8", "width: int = 9"))
    changed = command("train.py", *typed)
    assert changed.code == 1
    assert len(changed.error_lines) == 1
    assert "mine.py has changed since the sweep" in changed.err
    code.write_text(code.read_text().replace("width: int = 9", "width: int = 8"))
    assert "2 completed" in command("train.py", *typed).out


@pytest.mark.slow
def test_a_run_of_own_code_is_continued_when_its_user_names_the_file(
    own: Path, command: Command, train: Callable[..., Path], tmp_path: Path, forgotten: Callable[[], None]
):
    settings = [*OWN, *ALL, *TINY]
    assert command("train.py", *settings, "hydra.run.dir=long", "trainer.max_steps=9").code == 0
    assert command("train.py", *settings, "hydra.run.dir=run").code == 0
    forgotten()
    refused = command("train.py", "--config-dir", "own", "resume=run", "trainer.max_steps=9")
    assert refused.code == 1
    assert len(refused.error_lines) == 1
    assert "_target_" in refused.err
    assert "code=own/mine.py" in refused.err
    continued = command("train.py", *OWN, "resume=run", "trainer.max_steps=9")
    assert continued.code == 0, continued.err
    long, run = (segsweep.load_run(tmp_path / name / "checkpoints/last.ckpt") for name in ("long", "run"))
    assert all(torch.equal(one, other) for one, other in zip(long.net.parameters(), run.net.parameters(), strict=True))


@pytest.mark.quick
@pytest.mark.parametrize(
    ("group", "node"),
    [
        ("callbacks", {"opened": {"_target_": "pathlib.Path.touch", "self": "opened"}}),
        ("model", {"_target_": "webbrowser.open", "url": "opened"}),
        ("optim", {"_target_": "segsweep.callbacks.checkpoints.os.remove", "path": "opened"}),
        ("loss", {"_target_": "segsweep.nets.load_published", "net": 1}),
        ("data", {"_target_": "hidden.Source"}),
        ("trainer", {"_target_": "lightning.Trainer"}),
    ],
)
def test_a_run_directory_of_a_stranger_makes_resume_import_nothing(
    train: Callable[..., Path], command: Command, tmp_path: Path, group: str, node: dict
):
    run = train()
    (tmp_path / "hidden.py").write_text("raise SystemExit('ran')")
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings[group] = {**settings[group], **node}
    settings["code"] = str(tmp_path / "hidden.py")
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    outcome = command("train.py", "resume=run", "trainer.max_steps=9")
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    ((_, target),) = user_code.targets({group: node})
    assert target in outcome.err
    assert "hidden" not in sys.modules
    assert not (tmp_path / "opened").exists()


@pytest.mark.quick
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("mine.txt", "", ".py"),
        ("my net.py", "", "mine.py"),
        ("json.py", "", "module json"),
        ("segsweep.py", "", "module segsweep"),
        ("calendar.py", "", "module calendar"),
        ("mine.py", "import torch\n\nclass Net(\n", "line 3: SyntaxError"),
        ("mine.py", "import torch\n\ntorch.nothing\n", "line 3: AttributeError: "),
        (None, "", "no such file"),
    ],
)
def test_a_file_that_cannot_be_used_ends_in_one_line(command: Command, tmp_path: Path, name, content: str, said: str):
    if name is not None:
        (tmp_path / name).write_text(content)
    outcome = command("train.py", *SMALL, f"code='{name or 'nothing.py'}'")
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1, outcome.err
    assert outcome.err.startswith(f"error: code={name or 'nothing.py'}: ")
    assert said in outcome.err


@pytest.mark.parametrize("typed", ["code=3", "code=[1]", "code={a: b}"])
def test_another_type_of_code_is_refused(command: Command, typed: str):
    outcome = command("train.py", *SMALL, typed)
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert outcome.err.startswith("error: code")


def test_two_files_and_their_neighbours(tmp_path: Path):
    (tmp_path / "beside.py").write_text("WIDTH = 7\n")
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom beside import WIDTH\nclass Net(torch.nn.Conv2d): width = WIDTH\n"
    )
    (tmp_path / "other.py").write_text("from mine import Net\nclass Wide(Net): pass\n")
    segsweep.load_code([tmp_path / "mine.py", tmp_path / "other.py"])
    segsweep.load_code(tmp_path / "mine.py")
    assert NETS["mine.Net"].width == 7
    assert issubclass(NETS["other.Wide"], NETS["mine.Net"])
    assert "other.Net" not in NETS, "a class belongs to the file that defines it"
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "mine.py", tmp_path / "elsewhere")
    with pytest.raises(UserError, match="module mine"):
        segsweep.load_code(tmp_path / "elsewhere/mine.py")


# MONAI's nets

MONAI = ["monai_unet", "monai_basic_unet", "monai_attention_unet", "monai_segresnet"]


@pytest.mark.slow
def test_monai_s_nets_are_swept_scored_and_opened(command: Command, tmp_path: Path):
    pytest.importorskip("monai")
    outcome = command("train.py", "-m", *SMALL, "data.image_size=48", f"model={','.join(MONAI)}", "name=monai")
    assert outcome.code == 0, outcome.err
    sweep = segsweep.load_sweep(tmp_path / "multirun/monai")
    assert set(sweep.summary["model"]) == set(MONAI)
    for name in MONAI:
        run = sweep.run(f"model={name}")
        assert run.predict(torch.rand(1, 37, 50)).shape == (37, 50)
    outcome = command("evaluate.py", "run='multirun/monai/*'", "output=scored")
    assert outcome.code == 0, outcome.err
    scored = pd.read_csv(tmp_path / "scored/evaluation.csv")
    trained = dict(zip(sweep.summary["directory"], sweep.summary["test/iou"], strict=True))
    assert dict(zip(scored["run"], scored["iou"], strict=True)) == pytest.approx(trained, abs=0)


def test_without_monai_its_nets_say_what_to_install(command: Command, monkeypatch: pytest.MonkeyPatch):
    for name in ("monai", "monai.networks"):
        monkeypatch.setitem(sys.modules, name, None)
    outcome = command("train.py", *SMALL, "model=monai_unet")
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert "pip install monai" in outcome.err


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model=monai_unet model.channels=[8]", "model.channels=[8]: must have at least 2"),
        ("model=monai_unet model.channels=[8,0]", "model.channels[1]=0: "),
        ("model=monai_basic_unet model.features=[8,8]", "model.features=[8, 8]: must have at least 6"),
        ("model=monai_segresnet model.groups=5", "model.groups=5: must divide"),
        ("model=monai_segresnet model.blocks_down=[1]", "model.blocks_down=[1]: "),
        ("model=monai_unet model.norm=group", "model.norm=group: must be 'instance' or 'batch'"),
        ("model=monai_attention_unet +model.norm=batch", "model.norm: no such setting; there are channels, dropout"),
        ("model=monai_unet model.architecture=VNet", "model.architecture=VNet: must be 'UNet', "),
    ],
)
def test_settings_of_monai_s_nets_are_checked(command: Command, override: str, said: str):
    outcome = command("train.py", *SMALL, *override.split(" "))
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert said in outcome.err
