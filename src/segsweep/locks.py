"""Lock files of runs and sweeps."""

from pathlib import Path

from filelock import FileLock, Timeout


def held(lock: Path) -> bool:
    """Whether a process holds this lock file."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except (Timeout, OSError):
        return True
