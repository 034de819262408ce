"""The report of a sweep: writes summary.csv, summary.md, pictures and TensorBoard's HPARAMS, and prints the result."""

import re
import shlex
import shutil

from rich.console import Console
from rich.text import Text

from segsweep.absent_classes import MARK, rests_on
from segsweep.console import evaluate_command, relative
from segsweep.errors import shown
from segsweep.runs.files import write_text, write_whole
from segsweep.sweeps.figures import draw
from segsweep.sweeps.hparams import write_hparams
from segsweep.sweeps.looks import look_now
from segsweep.sweeps.next_steps import next_training
from segsweep.sweeps.report_text import Table, failure_lines, final_trainings, jobs_table, settings_table
from segsweep.sweeps.results import Results
from segsweep.sweeps.state import SweepDirectory

_MOST_ROWS = 30  # of a printed table
_DISPENSABLE = ("seconds", "test/loss", "test/iou", "n", "± std", "difference", "test/iou ± std")
"""Columns to leave out, in this order, until the table fits the terminal."""


def write_report(sweep: SweepDirectory) -> Results:
    """Reads every run.json once, and writes sweep.json, tables, pictures and HPARAMS from these.

    Raises:
        UserError: there is no sweep, or its sweep.json is damaged.
    """
    results = Results.read(sweep, look_now)
    look, compared = results.look, results.compared
    tested = compared is not None and any(part.compared > 1 and part.replicates > 1 for part in compared.rankings)
    # A ranking without tests rules nothing out, so it is no look.
    sweep.write_statuses(results.record.jobs, look.to_dict() if look is not None and tested else None)
    draw(results)
    write_tables(results)  # after the pictures, because summary.md shows those that exist
    write_hparams(results)
    return results


def write_tables(results: Results) -> None:
    """Writes summary.csv, settings.csv and summary.md."""
    sweep, compared = results.sweep, results.compared
    write_whole(sweep.summary_csv, lambda path: results.table.to_csv(path, index=False))
    if compared is not None:
        write_whole(sweep.settings_csv, lambda path: compared.table.to_csv(path, index=False))
    write_text(sweep.summary_md, markdown(results))


def markdown(results: Results) -> str:
    """The content of summary.md; shows the pictures that exist."""
    sweep, record, table, compared = results.sweep, results.record, results.table, results.compared
    counts = ", ".join(f"{number} {status}" for status, number in table["status"].value_counts().items())
    better = "the higher the better" if record.mode == "max" else "the lower the better"
    lines = [f"# {record.name or sweep.path.name}", "", f"    {record.program} -m {shlex.join(record.overrides)}", ""]
    lines += [f"{len(table)} jobs: {counts}. Objective: {record.label}, {better}.", ""]
    if absent := results.absence_lines:
        lines += [*(f"\\{MARK.strip()} {line}." for line in absent), ""]
    if compared is not None:
        first, *others = compared.sentences()
        lines += [f"**{first}**", "", *(f"- {line}" for line in others), ""]
    if final := final_trainings(record, table):
        lines += [" ".join(final), ""]
    following = next_training(results)
    if following is not None and following.why:
        lines += [following.why, ""]
    if (best := results.best) is not None:
        checkpoint = table.set_index("directory")["checkpoint"][best]
        lines += [f"The run to take: `{best}`" + (f" (`{checkpoint}`)." if checkpoint else "."), ""]
    for path in (sweep.heatmap, sweep.curves):
        lines += [f"![{path.stem}]({path.name})", ""] if path.exists() else []

    def add_table(title: str, content: Table) -> None:
        header, rows = marked(content, results)
        escaped = [[cell.replace("|", "\\|") for cell in row] for row in [header, ["---"] * len(header), *rows]]
        lines.extend([f"## {title}", "", *("| " + " | ".join(row) + " |" for row in escaped), ""])

    if compared is not None and results.has_replicates:
        add_table("Settings", settings_table(compared, details=True))
    if failed := failure_lines(record, table):
        lines += ["## Failed", "", *(f"- {line}" for line in failed), ""]
    if unreadable := results.unreadable.values():
        lines += ["## Without curves", "", *(f"- {line}" for line in unreadable), ""]
    add_table("Jobs", jobs_table(record, table, details=True))
    return "\n".join(map(shown, lines)).rstrip() + "\n"


