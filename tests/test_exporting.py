"""An exported net: the same logits at every size, and the metadata to use it without segsweep."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nets.test_every_net import VARIANTS, build, every_net, trained
from PIL import Image
from support import ROOT
from using_runs import train_on_scenes

from segsweep import load_run
from segsweep.classes import ClassTable
from segsweep.data.textures import TEXTURE_LABELS
from segsweep.errors import UserError
from segsweep.exporting import SUFFIXES, TOLERANCE, export
from segsweep.runs.load import Run

every_format = pytest.mark.parametrize("format", SUFFIXES)


def as_run(net: torch.nn.Module, path: Path) -> Run:
    return Run(path / "checkpoints/best.ckpt", {}, TEXTURE_LABELS, "binary", 1, 7, net)


def opened(path: Path):
    """The file opened without segsweep: a function from images to logits, and the metadata."""
    if path.suffix == ".onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        about = json.loads(session.get_modelmeta().custom_metadata_map["segsweep"])
        return lambda image: torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0]), about
    extra = {"segsweep.json": ""}
    net = torch.export.load(path, extra_files=extra).module()
    return net, json.loads(extra["segsweep.json"])


@pytest.mark.quick
@every_net
@every_format
def test_the_file_has_the_net_s_logits_at_every_size(target: str, variant: dict, format: str, tmp_path: Path):
    if format == "onnx" and variant not in VARIANTS[target][:2] and "architecture" not in variant:
        pytest.skip("every variant is traced for torch_export; that takes a fifth of the time")
    if variant.get("architecture") == "BasicUNet" and variant.get("norm") == "batch":
        pytest.skip("six levels are slow to trace, and one variant has all its layers")
    net = trained(build(target, variant))
    sees_the_whole_image = variant.get("architecture") == "UNet" and variant.get("norm") != "batch"
    if sees_the_whole_image or target == "segsweep.nets.InverseFilterUNet":
        with pytest.raises(UserError, match="cannot be exported with free height and width"):
            export(as_run(net, tmp_path), format, tmp_path / f"net{SUFFIXES[format]}")
        return
    done = export(as_run(net, tmp_path), format, tmp_path / f"net{SUFFIXES[format]}")
    assert done.difference <= TOLERANCE
    other, about = opened(done.path)
    smallest = about["input"]["smallest"]
    for size in [(1, 1, smallest, smallest), (5, 1, smallest + 1, 40), (1, 1, 33, 70), (2, 1, 64, 96)]:
        image = torch.rand(*size)
        with torch.no_grad():
            expected = net(image)
            torch.testing.assert_close(other(image), expected, rtol=0, atol=1e-4 * max(1, float(expected.abs().max())))


@every_format
def test_the_metadata_has_what_a_user_of_the_file_needs(command, tmp_path: Path, format: str):
    run = load_run(train_on_scenes(command, tmp_path))
    done = export(run, format)
    assert done.path == tmp_path / f"run/model{SUFFIXES[format]}"
    _, about = opened(done.path)
    assert ClassTable.from_dict(about) == run.labels
    assert (about["kind"], about["net"], about["step"]) == ("multiclass", "UNet", run.step)
    assert (about["input"]["channels"], about["input"]["range"]) == ("RGB", [0, 1])
    assert about["output"]["shape"] == ["batch", 6, "height", "width"]


def python_of(document: str) -> dict[str, str]:
    """The blocks of Python in a document, by the model file that they open."""
    blocks = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    return {re.search(r"model\.\w+", block).group(): block for block in blocks}


@pytest.mark.slow
@pytest.mark.parametrize("of", ["scenes", "textures"])
def test_the_documented_lines_segment_an_image_without_segsweep(command, train, tmp_path: Path, of: str):
    run = load_run(train_on_scenes(command, tmp_path) if of == "scenes" else train())
    pixels = np.random.default_rng(0).integers(256, size=(45, 62, run.channels), dtype=np.uint8)
    Image.fromarray(pixels.squeeze()).save(tmp_path / "photo.png")
    code = python_of((ROOT / "docs/export.md").read_text())
    assert set(code) == {"model.onnx", "model.pt2"}
    for name, lines in code.items():
        export(run, "onnx" if name == "model.onnx" else "torch_export", tmp_path / name)
        lines += "\nimport sys; assert not any(name.startswith('segsweep') for name in sys.modules)"
        lines += "\nassert 'torch' not in sys.modules" if name == "model.onnx" else ""
        subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, check=True)
        colors = run.labels.colors[run.predict(pixels.transpose(2, 0, 1))]
        wrong = (np.asarray(Image.open(tmp_path / "mask.png")) != colors).any(-1)
        # Two logits may be equal up to rounding: either class is right then.
        assert wrong.mean() < 0.001
        (tmp_path / "mask.png").unlink()


@pytest.mark.quick
@every_format
def test_a_file_that_differs_from_the_net_is_not_kept(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("segsweep.exporting.TOLERANCE", -1.0)
    net = trained(build("segsweep.nets.TextureCNN", {}))
    with pytest.raises(UserError, match="was not kept"):
        export(as_run(net, tmp_path), format, tmp_path / f"new/net{SUFFIXES[format]}")
    assert list(tmp_path.iterdir()) == []


def test_a_net_whose_shape_cannot_be_free_is_refused_in_one_line(tmp_path: Path):
    class OnlyEven(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            if image.shape[2] % 2:
                raise ValueError("odd")
            return image

    with pytest.raises(UserError, match="OnlyEven: cannot be exported with free height and width"):
        export(as_run(OnlyEven(), tmp_path), "torch_export", tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "parts"),
    [
        ([], ["run: needs a value"]),
        (["run=nowhere"], ["nowhere: no checkpoint there"]),
        (["run=run", "format=tflite"], ["format=tflite", "'onnx' or 'torch_export'"]),
        (["run=run", "output=net.pt2"], ["output=net.pt2", "must end in .onnx"]),
        (["run=run", "output=there.onnx"], ["there.onnx", "overwrite=true"]),
        (["run=[run,run/checkpoints/last.ckpt]"], ["names 2 runs"]),
    ],
)
def test_a_mistake_ends_in_one_line_and_leaves_nothing(command, train, tmp_path: Path, typed, parts):
    train()
    (tmp_path / "there.onnx").write_bytes(b"before")
    before = sorted(tmp_path.rglob("*"))
    outcome = command("export.py", *typed)
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1, outcome.err
    assert outcome.error_lines[0].startswith("error: ")
    for part in parts:
        assert part in outcome.error_lines[0]
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there.onnx").read_bytes() == b"before"


def test_a_missing_package_is_named_with_what_installs_it(command, train, monkeypatch: pytest.MonkeyPatch):
    train()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    outcome = command("export.py", "run=run")
    (line,) = outcome.error_lines
    assert line.startswith("error: format=onnx: ")
    assert "onnx, onnxruntime, onnxscript" in line
    assert line.endswith(" pip install onnx onnxruntime onnxscript")


@pytest.mark.quick
def test_the_command_says_how_close_the_file_is(command, train, tmp_path: Path):
    train()
    outcome = command("export.py", "run=run", "format=torch_export", "output=a/net.pt2")
    assert outcome.code == 0, outcome.err
    assert "a/net.pt2: compared with the net" in outcome.out
    assert "0.0001 is allowed" in outcome.out
    assert (tmp_path / "a/net.pt2").is_file()
    assert command("export.py", "run=run", "format=torch_export", "output=a/net.pt2", "overwrite=true").code == 0
