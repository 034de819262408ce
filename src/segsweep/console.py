"""Text for a terminal: arguments that can be typed, paths from here, and the bar of long work."""

import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

# What Hydra's grammar reads as text without quotes, less the words that it reads as a number, a truth value or nothing.
_PLAIN = re.compile(r"(?!(?:null|true|false|nan|inf)$)[A-Za-z_/.][A-Za-z0-9_/.-]*", re.IGNORECASE)


def hydra_argument(key: str, value: object) -> str:
    """`key=value` as it can be typed: where Hydra's grammar wants quotes, these, and the shell's around them."""
    argument = quoted(key, str(value))
    # Hydra's quotes are single ones: around these, double ones are easier to read, where the shell leaves the rest alone.
    return f'"{argument}"' if "'" in argument and not re.search(r'[$`"\\!]', argument) else shlex.quote(argument)


def quoted(key: str, value: Any) -> str:
    """`key=value` as Hydra reads it, with quotes where its grammar wants them.

    Args:
        key: with `+` where it is to be added.
        value: plain data, or a path.
    """
    return f"{key}={_value(value)}"


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return str(value).lower() if isinstance(value, bool) else repr(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_value, value))}]"
    if isinstance(value, dict):  # whose keys Hydra takes without quotes only
        return "{" + ",".join(f"{_escaped(str(name))}:{_value(entry)}" for name, entry in value.items()) + "}"
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    # A backslash is one of the value's own, except before a quote.
    inner = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"'{inner}'"


def _escaped(text: str) -> str:
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", text)


def relative(path: Path) -> Path:
    """A path as a person would type it from here."""
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path


def evaluation(run: Path, metrics: Iterable[str], tests: bool) -> str:
    """The command that scores a run: on val where there were no images to test on.

    Args:
        run: its directory.
        metrics: that it has, by name.
        tests: whether it was to be tested.
    """
    untested = tests and not any(name.startswith("test/") for name in metrics)
    return f"python evaluate.py {hydra_argument('run', run)}{' split=val' if untested else ''}"


def progress_bar() -> "Progress":
    """A bar on stderr; nothing where that is no terminal: in a log it would be a line a second."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True, soft_wrap=True)
    return Progress(*columns, console=console, disable=not sys.stderr.isatty())
