"""The keys at the root of a training's configuration: their types and ranges. Imports nothing heavy."""

import inspect
import re
from collections.abc import Mapping
from typing import Any, Literal

from segsweep.errors import UserError
from segsweep.fingerprint import NAME
from segsweep.instantiate import From0Below1, Positive, check_arguments

ObjectiveAt = Literal["best", "last", "mean_last_3"]
VALIDATIONS = {"last": " (last)", "mean_last_3": " (mean of last 3)"}
"""What follows the objective's name in tables and sentences, by `objective_at`; nothing for the best validation."""
"""Which validation's objective ranks a run: the best one's, the last one's, or the mean of the last three."""


def name_of(settings: Mapping[Any, Any]) -> str | None:
    """`name=` as text: Hydra reads a name of digits as a number."""
    name = settings.get("name")
    return None if name is None else str(name)


def check_root(settings: dict[str, Any]) -> None:
    """Refuses a wrong value at the root of the configuration. Turns `name` and `init` into text, and sets `objective_at`.

    Raises:
        UserError: names the key, its value and what would be right.
    """
    settings["name"] = name_of(settings)
    settings.setdefault("objective_at", "best")  # runs of earlier versions have none
    if isinstance(settings.get("init"), int | float):  # Hydra reads a folder called 2026 as a number
        settings["init"] = str(settings["init"])
    check_arguments(_root, {name: settings.get(name) for name in inspect.signature(_root).parameters})
    if not 0 <= settings["seed"] < 1 << 32:
        raise UserError(f"seed={settings['seed']}: must be from 0 to {(1 << 32) - 1}")
    if settings["name"] is not None and not re.fullmatch(NAME, settings["name"]):
        raise UserError(f"name={settings['name']}: must be letters, digits, spaces and . , = + - _ only")


def _root(
    lr: Positive,
    momentum: From0Below1 | None,
    seed: int,
    name: str | None,
    objective: str,
    objective_at: ObjectiveAt,
    init: str | None,
    on_error: Literal["continue", "stop"] | None,  # an early version had none
    code: str | list[str] | None,
) -> None:
    """Its signature declares the types of the keys at the root of the configuration."""
