"""Untrusted checkpoints: no code in them runs, no declared size takes memory, and each is refused in one line."""

import io
import os
import pickle
import resource
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import fuzz
import numpy as np
import pytest
import torch
from torch import nn

from segsweep import load_run, load_weights
from segsweep.errors import UserError
from segsweep.nets import NETS, InverseFilterUNet, ResidualUNet, TextureCNN, UNet
from segsweep.runs.checkpoint import LARGEST_STRUCTURE, read_checkpoint, require_plain


@pytest.fixture
def content() -> dict[str, Any]:
    """The content of a valid checkpoint, for `save`."""
    return torch.load(io.BytesIO(fuzz.checkpoint_seeds()[0][1]), weights_only=True)


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def refused(path: Path, *words: str) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError) as caught:
        load_run(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert line.isprintable()
    for word in words:
        assert word in line
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    assert taken < 400, f"{taken} MB"
    return line


def test_a_whole_one_loads(tmp_path: Path, content: dict[str, Any]):
    run = load_run(save(tmp_path / "x.ckpt", content))
    assert run.step == 7
    assert run.predict(np.zeros((8, 8), np.uint8)).shape == (8, 8)
    for name, value in run.net.state_dict().items():
        assert torch.equal(value, content["state_dict"][f"net.{name}"])


def test_weights_do_not_stay_in_the_file(tmp_path: Path, content: dict[str, Any]):
    path = save(tmp_path / "x.ckpt", content)
    net = load_run(path).net
    path.write_bytes(b"\0" * path.stat().st_size)
    assert all(torch.equal(value, content["state_dict"][f"net.{name}"]) for name, value in net.state_dict().items())


# ---- the file ----


def test_a_file_that_torch_did_not_save_is_refused_with_what_it_is(tmp_path: Path):
    path = tmp_path / "x.ckpt"
    for bytes_, word in {
        b"": "empty (0 bytes)",
        b"hello": "torch did not save it",
        b"version https://git-lfs.github.com/spec/v1\n": "git lfs pull",
        pickle.dumps({"a": 1}): "is a pickle",
        b"PK\x03\x04 cut": "cut short or damaged",
    }.items():
        path.write_bytes(bytes_)
        refused(path, "cannot be read as a checkpoint of plain data", word)
    path.unlink()
    refused(path, "no checkpoint there")
    os.mkfifo(path)
    refused(path, "pipe, socket or device")


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path):
    refused(tmp_path, "give a run directory with checkpoints/best.ckpt, or a .ckpt file")
    (tmp_path / "checkpoints/best.ckpt").mkdir(parents=True)
    with pytest.raises(UserError, match=r"best\.ckpt: is a folder"):
        load_run(tmp_path)


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, content: dict[str, Any]):
    path = save(tmp_path / "x.ckpt", content)
    whole = path.read_bytes()
    for length in [*range(1, 200, 31), *range(200, len(whole), 997), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refused(path)


def test_a_legacy_file_is_refused_with_what_to_do(tmp_path: Path):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(1)}, path, _use_new_zipfile_serialization=False)
    refused(path, "before 1.6", "save its state_dict() anew")


def test_a_torchscript_archive_and_a_foreign_zip_are_refused(tmp_path: Path):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        archive.writestr("a/constants.pkl", pickle.dumps((), 2))
    refused(path, "torch.save did not write it")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("report.docx", "words")
    refused(path, "torch.save did not write it")


# ---- code ----


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


def test_a_pickle_bomb_does_not_go_off_and_is_named(tmp_path: Path, content: dict[str, Any]):
    content["segsweep"]["more"] = Bomb(tmp_path / "exploded")
    refused(save(tmp_path / "x.ckpt", content), "more than plain data", "posix.mkdir")
    with pytest.raises(UserError, match=r"posix\.mkdir"):
        load_weights(tmp_path / "x.ckpt", TextureCNN())
    assert not (tmp_path / "exploded").exists()


