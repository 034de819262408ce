"""Kills sweeps at random moments, continues them, and compares each with one that was never killed.

    python benchmarks/kills.py --launcher basic --json docs/measured/kills.json --page docs/safety.md

Trains one tiny sweep without interruption. Then starts the same command in another folder, sends SIGKILL, SIGTERM or SIGINT
at a random moment, looks at what is left, and starts the command again, until the sweep is complete. Every difference from
the first sweep is a finding. So are an unreadable file, a lost step, a traceback, a wrong exit code and a process that does
not end. The same command adds to FILE until it has `--kills` kills of the launcher; `--only 7` repeats those of sweep 7.
"""

import argparse
import contextlib
import json
import logging
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from measure import CONF, environment, pick_device, put_in
from same_runs import assert_same_run

from segsweep.errors import UserError
from segsweep.runs import read_metrics
from segsweep.runs.files import write_json
from segsweep.sweeps.state import SweepDirectory

SETTINGS = [
    "debug=fast", "data.image_size=32", "trainer=cpu", "trainer.progress_bar=false", "trainer.threads=1",
    "callbacks.graph=null", "callbacks.panel=null", "callbacks.confusion=null", "callbacks.last_checkpoint.every_n_steps=5",
    "data.limit_samples=48", "data.val_size=2", "data.test_size=2", "trainer.max_steps=240", "trainer.log_every_n_steps=3",
    "optim=sgd,adam", "lr=0.001,0.01", "name=kills",
]  # fmt: skip
LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra/launcher=submitit_local"],
}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TARGETS = ("main", "group", "worker")
WORKERS = ("popen_loky", "submitit.core._submit")
"""Parts of the command lines of processes that run jobs."""
PATIENCE = 60.0
"""Seconds that the processes of a stopped sweep may take to end."""

Finding = tuple[str, str]
"""The kind of a fault, and its evidence."""


@dataclass
class Kill:
    """A signal to a running sweep.

    Args:
        signal: name of the signal.
        target: "main", the process of the command; "group", its process group; or "worker", the process of a job.
        after: seconds from the start of the command to the signal.
        early: whether the command did not handle signals yet, or not any more.
        code: exit code of the command, as Python gives it.
        steps: steps in the checkpoints that this command added.
        ended: seconds from the signal to the end of the last process.
        left: how many processes had not ended in time, and were killed.
        sweep: number of the sweep; its kills follow from it and the seed.
    """

    signal: str
    target: str
    after: float
    early: bool
    code: int
    steps: int
    ended: float
    left: int
    sweep: int = 0


def session(leader: int) -> dict[int, str]:
    """The running processes of a command that was started in a session of its own: pid and command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, its_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == leader and state != "Z":
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it has just ended
    return found


def handles_signals(pid: int) -> bool:
    """Whether a command has its own handler of SIGTERM: from the import of segsweep to the end of Python."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        caught = next((int(line.split()[1], 16) for line in lines if line.startswith("SigCgt")), 0)
        return bool(caught >> (signal.SIGTERM - 1) & 1)
    return False


@contextlib.contextmanager
def started(folder: Path, launcher: str) -> "Iterator[subprocess.Popen[bytes]]":
    """The command of the sweep, with its output in `folder`; whatever still runs in the end is killed."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(CONF.parent / "train.py"), "-m", *SETTINGS, *LAUNCHERS[launcher]]
    # Files, because a worker that outlives the command would hold a pipe open.
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=out,
            stderr=err,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    try:
        yield process
    finally:
        end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    for pid in session(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def wait(true: Callable[[], bool], seconds: float) -> bool:
    """Waits until something is true; returns False if it is not in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def strike(
    process: "subprocess.Popen[bytes]", after: float, signum: signal.Signals, target: str, place: float, patience: float
) -> Kill | None:
    """Sends the signal in `after` seconds, and waits until all processes have ended; None if the command ended before.

    Args:
        target: see `Kill`; the command itself if it has no worker.
        place: chooses the worker; from 0 to 1.
        patience: seconds that the command may take to end after the signal.
    """
    began = time.monotonic()
    if wait(lambda: process.poll() is not None, after):
        return None
    workers = [pid for pid, line in session(process.pid).items() if any(name in line for name in WORKERS)]
    if target == "worker" and not workers:
        target = "main"
    early = not handles_signals(process.pid)
    sent = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        if target == "group":
            os.killpg(process.pid, signum)
        else:
            os.kill(sorted(workers)[int(place * len(workers))] if target == "worker" else process.pid, signum)
    if wait(lambda: process.poll() is not None, patience):
        wait(lambda: not session(process.pid), PATIENCE)
    ended, left = time.monotonic() - sent, len(session(process.pid))
    end(process)
    return Kill(signum.name, target, round(sent - began, 3), early, process.returncode, 0, round(ended, 3), left)


