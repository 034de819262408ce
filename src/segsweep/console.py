"""Text for the terminal and train.log: one line for a user's mistake, arguments to paste, the progress bar."""

import contextlib
import difflib
import logging
import re
import shlex
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from segsweep.errors import DivergedError, UserError, causes, one_line, os_error_behind, short, shown, signal_behind
from segsweep.invocation import called, to_type
from segsweep.keys import unknown

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

log = logging.getLogger(__name__)

Item = TypeVar("Item")

SHOWN_AFTER = 2.0
"""Seconds after which work that takes long is shown."""
REPORTED_EVERY = 60.0
"""Seconds between its lines where no bar is drawn."""

# Text that needs no quotes in Hydra's grammar: not null, a boolean or a number.
_PLAIN = re.compile(r"(?!(?:null|true|false|nan|inf)$)[A-Za-z_/.][A-Za-z0-9_/.-]*", re.IGNORECASE | re.ASCII)


def hydra_argument(key: str, value: object) -> str:
    """`key=value` to paste into a shell, quoted for Hydra and for the shell."""
    return shell_word(quoted(key, value))


def shell_word(argument: str) -> str:
    """An argument quoted for the shell if it needs that."""
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
    return f"{to_type('evaluate')} {hydra_argument('run', run)}{' split=val' if untested else ''}"


def progress_bar() -> "Progress":
    """A progress bar on stderr; hidden if stderr is no terminal, because in a log it would print a line a second."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    count = MofNCompleteColumn(table_column=Column(no_wrap=True))
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), count, time_left_column())
    console = Console(stderr=True, soft_wrap=True)
    return Progress(*columns, console=console, disable=not sys.stderr.isatty())


def time_left_column() -> "ProgressColumn":
    """The column of a progress bar that says how long it will take; empty until that is known."""
    from rich.progress import ProgressColumn, Task
    from rich.table import Column
    from rich.text import Text

    class TimeLeft(ProgressColumn):
        max_refresh = 0.5

        def render(self, task: Task) -> Text:
            # A training also ends within its time budget.
            known = [left for left in (task.time_remaining, task.fields.get("within")) if left is not None]
            return Text("" if task.finished or not known else time_left(min(known)), style="progress.remaining")

    return TimeLeft(table_column=Column(no_wrap=True))


def time_left(seconds: float) -> str:
    """A duration as "6:01 left" or "1:06:01 left"."""
    minutes, seconds = divmod(round(seconds), 60)
    clock = f"{minutes // 60}:{minutes % 60:02d}" if minutes >= 60 else f"{minutes}"
    return f"{clock}:{seconds:02d} left"


def fitting(parts: Mapping[str, int], width: int) -> str:
    """The parts that fit into `width` characters, in their order, with " · " between them.

    Args:
        parts: each with its rank; the part of the lowest rank is kept first. An empty part is left out.
        width: in characters.
    """
    kept: set[str] = set()
    for part in sorted(parts, key=lambda part: parts[part]):
        if part and len(" · ".join([*kept, part])) <= width:
            kept.add(part)
    return " · ".join(part for part in parts if part in kept)


class _Terminal:
    """What is drawn on the terminal of this process."""

    bars = True
    live: "Progress | None" = None
    """The bar that is drawn now; two at a time would overwrite each other."""


@contextlib.contextmanager
def bars(drawn: bool) -> Iterator[None]:
    """Inside the block, work that takes long is shown as a bar only if `drawn`; else as a log line."""
    before, _Terminal.bars = _Terminal.bars, drawn
    try:
        yield
    finally:
        _Terminal.bars = before


def draw(bar: "Progress") -> None:
    """Starts a progress bar. `LongWork` then adds its rows to it; each task needs the field `numbers`."""
    bar.start()
    _Terminal.live = bar


def erase(bar: "Progress") -> None:
    """Stops a bar that `draw` started."""
    bar.stop()
    _Terminal.live = None


class LongWork:
    """Shows how far some work is once it has taken `SHOWN_AFTER` seconds: as a bar on a terminal, elsewhere as a log line.

    Shorter work shows nothing. A bar that is drawn already gets a second row. Use it in one thread, as a context manager or
    until `close`.

    Args:
        what: the work, as in "hashing the data".
        total: how many units it has.
        unit: their name in the log line.
    """

    def __init__(self, what: str, total: int, unit: str = "files") -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done, self._began = 0, time.monotonic()
        self._next = self._began + SHOWN_AFTER
        self._bar: Progress | None = None
        self._row: Any = None
        self._owned = False

    def __enter__(self) -> "LongWork":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes what is drawn."""
        if self._bar is None:
            return
        self._bar.remove_task(self._row)
        if self._owned:
            erase(self._bar)
        self._bar = None

    def advance(self, units: int = 1) -> None:
        """Counts units that are done."""
        self._done += units
        if self._bar is not None:
            self._bar.update(self._row, completed=self._done)
        elif (now := time.monotonic()) >= self._next and self._done < self._total:
            self._show(now)

    def _show(self, now: float) -> None:
        if on_terminal := _Terminal.bars and sys.stderr.isatty():
            self._owned = _Terminal.live is None
            if _Terminal.live is None:
                draw(progress_bar())
            self._bar = _Terminal.live
            assert self._bar is not None
            self._row = self._bar.add_task(self._what, total=self._total, completed=self._done, numbers=self._what)
        self._next = now + REPORTED_EVERY
        left = (now - self._began) / self._done * (self._total - self._done)
        log.log(
            logging.DEBUG if on_terminal else logging.INFO,
            "%s: %s of %s %s, about %.0f s left", self._what, f"{self._done:,}", f"{self._total:,}", self._unit, left,
        )  # fmt: skip


