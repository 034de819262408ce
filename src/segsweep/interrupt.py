"""Ends a command in one line at Ctrl-C and SIGTERM, from its first import on.

Entry points import this module before all others; importing it sets the handlers. A training and a sweep set their own
while they run.
"""

import multiprocessing
import os
import signal
from types import FrameType

from segsweep.errors import Interrupted


def interrupt(signum: int, frame: FrameType | None) -> None:
    """Handles a signal: raises Interrupted, or ends the process if a module is being imported.

    An exception in the middle of an import leaves half a module behind. Whoever imports it again on the way out gets a
    traceback, and a half loaded library may crash.
    """
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            os.write(2, f"{Interrupted(signum)}\n".encode())
            os._exit(128 + signum)
        frame = frame.f_back
    raise Interrupted(signum)


if multiprocessing.parent_process() is None and multiprocessing.current_process().name == "MainProcess":
    # Not in joblib's workers, which import the program too.
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
