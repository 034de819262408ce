"""Fuzzes the readers: a damaged or hostile file must be read correctly, or refused in one line that names it.

The test suite tries some hundred files of each kind. For more:

    python tests/fuzz.py --minutes 10                  # every kind
    python tests/fuzz.py --minutes 10 checkpoint mask  # some kinds
    python tests/fuzz.py --seed 12345 mask             # repeats a failure, with the seed that it printed

The readers run in subprocesses, so a crash or a hang does not end the fuzzing. Files that fail are kept in the printed
folder.
"""

import argparse
import contextlib
import io
import json
import os
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image

from segsweep.classes import ClassTable, LabelClass, MaskRule, find_class_table, read_mask, read_table
from segsweep.data.images import ImageRule, image_shape, read_image
from segsweep.errors import LONGEST, UserError, shown
from segsweep.image_files import limits
from segsweep.nets import TextureCNN, UNet
from segsweep.runs import Objective, RunRecord, read_metrics
from segsweep.runs.load import load_run, load_weights
from segsweep.runs.run_checkpoint import FORMAT

PIXELS = 1 << 22
"""Replaces the real limit on pixels, to try many files in a short time; the limit on bytes follows from it."""
MEGABYTES = 600
"""A reader fails if it raises the process's peak memory by more than this."""
SECONDS = 20
"""A reader fails if it takes longer than this, on a busy machine."""

LABELS = ClassTable(
    [LabelClass(0, "sand", (200, 180, 90)), LabelClass(1, "sea", (0, 80, 200)), LabelClass(2, "wood", (9, 9, 9))]
)


@dataclass(frozen=True)
class Kind:
    """A kind of file: whole files to start from, a function that damages them, and their reader."""

    seeds: Callable[[], list[tuple[str, bytes]]]
    spoil: Callable[[bytes, random.Random], bytes]
    read: Callable[[Path, random.Random], object]


class Failure(Exception):  # noqa: N818  (a finding, not an error of the program)
    """A file that was neither read nor refused correctly."""


def attempt(name: str, seed: int, folder: Path) -> str:
    """Damages a file and reads it; returns "read" or "refused".

    Raises:
        Failure: the reader did anything else.
    """
    kind = KINDS[name]
    choose = random.Random(seed)
    suffix, whole = choose.choice(_seeds(name))
    content = kind.spoil(whole, choose) if choose.random() > 0.01 else whole
    path = folder / "one" / f"spoilt{suffix}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    try:
        result = _read(kind, path, choose)
    except Failure as failure:
        path.replace(folder / f"{name}-{seed}{suffix}")
        raise Failure(f"{name} {seed}: {failure}") from failure
    path.unlink()
    return result


def _read(kind: Kind, path: Path, choose: random.Random) -> str:
    before, started, result = _megabytes(), time.monotonic(), "read"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind.read(path, choose)
    except UserError as error:
        line, result = str(error), "refused"
        if not line.isprintable() or len(line) > LONGEST or shown(path) not in line:
            raise Failure(f"the error is no line that names the file: {line!r}") from error
    except Exception as error:
        raise Failure(f"{type(error).__name__}: {error}\n{traceback.format_exc()}") from error
    taken, seconds = _megabytes() - before, time.monotonic() - started
    if taken > MEGABYTES or seconds > SECONDS:
        raise Failure(f"took {taken} MB and {seconds:.1f} s")
    return result


def _megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@cache
def _seeds(name: str) -> list[tuple[str, bytes]]:
    return KINDS[name].seeds()


# ---- spoiling ----

_EXTREMES = [
    0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**40, 2**63,
]  # fmt: skip


def spoil_bytes(content: bytes, choose: random.Random) -> bytes:
    """A few random changes: flips bits, changes numbers, deletes, repeats, moves or inserts pieces, cuts off the end."""
    data = bytearray(content)
    for _ in range(choose.choice((1, 1, 1, 2, 3, 8))):
        # Mostly headers, which matter more than pixels.
        at = choose.randrange(min(len(data), choose.choice((64, 256, 1 << 30))) or 1)
        way = choose.randrange(8)
        if way == 0 and data:
            data[at] ^= 1 << choose.randrange(8)
        elif way == 1 and data:
            data[at] = choose.randrange(256)
        elif way in (2, 3):
            size = choose.choice((1, 2, 4, 8))
            number = (choose.choice(_EXTREMES) + choose.choice((-1, 0, 0, 1))) % (1 << 8 * size)
            data[at : at + size] = number.to_bytes(size, choose.choice(("little", "big")))
        elif way == 4:
            del data[at : at + choose.choice((1, 2, 4, 16, 100))]
        elif way == 5:
            piece = data[at : at + choose.choice((1, 4, 12, 64, 300))]
            to = choose.randrange(len(data) or 1)
            data[to:to] = piece * choose.choice((1, 1, 2, 50))
        elif way == 6:
            data[at:at] = choose.randbytes(choose.choice((1, 4, 30)))
        else:
            del data[choose.randrange(len(data) or 1) :]
    return bytes(data)