def faults_of_end(kill: Kill, errors: str, complete: bool) -> Iterator[Finding]:
    """What is wrong with how a command ended.

    Args:
        errors: its stderr.
        complete: whether all jobs of the sweep are completed now.
    """
    signum = signal.Signals[kill.signal]
    # A killed command cannot end its workers: they end when they see that it is gone. `Kill.left` counts others.
    if kill.left and not (signum == signal.SIGKILL and kill.target == "main"):
        yield "process left", f"{kill.left} processes ran {PATIENCE:g} s after {kill.signal} to {kill.target}"
    # Python itself ends by the signal before it runs any code of segsweep, and after all of it.
    if "Traceback" in errors and not kill.early:
        yield "traceback", errors[-2000:]
    if kill.target == "worker":
        expected = {0} if complete else {1}
    elif signum == signal.SIGKILL:
        expected = {-signum}
    elif kill.early:
        expected = {-signum, 128 + signum, *([0] if complete else [])}
        if "Fatal Python error: init_" in errors:  # Python was interrupted while it started
            expected.add(1)
    else:
        expected = {128 + signum, *([0] if complete and kill.ended < 5 else [])}
        if complete:
            expected.add(-signum)
    if kill.code not in expected:
        yield "exit code", f"{kill.code}, not {' or '.join(map(str, sorted(expected)))}: {errors[-2000:]}"
    if kill.code == 128 + signum and "stopped by" not in errors:
        yield "no last line", errors[-2000:]


def faults_of_files(sweep: Path, known: bool = True) -> Iterator[Finding]:
    """Files of a stopped or completed sweep that cannot be read.

    Args:
        known: whether there must be a sweep.json.
    """
    if known or (sweep / "sweep.json").exists():
        try:
            SweepDirectory(sweep).read()
        except (UserError, OSError) as error:
            yield "sweep.json", str(error)
    readers: dict[str, Callable[[Path], object]] = {
        "*.json": lambda path: json.loads(path.read_text(encoding="utf-8")),
        "*.ckpt": lambda path: torch.load(path, weights_only=True),
        "metrics.csv": read_metrics, "summary.csv": pd.read_csv,
    }  # fmt: skip
    for pattern, read in readers.items():
        for path in sorted(sweep.rglob(pattern)):
            try:
                read(path)
            except Exception as error:
                yield "unreadable file", f"{path.relative_to(sweep)}: {type(error).__name__}: {error}"


def progress(sweep: Path) -> dict[str, int]:
    """Steps in last.ckpt of each job, by its directory."""
    steps = {}
    for path in sweep.glob("*/checkpoints/last.ckpt"):
        with contextlib.suppress(Exception):  # `faults_of_files` names it
            steps[path.parent.parent.name] = int(torch.load(path, weights_only=True)["global_step"])
    return steps


def completed(sweep: Path) -> dict[str, bytes]:
    """run.json of each completed job, by its directory."""
    found = {}
    for path in sweep.glob("*/run.json"):
        with contextlib.suppress(ValueError):
            if json.loads(content := path.read_bytes())["status"] == "completed":
                found[path.parent.name] = content
    return found


