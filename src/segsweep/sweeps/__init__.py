"""Sweeps: the runs of one command and their comparison.

A sweep goes from module to module: `plan` says which jobs there are; `runner` holds the directory and hands jobs to
Hydra's launcher; `jobs` runs one job, in whatever process; `running` keeps what each job came to; `results` reads all of
it; `report` writes and prints it. Below them: `state` is sweep.json, `ranking` is what is compared, `statistics` how, and
`report_text` how it is said.
"""
