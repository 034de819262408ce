"""Text for the terminal and train.log: one line for a user's mistake, arguments to paste, the progress bar."""

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

from segsweep.errors import DivergedError, UserError, causes, one_line, os_error_behind, shown
from segsweep.keys import unknown

if TYPE_CHECKING:
    from rich.progress import Progress

# Text that needs no quotes in Hydra's grammar: not null, a boolean or a number.
_PLAIN = re.compile(r"(?!(?:null|true|false|nan|inf)$)[A-Za-z_/.][A-Za-z0-9_/.-]*", re.IGNORECASE)


def hydra_argument(key: str, value: object) -> str:
    """`key=value` to paste into a shell, quoted for Hydra and for the shell."""
    argument = quoted(key, str(value))
    # Hydra quotes with '. Around those, " is easier to read than shlex's escapes, if the shell changes nothing inside.
    return f'"{argument}"' if "'" in argument and not re.search(r'[$`"\\!]', argument) else shlex.quote(argument)


def quoted(key: str, value: Any) -> str:
    """`key=value` with the quotes that Hydra's grammar needs.

    Args:
        key: starts with `+` to add a key.
        value: plain data, or a path.
    """
    return f"{key}={hydra_value(value)}"


def hydra_value(value: Any) -> str:
    """Plain data, or a path, in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return str(value).lower() if isinstance(value, bool) else repr(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(hydra_value, value))}]"
    if isinstance(value, dict):  # Hydra's grammar has no quotes for keys, only escapes
        names = {re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", str(name)): entry for name, entry in value.items()}
        return "{" + ",".join(f"{name}:{hydra_value(entry)}" for name, entry in names.items()) + "}"
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    # Hydra takes a backslash literally, except before a quote.
    inner = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"'{inner}'"


def relative(path: Path) -> Path:
    """A path relative to the working directory if it lies below it, else unchanged."""
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path


def evaluate_command(run: Path, metrics: Iterable[str], tests: bool) -> str:
    """The command that scores a run: on test, or on val if the data have no test images.

    Args:
        run: its directory.
        metrics: names of its metrics.
        tests: the setting trainer.test.
    """
    untested = tests and not any(name.startswith("test/") for name in metrics)
    return f"python evaluate.py {hydra_argument('run', run)}{' split=val' if untested else ''}"


def progress_bar() -> "Progress":
    """A progress bar on stderr; hidden if stderr is no terminal, because in a log it would print a line a second."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True, soft_wrap=True)
    return Progress(*columns, console=console, disable=not sys.stderr.isatty())


class LevelFormatter(logging.Formatter):
    """Puts the level before warnings and errors, as in "warning: ..."."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return f"{record.levelname.lower()}: {line}" if record.levelno >= logging.WARNING else line


class LogFile(logging.FileHandler):
    """Handler of train.log that ignores OSError: on a full disk the run itself reports the error once."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextlib.contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """Ends the program with one line at a user's mistake; Hydra would print a line of its own before it."""
    try:
        yield
    except Exception as error:
        if (line := explain(error)) is not None:
            fail(line)
        raise


def fail(line: str) -> NoReturn:
    """Prints an error line on stderr and exits with code 1."""
    print(f"error: {shown(line)}", file=sys.stderr)
    sys.exit(1)


def explain(error: BaseException) -> str | None:
    """One line for an error that the user can correct; None for a bug of ours."""
    if isinstance(error, MissingConfigException) and error.options:
        group = Path(str(error.missing_cfg_file))
        choices = ", ".join(error.options)
        return f"{group.parent}={group.name}: no such choice; there are {choices}"
    if isinstance(error, OverrideParseException):
        typed = str(error.override).removeprefix("++")  # added by `keys.opened`
        return f"{typed}: cannot be read as KEY=VALUE ({one_line(error).split(' See http')[0]})"
    for cause in causes(error):
        if isinstance(cause, UserError | DivergedError):
            return one_line(cause)
    if (found := re.search(r"UserError raised while resolving interpolation: (.*)", str(error))) is not None:
        return found[1]  # raised by a resolver: OmegaConf keeps only the text
    if (found := re.search(r"Could not (?:override|delete from config\.) '([^']+)'", str(error))) is not None:
        return unknown(found[1])
    if (found := re.search(r"An item is already at '([^']+)'|Multiple values for ([\w/]+)\.", str(error))) is not None:
        key = found[1] or found[2]
        return f"+{key}: the key exists already; type {key}=... without the +"
    if isinstance(error, HydraException | OmegaConfBaseException):
        reason = f" ({one_line(error.__cause__)})" if isinstance(error.__cause__, OmegaConfBaseException) else ""
        return f"{one_line(error)}{reason}; python {sys.argv[0]} --help lists what there is"
    if isinstance(error, ValueError) and "Config group override" in str(error):
        null = next((argument for argument in sys.argv if re.fullmatch(r"[a-z/_]+=null", argument)), "null")
        return f"{null}: a group needs a choice; python {sys.argv[0]} --help lists them"
    if type(error).__module__.partition(".")[0] in ("joblib", "submitit", "ray"):
        if "timed-out" in str(error):
            return (
                "a job ran out of time (hydra.launcher.timeout_min) and saved its state: type the same command with the "
                "same name= to continue it, or set hydra.launcher.max_num_timeout=3 to have it requeued up to 3 times"
            )
        return (
            f"the process of a job has died, perhaps for lack of memory ({type(error).__name__}): "
            "type the same command with the same name= to train the remaining jobs"
        )
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error).lower()):
        return f"out of memory ({one_line(error)[:120]}): try a smaller data.batch_size or data.image_size"
    if (failed := os_error_behind(error)) is not None:
        return f"{failed.filename}: {failed.strerror}" if failed.filename and failed.strerror else one_line(failed)
    return None
