"""Puts a finished sweep into docs/results.md: `python docs/make_sweep.py SWEEP NAME`.

Writes docs/images/NAME_heatmap.png and NAME_curves.png, the verdict and the table of settings between the marks
`<!-- sweep NAME -->` and `<!-- end of sweep NAME -->` of docs/results.md, and the numbers to docs/measured/NAME_sweep.json.
"""

import json
import sys
from pathlib import Path

from segsweep import load_sweep, plots
from segsweep.errors import UserError
from segsweep.runs.files import write_json, write_text
from segsweep.sweeps.load import Sweep
from segsweep.sweeps.report_text import settings_table
from segsweep.sweeps.state import ENDED

DOCS = Path(__file__).parent
DPI = 100
"""The width of a page shows the letters of a picture of two panels at this resolution at about their own size."""


def numbers(sweep: Sweep) -> dict[str, object]:
    """The command, a row for each setting and each job, and the verdict, as JSON can hold them."""
    jobs = sweep.summary[[*sweep.axes, "status", "objective", "seconds"]]
    return {
        "command": sweep.record.overrides,
        "objective": sweep.record.objective,
        "verdict": sweep.comparison.sentences(),
        "settings": json.loads(sweep.comparison.table.to_json(orient="records", double_precision=15)),
        "jobs": json.loads(jobs.to_json(orient="records", double_precision=15)),
    }


def section(sweep: Sweep) -> str:
    """The verdict and the table of settings, in Markdown."""
    first, *others = sweep.comparison.sentences()
    header, rows = settings_table(sweep.comparison, details=True)
    table = [header, ["---"] * len(header), *rows]
    lines = [f"**{first}**", "", *(f"- {line}" for line in others), ""]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in table)]) + "\n"


def put_in(page: str, name: str, text: str) -> str:
    """The page with the text between the marks `<!-- name -->` and `<!-- end of name -->`.

    Raises:
        UserError: the page lacks the marks.
    """
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, found, rest = page.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise UserError(f"the page has no line {start.strip()!r} before {end.strip()!r}; add both.")
    return f"{before}{start}{text}{end}{after}"


def main(folder: str, name: str, docs: Path = DOCS) -> None:
    """Writes pictures, numbers and page; nothing unless every job has ended and the page has the marks."""
    sweep = load_sweep(folder)
    if waiting := [status for status in sweep.summary["status"] if status not in ENDED]:
        raise UserError(
            f"{folder}: {len(waiting)} of {len(sweep.summary)} jobs have not ended; run the sweep to its end."
        )
    page = docs / "results.md"
    text = put_in(page.read_text(encoding="utf-8"), f"sweep {name}", section(sweep))
    for kind, figure in (("heatmap", sweep.heatmap()), ("curves", sweep.curves())):
        plots.save(figure, docs / f"images/{name}_{kind}.png", DPI)
    write_json(docs / f"measured/{name}_sweep.json", numbers(sweep))
    write_text(page, text)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/make_sweep.py SWEEP NAME")
    try:
        main(sys.argv[1], sys.argv[2])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