def test_a_whole_module_is_refused_with_what_to_save_instead(tmp_path: Path):
    path = save(tmp_path / "x.pt", nn.Conv2d(1, 1, 1))
    refused(path, "more than plain data", "torch.nn.modules.conv.Conv2d", "state_dict() alone")


@pytest.mark.parametrize("call", ["bytearray", "set", "complex"])
def test_calls_that_torch_allows_but_that_take_memory_are_refused(tmp_path: Path, call: str):
    # A few bytes that ask for 20 GB: weights_only=True would call bytearray(20 * 10**9).
    structure = b"\x80\x02cbuiltins\n" + call.encode() + b"\n\x8a\x08" + struct.pack("<q", 20 * 10**9) + b"\x85R."
    path = tmp_path / "x.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", structure)
    refused(path, f"builtins.{call}")


def test_no_target_is_imported(tmp_path: Path, content: dict[str, Any]):
    for target in (
        "antigravity.open",
        "torch.nn.Conv2d",
        "segsweep.nets.registry.build_net",
        ["segsweep.nets.UNet"],
        None,
    ):
        content["segsweep"]["config"]["model"]["_target_"] = target
        refused(save(tmp_path / "x.ckpt", content), "is not part of segsweep")
    assert "antigravity" not in sys.modules


# ---- memory ----


def archive_of(path: Path, size: list[int], stride: list[int], numel: int, payload: bytes, packing: int) -> Path:
    """A checkpoint whose one tensor declares anything."""

    def number(value: int) -> bytes:
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(numel) + b"tQ"
    shape = b"".join(b"(" + b"".join(map(number, numbers)) + b"t" for numbers in (size, stride))
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(0) + shape + b"\x89ccollections\nOrderedDict\n)RtR"
    )
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}" + text("weight") + tensor + b"s.")
        archive.writestr("a/byteorder", "little")
        archive.writestr("a/data/0", payload)
    return path


@pytest.mark.parametrize(
    ("size", "stride", "numel"),
    [([10**10], [1], 10**10), ([10**10], [1], 16), ([10**10], [1], 0), ([16], [10**9], 16), ([16], [1], -16)],
)
def test_tensors_that_declare_more_than_the_file_holds_take_no_memory(
    tmp_path: Path, size: list[int], stride: list[int], numel: int
):
    refused(archive_of(tmp_path / "x.ckpt", size, stride, numel, b"\0" * 64, zipfile.ZIP_STORED), "damaged")


def test_a_deflate_bomb_is_refused_before_it_is_unpacked(tmp_path: Path):
    payload = b"\0" * (200 << 20)
    path = archive_of(tmp_path / "x.ckpt", [50 << 20], [1], 50 << 20, payload, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    refused(path, "compressed")


def test_a_view_of_one_number_in_the_shape_of_terabytes_is_refused(tmp_path: Path, content: dict[str, Any]):
    # Every name and shape is the net's, and the file has some kilobytes.
    channels = 100_000
    with torch.device("meta"):
        plan = TextureCNN(1, 1, channels, 3).state_dict()
    content["segsweep"]["config"]["model"]["channels"] = channels
    content["state_dict"] = {
        f"net.{name}": torch.zeros((), dtype=value.dtype).expand(value.shape) for name, value in plan.items()
    }
    path = save(tmp_path / "x.ckpt", content)
    assert path.stat().st_size < 1 << 16
    refused(path, "asks for a larger net than it has weights for")


@pytest.mark.parametrize(
    "setting",
    [{"channels": 10**6}, {"channels": 10**18}, {"channels": 2**62}, {"kernel_size": 10**6 + 1}, {"channels": 10**300}],
)
def test_a_net_of_terabytes_is_refused_before_it_is_built(
    tmp_path: Path, content: dict[str, Any], setting: dict[str, int]
):
    content["segsweep"]["config"]["model"] |= setting
    refused(save(tmp_path / "x.ckpt", content))


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ({"blocks": 10**9}, "larger net"),
        ({"levels": 10**9}, "levels=1000000000: must be at most 12"),
        ({"stem_kernel_size": 1001}, "larger net"),
        ({"stem_channels": 10**12}, "larger net"),
        ({"channels": 2**31, "max_channels": 2**31}, "larger net"),
    ],
)
def test_a_net_of_endless_layers_is_refused_at_once(
    tmp_path: Path, content: dict[str, Any], setting: dict[str, int], word: str
):
    content["segsweep"]["config"]["model"] = {"_target_": "segsweep.nets.ResidualUNet", **setting}
    refused(save(tmp_path / "x.ckpt", content), word)


