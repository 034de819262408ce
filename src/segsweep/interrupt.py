"""Ends a command without a traceback at Ctrl-C and SIGTERM, from its first import on.

Entry points import this module before all others; importing it sets the handlers. A training and a sweep set their own
while they run.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from types import FrameType

from segsweep.errors import Interrupted

last_words: Callable[[Interrupted], list[str]] | None = None
"""Gives the lines to print, once `cli.start` has set it: they also say how to continue."""


def interrupt(signum: int, frame: FrameType | None) -> None:
    """Handles a signal: raises Interrupted, or ends the process if a module is being imported.

    An exception in the middle of an import leaves half a module behind. Whoever imports it again on the way out gets a
    traceback, and a half loaded library may crash.
    """
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            stopped = Interrupted(signum)
            lines = [str(stopped)] if last_words is None else last_words(stopped)
            os.write(2, "".join(f"{line}\n" for line in lines).encode())
            os._exit(128 + signum)
        frame = frame.f_back
    raise Interrupted(signum)


if multiprocessing.parent_process() is None and multiprocessing.current_process().name == "MainProcess":
    # Not in joblib's workers, which import the program too.
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