def counted(items: Iterable[Item], what: str, total: int, unit: str = "files") -> Generator[Item, None, None]:
    """Yields the items, and shows how many are done as `LongWork` does."""
    with LongWork(what, total, unit) as work:
        for item in items:
            yield item
            work.advance()


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
        if (stopped := signal_behind(error)) is not None:
            raise stopped from error
        raise


def fail(line: str) -> NoReturn:
    """Prints an error line on stderr and exits with code 1."""
    print(f"error: {short(shown(line))}", file=sys.stderr)
    sys.exit(1)


def as_typed(word: str) -> str:
    """An argument without what `keys.opened` has put before it."""
    return re.sub(r"^\+\+(hydra\.sweeper\.(?=settings_of=|keep=))?", "", word)


def several_values(typed: str) -> str:
    """The line for lr=0.1,0.01: a sweep without -m, or a list without brackets."""
    command, words = called()
    key, _, value = as_typed(typed).partition("=")
    if command == "train":
        again = " ".join(shell_word(as_typed(word)) for word in words)
        return f"{typed}: several values need -m; type {to_type()} -m {again}"
    return f"{key}={value}: several values need brackets; type {shell_word(f'{key}=[{value}]')}"


def explain(error: BaseException) -> str | None:
    """One line for an error that the user can correct; None for a bug of ours, and after a signal."""
    if signal_behind(error) is not None:
        return None
    if isinstance(error, MissingConfigException) and error.options:
        group = Path(str(error.missing_cfg_file))
        choices = [option for option in error.options if not option.startswith("default_for_")]
        near = difflib.get_close_matches(group.name.lower(), choices, n=1, cutoff=0.7)
        did_you_mean = f"did you mean {near[0]}? " if near else ""
        return f"{group.parent}={group.name}: no such choice; {did_you_mean}there are {', '.join(choices)}"
    if isinstance(error, OverrideParseException):
        typed = as_typed(str(error.override))
        return f"{typed}: cannot be read as KEY=VALUE ({one_line(error).split(' See http')[0]})"
    for cause in causes(error):
        if isinstance(cause, UserError | DivergedError):
            return one_line(cause)
    if (found := re.search(r"UserError raised while resolving interpolation: (.*)", str(error))) is not None:
        return found[1]  # raised by a resolver: OmegaConf keeps only the text
    if (found := re.search(r"Could not (?:override|delete from config\.) '([^']+)'", str(error))) is not None:
        return unknown(found[1])
    if (found := re.match(r"Ambiguous value for argument '(.*)'\n", str(error))) is not None:
        return several_values(found[1])
    if (found := re.search(r"An item is already at '([^']+)'|Multiple values for ([\w/]+)\.", str(error))) is not None:
        key = found[1] or found[2]
        return f"+{key}: the key exists already; type {key}=... without the +"
    if isinstance(error, HydraException | OmegaConfBaseException):
        reason = f" ({one_line(error.__cause__)})" if isinstance(error.__cause__, OmegaConfBaseException) else ""
        return f"{one_line(error)}{reason}; {to_type()} --help lists what there is"
    if isinstance(error, ValueError) and "integer string conversion" in str(
        error
    ):  # Python's limit, met by Hydra's parser
        typed = next((argument for argument in sys.argv if re.search(r"\d{4301}", argument)), "a setting")
        return f"{typed.partition('=')[0]}: has a number of more than 4,300 digits; type a smaller one"
    if isinstance(error, ValueError) and "Config group override" in str(error):
        null = next((argument for argument in sys.argv if re.fullmatch(r"[a-z/_]+=null", argument)), "null")
        return f"{null}: a group needs a choice; {to_type()} --help lists them"
    if type(error).__module__.partition(".")[0] in ("joblib", "submitit", "ray"):
        if "(state: CANCELLED" in str(error):  # the log below may tell of an earlier time-out
            return (
                "a job was cancelled, as scancel does; it goes on from its last checkpoint: type the same command with the "
                "same name="
            )
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
        way_out = "try half of data.batch_size with trainer.accumulate=2, or a smaller data.image_size"
        return f"out of memory ({one_line(error)[:120]}): {way_out}"
    if (failed := os_error_behind(error)) is not None:
        return f"{failed.filename}: {failed.strerror}" if failed.filename and failed.strerror else one_line(failed)
    return None
