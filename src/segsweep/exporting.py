"""Exporting: a run's net as a file that works without segsweep, with metadata on how to use it.

Shapes: B images, C channels, K channels of logits, H x W pixels.
"""

import contextlib
import copy
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
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
"""Largest difference between the logits of file and net, divided by the largest logit, or by 1 if that is larger."""

METADATA = "segsweep"
"""The key of `export_metadata`, as JSON, in an ONNX file; a .pt2 file has it in `segsweep.json`."""

VERSION = 1
"""Version of `export_metadata`."""


@dataclass(frozen=True)
class Exported:
    """A file that was written, and its difference from the net.

    Args:
        path: the file.
        sizes: [B, H, W] of the images on which both were compared.
        difference: the largest difference of logits, relative as `TOLERANCE` is.
    """

    path: Path
    sizes: tuple[tuple[int, int, int], ...]
    difference: float


@checked
def export(run: Run, format: Format, output: str | Path | None = None, overwrite: bool = False) -> Exported:
    """Writes the net to a file that takes any number of images of any height and width.

    The file takes `image`, float32 [B, C, H, W] in [0, 1], and gives `logits`, float32 [B, K, H, W]. It is kept only if
    its logits are those of the net, on images of other sizes than it was traced with.

    Args:
        run: from `load_run`.
        format: "onnx", which needs the extra `export`, or "torch_export".
        output: the file; by default model.onnx or model.pt2 in the run directory.
        overwrite: replace a file that exists.

    Raises:
        UserError: a package is missing, the file exists, the net cannot be exported, or the file's logits differ.
        OSError: the file could not be written.
    """
    if format == "onnx":
        missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
        if missing:
            raise UserError(
                f"format=onnx: needs {', '.join(missing)}; install them with pip install {' '.join(missing)}"
            )
    path = Path(output) if output is not None else run.directory / f"model{SUFFIXES[format]}"
    if path.suffix != SUFFIXES[format]:
        raise UserError(f"output={path}: must end in {SUFFIXES[format]}")
    if path.is_dir() or (path.exists() and not overwrite):
        raise UserError(f"output={path}: exists already; give another file, or overwrite=true")
    net = _Logits(copy.deepcopy(run.net).eval().cpu())
    metadata = export_metadata(run)
    write = write_onnx if format == "onnx" else write_torch_export
    smallest = metadata["input"]["smallest"]
    # The smallest, odd and even sides, tall and wide; the net is traced with none of them.
    sizes = ((1, smallest, smallest), (3, smallest + 16, 64), (1, 97, 130), (2, 160, 81))
    differences: list[float] = []

    def write_and_compare(temporary: Path) -> None:
        differences.append(compare(net, write(net, metadata, temporary), run.channels, sizes))

    made = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_whole(path, write_and_compare)
    except BaseException:
        if made:
            path.parent.rmdir()
        raise
    return Exported(path, sizes, differences[0])


def export_metadata(run: Run) -> dict[str, Any]:
    """The metadata of an exported file, as plain data: its input, its output and the classes."""
    meaning = "a channel a class: softmax over them"
    if run.kind == "binary":
        meaning = f"one channel: its sigmoid is the probability of class 1, {run.labels.names[1]}"
    # If the net halves the resolution, the exporter cannot keep a side of only one stride free.
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
            "meaning": meaning,
        },
        **run.labels.to_dict(),
    }


class _Logits(nn.Module):
    """The net with an argument named `image`, which the exported file gets its input name from."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.net(image)
        return logits


def trace(net: nn.Module, metadata: dict[str, Any]) -> ExportedProgram:
    """The net as torch.export traces it, with free batch size, height and width.

    Raises:
        UserError: the exporter fails.
    """
    smallest, channels = metadata["input"]["smallest"], metadata["input"]["shape"][1]
    image = torch.rand(2, channels, smallest + 21, smallest + 34)
    free = {0: Dim("batch", min=1), 2: Dim("height", min=smallest), 3: Dim("width", min=smallest)}
    try:
        return torch.export.export(net, (image,), dynamic_shapes=(free,))
    except Exception as error:  # the exporter may raise anything for a user's net
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"{metadata['net']}: cannot be exported with free height and width ({reason[:200]})") from error


def write_onnx(net: nn.Module, metadata: dict[str, Any], path: Path) -> Callable[[Tensor], Tensor]:
    """Writes an ONNX file and returns it as onnxruntime runs it, from images to logits."""
    import onnxruntime

    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            trace(net, metadata), input_names=["image"], output_names=["logits"], dynamo=True, verbose=False
        )
    assert program is not None
    program.model.metadata_props[METADATA] = json.dumps(metadata, ensure_ascii=False)
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])


def write_torch_export(net: nn.Module, metadata: dict[str, Any], path: Path) -> Callable[[Tensor], Tensor]:
    """Writes a .pt2 file and returns it as torch runs it, from images to logits."""
    with torch.no_grad(), _quiet():
        program = trace(net, metadata)
        extra = {f"{METADATA}.json": json.dumps(metadata, ensure_ascii=False)}
        # Through memory, since torch refuses a path without the suffix .pt2.
        content = io.BytesIO()
        torch.export.save(program, content, extra_files=extra)
        path.write_bytes(content.getvalue())
        loaded: Callable[[Tensor], Tensor] = torch.export.load(io.BytesIO(path.read_bytes())).module()
    return loaded


@torch.no_grad()
def compare(
    net: nn.Module, other: Callable[[Tensor], Tensor], channels: int, sizes: Sequence[tuple[int, int, int]]
) -> float:
    """The largest difference of logits on random images of `sizes`, [B, H, W], relative as `TOLERANCE` is.

    Raises:
        UserError: it is larger than `TOLERANCE`, or the shape of the logits differs.
    """
    draw = torch.Generator().manual_seed(0)
    largest = 0.0
    for batch, height, width in sizes:
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
    """Silences the log lines and warnings of the exporter."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
