"""The jobs of the entry points.

Nothing heavy is imported before the settings are there: `--help` and a mistyped key should answer at once.
"""

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from segsweep.absent_classes import MARK, absence, rests_on
from segsweep.cli.main import new_folder
from segsweep.console import evaluation, explain, fail, mistakes_in_one_line, progress_bar, relative
from segsweep.errors import UserError

if TYPE_CHECKING:
    from segsweep.runs import RunRecord
    from segsweep.runs.load import Run

_A_RUN = "a run directory or a checkpoint, as in run=outputs/<date>/<time>"


def train(config: DictConfig) -> float | None:
    """The job of train.py: trains, and says what came out and what to type next."""
    from segsweep.resume import resumed
    from segsweep.runs.stored import store_plain, typed_overrides
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
            fail(line)
        raise
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        _print_result(record, directory, tests=bool(config.trainer.test))
    if record.overfit_check == "failed":
        sys.exit(1)
    return record.objective.value


def _train_in_sweep(config: DictConfig, directory: Path) -> float | None:
    from segsweep.runs import RunDirectory
    from segsweep.runs.stored import store_plain
    from segsweep.sweeps.jobs import run_job
    from segsweep.sweeps.state import SweepDirectory

    full = _with_hydra(config)
    store_plain(directory, full)
    return run_job(config, full, SweepDirectory(Path(str(full.hydra.sweep.dir))), RunDirectory(directory))


def _with_hydra(config: DictConfig) -> DictConfig:
    full = config.copy()
    OmegaConf.set_struct(full, False)
    full.hydra = HydraConfig.get()
    return full


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


def check_data(config: DictConfig) -> None:
    """The job of check_data.py: looks at every file, and exits with 1 where training on them would be wrong."""
    from segsweep.check_data import check

    directory = Path(HydraConfig.get().runtime.output_dir)
    try:
        report = check(config, directory)
    except Exception as error:
        if (line := explain(error)) is not None:
            fail(line)
        raise
    print(f"The report and a contact sheet are in {relative(directory)}")
    if not report.ok:
        number = len(report.errors)
        fail(f"{report.root}: {number} mistake{'s' if number > 1 else ''}; training on this would be wrong")


def evaluate(config: DictConfig) -> None:
    """The job of evaluate.py: every metric of a run, or of several, as tables, in evaluation.json and in pictures."""
    typed = Path(HydraConfig.get().runtime.output_dir)
    with mistakes_in_one_line(), _not_left_empty(typed):
        settings = _plain(config)
        require(settings, "run", _A_RUN)
        _run_code(settings)
        output = Path(settings["output"]) if settings["output"] else typed
        del settings["output"]
        # Without a folder of its own Hydra stays where it was started.
        chosen = None if output == Path.cwd() else output
        if chosen is not None and (chosen / "evaluation.json").exists():
            raise UserError(f"{chosen}: holds an evaluation already; give another output, or none")
        from segsweep.evaluation import evaluate_runs
        from segsweep.instantiate import check_arguments

        check_arguments(evaluate_runs, settings, known=("folder",))

        def folder() -> Path:
            if chosen is None:
                return Path(new_folder("outputs"))
            chosen.mkdir(parents=True, exist_ok=True)
            return relative(chosen)

        evaluate_runs(folder, **settings)


@contextlib.contextmanager
def _not_left_empty(folder: Path) -> Iterator[None]:
    """Takes away a folder that Hydra made, where nothing came into it."""
    try:
        yield
    except BaseException:
        if folder != Path.cwd():
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def predict(config: DictConfig) -> None:
    """The job of predict.py: a mask for every image; exits with 1 where an image could not be read."""
    with mistakes_in_one_line():
        settings = _plain(config)
        require(settings, "run", _A_RUN)
        _run_code(settings)
        require(settings, "input", "an image or a folder of images")
        require(settings, "output", "a folder for the masks")
        from segsweep.instantiate import check_arguments
        from segsweep.prediction import predict as predict_images

        run = _one_run(settings.pop("run"))
        settings["reading"] = settings.pop("data")
        check_arguments(predict_images, settings, known=("run", "progress"))
        with _Bar() as bar:
            result = predict_images(run, **settings, progress=bar)
    if number := len(result.written):
        speed = f"{number / result.seconds:.3g} images/s, {result.pixels / result.seconds / 1e6:.3g} megapixels/s"
        images = f"{number} image{'' if number == 1 else 's'}"
        print(
            f"{images} in {result.seconds:.1f} s ({speed}, {result.device}). Everything is in {Path(settings['output'])}"
        )
    if result.doubt:
        print(f"warning: {result.doubt}", file=sys.stderr)
    if result.failed:
        number, total = len(result.failed), len(result.failed) + len(result.written)
        print(f"error: {number} of {total} images could not be read; they are named above", file=sys.stderr)
        sys.exit(1)


def _run_code(settings: dict[str, Any]) -> None:
    if (code := settings.pop("code")) is not None:
        from segsweep.user_code import load_code

        load_code(code)


def export(config: DictConfig) -> None:
    """The job of export.py: the net as a file that needs no segsweep."""
    with mistakes_in_one_line():
        settings = _plain(config)
        require(settings, "run", _A_RUN)
        _run_code(settings)
        from segsweep.exporting import TOLERANCE
        from segsweep.exporting import export as export_run
        from segsweep.instantiate import check_arguments

        run = _one_run(settings.pop("run"))
        check_arguments(export_run, settings, known=("run",))
        done = export_run(run, **settings)
    sizes = ", ".join(f"{batch} of {height} x {width}" for batch, height, width in done.sizes)
    print(f"{done.path}: compared with the net on images of several sizes ({sizes}):")
    print(f"logits differ by {done.difference:.1e} at most, as a share of the largest; {TOLERANCE:g} is allowed")


def _one_run(given: Any) -> "Run":
    from segsweep.runs.find import find_runs
    from segsweep.runs.load import load_run

    if len(runs := find_runs(given)) > 1:
        raise UserError(f"run: names {len(runs)} runs, and one is wanted")
    return load_run(runs[0])


class _Bar:
    """Shows how far a prediction is, and names the files that cannot be read as they are met."""

    def __init__(self) -> None:
        self._bar = progress_bar()
        self._task = self._bar.add_task("predicting", total=None)

    def __enter__(self) -> "_Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, images: int) -> None:
        self._bar.update(self._task, total=images)

    def cautioned(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def written(self, name: str) -> None:
        self._bar.advance(self._task)

    def failed(self, path: Path, reason: str) -> None:
        self._bar.advance(self._task)
        self._bar.console.print(f"skipped: {reason}", markup=False, highlight=False)


def require(settings: dict[str, Any], key: str, what: str) -> None:
    """Refuses a setting that was not given.

    Raises:
        UserError: says what to give.
    """
    if settings[key] in (None, "", []):
        raise UserError(f"{key}: needs a value; give {what}")


def _plain(config: DictConfig) -> dict[str, Any]:
    """The settings as plain data."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    # A folder may be called 2026, which Hydra reads as a number.
    names = {key: str(plain[key]) for key in ("run", "input", "output") if isinstance(plain.get(key), int | float)}
    return {str(key): value for key, value in plain.items()} | names
