"""Exceptions for a user's mistake, a diverged loss and a signal; and one printable line for any error."""

import re
import signal
from collections.abc import Iterator
from typing import Any

LONGEST = 2000
"""Maximum characters of an error line; a longer one is cut in the middle."""


def shown(text: object) -> str:
    """Any text as one printable line: line breaks, control characters and surrogates are escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text))


def short(line: str) -> str:
    """A line of at most `LONGEST` characters: cut in the middle, and in numbers that are longer than any file name."""
    line = re.sub(r"\d{256,}", lambda found: f"{found[0][:20]}... ({len(found[0]):,} digits)", line)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 600]} ... {line[-590:]}"


class UserError(ValueError):
    """A mistake in the configuration or the data that the user can correct.

    The command line prints the message as one line, without a traceback, and exits with code 1. The message may contain
    names and values from files: whatever these hold, it is one printable line of at most `LONGEST` characters.
    """

    def __init__(self, message: object) -> None:
        super().__init__(short(shown(message)))


class DivergedError(RuntimeError):
    """The loss or a weight became NaN or infinite; `step` is the optimizer step at which that was first seen."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class Interrupted(BaseException):
    """A signal stopped the run.

    Args:
        signum: the signal.
        between_steps: whether weights and counters agree, so that a checkpoint may be saved.
    """

    def __init__(self, signum: int, between_steps: bool = False) -> None:
        super().__init__(f"stopped by {'Ctrl-C' if signum == signal.SIGINT else signal.Signals(signum).name}")
        self.signum = signum
        self.between_steps = between_steps

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.signum, self.between_steps)  # a worker process sends it to its parent


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error, its cause, the cause of that, and so on; stops if errors are each other's cause."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def os_error_behind(error: BaseException | None) -> OSError | None:
    """The failed read or write that caused an error, however often it was wrapped; None if there is none."""
    return next((cause for cause in causes(error) if isinstance(cause, OSError)), None)


def signal_behind(error: BaseException) -> Interrupted | None:
    """The signal that an exception hides; None for a user's mistake, a failed read or write, and if there was no signal.

    OmegaConf may raise AttributeError, for example, when a signal interrupts it in the middle of a change.
    """
    before: BaseException | None = error
    if isinstance(error, Exception) and any(isinstance(cause, UserError | OSError) for cause in causes(error)):
        return None
    while before is not None:
        if isinstance(before, Interrupted):
            return before
        if isinstance(before, KeyboardInterrupt):
            return Interrupted(signal.SIGINT)
        before = before.__context__
    return None


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type if the text is empty."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def one_line(error: BaseException | str | None) -> str:
    """The whole text of an error with its line breaks replaced by spaces, or its type if the text is empty."""
    return " ".join(str(error).split()) or type(error).__name__
