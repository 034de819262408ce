"""Sweeps: the runs of one command and their comparison.

In the order of a sweep: `search` chooses the settings; `runner` holds the directory, plans jobs with `plan` and hands them
to Hydra's launcher; `jobs` runs one job, in any process; `running` follows the jobs and keeps the tables current; `report`
writes and prints the result. Below these: `state` is sweep.json; `results` reads every run.json; `scored` groups jobs by
the images that they were scored on; `ranking` ranks settings over the replicates of `grouping`, or the folds of `folds`;
`statistics` tests them on a `scale`, at `looks` or in a `race`; `report_text` puts them into words.
`next_steps` says what to train next; `settings_of` takes the best settings of one sweep into another.
"""
