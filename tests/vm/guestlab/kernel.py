"""The guest kernel: Debian's cloud kernel, as packaged, unpacked into the cache.

`GuestKernel.fetch()` is a set-up step and may use the network; `GuestKernel.find()` is what tests call and never does.
An unpacked kernel appears under its final name all at once, so a reader needs no lock and an interrupted fetch leaves
nothing that looks complete.
"""

import os
import pathlib
import re
import shutil

from .cache import cache_folder, scratch_folder, writing
from .errors import SetUpError
from .tools import run_tool, unpack_package
from .vmlinux import UnknownCompression, extract_vmlinux

META_PACKAGE = "linux-image-cloud-amd64"
CURRENT = "current"


class GuestKernel:
    """One unpacked kernel package. Immutable; any number of guests and processes may use it at once."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        images = sorted(self.folder.glob("boot/vmlinuz-*"))
        if len(images) != 1:
            raise SetUpError(f"{self.folder} does not hold exactly one kernel; delete it and fetch again")
        self.release = images[0].name.removeprefix("vmlinuz-")
        self.modules_folder = self.folder / "lib/modules" / self.release
        # The uncompressed image boots about a second sooner under TCG: nothing to unpack in the guest.
        uncompressed = self.folder / "boot" / f"vmlinux-{self.release}"
        self.image = uncompressed if uncompressed.exists() else images[0]

    @classmethod
    def find(cls):
        """The kernel that was fetched before. Uses no network."""
        current = _kernels_folder() / CURRENT
        if not current.exists():
            raise SetUpError(
                f"no guest kernel in {_kernels_folder()}: run tests/vm/fetch-guest-kernel once (it downloads 27 MB)"
            )
        return cls(current.resolve())

    @classmethod
    def fetch(cls):
        """The kernel in the cache, after downloading it if there is none."""
        kernels = _kernels_folder()
        with writing(kernels):
            if not (kernels / CURRENT).exists():
                _download_into(kernels)
        return cls.find()


def _kernels_folder():
    return cache_folder() / "guest-kernel"


def _download_into(kernels):
    package = _kernel_package()
    with scratch_folder(kernels) as scratch:
        unpacked = scratch / "unpacked"
        archive = unpack_package(package, scratch, unpacked)
        _complete(unpacked)
        _publish(unpacked, kernels, archive.stem)


def _kernel_package():
    """The meta package depends on the one real kernel package of the day."""
    listing = run_tool("apt-cache", "depends", META_PACKAGE)
    found = re.search(r"Depends: (linux-image-\S+-cloud-amd64)\s", listing)
    if not found:
        raise SetUpError(f"apt knows no kernel for {META_PACKAGE}: run 'apt-get update' and try again")
    return found.group(1)


def _complete(unpacked):
    """Adds what a package's own installation would: the modules' dependencies; and the uncompressed image."""
    kernel = GuestKernel(unpacked)
    (unpacked / "usr").mkdir(exist_ok=True)
    run_tool("depmod", "-b", str(unpacked), kernel.release)
    if not (kernel.modules_folder / "modules.dep").exists():
        raise SetUpError(f"depmod wrote no modules.dep for kernel {kernel.release}")
    try:
        (unpacked / "boot" / f"vmlinux-{kernel.release}").write_bytes(extract_vmlinux(kernel.image.read_bytes()))
    except UnknownCompression:
        pass  # the packaged image boots too, only later


def _publish(unpacked, kernels, name):
    target = kernels / name
    if target.exists():
        shutil.rmtree(target)
    os.rename(unpacked, target)
    link = kernels / f".{CURRENT}-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    os.rename(link, kernels / CURRENT)
