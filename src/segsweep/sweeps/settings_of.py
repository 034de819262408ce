"""settings_of=SWEEP: the best settings of another sweep become one joint axis of a new one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

from segsweep.console import hydra_argument, quoted, shell_word
from segsweep.errors import UserError
from segsweep.instantiate import check_arguments, to_plain
from segsweep.runs.stored import require_plain_overrides
from segsweep.sweeps.grouping import setting_key
from segsweep.sweeps.plan import key_of, with_interpolations
from segsweep.sweeps.ranking import values_key
from segsweep.sweeps.results import Results
from segsweep.sweeps.runner import SweepRunner
from segsweep.sweeps.state import SweepDirectory, SweepRecord
from segsweep.user_code import is_known, load_code, targets

NOT_TAKEN = ("name", "resume", "code")
"""Keys that no job passes on. A file of `code=` runs only if this command names it: a sweep directory is untrusted."""


@dataclass(frozen=True)
class Taken:
    """Settings taken from another sweep. The new sweep stores them, so they stay even if the other sweep changes."""

    sweep: str
    """The directory of the other sweep, as typed."""
    keep: int | None
    """As typed; None takes the leader and the contenders."""
    axes: list[str]
    """The keys that the other sweep varies, without those that make replicates."""
    settings: list[list[str]]
    """The overrides of each setting, best first: its values on the axes, and what the other sweep did not vary."""
    retype: list[str]
    """Overrides with interpolations, as typed for the other sweep. Stored text is not resolved, so they are typed again."""

    @property
    def typed(self) -> list[str]:
        return [quoted("settings_of", self.sweep), *([] if self.keep is None else [f"keep={self.keep}"])]


def join_settings(
    runner: SweepRunner, settings_of: Any, keep: Any, choices: Mapping[str, Sequence[str]], arguments: Sequence[str]
) -> list[list[str]]:
    """Takes the settings of another sweep, and makes the runner's record and configuration those of the new sweep.

    Args:
        runner: it holds the directory of the new sweep.
        settings_of: the directory of the other sweep, as typed.
        keep: how many settings to take, as typed; None takes the leader and the contenders.
        choices: the overrides of each key that this command gives.
        arguments: all overrides of this command.

    Returns:
        The overrides of each setting, without the keys that this command gives.

    Raises:
        UserError: there is no such sweep, it has too few settings, or this command gives an axis of it.
    """
    stored, record = runner.record.settings_of, runner.record
    known = runner.sweep.record.exists()
    if known and stored is None:
        raise UserError(f"{runner.sweep.path}: settings_of starts a sweep of its own; give another name")
    if keep is not None and (type(keep) is not int or keep < 1):
        raise UserError(f"keep={keep}: must be a whole number, at least 1")
    if stored is None:
        taken = take(Path(str(settings_of)), keep)
    else:
        try:
            check_arguments(Taken, stored, prefix="settings_of.")
            taken = Taken(**stored)
            if not taken.settings:
                raise UserError("settings_of.settings: is empty")
        except UserError as error:
            raise UserError(f"{runner.sweep.record}: is damaged ({error})") from error
        if (taken.sweep, taken.keep) != (str(Path(str(settings_of))), keep):
            raise UserError(
                f"{runner.sweep.path}: took its settings by {' '.join(map(shell_word, taken.typed))}; type that, "
                "or give another name"
            )
    given = {key.lstrip("+~") for key in choices}
    if brought := next((key for key in taken.axes if key in given), None):
        typed = next(", ".join(values) for key, values in choices.items() if key.lstrip("+~") == brought)
        raise UserError(f"{typed}: settings_of={taken.sweep} brings the values of {brought}; leave out {brought}")
    if missing := [shell_word(override) for override in taken.retype if key_of(override) not in given]:
        raise UserError(
            f"settings_of={taken.sweep}: that sweep was typed with interpolations, and stored text is not resolved; "
            f"add {' '.join(missing)}"
        )
    keys = {each: key_of(each).lstrip("~") for overrides in taken.settings for each in overrides}
    # Loggers are typed anew: a stored sweep must not say which server gets the user's token.
    kept = [each for each, key in keys.items() if key not in given and key.partition(".")[0] != "logger"]
    settings = [[each for each in overrides if each in kept] for overrides in taken.settings]
    config = runner.config
    load_code(to_plain(OmegaConf.masked_copy(config, ["code"]))["code"])
    source = runner.sweep if stored is not None else SweepDirectory(Path(taken.sweep))
    for overrides in settings:
        require_plain_overrides(source.record, overrides)
        require_known_targets(source.record, overrides)
    unswept = [override for override in settings[0] if key_of(override) not in taken.axes]
    whole = runner.context.config_loader.load_configuration(
        str(config.hydra.job.config_name), [*unswept, *arguments], RunMode.MULTIRUN
    )
    with open_dict(config):
        for key in (key for key in whole if key != "hydra"):
            config[key] = whole[key]
    if not known:
        runner.record = SweepRecord.new(config, runner.sweeper)
        runner.record.settings_of = asdict(taken)
    runner.record.axes = list(dict.fromkeys([*taken.axes, *record.axes]))
    runner.record.overrides = [*taken.typed, *record.overrides]
    return settings


def take(path: Path, keep: int | None) -> Taken:
    """The best settings of a sweep, in the order of its comparison.

    Args:
        path: the sweep directory.
        keep: how many; None takes the leader and the contenders.

    Raises:
        UserError: there is no sweep, its settings are not compared, or there are fewer than `keep`.
    """
    what, sweep = f"settings_of={path}", SweepDirectory(path)
    if not sweep.record.is_file():
        raise UserError(f"{what}: no sweep there; give a folder with a sweep.json")
    results = Results.read(sweep)
    record, compared = results.record, results.compared
    if compared is None:
        raise UserError(f"{what}: no job of that sweep is completed, so it has no best setting; train it first")
    if compared.parts:
        raise UserError(f"{what}: {compared.why}, so none of its settings is the best")
    table = compared.table[compared.table["n"] > 0]
    rows = table[table["standing"].isin(["leader", "contender"])] if keep is None else table[:keep]
    if not len(rows):
        raise UserError(f"{what}: has no leader, as its settings are not tested; add keep={min(4, len(table))}")
    if keep is not None and keep > len(table):
        raise UserError(f"keep={keep}: {path} has {len(table)} settings with a completed job; keep at most as many")
    jobs = {values_key(record, job, compared.settings): job for job in reversed(record.compared_jobs)}
    left_out = {*NOT_TAKEN, *(axis for axis in record.axes if axis not in compared.settings)}
    best = [jobs[setting_key(row, compared.settings)] for _, row in rows.iterrows()]
    settings = [[each for each in job.overrides if key_of(each).lstrip("~") not in left_out] for job in best]
    return Taken(str(path), keep, list(compared.settings), settings, with_interpolations(record))


def require_known_targets(source: Path, overrides: Iterable[str]) -> None:
    """Refuses stored overrides that name a class outside of segsweep, unless this command names its file.

    Raises:
        UserError: names the class and what to type.
    """
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key, value = override.key_or_group, override.value()
        for _, target in targets({key.rpartition(".")[2]: value}):
            if not is_known(target):
                code = hydra_argument("code", f"{target.partition('.')[0]}.py")
                raise UserError(
                    f"{source}: {key} is {target}, which is not part of segsweep, and a stored sweep runs no code; "
                    f"add {code}, or type {shell_word(str(override.input_line))} again"
                )
