"""What the entry points share: one line for a user's mistake, and the last lines of a run.

Nothing heavy is imported before there is something to train: `--help` and a mistyped key should answer at once.
"""

import contextlib
import hashlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segsweep.absence import MARK, absence, rests_on
from segsweep.console import evaluation, relative
from segsweep.errors import DivergedError, UserError, os_error_behind, shown
from segsweep.identity import NAME
from segsweep.keys import unknown

if TYPE_CHECKING:
    from segsweep.runs import RunRecord


def _new_folder(parent: str) -> str:
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


def _run_folder(resume: str | None) -> str:
    """Where a single run goes: a folder of its own, or that of the run it continues."""
    if resume is None:
        return _new_folder("outputs")
    if not (Path(resume) / "run.json").is_file():
        raise UserError(f"resume={resume}: no run there; give a run directory, one with a run.json")
    return str(resume)


def _sweep_folder(name: str | None) -> str:
    """Where a sweep goes: a folder of its own, or that of its name, in which it is continued."""
    if name is None:
        return _new_folder("multirun")
    if not re.fullmatch(NAME, str(name)):
        raise UserError(f"name={name}: must be letters, digits, spaces and . , = + - _ only")
    return str(Path("multirun") / str(name))


def _hydra_subdir(resume: str | None) -> str | None:
    """None where a run is continued: what Hydra wrote when it was begun stays."""
    return ".hydra" if resume is None else None


def _job_folder(dirname: str) -> str:
    """The folder of a job that another sweeper than ours asks for, from its overrides; no longer than a folder's name."""
    name = re.sub(r"[^\w.,=+-]+", "-", dirname).lstrip(".") or "job"
    return name if len(name) <= 120 else f"{name[:107]}-{hashlib.sha256(dirname.encode()).hexdigest()[:12]}"


for _name, _resolver in (
    ("run_folder", _run_folder), ("sweep_folder", _sweep_folder), ("hydra_subdir", _hydra_subdir),
    ("new_folder", _new_folder), ("job_folder", _job_folder),
):  # fmt: skip
    OmegaConf.register_new_resolver(_name, _resolver, use_cache=True, replace=True)


def run(main: Callable[[], object]) -> None:
    """Runs a Hydra entry point; a user's mistake ends in one line on stderr and exit code 1, without a traceback."""
    asked_for_more = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra then hands us the exception instead of printing it in several lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    well = True
    try:
        try:
            main()
        finally:
            well = _finish_sweep()
    except Exception as error:
        line = None if asked_for_more else explain(error)
        if line is None:
            raise
        _fail(line)
    except BaseException as error:
        signum = getattr(error, "signum", signal.SIGINT if isinstance(error, KeyboardInterrupt) else None)
        if signum is None:
            raise
        print(f"stopped by {signal.Signals(signum).name}", file=sys.stderr)
        sys.exit(128 + signum)
    if not well:
        sys.exit(1)


sweeping: Path | None = None
"""The sweep directory of the sweep that this process has begun."""


def _finish_sweep() -> bool:
    """Writes the report of a sweep that has ended, however it did; whether none of its jobs failed."""
    global sweeping
    _until_end.close()
    folder, sweeping = sweeping, None
    if folder is None or not (folder / "sweep.json").exists():
        return True
    from segsweep.sweeps.record import SweepDirectory
    from segsweep.sweeps.session import finish

    return finish(SweepDirectory(folder))


_until_end = contextlib.ExitStack()
"""What is kept until all jobs of another sweeper than ours have ended."""


class SweepReport(Callback):
    """Keeps the directory of a sweep by another sweeper than ours, which knows nothing of it; has the report written."""

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        global sweeping
        try:
            folder = Path(str(config.hydra.sweep.dir))
        except OmegaConfBaseException:  # the sweeper will say what is wrong with it
            return
        if not str(config.hydra.sweeper.get("_target_")).startswith("hydra_plugins.segsweep_sweepers"):
            from segsweep.sweeps.session import kept_for_others

            with mistakes_in_one_line():  # Hydra would go on
                _until_end.enter_context(kept_for_others(config, folder))
        sweeping = folder


@contextlib.contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """Ends the program at a user's mistake, in one line, before Hydra adds a line of its own."""
    try:
        yield
    except Exception as error:
        if (line := explain(error)) is not None:
            _fail(line)
        raise


def _fail(line: str) -> NoReturn:
    print(f"error: {shown(line)}", file=sys.stderr)
    sys.exit(1)


