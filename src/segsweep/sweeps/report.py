"""What a sweep leaves beside its jobs: the ranked tables, the pictures, and TensorBoard's HPARAMS tab."""

from pathlib import Path

import pandas as pd

from segsweep.runs.files import write_text, write_whole
from segsweep.sweeps.hparams import write_hparams
from segsweep.sweeps.markdown import markdown
from segsweep.sweeps.pictures import draw
from segsweep.sweeps.ranking import summary
from segsweep.sweeps.record import SweepDirectory, SweepRecord


def report(sweep: SweepDirectory) -> SweepRecord:
    """Brings everything in a sweep directory up to date from its jobs' folders: tables, pictures and HPARAMS.

    Raises:
        UserError: there is no sweep, or its sweep.json is damaged.
    """
    sweep.read()
    record = sweep.update(lambda _: None)
    table = summary(sweep, record)
    draw(sweep, record, table)
    write_tables(sweep, record)  # which shows the pictures
    write_hparams(sweep, record)
    return record


def write_tables(sweep: SweepDirectory, record: SweepRecord) -> pd.DataFrame:
    """Writes summary.csv and summary.md; gives the summary."""
    table = summary(sweep, record)
    write_whole(sweep.summary_csv, lambda path: table.to_csv(path, index=False))
    write_text(sweep.summary_md, markdown(sweep, record, table))
    return table


def relative(path: Path) -> Path:
    """As a person would type it from here."""
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path
