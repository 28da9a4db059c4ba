"""Programs for guests from Debian packages that nobody wants on the machine itself, such as servers that start when they
are installed: unpacked into the cache, as the guest kernel is."""

import os
import pathlib
import shutil
import tempfile

from .cache import cache_folder, exclusive
from .errors import SetUpError
from .tools import unpack_package

SCRATCH_PREFIX = ".unpacking-"


class GuestPackage:
    """The files of one package. Immutable."""

    def __init__(self, name, folder):
        self.name = name
        self.folder = pathlib.Path(folder)

    @classmethod
    def find(cls, name):
        """What was fetched before. Uses no network."""
        folder = _packages_folder() / name
        if not folder.exists():
            raise SetUpError(f"no {name} in {_packages_folder()}: run tests/vm/fetch-guest-packages once")
        return cls(name, folder)

    @classmethod
    def fetch(cls, name):
        """The package in the cache, after downloading it if it is not there."""
        packages = _packages_folder()
        try:
            with exclusive(packages):
                if not (packages / name).exists():
                    _download_into(packages, name)
        except OSError as error:
            raise SetUpError(f"cannot write the cache: {error}; set POSTERN_CACHE to a folder of yours") from error
        return cls.find(name)

    def path(self, inside):
        """Of one of its files, named as if it were installed."""
        path = self.folder / inside.lstrip("/")
        if not path.exists():
            raise SetUpError(f"package {self.name} has no {inside}")
        return path


def _packages_folder():
    return cache_folder() / "guest-packages"


def _download_into(packages, name):
    for leftover in packages.glob(SCRATCH_PREFIX + "*"):  # of a fetch that was killed: we hold the lock
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(dir=packages, prefix=SCRATCH_PREFIX) as scratch:
        scratch = pathlib.Path(scratch)
        unpack_package(name, scratch, scratch / "unpacked")
        os.rename(scratch / "unpacked", packages / name)
