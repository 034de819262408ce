"""A training that begins with the weights of another run: `init=RUN_OR_CKPT`. The checkpoint is untrusted."""

import contextlib
import functools
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segsweep.errors import UserError
from segsweep.file_facts import FileVersion, file_version
from segsweep.fingerprint import data_contents
from segsweep.nets.registry import SLACK_BYTES, load_state, misfit
from segsweep.runs.run_checkpoint import StoredRun, checkpoint_of, read_stored
from segsweep.tasks import SegmentationTask

log = logging.getLogger(__name__)


def contents_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Digests of the data and, as "init", of the weights that a training begins with; see `result_settings`.

    Raises:
        UserError: the data folder or the checkpoint cannot be read.
    """
    found = data_contents(settings.get("data") or {})
    if (init := settings.get("init")) is not None:
        with _naming_init():
            checkpoint = checkpoint_of(Path(init).expanduser())
            found["init"] = _digest(checkpoint, file_version(checkpoint))
    return found


@contextlib.contextmanager
def _naming_init() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"init: {error}") from error


@functools.cache  # each job of a sweep asks for the same file
def _digest(checkpoint: Path, version: FileVersion) -> str:
    """A digest of the net's weights in a checkpoint, by name: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in sorted(_read(checkpoint).weights.items()):
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.reshape(-1).contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _read(checkpoint: Path) -> StoredRun:
    """Reads a run; refuses weights that take much more memory than their file."""
    stored = read_stored(checkpoint)
    size = sum(value.numel() * value.element_size() for value in stored.weights.values())
    if size > checkpoint.stat().st_size + SLACK_BYTES:
        raise UserError(f"{checkpoint}: damaged: its weights are larger than the file; copy it again")
    return stored


def load_initial_weights(init: str, task: SegmentationTask, build_net: Callable[[int], nn.Module]) -> None:
    """Copies a run's weights into a new task's net, and logs one line about it.

    If the run has other classes or another kind of task, the net keeps its own new head: the parameters whose shape depends
    on the number of classes. All other names, shapes and types must be the run's.

    Args:
        init: a run directory, for its best checkpoint, or a .ckpt file.
        task: its net is changed.
        build_net: builds a net like the task's with so many channels of logits.

    Raises:
        UserError: there is no such run, it is damaged, or its weights do not fit; names the first that does not.
    """
    with _naming_init():
        stored = _read(checkpoint_of(Path(init).expanduser()))
        own, line = task.net.state_dict(), f"init: the weights of {stored.checkpoint}, step {stored.step:,}"
        weights = stored.weights
        if (stored.kind, stored.labels.names) != (task.kind, task.labels.names):
            with torch.random.fork_rng(devices=[]):  # this net is only looked at
                other = build_net(task.out_channels(task.labels) + 1).state_dict()
            head = {name: value for name, value in own.items() if name in other and other[name].shape != value.shape}
            weights = {name: value for name, value in weights.items() if name not in head} | head
            classes = f"classes {', '.join(task.labels.names)} ({task.kind})"
            line += f"; the head ({', '.join(head)}) is new, for the {classes}"
            line += f" instead of {', '.join(stored.labels.names)} ({stored.kind})"
        if (wrong := misfit(own, weights)) is not None:
            name = type(task.net).__name__
            raise UserError(
                f"{stored.checkpoint}: its weights do not fit {name}: {wrong}; give the model settings and data.channels of"
                " that run"
            )
        load_state(task.net, weights)
    log.info(line)
