"""Weights & Biases and MLflow, by Lightning's loggers. Neither package is imported unless `logger=` asks for it.

The ids of a run there are kept in its loggers.json, so that it goes on there when it is resumed, also from its beginning.
"""

import contextlib
import importlib.util
import inspect
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import lightning as L
from filelock import FileLock
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger

from segsweep.errors import Interrupted, UserError, one_line
from segsweep.fingerprint import flatten, typed
from segsweep.runs import RunDirectory
from segsweep.runs.files import is_first_process, write_json
from segsweep.runs.stored import read_json

log = logging.getLogger(__name__)

TRACKERS: dict[str, type[WandbLogger] | type[MLFlowLogger]] = {"wandb": WandbLogger, "mlflow": MLFlowLogger}
"""By the key below `logger`."""
_OURS = {
    "wandb": ("id", "version", "experiment", "resume", "resume_from", "fork_from", "reinit"),
    "mlflow": ("run_id", "save_dir"),
}
"""Arguments that a user must not set: they decide whether a resumed run goes on there."""
_ON_DISK = "sqlite:///"
_LOCAL_STORE = f"{_ON_DISK}mlflow.db"
"""What MLflow itself takes if nothing else is said; Lightning would take a folder, which MLflow refuses since 3.13."""
_HINTS = {
    "wandb": "type wandb login, or log on this disk with logger.wandb.offline=true",
    "mlflow": "logger.mlflow.tracking_uri= or MLFLOW_TRACKING_URI says where it logs to",
}
Status = Literal["FINISHED", "FAILED", "KILLED"]
_EXIT_CODES = {"FINISHED": 0, "FAILED": 1, "KILLED": 255}
"""W&B's exit codes; 255 is its own for Ctrl-C."""


def tracker_settings(name: str) -> list[str]:
    """The settings that `logger.<name>` may have: the arguments of Lightning's logger and of wandb.init.

    Raises:
        UserError: the package is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # no origin: a folder of that name, as W&B leaves one
        raise UserError(f"logger={name}: needs {name}; pip install 'segsweep[{name}]'")
    functions: list[Callable[..., Any]] = [TRACKERS[name]]
    if name == "wandb":
        import wandb

        functions.append(wandb.init)
    parameters = {key: each for function in functions for key, each in inspect.signature(function).parameters.items()}
    named = (key for key, each in parameters.items() if each.kind is not each.VAR_KEYWORD)
    return [key for key in named if key not in _OURS[name]]


def build_trackers(node: Mapping[str, Any], run: RunDirectory, name: str | None) -> list[Logger]:
    """The loggers that the `logger` group asks for, in the first process only. They do nothing until `tracked` begins.

    Args:
        node: the group's settings, of known names.
        run: the run's directory.
        name: the run's or its sweep's name.

    Raises:
        UserError: a logger refuses its settings.
    """
    asked = {tracker: node[tracker] for tracker in TRACKERS if node.get(tracker) is not None}
    if not asked or not is_first_process():
        return []
    ids, place = _stored_ids(run), run.path.resolve()
    sweep = next((folder.name for folder in place.parents[:2] if (folder / "sweep.json").exists()), None)
    shown = place.name if sweep is not None else name or "/".join(place.parts[-2:])
    found: list[Logger] = []
    for tracker, settings in asked.items():
        given = {key: value for key, value in settings.items() if value is not None}
        if tracker == "wandb":
            if not isinstance(offline := given.pop("offline", False), bool):
                raise UserError(f"logger.wandb.offline={offline}: must be true or false")
            # Lightning's own `offline` would change the environment, and so later runs of this process.
            given |= {"mode": "offline"} if offline else {}
            key = ids.get("wandb") or secrets.token_hex(4)
            arguments = {"name": shown, "group": sweep, "save_dir": str(run.path)} | given | {"id": key}
        else:
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow's authors are not whom the user logs to
            arguments = {"run_name": shown, "tracking_uri": os.environ.get("MLFLOW_TRACKING_URI") or _LOCAL_STORE}
            arguments |= given | {"run_id": ids.get("mlflow")}
            arguments["tags"] = ({} if sweep is None else {"sweep": sweep}) | dict(given.get("tags", {}))
            if (store := str(arguments["tracking_uri"])).startswith(_ON_DISK):
                # MLflow keeps an open store by this text, also if the working directory changes.
                arguments["tracking_uri"] = _ON_DISK + str(Path(store.removeprefix(_ON_DISK)).absolute())
        try:
            with _alone_at(str(arguments.get("tracking_uri"))):
                found.append(TRACKERS[tracker](**arguments))
        except Exception as error:  # of any kind: it is another library's
            raise UserError(f"logger.{tracker}: {one_line(error)}") from error
    return found


@contextlib.contextmanager
def _alone_at(store: str) -> Iterator[None]:
    """Holds a lock beside a store on this disk: MLflow fails if several jobs at once make it create its tables."""
    path = Path(store.removeprefix(_ON_DISK))
    if not store.startswith(_ON_DISK) or not path.parent.is_dir():
        yield
        return
    with FileLock(path.with_name(f".{path.name}.lock")):
        yield


def _stored_ids(run: RunDirectory) -> dict[str, str]:
    """The run's id by tracker."""
    if not run.loggers.exists():
        return {}
    ids = read_json(run.loggers)
    if not isinstance(ids, dict) or not all(re.fullmatch(r"\w{1,64}", str(each)) for each in ids.values()):
        raise UserError(f"{run.loggers}: is damaged; remove it, and the run will be a new one in its loggers")
    return {str(key): str(each) for key, each in ids.items()}