def spoil_image(content: bytes, choose: random.Random) -> bytes:
    """Damages bytes; a PNG often keeps correct checksums, because wrong ones stop every decoder at once."""
    if not content.startswith(b"\x89PNG") or choose.random() < 0.3:
        return spoil_bytes(content, choose)
    chunks = _chunks(content)
    for _ in range(choose.choice((1, 1, 2, 4))):
        at = choose.randrange(len(chunks))
        kind, data = chunks[at]
        way = choose.randrange(5)
        if way == 0 and kind == b"IDAT":
            with contextlib.suppress(zlib.error):  # damaged before
                rows = spoil_bytes(zlib.decompress(data), choose) * choose.choice((1, 1, 1000))
                chunks[at] = (kind, zlib.compress(rows))
        if way < 3:
            chunks[at] = (kind, spoil_bytes(data, choose))
        elif way == 3:
            chunks.insert(choose.randrange(len(chunks)), choose.choice(chunks))
        elif len(chunks) > 1:
            del chunks[at]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return content[:8] + b"".join(parts)


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], 8
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += length + 12
    return chunks


_STRANGE = [
    "", "0", "-1", "255", "256", "65536", "1e400", "-0.0", "nan", "inf", "9" * 5000, "null", "true", "[]", "{}", "[" * 2000,
    '"', "'", ",", ";", "\t", "|", "\n", "\r", "\0", "\x1b[31m", "\u2028", "\ufeff", "#", "#GGGGGG", "#12345", "é", "名",
    "𝔘", "=", ":", "sep=;", "name", "id", "color", "a" * 3000, "\\", "\\ud800", "//", "$\\frac$", "[/]",
]  # fmt: skip


def spoil_text(content: bytes, choose: random.Random) -> bytes:
    """Replaces words and numbers by strange ones, or damages bytes."""
    if choose.random() < 0.3:
        return spoil_bytes(content, choose)
    words = re.findall(r"\w+|\W", content.decode("utf-8-sig", "replace"))
    for _ in range(choose.choice((1, 1, 2, 5))):
        at = choose.randrange(len(words) or 1)
        way = choose.randrange(4)
        if way == 0:
            words[at : at + 1] = [choose.choice(_STRANGE)]
        elif way == 1:
            words.insert(at, choose.choice(_STRANGE))
        elif way == 2:
            del words[at : at + choose.choice((1, 2, 10))]
        else:
            words[at:at] = words[at : at + choose.choice((1, 5, 40))] * choose.choice((1, 2, 300))
    return "".join(words).encode(choose.choice(("utf-8", "utf-8", "utf-8", "utf-16", "latin-1")), "replace")


def spoil_checkpoint(content: bytes, choose: random.Random) -> bytes:
    """Damages the archive, the pickle in it, or the values in the pickle."""
    way = choose.random()
    if way < 0.15:
        return spoil_bytes(content, choose)
    if way < 0.3:  # the archive's directory, at its end
        return content[:-600] + spoil_bytes(content[-600:], choose)
    if way < 0.6:
        return _rezip(content, choose)
    value = torch.load(io.BytesIO(content), weights_only=True)
    for _ in range(choose.choice((1, 1, 2, 4))):
        _spoil_value(value, choose)
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _rezip(content: bytes, choose: random.Random) -> bytes:
    buffer = io.BytesIO()
    packing = choose.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", packing) as new:
        for part in old.namelist():
            data = old.read(part)
            if part.endswith(".pkl") or choose.random() < 0.02:
                data = spoil_bytes(data, choose)
            if choose.random() > 0.02:
                new.writestr(part, data)
    return buffer.getvalue()


