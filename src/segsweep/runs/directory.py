"""The run directory: its files, its lock, and run.json with the status and the scores of the run."""

import contextlib
import dataclasses
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from segsweep.errors import UserError
from segsweep.instantiate import check_arguments
from segsweep.root_settings import VALIDATIONS, ObjectiveAt
from segsweep.runs.files import remove_litter, write_json
from segsweep.runs.stored import read_json

_WRITTEN = (
    "run.json", "config.yaml", "metrics.csv", ".lock", "train.log", "loss_curve.png", "curves.png", "samples.png",
    "loggers.json", "wandb", "tensorboard", "checkpoints", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
    ".hydra", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml",
)  # fmt: skip
"""The files and folders of a run directory that a training writes to; a folder precedes its files."""


def require_inside(folder: Path, names: Iterable[str]) -> None:
    """Refuses links that lead out of a directory, so that nothing outside is written to; also pipes, sockets and devices.

    Args:
        folder: a run or sweep directory, which may be a link itself.
        names: paths in it that may be written; those that do not exist are skipped.

    Raises:
        UserError: names the path, and says what to type.
    """
    for name in names:
        path = folder / name
        try:
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                target = os.path.realpath(path)
                if os.path.commonpath([target, inside := os.path.realpath(folder)]) != inside:
                    copy = f"rm {shlex.quote(str(path))} && cp -r {shlex.quote(target)} {shlex.quote(str(path))}"
                    raise UserError(
                        f"{path}: is a link to {target}, outside of {folder}; if you trust it, replace it by a copy: {copy}"
                    )
                mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise UserError(f"{path}: is a pipe, socket or device, not a file; remove it: rm {shlex.quote(str(path))}")


