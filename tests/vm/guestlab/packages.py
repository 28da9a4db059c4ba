"""Programs for guests from Debian packages that nobody wants on the machine itself, such as servers that start when they
are installed: unpacked into the cache, as the guest kernel is."""

import pathlib

from .cache import cache_folder, obtain
from .errors import SetUpError
from .tools import unpack_package


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

        def unpack(scratch):
            unpack_package(name, scratch, scratch / "unpacked")
            return scratch / "unpacked"

        return cls(name, obtain(_packages_folder(), name, unpack))

    def path(self, inside):
        """Of one of its files, named as if it were installed."""
        path = self.folder / inside.lstrip("/")
        if not path.exists():
            raise SetUpError(f"package {self.name} has no {inside}")
        return path


def _packages_folder():
    return cache_folder() / "guest-packages"