def test_a_large_pickle_is_refused_before_it_is_read(tmp_path: Path, content: dict[str, Any]):
    content["more"] = "x" * (LARGEST_STRUCTURE + 1)
    refused(save(tmp_path / "x.ckpt", content), "4 MiB beside its tensors")


def test_one_list_in_a_million_places_is_refused(tmp_path: Path, content: dict[str, Any]):
    lists: list[Any] = []
    for _ in range(60):
        lists = [lists, lists]
    content["segsweep"]["config"]["data"] = lists
    refused(save(tmp_path / "x.ckpt", content), "damaged, or not written by segsweep")
    content["segsweep"]["config"]["data"] = {}
    content["segsweep"]["config"]["data"]["itself"] = content["segsweep"]["config"]
    refused(save(tmp_path / "x.ckpt", content), "levels")


# ---- what it says ----


def test_another_project_s_checkpoint_is_refused_with_what_it_holds(tmp_path: Path):
    refused(save(tmp_path / "x.ckpt", {"epoch": 3, "model": {"w": torch.zeros(1)}}), "it holds epoch, model")
    refused(save(tmp_path / "x.ckpt", [torch.zeros(1)]), "it holds a list")
    refused(save(tmp_path / "x.ckpt", {"w": torch.zeros(1)}), "plain state dict", "segsweep.load_weights")


def test_a_newer_format_is_refused_with_what_to_do(tmp_path: Path, content: dict[str, Any]):
    content["segsweep"]["format"] += 1
    refused(save(tmp_path / "x.ckpt", content), "newer segsweep", "update segsweep")
    for form in (None, "1", 0, torch.tensor([1, 2])):
        content["segsweep"]["format"] = form
        refused(save(tmp_path / "x.ckpt", content), "unknown format")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("net.out.bias"), ("out.bias is missing",)),
        (lambda state: state.update({"net.more": torch.zeros(1)}), ("more is not in the net",)),
        (lambda state: state.update({"net.out.bias": torch.zeros(2)}), ("out.bias has shape [2], not [1]",)),
        (
            lambda state: state.update({"net.out.bias": torch.zeros(1, dtype=torch.float64)}),
            ("is float64, not float32",),
        ),
        (lambda state: state.update({"net.conv2.2.weight": torch.full((4,), 3.0)}), ("norm='block'",)),
        (lambda state: state.update({"net.out.bias": 3.0}), ("net.out.bias is not a tensor",)),
        (lambda state: state.update({5: torch.zeros(1)}), ("a weight with a int as its name",)),
        (lambda state: [state.pop(name) for name in list(state)], ("no table of weights",)),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, content: dict[str, Any], change: Any, words: tuple[str, ...]
):
    change(content["state_dict"])
    refused(save(tmp_path / "x.ckpt", content), *words)


