"""The job of each entry point.

Heavy modules are imported inside the functions, so that `--help` and a mistyped key answer at once.
"""

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from segsweep.absent_classes import MARK, absence, rests_on
from segsweep.cli.start import free_folder, importing, new_folder, say, started
from segsweep.console import evaluate_command, fail, mistakes_in_one_line, progress_bar, relative, shell_word
from segsweep.errors import UserError
from segsweep.invocation import to_type

if TYPE_CHECKING:
    from segsweep.runs import RunRecord
    from segsweep.runs.load import Run
    from segsweep.speed import Report

A_RUN = "a run directory or a checkpoint, as in run=outputs/<date>/<time>"


def train(config: DictConfig) -> float | None:
    """Trains a single run, or one job of a sweep, and returns the value of its objective.

    A single run prints its metrics and the next commands to type. A failed overfit check exits with code 1.
    """
    hydra = HydraConfig.get()
    directory, resume = Path(hydra.runtime.output_dir), config.resume is not None
    timing = hydra.runtime.choices.get("debug") == "speed"
    if hydra.mode is not RunMode.MULTIRUN:
        started.what, started.folder = None if timing else "run", directory
        verb = "timing training steps" if timing else "resuming the run" if resume else "training"
        say(f"{verb} in {relative(directory)}")
    with importing():
        from segsweep.resume import resumed_config
        from segsweep.runs.files import is_first_process
        from segsweep.runs.stored import store_plain, typed_overrides
        from segsweep.training import train as train_run

    full = config.copy()
    OmegaConf.set_struct(full, False)
    full.hydra = hydra
    if hydra.mode is RunMode.MULTIRUN:
        from segsweep.runs import RunDirectory
        from segsweep.sweeps.callback import is_worker, runner_of
        from segsweep.sweeps.jobs import run_job
        from segsweep.sweeps.launchers import end_with_runner, engine_of
        from segsweep.sweeps.state import SweepDirectory

        by_joblib = engine_of(full.hydra) == "joblib" and is_worker(full)
        with end_with_runner(runner_of(full)) if by_joblib else contextlib.nullcontext():
            store_plain(directory, full)
            return run_job(config, full, SweepDirectory(Path(str(full.hydra.sweep.dir))), RunDirectory(directory))
    if timing:
        speed(config, directory, store_plain(directory, full))
        return None
    with mistakes_in_one_line():
        if resume:
            config, overrides = resumed_config(directory, typed_overrides(full))
        else:
            overrides = store_plain(directory, full)
        record = train_run(config, directory, overrides, resume=resume)
    if is_first_process():
        print_result(record, directory, tests=bool(config.trainer.test))
    if record.overfit_check == "failed":
        sys.exit(1)
    return record.objective.value


def print_result(record: "RunRecord", directory: Path, tests: bool) -> None:
    """Prints a run's metrics and the next commands to type; `tests` is the setting trainer.test."""
    from rich.console import Console
    from rich.table import Table

    absent = record.absent_classes
    table = Table("metric", "train (latest)", f"val (step {record.best_step})", "test", title=None)
    names = dict.fromkeys(name.split("/", 1)[1] for name in record.metrics if name.startswith(("val/", "train/")))
    for name in names:
        values = {split: record.metrics.get(f"{split}/{name}") for split in ("train", "val", "test")}
        marks = {split: MARK if rests_on(name, absent.get(split, [])) else "" for split in values}
        table.add_row(name, *("" if value is None else f"{value:.4f}{marks[split]}" for split, value in values.items()))
    # A class may be called [red]: its name is no markup.
    Console(soft_wrap=True, markup=False, emoji=False).print(table)
    for split, classes in absent.items():
        if classes:
            print(f"{MARK.strip()} {absence(split, classes)}")
    shown = relative(directory)
    speed = f", {record.steps_per_second:.1f} steps/s" if record.steps_per_second else ""
    print(f"{record.steps:,} steps in {record.seconds:.0f} s{speed}. Everything is in {shown}")
    print("Next:")
    print(f"  tensorboard --host localhost --logdir {shlex.quote(str(shown / 'tensorboard'))}")
    print(f"  {evaluate_command(shown, record.metrics, tests)}")


