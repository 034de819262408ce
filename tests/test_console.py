"""Work that takes long is shown, as a bar on a terminal and as a line elsewhere; shorter work is not."""

import io
import logging
import math
import re
import sys
from collections.abc import Iterator
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from segsweep import console
from segsweep.callbacks import ConsoleProgress, TrainingLog
from segsweep.console import LongWork, bars, counted, draw, erase, explain, fitting, progress_bar, time_left
from segsweep.tasks import TimeBudget


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which tests set."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def passing(clock: list[float], seconds: float, number: int) -> Iterator[int]:
    for item in range(number):
        clock[0] += seconds
        yield item


def test_short_work_shows_nothing_and_long_work_a_line_a_minute(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert list(counted(passing(clock, 0.1, 15), "hashing", 15)) == list(range(15))
    assert caplog.messages == []
    assert list(counted(passing(clock, 1.0, 130), "hashing", 130)) == list(range(130))
    assert caplog.messages == [
        "hashing: 2 of 130 files, about 128 s left",
        "hashing: 62 of 130 files, about 68 s left",
        "hashing: 122 of 130 files, about 8 s left",
    ]
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def test_work_that_ends_as_it_becomes_long_shows_nothing(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    list(counted(passing(clock, 9.0, 1), "decoding", 1))
    assert caplog.messages == []


def test_a_terminal_gets_a_bar_that_goes_and_the_log_file_a_line(
    clock: list[float], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    # Handlers that commands of earlier tests left would report their closed streams to stderr.
    monkeypatch.setattr(logging, "raiseExceptions", False)
    for done in counted(passing(clock, 1.0, 5), "decoding images", 5):
        assert (console._Terminal.live is not None) == (done > 1)  # after two have taken two seconds
    assert console._Terminal.live is None
    assert "decoding images" in terminal.getvalue()
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.DEBUG, "decoding images: 2 of 5 files, about 3 s left")
    ]
    with bars(False):
        before = terminal.getvalue()
        list(counted(passing(clock, 1.0, 5), "decoding images", 5))
    assert terminal.getvalue() == before
    assert caplog.records[-1].levelno == logging.INFO


def test_a_drawn_bar_gets_a_second_row_and_stays(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    columns = (BarColumn(), TextColumn("{task.fields[numbers]}"))
    training = Progress(*columns, console=Console(file=Terminal(), force_terminal=True), auto_refresh=False)
    training.add_task("training", numbers="loss 0.1")
    draw(training)
    try:
        for done in counted(passing(clock, 1.0, 4), "validating", 4):
            training.refresh()
            assert [task.description for task in training.tasks] == ["training", "validating"][: 1 + (done > 1)]
        assert [task.description for task in training.tasks] == ["training"]
        with LongWork("validating", 9) as work:
            clock[0] += 3
            work.advance()
            assert len(training.tasks) == 2
        assert len(training.tasks) == 1
        assert not training.finished
        assert console._Terminal.live is training
    finally:
        erase(training)
    assert console._Terminal.live is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("has not produced any output (state: CANCELLED)\nError stream produced:\nthis job is timed-out.", "cancelled"),
        ("Job not requeued because: timed-out too many times.", "timeout_min"),
        ("has not produced any output (state: OUT_OF_MEMORY)", "has died"),
    ],
)
def test_a_job_that_submitit_lost_is_explained_by_its_state(text: str, word: str) -> None:
    line = explain(pytest.importorskip("submitit.core.utils").UncompletedJobError(text))
    assert line is not None
    assert word in line
    assert ("timeout_min" in line) == (word == "timeout_min")


@given(st.lists(st.text(st.characters(categories=["L"]), max_size=20), unique=True), st.integers(-5, 60), st.randoms())
def test_parts_are_kept_by_rank_as_long_as_they_fit(parts: list[str], width: int, random: Random) -> None:
    ranks = dict(zip(parts, random.sample(range(len(parts)), len(parts)), strict=True))
    line = fitting(ranks, width)
    kept = line.split(" · ") if line else []
    assert len(line) <= max(width, 0)
    assert kept == [part for part in parts if part in kept]
    for part in set(parts) - set(kept) - {""}:  # there was no room beside the parts that rank before it
        assert len(" · ".join([*(each for each in kept if ranks[each] < ranks[part]), part])) > width


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (61, "1:01"), (3599.7, "1:00:00"), (36061, "10:01:01")])
def test_the_time_that_is_left_is_labelled(seconds: float, text: str) -> None:
    assert time_left(seconds) == f"{text} left"


@pytest.mark.parametrize("steps", [100, 100_000, math.inf])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_line_of_a_training_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, width: int, steps: float) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    log = TrainingLog(objective="val/iou")
    log.latest, log.train_seconds, log.train_steps = {"train/iou": 0.5, "val/iou": 0.6}, 7000.0, 7
    timed = steps == math.inf
    progress = ConsoleProgress(log, "val/iou", budget=TimeBudget(1.5) if timed else None)
    done = 50 if timed else int(steps // 2)
    trainer = SimpleNamespace(is_global_zero=True, estimated_stepping_batches=steps, global_step=done)
    progress.on_train_start(trainer, None)
    progress._draw(trainer, 0.25)
    progress.on_exception(trainer, None, KeyboardInterrupt())
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).split("\r")[-1].rstrip("\n")
    assert len(last) <= width
    assert f"{done}/{'?' if timed else steps}" in last
    assert ("1:30 left" in last) == timed
    assert "val/iou 0.6000" in last
    assert ("train/iou 0.5000" in last) == (width >= 80)
    assert ("steps/s" in last) == (width >= 120)


@pytest.mark.parametrize("width", [60, 80])
def test_the_bar_of_other_work_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", str(width))
    bar = progress_bar()
    bar.add_task("images for batch-norm statistics", total=1000, completed=999)
    lines = "".join(segment.text for segment in bar.console.render(bar.get_renderable())).splitlines()
    assert ["999/1000" in line and len(line) <= width for line in lines] == [True]
