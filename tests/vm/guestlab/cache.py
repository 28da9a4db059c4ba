"""The folder that outlives a test run: what set-up steps have downloaded or made, and nothing else."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile

from .errors import SetUpError

SCRATCH_PREFIX = ".unpacking-"


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


def obtain(folder, name, make):
    """folder/name. If it is not there, make(scratch folder) gives the path of what becomes it, whole and once, whoever else
    asks meanwhile."""
    with writing(folder):
        if not (folder / name).exists():
            with scratch_folder(folder) as scratch:
                os.rename(make(scratch), folder / name)
    return folder / name


@contextlib.contextmanager
def writing(folder):
    """As exclusive(); a folder that cannot be written is a SetUpError."""
    try:
        with exclusive(folder):
            yield
    except OSError as error:
        raise SetUpError(f"cannot write the cache: {error}; set POSTERN_CACHE to a folder of yours") from error


@contextlib.contextmanager
def scratch_folder(folder):
    """One in `folder`, whose lock is held, for as long as the block; those of fetches that were killed are removed."""
    for leftover in folder.glob(SCRATCH_PREFIX + "*"):
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(dir=folder, prefix=SCRATCH_PREFIX) as scratch:
        yield pathlib.Path(scratch)
