"""The folder that outlives a test run: downloaded kernels, and nothing else."""

import contextlib
import fcntl
import os
import pathlib


def cache_folder():
    """$POSTERN_CACHE, or the user's cache folder. Not created here: looking must leave no trace."""
    explicit = os.environ.get("POSTERN_CACHE")
    if explicit:
        return pathlib.Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(base) / "postern"


@contextlib.contextmanager
def exclusive(folder):
    """Holds the folder's lock, so that one process at a time fills it. The kernel drops the lock with its holder."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