def explain(error: BaseException) -> str | None:
    """One line for an error that its user can mend; None for one that is ours."""
    if isinstance(error, MissingConfigException) and error.options:
        group = Path(str(error.missing_cfg_file))
        choices = ", ".join(option for option in error.options)
        return f"{group.parent}={group.name}: no such choice; there are {choices}"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read as KEY=VALUE ({_one_line(error).split(' See http')[0]})"
    if (mistake := _mistake_behind(error)) is not None:
        return _one_line(mistake)
    if (found := re.search(r"UserError raised while resolving interpolation: (.*)", str(error))) is not None:
        return found[1]  # a resolver's; OmegaConf keeps only its text
    if (found := re.search(r"Could not (?:override|delete from config\.) '([^']+)'", str(error))) is not None:
        return unknown(found[1])
    if (found := re.search(r"An item is already at '([^']+)'|Multiple values for ([\w/]+)\.", str(error))) is not None:
        key = found[1] or found[2]
        return f"+{key}: there is such a key; type {key}=... without the +"
    if isinstance(error, HydraException | OmegaConfBaseException):
        reason = f" ({_one_line(error.__cause__)})" if isinstance(error.__cause__, OmegaConfBaseException) else ""
        return f"{_one_line(error)}{reason}; python {sys.argv[0]} --help lists what there is"
    if isinstance(error, ValueError) and "Config group override" in str(error):
        null = next((argument for argument in sys.argv if re.fullmatch(r"[a-z/_]+=null", argument)), "null")
        return f"{null}: a group needs a choice; python {sys.argv[0]} --help lists them"
    if type(error).__module__.partition(".")[0] in ("joblib", "submitit", "ray"):
        if "timed-out" in str(error):
            return (
                "a job ran out of time, hydra.launcher.timeout_min; its state is saved, and the same command with the same "
                "name= goes on with it. hydra.launcher.max_num_timeout=3 has that done three times without asking"
            )
        return (
            f"the process of a job has died, perhaps for lack of memory ({type(error).__name__}); "
            "the same command with the same name= goes on with what is left"
        )
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error).lower()):
        return f"out of memory ({_one_line(error)[:120]}): try a smaller data.batch_size or data.image_size"
    if (failed := os_error_behind(error)) is not None:
        return f"{failed.filename}: {failed.strerror}" if failed.filename and failed.strerror else _one_line(failed)
    return None


def _mistake_behind(error: BaseException | None) -> BaseException | None:
    seen: set[int] = set()
    while error is not None and not isinstance(error, UserError | DivergedError):
        if id(error) in seen:
            return None  # two errors that are each other's cause
        seen.add(id(error))
        error = error.__cause__
    return error


def _one_line(error: BaseException | None) -> str:
    return " ".join(str(error).split())


def train(config: DictConfig) -> float | None:
    """The job of train.py: trains, and says what came out and what to type next."""
    from segsweep.resuming import resumed, store_plain, typed_overrides
    from segsweep.training import train as train_run

    hydra = HydraConfig.get()
    directory, resume = Path(hydra.runtime.output_dir), config.resume is not None
    if hydra.mode is RunMode.MULTIRUN:
        return _train_in_sweep(config, directory)
    try:
        if resume:
            config, overrides = resumed(directory, typed_overrides(_with_hydra(config)))
        else:
            overrides = store_plain(directory, _with_hydra(config))
        record = train_run(config, directory, overrides, resume=resume)
    except Exception as error:
        # Hydra would put a line of its own before ours. In a sweep it has to see the exception, to go on with the others.
        if hydra.mode is RunMode.RUN and (line := explain(error)) is not None:
            _fail(line)
        raise
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        _print_result(record, directory, tests=bool(config.trainer.test))
    if record.overfit_check == "failed":
        sys.exit(1)
    return record.objective.value


def _train_in_sweep(config: DictConfig, directory: Path) -> float | None:
    from segsweep.resuming import store_plain
    from segsweep.runs import RunDirectory
    from segsweep.sweeps.jobs import run_job
    from segsweep.sweeps.record import SweepDirectory

    full = _with_hydra(config)
    store_plain(directory, full)
    return run_job(config, full, SweepDirectory(Path(str(full.hydra.sweep.dir))), RunDirectory(directory))


def _with_hydra(config: DictConfig) -> DictConfig:
    full = config.copy()
    OmegaConf.set_struct(full, False)
    full.hydra = HydraConfig.get()
    return full


def check_data(config: DictConfig) -> None:
    """The job of check_data.py: looks at every file, and exits with 1 where training on them would be wrong."""
    from segsweep.checking import check

    directory = Path(HydraConfig.get().runtime.output_dir)
    try:
        report = check(config, directory)
    except Exception as error:
        if (line := explain(error)) is not None:
            _fail(line)
        raise
    print(f"The report and a contact sheet are in {relative(directory)}")
    if not report.ok:
        number = len(report.errors)
        _fail(f"{report.root}: {number} mistake{'s' if number > 1 else ''}; training on this would be wrong")


def _print_result(record: "RunRecord", directory: Path, tests: bool) -> None:
    """The last lines of a run; `tests` says whether it was to be tested."""
    from rich.console import Console
    from rich.table import Table

    absent = record.absent_classes
    table = Table("metric", "train (latest)", f"val (step {record.best_step})", "test", title=None)
    names = dict.fromkeys(name.split("/", 1)[1] for name in record.metrics if name.startswith(("val/", "train/")))
    for name in names:
        values = {split: record.metrics.get(f"{split}/{name}") for split in ("train", "val", "test")}
        marks = {split: MARK if rests_on(name, absent.get(split, [])) else "" for split in values}
        table.add_row(name, *("" if value is None else f"{value:.4f}{marks[split]}" for split, value in values.items()))
    console = Console(soft_wrap=True, markup=False, emoji=False)  # names of classes are no markup
    console.print(table)
    for split, classes in absent.items():
        if classes:
            print(f"{MARK.strip()} {absence(split, classes)}")
    shown = relative(directory)
    speed = f", {record.steps_per_second:.1f} steps/s" if record.steps_per_second else ""
    print(f"{record.steps:,} steps in {record.seconds:.0f} s{speed}. Everything is in {shown}")
    print("Next:")
    print(f"  tensorboard --host localhost --logdir {shlex.quote(str(shown / 'tensorboard'))}")
    print(f"  {evaluation(shown, record.metrics, tests)}")
