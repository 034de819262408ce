"""Repeats the trainings of the two documents and writes docs/replication.md.

python -m replication run [--only STUDY,STUDY] [--data-root PATH] [OVERRIDE ...]
python -m replication mistakes
python -m replication sigma [--figure FILE]
python -m replication report [FOLDER ...] [--data-root PATH]
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from replication import ROOT
from replication.mistakes import EXPERIMENTS, REPEATED, REPEATS
from replication.page import PAGE, SEEDS, page
from replication.published import STUDIES
from replication.results import RESULTS, collect, read_results, write_results
from replication.runs import FinishedRuns
from replication.widths import FIGURE, draw_widths, measure_widths, widths_table
from segsweep.errors import UserError
from segsweep.runs.files import write_text

PICTURES = PAGE.parent / "images/replication"


def run(only: Sequence[str], data_root: Path | None, more: Sequence[str]) -> int:
    """Trains every study as a named sweep, which resumes if it was stopped; returns the exit code."""
    if unknown := [name for name in only if name not in STUDIES]:
        raise UserError(f"--only {unknown[0]}: no such study; there are {', '.join(STUDIES)}")
    code = 0
    for name, study in STUDIES.items():
        if only and name not in only:
            continue
        if study.needs_folder and data_root is None:
            print(f"{name}: left out, it needs --data-root")
            continue
        root = [f"data.root={data_root}"] if study.needs_folder else []
        typed = ["-m", *study.command, *root, SEEDS, f"name=replication_{name}", *more]
        print(f"{name}: python train.py {' '.join(typed)}", flush=True)
        code = subprocess.run([sys.executable, str(ROOT / "train.py"), *typed]).returncode or code
        if not 0 <= code <= 128:  # stopped or killed by a signal
            return 128 - code if code < 0 else code
    return code


def mistakes() -> int:
    """Runs the experiments on the documents' mistakes and stores their numbers; returns the exit code."""
    for name, experiment in EXPERIMENTS.items():
        print(name, flush=True)
        started = time.perf_counter()
        each = [experiment(seed) for seed in (range(REPEATS) if name in REPEATED else range(1))]
        results = read_results()  # read late: a report may have been written during the experiment
        results["mistakes"][name] = {key: [found[key] for found in each] for key in each[0]}
        results.setdefault("seconds", {})[name] = round(time.perf_counter() - started, 1)
        for key, values in results["mistakes"][name].items():
            print(f"    {key}: {', '.join(f'{value:.6g}' for value in values)}")
        write_results(results)
    return 0


def sigma(figure: Path) -> int:
    """Measures the pairs of widths, stores and prints the numbers, and draws the pairs; returns the exit code."""
    results = read_results()
    results["widths"] = measure_widths()
    write_results(results)
    print("\n".join(widths_table(results)))
    print(draw_widths(figure))
    return 0


def report(folders: Sequence[Path], data_root: Path | None) -> int:
    """Collects finished runs and writes numbers, figures and page; returns the exit code."""
    from replication.figures import draw

    results, found = read_results(), FinishedRuns(folders)
    for line in collect(found, data_root, results):
        print(line)
    write_results(results)
    draw(results, PICTURES, found, data_root)
    write_text(PAGE, page(results, PICTURES))
    print(f"{RESULTS} and {PAGE} are written")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code; `arguments` default to those of the process."""
    parser = argparse.ArgumentParser(
        prog="python -m replication", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("run", help="train every study as a sweep, which resumes if it was stopped")
    train.add_argument("--only", default="", metavar="STUDY,STUDY", help="train only these studies")
    train.add_argument("more", nargs="*", metavar="OVERRIDE", help="for train.py, such as hydra/launcher=joblib")
    commands.add_parser("mistakes", help="run the experiments on the documents' mistakes (some minutes)")
    widths = commands.add_parser("sigma", help="measure and draw the pairs of widths (half a minute)")
    widths.add_argument("--figure", type=Path, default=FIGURE, metavar="FILE", help=f"draw to FILE (default {FIGURE})")
    write = commands.add_parser("report", help="collect finished runs and write the page")
    write.add_argument("folders", nargs="*", type=Path, default=[Path("multirun")], metavar="FOLDER")
    for each in (train, write):
        each.add_argument(
            "--data-root", type=Path, help="folder of the aerial images; without it their studies are left out"
        )
    options = parser.parse_args(arguments)
    try:
        if options.command == "run":
            return run([name for name in options.only.split(",") if name], options.data_root, options.more)
        if options.command == "mistakes":
            return mistakes()
        if options.command == "sigma":
            return sigma(options.figure)
        return report(options.folders, options.data_root)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