def _spoil_value(root: Any, choose: random.Random) -> None:
    places: list[tuple[Any, Any]] = []
    waiting, seen = [root], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:  # a value inside itself
            continue
        seen.add(id(value))
        entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, entry in list(entries):
            places.append((value, key))
            waiting.append(entry)
    if not places:
        return
    # Prefer dict entries that are no tensors, so that settings are damaged as often as weights.
    named = [
        place for place in places if isinstance(place[0], dict) and not isinstance(place[0][place[1]], torch.Tensor)
    ]
    holder, key = choose.choice(named if named and choose.random() < 0.6 else places)
    value = holder[key]
    strange: list[Any] = [
        None, True, -1, 0, 1, 7, 2**31, 10**6, 10**12, 2**70, 1e300, float("nan"), "", "x\ny", "\x1b[2J", "a" * 100_000,
        [], {}, [[]], [1] * 1000, {"a": {}}, root, ("a", 1), {1: 2}, "segsweep.nets.UNet", "os.system", b"bytes",
        torch.zeros(0), torch.zeros(1).expand(10**9), torch.zeros(3, dtype=torch.float64), torch.zeros(2, 2).t(),
        torch.tensor(float("nan")),
    ]  # fmt: skip
    way = choose.randrange(6)
    if way == 0:
        del holder[key]
    elif way == 1 and isinstance(holder, dict):
        holder[choose.choice(("other", "net.more", "kernel_size", "blocks", "levels", 5, None))] = choose.choice(
            strange
        )
    elif way == 2 and isinstance(value, torch.Tensor):
        holder[key] = choose.choice(
            (value.double(), value.half(), value[:0] if value.dim() else value, value[None], value.int())
        )
    elif way == 3 and type(value) is int:
        holder[key] = value * choose.choice((2, 3, 1000, 10**6, 10**15)) + choose.choice((0, 1))
    else:
        holder[key] = choose.choice(strange)


