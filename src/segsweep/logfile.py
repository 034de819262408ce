"""The log of a run."""

import logging
import sys


class LogFile(logging.FileHandler):
    """A log that a full disk may cost lines, but that says nothing of it: the run ends in a line of its own."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """Prints a traceback to stderr, as any handler does, unless the file could not be written."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
