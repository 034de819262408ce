"""summary.md: the ranked tables that a person reads, the winner, and whether it really won."""

import shlex

from segsweep.sweeps.ranking import absences, settings_axes
from segsweep.sweeps.results import Results
from segsweep.sweeps.tables import Table, failures, final_trainings, jobs_table, settings_table


def markdown(results: Results) -> str:
    """The content of summary.md; pictures are shown that are there."""
    sweep, record, table, compared = results.sweep, results.record, results.table, results.compared
    counts = ", ".join(f"{number} {status}" for status, number in table["status"].value_counts().items())
    better = "the higher the better" if record.mode == "max" else "the lower the better"
    lines = [f"# {record.name or sweep.path.name}", "", f"    python train.py -m {shlex.join(record.overrides)}", ""]
    lines += [f"{len(table)} jobs: {counts}. Objective: {record.objective['name']}, {better}.", ""]
    if absent := absences(results.runs, record, table):
        lines += ["; ".join(absent) + ".", ""]
    if compared is not None:
        first, *others = compared.sentences()
        lines += [f"**{first}**", "", *(f"- {group}" for group in others), ""] if compared.parts else [
            " ".join([f"**{first}**", *others]), "",
        ]  # fmt: skip
    if said := final_trainings(record, table):
        lines += [" ".join(said), ""]
    if (best := results.best) is not None:
        checkpoint = table.set_index("directory")["checkpoint"][best]
        lines += [f"The run to take: `{best}`" + (f" (`{checkpoint}`)." if checkpoint else "."), ""]
    lines += [f"![{path.stem}]({path.name})\n" for path in (sweep.heatmap, sweep.curves) if path.exists()]
    if compared is not None and settings_axes(record) and compared.table["n"].max() > 1:
        lines += ["## Settings", "", *_laid_out(settings_table(compared, details=True)), ""]
    if failed := failures(record, table):
        lines += ["## Failed", "", *(f"- {line}" for line in failed), ""]
    lines += ["## Jobs", "", *_laid_out(jobs_table(record, table, details=True)), ""]
    return "\n".join(lines).rstrip() + "\n"


def _laid_out(table: Table) -> list[str]:
    header, rows = table
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in [header, ["---"] * len(header), *rows]]
    return ["| " + " | ".join(row) + " |" for row in escaped]
