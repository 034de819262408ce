"""What every entry point does: unknown keys are refused, and a user's mistake ends in one line."""

import os
import signal
import sys
from collections.abc import Callable

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from segsweep.console import explain, fail, mistakes_in_one_line
from segsweep.keys import require_known, typed_keys
from segsweep.sweeps.callback import finish_sweep


def run(main: Callable[[], object]) -> None:
    """Runs a Hydra entry point; a user's mistake ends in one line on stderr and exit code 1, without a traceback."""
    asked_for_more = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra then hands us the exception instead of printing it in several lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    well = True
    try:
        try:
            main()
        finally:
            well = finish_sweep()
    except Exception as error:
        line = None if asked_for_more else explain(error)
        if line is None:
            raise
        fail(line)
    except BaseException as error:
        signum = getattr(error, "signum", signal.SIGINT if isinstance(error, KeyboardInterrupt) else None)
        if signum is None:
            raise
        print(f"stopped by {signal.Signals(signum).name}", file=sys.stderr)
        sys.exit(128 + signum)
    if not well:
        sys.exit(1)


class KnownKeys(Callback):
    """Refuses unknown keys at the root of a command's configuration before anything is made, and once for a sweep.

    Args:
        command: in whose configuration this callback is; a key of `keys.KEYS`.
    """

    def __init__(self, command: str) -> None:
        self.command = command

    def on_run_start(self, config: DictConfig, **_: object) -> None:
        with mistakes_in_one_line():  # Hydra would go on
            require_known(config, self.command, typed_keys(config))

    on_multirun_start = on_run_start