@contextlib.contextmanager
def tracked(trainer: L.Trainer, run: RunDirectory, settings: Mapping[str, Any]) -> Iterator[None]:
    """Begins or resumes the run in W&B and MLflow, with its settings, and tells them how the block ended.

    Args:
        trainer: its loggers from `build_trackers` are begun; without any, nothing happens.
        run: gets the ids in its loggers.json.
        settings: the configuration as plain data.

    Raises:
        UserError: a logger cannot begin, and nothing was trained.
    """
    begun: list[WandbLogger | MLFlowLogger] = []
    status: Status = "FAILED"
    try:
        for name, kind in TRACKERS.items():
            for logger in (each for each in trainer.loggers if isinstance(each, kind)):
                try:
                    if name == "wandb":
                        logger.log_hyperparams(dict(settings))
                        identity = str(logger.version)
                    else:
                        identity = _begin_mlflow(logger, settings)
                except Exception as error:  # without login, network, server or database driver
                    raise UserError(f"logger={name}: cannot begin ({one_line(error)}); {_HINTS[name]}") from error
                begun.append(logger)
                write_json(run.loggers, _stored_ids(run) | {name: identity})
        yield
        status = "FINISHED"
    except (Interrupted, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        for logger in begun:
            try:
                if isinstance(logger, WandbLogger):
                    logger.experiment.finish(exit_code=_EXIT_CODES[status])
                else:
                    logger.experiment.set_terminated(logger.run_id, status)
            except Exception as error:
                log.warning("%s was not told that the run is %s (%s)", type(logger).__name__, status, one_line(error))


def _begin_mlflow(logger: Any, settings: Mapping[str, Any]) -> str:
    try:
        run_id = logger.run_id
    except Exception as error:
        if getattr(error, "error_code", None) != "RESOURCE_ALREADY_EXISTS":
            raise
        run_id = logger.run_id  # a job that started at the same time has made the experiment
    client = logger.experiment
    client.update_run(run_id, "RUNNING")
    known = client.get_run(run_id).data.params  # MLflow refuses another value of a known one
    logger.log_hyperparams({key: typed(value) for key, value in flatten(settings).items() if key not in known})
    finalize = logger.finalize

    def finalize_or_warn(status: str) -> None:  # Lightning calls it after training and after the test
        try:
            finalize(status)
        except Exception as error:
            log.warning("MLFlowLogger could not finish (%s); the run's own files have everything", one_line(error))

    logger.finalize = finalize_or_warn
    return str(run_id)


def track(logger: WandbLogger | MLFlowLogger, row: Mapping[str, float], step: int) -> None:
    """Logs a row of metrics.csv. If that fails, as without network, the training goes on with a warning."""
    try:
        logger.log_metrics(
            row if isinstance(logger, WandbLogger) else {mlflow_name(name): row[name] for name in row}, step
        )
    except Exception as error:
        log.warning("%s lacks step %s (%s); metrics.csv has it", type(logger).__name__, step, one_line(error))


def mlflow_name(metric: str) -> str:
    """The name of a metric in MLflow: other letters than ASCII's become their code, "val/iou/B.e4.ume".

    Lightning would leave them out, so that two classes could have one name.
    """
    return re.sub(r"[^a-zA-Z0-9_/ -]|/(?=/|$)", lambda letter: f".{ord(letter[0]):x}.", metric)