class RunDirectory:
    """Paths inside a run directory. The names are a contract: tools outside this project read them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path / "run.json"
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.csv"
        self.checkpoints = path / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.last = self.checkpoints / "last.ckpt"
        self.tensorboard = path / "tensorboard"
        self.loggers = path / "loggers.json"
        self.curves = path / "curves.png"
        self.samples = path / "samples.png"
        self.lock = path / ".lock"

    @contextlib.contextmanager
    def locked(self, wait: bool = False) -> Iterator[None]:
        """Holds the lock of the directory, so that no other process trains in it. The lock ends with this process.

        Removes what killed processes left.

        Args:
            wait: wait for the lock instead of raising.

        Raises:
            UserError: another process holds the lock, or a link leads out of the directory.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self.require_inside()
        try:
            with FileLock(self.lock, timeout=-1 if wait else 0):
                for folder in (self.path, self.checkpoints, self.path / ".hydra"):
                    remove_litter(folder)
                yield
        except Timeout as error:
            raise UserError(f"{self.path}: another process is training there; wait for it, or stop it") from error

    def require_inside(self) -> None:
        """Refuses links that lead out of the directory, pipes, sockets and devices.

        Raises:
            UserError: names the path, and says what to type.
        """
        require_inside(self.path, _WRITTEN)

    @contextlib.contextmanager
    def followed(self) -> Iterator[Callable[[], Path | None]]:
        """Yields a function that says where the directory is now, even if it was renamed; None if it was removed.

        A new name is found on Linux only. Another directory at the old path does not count.
        """
        descriptor = os.open(self.path, os.O_RDONLY)

        def place() -> Path | None:
            with contextlib.suppress(OSError):
                for path in (str(self.path), os.readlink(f"/proc/self/fd/{descriptor}")):
                    if os.path.exists(path) and os.path.samestat(os.stat(path), os.fstat(descriptor)):
                        return Path(path)
            return None

        try:
            yield place
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Deletes the results of a training, but not its log, so that the next one starts from scratch."""
        for folder in (self.checkpoints, self.tensorboard):
            if folder.exists():
                shutil.rmtree(folder)
        for file in (self.record, self.metrics, self.curves, self.samples, self.path / "loss_curve.png"):
            file.unlink(missing_ok=True)


Status = Literal["running", "completed", "failed", "interrupted"]

PACKAGES = ("segsweep", "torch", "lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy")


def objective_mode(name: str) -> Literal["min", "max"]:
    """Losses are minimised, all other metrics maximised."""
    # "val/iou/Forest loss" is the iou of a class, not a loss.
    return "min" if re.fullmatch(r"\w+/\w*loss(_running)?", name) else "max"


@dataclass
class Objective:
    """The metric that runs are compared by. Its `value` ranks the run: `best`, `last` or `mean_last_3`, as `at` says."""

    name: str
    mode: Literal["min", "max"]
    value: float | None = None
    at: ObjectiveAt = "best"
    best: float | None = None
    last: float | None = None
    mean_last_3: float | None = None
    """With fewer than three validations, the mean of all."""

    @property
    def label(self) -> str:
        """The name in tables and sentences: "val/iou", "val/iou (last)"."""
        return self.name + VALIDATIONS.get(self.at, "")


@dataclass
class RunRecord:
    """The content of run.json. Metrics are flat: "val/iou": 0.98."""

    status: Status
    name: str | None
    seed: int
    overrides: list[str]
    objective: Objective
    metrics: dict[str, float] = field(default_factory=dict)
    best_checkpoint: str | None = None
    best_step: int | None = None
    steps: int = 0
    seconds: float = 0.0
    steps_per_second: float | None = None
    parameters: int | None = None
    device: str | None = None
    """None before everything was built and the data were found readable, which is when a run begins."""
    precision: str | None = None
    started: str | None = None
    continued_at: list[int] = field(default_factory=list)
    """The steps at which the run was resumed."""
    contents: dict[str, str] | None = None
    """Digests of the data and of the weights of `init=` at the start, by key; None in files from before these were kept."""
    scored_pixels: dict[str, int] = field(default_factory=dict)
    """By split, how many pixels its metrics count."""
    absent_classes: dict[str, list[str]] = field(default_factory=dict)
    """By split, "val" or "test", the classes without a pixel in it, which its metrics leave out."""
    versions: dict[str, str] = field(default_factory=dict)
    git: dict[str, Any] | None = None
    limited_by_time: bool = False
    """Whether `trainer.max_minutes` was set: the same settings need not give the same weights again."""
    overfit_check: Literal["passed", "failed"] | None = None
    error: str | None = None
    traceback: str | None = None

    def write(self, path: Path) -> None:
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def read(cls, path: Path) -> "RunRecord":
        """Reads a run.json; unknown keys, of a newer version, are ignored.

        Raises:
            OSError: there is no such file, or it cannot be read.
            UserError: it is damaged or not a run.json; names the file.
        """
        try:
            content = read_json(path)
            if not isinstance(content, dict) or not isinstance(content.get("objective"), dict):
                raise ValueError("it has no objective")
            objective, known = _known(Objective, content["objective"]), _known(cls, content)
            check_arguments(Objective, objective, prefix="objective.")
            # A metric that is NaN is null in the file.
            metrics = known.get("metrics")
            numbers = {k: v for k, v in metrics.items() if v is not None} if isinstance(metrics, dict) else metrics
            checked = {name: value for name, value in known.items() if name not in ("objective", "metrics")}
            check_arguments(cls, checked | ({"metrics": numbers} if "metrics" in known else {}), known=("objective",))
        except ValueError as error:
            raise UserError(f"{path}: is cut short, damaged or not a run.json ({error})") from error
        return cls(**known | {"objective": Objective(**objective)})


def _known(kind: type, content: dict[str, Any]) -> dict[str, Any]:
    names = {entry.name for entry in dataclasses.fields(kind)}
    return {key: value for key, value in content.items() if key in names}


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout that has `folder`, and whether a tracked file is changed; None if no checkout tracks it."""

    def git(*arguments: str) -> str:
        # `git status` would lock and update the index, and leave the lock behind on a full disk or when killed.
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", ".")  # not the user's own checkout around a virtual environment
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None