def speed(config: DictConfig, directory: Path, overrides: list[str]) -> None:
    """Times training steps at many settings, and prints the fastest as a line to type."""
    with mistakes_in_one_line():
        from segsweep.speed import NEAR, NOISE, measure_speed

        report = measure_speed(config, directory, overrides)
    print_speeds(report)
    notes = {str(row.combination): row.note for row in report.rows if row.note}
    for line in [*report.remarks, *(f"{combination}: {note}" for combination, note in notes.items())]:
        print(line)
    if any(row.speed is not None and not row.ratios for row in report.rows):
        print("~ is from the first steps alone; such settings took no turns.")
    print(f"loss: largest relative difference in the first {report.compared_steps} steps from {report.reference}.")
    print(f"Only settings below {NEAR:g} are recommended, which is no proof of equal results.")
    if report.chosen.combination == report.given:
        enough = f"{100 * (NOISE - 1):.0f} %"
        print(f"No setting with a loss below {NEAR:g} gains more than {enough}: keep the given ones. Type:")
    else:
        print(f"* is {report.chosen.ratio:.2f} times as fast as the settings as given. Type:")
    print(f"  {' '.join([to_type('train'), *map(shell_word, report.arguments)])}")
    if report.sweep is not None:
        jobs, gain = report.sweep
        print(f"In a sweep, {jobs} jobs at once make {gain:.2f} times as many steps a second. Add to -m:")
        print(f"  hydra/launcher=joblib hydra.launcher.n_jobs={jobs}")
    print(f"Everything is in {relative(directory / 'speed.json')}")


