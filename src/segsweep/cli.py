"""What the entry points share: one line for a user's mistake, and the last lines of a run.

Nothing heavy is imported before there is something to train: `--help` and a mistyped key should answer at once.
"""

import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segsweep.errors import DivergedError, UserError, os_error_behind

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


OmegaConf.register_new_resolver("new_folder", _new_folder, use_cache=True, replace=True)


def run(main: Callable[[], object]) -> None:
    """Runs a Hydra entry point; a user's mistake ends in one line on stderr and exit code 1, without a traceback."""
    asked_for_more = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra then hands us the exception instead of printing it in several lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        main()
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


def _fail(line: str) -> NoReturn:
    print(f"error: {line}", file=sys.stderr)
    sys.exit(1)


def explain(error: BaseException) -> str | None:
    """One line for an error that its user can mend; None for one that is ours."""
    if isinstance(error, MissingConfigException) and error.options:
        group = Path(str(error.missing_cfg_file))
        choices = ", ".join(option for option in error.options)
        return f"{group.parent}={group.name}: no such choice; there are {choices}"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read as KEY=VALUE ({_one_line(error).split(' See http')[0]})"
    if isinstance(error, HydraException | OmegaConfBaseException):
        reason = f" ({_one_line(error.__cause__)})" if isinstance(error.__cause__, OmegaConfBaseException) else ""
        return f"{_one_line(error)}{reason}; python {sys.argv[0]} --help lists what there is"
    if isinstance(error, UserError | DivergedError):
        return _one_line(error)
    if isinstance(error, ValueError) and "Config group override" in str(error):
        null = next((argument for argument in sys.argv if re.fullmatch(r"[a-z/_]+=null", argument)), "null")
        return f"{null}: a group needs a choice; python {sys.argv[0]} --help lists them"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error).lower()):
        return f"out of memory ({_one_line(error)[:120]}): try a smaller data.batch_size or data.image_size"
    if (failed := os_error_behind(error)) is not None:
        return f"{failed.filename}: {failed.strerror}" if failed.filename and failed.strerror else _one_line(failed)
    return None


def _one_line(error: BaseException | None) -> str:
    return " ".join(str(error).split())


def train(config: DictConfig) -> float | None:
    """The job of train.py: trains, and says what came out and what to type next."""
    from segsweep.training import train as train_run

    hydra = HydraConfig.get()
    directory = Path(hydra.runtime.output_dir)
    try:
        record = train_run(config, directory, overrides=list(hydra.overrides.task))
    except Exception as error:
        # Hydra would put a line of its own before ours. In a sweep it has to see the exception, to go on with the others.
        if hydra.mode is RunMode.RUN and (line := explain(error)) is not None:
            _fail(line)
        raise
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        _print_result(record, directory)
    if record.overfit_check == "failed":
        sys.exit(1)
    return record.objective.value


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
    print(f"The report and a contact sheet are in {_relative(directory)}")
    if not report.ok:
        number = len(report.errors)
        _fail(f"{report.root}: {number} mistake{'s' if number > 1 else ''}; training on this would be wrong")


def evaluate(config: DictConfig) -> None:
    """The job of evaluate.py: every metric of a run, as a table and in evaluation.json."""
    from rich.console import Console
    from rich.table import Table

    from segsweep.evaluation import evaluate as evaluate_run
    from segsweep.runs.files import write_json
    from segsweep.runs.load import load_run

    try:
        if config.run is None:
            raise UserError("run: needs a value; give a run directory or a checkpoint, as in run=outputs/<date>/<time>")
        run = load_run(str(config.run))
        metrics = evaluate_run(run, config.split, accelerator=config.accelerator)
    except Exception as error:
        if (line := explain(error)) is not None:
            _fail(line)
        raise
    table = Table("metric", str(config.split))
    for name, value in metrics.items():
        table.add_row(name, f"{value:.6f}")
    Console(soft_wrap=True).print(table)
    directory = Path(HydraConfig.get().runtime.output_dir)
    content = {"run": str(config.run), "checkpoint": str(run.checkpoint), "step": run.step, "split": config.split}
    write_json(directory / "evaluation.json", content | {"metrics": metrics})
    print(f"{run.checkpoint}, step {run.step}. The numbers are in {_relative(directory / 'evaluation.json')}")


def _print_result(record: "RunRecord", directory: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "train (latest)", f"val (step {record.best_step})", "test", title=None)
    names = dict.fromkeys(name.split("/", 1)[1] for name in record.metrics if name.startswith(("val/", "train/")))
    for name in names:
        values = (record.metrics.get(f"{split}/{name}") for split in ("train", "val", "test"))
        table.add_row(name, *("" if value is None else f"{value:.4f}" for value in values))
    console = Console(soft_wrap=True)
    console.print(table)
    shown = _relative(directory)
    speed = f", {record.steps_per_second:.1f} steps/s" if record.steps_per_second else ""
    print(f"{record.steps:,} steps in {record.seconds:.0f} s{speed}. Everything is in {shown}")
    print("Next:")
    print(f"  tensorboard --host localhost --logdir {shlex.quote(str(shown / 'tensorboard'))}")
    print(f"  python evaluate.py {hydra_argument('run', shown)}")


def _relative(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def hydra_argument(key: str, value: object) -> str:
    """`key=value` as it can be typed: where Hydra's grammar wants quotes, these, and the shell's around them."""
    text = str(value)
    if not re.fullmatch(r"[A-Za-z_/.][A-Za-z0-9_/.-]*", text):
        # A backslash is one of the value's own, except before a quote.
        escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
        text = f"'{escaped}'"
    return shlex.quote(f"{key}={text}")
