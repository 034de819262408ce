"""Exporting: a run's net as a file that needs no segsweep, with what has to be known to use it.

Shapes: B images, C channels, K channels of logits, H x W pixels.
"""

import contextlib
import copy
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional as F

from segsweep.errors import UserError
from segsweep.instantiate import checked
from segsweep.runs.files import write_whole
from segsweep.runs.load import Run

Format = Literal["onnx", "torch_export"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch_export": ".pt2"}

TOLERANCE = 1e-4
"""How far logits of the file may be from the net's, as a share of the largest of the image's, or of 1 if that is larger."""

METADATA = "segsweep"
"""The key of an ONNX file's metadata that holds what `describe` says, as JSON; in a .pt2 file it is `segsweep.json`."""

VERSION = 1
"""Of what `describe` says."""


@dataclass(frozen=True)
class Exported:
    """A file that was written, and how it compares with the net.

    Args:
        path: of the file.
        sizes: [B, H, W] of the images on which both were run.
        difference: the largest difference of logits, in the unit of `TOLERANCE`.
    """

    path: Path
    sizes: tuple[tuple[int, int, int], ...]
    difference: float


@checked
def export(run: Run, format: Format, output: str | Path | None = None, overwrite: bool = False) -> Exported:
    """Writes the net for any number of images of any height and width, and compares the file with the net.

    The file takes `image`, float32 [B, C, H, W] in [0, 1], and gives `logits`, float32 [B, K, H, W]. It is there only if
    its logits are those of the net, on images of several other sizes than it was made with.

    Args:
        run: from `load_run`.
        format: "onnx", which needs the extra `export`, or "torch_export".
        output: the file; by default model.onnx or model.pt2 in the run directory.
        overwrite: write over a file that is there.

    Raises:
        UserError: a package is missing, a file is there already, or the net cannot be exported or not be reproduced.
        OSError: the file could not be written.
    """
    if format == "onnx":
        missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
        if missing:
            raise UserError(f"format=onnx: needs {', '.join(missing)}; install them with pip install -e '.[export]'")
    path = Path(output) if output is not None else run.directory / f"model{SUFFIXES[format]}"
    if path.suffix != SUFFIXES[format]:
        raise UserError(f"output={path}: must end in {SUFFIXES[format]}")
    if path.is_dir() or (path.exists() and not overwrite):
        raise UserError(f"output={path}: is there already; give another file, or overwrite=true")
    net = _Logits(copy.deepcopy(run.net).eval().cpu())
    metadata = describe(run)
    write = _as_onnx if format == "onnx" else _as_torch_export
    checked: list[float] = []

    def write_and_compare(temporary: Path) -> None:
        checked.append(_compare(net, write(net, metadata, temporary), run.channels, metadata["input"]["smallest"]))

    made = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_whole(path, write_and_compare)
    except BaseException:
        if made:
            path.parent.rmdir()
        raise
    return Exported(path, _sizes(metadata["input"]["smallest"]), checked[0])


def describe(run: Run) -> dict[str, Any]:
    """What has to be known to use the file, as plain data: images, logits, classes."""
    binary = run.kind == "binary"
    logits = (
        "one channel: its sigmoid is the probability of class 1" if binary else "a channel a class: softmax over them"
    )
    # Where the net halves the resolution, a side of one such step is too little for the exporter to keep it free.
    smallest = int(getattr(run.net, "stride", 1)) + 1
    data = run.config.get("data")
    reading = data if isinstance(data, dict) else {}
    bands, usual = reading.get("bands"), {1: "gray", 3: "RGB"}
    return {
        "version": VERSION,
        "kind": run.kind,
        "net": type(run.net).__name__,
        "step": run.step,
        "input": {
            "name": "image",
            "type": "float32",
            "shape": ["batch", run.channels, "height", "width"],
            "channels": f"{run.channels} channels" if bands or run.channels not in usual else usual[run.channels],
            "bands": bands,
            "white": reading.get("white"),
            "range": [0, 1],
            "smallest": smallest,
        },
        "output": {
            "name": "logits",
            "type": "float32",
            "shape": ["batch", run.task.out_channels(run.labels), "height", "width"],
            "meaning": logits,
        },
        **run.labels.to_dict(),
    }


class _Logits(nn.Module):
    """The net, with the name `image` for what it takes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.net(image)
        return logits


def _traced(net: nn.Module, metadata: dict[str, Any]) -> ExportedProgram:
    smallest, channels = metadata["input"]["smallest"], metadata["input"]["shape"][1]
    image = torch.rand(2, channels, smallest + 21, smallest + 34)
    free = {0: Dim("batch", min=1), 2: Dim("height", min=smallest), 3: Dim("width", min=smallest)}
    try:
        return torch.export.export(net, (image,), dynamic_shapes=(free,))
    except Exception as error:  # whatever the exporter trips over in a net that somebody registered
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"{metadata['net']}: cannot be exported with free height and width ({reason[:200]})") from error


def _as_onnx(net: nn.Module, metadata: dict[str, Any], path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            _traced(net, metadata), input_names=["image"], output_names=["logits"], dynamo=True, verbose=False
        )
    assert program is not None
    program.model.metadata_props[METADATA] = json.dumps(metadata, ensure_ascii=False)
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])


def _as_torch_export(net: nn.Module, metadata: dict[str, Any], path: Path) -> Callable[[Tensor], Tensor]:
    with torch.no_grad(), _quiet():
        program = _traced(net, metadata)
        extra = {f"{METADATA}.json": json.dumps(metadata, ensure_ascii=False)}
        # Through memory: by name it would insist on a suffix.
        content = io.BytesIO()
        torch.export.save(program, content, extra_files=extra)
        path.write_bytes(content.getvalue())
        loaded: Callable[[Tensor], Tensor] = torch.export.load(io.BytesIO(path.read_bytes())).module()
    return loaded


def _sizes(smallest: int) -> tuple[tuple[int, int, int], ...]:
    """[B, H, W] of images to compare on: the smallest, odd and even sides, tall and wide; none is what was traced."""
    return ((1, smallest, smallest), (3, smallest + 16, 64), (1, 97, 130), (2, 160, 81))


@torch.no_grad()
def _compare(net: nn.Module, other: Callable[[Tensor], Tensor], channels: int, smallest: int) -> float:
    """The largest difference of logits, in the unit of `TOLERANCE`.

    Raises:
        UserError: it is larger than `TOLERANCE`.
    """
    draw = torch.Generator().manual_seed(0)
    largest = 0.0
    for batch, height, width in _sizes(smallest):
        noise = torch.rand(batch, channels, height, width, generator=draw)
        coarse = torch.rand(batch, channels, 3, 3, generator=draw)
        smooth = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
        for image in (noise, 0.95 * smooth + 0.05 * noise):
            expected, found = net(image), other(image)
            if found.shape != expected.shape:
                raise UserError(
                    f"the exported file gives logits {list(found.shape)} for images {list(image.shape)}, the net"
                    f" {list(expected.shape)}; it was not kept"
                )
            scale = max(1.0, float(expected.abs().max()))
            largest = max(largest, float((found - expected).abs().max()) / scale)
    if not largest <= TOLERANCE:
        raise UserError(
            f"the exported file's logits are {largest:.2g} from the net's, more than {TOLERANCE:g}; it was not kept"
        )
    return largest


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on its own work."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
