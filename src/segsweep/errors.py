"""The errors a user's mistake ends in: one line that says what is wrong, where, and what to do."""


class UserError(ValueError):
    """A mistake in the configuration or the data that its author can mend.

    The command line prints its message as one line, without a traceback, and exits with code 1.
    """


def os_error_behind(error: BaseException | None) -> OSError | None:
    """The failed read or write that an error comes from, however often it was wrapped; None where there is none."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return error


class DivergedError(RuntimeError):
    """The loss became NaN or infinite. `step` is the first optimizer step at which it was."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step
