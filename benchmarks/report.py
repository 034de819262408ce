"""Prints the table of docs/benchmarks.md from the files that the benchmarks wrote with --json.

    python benchmarks/report.py results/*.json

The Markdown has the machine, then a row for each comparison.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from measure import Row


def table(results: list[dict[str, Any]]) -> str:
    """Markdown of several results; those of the same machine and day share a heading."""
    lines: list[str] = []
    machine: dict[str, str] | None = None
    for result in results:
        rows = [row for row in result.get("rows", ()) if "what" in row]
        if not rows:  # benchmarks without ratios have their own pages
            continue
        if result["environment"] != machine:
            machine = result["environment"]
            lines += ["", ", ".join(f"{key} {value}" for key, value in machine.items()), ""]
            lines += ["| what | against | ours | baseline | ratio (least to most) | target | met |"]
            lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
        lines += [_line(content) for content in rows]
    return "\n".join(lines[1:])


def _line(content: dict[str, Any]) -> str:
    known = {key: content[key] for key in ("what", "against", "ours", "baseline", "sense", "target", "unit")}
    row = Row(**known)
    bound = "≥" if row.sense == "speedup" else "≤"
    target, met = ("", "") if row.target is None else (f"{bound} {row.target:,g}", "yes" if row.met else "no")
    return "| " + " | ".join([row.what, row.against, *row.cells(), target, met]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, help="files that benchmarks wrote with --json")
    options = parser.parse_args()
    print(table([json.loads(file.read_text(encoding="utf-8")) for file in options.files]))


if __name__ == "__main__":
    main()