def print_speeds(report: "Report") -> None:
    """Prints a row for each combination; at most 80 columns wide."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    on_cpu = report.device == "cpu"
    sizes = ["threads"] if on_cpu else ["batch\nsize"]
    table = Table("precision", "channels\nlast", "compile", *sizes, box=box.SIMPLE_HEAD, padding=0)
    for name in ["steps/s", *([] if on_cpu else ["images/s"]), "ratio", "first\nstep s", "peak\nGiB", "loss"]:
        table.add_column(name, justify="right")

    def shown(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    for row in report.rows:
        tried, speed = row.combination, row.speed
        about = "~" if speed is not None and not row.ratios else ""
        speeds = [speed, *([] if on_cpu else [None if speed is None else speed * tried.batch_size])]
        threads = f"{tried.jobs} x {tried.threads}" if tried.jobs > 1 else str(tried.threads)
        table.add_row(
            tried.precision, "yes" if tried.channels_last else "no", "yes" if tried.compile else "no",
            threads if on_cpu else str(tried.batch_size),
            *(about + shown(value, ",.0f" if value is not None and value >= 100 else ".3g") for value in speeds),
            shown(row.ratio or None, ".2f") + ("*" if row is report.chosen else " "),
            shown(row.first_step_seconds, ".1f"), shown(row.peak_bytes and row.peak_bytes / 2**30, ".2f"),
            shown(row.loss_difference, ".1e"),
        )  # fmt: skip
    Console(width=80, markup=False).print(table)


def check_data(config: DictConfig) -> None:
    """Checks every file of a data folder, and exits with code 1 if it finds mistakes."""
    directory = Path(HydraConfig.get().runtime.output_dir)
    say(f"checking {config.data.get('root')!s:.200}; the report goes to {relative(directory)}")
    with importing():
        from segsweep.check_data import check

    with mistakes_in_one_line():
        report = check(config, directory, HydraConfig.get().overrides.task)
    print(f"The report and a contact sheet are in {relative(directory)}")
    if number := len(report.errors):
        mistakes = f"{number} mistake{'s' if number > 1 else ''}"
        fail(f"{report.root}: {mistakes}; correct the errors that {relative(directory / 'check.json')} lists")


def evaluate(config: DictConfig) -> None:
    """Scores one run or several: prints tables, and writes evaluation.json and pictures."""
    made = Path(HydraConfig.get().runtime.output_dir)  # the working directory, unless hydra.run.dir or -m made another
    with mistakes_in_one_line(), remove_if_empty(made):
        settings = plain_settings(config, run=A_RUN)
        output = Path(settings.pop("output") or made)
        chosen = None if output == Path.cwd() else relative(output)
        if chosen is not None and (chosen / "evaluation.json").exists():
            raise UserError(f"{chosen}: holds an evaluation already; give another output, or none")
        results = chosen or free_folder("outputs", "evaluation")
        say(f"evaluating {named(settings['run'])} on {settings['split']}; the results go to {results}")
        with importing():
            from segsweep.evaluation import evaluate_runs
            from segsweep.instantiate import check_arguments

        check_arguments(evaluate_runs, settings, known=("folder",))

        def folder() -> Path:
            if chosen is None and results.exists():  # an evaluation of the same second has taken it
                return Path(new_folder("outputs", "evaluation"))
            results.mkdir(parents=True, exist_ok=True)
            return results

        evaluate_runs(folder, **settings)


def named(run: object) -> str:
    """`run=` as text: the first of several, and the number of the others."""
    if isinstance(run, list) and run:
        return str(run[0]) + (f" and {len(run) - 1} more" if len(run) > 1 else "")
    return str(run)


@contextlib.contextmanager
def remove_if_empty(folder: Path) -> Iterator[None]:
    """Removes a folder that Hydra made if the command fails and nothing was written to it."""
    try:
        yield
    except BaseException:
        if folder != Path.cwd():
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        raise


def predict(config: DictConfig) -> None:
    """Writes a mask for every image, and exits with code 1 if an image could not be read."""
    with mistakes_in_one_line():
        settings = plain_settings(
            config, run=A_RUN, input="an image or a folder of images", output="a folder for the masks"
        )
        say(f"predicting masks for {settings['input']}; they go to {settings['output']}")
        with importing():
            from segsweep.instantiate import check_arguments
            from segsweep.prediction import predict as predict_images

        run = load_one_run(settings.pop("run"))
        settings["reading"] = settings.pop("data")
        check_arguments(predict_images, settings, known=("run", "progress"))
        with PredictionBar() as bar:
            result = predict_images(run, **settings, progress=bar)
    if number := len(result.written):
        speed = f"{number / result.seconds:.3g} images/s, {result.pixels / result.seconds / 1e6:.3g} megapixels/s"
        images = f"{number} image{'' if number == 1 else 's'}"
        print(
            f"{images} in {result.seconds:.1f} s ({speed}, {result.device}). Everything is in {Path(settings['output'])}"
        )
    if result.passed_over:
        print(f"passed over: {result.passed_over}")
    if result.doubt:
        print(f"warning: {result.doubt}", file=sys.stderr)
    if result.failed:
        number, total = len(result.failed), len(result.failed) + len(result.written)
        print(f"error: {number} of {total} images could not be read; they are named above", file=sys.stderr)
        sys.exit(1)


class PredictionBar:
    """Progress bar of a prediction; also prints a line for each file that cannot be read."""

    def __init__(self) -> None:
        self._bar = progress_bar()
        self._task = self._bar.add_task("predicting", total=None)

    def __enter__(self) -> "PredictionBar":
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


def export(config: DictConfig) -> None:
    """Writes the net as a file that runs without segsweep."""
    with mistakes_in_one_line():
        settings = plain_settings(config, run=A_RUN)
        say(f"exporting {named(settings['run'])} as {settings['format']} to {settings['output'] or 'its folder'}")
        with importing():
            from segsweep.exporting import TOLERANCE
            from segsweep.exporting import export as export_run
            from segsweep.instantiate import check_arguments

        run = load_one_run(settings.pop("run"))
        check_arguments(export_run, settings, known=("run",))
        done = export_run(run, **settings)
    sizes = ", ".join(f"{batch} of {height} x {width}" for batch, height, width in done.sizes)
    print(f"{done.path}: compared with the net on images of several sizes ({sizes}):")
    print(f"logits differ by at most {done.difference:.1e} of the largest logit; {TOLERANCE:g} is allowed")


def load_one_run(given: Any) -> "Run":
    """Loads the run that `run=` names.

    Raises:
        UserError: it names no run, or several.
    """
    from segsweep.runs.find import find_runs
    from segsweep.runs.load import load_run

    if len(runs := find_runs(given)) > 1:
        raise UserError(f"run: names {len(runs)} runs; give one")
    return load_run(runs[0])


def plain_settings(config: DictConfig, **required: str) -> dict[str, Any]:
    """Runs the files of `code`, and returns a command's other settings as plain data.

    Args:
        config: as composed.
        required: keys that need a value, each with what to give.

    Raises:
        UserError: a required key has no value.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    settings: dict[str, Any] = {str(key): value for key, value in plain.items()}
    for key, what in required.items():
        if settings[key] in (None, "", []):
            raise UserError(f"{key}: needs a value; give {what}")
    for key in ("run", "input", "output"):
        if isinstance(settings.get(key), int | float):  # Hydra reads a folder called 2026 as a number
            settings[key] = str(settings[key])
    if (code := settings.pop("code")) is not None:
        from segsweep.user_code import load_code

        load_code(code)
    return settings
