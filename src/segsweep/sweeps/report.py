"""What a sweep leaves beside its jobs: the ranked tables, the pictures, and TensorBoard's HPARAMS tab."""

from segsweep.runs.files import write_text, write_whole
from segsweep.sweeps.figures import draw
from segsweep.sweeps.hparams import write_hparams
from segsweep.sweeps.markdown import markdown
from segsweep.sweeps.results import Results
from segsweep.sweeps.state import SweepDirectory


def report(sweep: SweepDirectory) -> Results:
    """Brings everything in a sweep directory up to date from its jobs' folders: tables, pictures and HPARAMS.

    Raises:
        UserError: there is no sweep, or its sweep.json is damaged.
    """
    results = Results.read(sweep)
    sweep.enter(results.record.jobs)
    draw(results)
    write_tables(results)  # which shows the pictures
    write_hparams(results)
    return results


def write_tables(results: Results) -> None:
    """Writes summary.csv and summary.md."""
    sweep = results.sweep
    write_whole(sweep.summary_csv, lambda path: results.table.to_csv(path, index=False))
    write_text(sweep.summary_md, markdown(results))
