"""Text for a terminal and for train.log: a user's mistake as one line, arguments that can be typed, a progress bar."""

import contextlib
import logging
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from segsweep.errors import DivergedError, UserError, os_error_behind, shown
from segsweep.keys import unknown

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
    if isinstance(value, dict):  # Hydra takes its keys only without quotes
        names = {re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", str(name)): entry for name, entry in value.items()}
        return "{" + ",".join(f"{name}:{_value(entry)}" for name, entry in names.items()) + "}"
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    # A backslash is one of the value's own, except before a quote.
    inner = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"'{inner}'"


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


class LevelFormatter(logging.Formatter):
    """Puts the level before a warning or an error, as in "warning: ..."; other lines stay as they are."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return f"{record.levelname.lower()}: {line}" if record.levelno >= logging.WARNING else line


class LogFile(logging.FileHandler):
    """train.log. On a full disk it loses lines without a traceback for each: the run's own error says what happened."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """Prints a traceback to stderr, as any handler does, unless the file could not be written."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextlib.contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """Ends the program at a user's mistake, in one line, before Hydra adds a line of its own."""
    try:
        yield
    except Exception as error:
        if (line := explain(error)) is not None:
            fail(line)
        raise


def fail(line: str) -> NoReturn:
    """Ends the program with exit code 1 and a line on stderr."""
    print(f"error: {shown(line)}", file=sys.stderr)
    sys.exit(1)


def explain(error: BaseException) -> str | None:
    """One line for an error that its user can mend; None for one that is ours."""
    if isinstance(error, MissingConfigException) and error.options:
        group = Path(str(error.missing_cfg_file))
        choices = ", ".join(option for option in error.options)
        return f"{group.parent}={group.name}: no such choice; there are {choices}"
    if isinstance(error, OverrideParseException):
        typed = str(error.override).removeprefix("++")  # which may be ours; see `keys.opened`
        return f"{typed}: cannot be read as KEY=VALUE ({_one_line(error).split(' See http')[0]})"
    if (mistake := _mistake_behind(error)) is not None:
        return _one_line(mistake)
    if (found := re.search(r"UserError raised while resolving interpolation: (.*)", str(error))) is not None:
        return found[1]  # a resolver's; OmegaConf keeps only its text
    if (found := re.search(r"Could not (?:override|delete from config\.) '([^']+)'", str(error))) is not None:
        return unknown(found[1])
    if (found := re.search(r"An item is already at '([^']+)'|Multiple values for ([\w/]+)\.", str(error))) is not None:
        key = found[1] or found[2]
        return f"+{key}: there is such a key; type {key}=... without the +"
    if isinstance(error, HydraException | OmegaConfBaseException):
        reason = f" ({_one_line(error.__cause__)})" if isinstance(error.__cause__, OmegaConfBaseException) else ""
        return f"{_one_line(error)}{reason}; python {sys.argv[0]} --help lists what there is"
    if isinstance(error, ValueError) and "Config group override" in str(error):
        null = next((argument for argument in sys.argv if re.fullmatch(r"[a-z/_]+=null", argument)), "null")
        return f"{null}: a group needs a choice; python {sys.argv[0]} --help lists them"
    if type(error).__module__.partition(".")[0] in ("joblib", "submitit", "ray"):
        if "timed-out" in str(error):
            return (
                "a job ran out of time, hydra.launcher.timeout_min; its state is saved, and the same command with the same "
                "name= goes on with it. hydra.launcher.max_num_timeout=3 has that done three times without asking"
            )
        return (
            f"the process of a job has died, perhaps for lack of memory ({type(error).__name__}); "
            "the same command with the same name= goes on with what is left"
        )
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error).lower()):
        return f"out of memory ({_one_line(error)[:120]}): try a smaller data.batch_size or data.image_size"
    if (failed := os_error_behind(error)) is not None:
        return f"{failed.filename}: {failed.strerror}" if failed.filename and failed.strerror else _one_line(failed)
    return None


def _mistake_behind(error: BaseException | None) -> BaseException | None:
    seen: set[int] = set()
    while error is not None and not isinstance(error, UserError | DivergedError):
        if id(error) in seen:
            return None  # two errors that are each other's cause
        seen.add(id(error))
        error = error.__cause__
    return error


def _one_line(error: BaseException | None) -> str:
    return " ".join(str(error).split())
