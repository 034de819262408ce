"""TensorBoard's HPARAMS tab: the swept values and the final metrics of every job, even of failed ones."""

import io
import os
import socket
import time
from datetime import datetime

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.summary.writer.record_writer import RecordWriter

from segsweep.fingerprint import typed
from segsweep.runs import RunRecord
from segsweep.sweeps.results import Results
from segsweep.sweeps.state import Job, SweepRecord, is_diverged

SUFFIX = ".hparams"
ALWAYS = ("optim", "lr", "momentum", "seed")
"""Columns of the tab even if they were not swept, unless no job sets them."""
FIRST = ("val/iou", "val/loss", "test/iou", "test/loss", "train/loss_running")
"""The metrics next to the objective; the others of validation and test follow."""
ENDED = {"completed": api_pb2.STATUS_SUCCESS, "failed": api_pb2.STATUS_FAILURE, "running": api_pb2.STATUS_RUNNING}

Row = dict[str, str | float]


def write_hparams(results: Results) -> None:
    """Writes an event file for every job that was started, next to its others; an old one is replaced if it differs.

    The row of a job that is not completed has no metrics, as in summary.csv: its last values are no result.
    """
    sweep, record, found = results.sweep, results.record, results.runs
    started = [job for job in record.jobs if job.directory in found]
    rows = _rows(record, started)
    metrics = {job.directory: _metrics(found[job.directory]) for job in started if job.status == "completed"}
    # TensorBoard takes the columns from the run that it reads first, so every run names all of them.
    columns = _columns(rows, [name for names in metrics.values() for name in names], record.objective["name"])
    for job, row in zip(started, rows, strict=True):
        folder = sweep.run(job).tensorboard
        folder.mkdir(parents=True, exist_ok=True)
        files = [name for name in os.listdir(folder) if "tfevents" in name]
        before = [folder / name for name in files if name.endswith(SUFFIX)]
        logged = len(before) < len(files)
        content = _events(job, found[job.directory], columns, row, metrics.get(job.directory, {}), logged)
        if [path.read_bytes() for path in before] == [content]:
            continue
        for path in before:
            path.unlink()
        # A new name, as TensorBoard makes them: a running TensorBoard reads no file twice.
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}.{job.number}{SUFFIX}"
        (folder / name).write_bytes(content)


def _rows(record: SweepRecord, jobs: list[Job]) -> list[Row]:
    """The row of each job: all rows have the same keys, a key one type, and no value is null, which the tab cannot show."""
    rows: list[Row] = [{} for _ in jobs]
    for key in dict.fromkeys([*ALWAYS, *record.axes]):
        values = [record.value_of(job, key) for job in jobs]
        if key not in record.axes and all(value is None for value in values):
            continue
        # A seed is written as text: the tab would show a number as 0.0000.
        numbers = key != "seed" and all(type(value) in (int, float) for value in values)
        for row, value in zip(rows, values, strict=True):
            row[key] = float(value) if numbers else typed(value)  # type: ignore[arg-type]
    for row, job in zip(rows, jobs, strict=True):
        row["status"] = "diverged" if is_diverged(job.error) else job.status
    return rows


def _metrics(found: RunRecord) -> dict[str, float]:
    metrics = {
        name: value for name, value in found.metrics.items() if name.startswith(("val/", "test/")) or name in FIRST
    }
    if found.objective.value is not None:
        metrics[found.objective.name] = found.objective.value
    return metrics


def _columns(rows: list[Row], names: list[str], objective: str) -> api_pb2.Experiment:
    about = []
    for key in rows[0] if rows else ():
        values = {row[key] for row in rows}
        info = api_pb2.HParamInfo(name=key, differs=len(values) > 1)  # those that differ come first
        if numbers := [value for value in values if not isinstance(value, str)]:
            info.type = api_pb2.DATA_TYPE_FLOAT64
            info.domain_interval.min_value, info.domain_interval.max_value = min(numbers), max(numbers)
        else:
            info.type = api_pb2.DATA_TYPE_STRING
            info.domain_discrete.extend(sorted(map(str, values)))
        about.append(info)
    order = [name for name in dict.fromkeys([objective, *FIRST, *names]) if name in names or name == objective]
    infos = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=_tag(name)), display_name=name) for name in order]
    return api_pb2.Experiment(hparam_infos=about, metric_infos=infos)


def _tag(name: str) -> str:
    """The tag of a final metric: its logged name if the last logged value is the final one."""
    return name if name.startswith(("test/", "train/")) else f"{name} (best)"


def _events(
    job: Job, found: RunRecord, columns: api_pb2.Experiment, row: Row, metrics: dict[str, float], logged: bool
) -> bytes:
    """The content of an event file; the same arguments give the same bytes."""
    started = 0.0 if found.started is None else datetime.fromisoformat(found.started).timestamp()
    ended = started + found.seconds
    begun = SessionStartInfo(group_name=job.directory, start_time_secs=started)
    for key, entry in row.items():
        setattr(begun.hparams[key], "string_value" if isinstance(entry, str) else "number_value", entry)
    end = SessionEndInfo(status=ENDED.get(job.status, api_pb2.STATUS_UNKNOWN), end_time_secs=ended)
    events = [Event(wall_time=started, file_version="brain.Event:2")]
    for tag, content in (
        (metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=columns)),
        (metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=begun)),
        (metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end)),
    ):
        # The same summary as TensorBoard's own helper makes, which needs TensorFlow.
        content.version = metadata.PLUGIN_DATA_VERSION
        data = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString())
        value = Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=data), tensor=metadata.NULL_TENSOR)
        events.append(Event(wall_time=started, summary=Summary(value=[value])))
    for name, number in metrics.items():
        if logged and _tag(name) == name:
            continue  # the training has logged it
        scalar = Summary(value=[Summary.Value(tag=_tag(name), simple_value=number)])
        step = found.steps if found.best_step is None or _tag(name) == name else found.best_step
        events.append(Event(wall_time=ended, step=step, summary=scalar))
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        # A protobuf map has no order; the same content must give the same bytes.
        writer.write(event.SerializeToString(deterministic=True))
    return buffer.getvalue()
