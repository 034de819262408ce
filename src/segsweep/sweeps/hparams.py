"""TensorBoard's HPARAMS tab: the swept values and the final metrics of every job, even of failed ones."""

import io
import math
import os
import socket
import time
from collections.abc import Sequence
from datetime import datetime

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.summary.writer.record_writer import RecordWriter

from segsweep.callbacks.tensorboard import scalar_tag
from segsweep.fingerprint import typed
from segsweep.runs import RunRecord
from segsweep.sweeps.ranking import values_key
from segsweep.sweeps.results import Results
from segsweep.sweeps.state import FINAL, REPLICATES, Job, SweepRecord, is_diverged

SUFFIX = ".hparams"
USUAL = ("optim", "lr", "momentum", "seed")
"""Columns of the tab if the jobs differ in them, though they were not swept by name: experiment=a,b may change them."""
FIRST = ("val/iou", "val/loss", "test/iou", "test/loss", "train/loss_running")
"""The metrics that follow the objective; then come the others of validation and test."""
STATUSES = {"completed": api_pb2.STATUS_SUCCESS, "failed": api_pb2.STATUS_FAILURE, "running": api_pb2.STATUS_RUNNING}

Row = dict[str, str | float]


def write_hparams(results: Results) -> None:
    """Writes an event file with the job's row for every job that has started. Replaces an earlier file if it differs.

    As in summary.csv, the row of a job that is not completed has no metrics: its last values are no result.
    """
    sweep, record, runs = results.sweep, results.record, results.runs
    started = [job for job in record.jobs if job.directory in runs]
    rows = hparams_rows(record, started)
    metrics: dict[str, dict[str, float]] = {}
    # The column with the metric's name is of the best checkpoint, which does not rank jobs under objective_at=last.
    column = "objective" if "at" in record.objective else record.objective["name"]
    for job in started:
        if job.status == "completed":
            run = runs[job.directory]
            final = {k: v for k, v in run.metrics.items() if k.startswith(("val/", "test/")) or k in FIRST}
            if run.objective.value is not None:
                final[column] = run.objective.value
            metrics[job.directory] = final
    settings = {} if results.compared is None else results.compared.by_setting()
    if any(setting["standing"] != "untested" for setting in settings.values()):
        for job, row in zip(started, rows, strict=True):
            setting = None if job.stage == FINAL else settings.get(values_key(record, job, record.settings_axes))
            row["standing"] = "untested" if setting is None else setting["standing"]
            if setting is not None and job.directory in metrics and not math.isnan(setting["p_best"]):
                metrics[job.directory]["p_best"] = setting["p_best"]
    rows = without_constants(rows, record.axes)
    # TensorBoard takes the columns from the run that it reads first, so the file of every run has all columns.
    columns = hparams_columns(rows, [name for names in metrics.values() for name in names], column)
    for job, row in zip(started, rows, strict=True):
        folder = sweep.run(job).tensorboard
        folder.mkdir(parents=True, exist_ok=True)
        files = [name for name in os.listdir(folder) if "tfevents" in name]
        before = [folder / name for name in files if name.endswith(SUFFIX)]
        logged = len(before) < len(files)
        content = event_file(job, runs[job.directory], columns, row, metrics.get(job.directory, {}), logged)
        same = len(before) == 1 and before[0].is_file() and before[0].stat().st_size == len(content)
        if same and before[0].read_bytes() == content:
            continue
        for path in before:
            path.unlink()
        # A new name, because a running TensorBoard reads no file twice.
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}.{job.number}{SUFFIX}"
        (folder / name).write_bytes(content)


def hparams_rows(record: SweepRecord, jobs: list[Job]) -> list[Row]:
    """The swept values and the status of each job. All rows have the same keys, and a key has one type.

    A null is written as text, because the tab cannot show it.
    """
    rows: list[Row] = [{} for _ in jobs]
    for key in dict.fromkeys([*USUAL, *record.axes]):
        values = [record.value_of(job, key) for job in jobs]
        if key not in record.axes and all(value is None for value in values):
            continue
        # Seeds and folds are written as text, because the tab would show them as 0.0000.
        numbers = key not in REPLICATES and all(type(value) in (int, float) for value in values)
        for row, value in zip(rows, values, strict=True):
            row[key] = float(value) if numbers else typed(value)  # type: ignore[arg-type]
    for row, job in zip(rows, jobs, strict=True):
        row["status"] = "diverged" if is_diverged(job.error) else job.status
    return rows


