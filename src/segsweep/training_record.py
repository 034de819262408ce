"""run.json of a training, from its start to its end."""

import contextlib
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from segsweep.absent_classes import scored_classes
from segsweep.console import hydra_argument, relative
from segsweep.errors import Interrupted, UserError
from segsweep.invocation import to_type
from segsweep.resume import PreviousRun, last_step
from segsweep.runs import Objective, RunDirectory, RunRecord, git_state, objective_mode, versions
from segsweep.runs.files import is_first_process, write_text
from segsweep.training_setup import Session

log = logging.getLogger(__name__)


def start_record(
    settings: dict[str, Any], run: RunDirectory, overrides: Sequence[str], previous: PreviousRun | None
) -> tuple[RunRecord, int | None]:
    """The record of a run that starts or resumes, and the step to resume at; None starts from scratch."""
    record = RunRecord(
        status="running",
        name=settings["name"],
        seed=settings["seed"],
        overrides=list(overrides),
        objective=Objective(
            settings["objective"], objective_mode(str(settings["objective"])), at=settings["objective_at"]
        ),
        started=datetime.now().astimezone().isoformat(timespec="seconds"),
        versions=versions(),
        git=git_state(Path(__file__).parent),
        limited_by_time=settings["trainer"].get("max_minutes") is not None,
    )
    if previous is None:
        return record, None
    step, earlier = last_step(settings, run), previous.record
    record.started, record.seconds, record.metrics = earlier.started, earlier.seconds, earlier.metrics
    record.objective, record.steps = earlier.objective, earlier.steps
    record.best_checkpoint, record.best_step = earlier.best_checkpoint, earlier.best_step
    record.continued_at = [*earlier.continued_at, step]
    record.contents, record.absent_classes = earlier.contents, earlier.absent_classes
    record.scored_pixels = earlier.scored_pixels
    return record, step


@contextlib.contextmanager
def recorded(record: RunRecord, run: RunDirectory, config: DictConfig, resumes: bool) -> Iterator[Callable[[], None]]:
    """Writes run.json when a training starts and when it ends, however it ends.

    Yields a function to call once everything is built. Until then, the files of a resumed run stay unchanged.
    """
    if not is_first_process():
        yield lambda: None
        return
    started, begun = time.perf_counter(), False

    def ready() -> None:
        nonlocal begun
        begun = True
        run.path.mkdir(parents=True, exist_ok=True)
        write_text(run.config, OmegaConf.to_yaml(config, resolve=True))
        record.write(run.record)

    with run.followed() as place:
        try:
            if not resumes:
                ready()
            yield ready
            record.status = "completed"
        except Interrupted as interruption:
            record.status, record.error = "interrupted", str(interruption)
            raise
        except BaseException as error:
            record.status, record.error = "failed", f"{type(error).__name__}: {error}"
            record.traceback = traceback.format_exc()
            log.debug("the run failed", exc_info=True)
            if (now := place()) != run.path:
                moved = f"{run.path}: was renamed or removed while the training wrote there; "
                if now is None:
                    raise UserError(f"{moved}start it again") from error
                record.status, record.error, record.traceback = "interrupted", "its directory was renamed", None
                raise UserError(
                    f"{moved}go on with {to_type('train')} {hydra_argument('resume', relative(now))}"
                ) from error
            raise
        finally:
            record.seconds += time.perf_counter() - started
            if begun and (now := place()) is not None:
                try:
                    record.write(RunDirectory(now).record)
                except OSError as error:
                    log.error("%s could not be written: %s", run.record, error)


def note_absent_classes(record: RunRecord, session: Session) -> None:
    """Notes the classes without a pixel in val and in test, as the source knows them, else from the masks scored so far."""
    source, task = session.data.source, session.task
    if session.data.overfit_samples:
        return  # validation then scores training samples
    whole = session.data.limit_samples is None  # else a class of the source may occur beyond the limit only
    splits: tuple[Literal["val", "test"], ...] = ("val", "test") if session.settings.test else ("val",)
    for split in (split for split in splits if split not in record.absent_classes and source.size(split)):
        names = source.absent_classes(split) if whole else None
        if names is None and split in task.confusions:
            pixels = task.confusions[split].sum(1).tolist()
            names = [name for name, count in zip(source.labels.names, pixels, strict=True) if not count]
        if names is not None:
            counted = scored_classes(source.labels.names, source.kind, source.ignored_classes)
            record.absent_classes[split] = [name for name in names if name in counted]