def differences(whole: Path, other: Path) -> Iterator[Finding]:
    """What differs between two completed sweeps of the same command, beside times."""

    def content(sweep: Path) -> dict[str, Any]:
        return json.loads((sweep / "sweep.json").read_text(encoding="utf-8"))

    def files(sweep: Path) -> set[str]:
        # The name of an event file has its time; submitit keeps the output of every process.
        names = {path.relative_to(sweep).as_posix() for path in sweep.rglob("*") if path.is_file()}
        return {name for name in names if ".tfevents." not in name and not name.startswith(".submitit/")}

    yield from faults_of_files(other)
    if litter := sorted(path.relative_to(other).as_posix() for path in other.rglob("*.tmp")):
        yield "litter", ", ".join(litter)
    elif files(whole) != files(other):
        yield "other files", ", ".join(sorted(files(whole) ^ files(other)))
    try:
        jobs, theirs = content(whole)["jobs"], content(other)["jobs"]
    except (OSError, ValueError, LookupError):
        return  # `faults_of_files` has said so
    if unfinished := [job["directory"] for job in theirs if job["status"] != "completed"]:
        yield "job not completed", ", ".join(unfinished)
    if jobs != theirs:
        yield "sweep.json", f"other jobs: {theirs}"
    for job in jobs:
        try:
            assert_same_run(whole / job["directory"], other / job["directory"])
        except Exception as error:  # also files that are missing or damaged
            yield "other result", f"{job['directory']}: {error}"[:2000]
    try:
        table, theirs = (pd.read_csv(sweep / "summary.csv").drop(columns="seconds") for sweep in (whole, other))
        pd.testing.assert_frame_equal(table, theirs, check_exact=True)
    except Exception as error:
        yield "summary.csv", str(error)[:2000]


@dataclass
class Campaign:
    """What all killed sweeps of a launcher share.

    Args:
        launcher: a key of `LAUNCHERS`.
        seed: seed of all moments, signals and targets.
        whole: the sweep that was never killed.
        seconds: how long it took.
        folder: an empty folder for the others.
    """

    launcher: str
    seed: int
    whole: Path
    seconds: float
    folder: Path

    def sweep(self, number: int) -> tuple[list[Kill], list[dict[str, Any]]]:
        """Kills a sweep again and again until it is complete. Returns the kills and the findings."""
        rng = random.Random(f"{self.seed} {self.launcher} {number}")
        place = self.folder / str(number)
        sweep = place / "multirun" / self.whole.name
        kills: list[Kill] = []
        findings: list[dict[str, Any]] = []
        steps: dict[str, int] = {}
        done: dict[str, bytes] = {}

        def note(found: Iterator[Finding], **where: Any) -> None:
            for kind, text in found:
                findings.append({"kind": kind, "sweep": number, "command": len(kills), **where, "text": text})
                print(f"FINDING {kind}, sweep {number}, kill {len(kills)}: {text}", flush=True)

        while True:
            # A worker ignores Ctrl-C, which reaches every process of a terminal.
            signum, target = rng.choice(SIGNALS), rng.choice(TARGETS[:2] if self.launcher == "basic" else TARGETS)
            signum = signal.SIGTERM if target == "worker" and signum == signal.SIGINT else signum
            known = (sweep / "sweep.json").exists()
            with started(place, self.launcher) as process:
                after = rng.uniform(0, self.seconds)
                kill = strike(process, after, signum, target, rng.random(), PATIENCE + 3 * self.seconds)
                code = process.returncode
            errors = (place / "err").read_text(encoding="utf-8", errors="replace")
            had, steps = steps, progress(sweep)
            before, done = done, completed(sweep)
            complete = len(done) == len(completed(self.whole))
            if kill is None:
                if code != 0 or "Traceback" in errors:
                    note(iter([("not continued", f"exit code {code}: {errors[-2000:]}")]))
                note(differences(self.whole, sweep))
                return kills, findings
            kill.steps, kill.sweep = sum(steps.values()) - sum(had.values()), number
            kills.append(kill)
            where = {"signal": kill.signal, "target": kill.target, "after": kill.after}
            note(faults_of_end(kill, errors, complete), **where)
            note(faults_of_files(sweep, known), **where)
            lost = [name for name, number in had.items() if steps.get(name, 0) < number]
            changed = [name for name, text in before.items() if done.get(name) != text]
            note((("steps lost", f"{name}: {had[name]}, now {steps.get(name)}") for name in lost), **where)
            note((("completed job changed", name) for name in changed), **where)
            print(
                f"sweep {number}, kill {len(kills)}: {kill.signal} to {kill.target} after {kill.after:.1f} s, "
                f"code {kill.code}, ended in {kill.ended:.1f} s, {kill.steps} steps more", flush=True,
            )  # fmt: skip


