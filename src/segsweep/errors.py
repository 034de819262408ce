"""The errors a user's mistake ends in: one line that says what is wrong, where, and what to do."""

LONGEST = 2000
"""Characters of an error line; a longer one loses its middle."""


def shown(text: object) -> str:
    """A path or any other text as one printable line: line breaks, control and unpaired characters are escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text))


class UserError(ValueError):
    """A mistake in the configuration or the data that its author can mend.

    The command line prints its message as one line, without a traceback, and exits with code 1. Names and values from
    files end up in messages, so whatever these hold, the message is one printable line of bounded length.
    """

    def __init__(self, message: object) -> None:
        line = shown(message)
        super().__init__(line if len(line) <= LONGEST else f"{line[: LONGEST - 600]} ... {line[-590:]}")


def os_error_behind(error: BaseException | None) -> OSError | None:
    """The failed read or write that an error comes from, however often it was wrapped; None where there is none."""
    seen: set[int] = set()
    while error is not None and not isinstance(error, OSError):
        if id(error) in seen:
            return None  # two errors that are each other's cause
        seen.add(id(error))
        error = error.__cause__
    return error


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


class DivergedError(RuntimeError):
    """The loss or a weight became NaN or infinite. `step` is the first optimizer step at which that was seen."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step
