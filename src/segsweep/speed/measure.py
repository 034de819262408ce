"""The fastest settings of this machine: times training steps of one configuration at combinations of speed settings.

The first stage combines precision, memory format and compilation. The second takes the best of these, and changes the
threads and the number of jobs at once on a CPU, or the batch size on a GPU.
"""

import dataclasses
import itertools
import logging
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from segsweep.errors import UserError
from segsweep.fingerprint import typed as as_typed
from segsweep.image_files.limits import available_cores
from segsweep.instantiate import build, to_plain
from segsweep.root_settings import check_root
from segsweep.runs import versions
from segsweep.runs.files import write_json
from segsweep.speed.bench import Bench, Combination, GivenFailedError, Row
from segsweep.trainer_settings import TrainerSettings

log = logging.getLogger(__name__)

WORTH = 1.1
"""Jobs at once must make this many times as many steps a second as fewer jobs."""
_MEMORY_FRACTION = 0.75
"""Jobs at once may take this part of the machine's memory."""
_BUSY = 0.5
"""Load of each core above which the machine counts as busy."""


@dataclass(kw_only=True)
class Report:
    """The result of `measure_speed`.

    Args:
        device: "cpu" or "cuda".
        given, reference: the settings as given, and those whose loss is compared with: float32 without channels_last and
            compilation.
        rows: every combination once.
        chosen: the combination to recommend; the given one if no other is really faster.
        sweep: the number of jobs at once that gains most for a sweep, and how many times as many steps a second they make;
            None if they gain too little, or on a GPU.
        compared_steps: number of first steps whose losses were compared.
        remarks: what was left out, and why.
        arguments: what to type after `python train.py`.
    """

    device: str
    given: Combination
    reference: Combination
    rows: list[Row]
    chosen: Row
    sweep: tuple[int, float] | None
    compared_steps: int
    remarks: list[str]
    arguments: list[str]
    seconds: float

    def write(self, path: Path) -> None:
        rows = [
            dataclasses.asdict(row)
            | {"combination": row.combination.settings | {"jobs": row.combination.jobs}}
            | {"steps_per_second": row.speed, "ratio": row.ratio or None}
            for row in self.rows
        ]
        content = {
            "device": torch.cuda.get_device_name() if self.device == "cuda" else f"CPU ({available_cores()} cores)",
            "versions": versions(),
            "seconds": self.seconds,
            "given": self.given.settings,
            "reference": self.reference.settings,
            "chosen": self.chosen.combination.settings,
            "jobs_at_once": None if self.sweep is None else {"jobs": self.sweep[0], "gain": self.sweep[1]},
            "arguments": self.arguments,
            "compared_steps": self.compared_steps,
            "remarks": self.remarks,
            "rows": rows,
        }
        write_json(path, content)


def measure_speed(config: DictConfig, directory: Path, overrides: Sequence[str] = ()) -> Report:
    """Finds the fastest settings for a configuration on this machine, and writes speed.json. Trains no run.

    Args:
        config: composed from conf/train.yaml.
        directory: where speed.json goes.
        overrides: what the user typed.

    Raises:
        UserError: a setting is wrong, the training needs several devices, or the given settings cannot be trained.
    """
    started = time.perf_counter()
    settings = to_plain(config)
    check_root(settings)
    trainer: TrainerSettings = build(settings["trainer"], "trainer")
    if trainer.processes > 1:
        raise UserError(f"trainer.devices={trainer.devices}: debug=speed measures one device; set trainer.devices=1")
    given = Combination(
        precision=trainer.precision,
        channels_last=trainer.channels_last,
        compile=trainer.compile,
        threads=trainer.threads or torch.get_num_threads(),
        batch_size=settings["data"]["batch_size"],
    )
    remarks = busy()
    sweep = None
    with Bench(settings, directory, given) as bench:
        try:
            try_formats(bench, formats(bench, trainer, remarks))
            if trainer.device_type == "cuda":
                try_batch_sizes(bench)
            else:
                try_threads(bench)
                sweep = try_jobs(bench, remarks)
        except GivenFailedError as error:
            remarks.append(str(error))
        chosen = bench.best()
    report = Report(
        device=trainer.device_type,
        given=given,
        reference=bench.reference,
        rows=list(bench.rows.values()),
        chosen=chosen,
        sweep=sweep,
        compared_steps=bench.compared_steps,
        remarks=remarks,
        arguments=arguments(overrides, chosen.combination.changes(given)),
        seconds=time.perf_counter() - started,
    )
    report.write(directory / "speed.json")
    return report