def reference(folder: Path, launcher: str) -> tuple[Path, float]:
    """Trains the sweep without interruption. Returns its directory, and its seconds."""
    began = time.monotonic()
    with started(folder, launcher) as process:
        code = process.wait()
    seconds = time.monotonic() - began
    if code != 0:
        raise SystemExit(f"the sweep that nobody killed ended with {code}: {(folder / 'err').read_text()[-2000:]}")
    return folder / "multirun/kills", seconds


def table(content: dict[str, Any]) -> str:
    """Markdown: a row for each launcher, and the findings."""
    lines = [
        "| launcher | kills | of these SIGKILL, SIGTERM, SIGINT | to the command, its group, one worker | sweeps completed "
        "| steps saved between two kills: least, median, most | seconds to the end of all processes: median, most "
        "| processes that stayed | findings |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for launcher, entry in content["launchers"].items():
        kills, findings = entry["kills"], Counter(finding["kind"] for finding in entry["findings"])
        signals, targets = (Counter(kill[name] for kill in kills) for name in ("signal", "target"))
        steps, ended = [kill["steps"] for kill in kills], [kill["ended"] for kill in kills]
        cells = [
            launcher, f"{len(kills):,}", ", ".join(str(signals[signum.name]) for signum in SIGNALS),
            ", ".join(str(targets[target]) for target in TARGETS), f"{entry['sweeps']:,}",
            f"{min(steps)}, {statistics.median(steps):g}, {max(steps)}" if kills else "",
            f"{statistics.median(ended):.1f}, {max(ended):.1f}" if kills else "", str(sum(kill["left"] for kill in kills)),
            ", ".join(f"{number} {kind}" for kind, number in findings.items()) or "none",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    machines = {", ".join(f"{key} {value}" for key, value in machine.items()): None
                for entry in content["launchers"].values() for machine in entry["environments"]}  # fmt: skip
    return "\n".join([*machines, "", *lines]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="until there are so many of this launcher (default 200)")
    parser.add_argument("--launcher", choices=LAUNCHERS, default="basic")
    parser.add_argument("--seed", type=int, default=0, help="of the moments, signals and targets")
    parser.add_argument("--only", type=int, metavar="N", help="repeat the kills of sweep N, and write nothing")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the results to FILE, or add to those there"
    )
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="also put the table into this page, between its marks"
    )
    options = parser.parse_args()
    # Started with & by a shell, this process ignores Ctrl-C, and its sweeps would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns at every continued training
    content: dict[str, Any] = {"benchmark": "kills", "rows": [], "launchers": {}}
    if options.json and options.json.exists():
        content = json.loads(options.json.read_text(encoding="utf-8"))
    entry = content["launchers"].setdefault(
        options.launcher, {"seed": options.seed, "environments": [], "sweeps": 0, "kills": [], "findings": []}
    )
    if entry["seed"] != options.seed:
        raise SystemExit(f"--seed {options.seed}: {options.json} has kills of --seed {entry['seed']}; give that")
    if options.only is not None or len(entry["kills"]) < options.kills:
        if (machine := environment(pick_device("cpu"))) not in entry["environments"]:
            entry["environments"].append(machine)
        with tempfile.TemporaryDirectory() as folder:
            whole, seconds = reference(Path(folder, "whole"), options.launcher)
            print(f"a sweep that nobody kills takes {seconds:.0f} s", flush=True)
            campaign = Campaign(options.launcher, options.seed, whole, seconds, Path(folder))
            if options.only is not None:
                campaign.sweep(options.only)
                return
            while len(entry["kills"]) < options.kills:
                kills, findings = campaign.sweep(entry["sweeps"])
                entry["kills"] += [vars(kill) for kill in kills]
                entry["findings"] += findings
                entry["sweeps"] += 1
                if options.json:
                    write_json(options.json, content)
    print(table(content))
    if options.page:
        put_in(options.page, "kills", table(content))


if __name__ == "__main__":
    main()