# ---- whole files ----


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def image_seeds() -> list[tuple[str, bytes]]:
    noise = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    colour = Image.fromarray(noise)
    classes = Image.fromarray(LABELS.colors[np.add.outer(np.arange(20), np.arange(24)) // 4 % 3])
    gray, deep = colour.convert("L"), Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = classes.quantize(3)
    seeds: list[tuple[str, bytes]] = []
    modes = [colour.convert("1"), colour.convert("RGBA"), gray.convert("LA")]
    for image in (colour, classes, gray, deep, palette, *modes):
        seeds += [(".png", _saved(image, "PNG")), (".tif", _saved(image, "TIFF"))]
    seeds += [(".png", _saved(palette, "PNG", bits=2, transparency=1)), (".png", _saved(colour, "PNG", exif=exif))]
    for options in ({}, {"progressive": True}, {"exif": exif}, {"quality": 100, "subsampling": 0}):
        seeds.append((".jpg", _saved(colour, "JPEG", **options)))
    seeds += [(".jpg", _saved(gray, "JPEG")), (".jpg", _saved(colour, "MPO", save_all=True, append_images=[colour]))]
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma"):
        seeds.append((".tif", _saved(colour, "TIFF", compression=compression, exif=exif)))
    seeds += [
        (".tif", _saved(colour, "TIFF", big_tiff=True)),
        (".tif", _saved(gray.convert("1"), "TIFF", compression="group4")),
    ]
    seeds += [(".webp", _saved(colour, "WEBP", lossless=lossless, exif=exif)) for lossless in (True, False)]
    seeds += [(".bmp", _saved(image, "BMP")) for image in (colour, palette, colour.convert("1"))]
    seeds += [(".gif", _saved(image, "GIF")) for image in (colour.quantize(), gray, gray.convert("1"))]
    seeds += [(".ppm", _saved(colour, "PPM")), (".pgm", _saved(deep, "PPM")), (".ppm", b"P3 2 1 255 1 2 3 4 5 6\n")]
    seeds += _band_seeds(noise)
    seeds += [(".jp2", _saved(colour, "JPEG2000")), (".jp2", _saved(gray, "JPEG2000", irreversible=True))]
    return seeds


def _band_seeds(noise: np.ndarray) -> list[tuple[str, bytes]]:
    """Five bands and floats, in TIFF and .npy files."""
    five = np.concatenate([noise, noise[..., :2]], 2)
    seeds: list[tuple[str, bytes]] = []
    for number, array in enumerate((five, five.astype(np.uint16) * 257, five.astype(np.float32))):
        for options in ({}, {"tile": (16, 16)}, {"compression": ("zlib", "lzw", "zstd")[number], "rowsperstrip": 7}):
            buffer = io.BytesIO()
            tifffile.imwrite(buffer, array, photometric="minisblack", planarconfig="contig", **options)
            seeds.append((".tif", buffer.getvalue()))
        buffer = io.BytesIO()
        np.save(buffer, array)
        seeds.append((".npy", buffer.getvalue()))
    return seeds


def mask_seeds() -> list[tuple[str, bytes]]:
    seeds = [seed for seed in image_seeds() if seed[0] in (".png", ".tif", ".bmp", ".webp", ".jpg")]
    positions = np.add.outer(np.arange(20), np.arange(24)) // 4 % 3
    seeds.append((".gif", _saved(Image.fromarray(positions.astype(np.uint8)), "GIF")))
    small, big_endian = positions.astype(np.uint8), positions.astype(">u2")
    arrays: list[Any] = [positions, small, positions > 0, LABELS.colors[positions], big_endian]
    for array in [*arrays, np.asfortranarray(positions.astype(np.int16))]:
        buffer = io.BytesIO()
        np.save(buffer, array)
        seeds += 3 * [(".npy", buffer.getvalue())]
    return seeds


def table_seeds() -> list[tuple[str, bytes]]:
    rows = [f"{entry.name},{','.join(map(str, entry.color))}" for entry in LABELS.classes]
    csv = "\n".join(["name,r,g,b", *rows])
    return [
        (".csv", csv.encode()),
        (".csv", csv.replace(",", ";").encode("utf-16")),
        (".csv", "\n".join(rows).encode()),
        (".tsv", b"sep=;\n# my classes\nid;name;color\n1;a;#112233\n5;b;445566\n"),
        (".json", json.dumps(LABELS.to_dict()).encode()),
        (".json", json.dumps([{"title": "a", "hex": "#112233"}, {"title": "b", "hex": "#445566"}]).encode()),
        (".csv", b"id,name\n0,a\n1,b\n"),
        (".json", json.dumps({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}).encode()),
        (".json", json.dumps({"0": "a", "1": "b"}).encode()),
        (".txt", b"# label:color_rgb:parts:actions\nCat:48,112,32::\nDog:176,112,32::\n"),
        (".txt", b"64 128 64\t\tAnimal\n192 0 128\t\tArchway\n"),
        (".txt", b"__ignore__\n_background_\ncat\n"),
    ]


def checkpoint_seeds() -> list[tuple[str, bytes]]:
    small = {"_target_": "segsweep.nets.TextureCNN", "channels": 4, "kernel_size": 3, "bias": True, "norm": "shared"}
    unet = {"_target_": "segsweep.nets.UNet", "widths": [4, 4, 8], "head_width": 4, "head": "exact"}
    labels = {"binary": ClassTable(LABELS.classes[:2]), "multiclass": LABELS}
    seeds = []
    for model, kind, net in (
        (small, "binary", TextureCNN(1, 1, 4, 3)),
        (unet, "multiclass", UNet(3, 3, (4, 4, 8), 4)),
    ):
        state = {f"net.{name}": value for name, value in net.state_dict().items()}
        content = {
            "state_dict": state,
            "global_step": 7,
            "optimizer_states": [{"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"lr": 0.1}]}],
            "segsweep": {
                "format": FORMAT,
                "config": {"model": model, "data": {"_target_": "segsweep.data.Textures"}, "seed": 0},
                "labels": labels[kind].to_dict(),
                "channels": 1 if kind == "binary" else 3,
                "kind": kind,
            },
        }
        for saved in (content, net.state_dict()):
            buffer = io.BytesIO()
            torch.save(saved, buffer)
            seeds += [(".ckpt", buffer.getvalue())] * (3 if saved is content else 1)
    return seeds


def record_seeds() -> list[tuple[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.json")
        RunRecord("completed", None, 0, ["lr=0.1"], Objective("val/iou", "max", 0.5), {"val/iou": 0.5}).write(path)
        return [(".json", path.read_bytes())]


def metrics_seeds() -> list[tuple[str, bytes]]:
    return [(".csv", b"step,epoch,train/loss,val/iou\r\n50,0,0.75,\r\n100,1,nan,0.5\r\n150,1,inf,0.25\r\n")]


# ---- readers ----


def read_as_image(path: Path, choose: random.Random) -> object:
    channels, bands = choose.choice(((1, None), (3, None), (5, None), (2, (1, 0))))
    white = choose.choice((None, None, 4095, 65535, 1e9))
    alpha, exif = choose.choice(("refuse", "drop")), choose.choice(("apply", "ignore", "refuse"))
    rule = ImageRule(channels=channels, alpha=alpha, exif=exif, white=white, bands=bands)
    try:
        shape = image_shape(path, rule)
    except UserError:
        shape = None
    reading = read_image(path, rule)
    if reading.pixels.shape != (rule.channels, *(shape or ())) or reading.pixels.dtype != np.uint8:
        raise AssertionError(f"{reading.pixels.shape} of {shape}, {reading.pixels.dtype}")
    return reading


def read_as_mask(path: Path, choose: random.Random) -> object:
    rule = MaskRule(by=choose.choice(("auto", "color", "index")), snap=choose.random() < 0.5)
    reading = read_mask(path, LABELS, rule)
    if reading.counts.sum() + reading.ignored != reading.mask.size or reading.mask.dtype != np.uint8:
        raise AssertionError("the counts do not fit the mask")
    return reading


def read_as_table(path: Path, choose: random.Random) -> object:
    found = find_class_table(path.parent)
    if found not in (None, path):
        raise AssertionError(f"{found} is no class table")
    labels = read_table(path)
    if not 1 <= len(labels) <= 255:
        raise AssertionError("too many classes")
    return labels


def read_as_checkpoint(path: Path, choose: random.Random) -> object:
    if choose.random() < 0.2:
        return load_weights(path, TextureCNN(1, 1, 4, 3) if choose.random() < 0.5 else UNet(3, 3, (4, 4, 8), 4))
    run = load_run(path)
    json.dumps(run.config)
    return run.predict(np.zeros((run.channels, 8, 8), np.uint8))


KINDS = {
    "image": Kind(image_seeds, spoil_image, read_as_image),
    "mask": Kind(mask_seeds, spoil_image, read_as_mask),
    "table": Kind(table_seeds, spoil_text, read_as_table),
    "checkpoint": Kind(checkpoint_seeds, spoil_checkpoint, read_as_checkpoint),
    "record": Kind(record_seeds, spoil_text, lambda path, choose: RunRecord.read(path)),
    "metrics": Kind(metrics_seeds, spoil_text, lambda path, choose: read_metrics(path)),
}


# ---- for long ----


def limit_pixels() -> None:
    limits.MAX_PIXELS, limits.MAX_BYTES = PIXELS, 8 * PIXELS


def work(names: list[str], first: int, deadline: float, folder: Path) -> None:
    """Tries one file after another until the deadline, then prints a line of counts."""
    limit_pixels()
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    seed = first
    for name in names:  # imports and seeds do not count as a file's memory
        _seeds(name)
    while time.time() < deadline:
        for name in names:
            (folder / "now").write_text(f"{name} {seed}")
            signal.alarm(5 * SECONDS)  # ends the process, whichever library hangs
            try:
                counts[f"{name} {attempt(name, seed, folder)}"] += 1
            except Failure as failure:
                counts[f"{name} FAILED"] += 1
                print(f"FAILED {failure}", flush=True)
            signal.alarm(0)
        seed += 1
    print("COUNTS " + json.dumps(counts), flush=True)
    (folder / "now").unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], help="; ".join(KINDS))
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--first", type=int, default=0, help="first seed, the next ones follow")
    parser.add_argument("--seed", type=int, help="try one seed again")
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.kinds or list(KINDS)
    folder = Path(tempfile.mkdtemp(prefix="segsweep-fuzz-"))
    if options.until is not None:
        work(names, options.first, options.until, folder)
        return 0
    if options.seed is not None:
        limit_pixels()
        print(attempt(names[0], options.seed, folder))
        return 0
    deadline, first, bad = time.time() + 60 * options.minutes, options.first, 0
    counts: Counter[str] = Counter()
    while time.time() < deadline:
        # Short subprocesses, so that little is lost if one dies; each has its own million seeds.
        until = min(deadline, time.time() + 120)
        command = [sys.executable, __file__, *names, f"--first={first}", f"--until={until}"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TMPDIR": str(folder)})
        for line in done.stdout.splitlines():
            if line.startswith("COUNTS "):
                counts.update(json.loads(line.removeprefix("COUNTS ")))
            else:
                print(line)
                bad += line.startswith("FAILED")
        if done.returncode:
            bad += 1
            for now in folder.glob("*/now"):
                print(f"DIED with {done.returncode}: {now.read_text()} (files: {now.parent})\n{done.stderr[-2000:]}")
                now.unlink()
        first += 1_000_000
    for name, count in sorted(counts.items()):
        print(f"{count:>9,} {name}")
    print(f"{sum(counts.values()):>9,} in all, {bad} failures" + (f"; their files are in {folder}" if bad else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