@pytest.mark.parametrize(
    ("place", "value", "word"),
    [
        (("config", "model", "channels"), "16", "channels=16"),
        (("config", "model", "other"), 1, "other: no such setting"),
        (("config", "model", "norm"), "x" * 10**5, "norm="),
        (("config", "model"), 3, "damaged"),
        (("config",), {}, "there is no 'model'"),
        (("labels", "classes"), [], "no class"),
        (
            ("labels", "classes"),
            [{"id": i, "name": f"{i}", "color": [i % 256, i // 256, 0]} for i in range(300)],
            "300",
        ),
        (("labels", "classes"), [{"id": 0, "name": "two\nlines", "color": [0, 0, 0]}], "line breaks"),
        (("labels",), None, "damaged"),
        (("kind",), [1], "damaged"),
        (("kind",), "other", "damaged"),
        (("channels",), 10**9, "larger net"),
        (("channels",), -1, "in_channels=-1"),
        (("channels",), None, "in_channels=None"),
        (("config", "seed"), 2**80, "beyond 64 bits"),
        (("config", "seed"), torch.zeros(1), "a Tensor, which is not plain data"),
    ],
)
def test_settings_in_a_checkpoint_are_checked_as_those_of_a_user_are(
    tmp_path: Path, content: dict[str, Any], place: tuple[str, ...], value: Any, word: str
):
    holder = content["segsweep"]
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    refused(save(tmp_path / "x.ckpt", content), word)


def test_a_net_that_is_registered_and_computes_while_it_is_built_loads(
    tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    class Counting(nn.Module):
        def __init__(self, in_channels: int, out_channels: int) -> None:
            super().__init__()
            rates = [rate.item() for rate in torch.linspace(0, 1, 3)]  # has no value on the meta device
            self.layer = nn.Conv2d(in_channels, out_channels, len(rates), padding=1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.layer(image)

    monkeypatch.setitem(NETS, "segsweep.nets.Counting", Counting)
    content["segsweep"]["config"]["model"] = {"_target_": "segsweep.nets.Counting"}
    content["state_dict"] = {f"net.{name}": value for name, value in Counting(1, 1).state_dict().items()}
    assert isinstance(load_run(save(tmp_path / "x.ckpt", content)).net, Counting)
    content["state_dict"]["net.more"] = torch.zeros(1)
    refused(save(tmp_path / "x.ckpt", content), "more is not in the net")


@pytest.mark.parametrize(
    ("net_class", "settings"),
    [
        (TextureCNN, {}),
        (TextureCNN, {"norm": "block"}),
        (UNet, {}),
        (ResidualUNet, {}),
        (ResidualUNet, {"norm": "batch", "stem": "convolution", "upsampling": "bilinear"}),
        (ResidualUNet, {"norm": "group", "levels": 5, "blocks": 3}),
        (InverseFilterUNet, {"smoothing": None}),
    ],
)
def test_every_net_comes_back_with_every_weight(
    tmp_path: Path, content: dict[str, Any], net_class: type[nn.Module], settings: dict[str, Any]
):
    net = net_class(**settings, in_channels=1, out_channels=1)
    content["segsweep"]["config"]["model"] = {"_target_": f"segsweep.nets.{net_class.__name__}", **settings}
    content["state_dict"] = {f"net.{name}": value for name, value in net.state_dict().items()}
    loaded = load_run(save(tmp_path / "x.ckpt", content)).net
    image = torch.rand(1, 1, 16, 16)
    assert torch.equal(loaded(image), net.eval()(image))


# ---- plain state dicts ----


class Published(nn.Module):
    """The published CNN: one batch norm module in three places."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(16)
        self.conv1 = nn.Sequential(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), self.bn)
        self.conv2 = nn.Sequential(nn.Conv2d(16, 16, 5, padding=2), nn.ReLU(), self.bn)
        self.conv3 = nn.Sequential(nn.Conv2d(16, 16, 5, padding=2), nn.ReLU(), self.bn)
        self.out = nn.Conv2d(16, 1, 5, padding=2)


def test_the_published_cnn_s_file_loads_and_says_that_statistics_are_missing(tmp_path: Path):
    published, net = Published(), TextureCNN()
    path = save(tmp_path / "best_model.pt", published.state_dict())
    with pytest.warns(UserWarning, match="estimate"):
        assert load_weights(path, net)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in published.state_dict().items())


def test_a_plain_state_dict_of_any_net_loads(tmp_path: Path):
    for one, other in (
        (UNet(), UNet()),
        (TextureCNN(norm="none"), TextureCNN(norm="none")),
        (nn.Linear(2, 3), nn.Linear(2, 3)),
    ):
        assert not load_weights(save(tmp_path / "x.pt", one.state_dict()), other)
        assert all(torch.equal(value, one.state_dict()[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize(
    ("saved", "word"),
    [
        ({}, "no table of weights"),
        ({"a": 1}, "a is not a tensor"),
        ({"a": torch.zeros(1)}, "bn.weight is missing"),
        ({"state_dict": {}, "segsweep": {}}, "segsweep.load_run"),
        (TextureCNN(channels=8).state_dict(), "shape"),
        ([1], "it holds a list"),
    ],
)
def test_a_state_dict_of_another_net_or_none_is_refused_in_one_line(tmp_path: Path, saved: Any, word: str):
    path = save(tmp_path / "x.pt", saved)
    with pytest.raises(UserError) as caught:
        load_weights(path, TextureCNN())
    assert str(caught.value).startswith(f"{path}: ")
    assert word in str(caught.value)


# ---- beside the checkpoint ----


@pytest.fixture
def run(tmp_path: Path, content: dict[str, Any]) -> Path:
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    save(tmp_path / "run/checkpoints/best.ckpt", content)
    (tmp_path / "run/run.json").write_bytes(fuzz.record_seeds()[0][1])
    (tmp_path / "run/metrics.csv").write_bytes(fuzz.metrics_seeds()[0][1])
    return tmp_path / "run"


def test_a_run_reads_the_files_beside_its_checkpoint(run: Path):
    loaded = load_run(run)
    assert loaded.summary.status == "completed"
    assert loaded.history["step"].tolist() == [50, 100, 150]


@pytest.mark.parametrize("file", ["run.json", "metrics.csv"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1] if whole.endswith(b"}\n") is False else whole[:-2],
        lambda whole: b"\x80\x02binary\xff" * 50,
        lambda whole: b"[" * 100_000,
        lambda whole: whole.replace(b"0.5", b'"half"'),
        lambda whole: whole.replace(b"step", b"epoch").replace(b'"seed": 0', b'"seed": "0"'),
        lambda whole: b'{"objective": {"name": "a", "mode": "max", "value": ' + b"9" * 5000 + b"}}",
        lambda whole: b"<html>404</html>\n",
    ],
)
def test_damaged_and_wrongly_typed_files_are_refused_in_one_line(run: Path, file: str, damage: Any):
    path = run / file
    path.write_bytes(damage(path.read_bytes()))
    loaded = load_run(run)
    with pytest.raises(UserError) as caught:
        _ = loaded.summary if file == "run.json" else loaded.history
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()


def test_a_checkpoint_alone_says_where_the_rest_would_be(tmp_path: Path, content: dict[str, Any]):
    loaded = load_run(save(tmp_path / "x.ckpt", content))
    for read in (lambda: loaded.summary, lambda: loaded.history):
        with pytest.raises(UserError, match=r"no such file; load \S+x\.ckpt from its run directory"):
            read()


def test_only_plain_data_is_accepted():
    require_plain({"a": [1, 2.5, "x", None, True, (1,)]})
    for value in ({1, 2}, b"x", torch.zeros(1), 2**64, [[]] * 200_000, "x" * (2 << 20)):
        with pytest.raises(ValueError, match=r"\w"):
            require_plain(value)


def test_a_directory_of_gigabytes_is_not_read(tmp_path: Path, content: dict[str, Any]):
    path = save(tmp_path / "x.ckpt", content)
    whole = bytearray(path.read_bytes())
    whole[-10:-6] = struct.pack("<I", 0xFFFFFF00)
    at = whole.rindex(b"PK\x06\x06")
    whole[at + 40 : at + 48] = struct.pack("<Q", 1 << 40)
    path.write_bytes(whole)
    with pytest.raises(UserError, match="cut short or damaged"):
        read_checkpoint(path)
