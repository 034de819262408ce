"""Fills in the defaults of docs/keys.md from conf/: `python docs/make_keys.py`. Meanings are written by hand.

A heading names what its table is about: an entry point (`evaluate.py`), a group (`data`) or, below its group's, choices
(`data=folder`). If choices have tables, the table of the group has the keys that all choices have.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from segsweep.console import hydra_value
from segsweep.errors import UserError
from segsweep.keys import GROUPS, KEYS, SWEEPER
from segsweep.runs.files import write_text

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/keys.md"
REQUIRED, ON = "required", "on"
"""Defaults in words: a key that has none, and an object that is left out with null."""
Defaults = dict[str, dict[str, str]]
"""By key, with its group, the default of each choice; of an entry point, whose keys are in no choice, under ""."""


def settings(path: Path) -> dict[str, Any]:
    """A file of conf/, and below it the files of its own folder that it is based on."""
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    found: dict[str, Any] = {}
    for entry in content.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_" and (base := path.with_name(f"{entry}.yaml")).exists():
            found |= settings(base)
    return found | content


def leaves(node: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """Every key below a node with its default, as it is typed; an object inside a group is "on"."""
    found: dict[str, str] = {}
    for key, value in node.items():
        if isinstance(value, dict) and ("_target_" in value or prefix == "logger."):
            found |= {f"{prefix}{key}": ON} if "_target_" in value else {}
            found |= leaves(value, f"{prefix}{key}.")
        elif not key.startswith("_") and key != "architecture":  # which MONAI net it is: the choice says that
            found[f"{prefix}{key}"] = REQUIRED if value == "???" else hydra_value(value).strip("'") or "''"
    return found


def choices(group: str) -> list[Path]:
    """The files that a user chooses between, without the defaults for each kind of data."""
    return [path for path in sorted((ROOT / "conf" / group).glob("*.yaml")) if not path.stem.startswith("default_for")]


def group_defaults(group: str) -> Defaults:
    found: Defaults = {}
    for path in choices(group):
        for key, value in leaves(settings(path), f"{group}.").items():
            found.setdefault(key, {})[path.stem] = value
    return found


def command_defaults(command: str) -> Defaults:
    """The keys at the root of an entry point, without groups, and train.py's for the sweeper."""
    content = yaml.safe_load((ROOT / f"conf/{command}.yaml").read_text(encoding="utf-8"))
    found = {key: {"": hydra_value(content[key])} for key in KEYS[command] if key not in GROUPS}
    return found | ({key: {"": "null"} for key in SWEEPER} if command == "train" else {})


def group_choices() -> Defaults:
    """The groups of train.py, each with what is chosen if nothing is typed."""
    content = yaml.safe_load((ROOT / "conf/train.yaml").read_text(encoding="utf-8"))
    listed = [entry for entry in content["defaults"] if isinstance(entry, dict)]
    chosen = {key: value for entry in listed for key, value in entry.items() if " " not in key}
    return {key: {"": "null" if value is None else str(value)} for key, value in chosen.items()}


def cell(found: Mapping[str, str], every: int) -> str:
    """A default, or each with the choices that have it.

    Args:
        found: the default by choice.
        every: number of choices that the table covers.
    """
    by_value: dict[str, list[str]] = {}
    for choice, value in found.items():
        by_value.setdefault(value if value in (REQUIRED, ON) else f"`{value}`", []).append(choice)
    if len(by_value) == 1 and len(found) == every:
        return next(iter(by_value))
    return ", ".join(f"{value} ({', '.join(names)})" for value, names in by_value.items())


def expected(page: str) -> dict[str, dict[str, str]]:
    """For each heading with a table, its keys and the text of the default.

    Raises:
        UserError: a heading names no entry point, group or choice.
    """
    headings = [(line, re.findall(r"`([^`]+)`", line)) for line in page.splitlines() if re.match("#+ .*`", line)]
    divided = {names[0].split("=")[0] for _, names in headings if "=" in names[0]}
    general: dict[str, set[str]] = {}  # keys that a group's own table has
    found: dict[str, dict[str, str]] = {}
    for line, (name, *others) in headings:
        group, equals, choice = name.partition("=")
        if name == "GROUP=CHOICE":
            found[line] = {key: cell(each, 1) for key, each in group_choices().items()}
        elif name.removesuffix(".py") in KEYS:
            found[line] = {key: cell(each, 1) for key, each in command_defaults(name.removesuffix(".py")).items()}
        elif group not in GROUPS:
            raise UserError(f"docs/keys.md: {line}: names no entry point, group or choice")
        elif not equals:
            every, number = group_defaults(group), len(choices(group))
            general[group] = {key for key, each in every.items() if len(each) == number or group not in divided}
            found[line] = {key: cell(each, number) for key, each in every.items() if key in general[group]}
        else:
            covered, above = [choice, *others], general.get(group, set())
            every = {key: each for key, each in group_defaults(group).items() if key not in above}
            kept = {key: {name: each[name] for name in covered if name in each} for key, each in every.items()}
            found[line] = {key: cell(each, len(covered)) for key, each in kept.items() if each}
    return found


def filled(page: str) -> str:
    """The page with the defaults of conf/.

    Raises:
        UserError: a key has no row, a row has no key, or a group's row does not name a choice.
    """
    wanted, heading, lines, wrong = expected(page), "", [], []
    left = {line: dict(keys) for line, keys in wanted.items()}
    for line in page.splitlines():
        heading = line if line.startswith("#") else heading
        if (row := re.fullmatch(r"\| `([^`]+)` \| (.*?) \| (.+) \|", line)) and heading in wanted:
            key, _, meaning = row.groups()
            if (default := left[heading].pop(key, None)) is None:
                wrong.append(f"{heading}: {key} is no key there")
                continue
            if heading.startswith("#") and "GROUP=CHOICE" in heading:
                wrong += [
                    f"{key}: {path.stem} is not named" for path in choices(key) if f"`{path.stem}`" not in meaning
                ]
            line = f"| `{key}` | {default} | {meaning} |"
        lines.append(line)
    wrong += [f"{line}: {key} has no row" for line, keys in left.items() for key in keys]
    covered = {key for keys in wanted.values() for key in keys}
    wrong += [f"{key} has no table" for group in GROUPS for key in group_defaults(group) if key not in covered]
    if wrong:
        raise UserError("docs/keys.md: " + "; ".join(wrong))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    try:
        write_text(PAGE, filled(PAGE.read_text(encoding="utf-8")))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