def formats(bench: Bench, trainer: TrainerSettings, remarks: list[str]) -> list[Combination]:
    """All combinations of precision, memory format and compilation that this machine supports, the given one first.

    Args:
        bench: knows the given settings.
        trainer: the trainer settings as given.
        remarks: gets a line if this machine cannot compile.
    """
    compilations = [False, True]
    try:
        dataclasses.replace(trainer, compile=True)
    except ValueError as error:
        compilations = [False]
        remarks.append(f"not measured: trainer.{error}")
    precisions = ["32-true", "bf16-mixed", *(["16-mixed"] if trainer.device_type == "cuda" else [])]
    found = [
        dataclasses.replace(bench.given, precision=precision, channels_last=channels_last, compile=compiled)
        for compiled, channels_last, precision in itertools.product(compilations, (True, False), precisions)
    ]
    return list(dict.fromkeys([bench.given, bench.reference, *found]))


def try_formats(bench: Bench, combinations: Sequence[Combination]) -> None:
    """The first stage. Only the given settings and the best stay."""
    log.info("%s combinations of precision, memory format and compilation", len(combinations))
    for combination in combinations:
        eager = bench.rows.get(dataclasses.replace(combination, compile=False))
        if eager is not None and eager.note is not None and combination != bench.given:
            bench.rows[combination] = Row(combination=combination, note="not tried: too slow before it is compiled")
        else:
            bench.start(combination)
    bench.rounds(combinations)
    bench.keep(bench.best().combination)


def try_threads(bench: Bench) -> None:
    """The second stage on a CPU: one thread, half the cores and all cores. Only the given settings and the best stay."""
    best, cores = bench.best().combination, available_cores()
    others = [dataclasses.replace(best, threads=threads) for threads in sorted({1, max(1, cores // 2), cores})]
    others = [combination for combination in others if combination not in bench.rows]
    for combination in others:
        bench.start(combination)
    bench.rounds([best, *others])
    bench.keep(bench.best().combination)


def try_jobs(bench: Bench, remarks: list[str]) -> tuple[int, float] | None:
    """2, 4, 8 ... jobs at once, which share the cores as joblib divides them, for as long as each gains enough.

    Returns:
        How many jobs make the most steps a second, and how many times as many as the best single training; None if they
        gain too little.
    """
    cores, single = available_cores(), bench.best()
    best, jobs = (1, 1.0), 2
    while jobs <= cores:
        memory = jobs * (single.peak_bytes or 0)
        if memory > _MEMORY_FRACTION * physical_memory():
            remarks.append(f"not measured: {jobs} jobs at once, which take about {memory / 2**30:.1f} GiB of memory")
            break
        row = bench.start(dataclasses.replace(single.combination, threads=cores // jobs, jobs=jobs))
        if row.note is not None:
            break
        bench.rounds([single.combination, row.combination])
        bench.keep(single.combination)
        if not row.speeds or len(single.speeds) < len(row.speeds):  # one of them failed
            break
        pairs = zip(row.speeds, single.speeds[-len(row.speeds) :], strict=True)  # of the same rounds
        gain = statistics.median(together / alone for together, alone in pairs)
        if gain < WORTH * best[1]:
            break
        best, jobs = (jobs, gain), 2 * jobs
    return best if best[0] > 1 else None


def try_batch_sizes(bench: Bench) -> None:
    """The second stage on a GPU: 2, 4 and 8 times the batch size, for as long as memory and training samples suffice."""
    best, tried = bench.best().combination, []
    for factor in (2, 4, 8):
        row = bench.start(dataclasses.replace(best, batch_size=factor * best.batch_size))
        if row.first_speed is None:
            break
        tried.append(row.combination)
    bench.rounds([best, *tried])


def busy() -> list[str]:
    """A line if other programs use this machine, as its load over the last minute tells."""
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, available_cores()
    if load < _BUSY * cores:
        return []
    line = (
        f"this machine is busy (load {load:.1f} on {cores} cores): the numbers are uncertain; measure when it is idle"
    )
    log.warning(line)
    return [line]


def physical_memory() -> float:
    """Bytes of this machine's memory; infinite if the system does not say."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # Windows
        return float("inf")


def arguments(overrides: Sequence[str], changes: dict[str, Any]) -> list[str]:
    """The overrides of a training with changed settings: those that were typed, without debug= and what is changed."""
    typed = OverridesParser.create().parse_overrides(list(overrides))
    kept = [str(each.input_line) for each in typed if each.key_or_group not in {"debug", *changes}]
    return [*kept, *(f"{key}={as_typed(value)}" for key, value in changes.items())]
