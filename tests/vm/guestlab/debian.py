"""A disk of Debian 12 with systemd: made by mmdebstrap from this machine's apt sources, kept in the cache, copied for a guest.

The kernel is the guest kernel, whose modules the disk has; the disk has what the agent's package depends on, so that apt
installs it without a network.
"""

import hashlib
import os
import pathlib

from .cache import cache_folder, obtain
from .errors import SetUpError
from .initramfs import READY, Initramfs
from .kernel import GuestKernel
from .tools import run_tool

RELEASE = "bookworm"  # Debian 12
SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
PACKAGES = (
    *("systemd-sysv", "udev", "dbus", "kmod"),
    *("libcapnp-0.9.2", "libseccomp2", "libsodium23", "libspdlog1.10", "libstdc++6"),
)
SIZE = "1G"  # sparse

CONSOLE = f"""\
#!/bin/sh
# The shell that a test types on: it neither prompts nor edits.
stty -echo -opost
echo "{READY}"
exec sh /dev/stdin
"""
CONSOLE_UNIT = """\
[Unit]
Description=Shell of the test on the console
[Service]
ExecStart=/usr/local/sbin/test-console
StandardInput=tty
StandardOutput=tty
TTYPath=/dev/ttyS0
Environment=HOME=/root TERM=dumb PAGER=cat DEBIAN_FRONTEND=noninteractive
Restart=always
RestartSec=0
[Install]
WantedBy=multi-user.target
"""
# In a folder with root.tar, console and console.service, for the modules in $1 and the size $2.
MAKE_DISK = """\
mkdir root
tar -C root -xf root.tar
mkdir -p root/usr/lib/modules
cp -r "$1" root/usr/lib/modules
install console root/usr/local/sbin/test-console
units=root/etc/systemd/system
install -m 644 console.service $units/test-console.service
mkdir -p $units/multi-user.target.wants
ln -s ../test-console.service $units/multi-user.target.wants
ln -s /dev/null $units/serial-getty@ttyS0.service
echo debian >root/etc/hostname
mke2fs -q -t ext4 -d root disk "$2"
"""


class DebianDisk:
    """Immutable. For one guest kernel."""

    def __init__(self, kernel, path):
        self.kernel = kernel
        self.path = pathlib.Path(path)

    @classmethod
    def find(cls):
        """The disk for the guest kernel that was fetched. Uses no network."""
        kernel = GuestKernel.find()
        path = _folder() / _name(kernel)
        if not path.exists():
            raise SetUpError(f"no {path.name} in {path.parent}: run tests/vm/fetch-debian-guest once")
        return cls(kernel, path)

    @classmethod
    def fetch(cls):
        """The disk in the cache, after making it if there is none; those of other kernels and recipes are removed."""
        kernel = GuestKernel.find()
        path = obtain(_folder(), _name(kernel), lambda scratch: _make(kernel, scratch))
        for other in set(path.parent.glob("*.ext4")) - {path}:
            other.unlink()
        return cls(kernel, path)

    def copy_to(self, path, files):
        """A guest's own, with `files` more: path here -> path in the guest. Gives the path."""
        run_tool("cp", "--sparse=always", str(self.path), str(path))
        for here, inside in files.items():
            run_tool("debugfs", "-w", "-R", f"write {here} {inside}", str(path))
        return path

    def initramfs(self):
        """What boots it, as /dev/vda."""
        return Initramfs(self.kernel).add_modules("virtio_pci", "virtio_blk").boot_disk("/dev/vda")


def copy_out(disk, inside, folder):
    """Copies a folder of a disk that no guest has into `folder`."""
    run_tool("debugfs", "-R", f"rdump {inside} {folder}", str(disk))


def _folder():
    return cache_folder() / "debian-guest"


def _name(kernel):
    recipe = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()[:12]
    return f"{RELEASE}-{kernel.release}-{recipe}.ext4"


def _make(kernel, scratch):
    (scratch / "make-disk").write_text(MAKE_DISK)
    (scratch / "console").write_text(CONSOLE)
    (scratch / "console.service").write_text(CONSOLE_UNIT)
    archive = scratch / "root.tar"
    options = ["--variant=minbase", "--quiet", f"--include={','.join(PACKAGES)}"]
    run_tool("mmdebstrap", *options, RELEASE, str(archive), _sources())
    # fakeroot: files belong to whom they belong to in the guest, whoever unpacks them.
    run_tool("fakeroot", "sh", "-e", "make-disk", str(kernel.modules_folder), SIZE, cwd=scratch)
    return scratch / "disk"


def _sources():
    for path in SOURCES:
        if os.path.exists(path):
            return path
    raise SetUpError(f"apt has no sources in {' or '.join(SOURCES)}")
