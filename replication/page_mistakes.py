"""The page's section on the documents' mistakes."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from replication import prose
from replication.intervals import difference_of_two, number, spread
from replication.mistakes import REPEATED
from replication.page_parts import Rows, table
from replication.published import CONFIDENT, LOSS, MOMENTUM_SGD, PLAIN_SGD, SECOND_SGD, STUDIES
from replication.results import values

PLACES = ("the first", "the second", "the third")


def mistakes_section(results: Mapping[str, Any]) -> list[str]:
    found = results["mistakes"]
    parts = [
        "## What they got wrong", "",
        prose.EXPERIMENTS, "",
    ]  # fmt: skip
    for name, (title, text, header) in prose.MISTAKES.items():
        parts += [f"### {title}", "", text, ""]
        if name == "momentum":
            parts += table(header, _momentum(results))
        elif name not in found:
            parts += ["Not run yet.", ""]
        elif name == "not reset between rates":
            parts += table(header, _protocols(found[name]))
        elif name in REPEATED:
            rows = [
                [key, spread(dict(enumerate(each))), ", ".join(map(number, each))] for key, each in found[name].items()
            ]
            parts += table(header, rows)
        elif len(header) > 2:
            parts += table(header, _pivoted(found[name]))
        else:
            parts += table(header, [[key, _figure(each)] for key, each in found[name].items()])
    return parts


def _pivoted(found: Mapping[str, Sequence[float]]) -> Rows:
    """A row for each case, from figures named "case: measure"."""
    rows: dict[str, list[str]] = {}
    for key, measured in found.items():
        rows.setdefault(key.rpartition(": ")[0], []).append(_figure(measured))
    return [[case, *measured] for case, measured in rows.items()]


def _protocols(found: Mapping[str, Sequence[float]]) -> Rows:
    """A row for each protocol, from losses named "protocol: rate, place", and how often each place has the lowest loss."""
    cells: dict[str, dict[str, Sequence[float]]] = {}
    for key, losses in found.items():
        name, _, rate_and_place = key.partition(": ")
        cells.setdefault(name, {})[rate_and_place] = losses
    rows = []
    for name, losses_of in cells.items():
        rates = [key.rpartition(", ")[0] for key in losses_of]
        leading = Counter(np.argmin(np.array(list(losses_of.values())), axis=0).tolist())
        leads = [
            f"{rates[place] if len(set(rates)) > 1 else PLACES[place]} in {times} of {leading.total()}"
            for place, times in sorted(leading.items())
        ]
        each = [f"{rate}: {_figure(losses)}" for rate, losses in zip(rates, losses_of.values(), strict=True)]
        rows.append([name, *each, ", ".join(leads)])
    return rows


def _figure(values: Sequence[float]) -> str:
    if len(values) > 1:
        return spread(dict(enumerate(values)))
    (value,) = values
    if value == 0:
        return "-0.0" if math.copysign(1, value) < 0 else "0"
    return f"{value:,.0f}" if value == int(value) and value > 1 else number(value)


def _momentum(results: Mapping[str, Any]) -> Rows:
    rows = []
    name = f"texture_optimizers: {MOMENTUM_SGD}"
    printed = {setting.name: setting.printed for setting in STUDIES["texture_optimizers"].settings}[MOMENTUM_SGD]
    for title, metric in (("running loss", LOSS), ("confident accuracy", CONFIDENT)):
        found = np.array(list(values(results, name, metric).values()))
        ours = ["not trained yet", ""]
        if len(found) > 1:
            ours = [f"{number(difference_of_two(found))} (n = {len(found)})", number(float(np.ptp(found)))]
        meant = spread(values(results, f"texture_optimizers: {PLAIN_SGD}", metric))
        rows.append([title, number(abs(printed[metric] - SECOND_SGD[metric])), *ours, meant])
    return rows
