"""The comparison of a sweep's settings in sentences, for a person."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

_LISTED = 5  # settings that a sentence names


def verdict_sentences(
    table: pd.DataFrame,
    settings: Sequence[str],
    name: str,
    mode: Literal["min", "max"],
    replicates: int,
    compared: int,
    left_out: Sequence[str],
    identical: Sequence[Sequence[Mapping[str, Any]]],
    level: float,
    correction: str,
) -> list[str]:
    """Which setting is best, what is not distinguishable from it, what is worse, and what limits this: 1 to 4 sentences
    as a rule.

    Args:
        table: of a `Comparison`, best first.
        settings: the columns that identify a setting.
        name: of the objective.
        mode: "max" where more is better.
        replicates, compared: how many seeds, and how many settings have all of them; those are the first rows.
        left_out: seeds that were not compared over because settings lack them.
        identical: settings with the same value for every seed, those that agree together.
        level: of the test, as a fraction.
        correction: what p values are corrected by, in words; "" where they are not.
    """
    said = [_about_best(table, settings, name, mode, replicates, compared)]
    if compared > 1 and replicates == 1:
        said.append(
            "One replicate per setting: no statement about whether a difference is real is possible; "
            "repeat with seed=0,1,2."
        )
    elif compared > 1:
        said += _about_others(table.iloc[1:compared], settings, replicates, level, correction)
    if left_out:
        said.append(f"Not used, because not every setting compared has it: {', '.join(left_out)}.")
    if len(missing := table.iloc[compared:]):
        names = _listed(missing, settings, list(missing["missing"]))
        said.append(f"Ranked last and not tested, because replicates are missing: {names}.")
    return said + _without_effect(identical, settings, name)


def _without_effect(identical: Sequence[Sequence[Mapping[str, Any]]], settings: Sequence[str], name: str) -> list[str]:
    """A sentence for the keys in which settings differ that have exactly the same values."""
    found: dict[tuple[str, ...], list[list[str]]] = {}
    for alike in identical:
        keys = tuple(key for key in settings if len({entry_text(values[key]) for values in alike}) > 1)
        found.setdefault(keys, []).append([setting_name(values, settings) for values in alike])
    said = []
    for keys, classes in found.items():
        names, has = classes[0], "has" if len(keys) == 1 else "have"
        more = f"; and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        others = f" (and so in {len(classes) - 1} more cases)" if len(classes) > 1 else ""
        said.append(
            f"{', '.join(keys)} {has} no effect here: exactly the same {name} for every seed with "
            f"{'; '.join(names[:_LISTED])}{more}{others}."
        )
    return said


def setting_name(values: Mapping[str, Any] | pd.Series, settings: Sequence[str]) -> str:
    """A setting as it is typed in a command: "optim=adam, lr=0.01"."""
    return ", ".join(f"{column}={entry_text(values[column])}" for column in settings) or "the only setting"


def entry_text(entry: Any) -> str:
    """A value as it is typed in a command: null for None and NaN, true for True."""
    if entry is None or entry is pd.NA or (isinstance(entry, (float, np.floating)) and math.isnan(entry)):
        return "null"
    return str(entry).lower() if isinstance(entry, (bool, np.bool_)) else str(entry)


def _about_best(
    table: pd.DataFrame, settings: Sequence[str], name: str, mode: str, replicates: int, compared: int
) -> str:
    if compared == 0:
        return "No setting has all its replicates: no statement about which is best is possible."
    first = table.iloc[0]
    who, value = setting_name(first, settings), f"{name} {first['mean']:.4g}"
    if replicates > 1:
        mean, std = _rounded(first["mean"], first["std"]), _rounded(first["std"], first["std"])
        value = f"{name} {mean} ± {std} (mean and standard deviation over {replicates} seeds)"
    if len(table) == 1:
        return f"One setting only, nothing to compare it with: {value}."
    seeds = {1: "1 seed", 2: "both seeds"}.get(replicates, f"all {replicates} seeds")
    if compared == 1:
        return f"{who} is the only setting with {seeds}, so nothing is compared: {value}."
    among = "" if compared == len(table) else f", of the {compared} settings with {seeds}"
    if (table["verdict"].iloc[1:compared] == "worse").all():
        return f"{who} is best{among}: {value}."
    extreme = "highest" if mode == "max" else "lowest"
    return f"{who} has the {extreme} {'mean ' if replicates > 1 else ''}{value}{among}."


def _about_others(
    others: pd.DataFrame, settings: Sequence[str], replicates: int, level: float, correction: str
) -> list[str]:
    equal, worse, untested = (
        others[others["verdict"] == verdict] for verdict in ("not distinguishable", "worse", "no statement")
    )
    how = ", ".join(filter(None, [f"paired t-test over {replicates} common seeds", correction, f"{level * 100:g} %"]))
    test = f" ({how})"
    said = []
    if len(equal):
        named = equal.head(_LISTED).iterrows()
        notes = ["the same values" if row["detectable"] == 0 else f"{row['difference']:+.2g}" for _, row in named]
        said.append(f"Not distinguishable from it{test}: {_listed(equal, settings, notes)}.")
    if len(worse):
        rest = f"the other {len(worse)}" if len(worse) > _LISTED else _listed(worse, settings)
        said.append(f"Worse{'' if len(equal) else test}: {rest}.")
    if len(untested):
        said.append(
            f"No statement about {_listed(untested, settings)}: the difference to the best is the same for every seed, "
            "so nothing tells how far it varies by chance."
        )
    needed = equal["detectable"][equal["detectable"] > 0]
    if len(needed):
        low, high = f"{needed.min():.2g}", f"{needed.max():.2g}"
        span = low if low == high else f"{low} (for the steadiest of them) to {high} (for the most varying)"
        said.append(f"With {replicates} seeds only a difference of more than about {span} would have shown.")
    return said


def _listed(rows: pd.DataFrame, settings: Sequence[str], notes: Sequence[str] = ()) -> str:
    names = [setting_name(row, settings) for _, row in rows.head(_LISTED).iterrows()]
    names = [f"{who} ({notes[i]})" if notes and notes[i] else who for i, who in enumerate(names)]
    return "; ".join(names) + (f"; and {len(rows) - _LISTED} more" if len(rows) > _LISTED else "")


def _rounded(number: float, spread: float) -> str:
    """To two digits of the spread; very large and very small numbers with an exponent."""
    if not spread:
        return f"{number:.6g}"
    decimals = 1 - math.floor(math.log10(spread))
    if decimals > 7 or abs(number) >= 1e7:
        return f"{number:.4g}"
    return f"{number:.{max(0, decimals)}f}"