def without_constants(rows: list[Row], axes: Sequence[str]) -> list[Row]:
    """The rows without what is the same in all of them, except swept values: it would take an axis of the plot."""
    kept = [key for key in (rows[0] if rows else ()) if key in axes or len({row[key] for row in rows}) > 1]
    return [{key: row[key] for key in kept} for row in rows] if kept else rows


def hparams_columns(rows: list[Row], names: list[str], objective: str) -> api_pb2.Experiment:
    """The columns of the tab: the keys of the rows, then the metrics with the objective first.

    Args:
        rows: from `hparams_rows`.
        names: the metrics of all jobs; may repeat.
        objective: the name of the objective.
    """
    hparams = []
    for key in rows[0] if rows else ():
        values = {row[key] for row in rows}
        info = api_pb2.HParamInfo(name=key, differs=len(values) > 1)  # the tab shows those that differ first
        if numbers := [value for value in values if not isinstance(value, str)]:
            info.type = api_pb2.DATA_TYPE_FLOAT64
            info.domain_interval.min_value, info.domain_interval.max_value = min(numbers), max(numbers)
        else:
            info.type = api_pb2.DATA_TYPE_STRING
            info.domain_discrete.extend(sorted(map(str, values)))
        hparams.append(info)
    order = [name for name in dict.fromkeys([objective, *FIRST, *names]) if name in names or name == objective]
    infos = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=_tag(name)), display_name=name) for name in order]
    return api_pb2.Experiment(hparam_infos=hparams, metric_infos=infos)


def _tag(name: str) -> str:
    """The tag of a final metric: that of its curve if the last logged value is the final one, else "<tag> (best)"."""
    if "/" not in name:
        return name  # p_best is no curve
    return f"{scalar_tag(name)} (best)" if name.startswith("val/") else scalar_tag(name)


def event_file(
    job: Job, run: RunRecord, columns: api_pb2.Experiment, row: Row, metrics: dict[str, float], logged: bool
) -> bytes:
    """The content of an event file; the same arguments give the same bytes.

    Args:
        job: the job.
        run: its run.json.
        columns: from `hparams_columns`.
        row: its row, from `hparams_rows`.
        metrics: its final metrics.
        logged: whether the training wrote an event file, with the metrics that it logged.
    """
    started = 0.0 if run.started is None else datetime.fromisoformat(run.started).timestamp()
    ended = started + run.seconds
    start = SessionStartInfo(group_name=job.directory, start_time_secs=started)
    for key, entry in row.items():
        setattr(start.hparams[key], "string_value" if isinstance(entry, str) else "number_value", entry)
    end = SessionEndInfo(status=STATUSES.get(job.status, api_pb2.STATUS_UNKNOWN), end_time_secs=ended)
    events = [Event(wall_time=started, file_version="brain.Event:2")]
    for tag, content in (
        (metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=columns)),
        (metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start)),
        (metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end)),
    ):
        # TensorBoard's own helper makes the same summary, but needs TensorFlow.
        content.version = metadata.PLUGIN_DATA_VERSION
        data = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString())
        value = Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=data), tensor=metadata.NULL_TENSOR)
        events.append(Event(wall_time=started, summary=Summary(value=[value])))
    for name, number in metrics.items():
        is_last = not name.startswith("val/")
        if logged and is_last and name not in ("p_best", "objective"):
            continue  # the training has logged it
        scalar = Summary(value=[Summary.Value(tag=_tag(name), simple_value=number)])
        step = run.steps if run.best_step is None or is_last else run.best_step
        events.append(Event(wall_time=ended, step=step, summary=scalar))
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        # Protobuf maps have no order, and the same content must give the same bytes.
        writer.write(event.SerializeToString(deterministic=True))
    return buffer.getvalue()
