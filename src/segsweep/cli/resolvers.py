"""What the configurations name in `${...}`: the folders of runs and sweeps."""

import hashlib
import re
from datetime import datetime
from pathlib import Path

from omegaconf import OmegaConf

from segsweep.errors import UserError
from segsweep.fingerprint import NAME


def new_folder(parent: str) -> str:
    """A folder `<parent>/<date>/<time>` that nobody has; made here, so that nobody else gets it in the same second."""
    now = datetime.now()
    for attempt in range(1, 1000):
        folder = Path(parent) / f"{now:%Y-%m-%d}" / (f"{now:%H-%M-%S}" + (f"-{attempt}" if attempt > 1 else ""))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not folder.is_dir():
                raise
            continue
        return str(folder)
    raise OSError(f"{parent}: no free folder name at {now:%H-%M-%S}")


def run_folder(resume: str | None) -> str:
    """Where a single run goes: a folder of its own, or that of the run it continues."""
    if resume is None:
        return new_folder("outputs")
    if not (Path(resume) / "run.json").is_file():
        raise UserError(f"resume={resume}: no run there; give a run directory, one with a run.json")
    return str(resume)


def sweep_folder(name: str | None) -> str:
    """Where a sweep goes: a folder of its own, or that of its name, in which it is continued."""
    if name is None:
        return new_folder("multirun")
    if not re.fullmatch(NAME, str(name)):
        raise UserError(f"name={name}: must be letters, digits, spaces and . , = + - _ only")
    return str(Path("multirun") / str(name))


def hydra_subdir(resume: str | None) -> str | None:
    """None where a run is continued: what Hydra wrote when it was begun stays."""
    return ".hydra" if resume is None else None


def job_folder(dirname: str) -> str:
    """The folder of a job that another sweeper than ours asks for, from its overrides; no longer than a folder's name."""
    name = re.sub(r"[^\w.,=+-]+", "-", dirname).lstrip(".") or "job"
    return name if len(name) <= 120 else f"{name[:107]}-{hashlib.sha256(dirname.encode()).hexdigest()[:12]}"


for _resolver in (run_folder, sweep_folder, hydra_subdir, new_folder, job_folder):
    OmegaConf.register_new_resolver(_resolver.__name__, _resolver, use_cache=True, replace=True)