def marked(content: Table, results: Results) -> Table:
    """Marks the objective in the table's header if it leaves out a class that val lacks."""
    header, rows = content
    record = results.record
    absent = [each for classes in results.absent.values() for each in classes]
    mark = MARK if rests_on(record.objective["name"].removeprefix("val/"), absent) else ""
    return [cell + mark if cell == record.label else cell for cell in header], rows


def print_report(results: Results) -> None:
    """Prints the result of a sweep, where its files are, and the commands to type next."""
    console = Console(soft_wrap=True)
    for line in report_lines(results):
        console.print(line, highlight=False)
    sweep, following = results.sweep, next_training(results)
    if following is not None and following.why:
        console.print(following.why, highlight=False, markup=False)
    place = relative(sweep.path)
    files = (sweep.summary_md, sweep.summary_csv, sweep.settings_csv, sweep.curves, sweep.heatmap)
    print(f"Everything is in {place}: {', '.join(path.name for path in files if path.exists())}")
    print("Next:")
    print(f"  tensorboard --host localhost --logdir {shlex.quote(str(place))}")
    if (best := results.best) is not None:
        job = results.record.job_at(best)
        tests = job is not None and bool(job.settings.get("trainer.test"))
        print(f"  {evaluate_command(place / best, results.runs[best].metrics, tests)}")
    if following is not None and following.command is not None:
        print(f"  {following.command}")


def report_lines(results: Results, width: int | None = None) -> list[Text]:
    """The result as lines: a table of settings, or of jobs if no setting has replicates, failed jobs, and the verdict.

    Args:
        results: of the sweep.
        width: of the terminal, in characters; None asks the terminal.
    """
    width = shutil.get_terminal_size((100, 24)).columns if width is None else width
    record, table, compared = results.record, results.table, results.compared
    if compared is not None and results.has_replicates:
        rows = settings_table(compared, details=False)
    else:
        rows = jobs_table(record, table, details=False)
    below = [f"failed: {line}" for line in failure_lines(record, table)]
    below += [f"without curves: {line}" for line in results.unreadable.values()]
    below += [f"{MARK.strip()} {line}" for line in results.absence_lines]
    if compared is not None:
        below += compared.verdict.splitlines()
    lines = map(shown, below + final_trainings(record, table))
    return [*table_lines(marked(rows, results), width), *map(Text, lines)]


def table_lines(table: Table, width: int) -> list[Text]:
    """A line for each of the first `_MOST_ROWS` rows. Leaves out `_DISPENSABLE` columns that do not fit, cuts no others."""
    header, rows = table
    columns = {name: [row[place] for row in rows] for place, name in enumerate(header)}
    widths = {name: max(map(len, [name, *cells])) for name, cells in columns.items()}
    for name in _DISPENSABLE:
        if sum(widths.values()) + 2 * len(widths) - 2 > width and name in widths:
            del widths[name]
    number = re.compile(r"-?[\d.]*(e[+-]?\d+)?")
    right = {name for name in widths if name == "rank" or all(number.fullmatch(cell) for cell in columns[name])}

    def line(cells: dict[str, str], style: str = "") -> Text:
        padded = (
            cells[name].rjust(wide) if name in right else cells[name].ljust(wide) for name, wide in widths.items()
        )
        return Text(shown("  ".join(padded).rstrip()), style)

    lines = [line({name: name for name in widths}, "bold"), Text("─" * (sum(widths.values()) + 2 * len(widths) - 2))]
    lines += [line(dict(zip(header, row, strict=True))) for row in rows[:_MOST_ROWS]]
    more = [Text(f"and {len(rows) - _MOST_ROWS} more in summary.md")] if len(rows) > _MOST_ROWS else []
    return [*lines, *more, Text("")]
